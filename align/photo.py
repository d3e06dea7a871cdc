"""Photos in and out: read by content within limits, written whole or not at all."""

import hashlib
import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from align.errors import PhotoError
from align.files import atomic_write

MAX_PIXELS = 40_000_000
_MAX_BYTES = 8 * MAX_PIXELS + 2**20  # 16-bit RGBA, not compressed at all
_READ = ("JPEG", "PNG", "WEBP", "BMP")
# How each suffix is written; WebP without loss, since known pixels are to stay as they are.
WRITABLE: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
}
_JPEG_SEGMENT_BYTES = 65_533
# catch_warnings swaps a global list: two threads inside of it may leave the wrong one behind.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Photo:
    """A photo, upright.

    Attributes:
        pixels: uint8 (H, W, 3) RGB; what is transparent lies on white.
        image: the same photo in a mode like its file's own: L, LA, RGB or RGBA.
        icc_profile: the file's colour profile, if it is sound and fits `image`.
        exif: the file's EXIF block without place, orientation and thumbnail.
        sha256: hex digest of the file that was read; empty for an image from elsewhere.
    """

    pixels: NDArray[np.uint8]
    image: Image.Image
    icc_profile: bytes | None
    exif: bytes | None
    sha256: str


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a JPEG, PNG, WebP or BMP file, whatever its suffix says.

    Args:
        path: the file.
        max_pixels: most pixels to read, up to MAX_PIXELS.
    Returns:
        the photo, upright.
    Raises:
        PhotoError: not a regular file, not one of the four kinds, damaged, animated, or over `max_pixels`.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise PhotoError("not a regular file; give a photo")
        if found.st_size > _MAX_BYTES:
            raise PhotoError(f"too large: {found.st_size:,} bytes, at most {_MAX_BYTES:,} are read; make it smaller")
        with path.open("rb") as file, _quiet():
            # The header alone tells the size, and decoding skips the check sums of a PNG that verify looks at.
            with _damage_named():
                _open(file, max_pixels).verify()
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror or error}") from error
    with _quiet(), _damage_named():
        image = _open(io.BytesIO(data), max_pixels)
        image.load()
    if image.mode == "CMYK" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for one by Adobe, which stores ink inverted.
        return to_photo(ImageChops.invert(image), hashlib.sha256(data).hexdigest())
    return to_photo(image, hashlib.sha256(data).hexdigest())


def to_photo(image: Image.Image, sha256: str = "") -> Photo:
    """Make a photo of a Pillow image of any mode.

    Integer grey is taken for 16-bit; of floats 0 is black and the greatest finite value white.

    Args:
        image: may carry `exif` and `icc_profile` in its info; left as it is.
        sha256: hex digest of the file that it came from.
    """
    upright = image.copy()
    exif = None
    with _quiet():
        try:
            ImageOps.exif_transpose(upright, in_place=True)
            exif = _without_place(upright.getexif())
        except Exception:  # Pillow raises nearly every kind on corrupt EXIF, which says nothing about the pixels
            pass
        icc_profile = upright.info.get("icc_profile")
        plain = _reduce_mode(upright, icc_profile)
        plain.info = {}
        kept = None if upright.mode == "CMYK" else _fitting(icc_profile, plain.mode)
        return Photo(_on_white(plain), plain, kept, exif, sha256)


def write_photo(
    path: Path, pixels: NDArray[np.uint8], like: Photo | None = None, hole: NDArray[np.bool_] | None = None
) -> None:
    """Write a photo whole or not at all; missing folders are made.

    Args:
        path: .png, .jpg, .jpeg, .webp or .bmp; only JPEG loses anything but transparency, which BMP loses too.
        pixels: uint8 (H, W, 3) RGB.
        like: a photo of the same size that lends its mode, ICC profile and EXIF.
        hole: bool (H, W), True = take `pixels`, opaque; all other pixels are those of `like`. Default: all True.
    Raises:
        PhotoError: the suffix is unknown, the format cannot hold the photo, or the file cannot be written.
    """
    if path.suffix.lower() not in WRITABLE:
        raise PhotoError(f"the suffix {path.suffix!r} names no format written here; use one of {', '.join(WRITABLE)}")
    kind, settings = WRITABLE[path.suffix.lower()]
    image = Image.fromarray(pixels)
    metadata = {}
    if like is not None:
        image = image.convert(like.image.mode)
        if hole is not None:
            merged = np.array(like.image)  # (H, W) or (H, W, 2 to 4)
            merged[hole] = np.asarray(image)[hole]
            image = Image.fromarray(merged)
    if kind in ("JPEG", "BMP") and "A" in image.mode:
        image = Image.fromarray(_on_white(image)).convert(image.mode.rstrip("A"))
    if kind == "WEBP" and image.mode.startswith("L"):
        image = image.convert("RGBA" if "A" in image.mode else "RGB")
    if like is not None and kind != "BMP":
        found = {"icc_profile": _fitting(like.icc_profile, image.mode), "exif": like.exif}
        metadata = {key: value for key, value in found.items() if value}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            image.save(file, kind, **settings, **metadata)
    except (OSError, ValueError) as error:
        raise PhotoError(f"cannot be written: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings on sizes and corrupt metadata from the user; what matters of them is an error here."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind on damaged files
        raise PhotoError(f"truncated or damaged ({error}); get a whole copy") from error


def _open(file: IO[bytes], max_pixels: int) -> ImageFile.ImageFile:
    """Read a file's header; no pixel is decoded yet."""
    try:
        image = Image.open(file, formats=_READ)
    except UnidentifiedImageError as error:
        raise PhotoError("not an image of a kind read here: JPEG, PNG, WebP, BMP; convert it to one of them") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"too large: {error}; at most {max_pixels:,} pixels are read; make it smaller") from error
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError(f"too large: {width}x{height} are over {max_pixels:,} pixels; make it smaller")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a JPEG with a preview behind it
        raise PhotoError("an animation; save one of its frames as a photo")
    return image


def _without_place(exif: Image.Exif) -> bytes | None:
    exif.pop(ExifTags.Base.GPSInfo, None)
    exif.pop(ExifTags.Base.Orientation, None)
    data = exif.tobytes() if len(exif) else b""  # never holds the thumbnail
    return data if 0 < len(data) <= _JPEG_SEGMENT_BYTES else None


def _reduce_mode(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """The image in L, LA, RGB or RGBA."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        white = 65_535 if image.mode.startswith("I") else values.max(initial=1e-9, where=np.isfinite(values))
        return Image.fromarray((np.nan_to_num(values / white).clip(0, 1) * 255).round().astype(np.uint8))
    if image.mode == "CMYK" and icc_profile:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(icc_profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except ImageCms.PyCMSError:
            pass  # a broken profile, or one for another mode, is ignored
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return image.convert("LA" if grey else "RGBA")
    return image.convert("L" if grey else "RGB")


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    if "A" in image.mode:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _fitting(icc_profile: bytes | None, mode: str) -> bytes | None:
    """The colour profile, if it is sound and made for the mode."""
    if not icc_profile:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return icc_profile if space == ("GRAY" if mode.startswith("L") else "RGB") else None

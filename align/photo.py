"""Photos in and out: read by content within limits, written whole or not at all, listed and named."""

import hashlib
import io
import os
import re
import secrets
import stat
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

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
# Kinds that read_photo refuses are listed too, so that they are named with their reason instead of passed over.
_LISTED = {*WRITABLE, ".jfif", ".gif", ".tif", ".tiff", ".heic", ".avif", ".eps", ".pdf", ".psd", ".svg"}
_JPEG_SEGMENT_BYTES = 65_533
# catch_warnings swaps a global list: two threads inside of it may leave the wrong one behind.
_one_at_a_time = threading.Lock()


class PhotoError(Exception):
    """A photo cannot be read or written, or a folder not be used; says why, without the photo's path."""


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
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends well, and vanishes otherwise."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def list_photos(folder: Path, skip: Collection[Path] = ()) -> list[Path]:
    """Every file below a folder that claims by its suffix to be a picture, sorted; nothing hidden.

    Args:
        folder: links to folders are followed, each real folder once.
        skip: folders below it to stay out of, such as an output folder.
    Raises:
        PhotoError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise PhotoError(f"{error.filename} cannot be listed: {error.strerror}") from error

    seen = {os.path.realpath(path) for path in skip} - {os.path.realpath(folder)}
    photos = []
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        photos += [Path(here, name) for name in files if not name.startswith(".")]
    return sorted(photo for photo in photos if photo.suffix.lower() in _LISTED)


def output_names(photos: Sequence[Path], root: Path, numbered: bool = False) -> dict[Path, Path]:
    """Where each photo's output goes, relative to the output folder: `sub/a.jpg` to `sub/a.png`.

    Photos that would meet keep their suffix: `a.jpg` and `a.png` go to `a.jpg.png` and `a.png.png`.

    Args:
        photos: distinct files below `root`.
        root: the input folder.
        numbered: outputs may also be called `a_1.png`, `a_2.png`, ..., so a photo `a_1.jpg` meets `a.jpg`.
    """
    bases = {photo: photo.relative_to(root).with_suffix("") for photo in photos}
    while True:
        taken = set(bases.values())
        claims = {photo: _claim(base, taken, numbered) for photo, base in bases.items()}
        count = Counter(claims.values())
        meeting = {photo: photo.relative_to(root) for photo in photos if count[claims[photo]] > 1}
        if all(bases[photo] == name for photo, name in meeting.items()):
            return {photo: base.with_name(base.name + ".png") for photo, base in bases.items()}
        bases |= meeting


def prepare_folder(folder: Path, *taken: Path) -> None:
    """Make an output folder and see that it can be written to, before any work is done.

    Args:
        folder: the output folder.
        taken: folders that it must not be, such as the input's.
    Raises:
        PhotoError: it is one of `taken`, or cannot be made or written to.
    """
    try:
        for other in taken:
            if folder.exists() and other.exists() and folder.samefile(other):
                raise PhotoError(f"{folder} cannot take the output, being {other} itself; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PhotoError(f"{folder} cannot be written to: {error.strerror}; choose another folder") from error


def _claim(base: Path, bases: set[Path], numbered: bool) -> Path:
    if numbered and (first := base.with_name(re.sub(r"_\d+$", "", base.name) or base.name)) in bases:
        return first
    return base


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

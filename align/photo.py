"""Read and write photos: format by content, size limits, metadata, atomic writes."""

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from align.errors import PhotoError
from align.files import atomic_write, read_file
from align.warp import Alignment

MAX_PIXELS = 40_000_000
MAX_BYTES = 8 * MAX_PIXELS + 2**20  # uncompressed 16-bit RGBA
_READ = ("JPEG", "PNG", "WEBP", "BMP")
# Format and settings for each suffix. WebP is lossless, so that pixels outside a hole keep their values. On photos,
# PNG's level 3 takes a third of the time of the usual 6 and 2 to 9 % more space; level 1 a quarter and 5 to 20 %.
WRITABLE: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 3}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
}
# The only metadata that is kept, apart from the colour profile: camera, exposure, capture time, resolution, copyright.
# Anything else may hold a place, a name, or a preview of the face before the hole.
_TAGS = {
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.DateTime,
    ExifTags.Base.Copyright,
}
_EXIF_TAGS = {
    ExifTags.Base.ExposureTime,
    ExifTags.Base.FNumber,
    ExifTags.Base.ISOSpeedRatings,
    ExifTags.Base.FocalLength,
    ExifTags.Base.LensMake,
    ExifTags.Base.LensModel,
    ExifTags.Base.DateTimeOriginal,
    ExifTags.Base.DateTimeDigitized,
    ExifTags.Base.OffsetTime,
    ExifTags.Base.OffsetTimeOriginal,
    ExifTags.Base.OffsetTimeDigitized,
    ExifTags.Base.SubsecTime,
    ExifTags.Base.SubsecTimeOriginal,
    ExifTags.Base.SubsecTimeDigitized,
}
_TEXT_CHARACTERS = 500  # longer values are not what the tags are for
_MAX_DPI = 65_535  # JPEG stores 16 bits
# EXIF orientation -> how to turn the stored pixels upright.
_TURNS = dict(enumerate([Image.Transpose(turn) for turn in (0, 3, 1, 5, 4, 6, 2)], start=2))
# catch_warnings replaces global state and is not safe in two threads at once.
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class Photo:
    """An upright photo.

    Attributes:
        pixels: uint8 (H, W, 3) RGB; transparent pixels are composited on white.
        image: the same photo in L, LA, RGB or RGBA, whichever is closest to the mode of the file.
        icc_profile: the colour profile, if it is valid for the mode of `image`.
        exif: an EXIF block with camera, exposure, capture time, resolution and copyright, if the file has them.
        dpi: horizontal and vertical resolution in pixels per inch, if the file states it.
        sha256: SHA-256 of the file, in hex; empty if the photo does not come from a file.
        turned: how the stored pixels were turned upright, as the EXIF orientation says.
        faces: the faces found in the photo, by what was searched for; filled by who searches.
    """

    pixels: NDArray[np.uint8]
    image: Image.Image
    icc_profile: bytes | None
    exif: bytes | None
    dpi: tuple[float, float] | None
    sha256: str
    turned: Image.Transpose | None = None
    faces: dict[Any, list[Alignment]] = field(default_factory=dict, repr=False, compare=False)


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a JPEG, PNG, WebP or BMP file, whatever its suffix.

    Args:
        path: the file.
        max_pixels: size limit, up to MAX_PIXELS.
    Raises:
        PhotoError: not a regular file, another format, damaged, animated, or larger than `max_pixels`.
    """
    return decode_photo(read_file(path, MAX_BYTES), max_pixels)


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode the content of a file, see `read_photo`."""
    # The header has the size; verify checks the checksums of a PNG, which decoding ignores.
    with _quiet(), _damage_named():
        _open(io.BytesIO(data), max_pixels).verify()
    with _quiet(), _damage_named():
        image = _open(io.BytesIO(data), max_pixels)
        image.load()
    # Pillow treats every CMYK JPEG as one by Adobe, which stores inverted values.
    inverted = image.mode == "CMYK" and "adobe" not in image.info
    return _to_photo(ImageChops.invert(image) if inverted else image, hashlib.sha256(data).hexdigest())


def digest(path: Path) -> str:
    """Return the SHA-256 of a photo's or mask's file, in hex.

    Raises:
        PhotoError: the file cannot be read, or is larger than a photo can be.
    """
    return hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()


def to_photo(image: Image.Image, sha256: str = "") -> Photo:
    """Convert a Pillow image of any mode to a Photo.

    Integer modes are read as 16-bit grey; in float modes 0 is black and the largest finite value is white.

    Args:
        image: the image, with EXIF and colour profile in its `info`; not modified.
        sha256: SHA-256 of the image's file, in hex.
    """
    return _to_photo(image.copy(), sha256)


def _to_photo(upright: Image.Image, sha256: str) -> Photo:
    """Convert an image that may be modified."""
    exif, dpi, turned = None, _resolution(upright), None
    with _quiet():
        try:
            turned = _TURNS.get(upright.getexif().get(ExifTags.Base.Orientation, 1))
            ImageOps.exif_transpose(upright, in_place=True)
            exif = _allowed(upright.getexif())
        except Exception:  # corrupt EXIF raises almost anything in Pillow; the pixels are still good
            pass
        icc_profile = upright.info.get("icc_profile")
        plain = _reduce_mode(upright, icc_profile)
        plain.info = {}
        kept = None if upright.mode == "CMYK" else _fitting(icc_profile, plain.mode)
        return Photo(_on_white(plain), plain, kept, exif, dpi, sha256, turned)


PhotoLike = Photo | Image.Image | NDArray[Any] | str | os.PathLike[str] | bytes | IO[bytes]


def as_photo(photo: PhotoLike) -> Photo:
    """Convert any usual form of a photo.

    Args:
        photo: a path, the bytes of a file or an open one, a Pillow image, or an array of shape (H, W) or (H, W, C)
            with C = 1 (grey), 2 (grey and alpha),
            3 (RGB) or 4 (RGBA), as uint8, as uint16 or as floats from 0 to 1. A Photo is returned unchanged.
    Raises:
        PhotoError: the file cannot be read, or the array has another shape, type or range.
    """
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, Image.Image):
        return to_photo(photo)
    if isinstance(photo, str | os.PathLike):
        try:
            return read_photo(Path(photo).expanduser())
        except PhotoError as error:
            raise PhotoError(f"{os.fspath(photo)}: {error}") from error
    if isinstance(photo, bytes):
        return decode_photo(photo)
    if not isinstance(photo, np.ndarray) and hasattr(photo, "read"):
        return decode_photo(photo.read())
    pixels = _as_bytes(photo)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return Photo(pixels, Image.fromarray(pixels), None, None, None, "")
    return to_photo(Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels))


def _as_bytes(photo: Any) -> NDArray[np.uint8]:
    """Check the shape of an array and scale its values to uint8."""
    pixels = np.asarray(photo)
    if pixels.dtype.kind not in "biuf" or pixels.ndim == 0:
        raise PhotoError(f"the photo is a {type(photo).__name__}; expected a path, a Pillow image or a numpy array")
    if pixels.ndim not in (2, 3) or pixels.ndim == 3 and not 1 <= pixels.shape[2] <= 4 or 0 in pixels.shape:
        raise PhotoError(f"the photo has shape {pixels.shape}; expected (H, W) or (H, W, C) with C from 1 to 4")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return (pixels / 257).round().astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise PhotoError(f"the photo is {pixels.dtype}; expected uint8, uint16, or floats from 0 to 1")
    least, most = pixels.min(), pixels.max()
    if not (least >= 0 and most <= 1):  # also NaN
        raise PhotoError(
            f"the photo has {pixels.dtype} values from {least:g} to {most:g}; expected 0 to 1, or convert it to uint8"
        )
    return (pixels * 255).round().astype(np.uint8)


def merge(pixels: NDArray[np.uint8], photo: Photo, hole: NDArray[np.bool_] | None = None) -> Image.Image:
    """Convert pixels to the mode of a photo, and take the pixels outside the hole from that photo.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        photo: photo of the same size.
        hole: bool (H, W), True = take `pixels`, opaque. None: True everywhere.
    """
    mode = photo.image.mode
    converted = pixels if mode == "RGB" else np.asarray(Image.fromarray(pixels).convert(mode))
    if hole is None:
        return Image.fromarray(converted)
    merged = np.array(photo.image)  # (H, W) or (H, W, 2 to 4)
    # Indexing with a large hole would take 16 bytes per pixel.
    np.copyto(merged, converted, where=hole if merged.ndim == 2 else hole[..., None])
    return Image.fromarray(merged)


def write_photo(
    path: Path, pixels: NDArray[np.uint8], like: Photo | None = None, hole: NDArray[np.bool_] | None = None
) -> None:
    """Write a photo atomically; missing folders are created.

    Args:
        path: .png, .jpg, .jpeg, .webp or .bmp. JPEG is lossy; JPEG and BMP drop transparency.
        pixels: uint8 (H, W, 3) RGB.
        like: photo of the same size from which to take the mode, colour profile, EXIF and resolution.
        hole: bool (H, W), True = write `pixels`, opaque; elsewhere write the pixels of `like`. None: True everywhere.
    Raises:
        PhotoError: the suffix is unknown, the format cannot store the photo, or the file cannot be written.
    """
    if path.suffix.lower() not in WRITABLE:
        raise PhotoError(f"the suffix {path.suffix!r} is not supported; use one of {', '.join(WRITABLE)}")
    kind, settings = WRITABLE[path.suffix.lower()]
    image = Image.fromarray(pixels) if like is None else merge(pixels, like, hole)
    metadata = {}
    if kind in ("JPEG", "BMP") and "A" in image.mode:
        image = Image.fromarray(_on_white(image)).convert(image.mode.rstrip("A"))
    if kind == "WEBP" and image.mode.startswith("L"):
        image = image.convert("RGBA" if "A" in image.mode else "RGB")
    if like is not None:
        found = {"icc_profile": _fitting(like.icc_profile, image.mode), "exif": like.exif, "dpi": like.dpi}
        found = {"dpi": like.dpi} if kind == "BMP" else found
        metadata = {key: value for key, value in found.items() if value}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            image.save(file, kind, **settings, **metadata)
    except (OSError, ValueError) as error:
        raise PhotoError(f"cannot be written: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about size and metadata; this module raises errors for those that matter."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _damage_named() -> Iterator[None]:
    """Turn errors of Pillow's decoders into PhotoError."""
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # damaged files raise almost anything
        raise PhotoError(f"truncated or damaged ({error}); use an intact copy") from error


def _open(file: IO[bytes], max_pixels: int) -> ImageFile.ImageFile:
    """Read a file's header, without decoding pixels."""
    try:
        image = Image.open(file, formats=_READ)
    except UnidentifiedImageError as error:
        raise PhotoError("not an image in a supported format; expected JPEG, PNG, WebP or BMP") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"too large: {error}; the limit is {max_pixels:,} pixels; reduce the photo") from error
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError(f"too large: {width}x{height}, the limit is {max_pixels:,} pixels; reduce the photo")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO file is a JPEG followed by a preview
        raise PhotoError("an animation; expected a still image: save one of its frames")
    return image


def _allowed(exif: Image.Exif) -> bytes | None:
    """Copy the tags of the allow-lists into a new EXIF block; None if there are none."""
    kept = Image.Exif()
    kept.update(_plain(exif, _TAGS))
    if details := _plain(exif.get_ifd(ExifTags.IFD.Exif), _EXIF_TAGS):
        kept.get_ifd(ExifTags.IFD.Exif).update(details)
    return kept.tobytes() if len(kept) or details else None


def _plain(tags: Mapping[int, Any], allowed: Collection[int]) -> dict[int, Any]:
    """Select allowed tags whose values are numbers or short text."""
    found = {tag: tags[tag] for tag in sorted(allowed) if tag in tags}
    found = {tag: value.partition("\0")[0] if isinstance(value, str) else value for tag, value in found.items()}
    return {
        tag: value
        for tag, value in found.items()
        if isinstance(value, Real) or isinstance(value, str) and len(value) <= _TEXT_CHARACTERS
    }


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    try:
        across, down = map(float, image.info["dpi"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return (across, down) if 1 <= across <= _MAX_DPI and 1 <= down <= _MAX_DPI else None


def _reduce_mode(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert an image to L, LA, RGB or RGBA."""
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
            pass  # an invalid profile is ignored
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    if "A" in image.mode:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _fitting(icc_profile: bytes | None, mode: str) -> bytes | None:
    """Return the colour profile if it is valid for the mode."""
    if not icc_profile:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return icc_profile if space == ("GRAY" if mode.startswith("L") else "RGB") else None

"""Read and write photos: format by content, size limits, metadata, atomic writes."""

import hashlib
import io
import json
import os
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    ExifTags,
    Image,
    ImageChops,
    ImageCms,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from align import colour
from align.bounds import check_work
from align.deep import decode_colours, encode_png, to_8_bits, write_tiff
from align.errors import PhotoError
from align.files import atomic_write, read_file
from align.resize import in_bands
from align.warp import Alignment

MAX_PIXELS = 150_000_000
MAX_BYTES = 8 * MAX_PIXELS + 2**20  # uncompressed 16-bit RGBA
_READ = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "PPM")
_EXPECTED = "expected JPEG, PNG, TIFF, WebP, HEIC, AVIF, BMP, PPM or a GIF of one frame"
_CONVERT = "convert it to PNG, for example with GIMP"
# What a file is that cannot be read -> its first bytes.
_PICTURES = {
    "a Photoshop file": (b"8BPS",),
    "a GIMP file": (b"gimp xcf",),
    "a PDF": (b"%PDF",),
    "a PostScript file": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "a JPEG 2000 file": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "a JPEG XL file": (b"\0\0\0\x0cJXL ", b"\xff\x0a"),
    "an icon": (b"\0\0\1\0",),
    "a raw file of a camera": (b"FUJIFILMCCD", b"II*\0\x10\0\0\0CR"),
    "an unusual TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "a damaged JPEG": (b"\xff\xd8\xff",),
    "a damaged PNG": (b"\x89PNG\r\n\x1a\n",),
    "a damaged GIF": (b"GIF8",),
    "an unusual BMP": (b"BM",),
}
_OTHERS = {
    "a ZIP archive": b"PK\3\4",
    "a gzip archive": b"\x1f\x8b",
    "an archive": b"Rar!",
    "a video": b"\x1aE\xdf\xa3",
}
_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
# Format and settings for each suffix. WebP is lossless, so that pixels outside a hole keep their values. On photos,
# PNG's level 3 takes a third of the time of the usual 6 and 2 to 9 % more space; level 1 a quarter and 5 to 20 %.
WRITABLE: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 3}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}
# The only metadata that is kept, apart from the colour profile: camera, exposure, capture time, resolution, copyright.
# Anything else may hold a place, a name, or a preview of the face before the hole.
_TAGS = {ExifTags.Base[name] for name in "Make Model XResolution YResolution ResolutionUnit DateTime Copyright".split()}
_EXIF_TAGS = {
    ExifTags.Base[name]
    for name in (
        "ExposureTime FNumber ISOSpeedRatings FocalLength LensMake LensModel DateTimeOriginal DateTimeDigitized "
        "OffsetTime OffsetTimeOriginal OffsetTimeDigitized SubsecTime SubsecTimeOriginal SubsecTimeDigitized"
    ).split()
}
_TEXT_CHARACTERS = 500  # longer values are not what the tags are for
_BITS, _TILE_WIDTH, _TILE_LENGTH = 258, 322, 323  # tags of TIFF
_MOST_PAGES = 100  # of a TIFF: 16,000 take half a minute
_BAND = 512  # rows that are copied at a time
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
        stored: the same photo as L (H, W), LA (H, W, 2), RGB or RGBA, whichever is closest to the mode of the file;
            uint8, or uint16 if the file has 16 bits. It may be the same array as `pixels`.
        icc_profile: the colour profile, if it is valid for the mode of `stored`.
        exif: an EXIF block with camera, exposure, capture time, resolution and copyright, if the file has them.
        dpi: horizontal and vertical resolution in pixels per inch, if the file states it.
        sha256: SHA-256 of the file, in hex; empty if the photo does not come from a file.
        turned: how the stored pixels were turned upright, as the EXIF orientation says.
        notes: what was found amiss in the file, as sentences without a full stop.
        faces: the faces found in the photo, by what was searched for; filled by who searches.
    """

    pixels: NDArray[np.uint8]
    stored: NDArray[Any]
    icc_profile: bytes | None
    exif: bytes | None
    dpi: tuple[float, float] | None
    sha256: str
    turned: Image.Transpose | None = None
    notes: tuple[str, ...] = ()
    faces: dict[Any, list[Alignment]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def mode(self) -> str:
        """L, LA, RGB or RGBA."""
        return "L" if self.stored.ndim == 2 else {2: "LA", 3: "RGB", 4: "RGBA"}[self.stored.shape[2]]

    @property
    def image(self) -> Image.Image:
        """A copy of the photo as an 8-bit image in L, LA, RGB or RGBA."""
        return Image.fromarray(to_8_bits(self.stored))


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a JPEG, PNG, TIFF, WebP, HEIC, AVIF, BMP, PPM or GIF file, whatever its suffix.

    Of the pages of a TIFF, the first is read that is no thumbnail.

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
        check_work(data)
        _open(data, max_pixels)[0].verify()
    with _quiet(), _damage_named():
        file, notes = _open(data, max_pixels)
        tags = file.tag_v2 if isinstance(file, TiffImagePlugin.TiffImageFile) else None
        turned = _TURNS.get(tags.get(ExifTags.Base.Orientation, 1)) if tags else None
        image: Image.Image = file
        try:
            file.load()
        except OSError as error:
            if not isinstance(file, JpegImagePlugin.JpegImageFile) or "progressive" in file.info:
                raise
            image, rows = _mended(data, max_pixels, error)
            notes += (
                f"the file ends too early: {f'of its last {rows} rows, a part' if rows else 'its end mark'} is missing",
            )
        if file.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            image = image.convert("RGB")  # the fourth byte is unused
        if profile := _described_profile(file, data, image.mode in ("1", "L", "LA") or image.mode.startswith("I")):
            image.info["icc_profile"] = profile
    digest = hashlib.sha256(data).hexdigest()
    if tags is not None:
        # Pillow takes any fourth channel for alpha, and has turned the image when it was loaded.
        if "A" in image.mode and ExifTags.Base.ExtraSamples not in tags:
            image = image.convert(image.mode.rstrip("A"))
        photo = replace(_to_photo(image, digest), turned=turned)
    else:
        # Pillow treats every CMYK JPEG as one by Adobe, which stores inverted values.
        inverted = image.mode == "CMYK" and "adobe" not in image.info
        photo = _to_photo(ImageChops.invert(image) if inverted else image, digest)
    if file.format == "PNG" and data[24] == 16 or tags and tags.get(_BITS, (8,))[0] == 16:
        if photo.mode == "L":
            deep = np.asarray(image).astype(np.uint16) if image.mode.startswith("I;16") else None
            if deep is not None and tags and tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
                deep = 65_535 - deep  # 0 is white, which Pillow overlooks
        else:
            deep = decode_colours(data, photo.stored, photo.turned)
        if deep is None:
            notes += ("the file has 16 bits per channel; 8 of them were kept",)
        else:
            photo = replace(photo, stored=deep, pixels=_on_white(deep))
    return replace(photo, notes=notes)


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
        stored = _array(plain)
        return Photo(stored if plain.mode == "RGB" else _on_white(stored), stored, kept, exif, dpi, sha256, turned)


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
        if not all(photo.size):
            raise PhotoError(f"the photo has {photo.width}x{photo.height} pixels; expected at least 1x1")
        with _damage_named():
            return to_photo(photo)
    if isinstance(photo, str | os.PathLike):
        try:
            return read_photo(Path(photo).expanduser())
        except PhotoError as error:
            raise PhotoError(f"{os.fspath(photo)}: {error}") from error
    if not isinstance(photo, np.ndarray) and hasattr(photo, "read"):
        photo = photo.read()
        if isinstance(photo, str):
            raise PhotoError("a text file; open it for reading bytes")
    if isinstance(photo, bytes | bytearray | memoryview):
        return decode_photo(bytes(photo))
    pixels = _as_bytes(photo)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return Photo(pixels, pixels, None, None, None, "")
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


def filled(pixels: NDArray[np.uint8], hole: NDArray[np.bool_], fill: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of pixels (H, W, 3) with N of them, where hole (H, W) is True, replaced by a fill (N, 3)."""
    copy = pixels.copy()
    copy[hole] = fill
    return copy


def merge(pixels: NDArray[np.uint8], photo: Photo, hole: NDArray[np.bool_] | None = None) -> Image.Image:
    """Convert pixels to the mode of a photo, and take the pixels outside the hole from that photo.

    Args:
        pixels: uint8 RGB, (H, W, 3), or (N, 3) for the N pixels of the hole.
        photo: photo of the same size.
        hole: bool (H, W), True = take `pixels`, opaque. None: True everywhere.
    """
    height, width = photo.stored.shape[:2]
    image = Image.new(photo.mode, (width, height))
    for top in range(0, height, _BAND):  # a copy of a large photo takes much memory
        band = slice(top, top + _BAND)
        rows, under = pixels[band], None if hole is None else hole[band]
        if under is not None and pixels.ndim == 2:
            count = np.count_nonzero(under)
            rows, pixels = filled(photo.pixels[band], under, pixels[:count]), pixels[count:]
        part = _fill(rows, photo.mode, to_8_bits(photo.stored[band]), under)
        image.paste(Image.fromarray(part), (0, top))
    return image


def _fill(
    pixels: NDArray[np.uint8], mode: str, stored: NDArray[Any], hole: NDArray[np.bool_] | None = None
) -> NDArray[Any]:
    """Convert RGB pixels to a mode and the type of `stored`, and take what is outside the hole from there."""
    filled: NDArray[Any] = pixels if mode == "RGB" else np.asarray(Image.fromarray(pixels).convert(mode))
    if stored.dtype == np.uint16:
        filled = filled.astype(np.uint16) * 257
    return filled if hole is None else np.where(hole if filled.ndim == 2 else hole[..., None], filled, stored)


def write_photo(
    path: Path,
    pixels: NDArray[np.uint8],
    like: Photo | None = None,
    hole: NDArray[np.bool_] | None = None,
    overwrite: bool = True,
) -> None:
    """Write a photo atomically; missing folders are created.

    Args:
        path: .png, .jpg, .jpeg, .tif, .tiff, .webp or .bmp. JPEG is lossy; JPEG and BMP drop transparency.
        pixels: uint8 RGB, (H, W, 3), or (N, 3) for the N pixels of the hole.
        like: photo of the same size from which to take the mode, colour profile, EXIF and resolution.
        hole: bool (H, W), True = write `pixels`, opaque; elsewhere write the pixels of `like`. None: True everywhere.
        overwrite: replace an existing file.
    Raises:
        PhotoError: the suffix is unknown, the format cannot store the photo, or the file cannot be written.
    """
    if path.suffix.lower() not in WRITABLE:
        raise PhotoError(f"the suffix {path.suffix!r} is not supported; use one of {', '.join(WRITABLE)}")
    kind, settings = WRITABLE[path.suffix.lower()]
    image = Image.fromarray(pixels) if like is None else merge(pixels, like, hole)
    deep = like is not None and like.stored.dtype == np.uint16 and kind in ("PNG", "TIFF")
    array: NDArray[Any] | None = None
    if like is not None and deep:
        pixels = pixels if hole is None or pixels.ndim == 3 else filled(like.pixels, hole, pixels)
        array = _fill(pixels, like.mode, like.stored, hole)
    metadata: dict[str, Any] = {}
    if kind in ("JPEG", "BMP") and "A" in image.mode:
        image = Image.fromarray(_on_white(np.asarray(image))).convert(image.mode.rstrip("A"))
    if kind == "WEBP" and image.mode.startswith("L"):
        image = image.convert("RGBA" if "A" in image.mode else "RGB")
    if like is not None:
        found = {"icc_profile": _fitting(like.icc_profile, image.mode), "exif": like.exif, "dpi": like.dpi}
        found = {"dpi": like.dpi} if kind == "BMP" else found
        metadata = {key: value for key, value in found.items() if value}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, overwrite) as file:
            if array is not None and kind == "PNG":
                file.write(encode_png(array, metadata))
            elif kind == "TIFF":
                write_tiff(file, np.asarray(image) if array is None else array, metadata)
            else:
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
        raise PhotoError(f"truncated or damaged ({' '.join(str(error).split())}); use an intact copy") from error


def _open(data: bytes, max_pixels: int) -> tuple[ImageFile.ImageFile, tuple[str, ...]]:
    """Read a file's header, without decoding pixels; return the image and notes."""
    heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC
    if heic:
        import pi_heif

        pi_heif.register_heif_opener()
    try:
        image = Image.open(io.BytesIO(data), formats=("HEIF", "AVIF") if heic else _READ)
    except UnidentifiedImageError as error:
        raise PhotoError(_unreadable(data)) from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"too large: {error}; the limit is {max_pixels:,} pixels; reduce the photo") from error
    notes = _choose_page(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else ()
    for tile in image.tile if image.format == "BMP" else ():
        if isinstance(tile.args, tuple) and tile.args[0] == "BGRX":
            # Many programs write alpha as the fourth byte, although the header cannot say so.
            image._mode, image.tile = "RGBA", [tile._replace(args=("BGRA", *tile.args[1:]))]
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError(f"too large: {width}x{height}, the limit is {max_pixels:,} pixels; reduce the photo")
    # The further images of MPO and HEIC files are previews and bursts.
    if image.format in ("PNG", "WEBP", "GIF", "AVIF") and getattr(image, "is_animated", False):
        raise PhotoError("an animation; expected a still image: save one of its frames")
    return image, notes


def _choose_page(image: TiffImagePlugin.TiffImageFile) -> tuple[str, ...]:
    """Go to the first page of a TIFF that is no thumbnail, and return a note about the others."""
    sizes = []
    for page in range(_MOST_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            break
        if page == _MOST_PAGES:
            raise PhotoError(
                f"a TIFF of more than {_MOST_PAGES} pages; {_EXPECTED}; save the page as a file of its own"
            )
        kind = image.tag_v2.get(ExifTags.Base.NewSubfileType, 0)
        sizes.append(0 if kind & 5 else image.width * image.height)  # reduced, or a mask of another page
    if ExifTags.Base.DNGVersion in image.tag_v2 or not any(sizes) and ExifTags.Base.SubIFDs in image.tag_v2:
        raise PhotoError(f"a raw file of a camera; {_EXPECTED}; {_CONVERT}")
    chosen = next((page for page, size in enumerate(sizes) if 4 * size >= max(sizes)), 0)
    image.seek(chosen)
    if image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2 and 16 in image.tag_v2.get(_BITS, ()):
        raise PhotoError("a TIFF with 16-bit channels that are stored apart; save them interleaved, or with 8 bits")
    # The memory for a tile is allocated before it is read.
    if image.tag_v2.get(_TILE_WIDTH, 0) * image.tag_v2.get(_TILE_LENGTH, 0) > 2**24 + 4 * image.width * image.height:
        raise PhotoError("damaged: its tiles are larger than the photo; use an intact copy")
    if len(sizes) == 1:
        return ()
    return (f"the file is a TIFF with {len(sizes)} pages; page {chosen + 1} was read",)


def _mended(data: bytes, max_pixels: int, error: OSError) -> tuple[Image.Image, int]:
    """Decode a JPEG that lacks its end, and count the damaged rows.

    What differs after two different ends is not in the file.

    Raises:
        OSError: a hundredth of the rows or more is damaged; the given error.
    """
    images: list[Image.Image] = []
    image: Any
    for end in (b"", bytes(range(254, 190, -1))):
        image = _open(data.rstrip(b"\xff") + end + b"\xff\xd9", max_pixels)[0]
        image.load()
        images.append(image.convert("RGB"))
    differs, (width, height) = ImageChops.difference(*images), image.size
    if not (box := differs.getbbox()):
        return image, 0
    # The first block that differs; interpolated colours differ one row earlier.
    block = 8 * max(layer[2] for layer in image.layer)
    top = (box[1] + 1) // block * block
    left = (differs.crop((0, top, width, min(top + block, height))).getbbox() or (0,))[0]
    if 100 * (height - top - min(block, height - top) * left / width) >= height:
        raise error
    return image, height - top


def _unreadable(data: bytes) -> str:
    """Name the kind of a file that Pillow does not read, with what was expected and what to do."""
    for name, starts in _PICTURES.items():
        if data.startswith(starts):
            return f"{name}; {_EXPECTED}; {_CONVERT}"
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return f"a TGA file; {_EXPECTED}; {_CONVERT}"
    text = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return f"an SVG drawing; {_EXPECTED}; {_CONVERT}"
    name = next((name for name, start in _OTHERS.items() if data.startswith(start)), "not an image")
    if not data:
        name = "an empty file"
    elif data[4:8] == b"ftyp":
        name = "a video"
    elif text.startswith((b"<!doctype html", b"<html")):
        name = "a web page"
    elif text.startswith((b"{", b"[")):
        with suppress(ValueError, RecursionError):
            json.loads(data)
            name = "a JSON file"
    return f"{name}; {_EXPECTED}; give the image itself"


def _described_profile(file: ImageFile.ImageFile, data: bytes, grey: bool) -> bytes | None:
    """The colour profile of a file that describes its colours in another way, if they are not those of sRGB."""
    at = data.find(b"\0\0\0\x04cICP", 0, data.find(b"IDAT")) if file.format == "PNG" else -1
    if at >= 0 and data[at + 8] in colour.PRIMARIES and data[at + 9] in colour.GAMMAS:
        return colour.profile(colour.PRIMARIES[data[at + 8]], colour.GAMMAS[data[at + 9]], grey)
    if "icc_profile" in file.info or "srgb" in file.info:
        return None
    if file.format == "PNG":
        gamma = 1 / file.info["gamma"] if file.info.get("gamma") else None
        return colour.profile(file.info.get("chromaticity", colour.SRGB), gamma, grey)
    with suppress(Exception):  # corrupt EXIF raises almost anything in Pillow; the pixels are still good
        exif = file.getexif()
        adobe = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) == 2
        if not grey and (adobe or exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03"):
            return colour.profile(colour.ADOBE_RGB, colour.ADOBE_GAMMA)
    return None


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
    # Pillow says 1 where a TIFF says nothing.
    return (across, down) if 1 < across <= _MAX_DPI and 1 < down <= _MAX_DPI else None


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


def _on_white(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert pixels of any mode and depth to RGB, composited on white."""

    def convert(rows: NDArray[Any]) -> NDArray[np.uint8]:
        image = Image.fromarray(to_8_bits(rows))
        if "A" in image.mode:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))

    return in_bands(convert, stored)


def _array(image: Image.Image) -> NDArray[np.uint8]:
    """Copy an image to an array; Pillow's own conversion has three copies at a time."""
    pixels = np.empty((image.height, image.width, *([len(image.mode)] if len(image.mode) > 1 else [])), np.uint8)
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _fitting(icc_profile: bytes | None, mode: str) -> bytes | None:
    """Return the colour profile if it is valid for the mode."""
    if not icc_profile:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return icc_profile if space == ("GRAY" if mode.startswith("L") else "RGB") else None

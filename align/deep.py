"""Photos with 16 bits per channel, of which Pillow reads and writes only grey ones, and TIFF files with EXIF."""

import io
import zlib
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from align.resize import in_bands

_ROWS = 256  # per strip of a TIFF
_LEVEL = 3  # of deflate, see align.photo.WRITABLE


def to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale uint16 to uint8, with rounding; uint8 is returned unchanged."""
    if pixels.dtype == np.uint8:
        return pixels
    return in_bands(lambda rows: ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8), pixels)


def decode_colours(data: bytes, like: NDArray[np.uint8], turned: Image.Transpose | None) -> NDArray[np.uint16] | None:
    """Decode a 16-bit PNG or TIFF.

    Args:
        data: the file.
        like: uint8 (H, W, 3 or 4), the upright photo as Pillow decodes it.
        turned: how the stored pixels were turned upright.
    Returns:
        uint16 of the same shape, RGB or RGBA; None if OpenCV decodes something else.
    """
    try:
        found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[2] < like.shape[2]:
        return None
    found = found[..., [2, 1, 0, 3][: like.shape[2]]]
    if turned is not None and not _agree(found, like):  # OpenCV turns some formats itself
        channels = [Image.fromarray(np.ascontiguousarray(found[..., each])) for each in range(like.shape[2])]
        found = np.stack([np.asarray(each.transpose(turned)) for each in channels], axis=2)
    return found if _agree(found, like) else None


def _agree(found: NDArray[np.uint16], like: NDArray[np.uint8]) -> bool:
    return found.shape == like.shape and bool((np.abs((found >> 8).astype(np.int16) - like) <= 1).all())


def encode_png(pixels: NDArray[np.uint16], metadata: dict[str, Any]) -> bytes:
    """Encode 16-bit grey (H, W), RGB or RGBA; with the metadata that Pillow takes."""
    order = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    data = cv2.imencode(".png", order, [cv2.IMWRITE_PNG_COMPRESSION, _LEVEL])[1].tobytes()
    file = io.BytesIO()
    Image.new("L" if pixels.ndim == 2 else "RGB", (1, 1)).save(file, "PNG", **metadata)
    chunks = file.getvalue()
    header = 33  # bytes of signature and IHDR
    return data[:header] + chunks[header : chunks.rindex(b"IDAT") - 4] + data[header:]


def write_tiff(file: IO[bytes], pixels: NDArray[Any], metadata: dict[str, Any]) -> None:
    """Write a TIFF, deflated without loss.

    Args:
        file: an empty file.
        pixels: uint8 or uint16, (H, W), (H, W, 2), (H, W, 3) or (H, W, 4); the second or fourth channel is alpha.
        metadata: icc_profile, exif and dpi, as Pillow takes them.
    """
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, channels = planes.shape
    strips = []
    for top in range(0, height, _ROWS):
        rows = planes[top : top + _ROWS].copy()
        rows[:, 1:] -= planes[top : top + _ROWS, :-1]  # predictor 2: differences deflate better
        strips.append(zlib.compress(rows.astype(rows.dtype.newbyteorder("<")).tobytes(), _LEVEL))
    sizes = [len(strip) for strip in strips]
    tag, tags = ExifTags.Base, TiffImagePlugin.ImageFileDirectory_v2()
    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    for key in exif:
        tags[key] = exif.get_ifd(key) if key == ExifTags.IFD.Exif else exif[key]
    tags[tag.ImageWidth], tags[tag.ImageLength], tags[tag.SamplesPerPixel] = width, height, channels
    tags[tag.BitsPerSample] = (8 * pixels.dtype.itemsize,) * channels
    tags[tag.Compression], tags[tag.Predictor], tags[tag.PlanarConfiguration] = 8, 2, 1
    tags[tag.PhotometricInterpretation] = 2 if channels > 2 else 1
    if channels in (2, 4):
        tags[tag.ExtraSamples] = 2  # alpha, not premultiplied
    tags[tag.RowsPerStrip], tags[tag.StripByteCounts] = _ROWS, tuple(sizes)
    tags[tag.StripOffsets] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())  # counted from the end of the tags
    tags.tagtype[tag.StripOffsets] = tags.tagtype[tag.StripByteCounts] = 4  # 32 bits
    if profile := metadata.get("icc_profile"):
        tags[tag.InterColorProfile] = profile
    if dpi := metadata.get("dpi"):
        (tags[tag.XResolution], tags[tag.YResolution]), tags[tag.ResolutionUnit] = dpi, 2
    tags.save(file)
    file.writelines(strips)

"""Small files that would take gigabytes or minutes to decode, and ordinary ones that look alike."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from align.errors import PhotoError
from align.photo import MAX_PIXELS, decode_photo


def rle(width: int, height: int, body: bytes) -> bytes:
    """A BMP with run-length encoding."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 2835, 2835, 256, 256) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + header + body


def png(*chunks: tuple[bytes, bytes], bits: int = 8, more: int = 0) -> bytes:
    """A PNG of 8x8 black pixels, with more chunks before them, and zeros after them."""
    first = (b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 2, 0, 0, 0))
    pixels = (b"IDAT", zlib.compress((b"\0" + bytes(3 * bits)) * 8 + bytes(more)))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (first, *chunks, pixels, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(repeats: int, between: bytes = b"") -> bytes:
    """A progressive JPEG, 64x64, whose second scan is repeated, each time after some bytes."""
    file = io.BytesIO()
    ramp = np.arange(64, dtype=np.uint8) * np.ones((64, 1), np.uint8)
    Image.fromarray(ramp).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    start, end = (data.rfind(b"\xff\xc4", 0, scan) for scan in scans[1:3])
    return data[:end] + (between + data[start:end]) * repeats + data[end:]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (rle(16_000_000, 1, b"\0\2\0\xff\0\1"), "a run-length encoded BMP of 16000000x1"),
        (rle(64, 64, b"\0\0" * 100_000), "a run-length encoded BMP of 64x64"),
        (rle(4000, 4000, b"\0\1"), "a run-length encoded BMP of 4000x4000"),
        (png(*[(b"IDAT", b"")] * 10_000), "a PNG of more than"),
        (png(*[(b"abAb", b"")] * 10_000), "a PNG of more than"),
        (png(bits=16, more=2**24), "a PNG of 8x8 that inflates to more than 66,176 bytes"),
        (jpeg(200), "a JPEG of 2.. scans"),
        (jpeg(200, b"\xff\x01"), "a JPEG of 2.. scans"),
    ],
    ids="wide BMP,long BMP,large BMP,empty pixels,unknown chunks,long pixels,scans,scans behind markers".split(","),
)
def test_a_file_that_takes_too_long_is_refused_before_it_is_decoded(
    data: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context, pytest.raises(PhotoError, match=f"^{words}.*which takes too long to read"):
        context.setattr("PIL.Image.open", lambda *_: pytest.fail("opened"))
        decode_photo(data, MAX_PIXELS)


def test_ordinary_files_of_these_kinds_are_read() -> None:
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    many, deep = png(*[(b"abAb", bytes(100))] * 1000), png(bits=16)
    for data in (many, deep, rle(8, 8, b"\x08\0\0\0" * 8 + b"\0\1")):
        assert np.array_equal(decode_photo(data).pixels, black)
    with_video = jpeg(0) + b"\xff\xda\0\x02" * 1000  # as phones append
    assert np.array_equal(decode_photo(with_video).pixels, decode_photo(jpeg(10)).pixels)

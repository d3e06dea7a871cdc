"""Files whose decoding would take far more time or memory than their pixels explain, found without decoding them."""

import re
import struct
import zlib
from contextlib import suppress

from align.errors import PhotoError

_MOST_SCANS = 100  # of a JPEG, each of which is as much work as all pixels; encoders write about ten
_CHUNK_BYTES, _FEW_CHUNKS = 256, 4000  # of a PNG; encoders write chunks of 8 kB and more
_RLE_PX, _RLE_WIDTH = 2**22, 2**15  # of a run-length encoded BMP, which Pillow decodes in Python: two seconds
_MOST_PX = 150_000_000  # larger photos are refused by their header
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # those of a JPEG that a length follows, and its end


def check_work(data: bytes) -> None:
    """Check that the work to decode a file is bounded by its pixels.

    Raises:
        PhotoError: it is not.
    """
    found = ""
    if data.startswith(b"\xff\xd8\xff") and data.count(b"\xff\xda") > _MOST_SCANS:
        found = f"a JPEG of {scans:,} scans" if (scans := _scans(data)) > _MOST_SCANS else ""
    elif data.startswith(b"\x89PNG\r\n\x1a\n") and (chunks := _chunks(data)) > _FEW_CHUNKS + len(data) // _CHUNK_BYTES:
        found = f"a PNG of more than {chunks - 1:,} chunks"
    elif data[12:16] == b"IHDR" and data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\6"):  # OpenCV inflates it all
        width, height = struct.unpack_from(">II", data, 16)
        most = 10 * min(width * height, _MOST_PX) + 2**16
        found = f"a PNG of {width}x{height} that inflates to more than {most:,} bytes" if _inflates(data, most) else ""
    elif data.startswith(b"BM") and len(data) >= 54:
        header, width, height, _, compression = struct.unpack_from("<IiiII", data, 14)
        pixels = width * abs(height)
        long = pixels > _RLE_PX or width > _RLE_WIDTH or len(data) > 2 * pixels + 4 * abs(height) + 2**16
        if header >= 40 and compression in (1, 2) and long:
            found = f"a run-length encoded BMP of {width}x{abs(height)} in {len(data):,} bytes"
    if found:
        raise PhotoError(f"{found}, which takes too long to read; save it anew, for example with GIMP")


def _scans(data: bytes) -> int:
    """The number of scans in the first picture of a JPEG."""
    at, scans = 2, 0
    while (marker := _MARKER.search(data, at)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def _inflates(data: bytes, most: int) -> bool:
    """Whether the pixels of a PNG inflate to more than `most` bytes."""
    at, size, stream = 8, 0, zlib.decompressobj()
    with suppress(zlib.error):  # of damaged ones, as decoding says
        while at < len(data) and size <= most:
            end = at + 8 + int.from_bytes(data[at : at + 4], "big")
            part = data[at + 8 : end] if data[at + 4 : at + 8] == b"IDAT" else b""
            while part and size <= most:
                size += len(stream.decompress(part, 2**20))
                part = stream.unconsumed_tail
            at = end + 4
    return size > most


def _chunks(data: bytes) -> int:
    """The number of chunks in a PNG; counting ends at what `check_work` allows."""
    at, chunks = 8, 0
    while at < len(data) and chunks <= _FEW_CHUNKS + len(data) // _CHUNK_BYTES:
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        chunks += 1
    return chunks

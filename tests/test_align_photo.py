"""Photos: damaged and unusual files, colours, metadata, round trips."""

import hashlib
import io
import os
import re
import stat
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pictures import HEIC, box
from PIL import ExifTags, Image, ImageChops, ImageCms, TiffImagePlugin

from align.errors import PhotoError
from align.photo import MAX_PIXELS, as_photo, read_photo, to_photo, write_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(height=24, width=32, channels=3):
    """A smooth image that differs in every channel, row and column, so that flips and swaps show."""
    ys, xs = np.mgrid[0:height, 0:width]
    planes = [ys * 255 / (height - 1), xs * 255 / (width - 1), 255 - ys * 100 / (height - 1), 40 + xs * 3]
    return np.stack(planes[:channels], axis=2).astype(np.uint8)


def encode(image, kind, **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *chunks, bits=8, colour=2, pixels=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(pixels, 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def reread(file, *args, **settings):
    """The photo that is read back from an encoded image."""
    file.write_bytes(encode(*args, **settings))
    return read_photo(file)


def refusal(path, data=None):
    """The message of the PhotoError that reading raises."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    assert str(path) not in str(caught.value)  # the page shows messages, but no paths
    return str(caught.value)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "photo.png"


# Reading


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_lossless_files_are_read_exactly(file, kind):
    data = encode(Image.fromarray(gradient()), kind, **({"lossless": True} if kind == "WEBP" else {}))
    file.write_bytes(data)
    photo = read_photo(file)
    assert np.array_equal(photo.pixels, gradient())
    assert photo.image.mode == "RGB" and np.array_equal(np.asarray(photo.image), gradient())
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    assert photo.icc_profile is None and photo.exif is None


COMPRESSIONS = "raw tiff_lzw tiff_adobe_deflate packbits".split()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("PPM", {}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"})]
    + [("TIFF", {"compression": each}) for each in COMPRESSIONS]
    + [("TIFF", {"compression": "jpeg", "quality": 100}), ("TIFF", {"big_tiff": True})],
)
def test_more_formats_are_read(file, kind, settings):
    photo = reread(file, Image.fromarray(gradient(96, 64)), kind, **settings)
    lossy = kind == "AVIF" or settings.get("compression") == "jpeg"
    assert np.abs(photo.pixels.astype(int) - gradient(96, 64)).max() <= (8 if lossy else 0)
    assert photo.notes == () and photo.dpi is None


def test_a_gif_of_one_frame_is_read(file):
    image = Image.fromarray(gradient()).quantize(16)
    assert np.array_equal(reread(file, image, "GIF").pixels, image.convert("RGB"))


def test_heic_is_read(file):
    file.write_bytes(HEIC)
    photo = read_photo(file)
    assert photo.image.mode == "RGB" and photo.pixels.shape == (16, 16, 3)
    for columns, colour in ((slice(0, 7), (200, 40, 90)), (slice(9, 16), (20, 120, 220))):
        assert np.abs(photo.pixels[:, columns] - np.array(colour)).max() <= 8


def tiff(pixels, **tags):
    """A TIFF of one strip with other tags than Pillow writes; values by the number of the tag."""
    height, width, channels = pixels.shape
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    bits = 8 * pixels.dtype.itemsize
    ifd.update({256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: 2, 277: channels, 278: height})
    ifd.update({273: 0, 279: pixels.nbytes} | {int(tag[1:]): value for tag, value in tags.items()})
    return b"II*\0\x08\0\0\0" + ifd.tobytes(8) + pixels.tobytes()  # tag 273 is counted from the end of the tags


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize(("extra", "mode"), [({}, "RGB"), ({"t338": 0}, "RGB"), ({"t338": 2}, "RGBA")])
def test_a_fourth_channel_is_alpha_only_if_the_file_says_so(file, depth, extra, mode):
    stored = gradient(channels=4)
    file.write_bytes(tiff(stored.astype(depth) * (257 if depth == np.uint16 else 1), **extra))
    photo = read_photo(file)
    assert photo.image.mode == mode and np.array_equal(np.asarray(photo.image), stored[..., : len(mode)])


def test_a_tiff_of_16_bits_where_0_is_white_is_read_upright_and_one_of_planes_is_refused(file):
    grey = gradient(channels=1).astype(np.uint16) * 257
    file.write_bytes(tiff(grey, t262=0))
    assert np.array_equal(read_photo(file).stored, 65_535 - grey[..., 0])
    assert "stored apart" in refusal(file, tiff(gradient().astype(np.uint16), t284=2))


def test_the_fourth_byte_of_a_bmp_is_alpha_unless_it_is_unused(file):
    whole = gradient(channels=4)
    Image.fromarray(whole).save(file, "BMP")
    assert np.array_equal(read_photo(file).stored, whole)
    data = bytearray(file.read_bytes())
    data[57::4] = bytes(len(data[57::4]))
    file.write_bytes(data)
    assert np.array_equal(read_photo(file).stored, whole[..., :3])


def test_the_first_page_that_is_no_thumbnail_is_read_with_a_note(file):
    page, small = Image.fromarray(gradient()), Image.new("RGB", (8, 6))
    for pages, number in (([page, small, page], 1), ([small, page], 2)):
        photo = reread(file, pages[0], "TIFF", save_all=True, append_images=pages[1:])
        assert np.array_equal(photo.pixels, gradient())
        assert photo.notes == (f"the file is a TIFF with {len(pages)} pages; page {number} was read",)
    Image.new("L", (8, 8)).save(file, "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))] * 100)
    with pytest.raises(PhotoError, match="more than 100 pages"):
        read_photo(file)


def test_an_oriented_tiff_is_turned_once(file):
    photo = reread(file, Image.fromarray(gradient()), "TIFF", tiffinfo={274: 6})
    assert np.array_equal(photo.pixels, np.rot90(gradient(), -1)) and photo.turned == Image.Transpose.ROTATE_270


def test_a_tiff_with_huge_tiles_is_refused_without_using_memory(file):
    message = refusal(file, tiff(gradient(), t322=30_000, t323=30_000, t324=8, t325=100))
    assert "its tiles are larger than the photo" in message


def picture(kind):
    return encode(Image.fromarray(gradient()), kind)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file; expected JPEG, PNG, .*; give the image itself"),
        (b"hello", "not an image"),
        (bytes(100), "not an image"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b' {"shapes": []}', "a JSON file"),
        (b"[not JSON", "not an image"),
        (b"\0\0\0 ftypisom" + bytes(50), "a video"),
        (b"PK\3\4" + bytes(50), "a ZIP archive"),
        (b"8BPS\0\1" + bytes(200), "a Photoshop file; expected .*; convert it to PNG, for example with GIMP"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (picture("EPS"), "a PostScript file"),
        (picture("PDF"), "a PDF"),
        (picture("JPEG2000"), "a JPEG 2000 file"),
        (picture("ICO"), "an icon"),
        (picture("TGA"), "a TGA file"),
        (tiff(gradient(), t50706=b"\1\4\0\0"), "a raw file of a camera"),
    ],
)
def test_what_cannot_be_read_is_named(file, data, words):
    assert re.match(words, refusal(file, data))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused(file, progressive):
    data = encode(Image.fromarray(gradient(200, 300)), "JPEG", progressive=progressive)
    file.write_bytes(data)
    assert read_photo(file).pixels.shape == (200, 300, 3)
    for length in (10, len(data) // 2, len(data) * 9 // 10):
        assert "truncated" in refusal(file, data[:length])


def without_rows(rows, restart=0):
    """A JPEG of 1000 rows of noise whose data end so many rows before its end, and the whole photo."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 64), dtype=np.uint8))
    whole = encode(noise, "JPEG", restart_marker_rows=restart)
    kept = encode(noise.crop((0, 0, 64, 1000 - rows)), "JPEG", restart_marker_rows=restart)
    return whole[: len(kept) - 4], np.asarray(Image.open(io.BytesIO(whole)))  # the last bits may differ


@pytest.mark.parametrize("restart", [0, 1])
@pytest.mark.parametrize(("rows", "read"), [(0, True), (8, True), (16, False), (104, False)])
def test_a_jpeg_that_lacks_less_than_a_hundredth_is_read_with_a_note(file, rows, read, restart):
    data, whole = without_rows(rows, restart)
    if read:
        file.write_bytes(data)
        photo = read_photo(file)
        assert photo.notes == (f"the file ends too early: of its last {rows + 8} rows, a part is missing",)
        assert np.array_equal(np.asarray(photo.image)[: 992 - rows], whole[: 992 - rows])
    else:
        assert "truncated" in refusal(file, data)


def test_a_jpeg_without_its_end_mark_is_read_with_a_note(file):
    data = encode(Image.fromarray(gradient()), "JPEG")
    file.write_bytes(data)
    whole = read_photo(file).pixels
    file.write_bytes(data[:-2])
    assert np.array_equal(read_photo(file).pixels, whole)
    assert read_photo(file).notes == ("the file ends too early: its end mark is missing",)


def test_the_end_marker_of_a_thumbnail_does_not_hide_a_truncated_jpeg(file):
    thumbnail = encode(Image.fromarray(gradient(8, 8)), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = encode(Image.fromarray(gradient()), "JPEG")
    file.write_bytes(data[:2] + comment + data[2:])
    read_photo(file)
    assert "truncated" in refusal(file, data[:2] + comment + data[2:-20])


def test_a_jpeg_with_a_trailer_is_read(file):
    file.write_bytes(encode(Image.fromarray(gradient()), "JPEG") + b"\xff\xda trailer of a phone")
    assert read_photo(file).pixels.shape == (24, 32, 3)


def test_pngs_are_compressed_fast(tmp_path):
    write_photo(tmp_path / "photo.png", np.zeros((8, 8, 3), np.uint8))
    data = (tmp_path / "photo.png").read_bytes()
    compression = data[data.index(b"IDAT") + 5] >> 6  # RFC 1950, FLEVEL: 1 is fast, 2 the default
    assert compression == 1


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"pHYs"])
def test_a_png_with_a_wrong_checksum_is_refused(file, name):
    data = bytearray(encode(Image.fromarray(gradient()), "PNG", dpi=(72, 72)))
    at = data.index(name)
    data[at + 4 + struct.unpack(">I", data[at - 4 : at])[0]] ^= 0x01
    message = refusal(file, bytes(data))
    assert "a damaged PNG" in message or "truncated or damaged" in message


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_other_truncated_files_are_refused(file, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    assert "truncated" in refusal(file, data[: int(len(data) * share)])


def test_huge_photos_are_refused_without_using_memory(tmp_path):
    row = bytes(1 + 20_000 // 8)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(20_000, 20_000, bits=1, colour=0, pixels=row * 20_000))
    large = tmp_path / "large.jpg"
    large.write_bytes(encode(Image.new("L", (16_000, 10_000)), "JPEG"))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from align.photo import PhotoError, read_photo\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        read_photo(Path(path))\n"
        "    except PhotoError as error:\n"
        "        print(error)\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(bomb), str(large)]
    *messages, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(messages) == 2 and all("too large" in message for message in messages)
    assert int(kilobytes) < 50_000


@pytest.mark.parametrize("size", [(15_000, 10_001), (20_000, 18_000), (60_000, 60_000)])
def test_the_limit_is_150_megapixels(file, size):
    assert "too large" in refusal(file, png(*size))
    assert MAX_PIXELS == 150_000_000
    assert "too large" not in refusal(file, png(150_000, 1_000)[:-20])  # only truncated


def test_a_small_photo_followed_by_gigabytes_is_refused(file):
    file.write_bytes(encode(Image.fromarray(gradient()), "PNG"))
    os.truncate(file, 2**32)  # sparse
    assert "too large" in refusal(file)


def test_a_compressed_text_bomb_is_refused(file):
    text = b"comment\0\0" + zlib.compress(bytes(50_000_000))
    assert "damaged" in refusal(file, png(1, 1, chunk(b"zTXt", text), pixels=b"\0" * 4))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(file, kind):
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in range(0, 250, 25)]
    assert "animation" in refusal(file, encode(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_read_upright(file, kind, orientation):
    stored = {
        1: lambda pixels: pixels,
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.transpose(1, 0, 2),
        6: lambda pixels: np.rot90(pixels),
        7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: lambda pixels: np.rot90(pixels, -1),
    }[orientation](gradient())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    settings = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    photo = reread(file, image, kind, exif=exif, **settings)
    difference = photo.pixels.astype(int) - gradient()
    assert np.abs(difference).max() <= (6 if kind == "JPEG" else 0)
    assert np.array_equal(np.asarray(photo.image), photo.pixels)
    assert photo.exif is None  # it had nothing but the orientation


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        # A text entry with an offset far beyond the end.
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\xff\0\0\xff\xff\xff\0\0\0\0\0",
    ],
)
def test_corrupt_exif_is_ignored(file, exif):
    photo = reread(file, Image.fromarray(gradient()), "JPEG", exif=exif, quality=100)
    assert photo.pixels.shape == (24, 32, 3)
    write_photo(file, photo.pixels, photo)
    assert read_photo(file).pixels.shape == (24, 32, 3)


def cmyk_jpeg(rgb, **settings):
    return encode(rgb.convert("CMYK"), "JPEG", quality=100, subsampling=0, **settings)


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_has_the_right_colours(file, adobe):
    rgb = Image.fromarray(gradient())
    data = cmyk_jpeg(rgb)
    if not adobe:  # values not inverted, no Adobe marker
        data = encode(ImageChops.invert(rgb.convert("CMYK")), "JPEG", quality=100, subsampling=0)
        at = data.index(b"\xff\xee")
        data = data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]
    assert (b"Adobe" in data) == adobe
    file.write_bytes(data)
    photo = read_photo(file)
    assert photo.image.mode == "RGB"
    assert np.abs(photo.pixels.astype(int) - gradient()).max() <= 8


def test_a_cmyk_profile_is_applied_and_dropped(file):
    # Unlike a plain conversion, this profile maps full cyan to mid-grey, and anything with key ink to black.
    def tag(name, data):
        return name, data + bytes(-len(data) % 4)

    grid = b"".join(bytes([0 if key else 128 if cyan else 255, 128, 128]) for cyan, _, _, key in np.ndindex(2, 2, 2, 2))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"none\0"
    tags = [tag(b"A2B0", lut), tag(b"wtpt", white), tag(b"cprt", text), tag(b"desc", text)]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    profile = header + bytes(128 - len(header)) + table + body
    photo = reread(file, Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", icc_profile=profile)
    assert photo.icc_profile is None
    assert np.ptp(photo.pixels) <= 4 and 100 < photo.pixels.mean() < 140  # L* 50 is 119


@pytest.mark.parametrize("profile", [SRGB, b"broken"])
def test_an_invalid_profile_of_a_cmyk_photo_is_ignored(file, profile):
    file.write_bytes(cmyk_jpeg(Image.fromarray(gradient()), icc_profile=profile))
    photo = read_photo(file)
    assert np.abs(photo.pixels.astype(int) - gradient()).max() <= 8
    assert photo.icc_profile is None


GREY, COLOURS, ALPHA = gradient(channels=1), gradient(), gradient()[..., 1:2]
RAMP = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
DOTS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
PALETTE = Image.fromarray(DOTS).quantize(4)
SEEN = np.array([[[255], [0], [255], [255]]], dtype=np.uint8)


def deep_png(pixels):
    """A PNG of 16 bits per channel with the same colours."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in pixels)
    return png(32, 24, bits=16, colour={3: 2, 4: 6}[pixels.shape[2]], pixels=rows)


@pytest.mark.parametrize(
    ("data", "mode", "stored"),
    [
        (encode(Image.fromarray(GREY[..., 0]), "PNG"), "L", GREY),
        (encode(Image.fromarray(GREY[..., 0] > 99), "PNG"), "L", (GREY > 99) * 255),
        (encode(Image.fromarray(RAMP), "PNG"), "L", np.arange(256).reshape(16, 16, 1)),
        (deep_png(COLOURS), "RGB", COLOURS),
        (deep_png(gradient(channels=4)), "RGBA", gradient(channels=4)),
        (encode(Image.fromarray(np.dstack([COLOURS, ALPHA])), "PNG"), "RGBA", np.dstack([COLOURS, ALPHA])),
        (encode(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"), "LA", np.dstack([GREY, ALPHA])),
        (encode(PALETTE, "PNG"), "RGB", DOTS),
        (encode(PALETTE, "PNG", transparency=PALETTE.getpixel((1, 0))), "RGBA", np.dstack([DOTS, SEEN])),
        (encode(Image.fromarray(DOTS), "PNG", transparency=(0, 255, 0)), "RGBA", np.dstack([DOTS, SEEN])),
        (encode(Image.fromarray(SEEN[..., 0]), "PNG", transparency=0), "LA", np.dstack([SEEN, SEEN])),
    ],
    ids="grey,1 bit,16-bit grey,16-bit,16-bit alpha,alpha,grey alpha,palette,palette key,key,grey key".split(","),
)
def test_a_file_is_kept_in_the_nearest_of_four_modes_and_shown_on_white(file, data, mode, stored):
    file.write_bytes(data)
    photo = read_photo(file)
    assert photo.image.mode == mode and np.array_equal(np.asarray(photo.image).reshape(stored.shape), stored)
    share = stored[..., -1:] / 255 if "A" in mode else np.ones_like(stored[..., -1:])
    shown = stored[..., : len(mode.rstrip("A"))] * share + 255 * (1 - share)
    off = np.abs(photo.pixels - shown)
    assert off.max() <= 1 and not off[(share == 0)[..., 0] | (share == 1)[..., 0]].any()


def test_16_bit_grey_with_alpha_is_kept(file):
    deep = np.random.default_rng(0).integers(0, 65_536, (24, 32, 2), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    file.write_bytes(png(32, 24, bits=16, colour=4, pixels=rows))
    assert np.array_equal(read_photo(file).stored, deep[..., [0, 0, 0, 1]])


def test_integers_and_floats_are_scaled_and_not_clipped():
    integers = np.array([[0, 257 * 100, 65_535]], dtype=np.int32)
    assert to_photo(Image.fromarray(integers)).pixels[0, :, 0].tolist() == [0, 100, 255]
    floats = np.array([[0.0, 0.5, 2.0, np.nan, np.inf, -np.inf, -3.0]], dtype=np.float32)
    assert to_photo(Image.fromarray(floats)).pixels[0, :, 0].tolist() == [0, 64, 255, 0, 255, 0, 0]
    assert not to_photo(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32))).pixels.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (65_500, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_thin_photos_are_read_and_written(file, size, kind):
    photo = reread(file, Image.new("RGB", size, (10, 200, 30)), kind)
    assert photo.pixels.shape == (size[1], size[0], 3)
    write_photo(file.with_suffix(".jpg"), photo.pixels, photo)
    assert read_photo(file.with_suffix(".jpg")).image.size == size


def test_the_format_is_read_from_the_content_not_the_suffix(tmp_path):
    path = tmp_path / "really.bmp"
    path.write_bytes(encode(Image.fromarray(gradient()), "PNG"))
    assert np.array_equal(read_photo(path).pixels, gradient())


SECRET = b"HIDDEN-PLACE"
KEPT = {
    ExifTags.Base.Make: "Maker",
    ExifTags.Base.Model: "Camera",
    ExifTags.Base.DateTime: "2020:01:02 03:04:05",
    ExifTags.Base.Copyright: "Owner",
    ExifTags.Base.XResolution: 300,
    ExifTags.Base.YResolution: 300,
    ExifTags.Base.ResolutionUnit: 2,
}
KEPT_DETAILS = {ExifTags.Base.DateTimeOriginal: "2020:01:02 03:04:05", ExifTags.Base.FNumber: 2.8}


def secretive_exif():
    """EXIF with what is kept, and the secret in all other places: text, blocks of other formats, maker notes, IFD1."""
    exif = Image.Exif()
    exif.update(KEPT)
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Maker\0" + SECRET.decode()
    texts = (270, 305, 315, 316, 269, 285, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, 0xA430, 0xC614, 0xC62F)
    blocks = (700, 33723, 34377, 50341, 59932, 37500, 37510)  # XMP, IPTC, Photoshop, PrintIM, padding, notes, comment
    for tag in (*texts, *blocks):
        exif[tag] = SECRET
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details.update(KEPT_DETAILS)
    details[ExifTags.Base.LensModel] = SECRET * 100  # too long for a lens
    for tag in (37500, 37510, 42016, 42032, 42033, 42037, 40964):
        details[tag] = SECRET
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (51.0, 30.0, 26.0), 27: SECRET})
    data = bytearray(exif.tobytes())
    first = 6 + int.from_bytes(data[10:14], "little")  # after "Exif\0\0"
    link = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[link : link + 4] = (len(data) - 6).to_bytes(4, "little")  # the next directory: the thumbnail
    data += struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, len(data) - 6 + 30, 0x0202, 4, 1, len(SECRET), 0) + SECRET
    return bytes(data)


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def secretive(kind):
    """A file with the secret in every known place of its format."""
    exif = secretive_exif()
    xmp = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    settings = {"exif": exif, "icc_profile": SRGB}
    if kind == "PNG":
        data = encode(Image.fromarray(gradient()), kind, dpi=(300, 300), **settings)
        hidden = [chunk(b"tEXt", b"Comment\0" + SECRET), chunk(b"zTXt", b"Note\0\0" + zlib.compress(SECRET))]
        hidden += [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp), chunk(b"prVt", SECRET), chunk(b"prvt", SECRET)]
        return data[:33] + b"".join(hidden) + data[33:] + SECRET
    if kind == "WEBP":
        return encode(Image.fromarray(gradient()), kind, lossless=True, xmp=xmp, **settings)
    data = encode(Image.fromarray(gradient()), kind, dpi=(300, 300), xmp=xmp, comment=SECRET, **settings)
    apps = [segment(0xE0 + number, b"Block\0" + SECRET) for number in range(3, 16)]
    apps += [segment(0xE0, b"JFXX\0\x10" + SECRET), segment(0xED, b"Photoshop 3.0\x008BIM" + SECRET)]
    return data[:20] + b"".join(apps) + data[20:] + SECRET


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_no_hidden_thumbnail_text_or_location_reaches_an_output(file, kind, suffix):
    file.write_bytes(secretive(kind))
    assert file.read_bytes().count(SECRET) > 20
    photo = read_photo(file)
    assert photo.image.size == (24, 32) and photo.turned == Image.Transpose.ROTATE_270
    output = file.with_name(f"output{suffix}")
    write_photo(output, photo.pixels, photo)
    assert SECRET not in output.read_bytes() and read_photo(output).image.size == (24, 32)  # not turned again
    with Image.open(output) as image:
        image.load()
        known = {"icc_profile", "exif", "dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density", "compression"}
        assert set(image.info) <= known | {"loop", "background", "timestamp", "duration"}
        if suffix == ".bmp":
            return
        assert image.info["icc_profile"] == SRGB
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
    found = {tag: exif[tag] for tag in KEPT}
    assert {tag: value if isinstance(value, str) else round(value) for tag, value in found.items()} == KEPT
    layout = set(exif) if suffix == ".tif" else set()  # the other tags of a TIFF say how its pixels are stored
    assert set(exif) == set(KEPT) | {ExifTags.IFD.Exif} | layout - {ExifTags.Base.Orientation, ExifTags.IFD.GPSInfo}
    assert dict(details) == KEPT_DETAILS and not exif.get_ifd(ExifTags.IFD.IFD1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_the_resolution_is_kept(file, suffix):
    photo = reread(file, Image.fromarray(gradient()), "PNG", dpi=(240, 240))
    output = file.with_name(f"output{suffix}")
    write_photo(output, photo.pixels, photo)
    assert read_photo(output).dpi == pytest.approx((240, 240), abs=0.05)


@pytest.mark.parametrize("dots", [0, 2**31 - 1])
def test_an_absurd_resolution_is_dropped(file, dots):
    data = encode(Image.fromarray(gradient()), "PNG")
    file.write_bytes(data[:33] + chunk(b"pHYs", struct.pack(">IIB", dots, dots, 1)) + data[33:])
    photo = read_photo(file)
    assert photo.dpi is None
    write_photo(file.with_suffix(".jpg"), photo.pixels, photo)


def test_a_valid_profile_is_kept_and_a_broken_one_dropped(file):
    for profile, kept in ((SRGB, SRGB), (b"broken", None), (SRGB[:200], None)):
        assert reread(file, Image.fromarray(gradient()), "PNG", icc_profile=profile).icc_profile == kept


def encoded_light(light):
    """The curve of sRGB, IEC 61966-2-1."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


# RGB to XYZ under D65, of the published standards.
TO_XYZ = {
    "sRGB": [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
    "P3": [[0.4866, 0.2657, 0.1982], [0.2290, 0.6917, 0.0793], [0.0, 0.0451, 1.0439]],
    "Adobe": [[0.5767, 0.1856, 0.1882], [0.2974, 0.6273, 0.0753], [0.0270, 0.0707, 0.9911]],
}
ADOBE_CHRM = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "primaries", "gamma"),
    [
        ([chunk(b"gAMA", struct.pack(">I", 100_000))], "sRGB", 1),
        ([chunk(b"gAMA", struct.pack(">I", 45_471)), chunk(b"cHRM", ADOBE_CHRM)], "Adobe", 563 / 256),
        ([chunk(b"cICP", bytes([12, 13, 0, 1]))], "P3", None),
        ([chunk(b"cICP", bytes([12, 8, 0, 1]))], "P3", 1),
        ("EXIF", "Adobe", 563 / 256),
    ],
)
def test_described_colours_get_a_profile_of_the_same_look(file, chunks, primaries, gamma):
    colours = np.array([[[120, 110, 100], [90, 120, 110], [128, 128, 128], [200, 190, 180]]], np.uint8).repeat(8, 0)
    if chunks == "EXIF":
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 2
        photo = reread(file, Image.fromarray(colours), "JPEG", quality=100, exif=exif)
    else:
        data = encode(Image.fromarray(colours), "PNG")
        file.write_bytes(data[:33] + b"".join(chunks) + data[33:])
        photo = read_photo(file)
        assert np.array_equal(photo.pixels, colours)
    write_photo(file.with_suffix(".tif"), photo.pixels, photo)
    written = read_photo(file.with_suffix(".tif"))
    shown = ImageCms.profileToProfile(
        Image.fromarray(written.pixels), io.BytesIO(written.icc_profile), ImageCms.createProfile("sRGB"), 1
    )
    values = written.pixels / 255
    light = values**gamma if gamma else np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    expected = encoded_light(light @ (np.linalg.inv(TO_XYZ["sRGB"]) @ TO_XYZ[primaries]).T)
    assert np.abs(np.asarray(shown) - expected).max() <= 1.5


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", struct.pack(">I", 45_455))],
        [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))],
        [chunk(b"cICP", bytes([1, 13, 0, 1]))],
        [chunk(b"gAMA", bytes(4)), chunk(b"cHRM", bytes(32))],
    ],
)
def test_colours_of_srgb_and_impossible_ones_get_no_profile(file, chunks):
    data = encode(Image.fromarray(gradient()), "PNG")
    file.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    assert read_photo(file).icc_profile is None


def test_a_grey_photo_with_a_gamma_gets_a_grey_profile(file):
    data = encode(Image.fromarray(gradient()[..., 0]), "PNG")
    file.write_bytes(data[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + data[33:])
    profile = ImageCms.ImageCmsProfile(io.BytesIO(read_photo(file).icc_profile))
    shown = ImageCms.profileToProfile(Image.new("L", (1, 1), 128), profile, ImageCms.createProfile("sRGB"), 1, "RGB")
    assert np.abs(np.array(shown.getpixel((0, 0))) - encoded_light(128 / 255)).max() <= 1.5


def test_a_colour_profile_of_a_grey_photo_is_dropped(file):
    assert reread(file, Image.fromarray(gradient()[..., 0]), "PNG", icc_profile=SRGB).icc_profile is None


def test_a_jpeg_with_a_preview_is_not_an_animation(file):
    frames = [Image.fromarray(gradient()), Image.fromarray(gradient(12, 16))]
    assert reread(file, frames[0], "MPO", save_all=True, append_images=frames[1:]).pixels.shape == (24, 32, 3)


def test_pixels_and_digest_are_of_the_same_bytes(file, monkeypatch):
    first = encode(Image.fromarray(gradient()), "PNG")
    file.write_bytes(first)
    opened = Image.open

    def swap(stream, **settings):
        if isinstance(stream, io.BytesIO):  # the file has been read
            file.write_bytes(encode(Image.new("RGB", (5, 5)), "PNG"))
        return opened(stream, **settings)

    monkeypatch.setattr(Image, "open", swap)
    photo = read_photo(file)
    assert np.array_equal(photo.pixels, gradient()) and photo.sha256 == hashlib.sha256(first).hexdigest()


def test_the_limit_can_be_lowered(file):
    Image.new("RGB", (30, 20)).save(file, "PNG")
    assert read_photo(file, max_pixels=600).pixels.shape == (20, 30, 3)
    with pytest.raises(PhotoError, match="too large: 30x20, the limit is 599 pixels"):
        read_photo(file, max_pixels=599)


def test_to_photo_does_not_modify_its_image():
    image = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.info["exif"] = exif.tobytes()
    assert to_photo(image).image.size == (24, 32)
    assert image.size == (32, 24) and image.info["exif"] == exif.tobytes()


# Writing


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_pixels_outside_the_hole_are_identical(file, mode, suffix):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    stored = np.random.default_rng(1).integers(0, 256, (24, 32, channels), dtype=np.uint8)
    if "A" in mode:
        stored[:, :20, -1] = 0  # the colours of transparent pixels must be kept too
    photo = reread(file, Image.fromarray(stored.squeeze()), "PNG")
    hole = box((24, 32), 5, 15, 10, 30)
    before = np.asarray(photo.image).copy()
    output = file.with_name("out" + suffix)
    write_photo(output, np.full((24, 32, 3), 77, dtype=np.uint8), photo, hole)
    assert np.array_equal(np.asarray(photo.image), before)
    written = read_photo(output).image
    if suffix != ".webp":
        assert written.mode == mode
    written = np.asarray(written.convert(mode)).reshape(24, 32, channels)
    assert np.array_equal(written[~hole], stored[~hole])
    assert (written[hole] == ([77] * (channels - 1) + [255] if "A" in mode else 77)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("source", [".png", ".tif"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_kept_outside_the_hole(tmp_path, channels, source, suffix):
    stored = np.random.default_rng(2).integers(0, 65_536, (24, 32, channels), dtype=np.uint16)
    path, output = tmp_path / f"photo{source}", tmp_path / f"out{suffix}"
    cv2.imwrite(str(path), stored[..., [2, 1, 0, 3][:channels]] if channels > 1 else stored)
    if channels == 4 and source == ".tif":
        path.write_bytes(tiff(stored, t338=2))  # OpenCV does not say that the fourth channel is alpha
    photo = read_photo(path)
    assert photo.notes == () and np.array_equal(photo.stored.reshape(stored.shape), stored)
    assert np.array_equal(np.asarray(photo.image).reshape(stored.shape), np.round(stored / 257))
    hole = box((24, 32), 5, 15, 10, 30)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    like = replace(photo, dpi=(300, 300), exif=exif.tobytes(), icc_profile=SRGB if channels > 1 else None)
    write_photo(output, np.full((24, 32, 3), 77, dtype=np.uint8), like, hole)
    written = cv2.imread(str(output), cv2.IMREAD_UNCHANGED).reshape(stored.shape)
    written = written[..., [2, 1, 0, 3][:channels]] if channels > 1 else written
    assert np.array_equal(written[~hole], stored[~hole])
    assert (written[hole] == [77 * 257, 77 * 257, 77 * 257, 65_535][:channels]).all()
    again = read_photo(output)
    assert again.dpi == pytest.approx((300, 300), abs=0.05)
    assert again.icc_profile == like.icc_profile and b"Camera" in again.exif


def test_an_oriented_16_bit_photo_is_turned_once(file):
    stored = np.random.default_rng(2).integers(0, 65_536, (24, 32, 3), dtype=np.uint16)
    file.write_bytes(tiff(stored, t274=6))
    assert np.array_equal(read_photo(file).stored, np.rot90(stored, -1))


def test_without_a_hole_all_pixels_are_written(file):
    photo = to_photo(Image.new("RGBA", (32, 24)))
    write_photo(file, gradient(), photo)
    written = read_photo(file)
    assert written.image.mode == "RGBA" and np.array_equal(written.pixels, gradient())


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".bmp"])
@pytest.mark.parametrize(("mode", "kept"), [("RGBA", "RGB"), ("LA", "L")])
def test_formats_without_alpha_get_the_photo_on_white(file, suffix, mode, kept):
    photo = to_photo(Image.new(mode, (8, 8), (0,) * len(mode)))
    output = file.with_suffix(suffix)
    write_photo(output, photo.pixels, photo, np.zeros((8, 8), dtype=bool))
    written = read_photo(output)
    assert written.image.mode == kept and (written.pixels == 255).all()


def test_a_grey_profile_is_not_written_with_colours(file):
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    photo = to_photo(Image.fromarray(gradient()[..., 0]))
    object.__setattr__(photo, "icc_profile", bytes(grey))
    write_photo(file, photo.pixels, photo)
    assert read_photo(file).icc_profile == bytes(grey)
    write_photo(file.with_suffix(".webp"), photo.pixels, photo)  # WebP has no grey mode
    with Image.open(file.with_suffix(".webp")) as image:
        assert "icc_profile" not in image.info


def test_files_get_default_permissions(file):
    write_photo(file, gradient())
    usual = file.with_name("usual")
    usual.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize("name", ["photo.gif", "photo.heic", "photo", "photo.png.exe"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(PhotoError, match="use one of .png"):
        write_photo(tmp_path / name, gradient())
    assert not list(tmp_path.iterdir())


def test_a_photo_too_long_for_its_format_is_refused(tmp_path):
    with pytest.raises(PhotoError, match="cannot be written"):
        write_photo(tmp_path / "long.webp", np.zeros((1, 20_000, 3), dtype=np.uint8))
    assert not list(tmp_path.iterdir())


# Photos in memory


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
def test_an_array_is_read_like_the_same_image(channels, kind):
    pixels = gradient(channels=channels or 1)
    pixels = pixels[..., 0] if channels == 0 else pixels
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, ["L", "L", "LA", "RGB", "RGBA"][channels])
    given = (
        pixels / 255 if np.issubdtype(kind, np.floating) else pixels.astype(kind) * (257 if kind == np.uint16 else 1)
    )
    photo, expected = as_photo(given.astype(kind)), to_photo(image)
    assert np.array_equal(photo.pixels, expected.pixels)
    assert photo.image.mode == expected.image.mode and np.array_equal(photo.image, expected.image)


def test_a_path_is_read_like_the_file_and_named_in_errors(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)
    for given in (path, str(path)):
        assert np.array_equal(as_photo(given).pixels, gradient()) and as_photo(given).sha256
    with pytest.raises(PhotoError, match="no.png: cannot be read: No such file"):
        as_photo(tmp_path / "no.png")
    photo = read_photo(path)
    assert as_photo(photo) is photo


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        (None, "the photo is a NoneType; expected a path, a Pillow image or a numpy array"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"shape \(3, 8, 8\); expected \(H, W\)"),
        (np.zeros((0, 8, 3), dtype=np.uint8), r"shape \(0, 8, 3\); expected"),
        (np.zeros((8, 8, 3), dtype=np.int64), "the photo is int64; expected uint8, uint16, or floats from 0 to 1"),
        (np.full((8, 8, 3), 255.0), "float64 values from 255 to 255; expected 0 to 1"),
        (np.full((8, 8, 3), np.nan), "float64 values from nan to nan; expected 0 to 1"),
    ],
)
def test_an_unusable_array_gets_one_clear_error(photo, words):
    with pytest.raises(PhotoError, match=words):
        as_photo(photo)

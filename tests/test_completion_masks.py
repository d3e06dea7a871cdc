"""Tests of masks: equal content gives equal holes in every form, and nothing is guessed."""

import io
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import box, save
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter
from skimage.data import astronaut

from align.errors import MaskError
from align.photo import decode_photo, to_photo
from align.warp import Alignment
from completion.mask_files import find_mask, mask_files
from completion.masks import MaskSpec, alpha_hole, parse_mask, read_mask
from completion.regions import hole_in_crop

PICTURE = Image.fromarray(astronaut()).crop((100, 0, 300, 240))  # not square, so that a turned mask shows
PHOTO = to_photo(PICTURE)


def draw_hole(scale: int = 1) -> Image.Image:
    """A blob and a scratch, white on black."""
    mask = Image.new("L", (200 * scale, 240 * scale))
    pen = ImageDraw.Draw(mask)
    pen.ellipse([value * scale for value in (104, 118, 156, 162)], fill=255)
    pen.line([value * scale for value in (50, 40, 190, 210)], fill=255, width=6 * scale)
    return mask


HOLE = draw_hole()
INSIDE = np.asarray(HOLE) > 0
VISIBLE = ImageChops.invert(HOLE)
FLIP = Image.Transpose.FLIP_TOP_BOTTOM


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def paint(colour: str, ground: Image.Image | None = None) -> Image.Image:
    """The hole in a colour, on black or on an image."""
    ground = ground or Image.new("RGB", HOLE.size)
    return Image.composite(Image.new("RGB", HOLE.size, colour), ground, HOLE)


def with_alpha(image: Image.Image, alpha: Image.Image = HOLE) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def levels(high: int, low: int = 0, kind: type = np.uint8) -> NDArray[Any]:
    return np.where(INSIDE, high, low).astype(kind)


def labels() -> Image.Image:
    image = Image.fromarray(INSIDE.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0, *[0] * 762])
    return image


def turned_by_exif(image: Image.Image) -> bytes:
    """A JPEG that is stored on its side, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


SAME: dict[str, Any] = {
    **{colour: paint(colour) for colour in ("white", "red", "blue", "magenta", "lime", "yellow")},
    **{f"layer {colour}": with_alpha(Image.new("RGB", HOLE.size, colour)) for colour in ("white", "black", "red")},
    "half transparent layer": with_alpha(Image.new("RGB", HOLE.size, "red"), HOLE.point(lambda v: v // 2)),
    "layer over the photo": with_alpha(paint("white", PICTURE)),
    "layer of white on black": with_alpha(paint("white"), HOLE.filter(ImageFilter.MaxFilter(9))),
    "erased": with_alpha(PICTURE, VISIBLE),
    "erased to black": with_alpha(paint("black", PICTURE), VISIBLE),
    **{f"photo painted {colour}": paint(colour, PICTURE) for colour in ("white", "red", "lime")},
    "photo painted half": Image.blend(PICTURE, paint("red", PICTURE), 0.5),
    "photo painted, JPEG": encoded(paint("lime", PICTURE), "JPEG", quality=95, subsampling=0),
    **{f"{high} on {low}": levels(high, low) for high, low in ((254, 1), (1, 0), (127, 0), (60, 0), (255, 200))},
    "16 bits": Image.fromarray(levels(65_535, kind=np.uint16)),
    "8 of 16 bits": encoded(Image.fromarray(levels(255, kind=np.uint16))),
    "poor JPEG": encoded(HOLE, "JPEG", quality=10),
    "lossy WebP": encoded(HOLE.convert("RGB"), "WEBP", quality=30),
    "1 bit": HOLE.convert("1"),
    "CMYK": encoded(paint("white").convert("CMYK"), "JPEG", quality=90),
    "palette": labels(),
    "grey and alpha": with_alpha(Image.new("L", HOLE.size, 255)),
    "turned by EXIF": turned_by_exif(HOLE),
    "one pixel less": HOLE.resize((199, 240)),
    "bool": INSIDE,
    "batch": INSIDE[None, None],
    "channel": INSIDE[..., None],
    "RGB bool": np.dstack([INSIDE] * 3),
    "float": INSIDE.astype(float),
    "-1 to 1": INSIDE * 2.0 - 1,
    "tensor": torch.from_numpy(INSIDE.copy())[None],
    "photo object": to_photo(HOLE),
    "open file": io.BytesIO(encoded(HOLE)),
    "editor": {"background": PICTURE, "layers": [with_alpha(Image.new("RGB", HOLE.size, "red"))], "composite": None},
    "editor, second layer": {"layers": [Image.new("RGBA", HOLE.size), with_alpha(Image.new("RGB", HOLE.size, "red"))]},
}


@pytest.mark.parametrize("mask", SAME.values(), ids=SAME)
def test_equal_content_gives_equal_holes(mask: Any) -> None:
    hole, _ = read_mask(mask, PHOTO)
    assert hole.shape == (240, 200) and hole.dtype == bool
    assert (hole & INSIDE).sum() / (hole | INSIDE).sum() >= 0.97


def test_a_mask_of_a_path_is_read_and_what_was_taken_is_said(tmp_path: Path) -> None:
    hole, notes = read_mask(save(tmp_path / "hole.png", HOLE), PHOTO)
    assert np.array_equal(hole, INSIDE) and notes == ()
    _, notes = read_mask(SAME["erased"], PHOTO)
    assert notes == (f"{INSIDE.mean():.2%} of the photo is filled: what was erased",)


@pytest.mark.parametrize(
    "mask, words",
    [
        (VISIBLE, "invert the mask"),
        (paint("red", Image.new("RGB", HOLE.size, "white")), "invert the mask"),
        (PICTURE, "the photo itself"),
        (PICTURE.resize((400, 480)), "the photo itself"),
        (ImageEnhance.Brightness(PICTURE).enhance(1.1), "the photo itself|more than two levels"),
        *[(encoded(PICTURE, "JPEG", quality=quality), "the photo itself") for quality in (100, 90, 60, 20)],
        (Image.fromarray(astronaut()).crop((212, 272, 412, 512)), "more than two levels"),
        (Image.composite(Image.new("L", HOLE.size, 128), HOLE, HOLE.transpose(FLIP)), "more than two levels"),
        (Image.new("L", HOLE.size), "the mask has one level only, 0"),
        (Image.new("L", HOLE.size, 255), "100% of the photo would be filled"),
        (HOLE.resize((256, 256)), "256x256 pixels and the photo 200x240"),
        (HOLE.crop((0, 0, 256, 256)), "another shape"),
        (HOLE.transpose(Image.Transpose.ROTATE_90), "another shape"),
        (np.zeros((2, 3, 4, 5), dtype=np.uint8), "expected \\(H, W\\) or an image"),
        (np.full((240, 200), 70_000), "expected 0 and 1, or 0 and 255"),
        (np.full((240, 200), np.nan), "expected 0 and 1, or 0 and 255"),
        ({"layers": []}, "0 painted layers"),
        (b'{"shapes": []}', "a JSON file"),
        (object(), "expected a name, a path, a Pillow image or a numpy array"),
    ],
)
def test_nothing_is_guessed(mask: Any, words: str) -> None:
    with pytest.raises(MaskError, match=words):
        read_mask(mask, PHOTO)


@pytest.mark.parametrize("quality", [100, 95, 85, 60])
def test_paint_is_found_on_a_copy_that_is_saved_again(quality: int) -> None:
    photo = decode_photo(encoded(PICTURE, "JPEG", quality=92))
    for colour in ("red", "white", "black"):
        hole, _ = read_mask(encoded(paint(colour, photo.image), "JPEG", quality=quality), photo)
        assert (hole & INSIDE).sum() > 0.95 * INSIDE.sum() and (hole | INSIDE).sum() < 1.4 * INSIDE.sum()


@pytest.mark.parametrize("other", ["blue", (60, 0, 0)])
def test_a_small_area_of_a_third_colour_is_not_ignored(other: Any) -> None:
    mask = paint("red")
    mask.paste(other, (20, 200, 36, 216))
    with pytest.raises(MaskError, match="third colour or level"):
        read_mask(mask, PHOTO)


def test_what_looks_like_a_mistake_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="were they swapped"):
        read_mask(PICTURE, to_photo(HOLE))
    with pytest.raises(MaskError, match="do not invert the mask"):
        read_mask(HOLE, PHOTO, invert=True)
    save(tmp_path / "holes.png", HOLE)
    save(tmp_path / "al.png", HOLE)
    for name, words in (("hole.png", "; there is .*holes.png"), ("scan.png", "there is no mask file [^;]*$")):
        with pytest.raises(MaskError, match=words):
            parse_mask(str(tmp_path / name))


def test_inverting_takes_the_darker_level() -> None:
    assert np.array_equal(read_mask(VISIBLE, PHOTO, invert=True)[0], INSIDE)
    assert np.array_equal(read_mask(~INSIDE, PHOTO, invert=True)[0], INSIDE)


def test_a_mask_of_half_the_size_is_resized_with_a_note() -> None:
    large = to_photo(PICTURE.resize((400, 480)))
    hole, notes = read_mask(HOLE, large)
    truth = np.asarray(draw_hole(2)) > 0
    assert (hole & truth).sum() / (hole | truth).sum() > 0.9 and "resized from 200x240" in notes[0]


def test_a_mask_drawn_on_the_stored_pixels_is_turned_like_the_photo() -> None:
    photo = decode_photo(turned_by_exif(PICTURE))
    hole, notes = read_mask(HOLE.transpose(Image.Transpose.ROTATE_90), photo)
    assert np.array_equal(hole, INSIDE) and "turned" in notes[0]


def test_a_soft_brush_covers_the_whole_paint() -> None:
    hole, _ = read_mask(HOLE.filter(ImageFilter.GaussianBlur(3)), PHOTO)
    assert not (INSIDE & ~hole).any()


# Names, alpha and folders


@pytest.mark.parametrize(
    "text, spec",
    [
        ("mouth", MaskSpec("mouth")),
        ("Eyes, center:0.3", MaskSpec("eyes,center:0.3")),
        ("Alpha,mouth", MaskSpec("mouth", True)),
        ("{}/a.png,mouth", MaskSpec("mouth", files=(Path("{}/a.png"),))),
        ("{}/b,c.png", MaskSpec(files=(Path("{}/b,c.png"),))),
    ],
)
def test_words_name_holes_and_files(tmp_path: Path, text: str, spec: MaskSpec) -> None:
    for name in ("a.png", "b,c.png"):
        save(tmp_path / name, HOLE)
    files = tuple(Path(str(file).format(tmp_path)) for file in spec.files)
    assert parse_mask(text.format(tmp_path)) == MaskSpec(spec.names, spec.alpha, files)


def test_a_wrong_word_gets_the_nearest_name_or_file(tmp_path: Path) -> None:
    save(tmp_path / "hole.png", HOLE)
    with pytest.raises(MaskError, match="no mask named 'moth'; did you mean 'mouth'?"):
        parse_mask("eyes,moth")
    with pytest.raises(MaskError, match=r"no mask file .*hole\.PNG; there is .*hole\.png"):
        parse_mask(str(tmp_path / "hole.PNG"))


@pytest.mark.parametrize("most", [255, 254])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_alpha_covers_what_was_erased(mode: str, most: int) -> None:
    photo = to_photo(with_alpha(PICTURE.convert(mode), VISIBLE.point(lambda v: min(v, most))))
    for invert in (False, True):
        hole, notes = alpha_hole(photo, invert)
        assert np.array_equal(hole, INSIDE != invert) and not notes
    deep = replace(photo, stored=photo.stored.astype(np.uint16) * 257)
    assert np.array_equal(alpha_hole(deep)[0], INSIDE)


def test_transparent_corners_of_a_turned_photo_are_left_with_a_note() -> None:
    erased, whole = (
        with_alpha(PICTURE, alpha).rotate(8, expand=True) for alpha in (VISIBLE, Image.new("L", HOLE.size, 255))
    )
    hole, [note] = alpha_hole(to_photo(erased))
    inside = np.asarray(HOLE.rotate(8, expand=True)) > 0
    assert np.array_equal(hole, inside) and "corners" in note
    with pytest.raises(MaskError, match="only the corners"):
        alpha_hole(to_photo(whole))
    torn = VISIBLE.copy()  # one corner was erased
    torn.paste(0, (0, 0, 30, 30))
    hole, notes = alpha_hole(to_photo(with_alpha(PICTURE, torn)))
    assert hole[:30, :30].all() and not notes


def test_a_photo_without_alpha_is_refused() -> None:
    with pytest.raises(MaskError, match="RGB without alpha"):
        alpha_hole(PHOTO)


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    return save(tmp_path / "photos" / "a.jpg", PICTURE)


@pytest.mark.parametrize("name", ["a.png", "A.png", "a_mask.png", "a-mask.webp", "mask_a.png", "a.jpg.png"])
def test_masks_in_a_folder_are_found_by_the_usual_names(tmp_path: Path, photo_file: Path, name: str) -> None:
    mask = save(tmp_path / "masks" / "sub" / name, HOLE)
    save(tmp_path / "masks" / "a.png", HOLE)  # of another photo, not in the sub-folder
    assert find_mask(mask_files(tmp_path / "masks"), Path("sub/a"), photo_file) == mask


def test_composed_and_decomposed_letters_are_the_same(tmp_path: Path, photo_file: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Jürgen") for form in ("NFC", "NFD"))
    mask = save(tmp_path / "masks" / f"{decomposed}.png", HOLE)
    assert find_mask(mask_files(tmp_path / "masks"), Path(composed), photo_file) == mask


def test_a_photo_is_never_its_own_mask(photo_file: Path) -> None:
    with pytest.raises(MaskError, match="no mask for this photo"):
        find_mask(mask_files(photo_file.parent), Path("a"), photo_file)
    beside = save(photo_file.with_name("a_mask.png"), HOLE)
    assert find_mask(mask_files(photo_file.parent), Path("a"), photo_file) == beside


def test_two_masks_for_one_photo_are_refused(tmp_path: Path, photo_file: Path) -> None:
    for name in ("a.png", "a.webp"):
        save(tmp_path / "masks" / name, HOLE)
    with pytest.raises(MaskError, match="2 masks"):
        find_mask(mask_files(tmp_path / "masks"), Path("a"), photo_file)


@pytest.mark.parametrize("transform", [lambda crop: crop, lambda crop: crop.resized(64)])
def test_a_crop_beyond_the_photo_is_part_of_its_hole(transform: Callable[[Alignment], Alignment]) -> None:
    hole = box((40, 40), 10, 11, 20, 21)
    matrix = np.array([[1.0, 0, 8], [0, 1.0, 0]])  # the crop begins 8 px left of the photo
    crop = transform(Alignment(matrix, 32))
    marked = hole_in_crop(hole, crop)
    scale = crop.size // 32
    assert marked[:, : 7 * scale].all() and marked[10 * scale, 28 * scale]
    assert not marked[20 * scale :, 9 * scale :].any()

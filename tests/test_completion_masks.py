"""Tests of masks from files, arrays and alpha channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import save
from PIL import Image

from align.errors import MaskError, PhotoError
from align.photo import read_photo, to_photo
from completion.masks import MaskLike, alpha_hole, as_hole, find_mask, mask_files, read_hole

# Files


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_grey_antialiased_and_jpeg_masks_become_black_and_white(tmp_path: Path, suffix: str) -> None:
    expected = np.zeros((48, 64), dtype=bool)
    expected[16:32, 8:40] = True
    grey = np.where(expected, 200, 40).astype(np.uint8)
    hole, warning = read_hole(save(tmp_path / f"mask{suffix}", grey), (48, 64))
    assert np.array_equal(hole, expected) and warning is None


def test_grey_is_rounded_to_black_or_white(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(2, axis=0)
    hole, _ = read_hole(save(tmp_path / "ramp.png", ramp), (2, 256))
    assert np.array_equal(hole[0], np.arange(256) >= 128)


def test_invert_makes_black_the_hole(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8))
    assert np.array_equal(read_hole(path, (9, 7), invert=True)[0], ~read_hole(path, (9, 7))[0])


def test_a_mask_of_another_size_is_resized_with_a_warning(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 2, (8, 6), dtype=np.uint8) * 255
    hole, warning = read_hole(save(tmp_path / "mask.png", small), (24, 18))
    assert np.array_equal(hole, small.repeat(3, axis=0).repeat(3, axis=1) > 0)
    assert warning == "the mask was resized from 6x8 to the photo's 18x24"


def test_a_mask_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("white")
    with pytest.raises(PhotoError, match="not an image"):
        read_hole(tmp_path / "mask.png", (8, 8))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_covers_all_pixels_that_are_not_opaque(mode: str) -> None:
    image = Image.new(mode, (4, 3))
    alpha = Image.fromarray(np.array([[255, 0, 1, 254]] * 3, dtype=np.uint8))
    image.putalpha(alpha)
    hole = alpha_hole(to_photo(image))
    assert hole.shape == (3, 4) and hole[0].tolist() == [False, True, True, True]
    assert np.array_equal(alpha_hole(to_photo(image), invert=True), ~hole)


def test_a_photo_without_alpha_is_refused() -> None:
    with pytest.raises(MaskError, match="RGB without alpha"):
        alpha_hole(to_photo(Image.new("RGB", (4, 4))))


def test_a_folder_of_masks_is_matched_by_relative_path_and_stem(tmp_path: Path) -> None:
    black = np.zeros((4, 4), dtype=np.uint8)
    expected = save(tmp_path / "sub" / "a.png", black)
    save(tmp_path / "a.png", black)
    save(tmp_path / "sub" / "ab.png", black)
    assert find_mask(mask_files(tmp_path), Path("sub/a")) == expected
    with pytest.raises(MaskError, match="no mask for this photo; expected one image named sub/b"):
        find_mask(mask_files(tmp_path), Path("sub/b"))
    save(tmp_path / "sub" / "a.jpg", black)
    with pytest.raises(MaskError, match="2 masks for this photo; expected one image named sub/a"):
        find_mask(mask_files(tmp_path), Path("sub/a"))


def test_dots_in_a_stem_are_part_of_it(tmp_path: Path) -> None:
    black = np.zeros((4, 4), dtype=np.uint8)
    expected = save(tmp_path / "a.b.png", black)
    save(tmp_path / "a.c.png", black)
    assert find_mask(mask_files(tmp_path), Path("a.b")) == expected


def test_the_exif_orientation_of_a_mask_is_applied(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[255, 0, 0]], dtype=np.uint8))
    mask.getexif()[0x0112] = 6  # rotated by 90 degrees
    mask.save(tmp_path / "mask.png", exif=mask.getexif())
    assert read_photo(tmp_path / "mask.png").pixels.shape == (3, 1, 3)
    assert read_hole(tmp_path / "mask.png", (3, 1))[0].ravel().tolist() == [True, False, False]


def test_a_transparent_mask_is_filled_only_where_it_is_painted_white(tmp_path: Path) -> None:
    painted = np.zeros((4, 4, 4), dtype=np.uint8)
    painted[..., :3] = 255  # any colour may be stored under alpha 0
    painted[1, 2, 3] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    hole, _ = read_hole(tmp_path / "mask.png", (4, 4))
    assert np.argwhere(hole).tolist() == [[1, 2]]


# Masks in memory


def grey(rows: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[False, True], [True, False]]),
        np.array([[0, 1], [1, 0]]),
        np.array([[0, 255], [128, 127]], dtype=np.uint8),
        np.array([[0, 65535], [65535, 255]], dtype=np.uint16),
        np.array([[0.0, 1.0], [0.5, 0.49]]),
        np.array([[[0], [255]], [[255], [0]]]),
        np.array([[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]], dtype=np.uint8),
        np.array([[[0] * 4, [255] * 4], [[255] * 4, [255] * 3 + [0]]], dtype=np.uint8),  # transparent white is black
        grey([[0, 1], [1, 0]]),
        grey([[0, 255], [255, 0]]),
        grey([[0, 255], [255, 0]]).convert("1"),
        grey([[0, 255], [255, 0]]).convert("P"),
        grey([[0, 255], [255, 0]]).convert("RGBA"),
    ],
    ids=lambda mask: f"{getattr(mask, 'dtype', None) or mask.mode} {getattr(mask, 'shape', '')}",
)
def test_every_usual_mask_means_the_same(mask: MaskLike) -> None:
    assert as_hole(mask, to_photo(grey([[0, 0], [0, 0]]))).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((2, 2, 2)), r"float64 of shape \(2, 2, 2\); expected \(H, W\)"),
        (np.zeros(4, dtype=bool), r"bool of shape \(4,\); expected \(H, W\)"),
        (np.array([[0, -1]]), "values from -1 to 0; expected 0 and 1, or 0 and 255"),
        (np.array([[0, 70000]]), "values from 0 to 70000; expected"),
        (np.array([[0, np.nan]]), "values from nan to nan; expected"),
        (None, "is a NoneType; expected a name, a path, a Pillow image or a numpy array"),
        (Path("no.png"), "the mask no.png: cannot be read: No such file"),
        ("no.png", "there is no mask named 'no.png'"),
        ("alpha", "the mask is alpha, but the photo is L without alpha"),
    ],
)
def test_an_unusable_mask_gets_one_clear_error(mask: Any, words: str) -> None:
    with pytest.raises(MaskError, match=words):
        as_hole(mask, to_photo(grey([[0, 0]])))

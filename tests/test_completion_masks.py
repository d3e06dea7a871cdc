"""Tests of masks from files, arrays and alpha channels."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import save
from PIL import Image

from align.errors import MaskError, PhotoError
from align.photo import to_photo
from align.warp import Alignment
from completion.masks import MaskLike, alpha_hole, as_hole, find_mask, hole_in_crop, mask_files, read_hole

# Files


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_grey_antialiased_and_jpeg_masks_become_black_and_white(tmp_path: Path, suffix: str) -> None:
    expected = np.zeros((48, 64), dtype=bool)
    expected[16:32, 8:40] = True
    path = save(tmp_path / f"mask{suffix}", np.where(expected, 200, 40))
    hole, warning, sha256 = read_hole(path, (48, 64))
    assert np.array_equal(hole, expected) and warning is None
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_grey_is_rounded_to_black_or_white_and_can_be_inverted(tmp_path: Path) -> None:
    path = save(tmp_path / "ramp.png", np.arange(256)[None].repeat(2, axis=0))
    assert np.array_equal(read_hole(path, (2, 256))[0][1], np.arange(256) >= 128)
    assert np.array_equal(read_hole(path, (2, 256), invert=True)[0][1], np.arange(256) < 128)


def test_a_mask_of_another_size_is_resized_with_a_warning(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 2, (8, 6)) * 255
    hole, warning, _ = read_hole(save(tmp_path / "mask.png", small), (24, 18))
    assert np.array_equal(hole, small.repeat(3, axis=0).repeat(3, axis=1) > 0)
    assert warning == "the mask was resized from 6x8 to the photo's 18x24"


def test_a_mask_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("white")
    with pytest.raises(PhotoError, match="not an image"):
        read_hole(tmp_path / "mask.png", (8, 8))


def test_the_exif_orientation_of_a_mask_is_applied(tmp_path: Path) -> None:
    mask = grey([[255, 0, 0]])
    mask.getexif()[0x0112] = 6  # rotated by 90 degrees
    mask.save(tmp_path / "mask.png", exif=mask.getexif())
    assert read_hole(tmp_path / "mask.png", (3, 1))[0].ravel().tolist() == [True, False, False]


def test_a_folder_of_masks_is_matched_by_relative_path_and_stem(tmp_path: Path) -> None:
    for name in ("sub/a.png", "a.png", "sub/ab.png", "a.b.png", "a.c.png"):
        save(tmp_path / name)
    for name in ("sub/a", "a.b"):  # dots in a stem are part of it
        assert find_mask(mask_files(tmp_path), Path(name)) == tmp_path / f"{name}.png"
    with pytest.raises(MaskError, match="no mask for this photo; expected one image named sub/b"):
        find_mask(mask_files(tmp_path), Path("sub/b"))
    save(tmp_path / "sub" / "a.jpg")
    with pytest.raises(MaskError, match="2 masks for this photo; expected one image named sub/a"):
        find_mask(mask_files(tmp_path), Path("sub/a"))


# Alpha, masks in memory, crops


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_covers_all_pixels_that_are_not_opaque(mode: str) -> None:
    image = Image.new(mode, (4, 3))
    image.putalpha(grey([[255, 0, 1, 254]] * 3))
    hole = alpha_hole(to_photo(image))
    assert hole.tolist() == [[False, True, True, True]] * 3
    assert np.array_equal(alpha_hole(to_photo(image), invert=True), ~hole)


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
        *(grey([[0, 255], [255, 0]]).convert(mode) for mode in ("L", "1", "P", "RGBA")),
        grey([[0, 1], [1, 0]]),
    ],
    ids=lambda mask: f"{getattr(mask, 'dtype', None) or mask.mode} {getattr(mask, 'shape', '')}",
)
def test_every_usual_mask_means_the_same(mask: MaskLike, tmp_path: Path) -> None:
    photo = to_photo(grey([[0, 0], [0, 0]]))
    assert as_hole(mask, photo).tolist() == [[False, True], [True, False]]
    if isinstance(mask, Image.Image) and mask.mode != "1" and np.max(mask) > 1:  # the same from a file
        assert as_hole(save(tmp_path / "mask.png", mask), photo).tolist() == [[False, True], [True, False]]


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


def test_a_crop_marks_pixels_that_overlap_the_hole_or_lie_outside_the_photo() -> None:
    face = Alignment(np.array([[1.0, 0, 4], [0, 1, 0]]), 16)  # the crop begins 4 columns left of the photo
    hole = np.zeros((16, 8), dtype=bool)
    hole[5, 6] = True
    expected = np.pad(hole, ((0, 0), (4, 4)), constant_values=True)
    assert np.array_equal(hole_in_crop(hole, face), expected)
    assert hole_in_crop(expected, Alignment.identity(16)) is expected

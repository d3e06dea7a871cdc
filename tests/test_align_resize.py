"""Tests of reduced copies, their matrices, and boxes around masks."""

import numpy as np
import pytest

from align.resize import box_around, reduced, reduction, scale_to, scaled_size
from align.warp import transform


def test_the_longer_side_reaches_the_limit_and_small_photos_stay() -> None:
    assert scaled_size((300, 1200, 3), scale_to((300, 1200, 3), 600)) == (600, 150)
    assert scale_to((300, 200), 600) == 1
    assert scaled_size((1, 5000), 0.001) == (5, 1)  # no side vanishes


def test_a_reduced_pixel_is_the_mean_of_its_area() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    means = photo.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(reduced(photo, 0.5) - means).max() <= 0.5
    assert reduced(photo, 1) is photo


def test_the_matrix_maps_the_centre_of_a_block_to_its_reduced_pixel() -> None:
    # The block of pixels 4 to 7 becomes pixel 1 at a quarter of the size.
    assert transform(reduction(0.25), np.array([5.5, 5.5])) == pytest.approx([1, 1])


@pytest.mark.parametrize("margin", [0, 3, 100])
def test_a_box_holds_the_mask_and_its_margin_inside_the_photo(margin: int) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5, 7] = mask[9, 12] = True
    rows, columns = box_around(mask, margin)
    assert (rows.start, rows.stop) == (max(0, 5 - margin), min(20, 10 + margin))
    assert (columns.start, columns.stop) == (max(0, 7 - margin), min(30, 13 + margin))


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="empty"):
        box_around(np.zeros((4, 4), dtype=bool))

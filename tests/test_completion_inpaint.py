import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import box

from completion.inpaint import fsr_inpaint, inpaint, is_wide, patchmatch_inpaint

Y, X = np.mgrid[:300, :300]
TEXTURES = {
    "stripes": np.where((X + Y) // 12 % 2, 200.0, 60.0),
    "checks": np.where((X // 15 + Y // 15) % 2, 200.0, 60.0),
    "waves": 128 + 60 * np.sin(X / 7) + 40 * np.cos(Y / 11),
}
HOLE = box((300, 300), 110, 190, 110, 190)


def coloured(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.dstack([light, 0.8 * light, 0.6 * light]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("light", TEXTURES.values(), ids=TEXTURES)
def test_patches_continue_textures(light: NDArray[np.float64]) -> None:
    photo = coloured(light)
    seen = np.where(HOLE[..., None], np.uint8(0), photo)

    def error(filled: NDArray[np.uint8]) -> float:
        return float(np.abs(filled[HOLE].astype(float) - photo[HOLE]).mean())

    filled = patchmatch_inpaint(seen, HOLE, HOLE)
    assert error(filled) < error(inpaint(seen, HOLE)) / 4
    assert (filled[~HOLE] == photo[~HOLE]).all()
    assert np.array_equal(filled, patchmatch_inpaint(photo, HOLE, HOLE))  # repeatable, whatever is under the hole


def test_barred_pixels_are_not_copied() -> None:
    photo = np.full((300, 300, 3), 100, dtype=np.uint8)
    photo[60:100, 60:240] = (255, 0, 0)
    barred = box((300, 300), 58, 102, 58, 242)
    filled = patchmatch_inpaint(photo, HOLE, HOLE, barred)
    assert (filled[HOLE] == 100).all()


@pytest.mark.slow
def test_a_large_area_is_filled_at_reduced_size() -> None:
    photo = coloured(128 + 100 * np.sin(np.add.outer(np.arange(1000), np.arange(1200)) / 40))
    hole = box((1000, 1200), 250, 700, 300, 900)
    filled = patchmatch_inpaint(photo, hole, hole)
    assert np.abs(filled[hole].astype(float) - photo[hole]).mean() < 10
    assert (filled[~hole] == photo[~hole]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (5, 5), (30, 4)])
def test_photos_too_small_for_patches_stay_as_they_are(shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    hole = box(shape, 0, 1, 0, 1)
    assert patchmatch_inpaint(photo, hole, hole).shape == photo.shape
    assert np.array_equal(patchmatch_inpaint(photo, hole | True, hole | True), photo)


@pytest.mark.parametrize("side", [121, 122, 123, 124])
def test_frequencies_fill_areas_at_the_right_and_lower_border(side: int) -> None:
    photo = np.full((side, side, 3), (120, 90, 70), dtype=np.uint8)
    hole = box(photo.shape, side - 40, side, side - 60, side)
    filled = fsr_inpaint(photo, hole, hole)
    assert np.abs(filled.astype(int) - photo).max() < 20


def test_frequencies_leave_nothing_green_where_scratches_end_at_the_border() -> None:
    rng = np.random.default_rng(0)
    for shape in rng.integers(20, 80, (10, 2)):
        grey = cv2.GaussianBlur(rng.normal(128, 250, shape), (0, 0), 3)
        photo = np.repeat(grey.clip(30, 225).astype(np.uint8)[..., None], 3, axis=2)
        scratch = np.zeros(shape, np.uint8)
        for _ in range(3):
            ends = rng.integers(0, shape), (rng.integers(0, shape[0]), shape[1] - 1)
            cv2.line(scratch, *([int(value) for value in end[::-1]] for end in ends), 1, 3)
        filled = fsr_inpaint(photo, scratch > 0, scratch > 0).astype(int)
        assert np.ptp(filled, axis=2).max() < 20, "a grey photo is not grey"


def test_gaps_are_wide_from_twenty_pixels() -> None:
    assert not is_wide(box((50, 100), 10, 28, 0, 100)) and is_wide(box((50, 100), 10, 33, 0, 100))

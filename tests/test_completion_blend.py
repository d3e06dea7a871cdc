"""Tests of blending and classical inpainting: no seam, and unchanged visible pixels."""

from functools import partial

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import box

from completion.config import BLENDS
from completion.grain import grain, match_means
from completion.inpaint import blurred_fill, fsr_inpaint, inpaint, reduce_visible
from completion.poisson import blend

SIDE = 20
square = partial(box, (SIDE, SIDE))
FULL = square(0, SIDE, 0, SIDE)
HOLES = {
    "inside": square(5, 14, 6, 15),
    "one pixel": square(9, 10, 9, 10),
    "one pixel in a corner": square(0, 1, 19, 20),
    "2x2": square(9, 11, 9, 11),
    "one row": square(9, 10, 3, 17),
    "one whole row": square(9, 10, 0, SIDE),
    "one border": square(0, 8, 5, 14),
    "two borders": square(0, 8, 0, 8),
    "two opposite borders": square(6, 14, 0, SIDE),
    "three borders": square(8, SIDE, 0, SIDE),
    "four borders": FULL & ~square(8, 12, 8, 12),
    "all but one pixel": FULL & ~square(0, 1, 0, 1),
    "several": square(1, 4, 1, 4) | square(4, 7, 4, 7) | square(12, 20, 12, 20) | square(10, 11, 2, 3),
    "scattered": np.random.default_rng(0).random((SIDE, SIDE)) < 0.5,
    "lattice": np.indices((SIDE, SIDE)).sum(axis=0) % 2 == 0,
}
each_hole = pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES.keys())
each_blend = pytest.mark.parametrize("how", BLENDS)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """Noise of medium values, read-only."""
    pixels = np.random.default_rng(1).integers(80, 160, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    return pixels


@pytest.fixture
def fill() -> NDArray[np.uint8]:
    pixels = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    return pixels


@each_hole
def test_a_shifted_patch_blends_back_to_the_background(hole: NDArray[np.bool_], photo: NDArray[np.uint8]) -> None:
    shift = np.array([-60, 7, 80])
    shifted = (photo + shift).astype(np.uint8)
    assert np.array_equal(blend(photo, shifted, hole), photo)


@each_hole
def test_visible_pixels_do_not_change_and_the_hole_is_never_read(
    hole: NDArray[np.bool_], photo: NDArray[np.uint8], fill: NDArray[np.uint8]
) -> None:
    other = np.where(hole[..., None], 255 - photo, photo)
    for how in BLENDS:
        blended = blend(photo, fill, hole, how)
        assert blended.dtype == np.uint8 and np.array_equal(blended[~hole], photo[~hole])
        assert np.array_equal(blend(other, fill, hole, how)[hole], blended[hole])


@each_blend
def test_arguments_are_not_modified(how: str, photo: NDArray[np.uint8], fill: NDArray[np.uint8]) -> None:
    hole = HOLES["several"].copy()
    hole.flags.writeable = False
    blended = blend(photo, fill, hole, how)  # writing to an argument would raise
    assert not np.shares_memory(blended, photo) and not np.shares_memory(blended, fill)
    assert not np.shares_memory(inpaint(photo, hole), photo)
    assert not np.shares_memory(match_means(fill, photo, 4), fill)


@each_blend
def test_a_full_hole_gives_the_fill_and_an_empty_one_the_photo(
    how: str, photo: NDArray[np.uint8], fill: NDArray[np.uint8]
) -> None:
    assert np.array_equal(blend(photo, fill, FULL, how), fill)
    empty = blend(photo, fill, ~FULL, how)
    assert np.array_equal(empty, photo) and empty is not photo


@each_blend
def test_separate_holes_are_filled_independently(how: str, photo: NDArray[np.uint8], fill: NDArray[np.uint8]) -> None:
    regions = [square(1, 4, 1, 4), square(12, 20, 12, 20)]
    together = blend(photo, fill, regions[0] | regions[1], how)
    for region in regions:
        assert np.array_equal(together[region], blend(photo, fill, region, how)[region])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_a_full_hole_in_a_tiny_photo_gives_the_fill(shape: tuple[int, int]) -> None:
    fill = np.full((*shape, 3), 77, dtype=np.uint8)
    assert np.array_equal(blend(np.zeros_like(fill), fill, np.ones(shape, dtype=bool)), fill)


def test_poisson_removes_only_harmonic_differences() -> None:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE]
    photo = np.stack([60 + 3 * xs, 100 + 2 * ys, 40 + xs + ys], axis=2).astype(np.uint8)
    saddle = (xs - 9) * (ys - 10)  # also harmonic in the discrete sense
    fill = (photo + np.stack([saddle, 2 * xs, -2 * ys], axis=2)).clip(0, 255).astype(np.uint8)
    hole = HOLES["inside"]
    assert np.array_equal(blend(photo, fill, hole), photo)
    assert not np.array_equal(blend(photo, fill, hole, "none"), photo)


def test_poisson_is_exact_in_a_large_hole_with_islands() -> None:
    """A ramp is harmonic, so a flat photo stays flat."""
    ys, xs = np.mgrid[0:254, 0:254].astype(np.uint8)
    photo, fill = np.full((254, 254, 3), 127, dtype=np.uint8), np.stack([xs, ys, 254 - xs], axis=2)
    hole = box((254, 254), 1, -1, 1, -1)
    hole[50:60, 90:130] = hole[100, 100] = False
    assert hole.sum() > 60_000
    assert np.array_equal(blend(photo, fill, hole), photo)


def solve_densely(
    photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Solve Poisson's equation by a dense matrix: (pixels in the hole, 3), before rounding."""
    at = np.argwhere(np.ones_like(hole))
    beside = np.abs(at[:, None] - at).sum(axis=2) == 1  # each pixel with each other
    inside, given = hole.ravel(), ~(hole | ignored).ravel()
    mismatch = (photo.astype(np.float64) - fill).reshape(-1, 3)[given]
    matrix = np.diag(beside[inside][:, inside | given].sum(axis=1)) - beside[np.ix_(inside, inside)]
    # Of all solutions the smallest, which is 0 in a region without a boundary.
    correction = np.linalg.lstsq(matrix, beside[np.ix_(inside, given)] @ mismatch)[0]
    return np.clip(fill[hole] + correction, 0, 255)


@each_hole
def test_poisson_agrees_with_a_dense_solution(hole: NDArray[np.bool_]) -> None:
    rng = np.random.default_rng(4)
    photo, fill = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    for ignored in (np.zeros_like(hole), ~hole & (rng.random(hole.shape) < 0.3)):
        blended = blend(photo, fill, hole, ignored=ignored)[hole]
        # 1e-3: a hundred times the tolerance of the solver
        assert np.abs(blended - solve_densely(photo, fill, hole, ignored)).max() <= 0.5 + 1e-3


def test_what_shows_something_else_at_the_boundary_does_not_spread() -> None:
    photo = np.full((60, 60, 3), 100, dtype=np.uint8)
    photo[:, 40:] = 230  # background beside a face
    hole = box((60, 60), 15, 45, 10, 40)
    face = np.full_like(photo, 90)  # too dark
    plain, limited = blend(photo, face, hole), blend(photo, face, hole, limit=20)
    assert plain[30, 30, 0] > 130 and limited[30, 10:31, 0].max() < 110
    assert limited[30, 39, 0] > 150 and np.all(np.diff(limited[30, 20:40, 0].astype(int)) >= 0)  # no step
    assert np.array_equal(limited[:, :10], photo[:, :10])
    shifted = np.clip(photo.astype(int) - 10, 0, 255).astype(np.uint8)
    assert np.array_equal(blend(photo, shifted, hole, limit=20), photo)


def test_poisson_clips_instead_of_wrapping_around() -> None:
    photo = np.full((SIDE, SIDE, 3), 250, dtype=np.uint8)
    fill = np.full_like(photo, 100)
    fill[8:11, 9:12] = 200
    hole = HOLES["inside"]
    blended = blend(photo, fill, hole)
    assert (blended >= 250).all() and (blended[8:11, 9:12] == 255).all()


def test_alpha_fades_from_the_nearest_visible_colour_into_the_fill() -> None:
    photo = np.full((60, 60, 3), 50, dtype=np.uint8)
    fill = np.full_like(photo, 150)
    hole = box((60, 60), 10, 50, 10, 50)  # 1,600 pixels: 2 px wide
    line = blend(photo, fill, hole, "alpha")[30, 8:16, 0].tolist()
    assert line == [50, 50, 100, 150, 150, 150, 150, 150]


def test_none_copies(photo: NDArray[np.uint8], fill: NDArray[np.uint8]) -> None:
    hole = HOLES["scattered"]
    assert np.array_equal(blend(photo, fill, hole, "none"), np.where(hole[..., None], fill, photo))


def test_an_unknown_blend_is_refused(photo: NDArray[np.uint8], fill: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="'smooth', expected one of poisson, alpha, none"):
        blend(photo, fill, FULL, "smooth")


@each_hole
def test_inpaint_never_reads_the_hole(hole: NDArray[np.bool_], photo: NDArray[np.uint8]) -> None:
    filled = inpaint(photo, hole)
    other = np.where(hole[..., None], 255 - photo, photo)
    assert np.array_equal(inpaint(other, hole), filled)
    assert np.array_equal(filled[~hole], photo[~hole])


def test_inpaint_never_reads_the_hole_of_a_large_photo() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (300, 2100, 3), dtype=np.uint8)
    hole = box((300, 2100), 101, 167, 333, 951)
    other = np.where(hole[..., None], 255 - photo, photo)
    assert np.array_equal(inpaint(other, hole)[hole], inpaint(photo, hole)[hole])


def test_inpaint_extends_a_flat_colour_over_any_distance() -> None:
    photo = np.full((300, 300, 3), (200, 100, 10), dtype=np.uint8)
    hole = box(photo.shape, 20, 300, 20, 300)
    dark = np.where(hole[..., None], 0, photo)
    assert np.abs(inpaint(dark, hole).astype(int) - photo).max() <= 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (1, 3000)])
def test_tiny_photos_are_inpainted(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 90, dtype=np.uint8)
    hole = box(shape, 0, 1, 0, 1)
    assert np.array_equal(inpaint(photo, hole)[~hole], photo[~hole])
    expected = 127 if hole.all() else 90
    assert np.abs(inpaint(photo, hole)[hole].astype(int) - expected).max() <= 1
    assert np.array_equal(inpaint(photo, ~hole)[hole], photo[hole])


def test_match_means_reproduces_the_block_means() -> None:
    rng = np.random.default_rng(0)
    fill = rng.integers(60, 200, (32, 32, 3), dtype=np.uint8)
    face = np.kron(rng.integers(90, 160, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    matched = match_means(fill, face, 4)
    means = matched.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(means, face[::4, ::4], atol=1)
    detail = np.corrcoef((fill - fill.mean()).ravel(), matched.ravel())[0, 1]
    assert detail > 0.5  # detail comes from the fill


def test_match_means_reads_only_the_block_means() -> None:
    rng = np.random.default_rng(0)
    fill = rng.integers(60, 200, (16, 16, 3), dtype=np.uint8)
    face = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    flipped = face.reshape(4, 4, 4, 4, 3)[:, ::-1, :, ::-1].reshape(16, 16, 3)  # flips each block
    assert not np.array_equal(face, flipped)
    assert np.array_equal(match_means(fill, face, 4), match_means(fill, flipped, 4))


def test_grain_matches_the_surroundings_and_changes_only_the_part() -> None:
    rng = np.random.default_rng(0)
    grainy = np.clip(128 + rng.normal(0, 6, (120, 120, 1)), 0, 255).round().astype(np.uint8).repeat(3, axis=2)
    hole = box((120, 120), 40, 80, 40, 80)
    smooth = np.where(hole[..., None], 128, grainy).astype(np.uint8)
    part = hole.copy()
    part[60:] = False
    done = grain(smooth, part, hole, 20)
    assert np.array_equal(done[~part], smooth[~part])
    fine = [values - cv2.GaussianBlur(values, (0, 0), 1) for values in (grainy[..., 0] * 1.0, done[..., 0] * 1.0)]
    assert fine[1][42:58, 42:78].std() == pytest.approx(fine[0][:36].std(), rel=0.15)
    again, other = grain(smooth, part, hole, 20), grain(smooth, part, hole, 20, seed=1)
    assert np.array_equal(done, again) and not np.array_equal(done, other)
    assert np.abs(grain(grainy, part, hole, 20).astype(int) - grainy).mean() < 0.5  # it already has grain


def test_coarse_and_coloured_grain_is_continued() -> None:
    white = np.random.default_rng(0).normal(0, 20, (160, 160, 3))
    grainy = cv2.GaussianBlur(white @ np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 0]]), (0, 0), 1.2) + 128
    hole = box((160, 160), 40, 120, 40, 120)
    photo = np.where(hole[..., None], 128, grainy).round().astype(np.uint8)

    def bands(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Covariance of the channels in the hole, for what blurs of one pixel and of two remove."""
        blurred = [values, *(cv2.GaussianBlur(values, (0, 0), sigma) for sigma in (1, 2))]
        return [np.cov((blurred[i] - blurred[i + 1])[hole].T) for i in range(2)]

    made, true = bands(grain(photo, hole, hole, 30).astype(np.float64)), bands(grainy)
    for here, there in zip(made, true, strict=True):
        assert 0.5 < here[0, 0] / there[0, 0] < 1.1 and here[2, 2] < 0.1 * here[0, 0]
        assert here[0, 1] / here[0, 0] == pytest.approx(there[0, 1] / there[0, 0], abs=0.1)
    _, coarse = bands(grain(photo, hole, hole, 5).astype(np.float64))
    assert coarse[0, 0] < 0.3 * true[1][0, 0]  # in a small face, it could be structure


def test_grain_changes_nothing_without_visible_pixels() -> None:
    photo, hole = np.full((20, 20, 3), 9, dtype=np.uint8), np.ones((20, 20), dtype=bool)
    assert np.array_equal(grain(photo, hole, hole, 5), photo)


def striped(angle: float = 0.5) -> NDArray[np.uint8]:
    y, x = np.mgrid[:160, :160]
    wave = 128 + 100 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 4)
    return np.repeat(wave[..., None], 3, axis=2).round().astype(np.uint8)


def test_fsr_inpaint_extends_structures_into_a_wide_hole() -> None:
    photo, hole, part = striped(), box((160, 160), 60, 100, 60, 100), box((160, 160), 60, 100, 60, 90)
    filled = fsr_inpaint(photo, hole, part)
    assert np.array_equal(filled[~part], photo[~part])
    error, classical = (np.abs(fill.astype(float) - photo)[part].mean() for fill in (filled, inpaint(photo, hole)))
    assert error < classical / 2
    noise = np.random.default_rng(0).integers(0, 256, photo.shape, dtype=np.uint8)
    hidden = fsr_inpaint(np.where(hole[..., None], noise, photo), hole, part)
    assert np.array_equal(filled[part], hidden[part])  # pixels under the hole are not read


def test_fsr_inpaint_changes_nothing_without_visible_pixels() -> None:
    photo, hole = striped(), np.ones((160, 160), dtype=bool)
    assert np.array_equal(fsr_inpaint(photo, hole, hole), photo)


def test_a_reduced_photo_keeps_visible_colours_apart_from_those_under_the_hole() -> None:
    rng = np.random.default_rng(0)
    photo, hole = np.full((60, 80, 3), (10, 100, 200), dtype=np.uint8), rng.random((60, 80)) < 0.5
    hole[20:40, 20:50] = True
    photo[hole] = rng.integers(0, 256, (hole.sum(), 3))
    small, small_hole = reduce_visible(photo, hole, 0.25)
    assert small.shape == (15, 20, 3) and small_hole.shape == (15, 20)
    assert (small[~small_hole] == (10, 100, 200)).all()
    blocks = hole.reshape(15, 4, 20, 4).mean(axis=(1, 3))
    assert np.array_equal(small_hole, blocks > 0.75)
    assert np.allclose(small[small_hole], photo.reshape(15, 4, 20, 4, 3).mean(axis=(1, 3))[small_hole], atol=1)


def test_a_blurred_fill_is_smooth_and_keeps_the_photo() -> None:
    ys, xs = np.mgrid[:200, :300]
    photo = np.stack([xs * 0.8, ys, 128 + 0 * xs], axis=-1).astype(np.uint8)
    hole = (xs > 100) & (xs < 200) & (ys > 50) & (ys < 150)
    filled = blurred_fill(np.where(hole[..., None], np.uint8(7), photo), hole)
    assert np.array_equal(filled[~hole], photo[~hole])
    assert np.abs(filled[hole].astype(int) - photo[hole]).mean() < 12  # the colours of what is around
    assert np.abs(np.diff(filled[60:140, 110:190].astype(int), axis=1)).max() <= 4  # no edges
    assert (blurred_fill(photo, np.ones_like(hole)) == 127).all()

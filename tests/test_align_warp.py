"""Geometry: fits meet the templates, warps are accurate to a fraction of a pixel, crops are pasted back in place."""

import numpy as np
import pytest

from align.template import TEMPLATES, Template
from align.warp import Alignment, fit, invert, transform


def blob(height, width, x, y, sigma=6.0):
    """A bright spot, whose centre of mass shows where a point is mapped to."""
    ys, xs = np.mgrid[0:height, 0:width]
    return (255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2))).astype(np.uint8)


def centre(spot):
    """The centre of mass (x, y)."""
    ys, xs = np.mgrid[0 : spot.shape[0], 0 : spot.shape[1]]
    weight = spot.astype(float)
    return np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()


def similarity(scale, degrees, x, y):
    turn = np.deg2rad(degrees)
    a, b = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[a, -b, x], [b, a, y]])


def smooth(height, width):
    """A photo with so little detail that a smaller crop preserves it."""
    ys, xs = np.mgrid[0:height, 0:width]
    planes = [128 + 100 * np.sin(xs / 40), 128 + 100 * np.cos(ys / 50), 128 + 100 * np.sin((xs + ys) / 60)]
    return np.stack(planes, axis=2).astype(np.uint8)


LANDMARKS = np.random.default_rng(3).uniform(50, 200, (68, 2))
MATRICES = {
    "same size": similarity(1.0, 0, -40, -30),
    "smaller": similarity(0.4, 0, -10, -10),
    "larger": similarity(1.7, 0, -160, -140),
    "turned": similarity(0.6, 35, 20, -60),
    "mirrored affine": np.array([[-0.5, 0.1, 80.0], [0.05, 0.6, -20.0]]),
}
matrices = pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)


@pytest.mark.parametrize(
    ("name", "indices", "targets"),
    [
        ("inner-eyes-bottom-lip", (39, 42, 57), [(23.28, 11.39), (39.61, 11.06), (32.01, 48.04)]),
        ("outer-eyes-nose", (36, 45, 33), [(12.43, 10.83), (50.49, 10.12), (31.68, 32.92)]),
    ],
)
@pytest.mark.parametrize("size", [64, 96])
def test_affine_fits_meet_the_targets_of_openface(name, indices, targets, size):
    alignment = fit(TEMPLATES[name], LANDMARKS, size)
    assert alignment.size == size
    for index, target in zip(indices, targets, strict=True):
        assert alignment.apply(LANDMARKS[index]) == pytest.approx(np.array(target) * size / 64)


@pytest.mark.parametrize("size", [64, 128])
def test_the_face_template_meets_the_eye_centres_and_preserves_proportions(size):
    # The order of dlib's five: the person's left eye (outer, inner), right eye (outer, inner), nose.
    landmarks = np.array([[140.0, 90], [120, 92], [60, 100], [84, 98], [101, 130]])
    alignment = fit(TEMPLATES["face"], landmarks, size)
    assert alignment.apply(np.array([72, 99])) == pytest.approx([0.345 * size, 0.41 * size])
    assert alignment.apply(np.array([130, 91])) == pytest.approx([0.655 * size, 0.41 * size])
    linear = alignment.matrix[:, :2]
    assert linear @ linear.T == pytest.approx(np.eye(2) * np.linalg.det(linear))  # no shear, no reflection


def test_a_least_squares_fit_recovers_the_similarity():
    template = Template("three", 3, ((0,), (1,), (2,)), ((0.1, 0.2), (0.8, 0.3), (0.4, 0.9)), "similarity")
    wanted = similarity(0.3, 20, 5, -7)
    landmarks = transform(invert(wanted), np.array(template.targets) * 64)
    assert fit(template, landmarks, 64).matrix == pytest.approx(wanted)


@pytest.mark.parametrize("name", TEMPLATES)
def test_landmarks_on_one_point_or_line_have_no_fit(name):
    with pytest.raises(ValueError, match="lie on one"):
        fit(TEMPLATES[name], np.full((68, 2), 30.0), 64)
    if TEMPLATES[name].fit == "affine":
        with pytest.raises(ValueError, match="lie on one line"):
            fit(TEMPLATES[name], np.stack([np.arange(68.0), np.arange(68.0) * 2], axis=1), 64)


@matrices
def test_arrays_of_points_are_mapped_to_the_crop_and_back(matrix):
    points = np.random.default_rng(0).uniform(0, 100, (4, 3, 2))
    moved = Alignment(matrix, 64).apply(points)
    assert moved.shape == (4, 3, 2)
    assert moved[2, 1] == pytest.approx(matrix @ [*points[2, 1], 1])
    assert transform(Alignment(matrix, 64).inverse, moved) == pytest.approx(points)


@matrices
def test_warp_maps_a_point_as_the_matrix_does(matrix):
    x, y = transform(invert(matrix), np.array([30, 36]))
    crop = Alignment(matrix, 64).warp(blob(300, 300, x, y))
    assert crop.shape == (64, 64) and crop.dtype == np.uint8
    assert centre(crop) == pytest.approx([30, 36], abs=0.25)


def test_warp_by_the_identity_changes_nothing():
    photo = smooth(64, 64)
    assert np.array_equal(Alignment(similarity(1, 0, 0, 0), 64).warp(photo), photo)


def test_warp_shrinks_by_means():
    stripes = np.zeros((256, 256), dtype=np.uint8)
    stripes[:, ::2] = 255
    for shift in (0, 0.25):  # plain interpolation would give 255 and 0
        crop = Alignment(similarity(0.25, 0, shift, 0), 64).warp(stripes)
        assert np.abs(crop[4:-4, 4:-4].astype(int) - 127).max() <= 20


def test_warp_repeats_the_edge_pixels_outside_the_photo():
    photo = np.zeros((80, 80, 3), dtype=np.uint8)
    photo[:, 0] = 200
    crop = Alignment(similarity(1, 0, 20, 0), 64).warp(photo)
    assert (crop[:, :20] == 200).all() and crop.shape == (64, 64, 3)


def test_a_crop_outside_the_photo_repeats_its_edge_and_covers_nothing():
    photo = np.full((40, 40, 3), 90, dtype=np.uint8)
    outside = Alignment(similarity(1, 0, 500, 500), 64)
    assert (outside.warp(photo) == 90).all()
    assert not outside.footprint((40, 40)).any()
    assert np.array_equal(outside.paste(photo, np.zeros((64, 64, 3), dtype=np.uint8)), photo)


def test_a_photo_longer_than_opencv_accepts_can_be_warped():
    photo = np.full((60_000, 3, 3), 50, dtype=np.uint8)
    photo[50_000:] = 180
    assert (Alignment(similarity(1, 0, 0, -55_000), 64).warp(photo) == 180).all()


@matrices
def test_paste_of_warp_restores_the_photo(matrix):
    photo, alignment = smooth(220, 200), Alignment(matrix, 64)
    again = alignment.paste(photo, alignment.warp(photo))
    inside = alignment.footprint(photo.shape[:2])
    assert inside.sum() > 500
    assert np.array_equal(again[~inside], photo[~inside])
    assert np.abs(again.astype(int) - photo).max() <= 6
    assert np.abs(again.astype(int) - photo).mean() <= 1


@matrices
def test_paste_maps_a_point_as_the_inverse_does_and_does_not_modify_the_photo(matrix):
    photo = np.zeros((300, 300, 3), dtype=np.uint8)
    before = photo.copy()
    spot = np.repeat(blob(64, 64, 30, 36)[..., None], 3, axis=2)
    pasted = Alignment(matrix, 64).paste(photo, spot)
    assert np.array_equal(photo, before)
    assert centre(pasted[..., 0]) == pytest.approx(transform(invert(matrix), np.array([30, 36])), abs=0.4)


@matrices
def test_the_footprint_is_the_pixels_that_the_matrix_maps_into_the_crop(matrix):
    ys, xs = np.mgrid[0:90, 0:110]
    u, v = np.moveaxis(np.stack([xs, ys, np.ones_like(xs)], axis=2) @ matrix.T, 2, 0)
    expected = (u >= 0) & (u <= 63) & (v >= 0) & (v <= 63)
    assert np.array_equal(Alignment(matrix, 64).footprint((90, 110)), expected)


@matrices
def test_paste_fills_a_border_with_the_edge_pixels_of_the_crop(matrix):
    alignment, crop = Alignment(matrix, 64), np.full((64, 64, 3), 200, dtype=np.uint8)
    plain, wide = (alignment.footprint((300, 300), beyond) for beyond in (0, 3))
    near = np.zeros_like(plain)  # within 3 px, except at corners and along the shorter axis of an affine fit
    for dy, dx in ((0, 2), (0, -2), (2, 0), (-2, 0)):
        near |= np.roll(plain, (dy, dx), (0, 1))
    assert (wide >= plain).all() and (wide & near).sum() > plain.sum() and wide[near].mean() > 0.99
    pasted = alignment.paste(np.zeros((300, 300, 3), dtype=np.uint8), crop, 3)
    assert np.array_equal(pasted[..., 0] > 0, wide) and (pasted[wide] == 200).all()


def test_a_face_is_pasted_back_into_its_photo(astronaut):
    alignment = Alignment(similarity(0.5, 10, -60, -40), 64)
    crop = alignment.warp(astronaut)
    again = alignment.warp(alignment.paste(astronaut, crop))
    assert np.abs(again[2:-2, 2:-2].astype(int) - crop[2:-2, 2:-2]).mean() < 4


@pytest.mark.parametrize("scale", [0.25, 0.7, 3])
def test_a_rescaled_alignment_maps_the_same_points_of_a_resized_photo(scale: float) -> None:
    alignment = Alignment(np.array([[0.3, -0.1, 5], [0.1, 0.3, -2]]), 64)
    points = np.random.default_rng(0).uniform(0, 500, (20, 2))
    resized = (points + 0.5) * scale - 0.5  # pixel centres are half a pixel from the border
    assert np.allclose(alignment.rescaled(scale).apply(resized), alignment.apply(points))
    assert np.allclose(alignment.rescaled(scale).rescaled(1 / scale).matrix, alignment.matrix)

"""Tests of named masks on the faces of photos."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import FACE, PORTRAIT

from align.errors import MaskError
from align.landmarks import find_faces
from align.locate import locate
from align.template import TEMPLATES
from align.warp import Alignment
from completion.named import draw_named_mask
from dcgan.holes import HOLES


@pytest.fixture(scope="module")
def found() -> Alignment:
    [face] = locate(PORTRAIT, TEMPLATES["face"], 32)
    return face


@pytest.fixture(scope="module")
def landmarks() -> NDArray[np.float64]:
    [points] = find_faces(PORTRAIT, 68)
    return points


@pytest.mark.parametrize("mask", HOLES)
def test_every_named_mask_lies_inside_the_crop(found: Alignment, mask: str) -> None:
    hole = draw_named_mask(PORTRAIT, mask, [found])
    covered = found.footprint(hole.shape)
    assert hole.any() and not hole[~covered].any()
    shares = {"center": 0.25, "random": 0.2, "grid": 15 / 16, "pattern": 0.25, "full": 1, "lowres": 1}
    share = shares.get(mask, 0.5 if mask in ("left", "right", "top", "bottom", "half") else 0.12)
    assert hole.sum() / covered.sum() == pytest.approx(share, abs=0.08)


def test_masks_lie_on_the_landmarks_of_the_photo(found: Alignment, landmarks: NDArray[np.float64]) -> None:
    ys, xs = np.nonzero(draw_named_mask(PORTRAIT, "center", [found]))
    assert np.linalg.norm(landmarks.mean(axis=0) - [xs.mean(), ys.mean()]) < 20
    xs, ys = landmarks.round().astype(int).T
    for mask, part in (("eyes", slice(36, 48)), ("nose", slice(27, 36)), ("mouth", slice(48, 68))):
        on = draw_named_mask(PORTRAIT, mask, [found])[ys, xs]
        assert on[part].mean() > 0.9 and on[:17].sum() == 0  # not on the jaw
    with pytest.raises(MaskError, match="no face was found"):
        draw_named_mask(FACE, "eyes", [Alignment.identity(32)])


def test_a_named_mask_has_the_resolution_of_the_photo() -> None:
    turned = Alignment(np.array([[0.1, 0.02, 1], [-0.02, 0.1, 8]]), 32)  # a pixel of the crop is ten of the photo
    hole = draw_named_mask(np.zeros((320, 320, 3), dtype=np.uint8), "center", [turned])
    columns = np.arange(110, 200)
    top = hole[:, columns].argmax(axis=0)
    straight = np.polyval(np.polyfit(columns, top, 1), columns)
    assert np.abs(top - straight).max() < 1 and abs(top[-1] - top[0]) > 10


def test_a_seed_repeats_a_random_mask_and_faces_add_up() -> None:
    faces = [Alignment(np.array([[1.0, 0, -x], [0, 1, 0]]), 32) for x in (0, 32)]
    photo = np.zeros((32, 64, 3), dtype=np.uint8)
    one, again, other = (draw_named_mask(photo, "random", faces, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.array_equal(one[:, :32], one[:, 32:]) and one.any()

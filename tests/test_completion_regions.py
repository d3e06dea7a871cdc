"""Tests of dividing a hole among faces, scratches and the background."""

import numpy as np
from numpy.typing import NDArray
from pictures import box

from align.warp import Alignment
from completion.regions import divide, owners, touches

SHAPE = (200, 300)
# Crops of 32 pixels, 100 pixels wide in the photo: columns 50 to 149, and 150 to 249.
LEFT, RIGHT = (Alignment(np.array([[0.32, 0, -0.32 * x + 0.5], [0, 0.32, -16]]), 32) for x in (51, 151))


def under(face: Alignment) -> NDArray[np.bool_]:
    return face.footprint(SHAPE)


def test_each_pixel_belongs_to_the_face_with_the_nearest_centre_or_to_the_background() -> None:
    hole = box(SHAPE, 40, 190, 20, 280)
    regions = divide(hole, [LEFT, RIGHT])
    assert regions.faces == [LEFT, RIGHT] and not regions.scratches.any()
    assert np.array_equal(regions.background, hole & ~under(LEFT) & ~under(RIGHT))
    assert np.array_equal(regions.parts[0] ^ regions.parts[1], hole & (under(LEFT) | under(RIGHT)))
    shifted = Alignment(LEFT.matrix - [[0, 0, 16], [0, 0, 0]], 32)  # 50 pixels further right
    one, other = divide(hole, [LEFT, shifted]).parts
    assert not (one & ~under(LEFT)).any() and not (other & ~under(shifted)).any() and not (one & other).any()
    columns = np.arange(SHAPE[1])
    assert one[100, (columns > 52) & (columns < 123)].all() and other[100, (columns > 127) & (columns < 196)].all()


def test_only_faces_under_the_hole_take_part() -> None:
    hole = box(SHAPE, 80, 120, 180, 220)
    regions = divide(hole, [LEFT, RIGHT])
    assert regions.faces == [RIGHT] and np.array_equal(regions.parts[0], hole)
    assert touches(hole, RIGHT) and not touches(hole, LEFT)
    assert (owners(hole, [LEFT, RIGHT]) == 1).all()


def test_a_hole_without_a_face_is_all_background() -> None:
    hole = box(SHAPE, 0, 40, 0, 300)
    for faces in ([], [LEFT, RIGHT]):
        regions = divide(hole, faces)
        assert not regions.faces and not regions.parts and np.array_equal(regions.background, hole)


def test_scratches_are_at_most_3_percent_of_a_crop_wide() -> None:
    spot = box(SHAPE, 110, 130, 90, 110)
    for width, thin in ((2, True), (3, False)):  # of 100 pixels
        line = box(SHAPE, 100, 100 + width, 60, 140)
        regions = divide(line | spot, [LEFT])
        assert np.array_equal(regions.scratches, line & thin)
        assert np.array_equal(regions.parts[0], spot if thin else line | spot)
    assert np.array_equal(divide(line, [LEFT]).parts[0], line)


def test_pixels_missing_everywhere_are_not_scratches() -> None:
    hole = under(LEFT) & (np.random.default_rng(0).random(SHAPE) < 0.8)
    regions = divide(hole, [LEFT])
    assert not regions.scratches.any() and np.array_equal(regions.parts[0], hole)


def test_what_is_thin_is_judged_for_each_face_and_the_background_alone() -> None:
    crack, mark = box(SHAPE, 10, 190, 270, 272), box(SHAPE, 100, 104, 80, 120)
    regions = divide(crack | mark, [LEFT])  # 4 pixels are no scratch on LEFT; 2 are one outside
    assert np.array_equal(regions.scratches, crack) and np.array_equal(regions.parts[0], mark)
    small = Alignment(np.array([[1.6, 0, -130], [0, 1.6, -160]]), 32)  # of 20 pixels, on which nothing is thin
    regions = divide(crack | mark, [small])
    assert np.array_equal(regions.scratches & crack, crack) and not (regions.scratches & under(small)).any()

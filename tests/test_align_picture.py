"""Tests of grids and animations."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.picture import grid, write_animation

IMAGES = [np.full((2, 3, 3), level, dtype=np.uint8) for level in (10, 20, 30)]


def test_a_grid_is_filled_by_rows_and_its_rest_is_white() -> None:
    square = grid(IMAGES)
    assert square.shape == (4, 6, 3)
    assert [int(square[y, x, 0]) for y, x in ((0, 0), (0, 3), (2, 0), (2, 3))] == [10, 20, 30, 255]
    assert grid(IMAGES, columns=3).shape == (2, 9, 3)


@pytest.mark.parametrize("frames", [IMAGES, IMAGES[:1]])
def test_an_animation_has_every_frame_in_order(tmp_path: Path, frames: list[np.ndarray]) -> None:
    write_animation(tmp_path / "a.gif", frames, 40, 900)
    with Image.open(tmp_path / "a.gif") as image:
        shown = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            shown.append(np.asarray(image.convert("RGB"))[0, 0, 0])
        durations = image.info.get("duration")
    assert shown == [frame[0, 0, 0] for frame in frames]
    assert len(frames) == 1 or durations == 900

"""Pictures for people to look at: the strip of a completion, the animation of a search."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.files import atomic_write

_LEAST_PX, _MOST_PX = 256, 768
_HOLE_COLOUR = (255, 0, 255)


def strip(photo: NDArray[np.uint8], hole: NDArray[np.bool_], completed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Photo, photo with its hole painted over, and completion, side by side, cut to the hole's surroundings.

    Args:
        photo: uint8 (H, W, 3).
        hole: bool (H, W), not empty.
        completed: uint8 (H, W, 3).
    Returns:
        uint8, small photos enlarged and large ones reduced.
    """
    return np.hstack(around(hole, [photo, painted(photo, hole), completed]))


def contact_sheet(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], completions: Sequence[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """The photo and its completions, row by row in a sheet that is about square, cut to the hole's surroundings.

    Args:
        photo: uint8 (H, W, 3), shown first.
        hole: bool (H, W), not empty.
        completions: uint8 (H, W, 3) each, the first one next to the photo.
    Returns:
        uint8, small photos enlarged and large ones reduced; what is left of the last row is white.
    """
    cells = around(hole, [photo, *completions])
    columns = int(np.ceil(np.sqrt(len(cells))))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[first : first + columns]) for first in range(0, len(cells), columns)])


def painted(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The photo with its hole in a colour that no face has."""
    shown = photo.copy()
    shown[hole] = _HOLE_COLOUR
    return shown


def write_animation(path: Path, frames: Sequence[NDArray[np.uint8]], most: int = 60) -> None:
    """Write frames as a GIF that lingers on the last; of more than `most` some are left out.

    Args:
        path: .gif.
        frames: uint8 (S, S, 3) each.
        most: frames to keep.
    """
    kept = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    images = [Image.fromarray(_viewable(frames[index])) for index in kept]
    with atomic_write(path) as file:
        images[0].save(
            file,
            "GIF",
            save_all=True,
            append_images=images[1:],
            duration=[80] * (len(images) - 1) + [1500],
            loop=0,
        )


def around(hole: NDArray[np.bool_], pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Cut pictures to a hole and as much around it as it is long.

    Args:
        hole: bool (H, W), not empty.
        pictures: uint8 (H, W, 3) each.
    Returns:
        uint8 each, small ones enlarged and large ones reduced.
    """
    ys, xs = np.nonzero(hole)
    air = max(int(np.ptp(ys)), int(np.ptp(xs)))
    box = tuple(slice(max(0, axis.min() - air), axis.max() + 1 + air) for axis in (ys, xs))
    return [_viewable(picture[box]) for picture in pictures]


def _viewable(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = max(picture.shape[:2])
    if side < _LEAST_PX:
        times = -(-_LEAST_PX // side)
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    if side > _MOST_PX:
        size = tuple(max(1, round(length * _MOST_PX / side)) for length in picture.shape[1::-1])
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return picture

"""Pictures of a completion: strip, contact sheet, and animation of the search."""

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
    """Show the photo, its hole and the completion side by side, cropped to the area around the hole.

    Args:
        photo: uint8 (H, W, 3).
        hole: bool (H, W), not empty.
        completed: uint8 (H, W, 3).
    Returns:
        uint8 (h, 3 * w, 3), scaled up or down to a viewable size.
    """
    return np.hstack(around(hole, [photo, painted(photo, hole), completed]))


def contact_sheet(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], completions: Sequence[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Arrange the photo and its completions in a roughly square grid, cropped to the area around the hole.

    Args:
        photo: uint8 (H, W, 3), the first cell.
        hole: bool (H, W), not empty.
        completions: uint8 (H, W, 3) each, the following cells.
    Returns:
        uint8 (rows * h, columns * w, 3), scaled up or down to a viewable size; unused cells are white.
    """
    cells = around(hole, [photo, *completions])
    columns = int(np.ceil(np.sqrt(len(cells))))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[first : first + columns]) for first in range(0, len(cells), columns)])


def painted(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Paint the hole of a photo magenta."""
    shown = photo.copy()
    shown[hole] = _HOLE_COLOUR
    return shown


def write_animation(path: Path, frames: Sequence[NDArray[np.uint8]], most: int = 60) -> None:
    """Write frames as a looping GIF that holds the last frame for 1.5 s.

    Args:
        path: output file, .gif.
        frames: uint8 (S, S, 3) each.
        most: maximum number of frames; longer sequences are thinned out evenly.
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
    """Crop pictures to a hole, with a border on all sides as wide as the hole's longer side.

    Args:
        hole: bool (H, W), not empty.
        pictures: uint8 (H, W, 3) each.
    Returns:
        uint8 (h, w, 3) each, scaled up or down to a viewable size.
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

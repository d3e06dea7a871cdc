"""Pictures of a completion: strip, contact sheet, and animation of the search."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from align import picture
from align.resize import box_around

_LEAST_PX, _MOST_PX = 256, 768
_HOLE_COLOUR = (255, 0, 255)
_FRAMES = 60  # of an animation


def strip(photo: NDArray[np.uint8], hole: NDArray[np.bool_], completed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show the photo, its hole and the completion side by side, cropped to the area around the hole.

    Args:
        photo: uint8 (H, W, 3).
        hole: bool (H, W).
        completed: uint8 (H, W, 3).
    Returns:
        uint8 (h, 3 * w, 3), scaled up or down to a viewable size.
    """
    return np.hstack(crop_to_mask(hole, [photo, overlay_mask(photo, hole), completed]))


def contact_sheet(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], completions: Sequence[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Arrange the photo with its hole and its completions in a roughly square grid, cropped to the hole.

    Args:
        photo: uint8 (H, W, 3).
        hole: bool (H, W).
        completions: uint8 (H, W, 3) each.
    Returns:
        uint8 (rows * h, columns * w, 3), scaled up or down to a viewable size; unused cells are white.
    """
    return picture.grid(crop_to_mask(hole, [overlay_mask(photo, hole), *completions]))


def overlay_mask(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Paint the hole of a photo magenta."""
    shown = photo.copy()
    shown[hole] = _HOLE_COLOUR
    return shown


def write_animation(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Write at most 60 evenly spaced frames, uint8 (S, S, 3) each, as a looping GIF that holds the last for 1.5 s."""
    kept = np.unique(np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int))
    picture.write_animation(path, [_viewable(frames[index]) for index in kept], last_ms=1500)


def crop_to_mask(hole: NDArray[np.bool_], pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Crop pictures to a hole, with a border on all sides as wide as the hole's longer side.

    Args:
        hole: bool (H, W); if it is empty, the pictures are not cropped.
        pictures: uint8 (H, W, 3) each.
    Returns:
        uint8 (h, w, 3) each, scaled up or down to a viewable size.
    """
    if not hole.any():
        return [_viewable(each) for each in pictures]
    rows, columns = box_around(hole)
    box = box_around(hole, max(rows.stop - rows.start, columns.stop - columns.start) - 1)
    return [_viewable(each[box]) for each in pictures]


def _viewable(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = max(pixels.shape[:2])
    if side < _LEAST_PX:
        times = -(-_LEAST_PX // side)
        return pixels.repeat(times, axis=0).repeat(times, axis=1)
    if side > _MOST_PX:
        size = tuple(max(1, round(length * _MOST_PX / side)) for length in pixels.shape[1::-1])
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return pixels

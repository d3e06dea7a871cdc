"""Reduced copies of photos, the matrices that go with them, boxes around masks, and bands of rows."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_BAND = 256  # rows that are processed at a time


def scale_to(shape: tuple[int, ...], limit_px: float) -> float:
    """Return the scale at which the longer side of a photo (H, W, ...) has at most `limit_px` pixels; at most 1."""
    return min(1.0, limit_px / max(shape[:2]))


def scaled_size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Return (width, height) of a photo (H, W, ...) at another scale, each at least 1 px."""
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def reduced(photo: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Reduce a photo (H, W) or (H, W, 3) by area means; the photo itself for scale 1."""
    if scale == 1:
        return photo
    size = scaled_size(photo.shape, scale)
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def reduction(scale: float) -> NDArray[np.float64]:
    """Return the (2, 3) matrix from a photo to its copy at another scale; pixel centres are at whole numbers."""
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])


def box_around(mask: NDArray[np.bool_], margin_px: int = 0) -> tuple[slice, slice]:
    """Return the rows and columns around the True pixels of a mask (H, W), with a margin, clipped to the photo.

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("the mask is empty; it has no box")
    margin = int(margin_px)
    return (
        slice(max(0, int(rows[0]) - margin), min(mask.shape[0], int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(mask.shape[1], int(columns[-1]) + 1 + margin)),
    )


def in_bands(function: Callable[..., NDArray[Any]], *images: Any) -> NDArray[Any]:
    """Apply a function to bands of rows and join the results: of a large photo, each copy takes much memory.

    Args:
        function: takes a band of each image, and returns an array with as many rows.
        images: arrays (H, ...).
    """
    joined: NDArray[Any] | None = None
    for top in range(0, len(images[0]), _BAND):
        part = function(*(image[top : top + _BAND] for image in images))
        if joined is None:
            joined = np.empty((len(images[0]), *part.shape[1:]), part.dtype)
        joined[top : top + len(part)] = part
    assert joined is not None
    return joined

"""Arrange images in a grid, write animations, and round levels to bytes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.files import atomic_write


def rounded(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Round levels to bytes; those below 0 and above 255 are clipped."""
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def grid(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], columns: int | None = None) -> NDArray[np.uint8]:
    """Arrange images of one size in rows.

    Args:
        images: uint8 (H, W, 3) each, at least one.
        columns: images per row; about the square root of their number by default.
    Returns:
        uint8 (rows * H, columns * W, 3); unused cells are white.
    """
    cells = list(images)
    across = columns or math.ceil(math.sqrt(len(cells)))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % across)
    return np.vstack([np.hstack(cells[first : first + across]) for first in range(0, len(cells), across)])


def write_animation(path: Path, frames: Sequence[NDArray[np.uint8]], frame_ms: int = 80, last_ms: int = 80) -> None:
    """Write an endless GIF.

    Args:
        path: output file, .gif.
        frames: uint8 (H, W, 3) each, at least one.
        frame_ms: duration of a frame.
        last_ms: duration of the last frame.
    Raises:
        OSError: the file cannot be written.
    """
    first, *others = [Image.fromarray(frame) for frame in frames]
    durations = [frame_ms] * len(others) + [last_ms]
    with atomic_write(path) as file:
        first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0)

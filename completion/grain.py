"""Match a generated fill to its photo: grain, and the means of blocks."""

import cv2
import numpy as np
from numpy.typing import NDArray

from align.resize import box_around

_BLUR_PX = 1.0  # standard deviation of the blur that separates grain from image structure
_WINDOW_PX = 7  # side of the windows in which grain is measured


def grain(
    completed: NDArray[np.uint8], part: NDArray[np.bool_], hole: NDArray[np.bool_], reach_px: float, seed: int = 0
) -> NDArray[np.uint8]:
    """Add noise to an upscaled fill, as strong as the grain of the visible pixels around it.

    Args:
        completed: uint8 (H, W, 3); not modified.
        part: bool (H, W), pixels that receive noise.
        hole: bool (H, W), the whole hole; its pixels are not measured.
        reach_px: width of the border around `part` where grain is measured, in pixels.
        seed: seed of the noise.
    Returns:
        uint8 (H, W, 3), changed only in `part`.
    """
    reach = int(np.ceil(reach_px))
    box = box_around(part, reach)
    light = cv2.cvtColor(completed[box], cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = light - cv2.GaussianBlur(light, (0, 0), _BLUR_PX)
    away = cv2.distanceTransform((~hole[box]).astype(np.uint8), cv2.DIST_L2, 3)
    around = (away > _WINDOW_PX / 2 + 1) & (away <= reach)
    if not around.any():
        return completed
    there, here = _strength(fine, around), _strength(fine, part[box])
    missing = np.sqrt(max(0.0, there**2 - here**2))
    white = np.random.default_rng(seed).standard_normal(fine.shape[:2], dtype=np.float32)
    noise: NDArray[np.float32] = white - cv2.GaussianBlur(white, (0, 0), _BLUR_PX)
    noise *= missing / _strength(noise, np.ones(noise.shape, dtype=bool))
    grained = completed.copy()
    grained[part] = np.clip(np.round(completed[part] + noise[part[box]][:, None]), 0, 255).astype(np.uint8)
    return grained


def _strength(fine: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Measure grain in the smoothest fifth of the given pixels, which excludes hair and edges."""
    local = cv2.blur(fine * fine, (_WINDOW_PX, _WINDOW_PX))
    return float(np.sqrt(np.quantile(local[where], 0.2)))


def match_means(fill: NDArray[np.uint8], face: NDArray[np.uint8], block: int) -> NDArray[np.uint8]:
    """Adjust a generated face so that its block means match those of the true face.

    Args:
        fill: uint8 (S, S, 3), the generated face.
        face: uint8 (S, S, 3), the true face; only its block means are read.
        block: side of the blocks in pixels.
    Returns:
        uint8 (S, S, 3).
    Source: Irani and Peleg 1991, "Improving resolution by image registration" (back-projection).
    """
    small = (face.shape[1] // block, face.shape[0] // block)
    means = cv2.resize(face, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    corrected = fill.astype(np.float32)
    for _ in range(10):
        missing = means - cv2.resize(corrected, small, interpolation=cv2.INTER_AREA)
        corrected += cv2.resize(missing, fill.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(np.round(corrected), 0, 255).astype(np.uint8)

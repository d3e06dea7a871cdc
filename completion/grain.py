"""Match a generated fill to its photo: grain, and the means of blocks."""

import cv2
import numpy as np
from numpy.typing import NDArray

from align.picture import rounded
from align.resize import box_around

_BANDS_PX = (1.2, 2.0), (0.0, 1.0)  # grain is what lies between two blurs; what is coarser is structure
_LEAST_REACH_PX = 6  # in smaller faces, what is coarse is structure, too
_WINDOW_PX = 7  # side of the windows in which grain is measured


def grain(
    completed: NDArray[np.uint8], part: NDArray[np.bool_], hole: NDArray[np.bool_], reach_px: float, seed: int = 0
) -> NDArray[np.uint8]:
    """Add noise to an upscaled fill, as strong, coarse and coloured as the grain of the visible pixels around it.

    Args:
        completed: uint8 (H, W, 3); not modified.
        part: bool (H, W), pixels that receive noise.
        hole: bool (H, W), the whole hole; its pixels are not measured.
        reach_px: width of the border around `part` where grain is measured, in pixels.
        seed: seed of the noise.
    Returns:
        uint8 (H, W, 3), changed only in `part`; channels that were equal stay equal.
    """
    reach = int(np.ceil(reach_px))
    box = box_around(part, reach)
    away = cv2.distanceTransform((~hole[box]).astype(np.uint8), cv2.DIST_L2, 3)
    around = (away > _WINDOW_PX / 2 + 1) & (away <= reach)
    if not around.any():
        return completed
    pixels = completed[box].astype(np.float32)
    rng, inside = np.random.default_rng(seed), part[box]
    bands = _BANDS_PX if reach_px >= _LEAST_REACH_PX else _BANDS_PX[-1:]
    for finer, coarser in bands:  # coarse noise counts as fine, too

        def band(values: NDArray[np.float32], finer: float = finer, coarser: float = coarser) -> NDArray[np.float32]:
            return _blurred(values, finer) - _blurred(values, coarser)

        fine, noise = band(pixels), band(rng.standard_normal(pixels.shape, dtype=np.float32))
        variances, axes = np.linalg.eigh(_covariance(fine, around) - _covariance(fine, inside))
        noise = noise @ (axes * np.sqrt(np.maximum(variances, 0)) @ axes.T / band(noise).std()).astype(np.float32)
        pixels[inside] += noise[inside]
    grained = completed.copy()
    grained[part] = rounded(pixels[inside])
    return grained


def _blurred(values: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    return cv2.GaussianBlur(values, (0, 0), sigma_px).astype(np.float32, copy=False) if sigma_px else values


def _covariance(fine: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Covariance of the channels in the smoothest fifth of the given pixels, which excludes hair and edges: (3, 3)."""
    local = cv2.blur((fine * fine).sum(axis=2), (_WINDOW_PX, _WINDOW_PX))
    smooth = np.quantile(local[where], 0.2)
    values = fine[where & (local <= smooth)].astype(np.float64)
    products = values.T @ values
    return products * smooth / max(float(np.trace(products)), 1e-9)


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
    return rounded(corrected)

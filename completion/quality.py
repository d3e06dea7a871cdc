"""Quality of a completion whose true pixels are known."""

import math

import numpy as np
from numpy.typing import NDArray


def psnr(real: NDArray[np.uint8], fake: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB; inf for equal images.

    Args:
        real: uint8 (H, W, 3).
        fake: uint8 (H, W, 3).
        where: bool (H, W), the pixels to compare, such as the hole; all by default.
    """
    difference = np.maximum(real, fake) - np.minimum(real, fake)
    if where is not None:
        difference = difference[where]
    mse = float(np.square(difference, dtype=np.uint16).mean(dtype=np.float64))  # little memory, also for large photos
    return 10 * math.log10(255**2 / mse) if mse else math.inf

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
    difference = real.astype(np.float64) - fake
    if where is not None:
        difference = difference[where]
    mse = float(np.square(difference).mean())
    return 10 * math.log10(255**2 / mse) if mse else math.inf

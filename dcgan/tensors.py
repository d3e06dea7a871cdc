"""The one place where uint8 images become tensors in [-1, 1] and come back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Images to what the networks see.

    Args:
        images: uint8 (N, S, S, 3).
    Returns:
        float32 (N, 3, S, S) in [-1, 1], channels_last in memory.
    """
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_image(images: Tensor) -> NDArray[np.uint8]:
    """What the networks make to images: (N, 3, S, S) in [-1, 1] to uint8 (N, S, S, 3); values beyond are clipped."""
    return ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

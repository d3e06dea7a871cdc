"""Conversion between uint8 images and tensors in [-1, 1]."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.errors import InputError


class OutputError(InputError):
    """The networks of some weights do not give images."""


def to_tensor(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Convert images to input for the networks.

    Args:
        images: uint8 (N, S, S, 3).
    Returns:
        float32 (N, 3, S, S) in [-1, 1], channels_last in memory.
    """
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_image(images: Tensor) -> NDArray[np.uint8]:
    """Convert (N, 3, S, S) in [-1, 1] to images uint8 (N, S, S, 3); other values are clipped.

    Raises:
        OutputError: a value is NaN or infinite.
    """
    if not torch.isfinite(images).all():
        raise OutputError("the networks gave NaN or infinity instead of an image; use other weights")
    return to_bytes(images.detach()).cpu().numpy()


def to_bytes(images: Tensor) -> Tensor:
    """As `to_image`, on the device of the images and without the check."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)

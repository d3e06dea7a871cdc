"""Augmentation of D's inputs, real and generated, for training on few photos."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def draw_shifts(count: int, largest_px: int, generator: torch.Generator) -> Tensor:
    """Draw random shifts: int64 (count, 2), rows and columns, each from -largest_px to largest_px."""
    return torch.randint(-largest_px, largest_px + 1, (count, 2), generator=generator)


def translate(images: Tensor, shifts: Tensor, largest_px: int) -> Tensor:
    """Shift images by whole pixels and fill in black, -1. Differentiable.

    Args:
        images: (N, 3, S, S) in [-1, 1].
        shifts: int64 (N, 2) from `draw_shifts`; positive values move down and right.
        largest_px: bound of the shifts in pixels.
    Returns:
        (N, 3, S, S).
    Source: Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", translation.
    """
    size = images.shape[-1]
    padded = pad(images, [largest_px] * 4, value=-1.0)
    rows, columns = (torch.arange(size, device=images.device) + largest_px - shifts[:, axis, None] for axis in (0, 1))
    image = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (N, S, S, 3)
    return moved.permute(0, 3, 1, 2)

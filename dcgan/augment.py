"""Augmentation: shifts of D's inputs, for training on few photos, and other tones, for photos unlike the data set."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def draw_shifts(count: int, largest_px: int, generator: torch.Generator) -> Tensor:
    """Draw random shifts: int64 (count, 2), rows and columns, each from -largest_px to largest_px."""
    return torch.randint(-largest_px, largest_px + 1, (count, 2), generator=generator)


def translate(images: Tensor, shifts: Tensor, largest_px: int) -> Tensor:
    """Shift images (N, 3, S, S) down and right, as of `draw_shifts`, and fill in black, -1. Differentiable.

    Source: Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", translation.
    """
    size = images.shape[-1]
    padded = pad(images, [largest_px] * 4, value=-1.0)
    rows, columns = (torch.arange(size, device=images.device) + largest_px - shifts[:, axis, None] for axis in (0, 1))
    image = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (N, S, S, 3)
    return moved.permute(0, 3, 1, 2)


def draw_tones(count: int, grey: float, contrast: float, generator: torch.Generator) -> Tensor:
    """Draw changes of tone: float32 (count, 3), the share of grey, the gain and the offset of each image.

    A share `grey` of the images becomes grey, as in black-and-white photos, and a share `contrast` has a gain, 0.6 to
    1.2, and an offset, -0.2 to 0.2, other than 1 and 0.
    """
    first, second, gain, offset = torch.rand(4, count, generator=generator)
    changed = (second < contrast).float()
    return torch.stack([(first < grey).float(), 1 + changed * (0.6 * gain - 0.4), changed * (0.4 * offset - 0.2)], 1)


def change_tones(images: Tensor, tones: Tensor) -> Tensor:
    """Change the tones of images (N, 3, S, S) in [-1, 1] as drawn by `draw_tones`; an image without a change stays."""
    grey, gain, offset = tones.T[:, :, None, None, None]
    red, green, blue = images.split(1, dim=1)
    images = torch.where(grey > 0, 0.299 * red + 0.587 * green + 0.114 * blue, images)  # ITU-R BT.601
    return (gain * images + offset).clamp(-1, 1)

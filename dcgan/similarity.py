"""Multi-scale structural similarity on torch tensors, with gradients."""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# Weights of the scales, the finest first (Wang et al. 2003); window and constants of SSIM (Wang et al. 2004).
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX, _WINDOW_SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity of images (N, 3, S, S) in [-1, 1]: (N,), 1 for equal ones. Differentiable.

    The five scales of the paper need images of 176 px. Smaller images use as many scales as the 11 px window fits into,
    such as 64, 32 and 16 px for 64 px, with weights scaled to a sum of 1. Scales with negative correlation count as 0.

    Raises:
        ValueError: the shapes differ, or the window does not fit.
    Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment", eq. 7.
    """
    if a.shape != b.shape or min(a.shape[-2:]) < _WINDOW_PX:
        raise ValueError(f"images of {tuple(a.shape)} and {tuple(b.shape)}; expected equal shapes and 11 px or more")
    weights = ms_ssim_weights(min(a.shape[-2:]))
    pair = (torch.cat([a, b], dim=1).float() + 1) / 2
    similarity = pair.new_ones(len(pair))
    for scale, weight in enumerate(weights):
        if scale:
            pair = avg_pool2d(pair, 2)
        x, y = pair.chunk(2, dim=1)
        means = _window_means(torch.cat([x, y, x * x, y * y, x * y], dim=1))
        mean_x, mean_y, square_x, square_y, product = means.chunk(5, dim=1)  # (N, 3, S - 10, S - 10)
        both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
        here = (2 * (product - both) + _C2) / (square_x + square_y - squares + _C2)
        if scale == len(weights) - 1:  # luminance counts only at the coarsest scale
            here = here * (2 * both + _C1) / (squares + _C1)
        # The gradient of the power is unbounded at 0.
        similarity = similarity * here.mean(dim=(1, 2, 3)).clamp(min=1e-6) ** weight
    return similarity


def ms_ssim_weights(size: int) -> list[float]:
    """Weights of the scales that fit into `size` pixels, the finest first; their sum is 1."""
    fitting = _SCALE_WEIGHTS[: int(math.log2(size / _WINDOW_PX)) + 1]
    return [weight / sum(fitting) for weight in fitting]


def _window_means(images: Tensor) -> Tensor:
    """Gaussian-weighted means, (N, C, H, W) to (N, C, H - 10, W - 10); matrix products are ten times as fast here."""
    offsets = torch.arange(_WINDOW_PX, device=images.device) - _WINDOW_PX // 2
    window = torch.softmax(-offsets.square() / (2 * _WINDOW_SIGMA**2), dim=0)

    def band(side: int) -> Tensor:
        places = torch.arange(side - _WINDOW_PX + 1, device=images.device)[:, None] + offsets + _WINDOW_PX // 2
        return window.new_zeros(len(places), side).scatter_(1, places, window.expand(len(places), -1))

    return band(images.shape[2]) @ images @ band(images.shape[3]).T

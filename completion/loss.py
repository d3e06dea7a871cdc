"""Losses of the search for z, one function per equation; summed over pixels, as in the papers."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, logsigmoid, pad


def context_weight(known: Tensor, window: int = 7) -> Tensor:
    """Weight each visible pixel by the share of missing pixels in its neighbourhood; 0 inside the hole.

    Args:
        known: bool or float (N, 1, S, S), 1 for visible pixels.
        window: side of the neighbourhood N(i) in pixels, odd; clipped at the image border.
    Returns:
        float32 (N, 1, S, S) in [0, 1].
    Source: Yeh et al. 2017, "Semantic Image Inpainting with Deep Generative Models", eq. 3.
    """
    known = known.float()
    missing = pad(1 - known, [window // 2] * 4)
    count = pad(torch.ones_like(known), [window // 2] * 4)
    share = avg_pool2d(missing, window, 1) / avg_pool2d(count, window, 1)
    return known * share


def context_loss(fake: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Compute the weighted L1 distance over the visible pixels.

    Args:
        fake: G(z), float32 (N, 3, S, S), range [-1, 1].
        real: aligned face, float32 (1, 3, S, S) or one per candidate, same range.
        weight: float32 (1, 1, S, S) or one per candidate, unitless; 0 inside the hole.
    Returns:
        float32 (N,), one loss per candidate.
    Source: Yeh et al. 2017, eq. 4.
    """
    return (weight * (fake - real)).abs().sum(dim=(1, 2, 3))


def saturating_prior(logits: Tensor) -> Tensor:
    """Compute log(1 - D(G(z))) from logits (N,); Yeh et al. 2017, eq. 5."""
    return logsigmoid(-logits)


def log_prior(logits: Tensor) -> Tensor:
    """Compute -log D(G(z)) from logits (N,); Amos 2016, dcgan-completion.tensorflow."""
    return -logsigmoid(logits)

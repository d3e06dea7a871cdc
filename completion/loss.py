"""What the search of z minimises, one function per equation; values are sums over pixels, as in the papers."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, logsigmoid, pad


def context_weight(known: Tensor, window: int = 7) -> Tensor:
    """Weights of the known pixels: the share of missing ones in the window around each, 0 inside the hole.

    Args:
        known: bool or float (N, 1, S, S), 1 where the pixel is known.
        window: side of the neighbourhood N(i), odd; beyond the image it holds no pixels.
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
    """Weighted L1 distance on the known pixels.

    Args:
        fake: G(z), float32 (N, 3, S, S), range [-1, 1].
        real: aligned face, (1, 3, S, S) or one per candidate, same range.
        weight: float32 (1, 1, S, S) or one per candidate; 0 inside the hole, unitless.
    Returns:
        float32 (N,), one loss per candidate z.
    Source: Yeh et al. 2017, eq. 4.
    """
    return (weight * (fake - real)).abs().sum(dim=(1, 2, 3))


def saturating_prior(logits: Tensor) -> Tensor:
    """log(1 - D(G(z))) for logits (N,); Yeh et al. 2017, eq. 5."""
    return logsigmoid(-logits)


def log_prior(logits: Tensor) -> Tensor:
    """-log D(G(z)) for logits (N,); Amos 2016, dcgan-completion.tensorflow."""
    return -logsigmoid(logits)

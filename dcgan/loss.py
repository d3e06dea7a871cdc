"""Losses of D and G: one function per equation, mapping logits (N,) of real and generated images to a scalar."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


def minimax_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))); log 4 for an undecided D. Goodfellow et al. 2014, eq. 1."""
    return (softplus(-real) + softplus(fake)).mean()


def minimax_g(real: Tensor, fake: Tensor) -> Tensor:
    """log(1 - sigmoid(D(G(z)))); its gradient vanishes for a confident D. Goodfellow et al. 2014, eq. 1."""
    return -softplus(fake).mean()


def non_saturating_g(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))): same fixed point, but the gradient does not vanish. Goodfellow et al. 2014, section 3."""
    return softplus(-fake).mean()


def least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of D(x) from 1 and of D(G(z)) from 0. Mao et al. 2017, "LSGAN", eq. 9."""
    return ((real - 1).square() + fake.square()).mean() / 2


def least_squares_g(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of D(G(z)) from 1. Mao et al. 2017, eq. 9."""
    return (fake - 1).square().mean() / 2


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """D(G(z)) - D(x), for a 1-Lipschitz D. Arjovsky et al. 2017, "Wasserstein GAN", eq. 3."""
    return (fake - real).mean()


def wasserstein_g(real: Tensor, fake: Tensor) -> Tensor:
    """-D(G(z)); also G's hinge loss. Arjovsky et al. 2017, theorem 3."""
    return -fake.mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))). Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, eq. 16."""
    return (torch.relu(1 - real) + torch.relu(1 + fake)).mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(D(G(z)) - D(x)): each real image must look more real than its generated partner.

    Source: Jolicoeur-Martineau 2019, "The relativistic discriminator"; Huang et al. 2024, "The GAN is dead; long live
    the GAN!", eq. 2.
    """
    return softplus(fake - real).mean()


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(D(x) - D(G(z))), the same objective for G."""
    return softplus(real - fake).mean()


@dataclass(frozen=True)
class Loss:
    """The objective of D and G.

    Attributes:
        d: D's loss.
        g: G's loss; the logits of the real images are constants.
        relative: whether the loss only compares logits, so that their zero is arbitrary.
    """

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    relative: bool = False


LOSSES = {
    "minimax": Loss(minimax_d, minimax_g),
    "non-saturating": Loss(minimax_d, non_saturating_g),
    "ls": Loss(least_squares_d, least_squares_g),
    "wgan-gp": Loss(wasserstein_d, wasserstein_g, relative=True),
    "hinge": Loss(hinge_d, wasserstein_g),
    "relativistic": Loss(relativistic_d, relativistic_g, relative=True),
}


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Mean squared norm of D's gradient, without the factor gamma / 2: R1 on real images, R2 on generated ones.

    Args:
        images: (N, 3, S, S), a leaf that requires grad.
        logits: D(images), (N,).
    Source: Mescheder et al. 2018, "Which training methods for GANs do actually converge?", eq. 9 and 10.
    """
    return _squared_gradients(images, logits).mean()


def lipschitz_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Mean squared distance of the norm of D's gradient from 1, on mixtures of real and generated images.

    The arguments are those of `gradient_penalty`; the factor lambda is not included.

    Source: Gulrajani et al. 2017, "Improved training of Wasserstein GANs", eq. 3.
    """
    # The square root has no gradient at 0.
    return ((_squared_gradients(images, logits) + 1e-12).sqrt() - 1).square().mean()


def feature_distance(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 distance of D.features, (N, C, H, W) each, relative to their mean size, averaged over the blocks.

    Source: Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", section 2.2.
    """
    pairs = zip(fake, real, strict=True)
    return torch.stack([(one - other).abs().mean() / other.abs().mean() for one, other in pairs]).mean()


def _squared_gradients(images: Tensor, logits: Tensor) -> Tensor:
    """Squared norm of the gradient of each logit with respect to its image, in float32: (N,)."""
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3))

"""The losses of G and D, one function per equation."""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def classic_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), for logits (N,); a scalar.

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets", eq. 1.
    """
    return (softplus(-real) + softplus(fake)).mean()


def classic_g(fake: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))), the non-saturating loss, for logits (N,); a scalar.

    Source: Goodfellow et al. 2014, section 3.
    """
    return softplus(-fake).mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(D(G(z)) - D(x)): each real image must look more real than its generated partner; a scalar.

    Source: Jolicoeur-Martineau 2019, "The relativistic discriminator"; Huang et al. 2024, "The GAN is dead; long live
    the GAN!", eq. 2.
    """
    return softplus(fake - real).mean()


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(D(x) - D(G(z))), the same game from G's side; a scalar."""
    return softplus(real - fake).mean()


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Mean squared length of D's gradient: R1 on real images, R2 on generated ones.

    Args:
        images: (N, 3, S, S), a leaf that requires grad.
        logits: D(images), (N,).
    Returns:
        A float32 scalar, without the factor gamma / 2; differentiable in D's weights.
    Source: Mescheder et al. 2018, "Which training methods for GANs do actually converge?", eq. 9 and 10.
    """
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()

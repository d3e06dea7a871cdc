"""Find a latent z whose image G(z) matches the visible pixels of a face, on torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.transforms.functional import gaussian_blur

from completion import loss
from completion.config import Solver, blur_radius
from completion.engine import NO_ENCODER, Step
from dcgan.adam import Adam
from dcgan.networks import Skip
from dcgan.sampling import device_of, sample_z
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights, WeightsError


@dataclass(frozen=True)
class State:
    """State of the search after one step, as `completion.engine.Step`, in tensors.

    Attributes:
        number: step number, from 0 (the initial z) to the solver's `steps`.
        z: float32 (N, K, nz), the candidates.
        context: float32 (N, K), weighted L1 distance over the visible pixels, summed over values in [-1, 1].
        prior: float32 (N, K), the prior loss before weighting; 0 if it cannot affect the result.
        total: float32 (N, K), the objective.
        images: float32 (N, K, 3, S, S), images of the candidates, in [-1, 1].
    """

    number: int
    z: Tensor
    context: Tensor
    prior: Tensor
    total: Tensor
    images: Tensor


class Search:
    """An `Engine` for every solver.

    Args:
        weights: networks in eval mode.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.gpu = device_of(weights.generator).type != "cpu"

    def solve(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
    ) -> Iterator[Step]:
        """Search for several faces at once, see `solve`."""
        for state in solve(self._weights, crops, holes, solver, seed, block):
            context, prior, total = (value.cpu().numpy() for value in (state.context, state.prior, state.total))
            images = to_image(state.images.flatten(0, 1))
            yield Step(state.number, context, prior, total, images.reshape(*total.shape, *images.shape[1:]))


def solve(
    weights: Weights,
    crops: NDArray[np.uint8],
    holes: NDArray[np.bool_],
    solver: Solver,
    seed: int = 0,
    block: int = 1,
) -> Iterator[State]:
    """Search for the z of several faces at once; a face's result does not depend on the others.

    Args:
        weights: networks in eval mode, so that batch norm does not mix the candidates of a batch.
        crops: uint8 (N, S, S, 3), aligned faces; pixels under the holes are never read.
        holes: bool (N, S, S). If a hole covers the whole crop, the result is a random face.
        solver: settings of the search.
        seed: seed of the sampled z, which are the same for every face.
        block: above 1, ignore the holes and match only the means of blocks of `block` x `block` pixels. Encoders do
            not support this.
    Yields:
        solver.steps + 1 States; the last one is the result.
    Raises:
        WeightsError: the solver needs an encoder, and the weights have none or `block` is above 1.
    """
    E = weights.encoder if solver.start == "encoder" else None
    if E is None and solver.start == "encoder":
        raise WeightsError(NO_ENCODER)
    if E is not None and block > 1:
        raise WeightsError("an encoder cannot use the means of blocks; choose another solver, such as fast")
    G, D = weights.generator, weights.discriminator
    device = device_of(G)
    known = torch.from_numpy(~holes)[:, None].to(device)
    real = to_tensor(crops.copy()).to(device)  # a copy, as torch warns about read-only arrays
    if block > 1:
        real = avg_pool2d(real, block)
        weight = torch.ones_like(real[:, :1])
    else:
        real = torch.where(known, real, 0.0)
        weight = loss.context_weight(known) if solver.weighted else known.float()

    def judge(z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the images (N, K, 3, S, S) and context losses (N, K) of z (N, K, nz)."""
        count = z.shape[1]
        fake = G(z.flatten(0, 1), skips)
        if solver.mirrored is not None:
            fake = fake + blur((G((z + across).flatten(0, 1), mirrored_skips).flip(3) - fake) / 2, solver.mirrored)
        seen = avg_pool2d(fake, block) if block > 1 else fake
        context = loss.context_loss(seen, *(each.repeat_interleave(count, dim=0) for each in (real, weight)))
        return fake.unflatten(0, (-1, count)), context.unflatten(0, (-1, count))

    skips: list[Skip] = []
    drawn = sample_z(solver.draws, G.config, torch.Generator().manual_seed(seed)).to(device)
    drawn = drawn.expand(len(real), -1, -1)  # (N, draws, nz)
    if E is not None:
        # Noise around E's estimate, growing from none for the first candidate to the full prior for the last.
        with torch.no_grad():
            guess, skips = E(real, ~known)
            if solver.mirrored is not None:
                mirrored, mirrored_skips = E(real.flip(3), ~known.flip(3))
                across = (mirrored - guess)[:, None]  # (N, 1, nz): candidates have the same noise in both orientations
        drawn = guess[:, None] + torch.linspace(0, 1, solver.draws, device=device)[:, None] * drawn
        if G.config.z_prior == "uniform":
            drawn = drawn.clamp(-1, 1)
    if solver.draws > solver.restarts:
        with torch.no_grad():
            contexts = torch.cat([judge(part)[1] for part in drawn.split(64, dim=1)], dim=1)
        nearest = contexts.argsort(dim=1, stable=True)[:, : solver.restarts]
        drawn = drawn.gather(1, nearest[..., None].expand(-1, -1, drawn.shape[2]))
    z = drawn[:, : solver.restarts].clone().requires_grad_(solver.steps > 0)
    adam = Adam(z)
    prior_of = {"log": loss.log_prior, "saturating": loss.saturating_prior}[solver.prior]
    for number in range(solver.steps + 1):
        fake, context = judge(z)
        prior = torch.zeros_like(context)
        if solver.prior_weight and (solver.steps or solver.restarts > 1):
            prior = prior_of(D(fake.flatten(0, 1)) - weights.logit_offset).view_as(context)
        total = context + solver.prior_weight * prior + solver.z_weight * z.square().mean(dim=2)
        yield State(number, z.detach().clone(), *(value.detach() for value in (context, prior, total, fake)))
        if number < solver.steps:
            share = (1 + math.cos(math.pi * number / solver.steps)) / 2 if solver.cosine else 1.0
            (gradient,) = torch.autograd.grad(total.sum(), z)
            adam.step(gradient, solver.lr * share)
            if solver.clip is not None:
                bound = solver.clip * (1.0 if G.config.z_prior == "uniform" else 3.0)
                with torch.no_grad():
                    z.clamp_(-bound, bound)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images (N, 3, S, S) with a Gaussian of a standard deviation in pixels."""
    return gaussian_blur(images, 2 * blur_radius(sigma) + 1, sigma) if sigma > 0 else images

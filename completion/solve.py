"""The search of the z whose G(z) agrees with what is known of a face."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from completion import loss
from completion.config import SOLVERS, Solver
from dcgan.adam import Adam
from dcgan.checkpoint import Weights, WeightsError
from dcgan.networks import Skip
from dcgan.sampling import device_of, sample_z
from dcgan.tensors import to_image, to_tensor


@dataclass(frozen=True)
class Step:
    """One iteration of the search, for N faces at once.

    Attributes:
        number: from 0, where z is as drawn, to the solver's steps.
        z: float32 (N, K, nz), the candidates.
        context: float32 (N, K), weighted L1 on the known pixels, a sum in units of [-1, 1].
        prior: float32 (N, K), the prior loss, unweighted; 0 where nothing depends on it.
        total: float32 (N, K), what the search minimises.
        images: float32 (N, K, 3, S, S), G of the candidates, in [-1, 1].
    """

    number: int
    z: Tensor
    context: Tensor
    prior: Tensor
    total: Tensor
    images: Tensor

    @property
    def best(self) -> Tensor:
        """The candidate of the least total loss for each face: int64 (N,)."""
        return self.total.argmin(dim=1)

    @property
    def previews(self) -> NDArray[np.uint8]:
        """The best candidate of each face as uint8 (N, S, S, 3)."""
        return to_image(self.images[torch.arange(len(self.images)), self.best])


def resolve(solver: str | Solver, weights: Weights, block: int = 1) -> Solver:
    """The settings of a solver.

    Args:
        solver: a name in SOLVERS, or settings; or "fast", which is "encoder", or "search" where an encoder is absent
            or cannot help.
        weights: the networks to search with.
        block: see `solve`.
    Raises:
        WeightsError: the solver needs an encoder that the weights do not have.
    """
    if solver == "fast":
        solver = "search" if weights.encoder is None or block > 1 else "encoder"
    found = SOLVERS[solver] if isinstance(solver, str) else solver
    if found.start == "encoder" and weights.encoder is None:
        raise WeightsError("the weights have no encoder; train one with python -m dcgan encode, or take another solver")
    return found


def solve(
    weights: Weights,
    crops: NDArray[np.uint8],
    holes: NDArray[np.bool_],
    solver: Solver,
    seed: int = 0,
    block: int = 1,
) -> Iterator[Step]:
    """Search z for some faces; each gets what it would get alone.

    Args:
        weights: G and D, in eval mode: batch norm must not see which candidates share a batch.
        crops: uint8 (N, S, S, 3), aligned; what stands in the holes is never read.
        holes: bool (N, S, S). Nothing known at all makes it a pure generation.
        solver: how to search.
        seed: of the random z, which are the same for every face.
        block: with more than 1 the holes are disregarded and only the means of blocks of this side are known; of these
            an encoder can make nothing.
    Yields:
        solver.steps + 1 Steps; the last is the result.
    Raises:
        WeightsError: the solver needs an encoder, and there is none, or only block means are known.
    """
    E = weights.encoder if resolve(solver, weights).start == "encoder" else None
    if E is not None and block > 1:
        raise WeightsError("an encoder can make nothing of the means of blocks; take another solver, such as fast")
    G, D = weights.generator, weights.discriminator
    device = device_of(G)
    known = torch.from_numpy(~holes)[:, None].to(device)
    real = to_tensor(crops.copy()).to(device)  # torch warns of arrays that cannot be written to
    if block > 1:
        real = avg_pool2d(real, block)
        weight = torch.ones_like(real[:, :1])
    else:
        real = torch.where(known, real, 0.0)
        weight = loss.context_weight(known) if solver.weighted else known.float()

    def judge(z: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, K, 3, S, S) and context losses (N, K) of z (N, K, nz)."""
        count = z.shape[1]
        fake = G(z.flatten(0, 1), skips)
        if solver.mirrored:
            fake = (fake + G((z + across).flatten(0, 1), mirrored_skips).flip(3)) / 2
        seen = avg_pool2d(fake, block) if block > 1 else fake
        context = loss.context_loss(seen, *(each.repeat_interleave(count, dim=0) for each in (real, weight)))
        return fake.unflatten(0, (-1, count)), context.unflatten(0, (-1, count))

    skips: list[Skip] = []
    drawn = sample_z(solver.draws, G.config, torch.Generator().manual_seed(seed)).to(device)
    drawn = drawn.expand(len(real), -1, -1)  # (N, draws, nz)
    if E is not None:
        # They move to around E's guess, the first exactly there, each with more noise than the one before it.
        with torch.no_grad():
            guess, skips = E(real, ~known)
            if solver.mirrored:
                mirrored, mirrored_skips = E(real.flip(3), ~known.flip(3))
                across = (mirrored - guess)[:, None]  # (N, 1, nz), so that candidates get the same noise in both
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
        yield Step(number, z.detach().clone(), *(value.detach() for value in (context, prior, total, fake)))
        if number < solver.steps:
            share = (1 + math.cos(math.pi * number / solver.steps)) / 2 if solver.cosine else 1.0
            (gradient,) = torch.autograd.grad(total.sum(), z)
            adam.step(gradient, solver.lr * share)
            if solver.clip is not None:
                bound = solver.clip * (1.0 if G.config.z_prior == "uniform" else 3.0)
                with torch.no_grad():
                    z.clamp_(-bound, bound)

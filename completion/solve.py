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
from dcgan.adam import Adam
from dcgan.checkpoint import Weights, WeightsError
from dcgan.networks import sample_z
from dcgan.tensors import to_image, to_tensor


@dataclass(frozen=True)
class Solver:
    """How to search.

    Attributes:
        steps: iterations of Adam.
        restarts: candidates that are followed at once, K; the best is kept.
        start: "random" draws; "encoder" moves half of them to its guess, the first exactly there.
        draws: z that the candidates are chosen from, by their context loss.
        lr: Adam's learning rate at the start.
        cosine: let the learning rate fall to 0 on a cosine.
        weighted: weigh known pixels by how near the hole is (Yeh et al.), else all alike.
        prior: "log" for -log D(G(z)), "saturating" for log(1 - D(G(z))).
        prior_weight: of the prior loss.
        z_weight: of the mean square of z, which keeps z where G was trained.
        clip: bound on each dimension of z for a uniform prior, kept after every step; None for no bound.
    """

    steps: int
    restarts: int
    start: str
    draws: int
    lr: float
    cosine: bool
    weighted: bool
    prior: str
    prior_weight: float
    z_weight: float
    clip: float | None


SOLVERS = {
    # From the encoder's guess: more steps agree better with what is known, and worse with what is not.
    "fast": Solver(
        steps=10,
        restarts=2,
        start="encoder",
        draws=8,
        lr=0.05,
        cosine=True,
        weighted=True,
        prior="log",
        prior_weight=1.0,
        z_weight=100.0,
        clip=None,
    ),
    # Without an encoder.
    "search": Solver(
        steps=30,
        restarts=8,
        start="random",
        draws=128,
        lr=0.2,
        cosine=True,
        weighted=True,
        prior="log",
        prior_weight=1.0,
        z_weight=100.0,
        clip=None,
    ),
    # One pass and no search.
    "encoder": Solver(
        steps=0,
        restarts=1,
        start="encoder",
        draws=1,
        lr=0.0,
        cosine=False,
        weighted=True,
        prior="log",
        prior_weight=0.0,
        z_weight=0.0,
        clip=None,
    ),
    # Yeh et al. 2017, section 3 and 4; the learning rate is not in the paper.
    "paper": Solver(
        steps=1500,
        restarts=1,
        start="random",
        draws=1,
        lr=0.01,
        cosine=False,
        weighted=True,
        prior="saturating",
        prior_weight=0.003,
        z_weight=0.0,
        clip=1.0,
    ),
    # Amos 2016, the defaults of dcgan-completion.tensorflow.
    "bamos": Solver(
        steps=1000,
        restarts=1,
        start="random",
        draws=1,
        lr=0.01,
        cosine=False,
        weighted=False,
        prior="log",
        prior_weight=0.1,
        z_weight=0.0,
        clip=1.0,
    ),
}


@dataclass(frozen=True)
class Step:
    """One iteration of the search.

    Attributes:
        number: from 0, where z is as drawn, to the solver's steps.
        z: float32 (K, nz), the candidates.
        context: float32 (K,), weighted L1 on the known pixels, a sum in units of [-1, 1].
        prior: float32 (K,), the prior loss, unweighted.
        best: the candidate of the least total loss.
        image: float32 (1, 3, S, S), G of the best candidate, in [-1, 1].
    """

    number: int
    z: Tensor
    context: Tensor
    prior: Tensor
    best: int
    image: Tensor

    @property
    def preview(self) -> NDArray[np.uint8]:
        """The best candidate as uint8 (S, S, 3)."""
        return to_image(self.image)[0]


def resolve(solver: str | Solver, weights: Weights, block: int = 1) -> Solver:
    """The settings of a solver.

    Args:
        solver: a name in SOLVERS, or settings. "fast" becomes "search" where an encoder is absent or cannot help.
        weights: the networks to search with.
        block: see `solve`.
    Raises:
        WeightsError: the solver needs an encoder that the weights do not have.
    """
    if solver == "fast" and (weights.encoder is None or block > 1):
        solver = "search"
    found = SOLVERS[solver] if isinstance(solver, str) else solver
    if found.start == "encoder" and weights.encoder is None:
        raise WeightsError("the weights have no encoder; train one with python -m dcgan encode, or take another solver")
    return found


def solve(
    weights: Weights,
    crop: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    solver: Solver,
    seed: int = 0,
    block: int = 1,
) -> Iterator[Step]:
    """Search z for one face.

    Args:
        weights: G and D, in eval mode: batch norm must not see which candidates share a batch.
        crop: uint8 (S, S, 3), aligned; what stands in the hole is never read.
        hole: bool (S, S). Nothing known at all makes it a pure generation.
        solver: how to search.
        seed: of the random z.
        block: with more than 1 the hole is disregarded and only the means of blocks of this side are known; of these
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
    device = next(G.parameters()).device
    known = torch.from_numpy(~hole)[None, None].to(device)
    real = to_tensor(crop[None].copy()).to(device)  # torch warns of arrays that cannot be written to
    if block > 1:
        real = avg_pool2d(real, block)
        weight = torch.ones_like(real[:, :1])
    else:
        real = torch.where(known, real, 0.0)
        weight = loss.context_weight(known) if solver.weighted else known.float()

    def judge(z: Tensor) -> tuple[Tensor, Tensor]:
        """Images (K, 3, S, S) and context losses (K,)."""
        fake = G(z)
        return fake, loss.context_loss(avg_pool2d(fake, block) if block > 1 else fake, real, weight)

    drawn = sample_z(solver.draws, G.config, torch.Generator().manual_seed(seed)).to(device)
    if E is not None:
        # The first half moves to where E guesses, each with more noise left than the one before it.
        near = drawn[: (solver.draws + 1) // 2]
        with torch.no_grad():
            near.mul_(torch.linspace(0, 1, len(near), device=device)[:, None]).add_(E(real, ~known))
        if G.config.z_prior == "uniform":
            near.clamp_(-1, 1)
    if solver.draws > solver.restarts:
        with torch.no_grad():
            contexts = torch.cat([judge(part)[1] for part in drawn.split(64)])
        drawn = drawn[contexts.argsort(stable=True)]
    z = drawn[: solver.restarts].clone().requires_grad_(True)
    adam = Adam(z)
    prior_of = {"log": loss.log_prior, "saturating": loss.saturating_prior}[solver.prior]
    for number in range(solver.steps + 1):
        fake, context = judge(z)
        prior = prior_of(D(fake) - weights.logit_offset)
        total = context + solver.prior_weight * prior + solver.z_weight * z.square().mean(dim=1)
        best = int(total.detach().argmin())
        yield Step(number, z.detach().clone(), context.detach(), prior.detach(), best, fake[best : best + 1].detach())
        if number < solver.steps:
            share = (1 + math.cos(math.pi * number / solver.steps)) / 2 if solver.cosine else 1.0
            (gradient,) = torch.autograd.grad(total.sum(), z)
            adam.step(gradient, solver.lr * share)
            if solver.clip is not None:
                bound = solver.clip * (1.0 if G.config.z_prior == "uniform" else 3.0)
                with torch.no_grad():
                    z.clamp_(-bound, bound)

"""The search of the z whose G(z) agrees with what is known of a face."""

from dcgan.sampling import device_of
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from dcgan.sampling import sample_z
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from completion import loss
from dcgan.adam import Adam
from dcgan.checkpoint import Weights, WeightsError
from dcgan.networks import Skip
from dcgan.tensors import to_image, to_tensor


@dataclass(frozen=True)
class Solver:
    """How to search.

    Attributes:
        steps: iterations of Adam.
        restarts: candidates that are followed at once, K; the best is kept.
        start: "random" draws; "encoder" moves them to around its guess, the first exactly there.
        draws: z that the candidates are chosen from, by their context loss.
        lr: Adam's learning rate at the start.
        cosine: let the learning rate fall to 0 on a cosine.
        weighted: weigh known pixels by how near the hole is (Yeh et al.), else all alike.
        prior: "log" for -log D(G(z)), "saturating" for log(1 - D(G(z))).
        prior_weight: of the prior loss.
        z_weight: of the mean square of z, which keeps z where G was trained.
        clip: bound on each dimension of z for a uniform prior, kept after every step; None for no bound.
        mirrored: take the mean of the image and of the one that an encoder finds for the mirrored face.
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
    mirrored: bool = False


# One pass. Steps of Adam after it agree better with what is known, and worse with what is not. The weights only
# rank several candidates.
_ENCODER = Solver(
    steps=0,
    restarts=1,
    start="encoder",
    draws=1,
    lr=0.0,
    cosine=False,
    weighted=True,
    prior="log",
    prior_weight=30.0,
    z_weight=100.0,
    clip=None,
)
SOLVERS = {
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
    "encoder": _ENCODER,
    # What the encoder makes of the mirrored face errs elsewhere: the mean of both is nearer to the truth.
    "thorough": replace(_ENCODER, mirrored=True),
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

"""Search for a latent z whose image G(z) matches the visible pixels of a face, and the encoder's pass, on torch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from align.warp import Alignment
from completion import loss
from completion.config import Solver
from completion.step import Step
from dcgan.adam import Adam
from dcgan.export import EncoderGenerator
from dcgan.sampling import device_of, sample_z
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights

_SAMPLES = 64  # z rendered at once


class TorchGenerate:
    """A `Generate` on torch.

    Args:
        weights: networks in eval mode, with an encoder.
    """

    def __init__(self, weights: Weights) -> None:
        assert weights.encoder is not None
        self._network = EncoderGenerator(weights.encoder, weights.completer).eval()
        self._device = device_of(weights.generator)
        self.gpu = self._device.type != "cpu"

    @torch.no_grad()
    def __call__(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Generate faces, see `Generate`."""
        inputs = (torch.from_numpy(values.copy()).to(self._device) for values in (crops, holes, noise))
        faces: NDArray[np.uint8] = self._network(*inputs).cpu().numpy()
        return faces


class Search:
    """A `Runner` for solvers that start from random z.

    Args:
        weights: networks in eval mode, so that batch norm does not mix the candidates of a batch.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.gpu = device_of(weights.generator).type != "cpu"

    def solve(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
    ) -> Iterator[Step]:
        """Search for the z of several faces at once; a face's result does not depend on the others.

        Args:
            crops: uint8 (N, S, S, 3), aligned faces; pixels under the holes are never read.
            holes: bool (N, S, S). If a hole covers the whole crop, the result is a random face.
            solver: settings of the search.
            seed: seed of the sampled z, which are the same for every face.
            block: above 1, ignore the holes and match only the means of blocks of `block` x `block` pixels.
        Yields:
            solver.steps + 1 Steps; the last one is the result.
        Source: Yeh et al. 2017, section 3.2.
        """
        weights, G, D = self._weights, self._weights.generator, self._weights.discriminator
        device = device_of(G)
        known = torch.from_numpy(~holes)[:, None].to(device)
        real = to_tensor(crops.copy()).to(device)  # a copy, as torch warns about read-only arrays
        if block > 1:
            real = avg_pool2d(real, block)
            weight = torch.ones_like(real[:, :1])
        else:
            real = torch.where(known, real, 0.0)
            weight = loss.context_weight(known) if solver.weighted else known.float()

        def render_and_score(z: Tensor) -> tuple[Tensor, Tensor]:
            """Compute the images (N, K, 3, S, S) and context losses (N, K) of z (N, K, nz)."""
            count = z.shape[1]
            fake = G(z.flatten(0, 1))
            seen = avg_pool2d(fake, block) if block > 1 else fake
            context = loss.context_loss(seen, *(each.repeat_interleave(count, dim=0) for each in (real, weight)))
            return fake.unflatten(0, (-1, count)), context.unflatten(0, (-1, count))

        # Sample z, and keep those with the lowest context loss.
        sampled = sample_z(solver.samples, G.config, torch.Generator().manual_seed(seed)).to(device)
        sampled = sampled.expand(len(real), -1, -1)  # (N, samples, nz)
        if solver.samples > solver.candidates:
            with torch.no_grad():
                contexts = torch.cat([render_and_score(part)[1] for part in sampled.split(_SAMPLES, dim=1)], dim=1)
            nearest = contexts.argsort(dim=1, stable=True)[:, : solver.candidates]
            sampled = sampled.gather(1, nearest[..., None].expand(-1, -1, sampled.shape[2]))

        # Optimise them.
        z = sampled[:, : solver.candidates].clone().requires_grad_(solver.steps > 0)
        adam = Adam(z)
        prior_of = {"log": loss.log_prior, "saturating": loss.saturating_prior}[solver.prior]
        for number in range(solver.steps + 1):
            fake, context = render_and_score(z)
            prior = torch.zeros_like(context)
            if solver.prior_weight and (solver.steps or solver.candidates > 1):
                prior = prior_of(D(fake.flatten(0, 1)) - weights.logit_offset).view_as(context)
            total = context + solver.prior_weight * prior + solver.z_weight * z.square().mean(dim=2)
            images = to_image(fake.detach().flatten(0, 1))
            yield Step(
                number,
                solver.steps,
                crops,
                holes,
                context=context.detach().cpu().numpy(),
                prior=prior.detach().cpu().numpy(),
                total=total.detach().cpu().numpy(),
                images=images.reshape(*total.shape, *images.shape[1:]),
                alignment=Alignment.identity(crops.shape[1]),
                z=z.detach().cpu().numpy().copy(),
            )
            if number < solver.steps:
                share = (1 + math.cos(math.pi * number / solver.steps)) / 2 if solver.cosine else 1.0
                (gradient,) = torch.autograd.grad(total.sum(), z)
                adam.step(gradient, solver.lr * share)
                if solver.clip is not None:
                    bound = solver.clip * (1.0 if G.config.z_prior == "uniform" else 3.0)
                    with torch.no_grad():
                        z.clamp_(-bound, bound)

"""One training step of G and D."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcgan import loss
from dcgan.augment import draw_shifts, translate
from dcgan.config import TrainConfig
from dcgan.graph import Batch, Graphed, capturable_adam, set_rate, tune
from dcgan.networks import Discriminator, Generator
from dcgan.parallel import Group, synchronise
from dcgan.sampling import sample_z


class GanTrainer:
    """G, D, the moving average of G, and the optimisers.

    With `graphs`, the step is replayed as CUDA graphs, if the device has them and there is one process.

    Attributes:
        modules: everything that a checkpoint must save, by name.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, group: Group | None = None, graphs: bool = True
    ) -> None:
        self.config, self.device, self.group = config, device, group or Group()
        self._largest_px = round(config.translate * config.network.size)
        tune(device)
        torch.manual_seed(config.seed)
        self.G = Generator(config.network).to(device).to(memory_format=torch.channels_last)
        self.D = Discriminator(config.network).to(device).to(memory_format=torch.channels_last)
        if self.group.size > 1:
            synchronise(self.G)
            synchronise(self.D)
        self.ema = deepcopy(self.G).eval().requires_grad_(False)
        self.average = MovingAverage(self.ema, self.G, config.ema_kimg, config.batch * config.d_steps)
        betas = (config.beta1, config.beta2)
        self.opt_g = capturable_adam(self.G.parameters(), config.lr, betas)
        self.opt_d = capturable_adam(self.D.parameters(), config.lr, betas)
        self.modules: dict[str, Any] = {"G": self.G, "D": self.D, "ema": self.ema}
        self.modules |= {"opt_g": self.opt_g, "opt_d": self.opt_d}
        # Messages between processes stay out of graphs.
        self._body = Graphed(self._train, device, capture=graphs and self.group.size == 1)

    def step(self, number: int, reals: Sequence[Tensor]) -> dict[str, Tensor]:
        """Train D on each of config.d_steps batches, (config.batch, 3, S, S) in [-1, 1], then G once.

        The number of the step, from 0, determines all random numbers together with the seed.

        Returns:
            Losses, mean logits and, on steps with penalties, their values; scalars on the device, which the next step
            may overwrite.
        """
        config = self.config
        penalised = number % config.penalty_every == 0
        rate = learning_rate(config, number)
        set_rate(self.opt_g, rate)
        set_rate(self.opt_d, rate * config.ttur)
        stats = self._body(penalised, self._draw(number, reals, penalised))
        self.average.update((number + 1) * config.batch * config.d_steps)
        return stats

    def _draw(self, number: int, reals: Sequence[Tensor], penalised: bool) -> list[Batch]:
        """Return the real images and all random numbers of a step, as far as they are this process's share."""
        config, count = self.config, self.config.batch
        batches = []
        for index, real in enumerate(reals):
            noise = seeded(config.seed, 1, number * config.d_steps + index)
            batch = {"real": real, "z": sample_z(count, config.network, noise)}
            if self._largest_px:
                batch |= {name: draw_shifts(count, self._largest_px, noise) for name in ("shifts_real", "shifts_fake")}
            if penalised and config.loss == "wgan-gp" and config.gp > 0:
                batch["mix"] = torch.rand(count, 1, 1, 1, generator=noise)
            if self._largest_px and index == len(reals) - 1:
                batch["shifts_g"] = draw_shifts(count, self._largest_px, noise)
            batches.append({name: self.group.share(value) for name, value in batch.items()})
        return batches

    def _train(self, penalised: bool, batches: list[Batch]) -> dict[str, Tensor]:
        """The body of a step, see `Graphed`."""
        for batch in batches:
            last = batch is batches[-1]
            with torch.set_grad_enabled(last), self.autocast():
                fake = self.G(batch["z"])
            stats, logits_real = self._train_d(penalised, batch, fake.detach().float())

        # Train G through the same generated images and the updated D. G's loss needs the logits of the real images only
        # as constants, so those from before the update serve.
        self.D.requires_grad_(False)
        self.opt_g.zero_grad(set_to_none=True)
        fake = self._augment(fake, batch, "shifts_g")
        with self.autocast():
            logits_fake = self.D(fake).float()
        loss_g = loss.LOSSES[self.config.loss].g(logits_real, logits_fake)
        loss_g.backward()
        self.group.average_gradients(self.G)
        self.opt_g.step()
        return {**stats, "loss_g": loss_g.detach(), "fake": logits_fake.detach().mean()}

    def _train_d(self, penalised: bool, batch: Batch, fake: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Train D; returns statistics, and the logits of the real images before the update."""
        config = self.config
        r1, r2 = (penalised and config.loss != "wgan-gp" and weight > 0 for weight in (config.r1, config.r2))
        self.D.requires_grad_(True)
        self.opt_d.zero_grad(set_to_none=True)
        real = self._augment(batch["real"], batch, "shifts_real").detach().requires_grad_(r1)
        fake = self._augment(fake, batch, "shifts_fake").requires_grad_(r2)
        with self.autocast():
            logits_real, logits_fake = self.D(real).float(), self.D(fake).float()
        loss_d = loss.LOSSES[config.loss].d(logits_real, logits_fake)
        stats = {"loss_d": loss_d.detach(), "real": logits_real.detach().mean()}
        total = loss_d
        # Lazy penalties are scaled up by the steps they stand for.
        for name, used, images, logits in (("r1", r1, real, logits_real), ("r2", r2, fake, logits_fake)):
            if used:
                penalty = loss.gradient_penalty(images, logits)
                total = total + getattr(config, name) / 2 * config.penalty_every * penalty
                stats[name] = penalty.detach()
        if "mix" in batch and penalised:
            between = (real + batch["mix"] * (fake - real)).requires_grad_()
            with self.autocast():
                logits = self.D(between)
            penalty = loss.lipschitz_penalty(between, logits)
            total = total + config.gp * config.penalty_every * penalty
            stats["gp"] = penalty.detach()
        total.backward()
        self.group.average_gradients(self.D)
        self.opt_d.step()
        return stats, logits_real.detach()

    def _augment(self, images: Tensor, batch: Batch, shifts: str) -> Tensor:
        return translate(images, batch[shifts], self._largest_px) if self._largest_px else images

    def autocast(self) -> torch.autocast:
        """The number format of the networks."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")


def learning_rate(config: TrainConfig, number: int) -> float:
    """Return G's learning rate at a step."""
    return cosine(config.lr, config.lr_end, number * config.batch * config.d_steps / (config.kimg * 1000))


def cosine(first: float, last: float, done: float) -> float:
    """Cosine schedule from `first` to `last`; `done` is the finished share of the run."""
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, done))) / 2


class MovingAverage:
    """Exponential moving average of a network: of its weights and batch norm statistics.

    Args:
        average: a copy of the network, updated in place.
        network: the network that is trained.
        half_life_kimg: half-life in thousands of images, shorter early in the run so that the random start is
            forgotten; 0 copies the network.
        step_images: images per step.
    """

    def __init__(self, average: nn.Module, network: nn.Module, half_life_kimg: float, step_images: int) -> None:
        self._half_life, self._step_images = half_life_kimg * 1000, step_images
        pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
        self._means, self._values = ([pair[i] for pair in pairs if pair[0].is_floating_point()] for i in (0, 1))
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, images: int) -> None:
        """Follow the network after a step; `images` have been shown so far."""
        half_life = min(self._half_life, 0.05 * images)
        keep = 0.5 ** (self._step_images / half_life) if half_life > 0 else 0.0
        torch._foreach_lerp_(self._means, self._values, 1 - keep)
        for mean, value in self._counts:
            mean.copy_(value)


def seeded(seed: int, purpose: int, index: int) -> torch.Generator:
    """A random generator for one purpose and step, so that a resumed run draws the same numbers."""
    entropy = np.random.SeedSequence([seed, 1, purpose, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0] >> 1))

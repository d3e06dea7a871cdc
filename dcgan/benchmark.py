"""Benchmark of the training step against a plain training loop."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from dcgan import loss
from dcgan.config import TrainConfig
from dcgan.dataset import Batches
from dcgan.networks import Discriminator, Generator
from dcgan.step import GanTrainer
from dcgan.tensors import to_tensor

_IMAGES = 2048
_PLAIN = "plain loop, fp32"
HEADER = f"{'':20}{'img/s':>9}{'ratio':>8}"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str  # what was timed
    images_per_second: float  # real images, in the best round, the one least disturbed by other programs
    ratio: float  # speed relative to the first row

    def __str__(self) -> str:
        return f"{self.name:20}{self.images_per_second:9.1f}{self.ratio:8.2f}"


def benchmark_train(config: TrainConfig, device: torch.device, seconds: float = 10, rounds: int = 3) -> Iterator[Row]:
    """Time the plain loop, and the training step without and with penalties; on CUDA also without graphs.

    The rows, which get so many seconds each, take turns, so that other programs disturb all of them alike.
    """
    size = config.network.size
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3), dtype=np.uint8)
    batches = Batches(images, config.batch, config.seed, config.flip, device)

    def trainer_step(config: TrainConfig, graphs: bool = True) -> Callable[[int], object]:
        trainer, each = GanTrainer(config, device, graphs=graphs), range(config.d_steps)
        return lambda number: trainer.step(number, [to_tensor(batches.at(number * len(each) + i)) for i in each])

    # Name -> real images per step, step.
    steps: dict[str, tuple[int, Callable[[int], object]]] = {
        _PLAIN: (config.batch, plain_loop(config, batches, device)),
        "step, no penalty": (config.step_images, trainer_step(replace(config, r1=0, r2=0, gp=0))),
        "step": (config.step_images, trainer_step(config)),
    }
    if device.type == "cuda":
        steps["step, no graphs"] = config.step_images, trainer_step(config, graphs=False)
    best = dict.fromkeys(steps, 0.0)
    for _ in range(rounds):
        for name, (count, step) in steps.items():
            speed = count * _steps_per_second(step, config.penalty_every, seconds / rounds, device)
            best[name] = max(best[name], speed)
    for name, speed in best.items():
        yield Row(name, speed, speed / best[_PLAIN])


def plain_loop(config: TrainConfig, batches: Batches, device: torch.device) -> Callable[[int], None]:
    """A textbook training step: float32, default memory layout, non-saturating loss, no penalty, no average of G.

    Source: Goodfellow et al. 2014, algorithm 1, with the batch and Adam of Radford et al. 2016.
    """
    G, D = Generator(config.network).to(device), Discriminator(config.network).to(device)
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), config.lr, (0.5, 0.999)) for network in (G, D))

    def step(number: int) -> None:
        real = to_tensor(batches.at(number)).contiguous()
        fake = G(torch.randn(config.batch, config.network.nz, device=device))
        opt_d.zero_grad()
        loss.minimax_d(D(real), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        logits = D(fake)
        loss.non_saturating_g(logits, logits).backward()
        opt_g.step()

    return step


def _steps_per_second(step: Callable[[int], object], period: int, seconds: float, device: torch.device) -> float:
    """Time whole periods, so that each row has its share of steps with a penalty."""
    for number in range(period):
        step(number)
    _wait(device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(period):
            step(done)
            done += 1
        _wait(device)
    return done / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

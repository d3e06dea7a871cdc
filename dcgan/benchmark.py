"""Benchmark of the training step, against a plain training loop and the machine's matrix product."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dcgan import loss
from dcgan.config import Precision, TrainConfig
from dcgan.dataset import Batches
from dcgan.networks import Discriminator, Generator
from dcgan.step import GanTrainer
from dcgan.tensors import to_tensor

_IMAGES = 2048
HEADER = f"{'':20}{'img/s':>9}{'ratio':>8}{'GFLOP/img':>11}{'TFLOP/s':>9}{'of matmul':>11}"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str  # what was timed
    images_per_second: float  # real images, in the best round, the one least disturbed by other programs
    flops_per_image: float  # averaged over steps with and without penalties; a multiply-add counts as two
    share: float  # operations per second, relative to the machine's matrix product in the same precision
    ratio: float  # speed relative to the first row

    def __str__(self) -> str:
        rate = self.images_per_second * self.flops_per_image
        return (
            f"{self.name:20}{self.images_per_second:9.1f}{self.ratio:8.2f}{self.flops_per_image / 1e9:11.2f}"
            f"{rate / 1e12:9.3f}{self.share:11.0%}"
        )


def benchmark_train(config: TrainConfig, device: torch.device, seconds: float = 10, rounds: int = 3) -> Iterator[Row]:
    """Time the plain loop, and the training step without and with penalties; on CUDA also without graphs.

    The rows, which get so many seconds each, take turns, so that other programs disturb all of them alike.
    """
    size, period = config.network.size, config.penalty_every
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3), dtype=np.uint8)
    batches = Batches(images, config.batch, config.seed, config.flip, device)

    def trainer_step(config: TrainConfig, graphs: bool = True) -> Callable[[int], object]:
        trainer, each = GanTrainer(config, device, graphs=graphs), range(config.d_steps)
        return lambda number: trainer.step(number, [to_tensor(batches.at(number * len(each) + i)) for i in each])

    # Name -> precision, real images per step, step.
    steps: dict[str, tuple[Precision, int, Callable[[int], object]]] = {
        "plain loop, fp32": ("fp32", config.batch, plain_loop(config, batches, device)),
        "step, no penalty": (config.precision, config.step_images, trainer_step(replace(config, r1=0, r2=0, gp=0))),
        "step": (config.precision, config.step_images, trainer_step(config)),
    }
    if device.type == "cuda":
        steps["step, no graphs"] = config.precision, config.step_images, trainer_step(config, graphs=False)
    flops, best = {}, dict.fromkeys(steps, 0.0)
    for name, (_, count, step) in steps.items():
        with _FlopCounter() as counter:
            for number in range(period):
                step(number)
        flops[name] = counter.flops / (period * count)
    for _ in range(rounds):
        for name, (_, count, step) in steps.items():
            best[name] = max(best[name], count * _steps_per_second(step, period, seconds / rounds, device))
    peak = {precision: matmul_rate(precision, device) for precision in {"fp32", config.precision}}
    for name, (precision, _, _) in steps.items():
        share = best[name] * flops[name] / peak[precision]
        yield Row(name, best[name], flops[name], share, best[name] / best["plain loop, fp32"])


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


def matmul_rate(precision: str, device: torch.device, repeats: int = 5) -> float:
    """Measure the floating-point operations per second of a large matrix product; the best of several repeats."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = 0.0
    for _ in range(repeats + 1):
        began = time.perf_counter()
        product = a @ a
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    del product
    return best


class _FlopCounter(TorchDispatchMode):
    """Counts operations of convolutions and matrix products; torch's own counter misses second derivatives."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


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

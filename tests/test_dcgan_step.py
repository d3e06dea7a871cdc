"""A step of training computes exactly what a plain loop does, for every loss and network."""

import itertools
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dcgan.augment import draw_shifts, translate
from dcgan.config import NetworkConfig, TrainConfig
from dcgan.loss import LOSSES, gradient_penalty, lipschitz_penalty
from dcgan.networks import Discriminator, Generator
from dcgan.sampling import sample_z
from dcgan.step import GanTrainer, learning_rate, seeded

CPU = torch.device("cpu")
CONFIG = TrainConfig(network=NetworkConfig(size=16, nz=4, ngf=4, ndf=4), batch=8, precision="fp32", kimg=0.1)


def plain_steps(config: TrainConfig, reals: list[list[Tensor]]) -> Iterator[tuple[dict[str, Tensor], list[Any]]]:
    """Statistics of each step, and what it changed: G, D, the average, and both optimisers."""
    torch.manual_seed(config.seed)
    G = Generator(config.network).to(memory_format=torch.channels_last)
    D = Discriminator(config.network).to(memory_format=torch.channels_last)
    average = deepcopy(G)
    adam: dict[str, Any] = {"betas": (config.beta1, config.beta2), "fused": True}
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), **adam) for network in (G, D))
    losses, own = LOSSES[config.loss], config.loss == "wgan-gp"
    largest = round(config.translate * config.network.size)

    def moved(images: Tensor) -> Tensor:
        return translate(images, draw_shifts(len(images), largest, noise), largest) if largest else images

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")

    for number, batches in enumerate(reals):
        scale = config.penalty_every if number % config.penalty_every == 0 else 0
        opt_g.param_groups[0]["lr"] = learning_rate(config, number)
        opt_d.param_groups[0]["lr"] = learning_rate(config, number) * config.ttur
        for index, real in enumerate(batches):
            noise = seeded(config.seed, 1, number * config.d_steps + index)
            with autocast():
                made = G(sample_z(config.batch, config.network, noise))
            opt_d.zero_grad()
            real = moved(real).requires_grad_()
            fake = moved(made.detach().float()).requires_grad_()
            with autocast():
                logits_real, logits_fake = D(real).float(), D(fake).float()
            total = losses.d(logits_real, logits_fake)
            stats = {"loss_d": total, "real": logits_real.mean()}
            for name, images, logits in (("r1", real, logits_real), ("r2", fake, logits_fake)):
                if scale and not own and getattr(config, name):
                    stats[name] = gradient_penalty(images, logits)
                    total = total + getattr(config, name) / 2 * scale * stats[name]
            if scale and own:
                between = real + torch.rand(config.batch, 1, 1, 1, generator=noise) * (fake - real)
                between = between.detach().requires_grad_()
                with autocast():
                    logits = D(between)
                stats["gp"] = lipschitz_penalty(between, logits)
                total = total + config.gp * scale * stats["gp"]
            total.backward()
            opt_d.step()
        opt_g.zero_grad()
        images = moved(made)
        with autocast():
            logits_fake = D(images).float()
        stats |= {"loss_g": losses.g(logits_real.detach(), logits_fake), "fake": logits_fake.mean()}
        stats["loss_g"].backward()
        opt_g.step()
        size = config.batch * config.d_steps
        keep = 0.5 ** (size / min(config.ema_kimg * 1000, 0.05 * (number + 1) * size))
        with torch.no_grad():
            for mean, value in zip(average.state_dict().values(), G.state_dict().values(), strict=True):
                mean.lerp_(value, 1 - keep) if mean.is_floating_point() else mean.copy_(value)
        yield stats, [G, D, average, opt_g, opt_d]


def flat(value: object) -> list[Tensor]:
    """All tensors of networks and optimisers."""
    if isinstance(value, torch.nn.Module | torch.optim.Optimizer):
        value = value.state_dict()
    if isinstance(value, dict):
        value = list(value["state"].values() if "state" in value else value.values())
    return list(itertools.chain(*map(flat, value))) if isinstance(value, list) else [torch.as_tensor(value)]


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": name} for name in LOSSES),
        {"precision": "bf16"},
        {"precision": "bf16", "loss": "wgan-gp", "translate": 0.1},
        {"d_steps": 3, "translate": 0.2, "ttur": 2},
        {"r1": 0, "penalty_every": 2},
        *({"network": replace(CONFIG.network, d_norm=norm)} for norm in ("batch", "spectral")),
        {"network": replace(CONFIG.network, network="mlp")},
        {"network": replace(CONFIG.network, upsample="transposed", kernel=5, z_prior="uniform")},
        {"network": replace(CONFIG.network, upsample="nearest,grown")},
    ],
    ids=str,
)
def test_ten_steps_equal_a_plain_loop(changes: dict[str, Any]) -> None:
    config = replace(CONFIG, **changes)
    generator = torch.Generator().manual_seed(0)
    reals = [[torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(config.d_steps)] for _ in range(10)]
    trainer, plain = GanTrainer(config, CPU), list(plain_steps(config, deepcopy(reals)))
    for number, (expected, _) in enumerate(plain):
        stats = trainer.step(number, reals[number])
        assert stats.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in stats.items())
    pairs = list(zip(flat(list(trainer.modules.values())), flat(plain[-1][1]), strict=True))
    assert len(pairs) > 20 and all(torch.equal(*pair) for pair in pairs)


def test_a_run_resumes_with_the_optimisers_of_another_device() -> None:
    """A GPU saves a learning rate in float32, and that graphs contain the optimiser."""
    real = [torch.rand(8, 3, 16, 16) * 2 - 1]
    plain, trainer = GanTrainer(CONFIG, CPU), GanTrainer(CONFIG, CPU)
    plain.step(0, real)
    for name, part in trainer.modules.items():
        state = deepcopy(plain.modules[name].state_dict())
        if "param_groups" in state:
            state["param_groups"][0] |= {"lr": torch.tensor(0.5), "capturable": True}
        part.load_state_dict(state)
    plain.step(1, real)
    trainer.step(1, real)
    pairs = zip(flat(list(trainer.modules.values())), flat(list(plain.modules.values())), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)

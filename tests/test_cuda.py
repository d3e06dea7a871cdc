"""Training on a CUDA GPU: graphs compute what eager steps do, runs resume, and memory stays flat."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import finish, tensors

from dcgan import encoder
from dcgan.config import EncoderConfig, NetworkConfig, TrainConfig
from dcgan.loss import LOSSES
from dcgan.networks import Discriminator, Generator
from dcgan.step import GanTrainer
from dcgan.train import train
from dcgan.weights import Weights

pytestmark = pytest.mark.cuda
CUDA = torch.device("cuda")
NETWORK = NetworkConfig(size=16, nz=8, ngf=16, ndf=16)
CONFIG = TrainConfig(network=NETWORK, batch=16, kimg=0.4, tick_kimg=0.08, sample_kimg=0.2)
STEPS = 20  # eager ones, then both graphs


def reals(count: int = STEPS) -> torch.Tensor:
    images = torch.rand(count, 16, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return images.to(CUDA)


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.mark.parametrize("changes", [*({"loss": name} for name in LOSSES), {"precision": "fp32"}], ids=str)
def test_graphs_equal_eager_steps(changes: dict[str, str]) -> None:
    config = replace(CONFIG, **changes)
    graphed, eager = GanTrainer(config, CUDA), GanTrainer(config, CUDA, graphs=False)
    for number, real in enumerate(reals()):
        found, expected = graphed.step(number, [real]), eager.step(number, [real])
        assert found.keys() == expected.keys()
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(graphed.ema.state_dict().values(), eager.ema.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_a_graphed_step_equals_the_cpu() -> None:
    config = replace(CONFIG, precision="fp32", lr=1e-5)
    here, there = GanTrainer(config, CUDA), GanTrainer(config, torch.device("cpu"))
    for number, real in enumerate(reals()):
        found, expected = here.step(number, [real]), there.step(number, [real.cpu()])
        assert float(found["loss_d"]) == pytest.approx(float(expected["loss_d"]), rel=1e-2)
        assert float(found["loss_g"]) == pytest.approx(float(expected["loss_g"]), rel=1e-2)


def test_a_resumed_run_continues_an_uninterrupted_one(tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    whole = finish(train(CONFIG, faces, tmp_path / "whole", CUDA), tmp_path / "whole")
    run = train(CONFIG, faces, tmp_path / "parts", CUDA)
    for item in run:
        if item.images == 208:
            break
    run.close()
    parts = finish(train(CONFIG, faces, tmp_path / "parts", CUDA), tmp_path / "parts")
    assert whole.keys() == parts.keys() == tensors(tmp_path / "parts").keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-2, atol=1e-3)


def test_memory_stays_flat() -> None:
    trainer, real = GanTrainer(CONFIG, CUDA), reals(1)[0]
    for number in range(STEPS):
        trainer.step(number, [real])
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    for number in range(STEPS, 10 * STEPS):
        trainer.step(number, [real])
    torch.cuda.synchronize()
    assert (torch.cuda.memory_reserved(), torch.cuda.memory_allocated()) == before


def test_the_step_does_not_wait_for_the_device() -> None:
    trainer, real = GanTrainer(CONFIG, CUDA), reals(1)[0]
    for number in range(STEPS):
        trainer.step(number, [real])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(STEPS, STEPS + 4):
            trainer.step(number, [real])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("changes", [{}, {"lr_generator": 0.5}, {"warm_kimg": 0.08}], ids=str)
def test_the_encoder_learns_with_graphs(changes: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    G, D = (network(NETWORK).eval().requires_grad_(False) for network in (Generator, Discriminator))
    weights = Weights.of(G, D)
    config = replace(EncoderConfig(nef=16, batch=16, pairs=4, kimg=1), **changes)
    trainers = [encoder.EncoderTrainer(config, weights, CUDA) for _ in range(2)]
    trainers[1]._body._capture = False
    for number, real in enumerate(reals(2 * STEPS)):
        found, expected = (trainer.step(number, real) for trainer in trainers)
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-2, atol=1e-3)

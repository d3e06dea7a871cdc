"""Training, solvers and evaluation keep to one device, and training steps neither copy nor wait."""

from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pretended import DEVICE, Pretended
from runs import finish

from completion.config import SOLVERS
from completion.networks import runner
from dcgan.config import EncoderConfig, EvaluateOptions, NetworkConfig, TrainConfig
from dcgan.encoder import train_encoder
from dcgan.evaluate import evaluate
from dcgan.graph import Graphed
from dcgan.train import train
from dcgan.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")  # it does copy
CPU = torch.device("cpu")
CONFIG = TrainConfig(
    network=NetworkConfig(size=16, nz=4, ngf=4, ndf=4), kimg=0.024, batch=8, tick_kimg=0.008, sample_kimg=0.024
)
CONFIG = replace(CONFIG, precision="fp32")
ENCODER = EncoderConfig(nef=8, kimg=0.024, batch=8, pairs=4, tick_kimg=0.016, sample_kimg=0.016, precision="fp32")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, encoder_weights: Weights) -> Iterator[Pretended]:
    """The device, for the duration of a test; every `Graphed` on it is watched."""
    assert encoder_weights.generator  # loaded before torch is watched
    mode, init = Pretended(), Graphed.__init__
    monkeypatch.setattr(
        Graphed, "__init__", lambda self, function, device, **rest: init(self, mode.watch(function), device, **rest)
    )
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(
        import_module("torch.optim.optimizer"), "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"]
    )
    tensor = torch.tensor  # it fills the tensor unseen by the mode
    monkeypatch.setattr(torch, "tensor", lambda data, device="cpu", **rest: tensor(data, **rest).to(device))
    # Assigning to the data of a parameter would leave its values behind.
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with mode:
        yield mode


@pytest.fixture
def faces() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "wgan-gp", "translate": 0.2, "d_steps": 2},
        {"network": replace(CONFIG.network, d_norm="spectral")},
    ],
    ids=str,
)
def test_a_run_equals_one_on_the_cpu(
    tmp_path: Path, faces: NDArray[np.uint8], pretended: Pretended, changes: dict[str, object]
) -> None:
    config = replace(CONFIG, **changes)
    there = finish(train(config, faces, tmp_path / "there", DEVICE), tmp_path / "there")
    assert pretended.calls == 2 if config.d_steps == 2 else 3
    here = finish(train(config, faces, tmp_path / "here", CPU), tmp_path / "here")
    assert_close(there, here)


def assert_close(there: dict[str, torch.Tensor], here: dict[str, torch.Tensor]) -> None:
    assert there.keys() == here.keys()
    for name, value in here.items():
        torch.testing.assert_close(there[name].to(value.dtype), value, rtol=1e-4, atol=1e-6)


def there(weights: Weights) -> Weights:
    """Copy weights to the device."""
    networks = (deepcopy(each) for each in (weights.generator, weights.discriminator, weights.encoder))
    G, D, E = (None if network is None else network.to(DEVICE) for network in networks)
    return Weights.of(G, D, weights.template, weights.metadata, E, weights.sha256)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"lr_generator": 0.5, "warm_kimg": 0.008}, {"adversarial_weight": 0.0}], ids=str)
def test_an_encoder_equals_one_on_the_cpu(
    tmp_path: Path, encoder_weights: Weights, pretended: Pretended, changes: dict[str, float]
) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    config = replace(ENCODER, **changes)
    found = {}
    for device in (DEVICE, CPU):
        weights, folder = there(encoder_weights) if device == DEVICE else encoder_weights, tmp_path / str(device)
        found[device] = finish(train_encoder(config, weights, faces, folder, device, faces), folder)
    assert pretended.calls >= 3
    assert_close(found[DEVICE], found[CPU])


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_finds_what_it_finds_on_the_cpu(name: str, encoder_weights: Weights, pretended: Pretended) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    holes = np.zeros((2, 32, 32), dtype=bool)
    holes[:, 8:20, 8:20] = True
    solver = replace(SOLVERS[name], steps=min(2, SOLVERS[name].steps))
    *_, found = runner(there(encoder_weights), solver).solve(crops, holes, solver)
    *_, expected = runner(encoder_weights, solver).solve(crops, holes, solver)
    assert np.array_equal(found.images, expected.images)


def test_an_evaluation_finds_what_it_finds_on_the_cpu(encoder_weights: Weights, pretended: Pretended) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    options = EvaluateOptions(samples=16, mre_faces=2, mre_steps=2, mre_draws=4)
    *_, found = evaluate(there(encoder_weights), faces, faces, options)
    *_, expected = evaluate(encoder_weights, faces, faces, options)
    assert found.metrics == expected.metrics


def faulty(pretended: Pretended, there: torch.Tensor, fault: str) -> None:
    """What a GPU would refuse, or make a captured step fail."""
    if fault == "mixes devices":
        there + torch.ones(2)
    if fault == "draws":
        there.normal_(generator=torch.Generator())
    if fault == "copies":
        pretended.watch(lambda: there.cpu())()
    if fault == "copies between":
        pretended.watch(lambda: torch.ones(2).to(DEVICE))()
    if fault == "waits":
        pretended.watch(lambda: float(there.sum()))()
    if fault == "waits for":
        pretended.watch(lambda: there[there > 0])()


@pytest.mark.parametrize("fault", ["mixes devices", "draws", "copies", "copies between", "waits", "waits for"])
def test_the_pretended_device_finds_faults(pretended: Pretended, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        faulty(pretended, torch.ones(2).to(DEVICE), fault)

"""Growing networks: same result at twice the size, new layers that can learn, training and export of what has grown."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import save_all
from runs import finish, tensors
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from dcgan.__main__ import main
from dcgan.config import ConfigError, NetworkConfig, TrainConfig
from dcgan.grow import grow, grown_config, new_and_old
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.train import train
from dcgan.weights import Weights

SMALL = NetworkConfig(size=16, nz=4, ngf=12, ndf=16)
KERNELS_AND_KINDS = [(4, "nearest"), (5, "nearest"), (4, "transposed"), (5, "transposed"), (4, "nearest,transposed")]
CPU = torch.device("cpu")


def untrained(config: NetworkConfig, nef: int = 16, seed: int = 0, inputs: int = 4) -> Weights:
    """Networks with strong random weights, skips that add something, and random batch norm statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G, D, E = Generator(config), Discriminator(config), Encoder(config, nef, inputs=inputs)
        for module in (module for network in (G, D, E) for module in network.modules()):
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.running_var):
                    nn.init.uniform_(value, 0.5, 2)
                for value in (module.bias, module.running_mean):
                    nn.init.normal_(value, 0, 0.3)
        for value in (*G.parameters(), *E.skips.parameters()):
            if value.ndim > 1:
                nn.init.normal_(value, 0, 0.2)
    for network in (G, D, E):
        network.eval().requires_grad_(False)
    return Weights.of(G, D, "face", {"images": 7}, E)


def enlarged(images: Tensor, times: int = 2) -> Tensor:
    return interpolate(images, scale_factor=times)


def pictures(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def encoder_of(weights: Weights) -> Encoder:
    assert weights.encoder is not None
    return weights.encoder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of 16x16 networks with an encoder."""
    weights = untrained(SMALL)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights.save(path)
    return path


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(("kernel", "upsample"), KERNELS_AND_KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_a_grown_g_makes_its_old_images_enlarged(kernel: int, upsample: str, training: bool) -> None:
    old = untrained(replace(SMALL, kernel=kernel, upsample=upsample))  # type: ignore[arg-type]
    G, z = grow(old, 32).generator, torch.randn(8, 4)
    images = old.generator.train(training)(z)
    assert images.std() > 0.2
    torch.testing.assert_close(G.train(training)(z), enlarged(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kernel", "inputs"), [(4, 4), (4, 8), (5, 4)])
@pytest.mark.parametrize("training", [False, True])
def test_grown_d_and_e_see_the_means_of_2x2_pixels(kernel: int, inputs: int, training: bool) -> None:
    old = untrained(replace(SMALL, kernel=kernel), nef=32, inputs=inputs)  # type: ignore[arg-type]
    new = grow(old, 32)
    images, hole = pictures(8, 32), torch.rand(8, 1, 16, 16) < 0.5
    means = avg_pool2d(images, 2)
    logits = old.discriminator(means)
    assert logits.std() > 0.1
    torch.testing.assert_close(new.discriminator(images), logits, atol=1e-4, rtol=0)
    z, skips = encoder_of(old).train(training)(means, hole)
    new_z, new_skips = encoder_of(new).train(training)(images, enlarged(hole.float()).bool())
    assert z.std() > 0.1
    torch.testing.assert_close(new_z, z, atol=1e-4, rtol=0)
    completed = old.generator(z, skips)
    assert (completed - old.generator(z)).abs().mean() > 0.05
    torch.testing.assert_close(new.generator(new_z, new_skips), enlarged(completed), atol=1e-4, rtol=0)


def test_the_copy_of_g_grows_too(tmp_path: Path) -> None:
    old, other = untrained(SMALL), untrained(SMALL, seed=1)
    Weights.of(old.generator, old.discriminator, "face", {}, old.encoder, completer=other.generator).save(
        tmp_path / "w.safetensors"
    )
    new, z = grow(Weights.open(tmp_path / "w.safetensors", "cpu"), 32), torch.randn(8, 4)
    for grown, small in ((new.generator, old.generator), (new.completer, other.generator)):
        torch.testing.assert_close(grown(z), enlarged(small(z)), atol=5e-3, rtol=0)  # the file has half precision


def test_networks_grow_several_times() -> None:
    old = untrained(replace(SMALL, ngf=24, ndf=32), nef=32)
    new = grow(old, 64)
    assert new.generator.config == replace(SMALL, size=64, ngf=6, ndf=8, upsample="nearest,nearest,grown,grown")
    assert encoder_of(new).settings == {"nef": 8, "skips": True, "inputs": 4}
    z, images = torch.randn(4, 4), pictures(4, 64)
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 16:48, 16:48] = True
    torch.testing.assert_close(new.generator(z), enlarged(old.generator(z), 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(new.discriminator(images), old.discriminator(avg_pool2d(images, 4)), atol=1e-4, rtol=0)
    guess = encoder_of(old)(avg_pool2d(images, 4), hole[..., ::4, ::4])[0]
    torch.testing.assert_close(encoder_of(new)(images, hole)[0], guess, atol=1e-4, rtol=0)


def test_the_new_channels_can_learn() -> None:
    """Every new channel that starts without effect gets a gradient."""
    new = grow(untrained(replace(SMALL, ngf=24, ndf=24)), 32)
    G, D = (network.requires_grad_(True) for network in (new.generator, new.discriminator))
    D(G(torch.randn(16, 4))).sum().backward()
    output, second = G.layers[-2], D.blocks[1][0]
    assert isinstance(output, nn.Conv2d) and isinstance(second, nn.Conv2d)
    for gradient in (output.weight.grad, second.weight.grad):
        assert gradient is not None and gradient.shape[1] == 12
        assert (gradient[:, 6:].abs().sum(dim=(0, 2, 3)) > 0).all()


def test_new_and_old_parameters_are_separated() -> None:
    weights = grow(untrained(replace(SMALL, ngf=24, ndf=24), nef=32), 64)
    for network in (weights.generator, encoder_of(weights)):
        names = {id(value): name for name, value in network.named_parameters()}
        new, old = ([names[id(value)] for value in part] for part in new_and_old(network))
        assert sorted(new + old) == sorted(names.values()) and new and old
        if isinstance(network, Generator):  # the two new layers, and the one that was the output
            assert {name.split(".")[1] for name in new} == {str(len(network.layers) - back) for back in (2, 5, 8)}
        else:
            assert {name[:8] for name in new if "skips" in name} == {"skips.2.", "skips.3."}
            assert {name.split(".")[1] for name in new if "skips" not in name} == {"0", "2", "4"}


@pytest.mark.parametrize(
    ("change", "nef", "size", "words"),
    [
        ({"network": "mlp"}, 16, 32, "mlp"),
        ({"d_norm": "batch"}, 16, 32, "batch"),
        ({"ngf": 10}, 16, 32, "ngf is 10"),
        ({"ndf": 11}, 16, 32, "ndf is 11"),
        ({}, 17, 32, "nef is 17"),
        ({"ngf": 24}, 32, 64, "ndf is 8"),
        ({"ngf": 24, "ndf": 24}, 32, 48, "48"),
        ({}, 16, 8, "8 px"),
    ],
)
def test_networks_that_cannot_grow_are_refused(change: dict[str, object], nef: int, size: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        grow(untrained(replace(SMALL, **change), nef), size)  # type: ignore[arg-type]


def test_a_grown_run_exports(tmp_path: Path, file: Path, faces: NDArray[np.uint8]) -> None:
    network, run = grown_config(SMALL, 32), tmp_path / "run"
    words = ["train", str(save_all(tmp_path / "faces", faces)), "--output", str(run), "--device", "cpu"]
    assert main([*words, "--start", str(file), "--size", "32", "--kimg", "0.016", "--batch", "8"]) == 0
    assert json.loads((run / "config.json").read_text())["network"]["upsample"] == network.upsample
    assert main(["export", str(run), str(tmp_path / "w.safetensors")]) == 0
    exported = Weights.open(tmp_path / "w.safetensors", "cpu")
    assert exported.network == network and exported.metadata["images"] == 16 + 7


def test_a_grown_run_begins_as_the_small_networks(tmp_path: Path, file: Path, faces: NDArray[np.uint8]) -> None:
    new = grow(Weights.open(file, "cpu"), 32, seed=5)
    config = TrainConfig(network=new.generator.config, start=str(file), kimg=0.008, batch=8, lr=1e-9, seed=5)
    saved = finish(train(config, faces, tmp_path, CPU), tmp_path)
    for name, network in (("ema", new.generator), ("D", new.discriminator)):
        for key, value in network.named_parameters():
            torch.testing.assert_close(saved[f"{name}.{key}"], value, atol=1e-6, rtol=0)


def test_encode_grows_warms_the_critic_up_and_then_trains_e_and_g(
    tmp_path: Path, file: Path, faces: NDArray[np.uint8]
) -> None:
    """The encoder comes from the start weights; the critic alone learns during the warm-up."""
    plain, run = untrained(SMALL, seed=3), tmp_path / "run"
    Weights.of(plain.generator, plain.discriminator, "face", {"images": 1}).save(tmp_path / "plain.safetensors")
    words = ["encode", str(tmp_path / "plain.safetensors"), str(save_all(tmp_path / "faces", faces))]
    words += ["--size", "32", "--start", str(file), "--warm-kimg", "0.016", "--lr-generator", "0.5"]
    words += ["--batch", "8", "--precision", "fp32", "--device", "cpu", "--output", str(run), "--ema-kimg", "0"]
    begun = grow(Weights.open(tmp_path / "plain.safetensors", "cpu"), 32)
    E, G = (network.state_dict() for network in (encoder_of(grow(Weights.open(file, "cpu"), 32)), begun.generator))
    assert main([*words, "--kimg", "0.016"]) == 0
    warm = tensors(run)
    for state, copies in ((E, ("E", "ema")), (G, ("G", "ema_g"))):
        assert all(torch.equal(warm[f"{part}.{name}"], value) for part in copies for name, value in state.items())
    assert not any(name.startswith("optimiser") for name in warm)  # Adam has no moments yet
    assert not torch.equal(warm["critic.head.weight"], begun.discriminator.state_dict()["head.weight"])

    assert main([*words, "--kimg", "0.048"]) == 0
    after = tensors(run)
    changed = [name for name, value in E.items() if not torch.equal(after[f"E.{name}"], value)]
    assert changed and not any("running" in name for name in changed)  # a pretrained E keeps its statistics
    assert main(["export", str(run), str(tmp_path / "e.safetensors")]) == 0
    exported = Weights.open(tmp_path / "e.safetensors", "cpu")
    for name, value in exported.completer.state_dict().items():
        assert torch.equal(value.float(), after[f"ema_g.{name}"].half().float())
    assert encoder_of(exported).settings == {"nef": 8, "skips": True, "inputs": 4}

"""Tests of the ONNX export, with the networks in torch as the oracle."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import weights
from dcgan.__main__ import main
from dcgan.config import NetworkConfig
from dcgan.export import export_onnx
from dcgan.holes import HOLES, named_hole
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.sampling import generate, sample_z
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights

RNG = np.random.default_rng(0)


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(file, options)


def run(file: Path, crops: NDArray[np.uint8], holes: NDArray[np.bool_], **noise: NDArray[Any]) -> NDArray[np.int_]:
    return session(file).run(None, {"crops": crops, "holes": holes, **noise})[0].astype(int)


def by_torch(
    weights: Weights, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: Tensor | float = 0.0
) -> NDArray[np.uint8]:
    assert weights.encoder is not None
    with torch.no_grad():
        z, skips = weights.encoder(to_tensor(crops.copy()), torch.from_numpy(holes)[:, None])
        z = (z[:, None] + noise).flatten(0, 1)
        if weights.generator.config.z_prior == "uniform":
            z = z.clamp(-1, 1)
        return to_image(weights.completer(z, skips))


@pytest.fixture(scope="module", params=["normal", "uniform", "resize", "mirrored"])
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    """Networks with different layers, and their ONNX file."""
    torch.manual_seed(0)
    config = NetworkConfig(
        size=32,
        nz=8,
        ngf=8,
        ndf=8,
        z_prior="uniform" if request.param == "uniform" else "normal",
        upsample="nearest" if request.param == "resize" else "transposed",
    )
    G, E = Generator(config), Encoder(config, 8, request.param != "uniform", 8 if request.param == "mirrored" else 4)
    completer = Generator(config) if request.param == "mirrored" else None
    with torch.no_grad():  # untrained weights give a flat grey image
        for weight in [*(completer or G).parameters(), *E.skips.parameters()]:
            weight.mul_(3).add_(0.05 * torch.randn(weight.shape))
    folder = tmp_path_factory.mktemp(request.param)
    Weights.of(G, Discriminator(config), "face", {}, E, completer=completer).save(folder / "w.safetensors")
    loaded = Weights.open(folder / "w.safetensors", "cpu")
    export_onnx(loaded, folder / "w.onnx")
    return loaded, folder / "w.onnx"


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_matches_torch_for_any_batch_size(variant: tuple[Weights, Path], count: int) -> None:
    loaded, file = variant
    crops = RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    holes = RNG.random((count, 32, 32)) < 0.4
    made, expected = run(file, crops, holes), by_torch(loaded, crops, holes)
    assert made.shape == (count, 32, 32, 3) and made.std() > 5
    assert np.abs(made - expected).max() <= 1
    assert np.array_equal(made, run(file, np.where(holes[..., None], np.uint8(77), crops), holes))


@pytest.mark.parametrize("each", [1, 4])
def test_noise_gives_several_faces_per_crop(variant: tuple[Weights, Path], each: int) -> None:
    loaded, file = variant
    crops = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    holes = RNG.random((3, 32, 32)) < 0.4
    noise = RNG.normal(0, 2, (each, 8)).astype(np.float32)
    made = run(file, crops, holes, noise=noise)
    assert made.shape == (3 * each, 32, 32, 3)
    assert np.abs(made - by_torch(loaded, crops, holes, torch.from_numpy(noise))).max() <= 1
    assert np.abs(made[::each] - run(file, crops, holes)).max() > 1


def test_onnx_carries_the_metadata_of_its_weights(variant: tuple[Weights, Path]) -> None:
    loaded, file = variant
    found = session(file).get_modelmeta().custom_metadata_map
    expected = {"format": "dcgan-completion", "size": "32", "nz": "8", "template": "face", "sha256": loaded.sha256}
    digest = hashlib.sha256(file.read_bytes().partition(b"\x72\x4a\x0a\x06digest")[0]).hexdigest()
    assert found == expected | {"digest": digest}


@pytest.mark.parametrize("name", weights.REGISTRY)
def test_bundled_onnx_matches_torch_for_all_masks(name: str) -> None:
    """Two faces with each mask."""
    loaded, masks = Weights.open(name, "cpu"), [*HOLES, *HOLES]
    faces = generate(loaded.generator, sample_z(len(masks), loaded.network, 5))
    landmarks = loaded.size * np.random.default_rng(1).uniform(0.3, 0.7, (68, 2))  # a wide hole for eyes, nose, mouth
    holes = np.stack([named_hole(mask, loaded.size, RNG, landmarks) for mask in masks])
    file = weights.FOLDER / f"{name}.onnx"
    assert session(file).get_modelmeta().custom_metadata_map["sha256"] == loaded.sha256
    assert np.abs(run(file, faces, holes) - by_torch(loaded, faces, holes)).max() <= 1


def test_weights_are_exported_again_by_one_command(
    tmp_path: Path, encoder_weights_file: Path, small_weights_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.onnx"
    assert main(["export", str(encoder_weights_file), str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    before = file.read_bytes()
    assert main(["export", str(encoder_weights_file), str(file)]) == 2
    assert main(["export", str(encoder_weights_file), str(file), "--overwrite"]) == 0
    assert file.read_bytes() == before
    for words, said in (
        ([str(small_weights_file), str(tmp_path / "s.onnx")], "no encoder"),
        ([str(encoder_weights_file), str(tmp_path / "e.safetensors")], "expected .onnx for weights"),
        ([str(tmp_path), str(file), "--overwrite"], "has no config.json that names its command"),
    ):
        capsys.readouterr()
        assert main(["export", *words]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    assert list(tmp_path.iterdir()) == [file]

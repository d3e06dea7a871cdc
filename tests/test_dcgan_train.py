"""The training loop: learning, resuming, stopping, failing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import dcgan.train
from align.photo import read_photo
from dcgan.checkpoint import CheckpointError, load_checkpoint
from dcgan.config import NetworkConfig, TrainConfig
from dcgan.dataset import Batches, DatasetError, load_faces
from dcgan.networks import Generator
from dcgan.train import TrainingError, settle_batch_norm, train

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    network=NetworkConfig(size=16, nz=4, ngf=4, ndf=4),
    kimg=0.048,
    batch=8,
    tick_kimg=0.016,
    sample_kimg=0.032,
    precision="fp32",
)


@pytest.fixture
def faces() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for each other
    yield
    torch.set_num_threads(threads)


def states(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint by its place."""
    found: dict[str, torch.Tensor] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(f"{name}.{key}", item)

    walk("", load_checkpoint(folder))
    return found


@pytest.mark.parametrize("loss", ["relativistic", "classic"])
def test_a_run_folder_has_everything(tmp_path: Path, faces: NDArray[np.uint8], loss: str) -> None:
    config = replace(CONFIG, loss=loss)
    progress = list(train(config, faces, tmp_path, CPU))
    assert [item.images for item in progress] == [0, 8, 16, 24, 32, 40, 48]
    ticks = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [tick["kimg"] for tick in ticks] == [0.016, 0.032, 0.048]
    assert ticks[-1]["lr"] == pytest.approx(config.lr_end)
    assert json.loads((tmp_path / "config.json").read_text())["loss"] == loss
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["0000000032.png", "0000000048.png"]
    assert read_photo(tmp_path / "reals.png").pixels.shape == (3 * 16, 3 * 16, 3)  # 8 images, 3 in a row
    assert list((tmp_path / "tensorboard").iterdir())
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-0000000048.pt"]


def test_the_generator_learns(tmp_path: Path) -> None:
    """All training images are one grey: G must come nearer to it."""
    faces = np.full((16, 16, 16, 3), 200, dtype=np.uint8)
    config = replace(CONFIG, kimg=1.6, lr=2e-3, lr_end=2e-3, ema_kimg=0.05, sample_kimg=1.6)
    for _ in train(config, faces, tmp_path, CPU):
        pass
    means = [
        read_photo(path).pixels[:16, :16].mean()
        for path in (tmp_path / "reals.png", tmp_path / "samples" / "0000001600.png")
    ]
    assert means[0] == 200
    assert abs(means[1] - 200) < 30  # it begins at 127


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fault_45_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, faces: NDArray[np.uint8], precision: str
) -> None:
    config = replace(CONFIG, precision=precision)
    for _ in train(config, faces, tmp_path / "whole", CPU):
        pass
    run = train(config, faces, tmp_path / "parts", CPU)
    for item in run:
        if item.images == 24:
            break
    run.close()
    assert next(train(config, faces, tmp_path / "parts", CPU)).images == 24
    for _ in train(config, faces, tmp_path / "parts", CPU):
        pass
    whole, parts = states(tmp_path / "whole"), states(tmp_path / "parts")
    assert len(whole) > 50
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    kept = ("kimg", "loss_d", "loss_g", "r1")
    logs = [
        [
            [json.loads(line).get(key) for key in kept]
            for line in (tmp_path / name / "stats.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "parts")
    ]
    assert [line[0] for line in logs[0]] == [line[0] for line in logs[1]]
    assert logs[0][-1] == logs[1][-1]


def test_only_the_length_of_a_run_may_change(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    for _ in train(replace(CONFIG, kimg=0.016), faces, tmp_path, CPU):
        pass
    with pytest.raises(CheckpointError, match="another lr"):
        next(train(replace(CONFIG, lr=1e-3), faces, tmp_path, CPU))
    with pytest.raises(CheckpointError, match="other images"):
        next(train(CONFIG, faces[::-1].copy(), tmp_path, CPU))
    assert [item.images for item in train(CONFIG, faces, tmp_path, CPU)][-1] == 48


def test_fault_46_nan_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in train(replace(CONFIG, kimg=0.016), faces, tmp_path, CPU):
        pass
    good = states(tmp_path)
    monkeypatch.setattr(dcgan.train.loss, "relativistic_g", lambda real, fake: fake.mean() * float("nan"))
    with pytest.raises(TrainingError, match="loss_g"):
        for _ in train(CONFIG, faces, tmp_path, CPU):
            pass
    assert all(torch.equal(good[name], value) for name, value in states(tmp_path).items())


def test_fault_46_stopping_after_nan_saves_nothing(
    tmp_path: Path, faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgan.train.loss, "relativistic_g", lambda real, fake: fake.mean() * float("nan"))
    run = train(CONFIG, faces, tmp_path, CPU)
    next(run), next(run)
    with pytest.raises(TrainingError):
        run.close()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_fault_47_fewer_images_than_a_batch(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    with pytest.raises(DatasetError, match="20 images, fewer than a batch of 21"):
        next(train(replace(CONFIG, batch=21), faces, tmp_path, CPU))


def test_fault_47_an_empty_or_absent_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match="python -m align"):
            load_faces(folder, 16, print)


def test_fault_48_bad_images_are_named_and_counted(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "b.png")
    Image.new("RGB", (16, 17)).save(tmp_path / "odd.png")
    (tmp_path / "text.png").write_text("not a picture")
    said: list[str] = []
    faces = load_faces(tmp_path, 16, said.append)
    assert faces.tolist() == np.full((1, 16, 16, 3), (1, 2, 3)).tolist()
    assert "odd.png" in said[0]
    assert "16x17" in said[0]
    assert "text.png" in said[1]
    assert said[2] == "2 of 3 files left out"


def test_batches_show_every_image_once_an_epoch(faces: NDArray[np.uint8]) -> None:
    faces = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    batches = Batches(faces, 5, seed=0, flip=False)
    epochs = [
        [int(value) for step in range(4) for value in batches.at(epoch * 4 + step)[:, 0, 0, 0]] for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]


def test_batches_mirror_half_of_the_images() -> None:
    faces = np.zeros((64, 2, 2, 3), dtype=np.uint8)
    faces[:, :, 0] = 255
    batches = Batches(faces, 64, seed=0, flip=True)
    mirrored = [bool(image[0, 1, 0]) for step in range(10) for image in batches.at(step)]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_settled_batch_norm_has_the_statistics_of_what_g_makes() -> None:
    torch.manual_seed(0)
    G = Generator(CONFIG.network)
    settle_batch_norm(G, batches=50, batch=64)
    z = torch.randn(4096, 4)
    first = G.layers[0](z[:, :, None, None])  # (N, C, 4, 4)
    norm = G.layers[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert torch.allclose(norm.running_mean, first.mean(dim=(0, 2, 3)), atol=0.003)
    assert torch.allclose(norm.running_var, first.var(dim=(0, 2, 3)), rtol=0.1)
    assert not G.training


def test_the_average_of_g_forgets_by_half_in_its_half_life() -> None:
    G, ema = Generator(CONFIG.network), Generator(CONFIG.network)
    with torch.no_grad():
        for average, value in zip(ema.parameters(), G.parameters(), strict=True):
            average.fill_(1.0)
            value.zero_()
    config = replace(CONFIG, batch=10, ema_kimg=0.1)
    for _ in range(10):  # 100 images
        dcgan.train._update_ema(ema, G, config, step=10_000)
    assert next(ema.parameters()).flatten()[0].item() == pytest.approx(0.5, rel=1e-5)

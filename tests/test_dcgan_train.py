"""The training loop: learning, resuming, stopping, failing."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import files, save_all
from PIL import Image
from runs import finish, resumes_bit_equal, tensors

import dcgan.loss
import dcgan.step
import dcgan.train
from align.errors import PhotoError
from align.photo import read_photo
from dcgan.benchmark import benchmark_train
from dcgan.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dcgan.config import ConfigError, NetworkConfig, TrainConfig
from dcgan.dataset import Batches, DatasetError, load_faces
from dcgan.export import plot_losses
from dcgan.networks import Discriminator, Generator
from dcgan.parallel import Group
from dcgan.run import TrainingError, command_of, read_stats
from dcgan.step import MovingAverage
from dcgan.train import recalibrate_batch_norm, train
from dcgan.weights import Weights

CPU = torch.device("cpu")
RELATIVISTIC = dcgan.loss.LOSSES["relativistic"]
NAN = {"relativistic": replace(RELATIVISTIC, g=lambda real, fake: fake.mean() * float("nan"))}
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


def test_a_run_writes_settings_log_grids_and_checkpoint(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    progress = list(train(CONFIG, faces, tmp_path, CPU))
    assert [item.images for item in progress] == [0, 8, 16, 24, 32, 40, 48]
    ticks = read_stats(tmp_path)
    assert [tick["kimg"] for tick in ticks] == [0.016, 0.032, 0.048]
    assert ticks[-1]["lr"] == pytest.approx(CONFIG.lr_end) and 0 < ticks[-1]["maintenance_share"] < 1
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["loss"] == CONFIG.loss and command_of(tmp_path) == written["command"] == "train"
    grids = ["samples/0000000032.png", "samples/0000000048.png"]
    assert files(tmp_path) == ["checkpoint-0000000048.pt", "config.json", "reals.png", *grids, "stats.jsonl"]
    assert read_photo(tmp_path / "reals.png").pixels.shape == (3 * 16, 3 * 16, 3)  # 8 images, 3 in a row


def test_the_generator_learns(tmp_path: Path) -> None:
    """All training images are the same grey, which G must approach."""
    faces = np.full((16, 16, 16, 3), 200, dtype=np.uint8)
    config = replace(CONFIG, kimg=1.6, lr=2e-3, lr_end=2e-3, ema_kimg=0.05, sample_kimg=1.6)
    finish(train(config, faces, tmp_path, CPU), tmp_path)
    means = [
        read_photo(path).pixels[:16, :16].mean()
        for path in (tmp_path / "reals.png", tmp_path / "samples" / "0000001600.png")
    ]
    assert means[0] == 200
    assert abs(means[1] - 200) < 30  # 127 at the start


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    config = replace(CONFIG, precision="bf16")
    resumes_bit_equal(lambda folder: train(config, faces, folder, CPU), tmp_path, 24)
    whole, parts = (
        [[line[key] for key in ("kimg", "loss_d", "loss_g", "lr")] for line in read_stats(tmp_path / name)]
        for name in ("whole", "parts")
    )
    assert [line[0] for line in whole] == [line[0] for line in parts] and whole[-1] == parts[-1]


def test_partial_files_of_a_killed_save_are_removed_on_resume(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    (tmp_path / ".0123456789abcdef.part").write_bytes(b"half a checkpoint")
    (tmp_path / ".mine.part").write_bytes(b"of another program")
    next(train(CONFIG, faces, tmp_path, CPU))
    assert not list(tmp_path.glob(".0*"))
    assert (tmp_path / ".mine.part").read_bytes() == b"of another program"


def test_a_log_damaged_by_a_crash_does_not_stop_a_run(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    finish(train(replace(CONFIG, kimg=0.032), faces, tmp_path, CPU), tmp_path)
    before = read_stats(tmp_path)
    with open(tmp_path / "stats.jsonl", "ab") as file:
        file.write(bytes(100) + b'\n\xff\n[]\n{"loss": 1}\n{"kimg": "a"}\n' + b"[" * 10**5 + b'\n{"kimg')
    assert read_stats(tmp_path) == before
    finish(train(CONFIG, faces, tmp_path, CPU), tmp_path)
    assert [tick["kimg"] for tick in read_stats(tmp_path)] == [0.016, 0.032, 0.048]


def test_a_folder_with_files_of_others_is_refused(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    for name in ("config.json", "stats.jsonl", "reals.png"):
        (tmp_path / name).write_text('{"mine": 1}')
        with pytest.raises(CheckpointError, match=f"holds {name}, and is no run folder"):
            finish(train(CONFIG, faces, tmp_path, CPU), tmp_path)
        assert (tmp_path / name).read_text() == '{"mine": 1}' and len(files(tmp_path)) == 1
        (tmp_path / name).unlink()


def test_links_and_files_of_others_in_a_run_folder_are_left_alone(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    finish(train(CONFIG, faces, run, CPU), run)
    other.mkdir()
    (run / "samples").rename(tmp_path / "samples")
    (run / "samples").symlink_to(other)
    longer = replace(CONFIG, kimg=0.08)
    with pytest.raises(CheckpointError, match="samples is a link"):
        finish(train(longer, faces, run, CPU), run)
    (run / "samples").unlink()
    for name in ("reals.png", "samples/0000000064.png", "losses.png"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(tmp_path / "mine.png")
    (tmp_path / "mine.png").write_bytes(b"mine")
    log = (run / "stats.jsonl").read_text()
    (run / "stats.jsonl").write_text(f"my notes\n{log}")
    finish(train(longer, faces, run, CPU), run)
    assert (tmp_path / "mine.png").read_bytes() == b"mine" and not list(other.iterdir())
    assert (run / "stats.jsonl").read_text().startswith(f"my notes\n{log}")
    with pytest.raises(PhotoError, match="losses.png is a link"):
        plot_losses(run)
    (run / "losses.png").unlink()
    assert plot_losses(run) == plot_losses(run)
    (run / "losses.png").write_bytes(b"mine")
    with pytest.raises(PhotoError, match="losses.png exists"):
        plot_losses(run)
    assert (run / "losses.png").read_bytes() == b"mine"


@pytest.mark.parametrize("change", [{"G": {}}, {"G": 1}, {"config": None}, {"step": "a"}, {"opt_d": None}, None])
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, faces: NDArray[np.uint8], change: dict[str, object] | None
) -> None:
    finish(train(replace(CONFIG, kimg=0.016), faces, tmp_path, CPU), tmp_path)
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    save_checkpoint(tmp_path, 16, saved | change if change else {})
    with pytest.raises(CheckpointError):
        next(train(CONFIG, faces, tmp_path, CPU))


def test_a_run_folder_is_locked_until_the_run_ends(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    run = train(CONFIG, faces, tmp_path, CPU)
    next(run), next(run)
    before = (tmp_path / "stats.jsonl").stat()
    with pytest.raises(PhotoError, match="another run is writing to"):
        next(train(CONFIG, faces, tmp_path, CPU))
    assert (tmp_path / "stats.jsonl").stat() == before
    run.close()
    finish(train(CONFIG, faces, tmp_path, CPU), tmp_path)
    finish(train(CONFIG, faces, tmp_path, CPU), tmp_path)


def test_only_the_length_of_a_run_may_change(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    finish(train(replace(CONFIG, kimg=0.016), faces, tmp_path, CPU), tmp_path)
    with pytest.raises(CheckpointError, match="another lr"):
        next(train(replace(CONFIG, lr=1e-3), faces, tmp_path, CPU))
    with pytest.raises(CheckpointError, match="other images"):
        next(train(CONFIG, faces[::-1].copy(), tmp_path, CPU))
    assert [item.images for item in train(CONFIG, faces, tmp_path, CPU)][-1] == 48


def test_nan_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = finish(train(replace(CONFIG, kimg=0.016), faces, tmp_path, CPU), tmp_path)
    monkeypatch.setattr(dcgan.step.loss, "LOSSES", NAN)
    with pytest.raises(TrainingError, match="loss_g"):
        finish(train(CONFIG, faces, tmp_path, CPU), tmp_path)
    stopped = train(CONFIG, faces, tmp_path, CPU)
    next(stopped), next(stopped)
    with pytest.raises(TrainingError, match="loss_g"):
        stopped.close()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-0000000016.pt"]
    assert all(torch.equal(good[name], value) for name, value in tensors(tmp_path).items())


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    with pytest.raises(DatasetError, match="20 images, fewer than a batch of 21"):
        next(train(replace(CONFIG, batch=21), faces, tmp_path, CPU))


def test_unusable_images_are_reported_and_counted(tmp_path: Path) -> None:
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


def test_batches_flip_half_of_the_images() -> None:
    faces = np.zeros((64, 2, 2, 3), dtype=np.uint8)
    faces[:, :, 0] = 255
    batches = Batches(faces, 64, seed=0, flip=True)
    mirrored = [bool(image[0, 1, 0]) for step in range(10) for image in batches.at(step)]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_recalibrated_batch_norm_has_the_statistics_of_generated_images() -> None:
    torch.manual_seed(0)
    G = Generator(CONFIG.network)
    recalibrate_batch_norm(G, batches=50, batch=64)
    z = torch.randn(4096, 4)
    first = G.layers[0](z[:, :, None, None])  # (N, C, 4, 4)
    norm = G.layers[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert torch.allclose(norm.running_mean, first.mean(dim=(0, 2, 3)), atol=0.003)
    assert torch.allclose(norm.running_var, first.var(dim=(0, 2, 3)), rtol=0.1)
    assert not G.training


def test_the_average_of_g_has_the_given_half_life() -> None:
    G, average = Generator(CONFIG.network), Generator(CONFIG.network)
    with torch.no_grad():
        for mean, value in zip(average.parameters(), G.parameters(), strict=True):
            mean.fill_(1.0)
            value.zero_()
    follow = MovingAverage(average, G, 0.1, step_images=10)
    for _ in range(10):  # 100 images
        follow.update(images=100_000)
    assert next(average.parameters()).flatten()[0].item() == pytest.approx(0.5, rel=1e-5)


def test_each_step_of_d_has_a_batch_of_its_own(
    tmp_path: Path, faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    at = Batches.at
    monkeypatch.setattr(Batches, "at", lambda self, step: seen.append(step) or at(self, step))
    assert [item.images for item in train(replace(CONFIG, d_steps=3), faces, tmp_path, CPU)] == [0, 24, 48]
    assert seen[1:] == [0, 1, 2, 3, 4, 5]  # the first is for the grid of reals


def test_a_run_starts_from_weights(tmp_path: Path, faces: NDArray[np.uint8], small_weights_file: Path) -> None:
    begun = Weights.open(small_weights_file, "cpu")
    faces = np.repeat(np.repeat(faces, 2, axis=1), 2, axis=2)
    config = replace(CONFIG, network=begun.generator.config, start=str(small_weights_file), kimg=0.008, lr=1e-9)
    finish(train(config, faces, tmp_path, CPU), tmp_path)
    saved = tensors(tmp_path)
    for part, network in (("ema", begun.generator), ("D", begun.discriminator)):
        for name, value in network.named_parameters():
            assert torch.allclose(saved[f"{part}.{name}"], value, atol=1e-6)
    assert (load_checkpoint(tmp_path) or {})["started"]["sha256"] == begun.sha256
    with pytest.raises(CheckpointError, match="other networks"):
        next(train(replace(config, network=CONFIG.network), faces, tmp_path / "other", CPU))


def test_a_collapsed_run_stops_with_an_error_after_a_grace_period(
    tmp_path: Path, faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G ignores z."""
    forward = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda self, z: forward(self, z * 0))
    [*_, last] = train(CONFIG, faces, tmp_path / "grace", CPU)
    assert last.stats is not None and last.stats["ms_ssim_samples"] == pytest.approx(1, abs=1e-3)
    monkeypatch.setattr(dcgan.train, "_GRACE_KIMG", 0.02)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="G has collapsed"):
        finish(train(replace(CONFIG, sample_kimg=0.016, save_minutes=0), faces, run, CPU), run)
    assert sorted(path.name for path in run.glob("*.pt")) == ["checkpoint-0000000016.pt", "checkpoint-0000000024.pt"]


def test_overfitting_of_d_is_measured(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    """D trained on bright faces distinguishes dark ones from them, but not the same faces."""
    bright = np.full_like(faces, 220)
    overfit = {}
    for name, val in (("same", bright), ("other", np.full_like(faces, 20))):
        config = replace(CONFIG, kimg=0.4, lr=1e-3, r1=0, r2=0, sample_kimg=0.4)
        stats = [item.stats for item in train(config, bright, tmp_path / name, CPU, val) if item.stats]
        overfit[name] = stats[-1]["overfit"]
    assert overfit["same"] == pytest.approx(0, abs=1e-6)
    assert overfit["other"] > 0.3


def test_two_processes_compute_what_one_does(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    """With batch norm in both networks, penalties, shifts and start weights."""
    network, start = replace(CONFIG.network, d_norm="batch"), tmp_path / "start.safetensors"
    Weights.of(Generator(network), Discriminator(network)).save(start)
    words = f"--kimg 0.032 --batch 8 --device cpu --precision fp32 --translate 0.1 --lr 2e-3 --start {start}".split()
    words = ["train", str(save_all(tmp_path / "faces", faces)), "--output", str(tmp_path / "run"), *words]
    torchrun = [sys.executable, "-m", *"torch.distributed.run --nproc-per-node=2 --standalone -m -- dcgan".split()]
    done = subprocess.run(
        [*torchrun, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'run'}\n" and done.stderr.count("2 processes") == 1
    config = TrainConfig(
        network=network, start=str(start), kimg=0.032, batch=8, precision="fp32", translate=0.1, lr=2e-3
    )
    expected, found = finish(train(config, faces, tmp_path / "one", CPU), tmp_path / "one"), tensors(tmp_path / "run")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
    [both], [one] = (read_stats(tmp_path / name) for name in ("run", "one"))
    for name in ("kimg", "loss_d", "loss_g", "r1"):
        assert both[name] == pytest.approx(one[name], rel=1e-5)


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match="batch of 8 cannot be divided among 3"):
        next(train(CONFIG, faces, tmp_path, CPU, group=Group(0, 3)))


def test_the_benchmark_compares_the_step_with_a_plain_loop() -> None:
    config = replace(CONFIG, network=NetworkConfig(network="mlp", size=16, nz=4), batch=8)
    plain, bare, whole = benchmark_train(config, CPU, seconds=0.1, rounds=1)
    assert plain.ratio == 1 and "no penalty" in bare.name
    assert whole.ratio == pytest.approx(whole.images_per_second / plain.images_per_second)

"""Training of all networks within a given time, by a clock of the test's own."""

from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dcgan import train_all
from dcgan.config import ConfigError, EncoderConfig, NetworkConfig, TrainConfig
from dcgan.run import TrainingStep
from dcgan.train_all import within
from dcgan.weights import Weights

CPU = torch.device("cpu")
CONFIG = TrainConfig(network=NetworkConfig(size=16, nz=4, ngf=12, ndf=12), batch=8, precision="fp32")
ENCODER = EncoderConfig(nef=8, batch=8, pairs=4, precision="fp32")


class Clock:
    """Time that passes only with steps of training."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(train_all, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_a_run_takes_the_given_time_and_knows_its_end(clock: Clock, slower: float) -> None:
    """The first steps take longer, as those that compile; and the machine may be slower after the measurement."""
    lengths: list[float] = []
    images = 0

    def start(config: TrainConfig) -> Generator[TrainingStep, None, None]:
        nonlocal images
        kimg = config.kimg
        lengths.append(kimg)
        clock.now += 5
        yield TrainingStep(images)
        while images < kimg * 1000:
            clock.now += 10 if images < 40 else 1 if len(lengths) == 1 else slower
            images += 8
            yield TrainingStep(images)

    steps = list(within(start, CONFIG, 1000))
    assert len(lengths) == 3 and lengths[0] > 1e5
    assert 950 < clock.now < 1010
    assert images == pytest.approx(1000 * lengths[-1], abs=8)  # it ended with the last learning rate
    assert [step.images for step in steps] == list(range(8, images + 8, 8))


@pytest.fixture
def faces() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


def test_g_and_d_are_trained_and_grown_then_e(tmp_path: Path, faces: NDArray[np.uint8], clock: Clock) -> None:
    """Interrupted during the second of three runs, and repeated."""
    run = train_all.train_all(CONFIG, ENCODER, faces, tmp_path, 40, CPU)
    for step in run:
        clock.now += 1
        if step.run == "32":
            break
    run.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["16", "16.safetensors", "32"]
    names = []
    for step in train_all.train_all(CONFIG, ENCODER, faces, tmp_path, 20, CPU):
        clock.now += 1
        names.append(step.run)
    assert list(dict.fromkeys(names)) == ["32", "encoder"]
    weights = Weights.open(tmp_path / "faces.safetensors", "cpu")
    assert weights.generator.config.size == 32 and weights.encoder is not None
    assert weights.generator.config.kinds[-1] == "grown"
    assert (tmp_path / "faces.onnx").stat().st_size > 1000


def test_a_size_that_cannot_be_reached_is_refused_before_training(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    config = TrainConfig(network=NetworkConfig(size=16, nz=4, ngf=4, ndf=4))
    with pytest.raises(ConfigError, match="ngf is 4"):
        next(train_all.train_all(config, ENCODER, faces, tmp_path, 40, CPU))
    assert not list(tmp_path.iterdir())


def test_smaller_faces_are_the_means_of_blocks(faces: NDArray[np.uint8]) -> None:
    small = train_all._resized(faces, 16)
    means = faces.astype(float).reshape(20, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(small - means).max() <= 0.5

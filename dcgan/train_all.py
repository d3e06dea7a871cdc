"""Train everything that completion needs within a given time: G and D, grown to a larger size, then E."""

import time
from collections.abc import Callable
from collections.abc import Generator as Steps
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dcgan.config import EncoderConfig, RunConfig, TrainConfig
from dcgan.encoder import export_encoder, train_encoder
from dcgan.export import export_onnx, export_run
from dcgan.grow import grown_config
from dcgan.run import TrainingStep
from dcgan.train import train
from dcgan.weights import Weights

_ENCODER = 0.35  # share of the time for E; G and D get equal shares of the rest at each size
_PARTS = (0.1, 0.4, 1)  # shares of the time of a run, after which its length is chosen anew
_SAFETY = 0.97  # planned share of the time that is left, since checkpoints and exports take some, too
_ENDLESS_KIMG = 1_000_000.0

Config = TypeVar("Config", bound=RunConfig)


def train_all(
    config: TrainConfig,
    encoder: EncoderConfig,
    faces: NDArray[np.uint8],
    folder: Path,
    seconds: float,
    device: torch.device,
    template: str = "face",
    val: NDArray[np.uint8] | None = None,
) -> Steps[TrainingStep]:
    """Train G and D at the size of `config`, grow and train them up to the size of the faces, then train E.

    Weights that are in the folder already are not trained again, so an interrupted call can be repeated. Closing the
    iterator saves a checkpoint.

    Args:
        config: settings of G and D at the first size; `kimg` follows from the time.
        encoder: settings of E, likewise.
        faces: uint8 (N, S, S, 3), S as large as the networks shall become.
        folder: for the run folders, and the weights of each step: size.safetensors and at last faces.safetensors, which
            also has E, and faces.onnx.
        seconds: wall-clock time for everything.
        device: where to compute.
        template: alignment template of the faces.
        val: validation faces, as `faces`.
    Raises:
        ConfigError: the networks cannot grow to the size of the faces.
    """
    target, end = faces.shape[1], time.monotonic() + seconds
    grown_config(config.network, target)  # an impossible size is reported before any training
    sizes = [config.network.size]
    while sizes[-1] < target:
        sizes.append(2 * sizes[-1])
    shares = [(1 - _ENCODER) / len(sizes)] * len(sizes) + [_ENCODER]

    def allowed(index: int) -> float:
        return (end - time.monotonic()) * shares[index] / sum(shares[index:])

    for index, size in enumerate(sizes):
        run, file = folder / str(size), folder / f"{size}.safetensors"
        here = replace(config, network=grown_config(config.network, size))
        if not file.exists():
            small_val = None if val is None else _resized(val, size)
            start = partial(train, faces=_resized(faces, size), folder=run, device=device, val=small_val)
            for step in within(start, here, allowed(index)):
                yield replace(step, run=run.name)
            export_run(run, file, template)
        config = replace(here, start=str(file))
    run, result = folder / "encoder", folder / "faces.safetensors"
    if not result.exists():
        trained = Weights.open(file, "cpu")
        start_encoder = partial(train_encoder, weights=trained, faces=faces, folder=run, device=device, val=val)
        for step in within(start_encoder, encoder, allowed(len(sizes))):
            yield replace(step, run=run.name)
        export_encoder(run, result)
    export_onnx(Weights.open(result, "cpu"), result.with_suffix(".onnx"))


def within(start: Callable[[Config], Steps[TrainingStep]], config: Config, seconds: float) -> Steps[TrainingStep]:
    """Let a training run take a given time, with the learning rate at its end then.

    The length of a run in images determines its learning rates. So the run is begun with no end in sight, where they
    hardly fall, and resumed with the length that fits once its speed is known, and again when it is known better.
    """
    began, kimg = time.monotonic(), _ENDLESS_KIMG
    for part in _PARTS:
        with closing(start(replace(config, kimg=kimg))) as run:
            images, end = next(run).images, began + part * seconds
            measured = begun = time.monotonic(), images
            for step in run:
                yield step
                now, images = time.monotonic(), step.images
                if now < (begun[0] + end) / 2:  # the first steps compile and warm up
                    measured = now, images
                if now > end:
                    break
        now = time.monotonic()
        if images > measured[1]:
            rate = (images - measured[1]) / (now - measured[0])
            kimg = (images + rate * max(0.0, _SAFETY * (began + seconds - now))) / 1000


def _resized(faces: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Reduce faces (N, S, S, 3) to (N, size, size, 3), the means of blocks of pixels."""
    block = faces.shape[1] // size
    if block == 1:
        return faces
    sums = faces.reshape(-1, size, block, size, block, 3).sum(axis=(2, 4), dtype=np.uint16)
    return ((sums + block**2 // 2) // block**2).astype(np.uint8)

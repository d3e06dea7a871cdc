"""The folder of a training run, and what the training loops share."""

import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from align.errors import InputError
from align.files import atomic_write, write_json, write_text
from dcgan.checkpoint import CheckpointError
from dcgan.tensors import to_image


class TrainingError(InputError):
    """Training went wrong and stopped; the last good checkpoint is kept."""

    exit_code = 1


@dataclass(frozen=True)
class TrainingStep:
    """One step of training.

    Attributes:
        images: real images seen so far.
        stats: the means since the last tick, on the steps that end a tick.
    """

    images: int
    stats: dict[str, float] | None = None


class RunFolder:
    """Writes config.json, stats.jsonl, TensorBoard events and grids.

    Args:
        path: the folder; made if it is not there.
        images: where the run goes on; what was logged after that is dropped, since those steps are made again.
    """

    def __init__(self, path: Path, images: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for cut_off in path.glob(".*.part"):  # a run that was killed in mid-save
            cut_off.unlink()
        kept = [line for line in read_stats(path) if line["kimg"] * 1000 <= images]
        if kept or (path / "stats.jsonl").exists():
            write_text(path / "stats.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=images)

    def settings(self, values: dict[str, Any]) -> None:
        """Write config.json."""
        write_json(self.path / "config.json", values)

    def tick(self, stats: dict[str, float]) -> None:
        """Log one line; stats["kimg"] says where."""
        with open(self.path / "stats.jsonl", "a") as file:
            file.write(json.dumps(stats) + "\n")
        for name, value in stats.items():
            self._writer.add_scalar(name, value, round(stats["kimg"] * 1000))

    def grid(self, images: Tensor, at: int | None = None, columns: int | None = None) -> None:
        """Write pictures as one.

        Args:
            images: (N, 3, S, S) in [-1, 1].
            at: images seen so far, for samples/0000020000.png; None for reals.png.
            columns: pictures in a row; about the square root of N by default.
        """
        rows = make_grid(images.float(), nrow=columns or round(math.sqrt(len(images))), padding=0)
        grid = to_image(rows[None])[0]
        path = self.path / ("reals.png" if at is None else f"samples/{at:010d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            Image.fromarray(grid).save(file, "PNG")
        if at is not None:
            self._writer.add_image("samples", grid, at, dataformats="HWC")

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._writer.close()


def read_stats(path: Path) -> list[dict[str, float]]:
    """The lines of a run folder's stats.jsonl; a last line that was cut off is left out."""
    file = path / "stats.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def machine(device: torch.device) -> str:
    """What computes, for the model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def crosses(images: int, a_step: int, every_kimg: float) -> bool:
    """Whether the last step passed a multiple of `every_kimg`."""
    return images // (every_kimg * 1000) != (images - a_step) // (every_kimg * 1000)


def check_same_run(saved: dict[str, Any], config: dict[str, Any], data_sha256: str, folder: Path) -> None:
    """Refuse to resume a run with other images or other settings than it was begun with, but for its length.

    Args:
        saved: a checkpoint, with its "config" and "data_sha256".
        config: the settings now.
        data_sha256: of the images now.
        folder: the run folder.
    Raises:
        CheckpointError: it is another run.
    """
    if saved["data_sha256"] != data_sha256:
        raise CheckpointError(f"{folder} was begun on other images; give the same ones or another run folder")
    ours, theirs = config | {"kimg": 0}, saved["config"] | {"kimg": 0}
    odd = [name for name in ours if ours[name] != theirs.get(name)]
    if odd or ours.keys() != theirs.keys():
        raise CheckpointError(
            f"{folder} was begun with another {', '.join(odd) or 'version of this program'}: give the same settings "
            "(config.json has them) or another run folder"
        )

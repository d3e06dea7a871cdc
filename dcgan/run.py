"""What a run leaves beside its checkpoints: settings, curves, grids of pictures."""

import json
import math
import platform
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from align.files import atomic_write
from dcgan.tensors import to_image


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
            with atomic_write(path / "stats.jsonl") as file:
                file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=images)

    def settings(self, values: dict[str, Any]) -> None:
        """Write config.json."""
        with atomic_write(self.path / "config.json") as file:
            file.write((json.dumps(values, indent=2) + "\n").encode())

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

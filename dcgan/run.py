"""A training run: its folder, position, log and checkpoints. Shared by the training loops of G and D and of E."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from align.errors import InputError
from align.files import (
    MAX_TEXT_BYTES,
    atomic_write,
    lock_folder,
    parse_json,
    read_file,
    remove_leftovers,
    write_json,
    write_text,
)
from dcgan.checkpoint import CheckpointError, load_checkpoint, restoring, save_checkpoint
from dcgan.parallel import Group
from dcgan.tensors import to_image


class TrainingError(InputError):
    """Training diverged or collapsed and was stopped; the last good checkpoint is kept."""

    exit_code = 1


@dataclass(frozen=True)
class TrainingStep:
    """One step of training.

    Attributes:
        images: real images shown so far.
        stats: means since the last tick and new measurements; None on steps without either.
    """

    images: int
    stats: dict[str, float] | None = None


class Run:
    """A training run, new or resumed from the newest checkpoint of its folder.

    Args:
        folder: the run folder.
        config: the settings; only "kimg" may differ from those of the checkpoint.
        parts: networks and optimisers by name; their state is saved, and restored in place.
        origin: constants that every checkpoint records, among them "data_sha256" and, where there are any, the
            "weights_sha256" that identify the run's inputs.
        notes: values of the training loop that a checkpoint keeps; restored in place.
        step_images: real images per step.
        group: the processes that share the run; only the first one writes.
    Attributes:
        step: steps done.
        seconds: wall-clock time of those steps, without maintenance.
        resumed: whether there was a checkpoint.
    Raises:
        CheckpointError: the folder holds another run, or no usable checkpoint.
        PhotoError: another process is training in the folder.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        parts: dict[str, Any],
        origin: dict[str, Any],
        notes: dict[str, Any],
        step_images: int,
        group: Group,
    ) -> None:
        self.config, self.parts, self.origin, self.notes = config, parts, origin, notes
        self.step_images, self.group = step_images, group
        self.step, self.seconds = 0, 0.0
        with ExitStack() as lock:
            if group.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(lock_folder(folder))
            self.resumed = self._restore(folder)
            self._lock = lock.pop_all()
        self._folder = folder
        self._writer = self._open() if group.rank == 0 else None
        self._losses: dict[str, tuple[int, Tensor]] = {}  # steps since the last tick that had it, and its sum
        self._ticked = self.images, self.seconds
        self._saved_at = time.monotonic()

    def _restore(self, folder: Path) -> bool:
        """Load the newest checkpoint of the folder, if there is one."""
        saved = load_checkpoint(folder)
        if saved is None:
            return False
        with restoring(folder):
            _check_same_run(saved, self.config, self.origin, folder)
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            self.notes.update({name: saved[name] for name in self.notes})
            self.step, self.seconds = int(saved["step"]), float(saved["seconds"])
        return True

    def _open(self) -> Any:
        """Prepare the folder: delete partial files and later log lines, write config.json, start TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        remove_leftovers([self._folder])  # of a run that was killed while it saved
        kept = [line for line in read_stats(self._folder) if line["kimg"] * 1000 <= self.images]
        write_text(self._folder / "stats.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        write_json(self._folder / "config.json", self.config)
        return SummaryWriter(str(self._folder / "tensorboard"), purge_step=self.images)

    @property
    def images(self) -> int:
        """Real images shown so far."""
        return self.step * self.step_images

    @property
    def finished(self) -> bool:
        """Whether the run has reached its length."""
        return self.images >= self.config["kimg"] * 1000

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count one step and sum its losses, scalars on the device, for the next tick."""
        for name, value in losses.items():
            count, total = self._losses.get(name, (0, torch.zeros_like(value)))
            self._losses[name] = count + 1, total + value.detach()
        self.step += 1

    def due(self, every_kimg: float) -> bool:
        """Whether the last step passed a multiple of `every_kimg`, or finished the run."""
        every = every_kimg * 1000
        return self.finished or self.images // every != (self.images - self.step_images) // every

    def check_finite(self) -> None:
        """Wait for the device and check every loss and weight.

        Raises:
            TrainingError: a value is NaN or infinite.
        """
        odd = [name for name, (_, total) in self._losses.items() if not math.isfinite(total)]
        odd += [
            name
            for name, part in self.parts.items()
            if isinstance(part, nn.Module)
            and not torch.stack(torch._foreach_norm([*part.parameters()])).isfinite().all()
        ]
        if odd:
            raise TrainingError(
                f"NaN or infinity in {', '.join(odd)}; the last good checkpoint is kept. "
                "Lower the learning rate or raise the weight of the gradient penalties"
            )

    def tick(self, lr: float) -> dict[str, float]:
        """The mean of each loss since the last tick, and the speed."""
        means = {name: self.group.mean(float(total) / count) for name, (count, total) in self._losses.items()}
        rate = (self.images - self._ticked[0]) / (self.seconds - self._ticked[1])
        self._losses.clear()
        self._ticked = self.images, self.seconds
        return {"lr": lr, **means, "seconds": self.seconds, "images_per_second": rate}

    def log(self, stats: dict[str, float]) -> TrainingStep:
        """Append a line to stats.jsonl and TensorBoard unless `stats` is empty, and describe the step."""
        if not stats:
            return TrainingStep(self.images)
        stats = {"kimg": self.images / 1000, **stats}
        if self._writer:
            with open(self._folder / "stats.jsonl", "a") as file:
                file.write(json.dumps(stats) + "\n")
            for name, value in stats.items():
                self._writer.add_scalar(name, value, self.images)
        return TrainingStep(self.images, stats)

    def grid(self, images: Tensor, name: str | None = None, columns: int | None = None) -> None:
        """Write images as one picture.

        Args:
            images: (N, 3, S, S) in [-1, 1].
            name: file in the run folder; samples/0000020000.png and TensorBoard after 20,000 images by default.
            columns: images per row; about the square root of N by default.
        """
        if self._writer is None:
            return
        rows = make_grid(images.float(), nrow=columns or round(math.sqrt(len(images))), padding=0)
        grid = to_image(rows[None])[0]
        path = self._folder / (name or f"samples/{self.images:010d}.png")
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as file:
            Image.fromarray(grid).save(file, "PNG")
        if name is None:
            self._writer.add_image("samples", grid, self.images, dataformats="HWC")

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: see `check_finite`; nothing is written.
        """
        self.check_finite()
        self._saved_at = time.monotonic()
        if self._writer:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"step": self.step, "seconds": self.seconds, "config": self.config}
            save_checkpoint(self._folder, self.images, state | self.origin | self.notes)

    def save_every(self, minutes: float) -> None:
        """Write a checkpoint if the last one is older than `minutes`."""
        if time.monotonic() - self._saved_at > minutes * 60:
            self.save()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Save when the block ends or the caller closes the training iterator, but not after an error."""
        with self._lock:
            try:
                yield
            except GeneratorExit:
                self.save()
                raise
            finally:
                if self._writer:
                    self._writer.close()
            self.save()


def read_stats(path: Path) -> list[dict[str, float]]:
    """Read the lines of a run folder's stats.jsonl, without those that a crash has left incomplete or damaged."""
    file = path / "stats.jsonl"
    lines = read_file(file, MAX_TEXT_BYTES).split(b"\n")[:-1] if file.exists() else []
    return [stats for stats in map(_stats, lines) if stats]


def _stats(line: bytes) -> dict[str, float]:
    """Parse a line of stats.jsonl; empty if it is not one."""
    try:
        stats = parse_json(line)
    except ValueError:
        return {}
    numbers = isinstance(stats, dict) and all(isinstance(value, int | float) for value in stats.values())
    return stats if numbers and "kimg" in stats else {}


def _check_same_run(saved: dict[str, Any], config: dict[str, Any], origin: dict[str, Any], folder: Path) -> None:
    """Refuse to resume with other images, weights or settings; the length may change."""
    for name, inputs in (("data_sha256", "images"), ("weights_sha256", "weights")):
        if saved.get(name) != origin.get(name):
            raise CheckpointError(f"{folder} was started with other {inputs}; use the same {inputs} or another folder")
    ours, theirs = config | {"kimg": 0}, saved["config"] | {"kimg": 0}
    odd = [name for name in ours if ours[name] != theirs.get(name)]
    if odd or ours.keys() != theirs.keys():
        raise CheckpointError(
            f"{folder} was started with another {', '.join(odd) or 'version of this program'}; use the settings in "
            "its config.json or another folder"
        )

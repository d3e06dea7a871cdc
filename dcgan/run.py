"""A training run: its folder, position, log and checkpoints. Its loop trains every network."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from align.errors import InputError
from align.files import MAX_TEXT_BYTES, atomic_write, lock_folder, parse_json, read_file, remove_leftovers, write_json
from align.manifest import append_line
from align.photo import write_photo
from align.picture import grid
from dcgan.checkpoint import CheckpointError, load_checkpoint, restoring, save_checkpoint
from dcgan.config import RunConfig
from dcgan.graph import set_rate
from dcgan.parallel import Group
from dcgan.step import cosine
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
        run: name of the run, where several follow each other.
    """

    images: int
    stats: dict[str, float] | None = None
    run: str = ""


@dataclass(frozen=True)
class RunInputs:
    """What a run computes on; every checkpoint records it, and a run resumes only on the same images and weights."""

    data_sha256: str
    data_images: int
    machine: str  # name of the device
    weights_sha256: str | None = None  # of the weights that an encoder is trained for


class Run:
    """A training run, new or resumed from the newest checkpoint of its folder.

    Args:
        folder: the run folder.
        command: name of the command that trains, for config.json.
        config: the settings; only `kimg` may differ from those of the checkpoint.
        modules: networks and optimisers by name; their state is saved, and restored in place.
        inputs: what the run computes on.
        extra_state: other values that a checkpoint keeps, by name; restored in place.
        group: the processes that share the run; only the first one writes.
    Attributes:
        step: steps done.
        seconds: wall-clock time of those steps, without maintenance.
        maintenance_s: wall-clock time of logs, grids, measurements and checkpoints.
        resumed: whether there was a checkpoint.
    Raises:
        CheckpointError: the folder holds another run, files of others, or no usable checkpoint.
        PhotoError: another process is training in the folder.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        config: RunConfig,
        modules: dict[str, Any],
        inputs: RunInputs,
        extra_state: dict[str, Any] | None = None,
        group: Group | None = None,
    ) -> None:
        self.config, self.modules, self.inputs = config, modules, inputs
        self.extra_state = {} if extra_state is None else extra_state
        self.group = group or Group()
        self.step, self.seconds, self.maintenance_s = 0, 0.0, 0.0
        with ExitStack() as lock:
            if self.group.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(lock_folder(folder))
                _check_folder(folder)
            self.resumed = self._restore(folder)
            self._lock = lock.pop_all()
        self._folder, self._writes = folder, self.group.rank == 0
        if self._writes:
            self._open(command)
        self._losses: dict[str, tuple[int, Tensor]] = {}  # steps since the last tick that had it, and its sum
        self._ticked = self.images, self.seconds
        self._saved_at = time.monotonic()

    def _restore(self, folder: Path) -> bool:
        """Load the newest checkpoint of the folder, if there is one."""
        saved = load_checkpoint(folder)
        if saved is None:
            return False
        with restoring(folder):
            _check_same_run(saved, asdict(self.config), self.inputs, folder)
            for name, module in self.modules.items():
                module.load_state_dict(saved[name])
            self.extra_state.update({name: saved[name] for name in self.extra_state})
            self.step, self.seconds = int(saved["step"]), float(saved["seconds"])
            self.maintenance_s = float(saved.get("upkeep", 0.0))
        return True

    def _open(self, command: str) -> None:
        """Prepare the folder: delete partial files and later log lines, write config.json."""
        remove_leftovers([self._folder, self._folder / "samples"])  # of a run that was killed while it saved
        write_json(self._folder / "config.json", {"command": command} | asdict(self.config))
        lines = _lines(self._folder)
        with atomic_write(self._folder / "stats.jsonl") as file:
            file.writelines(line + b"\n" for line in lines if _stats(line).get("kimg", 0) * 1000 <= self.images)

    @property
    def images(self) -> int:
        """Real images shown so far."""
        return self.step * self.config.step_images

    @property
    def finished(self) -> bool:
        """Whether the run has reached its length."""
        return self.images >= self.config.kimg * 1000

    def loop(
        self,
        step: Callable[[int], dict[str, Tensor]],
        rate: Callable[[int], float],
        diagnose: Callable[[], dict[str, float]],
    ) -> Iterator[TrainingStep]:
        """Train to the end of the run; closing the iterator saves a checkpoint.

        Args:
            step: computes the step of this number; returns losses, scalars on the device.
            rate: the learning rate at the step of this number.
            diagnose: writes grids and returns measurements.
        Yields:
            The position where the run starts or resumes, then every step.
        Raises:
            TrainingError: a loss or weight is NaN or infinite; no checkpoint is written.
        """
        with self._lock:
            yield TrainingStep(self.images)
            try:
                while not self.finished:
                    # One step.
                    began = time.monotonic()
                    for name, value in step(self.step).items():
                        count, total = self._losses.get(name, (0, torch.zeros_like(value)))
                        self._losses[name] = count + 1, total + value.detach()
                    self.step += 1
                    tick = self._due(self.config.tick_kimg)
                    if tick:
                        self._check_finite()
                    self.seconds += time.monotonic() - began

                    # Maintenance: log, samples, checkpoint.
                    began = time.monotonic()
                    stats = self._tick(rate(self.step)) if tick else {}
                    if self._due(self.config.sample_kimg):
                        stats |= diagnose()
                    if stats:
                        stats = {"kimg": self.images / 1000, **stats}
                        if self._writes:
                            append_line(self._folder / "stats.jsonl", stats)
                    if time.monotonic() - self._saved_at > self.config.save_minutes * 60:
                        self._save()
                    self.maintenance_s += time.monotonic() - began
                    yield TrainingStep(self.images, stats or None)
            except GeneratorExit:
                self._save()
                raise
            self._save()

    def fit(
        self,
        network: nn.Module,
        losses: Callable[[np.random.Generator], dict[str, Tensor]],
        diagnose: Callable[[], dict[str, float]],
        rise: int,
    ) -> Iterator[TrainingStep]:
        """Train one network by the sum of its losses on what is drawn at random, with modules["optimiser"].

        The learning rate rises linearly over the first `rise` images, and follows a cosine over the run. For `diagnose`
        the network is in eval mode. See `loop`.
        """
        config, optimiser = self.config, self.modules["optimiser"]

        def rate(number: int) -> float:
            images, length = number * config.batch, config.kimg * 1000
            return min(1.0, (images + config.batch) / rise) * cosine(config.lr, config.lr_end, images / length)

        def step(number: int) -> dict[str, Tensor]:
            set_rate(optimiser, rate(number))
            found = losses(np.random.default_rng([config.seed, number]))
            optimiser.zero_grad(set_to_none=True)
            torch.stack([*found.values()]).sum().backward()
            optimiser.step()
            return found

        @torch.no_grad()
        def measure() -> dict[str, float]:
            network.eval()
            found = diagnose()
            network.train()
            return found

        return self.loop(step, rate, measure)

    def _due(self, every_kimg: float) -> bool:
        """Whether the last step passed a multiple of `every_kimg`, or finished the run."""
        every = every_kimg * 1000
        return self.finished or self.images // every != (self.images - self.config.step_images) // every

    def _check_finite(self) -> None:
        """Wait for the device and check every loss and weight; raises TrainingError."""
        odd = [name for name, (_, total) in self._losses.items() if not math.isfinite(total)]
        odd += [
            name
            for name, module in self.modules.items()
            if isinstance(module, nn.Module)
            and not torch.stack(torch._foreach_norm([*module.parameters()])).isfinite().all()
        ]
        if odd:
            raise TrainingError(
                f"NaN or infinity in {', '.join(odd)}; the last good checkpoint is kept. "
                "Lower the learning rate or raise the weight of the gradient penalties"
            )

    def _tick(self, lr: float) -> dict[str, float]:
        """The mean of each loss since the last tick, the speed, and the share of the time for maintenance."""
        means = {name: self.group.mean(float(total) / count) for name, (count, total) in self._losses.items()}
        speed = (self.images - self._ticked[0]) / (self.seconds - self._ticked[1])
        share = self.maintenance_s / (self.maintenance_s + self.seconds)
        self._losses.clear()
        self._ticked = self.images, self.seconds
        return {"lr": lr, **means, "seconds": self.seconds, "images_per_second": speed, "maintenance_share": share}

    def grid(self, images: Tensor, name: str | None = None, columns: int | None = None) -> None:
        """Write images (N, 3, S, S) in [-1, 1] as one picture of the run folder, unless it exists from before a crash.

        By default the file is samples/0000020000.png after 20,000 images, with about the square root of N per row.
        """
        path = self._folder / (name or f"samples/{self.images:010d}.png")
        if self._writes and not os.path.lexists(path):
            write_photo(path, grid(to_image(images), columns), overwrite=False)

    def _save(self) -> None:
        """Write a checkpoint, unless a value is NaN or infinite."""
        self._check_finite()
        self._saved_at = time.monotonic()
        if self._writes:
            state = {name: module.state_dict() for name, module in self.modules.items()}
            state |= {"step": self.step, "seconds": self.seconds, "upkeep": self.maintenance_s}
            state |= {"config": asdict(self.config)} | asdict(self.inputs)
            save_checkpoint(self._folder, self.images, state | self.extra_state)


def command_of(folder: Path) -> str:
    """Return which command trains in a run folder, as its config.json says; raises CheckpointError if it is none."""
    try:
        return str(parse_json(read_file(folder / "config.json", MAX_TEXT_BYTES))["command"])
    except (InputError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{folder} has no config.json that names its command; expected a run folder of python -m dcgan; "
            "run the command again if it is one of an older version"
        ) from error


def read_stats(path: Path) -> list[dict[str, float]]:
    """Read the lines of a run folder's stats.jsonl, without those that a crash has left incomplete or damaged."""
    return [stats for stats in map(_stats, _lines(path)) if stats]


def _lines(folder: Path) -> list[bytes]:
    """The whole lines of stats.jsonl."""
    file = folder / "stats.jsonl"
    return read_file(file, MAX_TEXT_BYTES).split(b"\n")[:-1] if file.exists() else []


def _stats(line: bytes) -> dict[str, float]:
    """Parse a line of stats.jsonl; empty if it is not one."""
    try:
        stats = parse_json(line)
    except ValueError:
        return {}
    numbers = isinstance(stats, dict) and all(isinstance(value, int | float) for value in stats.values())
    return stats if numbers and "kimg" in stats else {}


def _check_folder(folder: Path) -> None:
    """Refuse to write among the files of others: config.json marks a run folder."""
    foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if foreign:
        try:
            command_of(folder)
        except CheckpointError as error:
            raise CheckpointError(f"{folder} holds {foreign[0]}, and is no run folder; choose a new folder") from error
    if (folder / "samples").is_symlink():
        raise CheckpointError(f"{folder / 'samples'} is a link; remove it or choose another folder")


def _check_same_run(saved: dict[str, Any], config: dict[str, Any], inputs: RunInputs, folder: Path) -> None:
    """Refuse to resume with other images, weights or settings; the length may change."""
    for name, what in (("data_sha256", "images"), ("weights_sha256", "weights")):
        if saved.get(name) != getattr(inputs, name):
            raise CheckpointError(f"{folder} was started with other {what}; use the same {what} or another folder")
    ours, theirs = config | {"kimg": 0}, saved["config"] | {"kimg": 0}
    odd = [name for name in ours if ours[name] != theirs.get(name)]
    if odd or ours.keys() != theirs.keys():
        raise CheckpointError(
            f"{folder} was started with another {', '.join(odd) or 'version of this program'}; use the settings in "
            "its config.json or another folder"
        )

"""Checkpoints, which training resumes from."""

import io
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch

from align.errors import InputError
from align.files import publish, read_file
from align.manifest import is_owned, write_owned

_MAX_CHECKPOINT_BYTES = 2**36
_NAME = re.compile(r"checkpoint-([0-9]{10})\.pt")
_log = logging.getLogger(__name__)


class CheckpointError(InputError):
    """A run folder has no usable checkpoint, or belongs to another run."""


def save_checkpoint(folder: Path, images: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint, nested dictionaries of tensors, numbers and strings.

    Older ones but the last of them are deleted, if they are as this program wrote them.

    The number of real images shown so far goes into the file name.
    """
    path = folder / f"checkpoint-{images:010d}.pt"
    buffer = io.BytesIO()  # torch.save turns a full disk into an error without a reason
    torch.save(state | {"images": images}, buffer)
    write_owned(path, buffer.getbuffer())
    for old in [old for old in _checkpoints(folder) if old.name < path.name][1:]:
        if is_owned(old):
            old.unlink()
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the newest intact checkpoint of a run folder; None if it has no checkpoints.

    Newer ones that are damaged are renamed to NAME.broken, and logged; copies under another number are left alone.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged; they keep their names.
    """
    broken: dict[Path, str] = {}
    for path in _checkpoints(folder):
        try:
            state = _read(path)
        except InputError as error:
            broken[path] = str(error)
            continue
        number = int(path.stem.partition("-")[2])
        if state.pop("images", number) != number:
            continue
        for other, reason in broken.items():
            names = (other.with_name(f"{other.name}.broken{'' if time == 1 else time}") for time in count(1))
            aside = next(name for name in names if not os.path.lexists(name))
            with suppress(FileNotFoundError):  # another process of the group was first
                publish(other, aside, overwrite=False)
            _log.warning("%s is unusable (%s); renamed to %s, using %s", other, reason, aside.name, path.name)
        return state
    if broken:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in broken.items())
        raise CheckpointError(f"no checkpoint in {folder} is usable ({reasons}); start in a new folder")
    return None


def load_run(folder: Path, command: str) -> dict[str, Any]:
    """As `load_checkpoint`, of a run of a dcgan command; raises CheckpointError if there is none, too."""
    saved = load_checkpoint(folder)
    if saved is None:
        raise CheckpointError(f"{folder} has no checkpoint; expected a run folder of python -m dcgan {command}")
    return saved


def training_record(saved: dict[str, Any], step_images: int, before: dict[str, Any]) -> dict[str, Any]:
    """Describe the training behind a checkpoint, added to that of the weights it started from, for files and cards."""
    return {
        "images": saved["step"] * step_images + before.get("images", 0),
        "seconds": round(saved["seconds"]) + before.get("seconds", 0),
        "machine": saved["machine"],
        "data_images": saved["data_images"],
        "data_sha256": saved["data_sha256"],
        "training": {name: value for name, value in saved["config"].items() if name != "network"},
    }


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises InputError with the reason alone if it is damaged."""
    content = io.BytesIO(read_file(path, _MAX_CHECKPOINT_BYTES))
    try:
        damaged = zipfile.ZipFile(content).testzip()
        # weights_only refuses pickles that run code.
        content.seek(0)
        state = None if damaged else torch.load(content, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises a dozen types for files that are no checkpoints
        raise CheckpointError(f"no checkpoint: {type(error).__name__}") from error
    if damaged:
        raise CheckpointError(f"damaged: the checksum of {damaged} does not match")
    if not isinstance(state, dict):
        raise CheckpointError(f"no checkpoint: it holds a {type(state).__name__}")
    return state


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Turn errors of a state that does not fit this program's networks into a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise CheckpointError(
            f"the checkpoint in {folder} does not fit this version of the program ({reason}); "
            "use the version that wrote it, or another folder"
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name) and not path.is_symlink())
    return sorted(found, reverse=True)

"""Helpers for tests of training runs and experiments."""

import json
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dcgan.__main__ import main
from dcgan.checkpoint import load_checkpoint
from dcgan.run import TrainingStep

Result = TypeVar("Result")


def explore(name: str, folder: Path, *words: object) -> dict[str, Any]:
    """Run an experiment on the CPU, and return the figures that it writes."""
    device = [] if name in ("duplicates", "gan-1d") else ["--device", "cpu"]
    assert main(["explore", name, "--output", str(folder), *device, *map(str, words)]) == 0
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def returned(work: Generator[Any, Any, Result]) -> tuple[list[Any], Result]:
    """Return what a generator yields, and what it returns."""
    seen: list[Any] = []
    while True:
        try:
            seen.append(next(work))
        except StopIteration as ended:
            return seen, ended.value


def finish(run: Iterable[TrainingStep], folder: Path) -> dict[str, Tensor]:
    """Run to the end and return every tensor of the newest checkpoint."""
    for _ in run:
        pass
    return tensors(folder)


def resumes_bit_equal(start: Callable[[Path], Generator[TrainingStep]], folder: Path, images: int) -> None:
    """Fail unless a run that stops after so many images and is started again ends as an uninterrupted one."""
    whole, parts = folder / "whole", folder / "parts"
    expected = finish(start(whole), whole)
    run = start(parts)
    while next(run).images < images:
        pass
    run.close()
    again = start(parts)
    assert next(again).images == images
    found = finish(again, parts)
    assert len(expected) > 10 and found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint by its path, such as "G.layers.0.weight"."""
    found: dict[str, Tensor] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(f"{name}.{key}", item)

    for name, value in (load_checkpoint(folder) or {}).items():
        walk(name, value)
    return found

"""Habits that the command lines of dcgan share; imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import CONFIG_HELP

if TYPE_CHECKING:
    from collections.abc import Iterable


def add_common(parser: argparse.ArgumentParser) -> None:
    """The flags of every command."""
    parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU if there is one)")


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """See that nothing is replaced unasked, before any work is done.

    Raises:
        PhotoError: one of the paths exists, and `overwrite` is not set.
    """
    from align.errors import PhotoError

    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise PhotoError(f"{existing[0]} exists; give --overwrite or another place")


def show_progress(steps: Iterable[Any]) -> Any:
    """Show the `dcgan.evaluate.Progress` of some work; returns its last step, which is what the work was for."""
    from tqdm import tqdm

    from dcgan.sampling import Progress

    step = None
    with tqdm(disable=None, bar_format="{desc} {bar} {n_fmt}/{total_fmt} {elapsed}") as bar:
        for step in steps:
            if isinstance(step, Progress):
                bar.total, bar.n = step.total, step.done
                bar.set_description(step.part)
    return step


def say(text: str) -> None:
    """To people; results go to stdout."""
    print(text, file=sys.stderr)

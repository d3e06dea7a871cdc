"""Habits that all command lines share: settings from a file, numbers within bounds, paths on one line."""

import argparse
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

CONFIG_HELP = "TOML file of options, such as seed = 1; options on the command line win"
ENGINES = ("processes", "ray")
ENGINE_HELP = (
    "where the workers are: processes of this machine; or ray, the cluster of RAY_ADDRESS, without that address Ray "
    "on this machine; paths must mean the same on every machine"
)


def expand_config(argv: Sequence[str], parser: argparse.ArgumentParser, at: int = 0) -> list[str]:
    """Put the options of `--config FILE` into the command line, before those that were typed, so that these win.

    Args:
        argv: the command line.
        parser: tells of a file that cannot be used, and exits with 2.
        at: where the options go; 1 for after a sub-command.
    Returns:
        The command line without --config; `seed = 1` in the file becomes --seed=1, `flip = false` becomes --no-flip.
    """
    kept, given = [], []
    words = iter(argv)
    for word in words:
        name, equals, file = word.partition("=")
        if name != "--config":
            kept.append(word)
            continue
        file = file if equals else next(words, "")
        try:
            options = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            parser.error(f"--config {file}: cannot be read as TOML: {error}")
        for key, value in options.items():
            flag = f"--{key.replace('_', '-')}"
            if not isinstance(value, str | int | float):
                parser.error(f"--config {file}: {key} is {value!r}, expected a text, a number, true or false")
            if isinstance(value, bool):
                given.append(flag if value else f"--no-{flag[2:]}")
            else:
                given.append(f"{flag}={value}")
    return [*kept[:at], *given, *kept[at:]]


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `least` on."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


def shown(path: Path) -> str:
    """A path on one line, whatever its name holds."""
    return str(path) if str(path).isprintable() else repr(str(path))

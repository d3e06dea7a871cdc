"""What all command lines share: flags, settings from a file, errors as one line on stderr."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import InputError, PhotoError
from weights import DEFAULT, REGISTRY, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_FLAGS: dict[str, dict[str, Any]] = {
    "--weights": {"default": DEFAULT, "help": f"file or name: {', '.join(REGISTRY)} (%(default)s)"},
    "--device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N (auto: a GPU if there is one)"},
    "--engine": {
        "choices": ("processes", "ray"),
        "default": "processes",
        "help": "where the workers are: processes of this machine; or ray, the cluster of RAY_ADDRESS, without that "
        "address Ray on this machine; paths must mean the same on every machine (%(default)s)",
    },
    "--config": {
        "metavar": "FILE",
        "help": "TOML file of options, such as seed = 1; options on the command line win",
    },
    "--version": {"action": "version", "version": f"%(prog)s {VERSION}"},
}


def add_flags(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Add flags that mean the same in every command: --weights, --device, --engine, --config, --version."""
    for flag in flags:
        parser.add_argument(flag, **_FLAGS[flag])


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, at: int = 0) -> argparse.Namespace:
    """Parse a command line with the options of its --config file; `at` as for `expand_config`."""
    return parser.parse_args(expand_config(sys.argv[1:] if argv is None else argv, parser, at))


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


def run_main(
    name: str, work: Callable[[], int], stopped: str = "stopped", out_of_memory: str = "take --device cpu"
) -> int:
    """Run a command; an error that a person can mend becomes one line on stderr and an exit code.

    Args:
        name: of the command, before each line.
        work: the command.
        stopped: what to say after Ctrl-C.
        out_of_memory: what to do where the GPU's memory is full.
    Returns:
        What `work` returned; 1 after OSError or a GPU out of memory, 130 after Ctrl-C, or the error's exit code.
    """
    try:
        return work()
    except InputError as error:
        say(f"{name}: {error}")
        return error.exit_code
    except OSError as error:
        say(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        say(f"{name}: {stopped}")
        return 130
    except RuntimeError as error:
        torch = sys.modules.get("torch")  # never imported for this alone
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        say(f"{name}: the GPU's memory is full; {out_of_memory}")
        return 1


def say(text: str) -> None:
    """To people; results go to stdout."""
    print(text, file=sys.stderr)


def show_progress(steps: Iterable[Any], kind: type, quiet: bool = False) -> Iterator[Any]:
    """Show some work's progress in a bar and pass all its other results on.

    Args:
        steps: of the work.
        kind: of the steps that tell the progress, by `part`, `done` and `total`.
        quiet: show nothing.
    """
    from tqdm import tqdm

    with tqdm(disable=quiet or None, bar_format="{desc} {bar} {n_fmt}/{total_fmt} {elapsed}") as bar:
        for step in steps:
            if isinstance(step, kind):
                bar.total, bar.n = step.total, step.done  # type: ignore[attr-defined]
                bar.set_description(step.part)  # type: ignore[attr-defined]
            else:
                yield step


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """See that nothing is replaced unasked, before any work is done.

    Raises:
        PhotoError: one of the paths exists, and `overwrite` is not set.
    """
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise PhotoError(f"{existing[0]} exists; give --overwrite or another place")

"""The command line: options from settings classes and TOML files, errors as one line, exit codes, signals."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import textwrap
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast, get_args, get_origin

from align.errors import InputError, PhotoError, hint
from align.settings import Option, from_text, unwrap
from weights import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from io import TextIOWrapper
    from types import FrameType

Settings = TypeVar("Settings")

_NOT_IN_FILES = ("--config", "--help", "--version")
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)
# One Ctrl+C can arrive as several signals, from the terminal and from a launcher such as torchrun.
_SAME_SIGNAL_S = 1.0


# Parsing


class HelpFormatter(argparse.HelpFormatter):
    """Keeps line breaks, and does not break indented lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(line if line.startswith(" ") else textwrap.fill(line, width) for line in lines)


class Parser(argparse.ArgumentParser):
    """Parser that reports a mistake in one line, with the most similar name; options cannot be abbreviated.

    Attributes:
        commands: the parsers of its sub-commands by name.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        defaults: dict[str, Any] = {"allow_abbrev": False, "formatter_class": HelpFormatter}
        super().__init__(*arguments, **defaults | settings)
        self.commands: dict[str, Parser] = {}

    def add_subparsers(self, **settings: Any) -> Any:
        """As argparse's; see `commands`."""
        action = super().add_subparsers(**settings)
        self.commands = action.choices
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; also reads the file of --config, and reports unknown options.

        A sub-command does this for itself, because only it knows its options.
        """
        words = sys.argv[1:] if args is None else list(args)
        found, extra = super().parse_known_args(self._with_config(words), namespace)
        if extra:
            word = next((word for word in extra if word.startswith("-")), extra[0])
            if not word.startswith("-"):
                self.error(f"unexpected argument {word!r}")
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            self.error(f"there is no option {(name := word.partition('=')[0])}; {hint(name, flags)}")
        return found, extra

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"there is no {str(value)!r}; {hint(str(value), names)}")

    def _with_config(self, words: list[str]) -> list[str]:
        """Replace `--config FILE` by the options in the file; typed options follow them and so take precedence."""
        end = words.index("--") if "--" in words else len(words)
        at = next((at for at in range(end) if words[at].partition("=")[0] == "--config"), None)
        if at is None or "--config" not in self._option_string_actions:
            return words
        _, equals, file = words[at].partition("=")
        file, *rest = [file, *words[at + 1 :]] if equals else words[at + 1 :] or [""]
        return [*self._options_in(Path(file)), *self._with_config(words[:at] + rest)]

    def _options_in(self, file: Path) -> Iterator[str]:
        """The options in a TOML file: `seed = 1` becomes --seed=1, `flip = false` becomes --no-flip."""
        from align.files import read_toml  # imported late: --help reads no files

        try:
            settings = read_toml(file)
        except (PhotoError, ValueError) as error:
            self.error(f"--config {file}: cannot be read as TOML: {error}")
        flags = self._option_string_actions
        actions = {flag[2:]: flags[flag] for flag in flags if flag.startswith("--") and flag not in _NOT_IN_FILES}
        for key, value in settings.items():
            name = key.replace("_", "-")
            if name not in actions:
                keys = [name.replace("-", "_") for name in actions if not name.startswith("no-")]
                self.error(f"--config {file}: there is no option {key!r}; {hint(key, keys)}")
            if not isinstance(value, str | int | float):
                self.error(f"--config {file}: {key} is {value!r}; expected a string, a number, true or false")
            if not isinstance(value, bool):
                yield f"--{name}={value}"
            elif value or f"no-{name}" in actions:
                yield f"--{name}" if value else f"--no-{name}"
            elif actions[name].nargs != 0:
                self.error(f"--config {file}: {key} is false; expected a value")


def add_common(parser: Parser, verbose: str = "", quiet: str = "print only errors", version: bool = True) -> None:
    """Add --config, --verbose and --quiet where they have a help text, and --version."""
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file of options, such as seed = 1; typed options take precedence"
    )
    texts = {"verbose": verbose, "quiet": quiet}
    if any(texts.values()):
        group = parser.add_mutually_exclusive_group()
        for name in filter(texts.get, texts):
            group.add_argument(f"-{name[0]}", f"--{name}", action="store_true", help=texts[name])
    if version:
        parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")


# Options from settings classes


def add_settings(
    parser: argparse._ActionsContainer, settings: type, only: Collection[str] = (), skip: Collection[str] = ()
) -> None:
    """Add an option for each field of a settings class, see `align.settings`.

    A bool becomes --flag, or --flag and --no-flag if the default is True; a Literal has choices; the values of a tuple
    are separated by commas, or also by spaces if their number is not fixed. A field without default is required. Fields
    that are settings themselves have no option, nor have those not in `only`, if it is given, and those in `skip`.
    """
    for item in fields(settings):
        kind, notes = unwrap(item.type)
        if item.name in skip or only and item.name not in only or is_dataclass(kind):
            continue
        option = next((note for note in notes if isinstance(note, Option)), Option())
        default = item.default if item.default_factory is MISSING else item.default_factory()
        text = next((note for note in notes if isinstance(note, str)), "").replace("%", "%%")
        if default is not False and default is not MISSING and "default:" not in text:
            text += f" (default: {_printed(default)})"
        # Absent options stay out of the namespace, so that `given` can tell them from those with the default's value.
        words: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        several = get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis
        if kind is bool:
            words["action"] = argparse.BooleanOptionalAction if default else "store_true"
        else:
            words |= {"type": partial(_convert, item.type), "metavar": option.metavar}
            words |= {"choices": get_args(kind)} if get_origin(kind) is Literal else {}
            words |= {"nargs": "+"} if several else {}
        names = [item.name] if option.positional else [option.flag or f"--{item.name.replace('_', '-')}"]
        if option.positional and default is not MISSING:
            words |= {"nargs": "*" if several else "?", "default": default}
        elif not option.positional:
            names = [option.short, *names] if option.short else names
            words |= {"dest": item.name} | ({"required": True} if default is MISSING else {})
        parser.add_argument(*names, **words)


def given(arguments: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Return the fields of a settings class that were typed or came from the file of --config."""
    values = {item.name: vars(arguments)[item.name] for item in fields(settings) if item.name in arguments}
    # Of several words, each became a tuple.
    return {name: tuple(chain(*value)) if isinstance(value, list) else value for name, value in values.items()}


def settings_from(arguments: argparse.Namespace, settings: Callable[..., Settings], **overrides: Any) -> Settings:
    """Build settings from the parsed options; others have their defaults.

    Raises:
        ConfigError: see the class.
    """
    return settings(**given(arguments, cast(type, settings)) | overrides)


def _printed(default: Any) -> str:
    if default is True or default in (None, "", ()):
        return "on" if default else "none"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _convert(annotation: Any, text: str) -> Any:
    try:
        return from_text(text, annotation)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# Running


class StopSignal:
    """Handles SIGINT, SIGTERM and SIGHUP from now on: raises KeyboardInterrupt.

    With `keep_first`, the first signal only sets `number`, which is 0 before, for work that stops in steps.
    """

    last: int = signal.SIGINT  # the last signal that any of these objects has handled

    def __init__(self, keep_first: bool = False) -> None:
        self.number, self._keep, self._time_s = 0, keep_first, -_SAME_SIGNAL_S
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._time_s < _SAME_SIGNAL_S:
            return
        self._time_s, keep = time.monotonic(), self._keep and not self.number
        self.number, StopSignal.last = self.number or number, number
        if not keep:
            raise KeyboardInterrupt


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run the command of this process: signals stop it, and exit codes are those of `main`."""
    StopSignal()
    for name, errors in (("stdout", "surrogateescape"), ("stderr", "backslashreplace")):
        if getattr(sys, name) is None:  # closed by the caller; a file opened later must not become the stream
            setattr(sys, name, open(os.devnull, "w"))
        # Any path can be printed; PYTHONIOENCODING may name an encoding that has no place for some.
        cast("TextIOWrapper", getattr(sys, name)).reconfigure(encoding=sys.getfilesystemencoding(), errors=errors)
    code = main()
    for number in SIGNALS:  # at its exit, Python would let them kill the process without its exit code
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def run_main(
    name: str, work: Callable[[], int], stopped: str = "stopped", out_of_memory: str = "use --device cpu"
) -> int:
    """Run a command and turn expected errors into one line on stderr, which begins with its name, and an exit code.

    `stopped` is the message after a signal, `out_of_memory` the advice when the GPU runs out of memory.

    Returns:
        The exit code: from `work` or the InputError; 1 after OSError or out of memory, 128 + N after signal N.
    """
    try:
        return work()
    except (InputError, OSError) as error:
        say(f"{name}: {error}")
        return getattr(error, "exit_code", 1)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = _extra(module)
        if extra is None:
            raise
        advice = f'run in the project folder: pip install -e ".[{extra}]"'
        say(f"{name}: this needs {module}, which is not installed; {advice}")
        return InputError.exit_code
    except KeyboardInterrupt:
        say(f"{name}: {stopped}")
        return 128 + StopSignal.last
    except MemoryError:
        say(f"{name}: out of memory; use smaller inputs or settings")
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # of torch, which need not be installed
            raise
        say(f"{name}: the GPU is out of memory; {out_of_memory}")
        return 1


def _extra(module: str) -> str | None:
    """The extra of this project that installs a module, as its metadata say."""
    from importlib.metadata import PackageNotFoundError, requires

    package = {"skimage": "scikit-image", "sklearn": "scikit-learn"}.get(module, module.replace("_", "-"))
    try:
        lines = "\n".join(requires("dcgan-completion") or ())
    except PackageNotFoundError:
        return None
    found = re.search(rf"^{re.escape(package)}\b(?!-).*extra == .(\w+)", lines, re.MULTILINE)
    return found and found[1]


# Printing


@contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """With `quiet`, drop what is printed in the block; the error that ends a command is printed outside it."""
    if not quiet:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def say(text: str) -> None:
    """Print a message for people to stderr, above a progress bar, without the control characters of names."""
    from tqdm import tqdm

    printed = (char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
    tqdm.write("".join(printed), file=sys.stderr)


def printable(path: Path) -> str:
    """Return a path as printable text on one line, even if its name contains a newline."""
    return str(path) if str(path).isprintable() else repr(str(path))


@dataclass(frozen=True)
class Progress:
    """Progress of one part of a task: `done` of `total`."""

    part: str
    done: int
    total: int


def show_progress(steps: Iterable[Any], quiet: bool = False) -> Iterator[Any]:
    """Show a progress bar for a stream of Progress and results, and yield only the results."""
    from tqdm import tqdm

    with tqdm(disable=quiet or None, bar_format="{desc} {bar} {n_fmt}/{total_fmt} {elapsed}") as bar:
        for step in steps:
            if isinstance(step, Progress):
                bar.total, bar.n = step.total, step.done
                bar.set_description(step.part)
            else:
                yield step


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise PhotoError before any work if an output file exists, unless `overwrite` is set, or cannot be written."""
    from align.files import check_target, prepare_folder  # imported late: --help writes no files

    folders = set()
    for path in paths:
        if path.exists() and not overwrite:
            raise PhotoError(f"{path} exists; pass --overwrite or choose another output")
        check_target(path)
        folders.add(next(above for above in path.parents if above.exists()))
    for folder in folders:  # missing folders are created with the first file: a later mistake leaves no empty one
        prepare_folder(folder)

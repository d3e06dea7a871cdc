"""Shared command-line code: common flags, options from a TOML file, errors as one line on stderr."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import textwrap
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from align import stop
from align.errors import InputError, PhotoError, hint
from weights import AUTO, DEFAULT, REGISTRY, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from io import TextIOWrapper

# Modules that are not part of the base installation -> the extra that has them.
_EXTRAS = dict.fromkeys(("matplotlib", "onnx", "skimage", "sklearn", "tensorboard", "torch", "torchvision"), "train")
_EXTRAS |= {"gradio": "page", "ray": "cluster", "torchmetrics": "fid", "torch_fidelity": "fid"}


def weights_name(text: str) -> str:
    """Check that a text is a name of weights or may be a file; for argparse, before anything slow is imported."""
    if text != AUTO and text not in REGISTRY and not Path(text).suffix:
        raise argparse.ArgumentTypeError(f"there are no weights {text!r}; {hint(text, (*REGISTRY, 'a weights file'))}")
    return text


def _device(text: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is None:
        raise argparse.ArgumentTypeError(
            f"there is no device {text!r}; {hint(text, ('auto', 'cpu', 'cuda', 'cuda:N'))}"
        )
    return text


_FLAGS: dict[str, dict[str, Any]] = {
    "--weights": {
        "type": weights_name,
        "default": DEFAULT,
        "help": f"weights file or name: {', '.join(REGISTRY)} (default: %(default)s)",
    },
    "--weights=auto": {
        "type": weights_name,
        "default": AUTO,
        "help": f"weights file or name: {', '.join(REGISTRY)}; auto picks by face size (default: %(default)s)",
    },
    "--device": {
        "type": _device,
        "default": "auto",
        "help": "auto (a GPU if there is one), cpu, cuda or cuda:N (default: %(default)s)",
    },
    "--engine": {
        "choices": ("processes", "ray"),
        "default": "processes",
        "help": "where the workers run: processes on this machine, or ray for the cluster at RAY_ADDRESS (if unset, "
        "Ray on this machine); all machines need the same files under the same paths (default: %(default)s)",
    },
    "--config": {"metavar": "FILE", "help": "TOML file of options, such as seed = 1; typed options take precedence"},
    "--quiet": {"action": "store_true", "help": "print only errors"},
    "--version": {"action": "version", "version": f"%(prog)s {VERSION}"},
}
_NOT_IN_FILES = ("--config", "--help", "--version")


class HelpFormatter(argparse.HelpFormatter):
    """Keeps line breaks, does not break indented lines, and appends the default to the help of each option."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(line if line.startswith(" ") else textwrap.fill(line, width) for line in lines)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        stated = "default:" in text or default == argparse.SUPPRESS or default is False
        if stated or action.required or not action.option_strings:
            return text
        return f"{text} (default: {'none' if default in (None, '') else '%(default)s'})"


class Parser(argparse.ArgumentParser):
    """Parser that reports a mistake in one line, with the most similar name; options cannot be abbreviated."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        defaults: dict[str, Any] = {"allow_abbrev": False, "formatter_class": HelpFormatter}
        super().__init__(*arguments, **defaults | settings)

    def add_late_options(self) -> None:
        """Add options that take long to import; called before anything is parsed."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; a sub-command reports unknown options itself, because only it can suggest one."""
        self.add_late_options()
        found, extra = super().parse_known_args(args, namespace)
        if extra:
            word = next((word for word in extra if word.startswith("-")), extra[0])
            if not word.startswith("-"):
                self.error(f"unexpected argument {word!r}")
            options = [option for option in self._option_string_actions if option.startswith("--")]
            name = word.partition("=")[0]
            self.error(f"there is no option {name}; {hint(name, options)}")
        return found, extra

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"there is no {str(value)!r}; {hint(str(value), names)}")


def add_flags(parser: argparse._ActionsContainer, *flags: str) -> None:
    """Add flags that commands share: --weights[=auto], --device, --engine, --config, --quiet, --version."""
    for flag in flags:
        short = {"--device": ["-d"], "--quiet": ["-q"]}.get(flag, [])
        parser.add_argument(*short, flag.partition("=")[0], **_FLAGS[flag])


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, at: int = 0) -> argparse.Namespace:
    """Parse a command line and the options of its --config file; `at` as in `expand_config`."""
    return parser.parse_args(expand_config(sys.argv[1:] if argv is None else argv, parser, at))


def expand_config(argv: Sequence[str], parser: argparse.ArgumentParser, at: int = 0) -> list[str]:
    """Replace `--config FILE` by the options in the file.

    Args:
        argv: the command line.
        parser: reports an unusable file and exits with 2.
        at: where to insert the options, 1 for after a sub-command; typed options follow and take precedence.
    Returns:
        The new command line; `seed = 1` in the file becomes --seed=1, `flip = false` becomes --no-flip.
    """
    from align.files import read_toml  # imported late: --help reads no files

    kept, given = [], []
    options = _options(parser, argv[:at])
    words = iter(argv)
    for word in words:
        name, equals, file = word.partition("=")
        if name != "--config":
            kept.append(word)
            continue
        file = file if equals else next(words, "")
        try:
            settings = read_toml(Path(file))
        except (PhotoError, ValueError) as error:
            parser.error(f"--config {file}: cannot be read as TOML: {error}")
        for key, value in settings.items():
            flag = f"--{key.replace('_', '-')}"
            if flag not in options or flag in _NOT_IN_FILES:
                parser.error(f"--config {file}: there is no option {key!r}; {hint(key, _names(options))}")
            if not isinstance(value, str | int | float):
                parser.error(f"--config {file}: {key} is {value!r}; expected a string, a number, true or false")
            if not isinstance(value, bool):
                given.append(f"{flag}={value}")
            elif value or f"--no-{flag[2:]}" in options:
                given.append(flag if value else f"--no-{flag[2:]}")
            elif options[flag].nargs != 0:
                parser.error(f"--config {file}: {key} is false; expected a value")
    return [*kept[:at], *given, *kept[at:]]


def _options(parser: argparse.ArgumentParser, commands: Sequence[str]) -> dict[str, argparse.Action]:
    """The options of a parser or of its sub-command by their flags."""
    for command in commands:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parser = action.choices.get(command, parser)
    if isinstance(parser, Parser):
        parser.add_late_options()
    return parser._option_string_actions


def _names(options: Collection[str]) -> list[str]:
    """The keys that a file of options may contain."""
    return [
        flag[2:].replace("-", "_")
        for flag in options
        if flag.startswith("--") and not flag.startswith("--no-") and flag not in _NOT_IN_FILES
    ]


def at_least(least: float, most: float = 1_000_000_000) -> Callable[[str], float]:
    """Return an argparse type for numbers from `least` to `most`: integers if `least` is one."""
    kind = type(least)

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text} is not {what} from {least} to {most}")
        return value

    return number


def integer(text: str) -> int:
    """Read an integer; for argparse, whose own message names Python's type."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from error


def number(text: str) -> float:
    """Read a number; for argparse, whose own message names Python's type."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error


def separated(count: int, kind: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    """Return an argparse type for `count` values of a type, separated by commas."""

    def values(text: str) -> tuple[float, ...]:
        found = tuple(kind(part) for part in text.split(","))
        if len(found) != count:
            raise argparse.ArgumentTypeError(f"{text} has {len(found)} numbers, expected {count} separated by commas")
        return found

    return values


def shown(path: Path) -> str:
    """Return a path as printable text on one line, even if its name contains a newline."""
    return str(path) if str(path).isprintable() else repr(str(path))


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run the command of this process: signals stop it, see `align.stop`, and exit codes are those of `main`."""
    stop.listen()
    _prepare_streams()
    code = main()
    stop.ignore()
    sys.exit(code)


def _prepare_streams() -> None:
    """Make printing safe: open closed streams, and write any path as the file system has it."""
    for name, errors in (("stdout", "surrogateescape"), ("stderr", "backslashreplace")):
        if getattr(sys, name) is None:  # closed by the caller; a file opened later must not become the stream
            setattr(sys, name, open(os.devnull, "w"))
        # PYTHONIOENCODING may name an encoding that has no place for some paths.
        cast("TextIOWrapper", getattr(sys, name)).reconfigure(encoding=sys.getfilesystemencoding(), errors=errors)


def run_main(
    name: str, work: Callable[[], int], stopped: str = "stopped", out_of_memory: str = "use --device cpu"
) -> int:
    """Run a command and turn expected errors into one line on stderr and an exit code.

    Args:
        name: name of the command, printed before each message.
        work: the command; returns its exit code.
        stopped: message after SIGINT, SIGTERM or SIGHUP.
        out_of_memory: advice when the GPU runs out of memory.
    Returns:
        The exit code: from `work` or the InputError; 1 after OSError or out of memory, 128 + N after signal N.
    """
    try:
        with stop.raising():
            return work()
    except (InputError, OSError) as error:
        say(f"{name}: {error}")
        return getattr(error, "exit_code", 1)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS:
            raise
        advice = f'run in the project folder: pip install -e ".[{_EXTRAS[module]}]"'
        say(f"{name}: this needs {module}, which is not installed; {advice}")
        return InputError.exit_code
    except KeyboardInterrupt as error:
        say(f"{name}: {stopped}")
        return 128 + getattr(error, "number", signal.SIGINT)
    except MemoryError:
        say(f"{name}: out of memory; use smaller inputs or settings")
        return 1
    except RuntimeError as error:
        torch = sys.modules.get("torch")  # importing torch here would slow down commands without it
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        say(f"{name}: the GPU is out of memory; {out_of_memory}")
        return 1


@contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """With `quiet`, drop what is printed in the block; the error that ends a command is printed outside it."""
    if not quiet:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def say(text: str) -> None:
    """Print a message for people to stderr; stdout is for results.

    Characters that would control the terminal, which names in files can contain, are escaped.
    """
    printed = (char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
    print("".join(printed), file=sys.stderr)


def show_progress(steps: Iterable[Any], kind: type, quiet: bool = False) -> Iterator[Any]:
    """Show a progress bar for a stream of progress reports and results, and yield only the results.

    Args:
        steps: the stream.
        kind: type of the progress reports, with attributes `part`, `done` and `total`.
        quiet: show no bar.
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
    """Check before any work that output files can be written, and exist only if `overwrite` is set.

    Raises:
        PhotoError: one of the paths exists or is no regular file, or its folder cannot be written to.
    """
    from align.files import check_target, prepare_folder  # imported late: --help writes no files

    paths = list(paths)
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise PhotoError(f"{existing[0]} exists; pass --overwrite or choose another output")
    for path in paths:
        check_target(path)
    for folder in {path.parent for path in paths}:
        # Created by the first file, so that a later mistake leaves no empty folder.
        prepare_folder(next(above for above in (folder, *folder.parents) if above.exists()))

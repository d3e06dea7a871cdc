"""The command line: options from settings classes and files, mistakes, errors, signals, progress."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch

from align.cli import (
    Parser,
    Progress,
    add_common,
    add_settings,
    given,
    printable,
    run_main,
    say,
    settings_from,
    show_progress,
)
from align.config import AlignOptions
from align.errors import InputError, PhotoError, WorkerError
from align.settings import Option, Range, check

Coordinate = Annotated[float, Range(-1000, 1000)]


def user(text: str) -> str:
    if ":" not in text:
        raise InputError("expected USER:PASS")
    return text


@dataclass(frozen=True)
class Options:
    photos: Annotated[tuple[Path, ...], "photos", Option(positional=True)]
    output: Annotated[Path, "where to", Option(short="-o", metavar="FOLDER")]
    seed: Annotated[int, Range(0, 9), "seed"] = 0
    weight: Annotated[Annotated[float, Range(0, 1)] | None, "100 % of it"] = None
    mask: Annotated[Literal["eyes", "mouth"], "what to fill"] = "eyes"
    kernel: Annotated[Literal[4, 5], "side (default: four)"] = 4
    box: Annotated[tuple[Coordinate, Coordinate] | None, "box", Option(metavar="X,Y")] = None
    holes: Annotated[tuple[Literal["eyes", "nose"], ...], "holes"] = ("eyes", "nose")
    strip: Annotated[bool, "strip"] = False
    flip: Annotated[bool, "flip"] = True
    auth: Annotated[str, "login", Option(parse=user)] = ""
    nested: AlignOptions = field(default_factory=AlignOptions)

    def __post_init__(self) -> None:
        check(self)


@pytest.fixture
def parser() -> Parser:
    parser = Parser("command", description="first line\n  command x" + 60 * " y", epilog="example: %(prog)s x")
    run = parser.add_subparsers(metavar="COMMAND").add_parser("run")
    add_settings(run, Options, skip=("nothing",))
    add_common(run, verbose="more")
    return parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--seed 9 --weight 1 --kernel 5", {"seed": 9, "weight": 1.0, "kernel": 5}),
        ("--box=-1,2.5 --holes nose,eyes", {"box": (-1.0, 2.5), "holes": ("nose", "eyes")}),
        ("--holes nose eyes --strip --no-flip", {"holes": ("nose", "eyes"), "strip": True, "flip": False}),
        ("--auth a:b --flip --mask eyes", {"auth": "a:b", "flip": True, "mask": "eyes"}),
    ],
)
def test_options_become_settings_and_absent_ones_keep_their_defaults(
    parser: Parser, words: str, expected: dict[str, Any]
) -> None:
    required = {"photos": (Path("a,b"), Path("c")), "output": Path("out")}
    arguments = parser.parse_args(["run", "a,b", "c", "-o", "out", *words.split()])
    assert given(arguments, Options) == required | expected
    assert settings_from(arguments, Options, seed=5) == Options(**required | expected | {"seed": 5})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rnu", "command: argument COMMAND: there is no 'rnu'; did you mean 'run'?"),
        ("run a --mask moth", "command run: argument --mask: there is no 'moth'; did you mean 'mouth'?"),
        ("run a --kernel 6", "command run: argument --kernel: there is no '6'; expected one of 4, 5"),
        ("run a --holes eyes,x", "command run: argument --holes: there is no 'x'; expected one of eyes, nose"),
        ("run a -o b --stri", "command run: there is no option --stri; did you mean '--strip'?"),
        ("run a -o b --masc=eyes", "command run: there is no option --masc; did you mean '--mask'?"),
        ("run a -o b c", "command run: unexpected argument 'c'"),
        ("run a --seed 1.5", "command run: argument --seed: 1.5 is not an integer from 0 to 9"),
        ("run a --seed 10", "command run: argument --seed: 10 is not an integer from 0 to 9"),
        ("run a --weight nan", "command run: argument --weight: nan is not a number from 0 to 1"),
        ("run a --box 1", "command run: argument --box: 1 has 1 numbers, expected 2 separated by commas"),
        ("run a --box 1,x", "command run: argument --box: x is not a number from -1000 to 1000"),
        ("run a --auth ab", "command run: argument --auth: expected USER:PASS"),
        ("run", "command run: the following arguments are required: photos, -o/--output"),
    ],
)
def test_a_mistake_is_one_line_with_a_suggestion(
    parser: Parser, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"{message} (see --help)\n")


def test_the_help_keeps_lines_and_indents_and_states_defaults(
    parser: Parser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = parser.format_help().splitlines()
    assert "first line" in lines and "example: command x" in lines
    assert len(next(line for line in lines if line.startswith("  command"))) > 80
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split()) + " "
    for expected in (
        "-o FOLDER, --output FOLDER where to --seed",
        "seed (default: 0) ",
        "100 % of it (default: none) ",
        "--mask {eyes,mouth} what to fill (default: eyes) ",
        "side (default: four) ",
        "--box X,Y box (default: none) ",
        "holes (default: eyes,nose) ",
        "--strip strip --flip, --no-flip flip (default: on) ",
    ):
        assert expected in text


def test_typed_options_take_precedence_over_those_of_a_file(parser: Parser, tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('\ufeffseed = 3\noutput = "a b"\nflip = false\nstrip = false\n', encoding="utf-8")
    second.write_text("seed = 4\nstrip = true\n")
    expected = Options((Path("x"),), Path("a b"), 3, flip=False)
    for words in (["--config", str(first), "x"], ["x", f"--config={first}"]):
        assert settings_from(parser.parse_args(["run", *words]), Options) == expected
    words = ["run", "--seed", "5", "--config", str(first), f"--config={second}", "--", "x"]
    assert settings_from(parser.parse_args(words), Options) == Options(
        (Path("x"),), Path("a b"), 5, flip=False, strip=True
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"no toml", "cannot be read as TOML"),
        (b"\xff", "cannot be read as TOML"),
        (b"a = " + b"[" * 10**5, "cannot be read as TOML"),
        (b"#" * 2**21, "too large"),
        (b"seed = [1]", "seed is [1]; expected a string"),
        (b"sede = 1", "there is no option 'sede'; did you mean 'seed'?"),
        (b"config = 'other.toml'", "there is no option 'config'"),
        (b"help = true", "there is no option 'help'"),
        (b"photos = 'a'", "there is no option 'photos'"),
        (b"seed = false", "seed is false; expected a value"),
        (b"seed = 10", "argument --seed: 10 is not an integer from 0 to 9"),
    ],
)
def test_an_unusable_config_file_is_a_usage_error(
    parser: Parser, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    file = tmp_path / "settings.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["run", "a", "-o", "b", "--config", str(file)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1


def test_messages_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("ä\x1b[31m\r\u202e\udcff\nb")
    assert capsys.readouterr().err == "ä\\x1b[31m\\r\\u202e\\udcff\nb\n"
    assert printable(Path("ä b.png")) == "ä b.png" and "\n" not in printable(Path("a\nb.png"))


class OddError(InputError):
    exit_code = 7


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PhotoError("no photo; give one"), 2, "no photo; give one"),
        (WorkerError("died"), 1, "died"),
        (OddError("odd"), 7, "odd"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "stopped; resume"),
        (MemoryError(), 1, "out of memory; use smaller inputs or settings"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "the GPU is out of memory; use less"),
        *(
            (
                ModuleNotFoundError(name=f"{module}.sub"),
                2,
                f'this needs {module}, which is not installed; run in the project folder: pip install -e ".[{extra}]"',
            )
            for module, extra in (("torch", "train"), ("skimage", "train"), ("gradio", "page"))
        ),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__) if isinstance(value, BaseException) else "",
)
def test_an_expected_error_becomes_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    def work() -> int:
        raise error

    assert run_main("command", work, "stopped; resume", "use less") == code
    assert capsys.readouterr() == ("", f"command: {message}\n")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ModuleNotFoundError(name="own")])
def test_run_main_passes_on_the_exit_code_and_unexpected_errors(error: Exception) -> None:
    def work() -> int:
        raise error

    assert run_main("command", lambda: 3) == 3
    with pytest.raises(type(error)):
        run_main("command", work)


def test_show_progress_yields_only_the_results() -> None:
    assert list(show_progress([Progress("a", 0, 2), 5, Progress("a", 2, 2), 6], quiet=True)) == [5, 6]


# Signals

COMMAND = """
import sys, time
from pathlib import Path
from align.cli import StopSignal, run_main, run_program
from align.files import atomic_write

def work():
    {body}

run_program(lambda: run_main("command", work))
"""
WRITING = """
    with atomic_write(Path("out")) as file:
        file.write(b"half")
        print("ready", flush=True)
        time.sleep(60)
"""
IN_STEPS = """
    stop = StopSignal(keep_first=True)
    print("ready", flush=True)
    while not stop.number or sys.argv[1:]:
        time.sleep(0.01)
    Path("saved").touch()
    return 128 + stop.number
"""


def start(folder: Path, body: str, *words: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMMAND.format(body=body.strip()), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_one_line_and_leaves_no_half_file(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, WRITING)
    for _ in range(3):  # as when a launcher repeats it
        process.send_signal(number)
    assert process.communicate(timeout=60) == ("", "command: stopped\n")
    assert process.returncode == 128 + number and not list(tmp_path.iterdir())


def test_work_in_steps_ends_with_its_step_and_a_later_signal_stops_it_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, IN_STEPS)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 143 and (tmp_path / "saved").exists()
    process = start(tmp_path, IN_STEPS, "never ends")
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert process.communicate() == ("", "command: stopped\n") and process.returncode == 130

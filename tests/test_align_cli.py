"""Shared command-line code: options from a file, types, errors, progress."""

import argparse
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from align.cli import Parser, at_least, expand_config, integer, number, run_main, say, show_progress, shown
from align.errors import InputError, PhotoError, WorkerError


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out-folder")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction)
    return parser


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_typed_options_take_precedence_over_those_of_a_file(file: Path, parser: argparse.ArgumentParser) -> None:
    file.write_text('seed = -3\nout_folder = "a b"\nflip = false\n')
    for words in (["--config", str(file), "x"], ["x", f"--config={file}"]):
        parsed = parser.parse_args(expand_config(words, parser))
        assert parsed == argparse.Namespace(photos=["x"], seed=-3, out_folder="a b", flip=False)
    parsed = parser.parse_args(expand_config(["--seed", "5", "--config", str(file), "x"], parser))
    assert parsed.seed == 5


def test_options_are_inserted_after_a_sub_command(file: Path, parser: argparse.ArgumentParser) -> None:
    file.write_text("seed = 1")
    assert expand_config(["train", "x", "--config", str(file)], parser, at=1) == ["train", "--seed=1", "x"]


@pytest.mark.parametrize(
    ("content", "said"),
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
    ],
)
def test_an_unusable_config_file_is_a_usage_error(
    file: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        expand_config(["--config", str(file)], parser)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert str(file) in error and said in error


def test_a_pipe_is_no_config_file(
    file: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(file)
    with pytest.raises(SystemExit):
        expand_config(["--config", str(file)], parser)
    assert "not a regular file" in capsys.readouterr().err


def test_a_config_file_may_turn_options_off_and_have_a_byte_order_mark(
    file: Path, parser: argparse.ArgumentParser
) -> None:
    parser.add_argument("--strip", action="store_true")
    file.write_text("\ufeffstrip = false\nflip = false\n", encoding="utf-8")
    assert expand_config(["x", "--config", str(file)], parser) == ["--no-flip", "x"]
    file.write_text("strip = true\n")
    assert expand_config(["x", "--config", str(file)], parser) == ["--strip", "x"]


def test_at_least_accepts_both_ends_and_nothing_beyond() -> None:
    assert (at_least(1)("1"), at_least(1, 5)("5"), at_least(0.0, 1.0)("1")) == (1, 5, 1.0)
    for text in ("0", "6", "1.5", "1e99", "nan", "inf", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not an integer from 1 to 5"):
            at_least(1, 5)(text)
    for text in ("-1", "1.1", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not a number from 0.0 to 1.0"):
            at_least(0.0, 1.0)(text)


@pytest.fixture
def command() -> Parser:
    parser = Parser(
        "command", description="first line\n  command x" + 60 * " y" + "\n" + 60 * "word ", epilog="example: %(prog)s x"
    )
    run = parser.add_subparsers(metavar="COMMAND").add_parser("run")
    run.add_argument("photo", help="a photo")
    run.add_argument("--mask", choices=("eyes", "mouth"), default="eyes", help="what to fill")
    run.add_argument("--overwrite", action="store_true", help="replace files")
    run.add_argument("--seed", type=integer, help="seed")
    run.add_argument("--weight", type=number, help="weight")
    run.add_argument("--jobs", type=at_least(1), help="workers")
    return parser


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rnu", "command: argument COMMAND: there is no 'rnu'; did you mean 'run'?"),
        ("run a --mask moth", "command run: argument --mask: there is no 'moth'; did you mean 'mouth'?"),
        ("run a --mask x", "command run: argument --mask: there is no 'x'; expected one of eyes, mouth"),
        ("run a --overwrit", "command run: there is no option --overwrit; did you mean '--overwrite'?"),
        ("run a --masc=eyes", "command run: there is no option --masc; did you mean '--mask'?"),
        ("run a b", "command run: unexpected argument 'b'"),
        ("run a --seed 1.5", "command run: argument --seed: '1.5' is not an integer"),
        ("run a --weight x", "command run: argument --weight: 'x' is not a number"),
        ("run a --jobs x", "command run: argument --jobs: x is not an integer from 1 to 1000000000"),
        ("run", "command run: the following arguments are required: photo"),
    ],
)
def test_a_mistake_is_one_line_with_a_suggestion(
    command: Parser, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse_args(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"{said} (see --help)\n")


def test_the_help_keeps_lines_and_indents_and_states_defaults(
    command: Parser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = command.format_help().splitlines()
    assert "first line" in lines and "example: command x" in lines
    [example] = [line for line in lines if line.startswith("  command")]
    assert len(example) > 80 and max(len(line) for line in lines if line != example) <= 80
    with pytest.raises(SystemExit):
        command.parse_args(["run", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for text in ("what to fill (default: eyes)", "seed (default: none)", "replace files", "a photo"):
        assert text in told
    assert "replace files (default" not in told and "a photo (default" not in told


def test_a_name_with_a_newline_is_shown_on_one_line() -> None:
    assert shown(Path("ä b.png")) == "ä b.png"
    assert "\n" not in shown(Path("a\nb.png"))


class OddError(InputError):
    exit_code = 7


def test_messages_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("ä\x1b[31m\r\u202e\udcff\nb")
    assert capsys.readouterr().err == "ä\\x1b[31m\\r\\u202e\\udcff\nb\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PhotoError("no photo; give one"), 2, "command: no photo; give one"),
        (WorkerError("died"), 1, "command: died"),
        (OddError("odd"), 7, "command: odd"),
        (OSError(28, "No space left on device"), 1, "command: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "command: stopped; resume"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "command: the GPU is out of memory; use less"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_expected_error_becomes_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    def work() -> int:
        raise error

    assert run_main("command", work, "stopped; resume", "use less") == code
    assert capsys.readouterr() == ("", f"{message}\n")


def test_run_main_passes_on_the_exit_code_and_unexpected_errors() -> None:
    assert run_main("command", lambda: 3) == 3

    def work() -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_main("command", work)


def test_show_progress_yields_only_the_results() -> None:
    steps = [SimpleNamespace(part="a", done=0, total=2), 5, SimpleNamespace(part="a", done=2, total=2), 6]
    assert list(show_progress(steps, SimpleNamespace, quiet=True)) == [5, 6]

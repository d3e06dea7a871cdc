"""What all command lines share."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from align.cli import at_least, expand_config, run_main, show_progress, shown
from align.errors import InputError, PhotoError, WorkerError


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out-folder")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction)
    return parser


def test_options_from_a_file_lose_against_typed_ones(tmp_path: Path, parser: argparse.ArgumentParser) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('seed = -3\nout_folder = "a b"\nflip = false\n')
    for words in (["--config", str(file), "x"], ["x", f"--config={file}"]):
        parsed = parser.parse_args(expand_config(words, parser))
        assert parsed == argparse.Namespace(photos=["x"], seed=-3, out_folder="a b", flip=False)
    parsed = parser.parse_args(expand_config(["--seed", "5", "--config", str(file), "x"], parser))
    assert parsed.seed == 5


def test_options_go_after_a_sub_command(tmp_path: Path, parser: argparse.ArgumentParser) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("seed = 1")
    assert expand_config(["train", "x", "--config", str(file)], parser, at=1) == ["train", "--seed=1", "x"]


@pytest.mark.parametrize("content", [None, "no toml", "seed = [1]"])
def test_a_file_that_cannot_be_used(
    tmp_path: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "settings.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as ended:
        expand_config(["--config", str(file)], parser)
    assert ended.value.code == 2
    assert str(file) in capsys.readouterr().err


def test_at_least() -> None:
    assert at_least(1)("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="0 is less than 1"):
        at_least(1)("0")


def test_fault_35_a_name_with_a_newline_stays_on_one_line() -> None:
    assert shown(Path("ä b.png")) == "ä b.png"
    assert "\n" not in shown(Path("a\nb.png"))


class _OddError(InputError):
    exit_code = 7


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PhotoError("no photo; give one"), 2, "command: no photo; give one"),
        (WorkerError("died"), 1, "command: died"),
        (_OddError("odd"), 7, "command: odd"),
        (OSError(28, "No space left on device"), 1, "command: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "command: stopped; go on"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "command: the GPU's memory is full; lower it"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def work() -> int:
        raise error

    assert run_main("command", work, "stopped; go on", "lower it") == code
    assert capsys.readouterr() == ("", f"{said}\n")


def test_a_command_that_ends_well_keeps_its_exit_code_and_a_fault_of_the_program_is_raised() -> None:
    assert run_main("command", lambda: 3) == 3

    def work() -> int:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        run_main("command", work)


def test_progress_is_shown_and_the_results_are_passed_on() -> None:
    steps = [SimpleNamespace(part="a", done=0, total=2), 5, SimpleNamespace(part="a", done=2, total=2), 6]
    assert list(show_progress(steps, SimpleNamespace, quiet=True)) == [5, 6]

"""What all command lines share."""

import argparse
from pathlib import Path

import pytest

from align.cli import at_least, expand_config, shown


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

"""The installed command: it runs what python -m runs."""

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pictures import FACE, save

from align.cli import Parser
from completion.__main__ import main as complete
from ui import command

FORMS = {
    "complete": "completion",
    "align": "align",
    "train": "dcgan train",
    "encode": "dcgan encode",
    "export": "dcgan export",
    "sample": "dcgan sample",
    "evaluate": "dcgan evaluate",
    "explore": "dcgan explore",
    "benchmark": "completion.benchmark",
    "ui": "ui",
}


def told(capsys: pytest.CaptureFixture[str], main: object, words: list[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)  # type: ignore[operator]
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "form"), FORMS.items())
def test_a_command_has_the_help_of_its_package(
    name: str, form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # names of different lengths break lines elsewhere
    package, *words = form.split()
    expected = told(capsys, import_module(f"{package}.__main__").main, [*words, "--help"])
    found = told(capsys, command.main, [name, "--help"])
    assert found == expected.replace(f"python -m {form}", f"dcgan-completion {name}")


def leaves(parser: Parser) -> list[Parser]:
    """The parsers of all commands below a parser."""
    if parser._subparsers is None:
        return [parser]
    return [leaf for each in command.sub_commands(parser).values() for leaf in leaves(each)]


@pytest.mark.parametrize("package", ["align", "completion", "completion.benchmark", "dcgan", "ui", "ui.benchmark"])
def test_every_command_takes_a_config_file_and_every_option_has_a_help(package: str) -> None:
    for parser in leaves(import_module(package if package == "ui.benchmark" else f"{package}.__main__").build_parser()):
        assert "--config" in parser._option_string_actions, parser.prog
        assert all(action.help for action in parser._actions), parser.prog


def test_all_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert FORMS.keys() == command.COMMANDS.keys()
    listed = told(capsys, command.main, ["--help"])
    assert command.main([]) == 0 and capsys.readouterr().out == listed
    assert all(f"\n    {name} " in listed for name in FORMS)


def test_a_command_does_the_same(tmp_path: Path, small_weights_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = save(tmp_path / "a.png", FACE)
    words = ["--mask", "center", "--weights", str(small_weights_file), "--device", "cpu", str(photo), "--output"]
    assert command.main(["complete", *words, str(tmp_path / "b.png")]) == 0
    assert complete([*words, str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert command.main(["complete", *words, str(tmp_path / "b.tiff")]) == 2
    assert "unsupported suffix" in capsys.readouterr().err


def test_an_unknown_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["trian"])
    assert ended.value.code == 2
    assert "there is no 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_it_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, target)] = project["scripts"].items()
    assert EntryPoint(name, target, "console_scripts").load() is command.run and name == "dcgan-completion"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from ui.command import main; main([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cv2", "numpy", "onnxruntime", "torch"} & set(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_completion_script_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in FORMS)
    assert "solver" in script and "thorough" in script


def test_bash_completes_commands_options_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--print-completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    for words, expected in (("enc", "encode"), ("complete --sol", "--solver"), ("complete --solver tho", "thorough")):
        typed = ["dcgan-completion", *words.split()]
        code = f"source ./script; COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _shtab_dcgan_completion"
        done = subprocess.run(
            ["bash", "-c", code + "; echo ${COMPREPLY[@]}"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [expected]

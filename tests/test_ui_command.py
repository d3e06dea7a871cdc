"""The installed command: it runs what python -m runs."""

import subprocess
import tomllib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pictures import FACE, save

from align.cli import Parser
from completion.__main__ import main as complete
from ui import command

ROOT = Path(__file__).parents[1]
# The module and the words of python -m for each command.
FORMS = {name: (module.removesuffix(".__main__"), []) for name, module in command._MODULES.items()}
FORMS |= {name: ("dcgan", [name]) for name in command.parsers() if name not in FORMS}


def test_every_program_of_the_packages_has_a_command() -> None:
    programs = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/__main__.py")}
    programs = {".".join(path.parts) for path in programs if ".venv" not in path.parts}
    assert programs == {module for module, _ in FORMS.values()} - {"ui.benchmark"}


@pytest.mark.parametrize("name", FORMS)
def test_a_command_has_the_help_of_its_package(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # names of different lengths break lines elsewhere
    module, words = FORMS[name]
    run = import_module(module if module == "ui.benchmark" else f"{module}.__main__").main
    outputs = []
    for main, typed in ((run, [*words, "--help"]), (command.main, [name, "--help"])):
        with pytest.raises(SystemExit) as ended:
            main(typed)
        assert ended.value.code == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[1] == outputs[0].replace(" ".join(["python -m", module, *words]), f"dcgan-completion {name}")


def leaves(parser: Parser) -> list[Parser]:
    """The parsers of all commands below a parser."""
    return [leaf for each in parser.commands.values() for leaf in leaves(each)] or [parser]


def test_every_command_takes_a_config_file_and_every_option_has_a_help() -> None:
    for parser in (leaf for each in command.parsers().values() for leaf in leaves(each)):
        assert "--config" in parser._option_string_actions, parser.prog
        assert all(action.help for action in parser._actions), parser.prog


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str], refused: Callable[..., str]) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n    {name} " in listed for name in FORMS)
    assert "there is no 'trian'; did you mean 'train'?" in refused(command.main, ["trian"])


def test_a_command_does_the_same(tmp_path: Path, small_weights_file: Path, refused: Callable[..., str]) -> None:
    words = ["--aligned", "--mask", "center", "--weights", str(small_weights_file), "--device", "cpu"]
    words += [str(save(tmp_path / "a.png", FACE)), "--output"]
    assert command.main(["complete", *words, str(tmp_path / "b.png")]) == 0
    assert complete([*words, str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert "unsupported suffix" in refused(command.main, ["complete", *words, str(tmp_path / "b.heic")])


def test_it_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, target)] = project["scripts"].items()
    assert EntryPoint(name, target, "console_scripts").load() is command.run and name == "dcgan-completion"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_completion_script_knows_commands_and_options(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*FORMS, "solver", "poisson"))
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        subprocess.run(["bash", "-n", "script"], cwd=tmp_path, check=True)

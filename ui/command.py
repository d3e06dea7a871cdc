"""The installed command: dcgan-completion COMMAND runs the same as python -m PACKAGE."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from align.cli import Parser, add_flags, run_program

_NAME = "dcgan-completion"
# Command -> package, and its help. dcgan has several commands, under the same names.
COMMANDS = {
    "complete": ("completion", "fill holes in photos of faces"),
    "align": ("align", "find the faces in photos and cut them out"),
    "train": ("dcgan", "train a generator and a discriminator on aligned faces"),
    "encode": ("dcgan", "train the encoder that makes completion fast"),
    "export": ("dcgan", "write the weights of a training run to one file"),
    "sample": ("dcgan", "generate faces"),
    "evaluate": ("dcgan", "measure a generator"),
    "explore": ("dcgan", "run an experiment with trained networks"),
    "benchmark": ("completion.benchmark", "compare completion methods"),
    "ui": ("ui", "serve the page"),
}


def build_parser() -> tuple[Parser, Any]:
    """Build the parser that lists the commands; also its action of sub-commands, whose own options are absent."""
    parser = Parser(_NAME, description="Fill holes in photos of faces with a DCGAN, and train such networks.")
    shells = ("bash", "zsh", "tcsh")
    parser.add_argument("--print-completion", choices=shells, help="print a script that completes commands in a shell")
    add_flags(parser, "--version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser, commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in COMMANDS:
        package, _ = COMMANDS[words[0]]
        command = import_module(f"{package}.__main__")
        code: int = command.main(words, _NAME) if package == "dcgan" else command.main(words[1:], f"{_NAME} {words[0]}")
        return code
    parser, _ = build_parser()
    if shell := parser.parse_args(words).print_completion:
        print(_completion(shell))
    else:
        parser.print_help()
    return 0


def run() -> None:
    """Entry point of the installed command."""
    run_program(main)


def _completion(shell: str) -> str:
    """Return the completion script of a shell, with the options of every command."""
    import shtab

    parser, commands = build_parser()
    for name, (package, _) in COMMANDS.items():
        build = import_module(f"{package}.__main__").build_parser
        commands.choices[name] = sub_commands(build(_NAME))[name] if package == "dcgan" else build(f"{_NAME} {name}")
    for each in [parser, *commands.choices.values()]:
        for action in each._actions:
            if action.type is Path:
                action.complete = shtab.FILE
    return shtab.complete(parser, shell)


def sub_commands(parser: Parser) -> dict[str, Parser]:
    """Return the sub-commands of a parser by name."""
    assert parser._subparsers is not None
    [action] = parser._subparsers._group_actions
    assert isinstance(action.choices, dict)
    return action.choices

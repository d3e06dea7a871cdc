"""The installed command: dcgan-completion COMMAND runs the same as python -m PACKAGE."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from align.cli import Parser, run_program
from weights import VERSION

_NAME = "dcgan-completion"
# Command -> module. The commands of dcgan have the same names here.
_MODULES = {
    "complete": "completion.__main__",
    "align": "align.__main__",
    "benchmark": "completion.benchmark.__main__",
    "ui": "ui.__main__",
    "benchmark-ui": "ui.benchmark",
}
_DCGAN = "dcgan.__main__"


def parsers() -> dict[str, Parser]:
    """Return the parser of every command."""
    found = {name: import_module(module).build_parser(f"{_NAME} {name}") for name, module in _MODULES.items()}
    return found | import_module(_DCGAN).build_parser(_NAME).commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = words[0] if words else ""
    code: int
    if name in _MODULES:
        code = import_module(_MODULES[name]).main(words[1:], f"{_NAME} {name}")
        return code
    if name[:1] not in ("", "-") and name in import_module(_DCGAN).build_parser(_NAME).commands:
        code = import_module(_DCGAN).main(words, _NAME)
        return code

    parser = Parser(_NAME, description="Fill holes in photos of faces with a DCGAN, and train such networks.")
    shells = ("bash", "zsh", "tcsh")
    parser.add_argument("--print-completion", choices=shells, help="print a script that completes commands in a shell")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, each in parsers().items():
        first = (each.description or "").split(". ")[0].rstrip(".")
        commands.add_parser(name, help=first[0].lower() + first[1:])
        commands.choices[name] = each
    shell = parser.parse_args(words).print_completion
    if not shell:
        parser.print_help()
    else:
        import shtab

        for each in parser.commands.values():
            for action in each._actions:
                if action.type is Path:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell))
    return 0


def run() -> None:
    """Entry point of the installed command."""
    run_program(main)

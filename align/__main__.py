"""Cut the faces out of photos: `python -m align raw/ aligned/`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import Parser, add_common, add_settings, printable, run_main, run_program, say, settings_from
from align.config import AlignOptions
from align.errors import PhotoError

if TYPE_CHECKING:
    from align.folder import AlignResult

_EPILOG = """\
example:
  %(prog)s raw/ aligned/ --faces all --missing no-face/

aligned/faces.jsonl gets a record of every crop: source and its SHA-256, landmarks, matrix.

exit codes:
  0 success, 1 failure, 2 wrong usage or unusable input, 3 some photos failed,
  128 + N stopped by signal N, such as 130 by Ctrl+C; run the same command again to resume
"""


def build_parser(program: str = "python -m align") -> Parser:
    """Build the argument parser."""
    parser = Parser(
        program, description="Find the faces in photos and cut them out upright and at one size.", epilog=_EPILOG
    )
    parser.add_argument("input", type=Path, help="a photo, or a folder of photos with its sub-folders")
    parser.add_argument("output", type=Path, help="folder for the crops")
    add_settings(parser, AlignOptions)
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="JSON file for one record per photo")
    add_common(
        parser,
        verbose="list all photos (default: those without a crop)",
        quiet="show only errors: no photos, progress or summary",
    )
    return parser


def main(argv: Sequence[str] | None = None, program: str = "python -m align") -> int:
    """Run the command and return its exit code, see --help."""
    arguments = build_parser(program).parse_args(argv)
    return run_main("align", lambda: _align(arguments), "stopped; run the same command again to resume")


def _align(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from align.files import list_photos, write_json
    from align.folder import MANIFEST, align_folder

    if not arguments.input.exists():
        raise PhotoError(f"{arguments.input} does not exist; expected a photo or a folder of photos")
    photos = list_photos(arguments.input) if arguments.input.is_dir() else [arguments.input]
    if not photos:
        raise PhotoError(f"{arguments.input} contains no photos")

    options = settings_from(arguments, AlignOptions)
    results: list[AlignResult] = []
    try:
        progress = align_folder(photos, arguments.input, arguments.output, options, arguments.report)
        for result in tqdm(progress, total=len(photos), unit="photo", disable=arguments.quiet or None):
            results.append(result)
            if arguments.verbose or not (arguments.quiet or result.status in ("aligned", "skipped")):
                reason = result.reason.replace("upsample more", "give a higher --upsample")
                words = [printable(result.photo), result.status, reason]
                say(": ".join(filter(None, words)).replace("\n", "\\n"))
    finally:
        if arguments.report and results:
            write_json(arguments.report, [_record(result) for result in results])
    count = Counter(result.status for result in results)
    if not arguments.quiet:
        crops = sum(len(result.crops) for result in results)
        statuses = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
        say(f"{len(results)} photos: {statuses}; {crops} crops written")
        print(arguments.output / MANIFEST)
    return 3 if count["failed"] else 0


def _record(result: AlignResult) -> dict[str, object]:
    return vars(result) | {"photo": str(result.photo), "crops": [str(crop) for crop in result.crops]}


if __name__ == "__main__":
    run_program(main)

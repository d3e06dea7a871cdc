"""Cut the faces out of photos: `python -m align raw/ aligned/`."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, so that signals are handled from here on
    from align.stop import listen

    listen()

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from align.cli import Parser, add_flags, at_least, parse, run_main, run_program, say, shown
from align.config import AlignOptions, Faces
from align.errors import PhotoError
from align.template import TEMPLATES

if TYPE_CHECKING:
    from align.folder import Result

_EPILOG = """\
example:
  %(prog)s raw/ aligned/ --faces all --missing no-face/

aligned/faces.jsonl gets a record of every crop: source and its SHA-256, landmarks, matrix.

exit codes:
  0 success, 1 failure, 2 wrong usage or unusable input, 3 some photos failed or have no face,
  128 + N stopped by signal N, such as 130 by Ctrl+C; run the same command again to resume
"""


def build_parser(program: str = "python -m align") -> Parser:
    """Return the parser; defaults come from AlignOptions."""
    defaults = AlignOptions()
    parser = Parser(
        program, description="Find the faces in photos and cut them out upright and at one size.", epilog=_EPILOG
    )
    add = parser.add_argument
    add("input", type=Path, help="a photo, or a folder of photos with its sub-folders")
    add("output", type=Path, help="folder for the crops")
    add(
        "--template",
        choices=sorted(TEMPLATES),
        default=defaults.template,
        help="alignment template: the target positions of the landmarks (default: %(default)s)",
    )
    add("--size", type=at_least(1), default=defaults.size, help="side of the crops in pixels (default: %(default)s)")
    add(
        "--faces",
        choices=get_args(Faces),
        default=defaults.faces,
        help="which faces to cut out: the largest of each photo, all of them, or the only one; single skips photos "
        "with several faces (default: %(default)s)",
    )
    add(
        "--upsample",
        type=at_least(0),
        default=defaults.upsample,
        metavar="N",
        help="how often to double a photo's size while no face is found with confidence (default: %(default)s)",
    )
    add("--missing", type=Path, metavar="FOLDER", help="folder for copies of the photos without a face (default: none)")
    add("--overwrite", action="store_true", help="align photos again whose crops exist (default: skip them)")
    add("--jobs", type=at_least(1), default=defaults.jobs, help="number of workers (default: all cores, %(default)s)")
    add_flags(parser, "--engine")
    add("--report", type=Path, metavar="FILE.json", help="JSON file for one record per photo (default: none)")
    add_flags(parser, "--config")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="list all photos (default: those without a crop)")
    volume.add_argument("-q", "--quiet", action="store_true", help="show only errors: no photos, progress or summary")
    add_flags(parser, "--version")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "python -m align") -> int:
    """Run the command and return its exit code, see --help."""
    arguments = parse(build_parser(program), argv)
    return run_main("align", lambda: _align(arguments), "stopped; run the same command again to resume")


def _align(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from align.files import list_photos, write_json
    from align.folder import RECORDS, align_folder

    if not arguments.input.exists():
        raise PhotoError(f"{arguments.input} does not exist; expected a photo or a folder of photos")
    photos = list_photos(arguments.input) if arguments.input.is_dir() else [arguments.input]
    if not photos:
        raise PhotoError(f"{arguments.input} contains no photos")

    options = AlignOptions(**{field.name: getattr(arguments, field.name) for field in fields(AlignOptions)})
    results: list[Result] = []
    try:
        progress = align_folder(photos, arguments.input, arguments.output, options, arguments.report)
        for result in tqdm(progress, total=len(photos), unit="photo", disable=arguments.quiet or None):
            results.append(result)
            if arguments.verbose or not (arguments.quiet or result.status in ("aligned", "skipped")):
                words = [shown(result.photo), result.status, result.reason]
                tqdm.write(": ".join(filter(None, words)), file=sys.stderr)
    finally:
        if arguments.report and results:
            write_json(arguments.report, [_record(result) for result in results])
    count = Counter(result.status for result in results)
    if not arguments.quiet:
        crops = sum(len(result.crops) for result in results)
        statuses = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
        say(f"{len(results)} photos: {statuses}; {crops} crops written")
        print(arguments.output / RECORDS)
    return 3 if count["failed"] or count["no face"] else 0


def _record(result: Result) -> dict[str, object]:
    return vars(result) | {"photo": str(result.photo), "crops": [str(crop) for crop in result.crops]}


if __name__ == "__main__":
    run_program(main)

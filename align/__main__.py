"""Cut the faces out of photos: `python -m align raw/ aligned/`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import add_flags, at_least, parse, run_main, shown
from align.config import AlignOptions
from align.errors import PhotoError
from align.template import TEMPLATES

if TYPE_CHECKING:
    from align.folder import Result

_EPILOG = """\
example:
  python -m align raw/ aligned/ --faces all --missing unseen/

Every crop's matrix, landmarks, source and the source's sha256 go to aligned/faces.jsonl.
Exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 3 some photos failed or have no face,
130 and 143 stopped by a signal; run the same command again to go on.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; the defaults are those of AlignOptions."""
    defaults = AlignOptions()
    parser = argparse.ArgumentParser(
        prog="python -m align",
        description="Cut the faces out of photos, upright, centred and all of one size.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", type=Path, help="a folder of photos, sub-folders included, or one photo")
    add("output", type=Path, help="the folder for the crops")
    add(
        "--template",
        choices=sorted(TEMPLATES),
        default=defaults.template,
        help="where the landmarks come to lie (default: %(default)s)",
    )
    add("--size", type=at_least(1), default=defaults.size, help="side of the crops in pixels (default: %(default)s)")
    add(
        "--faces",
        choices=("largest", "all", "single"),
        default=defaults.faces,
        help="of several faces in a photo take the largest, or all, or skip the photo (default: %(default)s)",
    )
    add(
        "--upsample",
        type=at_least(0),
        default=defaults.upsample,
        metavar="N",
        help="double a photo up to N times while no face is found clearly (default: %(default)s)",
    )
    add("--missing", type=Path, metavar="FOLDER", help="copy the photos without a face there (default: no copies)")
    add("--overwrite", action="store_true", help="do photos again that have their crop (default: skip them)")
    add("--jobs", type=at_least(1), default=defaults.jobs, help="workers (default: all cores, %(default)s)")
    add_flags(parser, "--engine")
    add("--report", type=Path, metavar="FILE.json", help="write one record per photo there (default: no report)")
    add_flags(parser, "--config")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="name every photo (default: those without a crop)")
    volume.add_argument("-q", "--quiet", action="store_true", help="name no photo, count nothing, show no progress")
    add_flags(parser, "--version")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = parse(build_parser(), argv)
    return run_main("align", lambda: _align(arguments), "stopped; run the same command again to go on")


def _align(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from align.files import list_photos, prepare_folder, write_json
    from align.folder import RECORDS, align_folder

    if not arguments.input.exists():
        raise PhotoError(f"{arguments.input} does not exist; give a folder of photos or one photo")
    root, photos = arguments.input.parent, [arguments.input]
    if arguments.input.is_dir():
        root, photos = (
            arguments.input,
            list_photos(arguments.input, skip=[arguments.output, *filter(None, [arguments.missing])]),
        )
    if not photos:
        raise PhotoError(f"{arguments.input} holds no photos")
    if arguments.report:
        prepare_folder(arguments.report.parent)

    options = AlignOptions(**{field.name: getattr(arguments, field.name) for field in fields(AlignOptions)})
    results: list[Result] = []
    try:
        progress = align_folder(photos, root, arguments.output, options)
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
        told = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
        print(f"{len(results)} photos: {told}; {crops} crops written", file=sys.stderr)
    print(arguments.output / RECORDS)
    return 3 if count["failed"] or count["no face"] else 0


def _record(result: Result) -> dict[str, object]:
    return {
        "photo": str(result.photo),
        "status": result.status,
        "reason": result.reason,
        "crops": [str(crop) for crop in result.crops],
    }


if __name__ == "__main__":
    # As an exception SIGTERM runs every clean-up on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

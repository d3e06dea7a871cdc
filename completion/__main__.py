"""python -m completion: fill holes in photos of faces."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from align.cli import add_flags, at_least, parse, run_main, shown
from completion.config import BLENDS, SOLVER_NAMES, BatchOptions, Faces
from weights import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOWrapper

    from completion.batch import Result
    from completion.complete import SearchStep

_EXAMPLE = """masks: center[:MARGIN] random[:SHARE] left right top bottom half full grid lowres pattern eyes nose mouth,
  alpha (the transparent pixels of the photo), a mask FILE, or a FOLDER of masks named like the photos; white = fill

examples:
  python -m completion --mask center img.png
  python -m completion --mask holes/ photos/ --output done/ --strip --report done.json
  python -m completion --mask mouth --faces all --solver paper group.jpg --output group_done.png

exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 3 some photos failed, 130 and 143 stopped by a signal"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m completion",
        description="Fill holes in photos of faces with what a DCGAN has learnt of faces. Inside the hole the detail "
        "is that of the weights, 64x64 for a face; every other pixel stays as it is.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="+", help="photos or folders; one of the weights' size is an aligned face itself")
    add("--mask", required=True, metavar="NAME|FILE|FOLDER|alpha", help="what to fill, see below")
    add("--invert-mask", action="store_true", help="black means fill in mask files, opaque with alpha")
    add("--faces", choices=get_args(Faces), default=BatchOptions.faces, help="whose hole a name means (%(default)s)")
    where = parser.add_mutually_exclusive_group()
    place = where.add_argument
    place("--landmarks", type=Path, metavar="FILE", help="faces.jsonl of python -m align on the photos while whole")
    place("--box", type=_four, metavar="X,Y,W,H", help="box of an upright face in pixels, from the brows to the chin")
    place("--eyes", type=_four, metavar="X,Y,X,Y", help="centres of the eyes in pixels, of a face at any angle")
    add("--output", type=Path, default=Path("completed"), help="folder, or file for a single photo (%(default)s/)")
    add("--solver", choices=SOLVER_NAMES, default=SOLVER_NAMES[0], help="how to search z (%(default)s)")
    add("--prior-weight", type=_amount, metavar="W", help="of the loss that asks D (default: the solver's own)")
    add("--seconds", type=_amount, metavar="S", help="search a photo for so long, then take the best yet (no limit)")
    add("--candidates", type=at_least(1), default=1, metavar="N", help="write the N best that differ (%(default)s)")
    add("--blend", choices=BLENDS, default=BLENDS[0], help="how to fit it in (%(default)s)")
    add_flags(parser, "--weights=auto")
    add_flags(parser, "--device")
    add("--seed", type=_seed, default=0, help="of the search and of the random masks (%(default)s)")
    add("--strip", action="store_true", help="also write photo, hole and completion side by side")
    add("--history", action="store_true", help="also write a GIF of the search and its losses as JSON lines")
    add("--jobs", type=at_least(1), default=1, metavar="N", help="photos at a time, a worker for each (%(default)s)")
    add_flags(parser, "--engine")
    add("--report", type=Path, metavar="FILE.json", help="write a record per photo, with PSNR if a name made the hole")
    add_flags(parser, "--config")
    add("--overwrite", action="store_true", help="replace files that exist (default: of many photos skip those done)")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="say what became of every photo")
    volume.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    add_flags(parser, "--version")
    return parser


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to 2^63 - 1")
    return seed


def _amount(text: str) -> float:
    amount = float(text)
    if not 0 <= amount < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 on")
    return amount


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = parse(build_parser(), argv)
    # Threads that spin while they wait make the search several times slower on a machine that has other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopped = "stopped; what was completed is kept: run the same command again to go on"
    return run_main("completion", lambda: _complete(arguments), stopped)


def _complete(arguments: argparse.Namespace) -> int:
    from collections import Counter
    from functools import partial

    from tqdm import tqdm

    from align.errors import PhotoError
    from align.files import prepare_folder, write_json
    from completion.batch import Result, complete_folder, complete_photo, plan_outputs, summary
    from completion.complete import FaceCompleter
    from completion.holes import MaskError, split_name

    if split_name(arguments.mask) is None and arguments.mask != "alpha" and not Path(arguments.mask).exists():
        raise MaskError(f"there is no mask named {arguments.mask!r}, nor a file or folder of that name; see --help")
    root, outputs = plan_outputs(arguments.photos, arguments.output)
    if arguments.report:
        prepare_folder(arguments.report.parent)
        if arguments.report.exists() and not arguments.report.is_file():
            raise PhotoError(f"the report {arguments.report} is no file; give the name of a file")
    load = partial(
        FaceCompleter.load,
        arguments.weights,
        arguments.device,
        arguments.solver,
        arguments.blend,
        arguments.prior_weight,
    )
    completer = load()  # tells now of weights that cannot be used
    options = BatchOptions(
        mask=arguments.mask,
        invert_mask=arguments.invert_mask,
        faces=arguments.faces,
        landmarks=arguments.landmarks,
        box=arguments.box,
        eyes=arguments.eyes,
        candidates=arguments.candidates,
        seed=arguments.seed,
        strip=arguments.strip,
        history=arguments.history,
        overwrite=arguments.overwrite,
        measure=arguments.report is not None,
        seconds=arguments.seconds,
    )
    results: list[Result] = []
    single = len(outputs) == 1 and not arguments.photos[0].is_dir()
    items: Iterator[SearchStep | Result]
    if single:
        [(photo, output)] = outputs.items()
        items = complete_photo(completer, photo, output, root, options)
    else:
        here = arguments.jobs == 1 and arguments.engine == "processes"
        gpu = next(completer.weights[completer.size].generator.parameters()).is_cuda
        start = (lambda: completer) if here else load
        items = complete_folder(start, outputs, root, options, arguments.jobs, arguments.engine, gpu)
    bar = tqdm(
        total=None if single else len(outputs), unit="step" if single else "photo", disable=arguments.quiet or None
    )
    try:
        with bar:
            for item in items:
                if isinstance(item, Result):
                    results.append(item)
                    bar.update(not single)
                    _tell(item, arguments.verbose, arguments.quiet)
                else:
                    bar.total = item.faces * (item.steps + 1)
                    bar.update()
    finally:
        if arguments.report and results:
            report = {
                "settings": _settings(arguments, [weights.sha256 for weights in completer.weights.values()]),
                "summary": summary(results),
                "photos": [result.record() for result in results],
            }
            write_json(arguments.report, report)
    count = Counter(result.status for result in results)
    if not single and not arguments.quiet:
        told = [f"{count[status]} {status}" for status in ("completed", "failed", "skipped")]
        told = told if count["skipped"] else told[:2]
        words = ", ".join(f"{name} {value:.4g}" for name, value in summary(results).items())
        print("; means: ".join(filter(None, [", ".join(told), words])), file=sys.stderr)
    if count["failed"]:
        return 2 if single else 3
    return 0


def _four(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"{text} has {len(numbers)} numbers, expected 4")
    return numbers


def _tell(result: Result, verbose: bool, quiet: bool) -> None:
    from tqdm import tqdm

    if result.status == "failed" or (verbose and result.reason):
        # The library names options, the command line its flags for them.
        reason = result.reason.replace("(landmarks, box or eyes)", "(--landmarks, --box or --eyes)")
        tqdm.write(f"{shown(result.photo)}: {reason}", file=sys.stderr)
    for output in result.outputs:
        tqdm.write(str(output), file=sys.stdout)
    for note in () if quiet else result.notes:
        tqdm.write(f"{shown(result.photo)}: {note}", file=sys.stderr)
    if verbose and result.figures:
        words = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
        tqdm.write(f"{shown(result.photo)}: {words}", file=sys.stderr)


def _settings(arguments: argparse.Namespace, sha256: list[str]) -> dict[str, Any]:
    kept = (
        "mask",
        "invert_mask",
        "faces",
        "landmarks",
        "box",
        "eyes",
        "candidates",
        "solver",
        "prior_weight",
        "seconds",
        "blend",
        "seed",
        "weights",
        "device",
    )
    settings = {name: getattr(arguments, name) for name in kept}
    settings["landmarks"] = None if arguments.landmarks is None else str(arguments.landmarks)
    return settings | {"weights_sha256": sha256, "version": VERSION}


if __name__ == "__main__":
    # The names of files are bytes, and some are no UTF-8.
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="surrogateescape")
    # As an exception SIGTERM runs every clean-up on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

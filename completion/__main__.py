"""Command line of completion: `python -m completion`."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from align.cli import Parser, add_flags, at_least, number, parse, run_main, run_program, separated, shown
from align.settings import SEEDS
from completion.config import BLENDS, SOLVER_NAMES, BatchOptions, Faces, NoFace
from weights import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from completion.batch import Result
    from completion.complete import SearchStep

_EXAMPLE = """masks:
  center[:MARGIN] random[:SHARE] left right top bottom half full grid lowres
  pattern eyes nose mouth, or several of them: eyes,mouth
  alpha   the transparent pixels of the photo
  FILE    a mask image; white pixels are filled
  FOLDER  mask images with the same names as the photos

examples:
  %(prog)s --mask center img.png
  %(prog)s --mask eyes,mouth img.png
  %(prog)s --mask holes/ photos/ --output done/ --strip --report done.json
  %(prog)s --mask mouth --faces all group.jpg --output done.png
  %(prog)s --mask eyes - < img.png > done.png

exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 3 some photos failed, 128 + N stopped by signal N"""
_STREAM = Path("-")  # stdin or stdout
# Arguments recorded as "settings" in the report.
_REPORTED = (
    *("mask", "invert_mask", "faces", "no_face", "landmarks", "box", "eyes", "candidates", "solver", "prior_weight"),
    *("seconds", "blend", "seed", "weights", "device"),
)

# Settings that do not belong to the request of a result: inputs are recorded by content, and devices agree.
_INPUTS = ("mask", "landmarks", "weights", "device")


def build_parser(program: str = "python -m completion") -> Parser:
    """Create the argument parser."""
    parser = Parser(
        program,
        description="Fill holes in photos of faces with a DCGAN. The fill has the resolution of the weights, such as "
        "128x128 pixels per face; pixels outside the hole do not change.",
        epilog=_EXAMPLE,
    )
    _add_input_flags(parser)
    _add_search_flags(parser)
    _add_output_flags(parser)
    return parser


def _add_input_flags(parser: Parser) -> None:
    add = parser.add_argument
    help_photos = "photos or folders; - for a photo from stdin; one of the weights' size counts as an aligned face"
    add("photos", type=Path, nargs="+", help=help_photos)
    add("-m", "--mask", required=True, metavar="NAME|FILE|FOLDER|alpha", help="pixels to fill, see below")
    add("--invert-mask", action="store_true", help="fill black pixels of mask files, or opaque pixels with alpha")
    help_faces = "faces that a named mask is placed on (default: %(default)s)"
    add("--faces", choices=get_args(Faces), default=BatchOptions.faces, help=help_faces)
    help_no_face = "fill a mask that touches no face from its surroundings, or fail (default: fail for a single photo, "
    help_no_face += "fill for several)"
    add("--no-face", choices=get_args(NoFace), help=help_no_face)
    place = parser.add_mutually_exclusive_group().add_argument
    help_landmarks = "faces.jsonl with the positions of the faces, from python -m align on the photos without holes"
    place("--landmarks", type=Path, metavar="FILE", help=help_landmarks)
    place(
        "--box",
        type=separated(4, number),
        metavar="X,Y,W,H",
        help="box of an upright face in pixels, from the brows to the chin",
    )
    place(
        "--eyes",
        type=separated(4, number),
        metavar="X,Y,X,Y",
        help="eye centres of a face in pixels; the face may be rotated",
    )


def _add_search_flags(parser: Parser) -> None:
    add = parser.add_argument
    help_solver = "fast takes one pass of the networks; thorough is nearer to the truth, but softer; the others, for "
    help_solver += "comparison, search for seconds to minutes (default: %(default)s)"
    add("--solver", choices=SOLVER_NAMES, default=SOLVER_NAMES[0], help=help_solver)
    help_prior = "weight of the prior (discriminator) loss (default: set by the solver)"
    add("--prior-weight", type=at_least(0.0), metavar="W", help=help_prior)
    add(
        "--seconds",
        type=at_least(0.0),
        metavar="S",
        help="time limit of the search, in seconds per photo (default: none)",
    )
    help_candidates = "number of different completions to write (default: %(default)s)"
    add("--candidates", type=at_least(1), default=1, metavar="N", help=help_candidates)
    help_blend = "how to blend the fill into the photo (default: %(default)s)"
    add("--blend", choices=BLENDS, default=BLENDS[0], help=help_blend)
    add_flags(parser, "--weights=auto", "--device")
    add(
        "--seed",
        type=at_least(0, SEEDS.high),
        default=0,
        help="seed of the search and of random masks (default: %(default)s)",
    )


def _add_output_flags(parser: Parser) -> None:
    add = parser.add_argument
    help_output = "output folder; for a single photo also a file, or - for a PNG to stdout (default: completed/; for a "
    add("-o", "--output", type=Path, help=f"{help_output}photo from stdin -)")
    add("--strip", action="store_true", help="also write the photo, the hole and the completion side by side")
    add("--history", action="store_true", help="also write a GIF of the search, and its losses as JSON Lines")
    add("--jobs", type=at_least(1), default=1, metavar="N", help="number of parallel workers (default: %(default)s)")
    add_flags(parser, "--backend")
    add("--report", type=Path, metavar="FILE.json", help="write results per photo as JSON, with PSNR for named masks")
    add_flags(parser, "--config")
    help_overwrite = (
        "replace any file (default: skip photos with a result of the same settings, and redo others that were made "
        "here; with a single photo, stop)"
    )
    add("--overwrite", action="store_true", help=help_overwrite)
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="print figures for every photo, and their means")
    volume.add_argument("-q", "--quiet", action="store_true", help="print only errors")
    add_flags(parser, "--version")


def main(argv: list[str] | None = None, program: str = "python -m completion") -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = parse(build_parser(program), argv)
    # Spinning OpenMP threads make the search several times slower on a machine that is also busy with other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopped = "stopped; completed photos are kept; repeat the command to resume"
    arguments.label = None
    if arguments.output is None:
        arguments.output = _STREAM if arguments.photos == [_STREAM] else Path("completed")
    work = _complete_stream if _STREAM in (*arguments.photos, arguments.output) else _complete
    return run_main("completion", lambda: work(arguments), stopped)


def _complete_stream(arguments: argparse.Namespace) -> int:
    """Complete one photo from stdin or to stdout, through a temporary folder."""
    import tempfile

    from align.errors import PhotoError

    if len(arguments.photos) > 1 or arguments.photos[0].is_dir():
        raise PhotoError("- stands for one photo, but several were given; give one, or a folder with --output")
    stdout = arguments.output == _STREAM
    if stdout and (arguments.strip or arguments.history or arguments.candidates > 1):
        raise PhotoError("--strip, --history and --candidates write several files; give a folder with --output")
    with tempfile.TemporaryDirectory(prefix="dcgan-completion-") as folder:
        if arguments.photos == [_STREAM]:
            arguments.label, arguments.photos = "stdin", [Path(folder) / "in" / "stdin"]
            arguments.photos[0].parent.mkdir()
            arguments.photos[0].write_bytes(sys.stdin.buffer.read())
        if not stdout:
            return _complete(arguments)
        arguments.output = Path(folder) / "out" / "completed.png"
        with contextlib.redirect_stdout(io.StringIO()):  # receives the path
            code = _complete(arguments)
        if arguments.output.exists():
            sys.stdout.buffer.write(arguments.output.read_bytes())
        return code


def _complete(arguments: argparse.Namespace) -> int:
    _check_mask(arguments.mask)  # before torch is imported

    from functools import partial

    from completion.batch import complete_folder, complete_photo
    from completion.complete import FaceCompleter
    from completion.plan import plan_outputs

    plan = plan_outputs(arguments.photos, arguments.output, _options(arguments), arguments.report)
    load = partial(
        FaceCompleter.load,
        arguments.weights,
        arguments.device,
        arguments.solver,
        arguments.blend,
        arguments.prior_weight,
    )
    completer = load()  # unusable weights fail here, before any worker starts
    settings = _settings(arguments, [weights.sha256 for weights in completer.weights.values()])
    plan = replace(plan, settings={name: settings[name] for name in settings if name not in _INPUTS})
    single = len(plan.outputs) == 1 and not arguments.photos[0].is_dir()
    items: Iterator[SearchStep | Result]
    if single:
        [photo] = plan.outputs
        items = complete_photo(completer, plan, photo)
    else:
        here = arguments.jobs == 1 and arguments.backend == "processes"
        start = (lambda: completer) if here else load
        items = complete_folder(start, plan, arguments.jobs, arguments.backend, completer.gpu)
    results: list[Result] = []
    began = time.monotonic()
    try:
        _collect(items, results, None if single else len(plan.outputs), arguments)
    finally:
        if arguments.report and results:
            _write_report(arguments.report, settings, results)
    if not single and not arguments.quiet:
        _print_summary(results, time.monotonic() - began, arguments.verbose)
    if any(result.status == "failed" for result in results):
        return 2 if single else 3
    return 0


def _check_mask(mask: str) -> None:
    from dcgan.holes import split_names, unknown_mask

    if split_names(mask) is None and mask != "alpha" and not Path(mask).exists():
        raise unknown_mask(mask)


def _options(arguments: argparse.Namespace) -> BatchOptions:
    names = {field.name for field in fields(BatchOptions)} - {"measure"}
    return BatchOptions(**{name: getattr(arguments, name) for name in names}, measure=arguments.report is not None)


def _collect(
    items: Iterator[SearchStep | Result], results: list[Result], total: int | None, arguments: argparse.Namespace
) -> None:
    """Append the results to a list, printing each and showing progress: in photos, or in steps if `total` is None."""
    from tqdm import tqdm

    from completion.batch import Result

    single = total is None
    with tqdm(total=total, unit="step" if single else "photo", disable=arguments.quiet or None) as bar:
        for item in items:
            if isinstance(item, Result):
                results.append(item)
                bar.update(not single)
                _print_result(item, arguments.label or shown(item.photo), arguments.verbose, arguments.quiet)
            else:
                bar.total = item.faces * (item.steps + 1)
                bar.update()


def _print_result(result: Result, name: str, verbose: bool, quiet: bool) -> None:
    from tqdm import tqdm

    if result.status == "failed" or (verbose and result.reason):
        # Library errors name options; the command line names its flags instead.
        reason = result.reason.replace("(landmarks, box or eyes)", "(--landmarks, --box or --eyes)")
        tqdm.write(f"{name}: {reason}", file=sys.stderr)
    for output in () if quiet else result.outputs:
        tqdm.write(str(output), file=sys.stdout)
    for note in () if quiet else result.notes:
        tqdm.write(f"{name}: {note}", file=sys.stderr)
    if verbose and result.figures:
        tqdm.write(f"{name}: {_listed(result.figures)}", file=sys.stderr)


def _print_summary(results: list[Result], seconds: float, verbose: bool) -> None:
    from collections import Counter

    from completion.batch import summary

    count = Counter(result.status for result in results)
    shown_statuses = ("completed", "failed", "skipped")[: 3 if count["skipped"] else 2]
    counts = ", ".join(f"{count[status]} {status}" for status in shown_statuses)
    means = _listed(summary(results)) if verbose else ""
    print("; means: ".join(filter(None, [f"{counts} in {seconds:.1f} s", means])), file=sys.stderr)


def _listed(figures: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())


def _settings(arguments: argparse.Namespace, sha256: list[str]) -> dict[str, Any]:
    """Return the settings for reports and records, with the SHA-256 of the weights and the version."""
    settings = {name: getattr(arguments, name) for name in _REPORTED}
    settings["landmarks"] = None if arguments.landmarks is None else str(arguments.landmarks)
    return settings | {"weights_sha256": sha256, "version": VERSION}


def _write_report(path: Path, settings: dict[str, Any], results: list[Result]) -> None:
    from align.files import write_json
    from completion.batch import summary

    photos = [result.record() for result in results]
    write_json(path, {"settings": settings, "summary": summary(results), "photos": photos})


if __name__ == "__main__":
    run_program(main)

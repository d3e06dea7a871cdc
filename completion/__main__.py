"""Command line of completion: `python -m completion`."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import Parser, add_common, add_settings, printable, run_main, run_program, say, settings_from
from completion.config import FileOptions, FillOptions, LoadOptions
from weights import VERSION

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from completion.batch import FillResult
    from completion.step import Step

_EXAMPLE = """masks:
  center[:MARGIN] random[:SHARE] left right top bottom half full grid lowres
  pattern eyes nose mouth, or several of them: eyes,mouth
  alpha   the transparent pixels of the photo
  damage[:SENSITIVITY]  cracks, scratches, stains and other damage, found in the photo; 0.5 if no number is given
  FILE    a mask image; what is white, painted or erased is filled
  FOLDER  mask images with the same names as the photos

examples:
  %(prog)s --mask center img.png
  %(prog)s --mask eyes,mouth img.png
  %(prog)s --mask holes/ photos/ --output done/ --strip --report done.json
  %(prog)s --mask mouth --faces all group.jpg --output done.png
  %(prog)s --mask torn.png grandmother.jpg --reference album/
  %(prog)s --mask damage scans/ --output restored/
  %(prog)s --mask eyes - < img.png > done.png

exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 3 some photos failed, 128 + N stopped by signal N"""
_PLACES = ["--eyes"], ["--box"]
_STREAM = Path("-")  # stdin or stdout


def build_parser(program: str = "python -m completion") -> Parser:
    """Create the argument parser."""
    parser = Parser(
        program,
        description="Fill holes in photos of faces with a DCGAN. The fill has the resolution of the weights, such as "
        "128x128 pixels per face; pixels outside the hole do not change.",
        epilog=_EXAMPLE,
    )
    help_photos = "photos or folders; - for a photo from stdin"
    parser.add_argument("photos", type=_photo, nargs="+", help=help_photos)
    add_settings(parser, FileOptions, only=("mask", "invert_mask", "landmarks"))
    for settings in (FillOptions, LoadOptions):
        add_settings(parser, settings)
    add_settings(parser, FileOptions, skip=("mask", "invert_mask", "landmarks"))
    add_common(parser, verbose="print figures for every photo, and their means")
    return parser


def main(argv: list[str] | None = None, program: str = "python -m completion") -> int:
    """Run the command and return its exit code, see --help."""
    arguments = build_parser(program).parse_args(_joined(sys.argv[1:] if argv is None else argv))
    # Spinning OpenMP threads make the search several times slower on a machine that is also busy with other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopped = "stopped; completed photos are kept; repeat the command to resume"
    arguments.program = program
    return run_main("completion", lambda: _run(arguments), stopped)


def _photo(word: str) -> Path:
    """A path; "./-" is a file, "-" is stdin."""
    path = Path(word)
    return Path.cwd() / path if path == _STREAM and word != "-" else path


def _joined(words: Sequence[str]) -> list[str]:
    """Join what people write apart: the coordinates of --eyes and --box, and several masks."""
    end = words.index("--") if "--" in words else len(words)
    words = [*(part for word in words[:end] for part in _apart(word)), *words[end:]]
    joined: list[str] = []
    masks = [at for at, word in enumerate(words[:-1]) if word in ("-m", "--mask")]
    for at, word in enumerate(words):
        numbers = re.sub(r"[][();,\s]+", ",", word).strip(",")
        if joined[-2:-1] in _PLACES and joined[-1].count(",") < 3 and all(map(_is_number, numbers.split(","))):
            joined[-1] += f",{numbers}"
        elif masks and at == masks[0] + 1:
            joined.append(",".join(words[mask + 1] for mask in masks))
        elif not (masks[1:] and {at, at - 1} & set(masks[1:])):
            joined.append(numbers if joined[-1:] in _PLACES else word)
    return joined


def _apart(word: str) -> list[str]:
    """The flag and the value of --mask=VALUE and -mVALUE; any other word as it is."""
    for flag, attached in (("--mask", "--mask="), ("-m", "-m")):
        if word.startswith(attached) and word != flag:
            return [flag, word.removeprefix(attached).removeprefix("=")]
    return [word]


def _is_number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdigit()


def _run(arguments: argparse.Namespace) -> int:
    from align.errors import InputError, PhotoError
    from align.photo import WRITABLE
    from dcgan.holes import HOLES

    files, photos = settings_from(arguments, FileOptions), arguments.photos
    if not files.mask and 2 <= len(photos) <= 3:  # photo, mask, output
        photos, mask, *output = photos
        if output and files.output:
            raise InputError(f"the outputs {output[0]} and {files.output} are given; give one, or --mask")
        files = replace(files, mask=str(mask), output=next(iter(output), files.output))
        photos = [photos]
    if not files.mask:
        raise InputError("there is no mask; give --mask, or a photo and a mask file")
    for path in photos:
        if _STREAM in photos or os.path.lexists(path):
            continue
        advice = "give photos or folders of photos"
        if "://" in str(path) or str(path).startswith(("http:", "https:")):
            advice = "download it first"
        elif str(path).startswith("@"):
            advice = f"for a list of photos, use xargs: xargs -a {str(path)[1:]} {arguments.program}"
        elif str(path).partition(":")[0].casefold() in HOLES:
            advice = f"join the names of a mask by a comma: --mask {files.mask},{path}"
        elif path.suffix.lower() in WRITABLE and path == photos[-1] != photos[0]:
            advice = f"for the result, give --output {path}"
        raise PhotoError(f"{path} does not exist; {advice}")
    output = files.output or (_STREAM if photos == [_STREAM] else Path("completed"))
    if _STREAM not in (*photos, output):
        return _complete(arguments, photos, replace(files, output=output))
    return _complete_stream(arguments, photos, replace(files, output=output))


def _complete_stream(arguments: argparse.Namespace, photos: list[Path], files: FileOptions) -> int:
    """Complete one photo from stdin or to stdout, through a temporary folder."""
    import tempfile

    from align.errors import PhotoError
    from align.photo import MAX_BYTES

    if len(photos) > 1 or photos[0].is_dir():
        raise PhotoError("- stands for one photo, but several were given; give one, or a folder with --output")
    stdout = files.output == _STREAM
    if stdout and (files.strip or files.history or settings_from(arguments, FillOptions).candidates > 1):
        raise PhotoError("--strip, --history and --candidates write several files; give a folder with --output")
    with tempfile.TemporaryDirectory(prefix="dcgan-completion-") as folder:
        label = None
        if photos == [_STREAM]:
            label, photos = "stdin", [Path(folder) / "in" / "stdin"]
            photos[0].parent.mkdir()
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise PhotoError(f"stdin has more than {MAX_BYTES:,} bytes; give a photo")
            photos[0].write_bytes(data)
        if not stdout:
            return _complete(arguments, photos, files, label)
        output = Path(folder) / "out" / "completed.png"
        with contextlib.redirect_stdout(io.StringIO()):  # receives the path
            code = _complete(arguments, photos, replace(files, output=output), label)
        if output.exists():
            sys.stdout.buffer.write(output.read_bytes())
        return code


def _complete(arguments: argparse.Namespace, photos: list[Path], files: FileOptions, label: str | None = None) -> int:
    from align.errors import ConfigError
    from completion.masks import parse_mask

    # Mistakes are found before anything slow is imported.
    options, loading = settings_from(arguments, FillOptions), settings_from(arguments, LoadOptions)
    if files.landmarks and (options.box or options.eyes):
        raise ConfigError("landmarks and a box or eyes are given; give the position of the face once")
    parse_mask(files.mask)

    from functools import partial

    from tqdm import tqdm

    from completion.batch import FillResult, complete_folder, complete_photo
    from completion.completer import FaceCompleter
    from completion.plan import plan_outputs

    assert files.output is not None
    load = partial(FaceCompleter.load, loading.weights, loading.device, solver=options.solver)
    completer = load()  # unusable weights fail here, before any folder is made or worker starts
    plan = plan_outputs(photos, files.output, options, files)
    settings = asdict(plan.options) | {
        "reference": plan.references,
        "invert_mask": files.invert_mask,
        "weights_sha256": [weights.sha256 for weights in completer.weights.values()],
    }
    plan = replace(plan, settings=settings)
    single = len(plan.outputs) == 1 and not photos[0].is_dir()
    items: Iterator[Step | FillResult]
    if single:
        items = complete_photo(completer, plan, next(iter(plan.outputs)))
    else:
        here = files.jobs == 1 and files.backend == "processes"
        items = complete_folder((lambda: completer) if here else load, plan, completer.gpu)
    results: list[FillResult] = []
    began = time.monotonic()
    total = None if single else len(plan.outputs)
    try:
        with tqdm(total=total, unit="step" if single else "photo", disable=arguments.quiet or None) as bar:
            for item in items:
                if isinstance(item, FillResult):
                    results.append(item)
                    bar.update(not single)
                    _print_result(item, label or printable(item.photo), arguments.verbose, arguments.quiet)
                else:
                    bar.total = item.faces * (item.steps + 1)
                    bar.update()
    finally:
        if files.report and results:
            reported = settings | asdict(loading) | {"mask": files.mask, "version": VERSION}
            _write_report(files, reported, results)
    if not single and not arguments.quiet:
        _print_summary(results, time.monotonic() - began, arguments.verbose)
    if any(result.status == "failed" for result in results):
        return 2 if single else 3
    return 0


def _print_result(result: FillResult, name: str, verbose: bool, quiet: bool) -> None:
    from tqdm import tqdm

    if result.status == "failed" or (verbose and result.reason):
        # Library errors name options; the command line names its flags instead.
        reason = result.reason.replace("(landmarks, box or eyes)", "(--landmarks, --box or --eyes)")
        reason = reason.replace("overwrite it or choose another output", "give --overwrite or another --output")
        reason = reason.replace("or aligned for", "or --aligned for")
        reason = reason.replace("do not invert the mask,", "leave out --invert-mask,")
        reason = reason.replace("invert the mask,", "give --invert-mask,")
        say(f"{name}: {reason}".replace("\n", "\\n"))
    for output in () if quiet else result.outputs:
        tqdm.write(str(output), file=sys.stdout)
    for note in () if quiet else result.notes:
        say(f"{name}: {note}")
    if verbose and result.figures:
        say(f"{name}: {_listed(result.figures)}")


def _print_summary(results: list[FillResult], seconds: float, verbose: bool) -> None:
    from collections import Counter

    from completion.batch import summary

    count = Counter(result.status for result in results)
    shown_statuses = ("completed", "failed", "skipped")[: 3 if count["skipped"] else 2]
    counts = ", ".join(f"{count[status]} {status}" for status in shown_statuses)
    means = _listed(summary(results)) if verbose else ""
    print("; means: ".join(filter(None, [f"{counts} in {seconds:.1f} s", means])), file=sys.stderr)


def _listed(figures: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())


def _write_report(files: FileOptions, settings: dict[str, Any], results: list[FillResult]) -> None:
    from align.files import write_json
    from completion.batch import summary

    assert files.report is not None
    landmarks = None if files.landmarks is None else str(files.landmarks)
    photos = [result.record() for result in results]
    report = {"settings": settings | {"landmarks": landmarks}, "summary": summary(results), "photos": photos}
    write_json(files.report, report)


if __name__ == "__main__":
    run_program(main)

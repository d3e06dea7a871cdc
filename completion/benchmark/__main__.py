"""Command line of the benchmark: `python -m completion.benchmark`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from align.cli import Parser, add_flags, at_least, parse, run_main, run_program, show_progress, weights_name
from align.errors import hint
from align.settings import SEEDS
from completion.config import BENCHMARK_HOLES, METHODS, SLOW, WHOLE_HOLES, WHOLE_METHODS, BenchmarkOptions
from weights import AUTO, DEFAULT, REGISTRY, VERSION

_EXAMPLE = """examples:
  %(prog)s aligned_val/ --train aligned/ --holes center pattern --methods fast telea linear
  %(prog)s --whole photos/ --methods fast fast+alpha telea

mean and linear need --train. On aligned faces, the results in --output are updated after every method.
exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 128 + N stopped by signal N"""


def build_parser(program: str = "python -m completion.benchmark") -> Parser:
    """Create the argument parser."""
    parser = Parser(
        program,
        description="Compare completion methods, with and without the DCGAN, on the same holes in the same faces. "
        "Prints the tables, and writes them to a folder together with JSON and pictures.",
        epilog=_EXAMPLE,
    )
    defaults = BenchmarkOptions()
    add = parser.add_argument
    add("faces", type=Path, nargs="+", help="folder of aligned faces not used in training; with --whole, of photos")
    add("--whole", action="store_true", help="use whole photos, with holes drawn at their own resolution")
    add("--train", type=Path, metavar="FOLDER", help="aligned faces of other people, to fit mean and linear to")
    add(
        "--limit",
        type=at_least(1),
        default=defaults.limit,
        help="maximum number of faces, evenly spaced over the folder (default: %(default)s)",
    )
    add(
        "--slow-limit",
        type=at_least(1),
        default=defaults.slow_limit,
        help=f"maximum number of faces for {' and '.join(SLOW)} (default: %(default)s)",
    )
    for flag, names, whole in (
        ("--holes", tuple(BENCHMARK_HOLES), WHOLE_HOLES),
        ("--methods", METHODS, (*WHOLE_METHODS, "SOLVER+BLEND")),
    ):
        listed = f"{', '.join(names)}; with --whole: {', '.join(whole)} (default: all)"
        add(flag, nargs="+", metavar="NAME", help=f"{flag[2:]} to compare: {listed}")
    add("-o", "--output", type=Path, default=Path("benchmark"), help="output folder (default: %(default)s/)")
    add(
        "--weights",
        type=weights_name,
        help=f"weights file or name: {', '.join(REGISTRY)} (default: {DEFAULT}; auto with --whole)",
    )
    add(
        "--seed",
        type=at_least(0, SEEDS.high),
        default=defaults.seed,
        help="seed of faces, holes and search (default: %(default)s)",
    )
    add_flags(parser, "--device", "--config")
    add("--overwrite", action="store_true", help="replace existing results")
    add("-q", "--quiet", action="store_true", help="print only the tables and errors")
    add_flags(parser, "--version")
    return parser


def main(argv: list[str] | None = None, program: str = "python -m completion.benchmark") -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    parser = build_parser(program)
    arguments = parse(parser, argv)
    arguments.holes = arguments.holes or (WHOLE_HOLES if arguments.whole else tuple(BENCHMARK_HOLES))
    arguments.methods = arguments.methods or (WHOLE_METHODS if arguments.whole else METHODS)
    for flag, given, names in (
        ("--holes", arguments.holes, WHOLE_HOLES if arguments.whole else tuple(BENCHMARK_HOLES)),
        ("--methods", arguments.methods, arguments.methods if arguments.whole else METHODS),
    ):
        if unknown := [name for name in given if name not in names]:
            parser.error(f"argument {flag}: there is no {unknown[0]!r}; {hint(unknown[0], names)}")
    if len(arguments.faces) > 1 and not arguments.whole:
        parser.error(f"{len(arguments.faces)} folders of aligned faces were given; expected one")
    # Spinning OpenMP threads would count as CPU time and slow down everything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopped = (
        "stopped; nothing was written" if arguments.whole else f"stopped; results so far are in {arguments.output}"
    )
    return run_main("benchmark", lambda: (_whole if arguments.whole else _benchmark)(arguments), stopped)


def _whole(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from align.cli import Progress
    from align.errors import PhotoError
    from align.files import prepare_folder
    from completion.benchmark.whole import JSON_FILE, Row, WholeReport, compare_whole, methods, read_subjects
    from completion.networks import open_weights
    from dcgan.device import machine
    from dcgan.sampling import device_of

    def say(text: str) -> None:
        if not arguments.quiet:
            tqdm.write(text, file=sys.stderr)

    prepare_folder(arguments.output, *arguments.faces)
    name = arguments.weights or AUTO
    trained = open_weights(name, arguments.device)
    chosen = methods(trained, arguments.methods, arguments.seed)
    if (arguments.output / JSON_FILE).exists() and not arguments.overwrite:
        raise PhotoError(f"{arguments.output / JSON_FILE} exists; give --overwrite or another folder with --output")
    subjects = read_subjects(arguments.faces, say)
    facts = {
        "weights": {"name": Path(name).name, "sha256": [weights.sha256 for weights in trained]},
        "photos": len(subjects),
        "seed": arguments.seed,
        "machine": machine(device_of(trained[0].generator)),
        "version": VERSION,
    }
    report = WholeReport(facts, subjects, arguments.seed)
    rows = compare_whole(subjects, chosen, arguments.holes, arguments.seed)
    for item in show_progress(rows, Progress, arguments.quiet):
        assert isinstance(item, Row)
        report.add(item)
    report.write(arguments.output)
    print(report.table())
    return 0


def _benchmark(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from tqdm import tqdm

    from align.cli import Progress
    from align.errors import PhotoError
    from align.files import prepare_folder
    from completion.benchmark.compare import Row, compare, lacking, spread
    from completion.benchmark.report import JSON_FILE, Report
    from dcgan.dataset import digest, load_faces
    from dcgan.device import machine
    from dcgan.sampling import device_of
    from dcgan.weights import Weights

    def say(text: str) -> None:
        if not arguments.quiet:
            tqdm.write(text, file=sys.stderr)

    options = BenchmarkOptions(
        arguments.limit, arguments.slow_limit, tuple(arguments.holes), tuple(arguments.methods), arguments.seed
    )
    prepare_folder(arguments.output, arguments.faces[0], *filter(None, [arguments.train]))
    name = arguments.weights or DEFAULT
    trained = Weights.open(name, arguments.device)
    if (arguments.output / JSON_FILE).exists() and not arguments.overwrite:
        raise PhotoError(f"{arguments.output / JSON_FILE} exists; give --overwrite or another folder with --output")
    faces = spread(load_faces(arguments.faces[0], trained.size, say), options.limit, options.seed)
    training = load_faces(arguments.train, trained.size, say) if arguments.train else None
    left_out = lacking(options.methods, trained.has_encoder, training is not None)
    notes = [f"{name} is skipped because it needs {what}" for name, what in left_out.items()]
    if not trained.has_encoder and "fast" in options.methods:
        notes.append("fast uses the solver search because the weights have no encoder")
    for note in notes:
        say(note)
    facts = {
        "settings": asdict(options),
        "weights": {"name": Path(name).name, "sha256": trained.sha256},
        "faces": {"count": len(faces), "sha256": digest(faces), "training": 0 if training is None else len(training)},
        "machine": machine(device_of(trained.generator)),
        "version": VERSION,
        "notes": notes,
    }
    report = Report(facts)
    for item in show_progress(compare(trained, faces, training, options), Progress, arguments.quiet):
        report.add(item)
        report.write(arguments.output)
        if isinstance(item, Row):
            say(f"{item.hole}, {item.method}: hole-PSNR {item.hole_psnr:.2f} dB, {item.cpu_s:.3g} CPU s per face")
    print(report.tables())
    return 0


if __name__ == "__main__":
    run_program(main)

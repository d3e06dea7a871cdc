"""python -m completion.benchmark: measure ways of completion, with the DCGAN and without, on the same faces."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from align.cli import add_flags, at_least, run_main, show_progress
from completion.config import BENCHMARK_HOLES, METHODS, SLOW, WHOLE_HOLES, WHOLE_METHODS, BenchmarkOptions
from weights import AUTO, DEFAULT, REGISTRY, VERSION

_EXAMPLE = """example:
  python -m completion.benchmark aligned_val/ --train aligned/ --holes center pattern --methods fast telea linear
  python -m completion.benchmark --whole photos/ --methods fast fast+alpha telea

Learning (mean, linear) needs --train. All that is done so far is in --out after every method.
exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 130 and 143 stopped by a signal"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m completion.benchmark",
        description="Complete the same holes in the same faces by several methods, with the DCGAN and without, and "
        "measure all of them. The tables go to stdout, and with figures and pictures to a folder.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = BenchmarkOptions()
    add = parser.add_argument
    add(
        "faces", type=Path, nargs="+", help="folder of aligned faces that the weights have not seen; or of whole photos"
    )
    add("--whole", action="store_true", help="complete whole photos, with holes drawn at their own resolution")
    add("--train", type=Path, metavar="FOLDER", help="aligned faces of others, for mean and linear to learn from")
    add("--limit", type=at_least(1), default=defaults.limit, help="faces, evenly spread (%(default)s)")
    add(
        "--slow-limit",
        type=at_least(1),
        default=defaults.slow_limit,
        help=f"faces for {' and '.join(SLOW)} (%(default)s)",
    )
    for flag, names, whole in (
        ("--holes", tuple(BENCHMARK_HOLES), WHOLE_HOLES),
        ("--methods", METHODS, (*WHOLE_METHODS, "SOLVER+BLEND")),
    ):
        listed = f"of {', '.join(names)}; with --whole of {', '.join(whole)} (all)"
        add(flag, nargs="+", metavar="NAME", help=listed)
    add("--out", type=Path, default=Path("benchmark"), help="folder for figures and pictures (%(default)s/)")
    add("--weights", help=f"weights file or name: {', '.join(REGISTRY)} (default: {DEFAULT}; auto with --whole)")
    add("--seed", type=at_least(0), default=defaults.seed, help="of faces, holes and search (%(default)s)")
    add_flags(parser, "--device")
    add("--overwrite", action="store_true", help="replace an earlier benchmark")
    add("-q", "--quiet", action="store_true", help="say nothing but the tables and errors")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    arguments.holes = arguments.holes or (WHOLE_HOLES if arguments.whole else tuple(BENCHMARK_HOLES))
    arguments.methods = arguments.methods or (WHOLE_METHODS if arguments.whole else METHODS)
    for flag, given, names in (
        ("--holes", arguments.holes, WHOLE_HOLES if arguments.whole else tuple(BENCHMARK_HOLES)),
        ("--methods", arguments.methods, arguments.methods if arguments.whole else METHODS),
    ):
        if unknown := [name for name in given if name not in names]:
            parser.error(f"argument {flag}: invalid choice: {unknown[0]!r} (choose from {', '.join(names)})")
    if len(arguments.faces) > 1 and not arguments.whole:
        parser.error(f"{len(arguments.faces)} folders of aligned faces; expected one")
    # Threads that spin while they wait take time from all others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopped = f"stopped; what was measured so far is in {arguments.out}"
    return run_main("benchmark", lambda: (_whole if arguments.whole else _benchmark)(arguments), stopped)


def _whole(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from align.errors import PhotoError
    from align.files import prepare_folder
    from completion.benchmark.whole import JSON_FILE, Row, WholeReport, compare_whole, methods, read_subjects
    from dcgan.checkpoint import load_fitting
    from dcgan.run import machine
    from dcgan.sampling import Progress, device_of

    def say(text: str) -> None:
        if not arguments.quiet:
            tqdm.write(text, file=sys.stderr)

    name = arguments.weights or AUTO
    trained = load_fitting(name, arguments.device)
    chosen = methods(trained, arguments.methods, arguments.seed)
    if (arguments.out / JSON_FILE).exists() and not arguments.overwrite:
        raise PhotoError(f"{arguments.out / JSON_FILE} exists; give --overwrite or another folder with --out")
    subjects = read_subjects(arguments.faces, say)
    prepare_folder(arguments.out, *arguments.faces)
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
    report.write(arguments.out)
    print(report.table())
    return 0


def _benchmark(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from tqdm import tqdm

    from align.errors import PhotoError
    from align.files import prepare_folder
    from completion.benchmark.compare import Row, compare, lacking, spread
    from completion.benchmark.report import JSON_FILE, Report
    from dcgan.checkpoint import load
    from dcgan.dataset import digest, load_faces
    from dcgan.run import machine
    from dcgan.sampling import Progress, device_of

    def say(text: str) -> None:
        if not arguments.quiet:
            tqdm.write(text, file=sys.stderr)

    options = BenchmarkOptions(
        arguments.limit, arguments.slow_limit, tuple(arguments.holes), tuple(arguments.methods), arguments.seed
    )
    name = arguments.weights or DEFAULT
    trained = load(name, arguments.device)
    if (arguments.out / JSON_FILE).exists() and not arguments.overwrite:
        raise PhotoError(f"{arguments.out / JSON_FILE} exists; give --overwrite or another folder with --out")
    size = trained.generator.config.size
    faces = spread(load_faces(arguments.faces[0], size, say), options.limit, options.seed)
    training = load_faces(arguments.train, size, say) if arguments.train else None
    prepare_folder(arguments.out, arguments.faces[0], *filter(None, [arguments.train]))
    left_out = lacking(options.methods, trained.encoder is not None, training is not None)
    notes = [f"{name} is left out: it needs {what}" for name, what in left_out.items()]
    if trained.encoder is None and "fast" in options.methods:
        notes.append("fast is the solver search: the weights have no encoder")
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
        report.write(arguments.out)
        if isinstance(item, Row):
            say(f"{item.hole}, {item.method}: hole-PSNR {item.hole_psnr:.2f} dB, {item.cpu_s:.3g} CPU s a face")
    print(report.tables())
    return 0


if __name__ == "__main__":
    # As an exception SIGTERM runs every clean-up on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

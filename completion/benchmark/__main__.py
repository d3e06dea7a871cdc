"""Command line of the benchmark: `python -m completion.benchmark`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import (
    Parser,
    add_common,
    add_settings,
    refuse_existing,
    run_main,
    run_program,
    settings_from,
    show_progress,
)
from completion.benchmark.config import BenchmarkOptions
from completion.config import LoadOptions
from weights import AUTO, DEFAULT, VERSION

if TYPE_CHECKING:
    import argparse

_EXAMPLE = """examples:
  %(prog)s aligned_val/ --train aligned/ --holes center pattern --methods fast telea linear
  %(prog)s --whole photos/ --methods fast fast+alpha telea
  %(prog)s --damage photos/

mean and linear need --train. The results in --output are updated after every method.
exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 128 + N stopped by signal N"""


def build_parser(program: str = "python -m completion.benchmark") -> Parser:
    """Create the argument parser."""
    parser = Parser(
        program,
        description="Compare completion methods, with and without the DCGAN, on the same holes in the same faces. "
        "Prints the tables, and writes them to a folder together with JSON and pictures.",
        epilog=_EXAMPLE,
    )
    help_faces = "folder of aligned faces not used in training; with --whole and --damage, folders of photos"
    parser.add_argument("faces", type=Path, nargs="+", help=help_faces)
    add_settings(parser, BenchmarkOptions)
    add_settings(parser, LoadOptions, only=("device",))
    add_common(parser, quiet="print only the tables and errors")
    return parser


def main(argv: list[str] | None = None, program: str = "python -m completion.benchmark") -> int:
    """Run the command and return its exit code, see --help."""
    arguments = build_parser(program).parse_args(argv)
    # Spinning OpenMP threads would count as CPU time and slow down everything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run_main("benchmark", lambda: _run(arguments), "stopped; results so far are in the output folder")


def _run_damage(arguments: argparse.Namespace, options: BenchmarkOptions, device: str) -> int:
    from align.files import prepare_folder, write_json, write_text
    from align.photo import write_photo
    from completion.benchmark.damage import compare_damage, read_clean, sheet, tables
    from completion.completer import FaceCompleter

    prepare_folder(options.output, *arguments.faces)
    paths = [options.output / name for name in ("damage.json", "damage.md", "damage.jpg")]
    refuse_existing(paths, options.overwrite)
    photos = read_clean(arguments.faces, options)
    completer, rows = FaceCompleter.load(options.weights or AUTO, device), []
    for row in show_progress(compare_damage(photos, options.seed, completer), quiet=arguments.quiet):
        rows.append(row)
        write_json(paths[0], [asdict(each) for each in rows])
        write_text(paths[1], tables(rows) + "\n")
    write_photo(paths[2], sheet(photos, options.seed, completer))
    print(tables(rows))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    options, device = settings_from(arguments, BenchmarkOptions), settings_from(arguments, LoadOptions).device
    if options.damage:
        return _run_damage(arguments, options, device)

    from tqdm import tqdm

    from align.files import prepare_folder
    from completion.benchmark.measure import compare
    from completion.benchmark.methods import BenchmarkError, create_methods
    from completion.benchmark.report import JSON_FILE, Report
    from completion.benchmark.samples import read_faces, read_photos
    from completion.networks import open_weights
    from dcgan.dataset import load_faces
    from dcgan.device import machine
    from dcgan.sampling import device_of

    def say(text: str) -> None:
        if not arguments.quiet:
            tqdm.write(text, file=sys.stderr)

    if len(arguments.faces) > 1 and not options.whole:
        raise BenchmarkError(f"{len(arguments.faces)} folders of aligned faces were given; expected one, or --whole")
    prepare_folder(options.output, *arguments.faces, *filter(None, [options.train]))
    refuse_existing([options.output / JSON_FILE], options.overwrite)
    name = options.weights or (AUTO if options.whole else DEFAULT)
    weights = open_weights(name, device)
    if options.whole:
        samples, training = read_photos(arguments.faces, options, say), None
    else:
        samples = read_faces(arguments.faces[0], weights[0].size, options, say)
        training = load_faces(options.train, weights[0].size, say) if options.train else None
    methods, notes = create_methods(weights, training, options)
    for note in notes:
        say(note)
    torch_device = device_of(weights[0].generator)
    metadata = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
        "weights": {"name": Path(name).name, "sha256": [each.sha256 for each in weights]},
        "faces": {"count": len(samples), "training": 0 if training is None else len(training)},
        "machine": machine(torch_device),
        "version": VERSION,
        "notes": notes,
    }
    report = Report(metadata)
    for item in show_progress(
        compare(samples, methods, options, weights[0].template, torch_device), quiet=arguments.quiet
    ):
        report.add(item)
        report.write(options.output)
    print(report.tables())
    return 0


if __name__ == "__main__":
    run_program(main)

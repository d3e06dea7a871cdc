"""Registry of the experiments, and the command python -m dcgan explore. Imports no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from align.cli import Parser, add_flags, at_least, refuse_existing, show_progress
from align.settings import SEEDS

# Arguments that are not settings of an experiment.
_NO_SETTINGS = ("command", "config", "handler", "output", "overwrite", "quiet", "run")


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Its module dcgan.explore.NAME, with _ for -, defines `add_options(parser)` for its own flags and
    `run(arguments, weights)`, which yields dcgan.sampling.Progress and then dcgan.explore.files.Files.

    Attributes:
        text: what the experiment does.
        example: arguments of an example.
        files: names of the output files.
        weights: whether it has the flags --weights and --device.
    """

    text: str
    example: str
    files: tuple[str, ...]
    weights: bool = True


EXPERIMENTS = {
    "walk": Experiment(
        "interpolate between random z, spherically and linearly, and measure how smoothly the images change",
        "--pairs 4 --output walk/",
        ("walk.png", "walk.gif", "walk.json"),
    ),
    "arithmetic": Experiment(
        "add and subtract mean z of faces with and without a label, sweep along the direction of a label, turn heads",
        '--label "mouth open" --output arithmetic/',
        ("arithmetic.png", "sweep.png", "turn.png", "arithmetic.json"),
    ),
    "gan-1d": Experiment(
        "train the original GAN on one-dimensional data, and compare D, its loss and G's gradients with the theory",
        "--steps 2000 --output gan-1d/",
        ("gan-1d.png", "gan-1d.json"),
        weights=False,  # small enough for the CPU
    ),
    "saliency": Experiment(
        "show the pixels that filters of D respond to, for a trained and an untrained D",
        "--filters 4 --output saliency/",
        ("saliency.png", "saliency.json"),
    ),
    "neighbours": Experiment(
        "find the training faces nearest to samples, by face embedding and by pixels",
        "aligned/ --output neighbours/",
        ("neighbours.png", "neighbours.json"),
    ),
    "duplicates": Experiment(
        "find near-duplicates in a folder of faces, and list them for train --dedupe",
        "aligned/ --planted 500 --output duplicates/",
        ("duplicates.png", "duplicates.json", "duplicates.txt"),
        weights=False,  # small enough for the CPU
    ),
    "features": Experiment(
        "classify images with few labels by features of D, of an untrained D, of patches and of pixels",
        "--labels 5 20 --output features/",
        ("features.png", "features.json"),
    ),
    "forget": Experiment(
        "drop the feature maps of G that correlate with a label or a box, and measure the label before and after",
        '--label "mouth open" --output forget/',
        ("forget.png", "forget.json"),
    ),
    "lsro": Experiment(
        "train a small classifier with and without samples as unlabelled additional data",
        "--labels 10 --output lsro/",
        ("lsro.png", "lsro.json"),
    ),
}


class _Parser(Parser):
    """Parser of one experiment; imports the experiment's module, and with it torch, only if it is chosen."""

    experiment = ""

    def add_late_options(self) -> None:
        if self.experiment:
            module = import_module(f"dcgan.explore.{self.experiment.replace('-', '_')}")
            module.add_options(self)
            self.experiment = ""
            self.set_defaults(run=module.run)


def add_explore(commands: Any) -> None:
    """Add the command `explore`, with one sub-command per experiment."""
    parser = commands.add_parser(
        "explore",
        help="run an experiment: walk, arithmetic, ...",
        description="Run an experiment with a trained DCGAN. Each writes pictures and a JSON file of its results.",
        epilog="example: %(prog)s walk --output walk/",
    )
    names = parser.add_subparsers(dest="experiment", required=True, metavar="NAME", parser_class=_Parser)
    for name, experiment in EXPERIMENTS.items():
        text = experiment.text
        parser = names.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. Writes {', '.join(experiment.files)}.",
            epilog=f"example: %(prog)s {experiment.example}",
        )
        parser.experiment = name
        parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the output files")
        parser.add_argument("--seed", type=at_least(0, SEEDS.high), default=0, help="seed of all random choices")
        parser.add_argument("--overwrite", action="store_true", help="replace existing files")
        if experiment.weights:
            add_flags(parser, "--weights", "--device")
        add_flags(parser, "--config", "--quiet")
        parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Run an experiment and write its files; the JSON includes the settings and the weights' SHA-256."""
    from dcgan.explore.files import write_files
    from dcgan.sampling import Progress
    from dcgan.weights import Weights

    experiment = EXPERIMENTS[arguments.experiment]
    paths = [arguments.output / name for name in experiment.files]
    refuse_existing(paths, arguments.overwrite)
    settings = {name: _plain(value) for name, value in vars(arguments).items() if name not in _NO_SETTINGS}
    facts: dict[str, Any] = {"settings": settings}
    weights = None
    if experiment.weights:
        weights = Weights.open(arguments.weights, arguments.device)
        facts["weights_sha256"] = weights.sha256
    *_, files = show_progress(arguments.run(arguments, weights), Progress)
    for name in experiment.files:
        if name.endswith(".json"):
            files[name] = facts | files[name]
    write_files(arguments.output, files)
    print(*paths, sep="\n")
    return 0


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | tuple | None) else str(value)

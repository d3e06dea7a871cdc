"""The experiments by name, and the command python -m dcgan explore; imports nothing heavy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from align.cli import add_flags, at_least, refuse_existing, show_progress

# Arguments that say nothing of what was measured.
_UNTOLD = ("command", "config", "handler", "out", "overwrite", "run")


@dataclass(frozen=True)
class Experiment:
    """An entry of the registry.

    The module dcgan.explore.NAME, with _ for -, has `add_options(parser)` for its own flags, and
    `run(arguments, weights)`, which yields dcgan.sampling.Progress and then its files, see dcgan.explore.files.Files.

    Attributes:
        text: what it does.
        example: words behind the name that show how.
        files: what it writes.
        weights: whether it takes any, and a device.
    """

    text: str
    example: str
    files: tuple[str, ...]
    weights: bool = True


EXPERIMENTS = {
    "walk": Experiment(
        "walk from one z to another, spherically and linearly, and measure how even the walks are",
        "--pairs 4 --out walk/",
        ("walk.png", "walk.gif", "walk.json"),
    ),
    "arithmetic": Experiment(
        "add and subtract mean z's of faces with and without a label, sweep along its direction, turn heads",
        '--label "mouth open" --out arithmetic/',
        ("arithmetic.png", "sweep.png", "turn.png", "arithmetic.json"),
    ),
    "gan-1d": Experiment(
        "train the original GAN on numbers, and hold D, its loss and G's gradients against the theory",
        "--steps 2000 --out gan-1d/",
        ("gan-1d.png", "gan-1d.json"),
        weights=False,  # small enough for the CPU
    ),
    "saliency": Experiment(
        "show what in a face the filters of D respond to, beside those of an untrained D",
        "--filters 4 --out saliency/",
        ("saliency.png", "saliency.json"),
    ),
    "neighbours": Experiment(
        "set samples beside the training faces nearest to them, by descriptor and by pixels",
        "aligned/ --out neighbours/",
        ("neighbours.png", "neighbours.json"),
    ),
    "duplicates": Experiment(
        "find near-duplicates in a folder, for train --dedupe to leave out",
        "aligned/ --planted 500 --out duplicates/",
        ("duplicates.png", "duplicates.json", "duplicates.txt"),
        weights=False,  # small enough for the CPU
    ),
    "features": Experiment(
        "classify images with few labels by D's features, beside an untrained D's, patches and pixels",
        "--labels 5 20 --out features/",
        ("features.png", "features.json"),
    ),
    "forget": Experiment(
        "drop the feature maps of G that go with a label or a place, and see what becomes of the label",
        '--label "mouth open" --out forget/',
        ("forget.png", "forget.json"),
    ),
    "lsro": Experiment(
        "train a small classifier with and without samples as unlabelled extra data",
        "--labels 10 --out lsro/",
        ("lsro.png", "lsro.json"),
    ),
}


class _Parser(argparse.ArgumentParser):
    """The parser of one experiment; its module, which imports torch, is imported only when the experiment is chosen."""

    experiment = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.experiment:
            module = import_module(f"dcgan.explore.{self.experiment.replace('-', '_')}")
            module.add_options(self)
            self.experiment = ""
            self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def add_explore(commands: Any) -> None:
    """Add the command `explore`, with one sub-command for each experiment."""
    parser = commands.add_parser(
        "explore",
        help="experiments: walks, arithmetic and more, each a picture and its numbers",
        description="Experiments with a trained DCGAN. Each writes a picture and its numbers as JSON.",
        epilog="example: python -m dcgan explore walk --out walk/",
    )
    names = parser.add_subparsers(dest="experiment", required=True, metavar="NAME", parser_class=_Parser)
    for name, experiment in EXPERIMENTS.items():
        text = experiment.text
        parser = names.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. Writes {', '.join(experiment.files)}.",
            epilog=f"example: python -m dcgan explore {name} {experiment.example}",
        )
        parser.experiment = name
        parser.add_argument("--out", type=Path, required=True, help="folder for the files")
        parser.add_argument("--seed", type=at_least(0), default=0, help="of every choice (%(default)s)")
        parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
        if experiment.weights:
            add_flags(parser, "--weights", "--config", "--device")
        else:
            add_flags(parser, "--config")
        parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Run an experiment and write its files; the JSON tells the settings and the weights, too."""
    from dcgan.checkpoint import load
    from dcgan.explore.files import write_files
    from dcgan.sampling import Progress

    experiment = EXPERIMENTS[arguments.experiment]
    paths = [arguments.out / name for name in experiment.files]
    refuse_existing(paths, arguments.overwrite)
    settings = {name: _plain(value) for name, value in vars(arguments).items() if name not in _UNTOLD}
    facts: dict[str, Any] = {"settings": settings}
    weights = None
    if experiment.weights:
        weights = load(arguments.weights, arguments.device)
        facts["weights_sha256"] = weights.sha256
    *_, files = show_progress(arguments.run(arguments, weights), Progress)
    for name in experiment.files:
        if name.endswith(".json"):
            files[name] = facts | files[name]
    write_files(arguments.out, files)
    print(*paths, sep="\n")
    return 0


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | None) else str(value)

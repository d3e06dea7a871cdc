"""The command line of python -m dcgan explore; imports nothing heavy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import CONFIG_HELP, at_least, refuse_existing, say, show_progress
from dcgan.command import add_common
from weights import DEFAULT, REGISTRY

if TYPE_CHECKING:
    from dcgan.checkpoint import Weights
    from dcgan.explore.files import Files
    from dcgan.sampling import Progress

# Arguments that say nothing of what was measured.
_UNTOLD = ("command", "config", "files", "handler", "out", "overwrite", "explore")
_DESCRIPTION = "Experiments with a trained DCGAN. Each writes a picture and its numbers as JSON."


def add_explore(commands: Any) -> None:
    """Add the command `explore`, with one sub-command for each experiment."""
    parser = commands.add_parser(
        "explore",
        help="experiments: walks, arithmetic and more, each a picture and its numbers",
        description=_DESCRIPTION,
        epilog="example: python -m dcgan explore walk --out walk/",
    )
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="NAME")
    for add in (
        _add_walk,
        _add_arithmetic,
        _add_gan_1d,
        _add_saliency,
        _add_neighbours,
        _add_duplicates,
        _add_features,
        _add_forget,
        _add_lsro,
    ):
        add(experiments)


def _add(
    experiments: Any,
    name: str,
    text: str,
    example: str,
    files: tuple[str, ...],
    steps: Callable[..., Iterator[Progress | Files]],
    weights: bool = True,
) -> argparse.ArgumentParser:
    """A sub-command: what all experiments have in common.

    Args:
        experiments: the sub-commands of explore.
        name: of the experiment.
        text: what it does.
        example: words behind the name that show how.
        files: what it writes.
        steps: runs it; gets the arguments and, where `weights`, these.
        weights: whether it takes any, and a device.
    """
    parser = experiments.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Writes {', '.join(files)}.",
        epilog=f"example: python -m dcgan explore {name} {example}",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of every choice (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    if weights:
        parser.add_argument("--weights", default=DEFAULT, help=f"file or name: {', '.join(REGISTRY)} (%(default)s)")
        add_common(parser)
    else:  # small enough for the CPU
        parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    parser.set_defaults(handler=_run, files=files, explore=steps)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    """Run an experiment and write its files; the JSON tells the settings and the weights, too."""
    from dcgan.explore.files import write_files

    refuse_existing([arguments.out / name for name in arguments.files], arguments.overwrite)
    facts: dict[str, Any] = {"settings": {name: _plain(value) for name, value in vars(arguments).items()}}
    facts["settings"] = {name: value for name, value in facts["settings"].items() if name not in _UNTOLD}
    if "weights" in arguments:
        trained = _weights(arguments)
        facts["weights_sha256"] = trained.sha256
        files = show_progress(arguments.explore(arguments, trained))
    else:
        files = show_progress(arguments.explore(arguments))
    for name in arguments.files:
        if name.endswith(".json"):
            files[name] = facts | files[name]
    write_files(arguments.out, files)
    print(*(arguments.out / name for name in arguments.files), sep="\n")
    return 0


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | None) else str(value)


def _weights(arguments: argparse.Namespace) -> Weights:
    import weights
    from dcgan.checkpoint import load_weights, pick_device

    return load_weights(weights.resolve(arguments.weights), pick_device(arguments.device))


def _add_walk(experiments: Any) -> None:
    parser = _add(
        experiments,
        "walk",
        "walk from one z to another, spherically and linearly, and measure how even the walks are",
        "--pairs 4 --out walk/",
        ("walk.png", "walk.gif", "walk.json"),
        _walk,
    )
    parser.add_argument("--pairs", type=at_least(1), default=8, help="walks of each kind (%(default)s)")
    parser.add_argument(
        "--steps", type=at_least(3), default=16, help="images of a walk, both ends included (%(default)s)"
    )


def _walk(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.explore.walk import walk

    return walk(weights, arguments.pairs, arguments.steps, arguments.seed)


def _add_arithmetic(experiments: Any) -> None:
    parser = _add(
        experiments,
        "arithmetic",
        "add and subtract mean z's of faces with and without a label, sweep along its direction, turn heads",
        '--label "mouth open" --out arithmetic/',
        ("arithmetic.png", "sweep.png", "turn.png", "arithmetic.json"),
        _arithmetic,
    )
    parser.add_argument(
        "--label", action="append", help="a label that is measured, may be repeated: mouth open, ... (all)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.json",
        help='your own: {"glasses": {"with": [3, 17], "without": [0, 1, 2]}}, numbers of the samples of --seed',
    )
    parser.add_argument("--count", type=at_least(1), default=1000, help="samples to choose from (%(default)s)")


def _arithmetic(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.dataset import DatasetError
    from dcgan.explore.arithmetic import LABELS, arithmetic

    labels = arguments.label or LABELS
    _known_labels(labels)
    try:
        lists = json.loads(arguments.labels.read_text()) if arguments.labels else {}
        if not all(isinstance(sides, dict) for sides in lists.values()):
            raise ValueError("a label is no object")
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(
            f'--labels {arguments.labels} cannot be read ({error}); expected {{"name": {{"with": [...], '
            '"without": [...]}} in JSON'
        ) from error
    return arithmetic(weights, labels, lists, arguments.count, arguments.seed)


def _known_labels(labels: Sequence[str]) -> None:
    from dcgan.config import ConfigError
    from dcgan.explore.arithmetic import LABELS

    unknown = [label for label in labels if label not in LABELS]
    if unknown:
        raise ConfigError(f"the label {unknown[0]!r} cannot be measured, only: {', '.join(LABELS)}")


def _add_gan_1d(experiments: Any) -> None:
    parser = _add(
        experiments,
        "gan-1d",
        "train the original GAN on numbers, and hold D, its loss and G's gradients against the theory",
        "--steps 2000 --out gan-1d/",
        ("gan-1d.png", "gan-1d.json"),
        _gan_1d,
        weights=False,
    )
    parser.add_argument("--steps", type=at_least(8), default=1000, help="of G, in each of two games (%(default)s)")
    parser.add_argument("--d-steps", type=at_least(1), default=3, help="of D for each of G (%(default)s)")


def _gan_1d(arguments: argparse.Namespace) -> Iterator[Progress | Files]:
    from dcgan.explore.gan_1d import gan_1d

    return gan_1d(arguments.steps, arguments.d_steps, arguments.seed)


def _add_saliency(experiments: Any) -> None:
    parser = _add(
        experiments,
        "saliency",
        "show what in a face the filters of D respond to, beside those of an untrained D",
        "--filters 4 --out saliency/",
        ("saliency.png", "saliency.json"),
        _saliency,
    )
    parser.add_argument("--faces", type=Path, help="folder of aligned faces (generated ones)")
    parser.add_argument("--count", type=at_least(2), default=500, help="generated faces (%(default)s)")
    parser.add_argument("--layer", type=int, default=-1, help="of D's blocks, -1 the last (%(default)s)")
    parser.add_argument("--filters", type=at_least(1), default=6, help="filters to show (%(default)s)")


def _saliency(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.dataset import load_faces
    from dcgan.explore.saliency import saliency

    faces = load_faces(arguments.faces, weights.discriminator.config.size, say) if arguments.faces else None
    return saliency(weights, faces, arguments.layer, arguments.filters, arguments.count, arguments.seed)


def _add_neighbours(experiments: Any) -> None:
    parser = _add(
        experiments,
        "neighbours",
        "set samples beside the training faces nearest to them, by descriptor and by pixels",
        "aligned/ --out neighbours/",
        ("neighbours.png", "neighbours.json"),
        _neighbours,
    )
    parser.add_argument("faces", type=Path, help="folder of the faces that G was trained on")
    parser.add_argument("--count", type=at_least(1), default=10, help="samples (%(default)s)")
    parser.add_argument(
        "--described", type=at_least(5), default=5000, help="training faces to search by descriptor (%(default)s)"
    )


def _neighbours(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.dataset import load_faces
    from dcgan.explore.neighbours import neighbours

    training = load_faces(arguments.faces, weights.generator.config.size, say)
    return neighbours(weights, training, arguments.count, arguments.described, arguments.seed)


def _add_duplicates(experiments: Any) -> None:
    parser = _add(
        experiments,
        "duplicates",
        "find near-duplicates in a folder, for train --dedupe to leave out",
        "aligned/ --planted 500 --out duplicates/",
        ("duplicates.png", "duplicates.json", "duplicates.txt"),
        _duplicates,
        weights=False,
    )
    parser.add_argument("faces", type=Path, help="folder of crops")
    parser.add_argument("--size", type=at_least(16), default=64, help="side of the crops in pixels (%(default)s)")
    parser.add_argument("--epochs", type=at_least(1), default=5, help="of the autoencoder (%(default)s)")
    parser.add_argument(
        "--planted", type=at_least(0), default=0, help="altered copies to measure the recall with (%(default)s)"
    )


def _duplicates(arguments: argparse.Namespace) -> Iterator[Progress | Files]:
    from dcgan.dataset import load_named_faces
    from dcgan.explore.duplicates import duplicates

    names, faces = load_named_faces(arguments.faces, arguments.size, say)
    return duplicates(names, faces, arguments.epochs, arguments.planted, arguments.seed)


def _add_labelled(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="digits", help="digits, cifar10, svhn, or a folder with one sub-folder a class (%(default)s)"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder with the files of cifar10 or svhn")
    parser.add_argument(
        "--most", type=at_least(2), default=2000, help="images for training, and for testing (%(default)s)"
    )


def _add_features(experiments: Any) -> None:
    parser = _add(
        experiments,
        "features",
        "classify images with few labels by D's features, beside an untrained D's, patches and pixels",
        "--labels 5 20 --out features/",
        ("features.png", "features.json"),
        _features,
    )
    _add_labelled(parser)
    parser.add_argument(
        "--labels", type=at_least(1), nargs="+", default=[2, 10, 50], help="numbers of labels a class (2 10 50)"
    )
    parser.add_argument("--draws", type=at_least(1), default=5, help="of these labels (%(default)s)")


def _features(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.explore.features import compare_features
    from dcgan.explore.labelled import load_labelled

    size = weights.discriminator.config.size
    data = load_labelled(arguments.data, arguments.root, size, arguments.most, arguments.seed)
    return compare_features(weights, data, arguments.labels, arguments.draws, arguments.seed)


def _add_forget(experiments: Any) -> None:
    parser = _add(
        experiments,
        "forget",
        "drop the feature maps of G that go with a label or a place, and see what becomes of the label",
        '--label "mouth open" --out forget/',
        ("forget.png", "forget.json"),
        _forget,
    )
    parser.add_argument(
        "--label", default="mouth open", help="a label that is measured, as of arithmetic (%(default)s)"
    )
    parser.add_argument(
        "--box", type=float, nargs=4, metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"), help="a place, in shares of the side"
    )
    parser.add_argument(
        "--layer", type=int, default=0, help="of G's hidden ones, 0 the first, -1 the last (%(default)s)"
    )
    parser.add_argument(
        "--drop", type=at_least(1), nargs="+", default=[64, 1000], help="numbers of maps (64 1000: all tied ones)"
    )
    parser.add_argument("--count", type=at_least(2), default=500, help="samples to learn from (%(default)s)")


def _forget(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.explore.forget import forget

    box = tuple(arguments.box) if arguments.box else None
    _known_labels([arguments.label])
    return forget(weights, arguments.label, box, arguments.layer, arguments.drop, arguments.count, arguments.seed)


def _add_lsro(experiments: Any) -> None:
    parser = _add(
        experiments,
        "lsro",
        "train a small classifier with and without samples as unlabelled extra data",
        "--labels 10 --out lsro/",
        ("lsro.png", "lsro.json"),
        _lsro,
    )
    _add_labelled(parser)
    parser.add_argument("--labels", type=at_least(1), default=20, help="labels a class (%(default)s)")
    parser.add_argument("--samples", type=at_least(1), default=500, help="generated images (%(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=300, help="of Adam (%(default)s)")
    parser.add_argument("--runs", type=at_least(1), default=5, help="for mean and spread (%(default)s)")


def _lsro(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    from dcgan.explore.labelled import load_labelled
    from dcgan.explore.lsro import lsro

    data = load_labelled(arguments.data, arguments.root, weights.generator.config.size, arguments.most, arguments.seed)
    return lsro(weights, data, arguments.labels, arguments.samples, arguments.steps, arguments.runs, arguments.seed)

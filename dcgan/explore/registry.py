"""Registry of the experiments and their settings. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from align.settings import POSITIONAL, Option, Range
from dcgan.config import Overwrite, Seed
from dcgan.device import Device
from dcgan.weights import WeightsName
from weights import DEFAULT

Label = Literal["mouth open", "smile width", "turn right", "eyes open", "bright hair"]
LABELS: tuple[str, ...] = get_args(Label)
_FROM_1, _FROM_2 = Range(1, 1_000_000_000), Range(2, 1_000_000_000)


@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """Settings of every experiment."""

    output: Annotated[Path, "folder for the output files", Option(short="-o")]
    seed: Seed = 0
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class ExploreWeights(ExploreOptions):
    """Settings of an experiment with trained networks."""

    weights: WeightsName = DEFAULT
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class _Walk(ExploreWeights):
    """Interpolate between random z, spherically and linearly, and measure how smoothly the images change."""

    pairs: Annotated[int, _FROM_1, "number of walks"] = 8
    steps: Annotated[int, Range(3, 10_000), "images per walk, both ends included"] = 16


@dataclass(frozen=True, kw_only=True)
class _Arithmetic(ExploreWeights):
    """Add and subtract mean z of faces with and without a label, sweep along the direction of a label, turn heads."""

    label: Annotated[tuple[Label, ...], "measured labels (default: all)", Option(metavar="LABEL")] = get_args(Label)
    count: Annotated[int, _FROM_1, "number of samples"] = 1000


@dataclass(frozen=True, kw_only=True)
class _Gan1d(ExploreOptions):
    """Train the original GAN on one-dimensional data, and compare D, its loss and G's gradients with the theory."""

    steps: Annotated[int, Range(8, 1_000_000_000), "steps of G for each of two objectives"] = 1000
    d_steps: Annotated[int, _FROM_1, "steps of D per step of G"] = 3


@dataclass(frozen=True, kw_only=True)
class _Saliency(ExploreWeights):
    """Show the pixels that filters of D respond to, for a trained and an untrained D."""

    count: Annotated[int, _FROM_2, "number of generated faces"] = 500
    layer: Annotated[int, "block of D, 0 for the first, -1 for the last"] = -1
    filters: Annotated[int, _FROM_1, "number of filters to show"] = 6


@dataclass(frozen=True, kw_only=True)
class _Neighbours(ExploreWeights):
    """Find the training faces nearest to samples, by face embedding and by pixels."""

    faces: Annotated[Path, "folder of the faces that G was trained on", POSITIONAL]
    count: Annotated[int, _FROM_1, "number of samples"] = 10
    described: Annotated[int, Range(5, 1_000_000_000), "most training faces to compare by face embedding"] = 5000


@dataclass(frozen=True, kw_only=True)
class _Duplicates(ExploreOptions):
    """Find near-duplicates in a folder of faces, and list them for train --dedupe."""

    faces: Annotated[Path, "folder of crops written by python -m align", POSITIONAL]
    size: Annotated[int, Range(16, 4096), "side of the crops in pixels"] = 64
    epochs: Annotated[int, _FROM_1, "training epochs of the autoencoder"] = 5
    planted: Annotated[int, Range(0, 1_000_000_000), "number of altered copies of each kind, to measure the recall"] = 0


@dataclass(frozen=True, kw_only=True)
class _Features(ExploreWeights):
    """Classify scikit-learn's digits with few labels by features of D, of an untrained D, of patches and of pixels."""

    labels: Annotated[tuple[Annotated[int, _FROM_1], ...], "labels per class", Option(metavar="N")] = (2, 10, 50)
    draws: Annotated[int, _FROM_1, "random draws of these labels"] = 5


@dataclass(frozen=True, kw_only=True)
class _Forget(ExploreWeights):
    """Drop the feature maps of G that correlate with a label, and measure the label before and after."""

    label: Annotated[Label, "measured label"] = "mouth open"
    layer: Annotated[int, "hidden layer of G, 0 for the first, -1 for the last"] = 0
    drop: Annotated[
        tuple[Annotated[int, _FROM_1], ...], "numbers of maps to drop, at most all tied ones", Option(metavar="N")
    ] = (64, 1000)
    count: Annotated[int, _FROM_2, "samples for the regression"] = 500


@dataclass(frozen=True)
class Experiment:
    """An experiment, described by the docstring of its settings.

    Its module dcgan.explore.NAME, with _ for -, defines `run`, which takes the settings and the loaded weights by name,
    and yields Progress and at last its outputs, see `dcgan.explore.files.Outputs`.
    """

    settings: type[ExploreOptions]
    example: str  # arguments of an example
    files: tuple[str, ...]  # names of its outputs


EXPERIMENTS = {
    "walk": Experiment(_Walk, "--pairs 4 --output walk/", ("walk.png", "walk.gif", "walk.json")),
    "arithmetic": Experiment(
        _Arithmetic,
        '--label "mouth open" --output arithmetic/',
        ("arithmetic.png", "sweep.png", "turn.png", "arithmetic.json"),
    ),
    "gan-1d": Experiment(_Gan1d, "--steps 2000 --output gan-1d/", ("gan-1d.png", "gan-1d.json")),
    "saliency": Experiment(_Saliency, "--filters 4 --output saliency/", ("saliency.png", "saliency.json")),
    "neighbours": Experiment(_Neighbours, "aligned/ --output neighbours/", ("neighbours.png", "neighbours.json")),
    "duplicates": Experiment(
        _Duplicates,
        "aligned/ --planted 500 --output duplicates/",
        ("duplicates.png", "duplicates.json", "duplicates.txt"),
    ),
    "features": Experiment(_Features, "--labels 5 20 --output features/", ("features.png", "features.json")),
    "forget": Experiment(_Forget, '--label "mouth open" --output forget/', ("forget.png", "forget.json")),
}

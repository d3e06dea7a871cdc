"""Settings and names of completion. Imports no torch, so that --help stays fast."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from align.config import Backend
from align.errors import ConfigError, hint
from align.settings import SEEDS, Option, Range, check
from dcgan.device import check_device
from dcgan.weights import weights_name
from weights import AUTO, REGISTRY

Blend = Literal["poisson", "alpha", "none"]  # the first is the default
BLENDS: tuple[Blend, ...] = get_args(Blend)
NoFace = Literal["fill", "fail"]
_Coordinate = Annotated[float, Range(-1_000_000, 1_000_000)]
_Quad = tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate]


@dataclass(frozen=True)
class Solver:
    """Settings of the search for z.

    Attributes:
        start: "encoder" completes a face in one pass: candidates are the encoder's z, and that z with noise. "random"
            samples z from the prior and optimises them.
        steps: number of Adam steps; 0 with "encoder", as they fit the visible pixels better and the missing ones worse.
        samples: number of sampled z; the `candidates` with the lowest context loss become the candidates.
        candidates: number of z optimised in parallel, K; the best one is the result.
        lr: initial learning rate of Adam.
        cosine: decay the learning rate to 0 along a cosine.
        weighted: weight visible pixels by their proximity to the hole (Yeh et al.); otherwise uniformly.
        prior: "log" for -log D(G(z)), "saturating" for log(1 - D(G(z))).
        prior_weight: weight of the prior loss.
        z_weight: weight of the mean square of z, which keeps z in the region that G was trained on.
        clip: bound on each dimension of z, applied after every step: the value itself for a uniform prior, 3 times
            the value for a normal one; None for no bound.
        flip_sigma_px: horizontal-flip test-time augmentation of "encoder": average the images found for the face and
            its mirror image in all that is coarser than a Gaussian of this deviation; 0 averages them entirely, None
            not at all.
    """

    start: Literal["random", "encoder"] = "random"
    steps: Annotated[int, Range(0, 1_000_000)] = 0
    samples: Annotated[int, Range(1, 1_000_000)] = 1
    candidates: Annotated[int, Range(1, 10_000)] = 1
    lr: Annotated[float, Range(0, 1000)] = 0.01
    cosine: bool = False
    weighted: bool = True
    prior: Literal["log", "saturating"] = "log"
    prior_weight: Annotated[float, Range(0, 1_000_000_000)] = 1.0
    z_weight: Annotated[float, Range(0, 1_000_000_000)] = 0.0
    clip: Annotated[float, Range(0, 1000)] | None = None
    flip_sigma_px: Annotated[float, Range(0, 10)] | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.start == "encoder" and self.steps:
            raise ConfigError(f"steps is {self.steps}; expected 0 for a solver that starts from the encoder")


# The loss weights only rank several candidates. The encoder's errors on the face and on its mirror image differ, so
# averaging reduces them (0.15 dB); it also blurs details, unless they are left out.
_ENCODER = Solver("encoder", lr=0.0, prior_weight=30.0, z_weight=100.0, flip_sigma_px=3.0)


SOLVERS = {
    "thorough": replace(_ENCODER, flip_sigma_px=0.0),
    # Needs no encoder.
    "search": Solver(steps=30, samples=128, candidates=8, lr=0.2, cosine=True, z_weight=100.0),
    "encoder": _ENCODER,
    # Yeh et al. 2017, sections 3 and 4; the paper does not state the learning rate.
    "paper": Solver(steps=1500, prior="saturating", prior_weight=0.003, clip=1.0),
    # Amos 2016, defaults of dcgan-completion.tensorflow.
    "bamos": Solver(steps=1000, weighted=False, prior_weight=0.1, clip=1.0),
}


def blur_radius(sigma: float) -> int:
    """Reach of a Gaussian kernel in pixels, beyond which its weights are hardly felt."""
    return round(3 * sigma)


# "fast" is "encoder" if the weights have one, otherwise "search".
SOLVER_NAMES = ("fast", *SOLVERS)


def _solver_name(text: str) -> str:
    if text not in SOLVER_NAMES:
        raise ConfigError(f"there is no solver named {text!r}; {hint(text, SOLVER_NAMES)}")
    return text


def _flat(value: Any) -> Any:
    """The numbers of an array, a list or several points as a tuple; anything else as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return value
    parts = [part if part and isinstance(part, tuple) else (part,) for part in map(_flat, value)]
    return tuple(number for part in parts for number in part)


@dataclass(frozen=True)
class FillOptions:
    """How to fill the hole of a photo: the same names, defaults and ranges for the library, the command and the page.

    Raises:
        ConfigError: a value has another type or is out of range.
    """

    on: Annotated[Literal["largest", "all"], "faces that a named mask is placed on", Option(flag="--faces")] = "largest"
    no_face: Annotated[
        NoFace | None,
        "fill a mask that touches no face from its surroundings, or fail (default: fail for a single photo, fill for "
        "several and for damage)",
    ] = None
    box: Annotated[
        _Quad | None,
        "box of an upright face in pixels, from the brows to the chin",
        Option(metavar="X,Y,W,H"),
    ] = None
    eyes: Annotated[
        _Quad | None,
        "eye centres of a face in pixels; the face may be rotated",
        Option(metavar="X,Y,X,Y"),
    ] = None
    aligned: Annotated[
        bool,
        "squares of the weights' size are aligned faces; those that python -m align recorded, and those with a face in "
        "the right place, are so without it",
    ] = False
    solver: Annotated[
        str | Solver,
        "fast takes one pass of the networks; thorough is nearer to the truth, but softer; the others, for "
        "comparison, search for seconds to minutes",
        Option(metavar=f"{{{','.join(SOLVER_NAMES)}}}", parse=_solver_name),
    ] = "fast"
    prior_weight: Annotated[
        float | None,
        Range(0, 1_000_000_000),
        "weight of the prior (discriminator) loss (default: set by the solver)",
        Option(metavar="W"),
    ] = None
    seconds: Annotated[
        float | None,
        Range(0, 1_000_000),
        "time limit of the search, in seconds per photo",
        Option(metavar="S"),
    ] = None
    detail: Annotated[
        Literal["auto", "network"],
        "auto gives large faces the fine structure of their own other half or of a reference, and continues the "
        "surroundings beside them; network shows what the networks generate",
    ] = "auto"
    reference: Annotated[
        tuple[Path, ...],
        "other photos of the same person, or folders of photos to find the person in",
        Option(metavar="PATH"),
    ] = ()
    candidates: Annotated[int, Range(1, 64), "number of different completions", Option(metavar="N")] = 1
    blend: Annotated[Blend, "how to blend the fill into the photo"] = "poisson"
    seed: Annotated[int, SEEDS, "seed of the search and of random masks", Option(metavar="N")] = 0

    def __post_init__(self) -> None:
        if isinstance(self.reference, str | os.PathLike):
            object.__setattr__(self, "reference", (Path(self.reference),))
        elif isinstance(self.reference, list | tuple) and all(isinstance(p, str | os.PathLike) for p in self.reference):
            object.__setattr__(self, "reference", tuple(map(Path, self.reference)))
        object.__setattr__(self, "box", _flat(self.box))
        object.__setattr__(self, "eyes", _flat(self.eyes))
        check(self)
        if isinstance(self.solver, str):
            _solver_name(self.solver)
        if self.box and self.eyes:
            raise ConfigError("both box and eyes are given; give the position of the face once")


@dataclass(frozen=True)
class LoadOptions:
    """Which networks to use, and where they run."""

    weights: Annotated[
        str,
        f"weights file or name: {', '.join(REGISTRY)}; auto picks by face size",
        Option(metavar="WEIGHTS", parse=lambda name: weights_name(name, AUTO)),
    ] = AUTO
    device: Annotated[
        str, "auto (a GPU if there is one), cpu, cuda or cuda:N", Option(short="-d", parse=check_device)
    ] = "auto"


@dataclass(frozen=True)
class FileOptions:
    """What to read and write when the photos are files."""

    mask: Annotated[
        str,
        "pixels to fill, see below; or give photo, mask file",
        Option(short="-m", metavar="NAME|FILE|FOLDER|alpha|damage"),
    ] = ""
    invert_mask: Annotated[bool, "fill black pixels of mask files, or opaque pixels with alpha"] = False
    landmarks: Annotated[
        Path | None,
        "faces.jsonl with the positions of the faces, from python -m align on the photos without holes",
        Option(metavar="FILE"),
    ] = None
    output: Annotated[
        Path | None,
        "output folder; for a single photo also a file, or - for a PNG to stdout (default: completed/; for a photo "
        "from stdin -)",
        Option(short="-o"),
    ] = None
    save_mask: Annotated[bool, "also write the mask, white on black, to edit it and fill again"] = False
    strip: Annotated[bool, "also write the photo, the hole and the completion side by side"] = False
    history: Annotated[bool, "also write a GIF of the search, and its losses as JSON Lines"] = False
    report: Annotated[
        Path | None, "write results per photo as JSON, with PSNR for named masks", Option(metavar="FILE.json")
    ] = None
    overwrite: Annotated[
        bool,
        "replace any file (default: of several photos, skip those with a result of the same settings; redo others that "
        "were made here from the same photo)",
    ] = False
    jobs: Annotated[int, Range(1, 10_000), "number of parallel workers", Option(metavar="N")] = 1
    backend: Backend = "processes"

    def __post_init__(self) -> None:
        check(self)

"""Settings and names of completion. Imports no torch, so that --help stays fast."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from align.settings import SEEDS, Range, check

Start = Literal["random", "encoder"]
Prior = Literal["log", "saturating"]
Faces = Literal["largest", "all"]
NoFace = Literal["fill", "fail"]

_Coordinate = Annotated[float, Range(-1_000_000, 1_000_000)]

# The first is the default.
BLENDS = ("poisson", "alpha", "none")


@dataclass(frozen=True)
class Solver:
    """Settings of the search for z.

    Attributes:
        steps: number of Adam steps.
        restarts: number of candidates optimised in parallel, K; the best one is the result.
        start: "random" samples z from the prior; "encoder" adds such samples to the encoder's estimate, with no noise
            on the first.
        draws: number of sampled z; the `restarts` with the lowest context loss become the candidates.
        lr: initial learning rate of Adam.
        cosine: decay the learning rate to 0 along a cosine.
        weighted: weight visible pixels by their proximity to the hole (Yeh et al.); otherwise uniformly.
        prior: "log" for -log D(G(z)), "saturating" for log(1 - D(G(z))).
        prior_weight: weight of the prior loss.
        z_weight: weight of the mean square of z, which keeps z in the region that G was trained on.
        clip: bound on each dimension of z, applied after every step: the value itself for a uniform prior, 3 times
            the value for a normal one; None for no bound.
        mirrored: horizontal-flip test-time augmentation: average the images found for the face and its mirror image in
            all that is coarser than a Gaussian of so many pixels; 0 averages them entirely, None not at all.
    """

    steps: Annotated[int, Range(0, 1_000_000)]
    restarts: Annotated[int, Range(1, 10_000)]
    start: Start
    draws: Annotated[int, Range(1, 1_000_000)]
    lr: Annotated[float, Range(0, 1000)]
    cosine: bool
    weighted: bool
    prior: Prior
    prior_weight: Annotated[float, Range(0, 1_000_000_000)]
    z_weight: Annotated[float, Range(0, 1_000_000_000)]
    clip: Annotated[float, Range(0, 1000)] | None
    mirrored: Annotated[float, Range(0, 10)] | None = None

    def __post_init__(self) -> None:
        check(self)


# A single encoder pass. Further Adam steps fit the visible pixels better and the missing ones worse. The loss weights
# only rank several candidates. The encoder's errors on the face and on its mirror image differ, so averaging reduces
# them; it also blurs details, unless they are left out.
_ENCODER = Solver(
    steps=0,
    restarts=1,
    start="encoder",
    draws=1,
    lr=0.0,
    cosine=False,
    weighted=True,
    prior="log",
    prior_weight=30.0,
    z_weight=100.0,
    clip=None,
    mirrored=3.0,
)


SOLVERS = {
    "thorough": replace(_ENCODER, mirrored=0.0),
    # Needs no encoder.
    "search": Solver(
        steps=30,
        restarts=8,
        start="random",
        draws=128,
        lr=0.2,
        cosine=True,
        weighted=True,
        prior="log",
        prior_weight=1.0,
        z_weight=100.0,
        clip=None,
    ),
    "encoder": _ENCODER,
    # Yeh et al. 2017, sections 3 and 4; the paper does not state the learning rate.
    "paper": Solver(
        steps=1500,
        restarts=1,
        start="random",
        draws=1,
        lr=0.01,
        cosine=False,
        weighted=True,
        prior="saturating",
        prior_weight=0.003,
        z_weight=0.0,
        clip=1.0,
    ),
    # Amos 2016, defaults of dcgan-completion.tensorflow.
    "bamos": Solver(
        steps=1000,
        restarts=1,
        start="random",
        draws=1,
        lr=0.01,
        cosine=False,
        weighted=False,
        prior="log",
        prior_weight=0.1,
        z_weight=0.0,
        clip=1.0,
    ),
}


def blur_radius(sigma: float) -> int:
    """Reach of a Gaussian kernel in pixels, beyond which its weights are hardly felt."""
    return round(3 * sigma)


# Names accepted by the interfaces: "fast" is "encoder" if the weights have one, otherwise "search".
SOLVER_NAMES = ("fast", *SOLVERS)


@dataclass(frozen=True)
class BatchOptions:
    """Options for completing files, the same for every photo.

    Attributes:
        mask: a hole's name, "alpha", a mask file or a folder of masks.
        invert_mask: fill black pixels instead of white ones; with "alpha", opaque instead of transparent ones.
        faces: faces that a named hole is placed on, "largest" or "all".
        landmarks: JSON Lines file with the landmarks of each photo's faces; None to detect the faces.
        box: (x, y, w, h) of a single face in pixels of the photo, from the brows to the chin.
        eyes: (x, y, x, y), the eye centres of a single face in pixels of the photo.
        no_face: whether a mask that touches no face fails, or is filled from its surroundings; None for "fail" with a
            single photo and "fill" with several.
        candidates: number of different completions to write.
        seed: seed of the search and of random holes; the side of "half" also depends on the photo.
        strip: also write the photo, the hole and the completion side by side.
        history: also write the search as a GIF and its losses as JSON Lines.
        overwrite: replace existing outputs.
        measure: compare the completion with the photo, if the hole is a named one: then the true pixels are known.
        seconds: time limit for the search per photo, in seconds; None for no limit.
    """

    mask: str
    invert_mask: bool = False
    faces: Faces = "largest"
    landmarks: Path | None = None
    box: tuple[_Coordinate, ...] | None = None
    eyes: tuple[_Coordinate, ...] | None = None
    no_face: NoFace | None = None
    candidates: Annotated[int, Range(1, 64)] = 1
    seed: Annotated[int, SEEDS] = 0
    strip: bool = False
    history: bool = False
    overwrite: bool = False
    measure: bool = False
    seconds: Annotated[float, Range(0, 1_000_000)] | None = None

    def __post_init__(self) -> None:
        check(self)


# Benchmark name -> name for dcgan.holes.named_hole, except that "half" cycles through the four sides.
BENCHMARK_HOLES = {
    "center": "center",
    "pattern": "pattern",
    "random80": "random:0.8",
    "half": "half",
    "eyes": "eyes",
    "mouth": "mouth",
}
# Methods that take minutes per face and run on the first faces only; that are fitted to training faces; that need an
# encoder.
SLOW, LEARNING, WITH_ENCODER = ("paper", "bamos"), ("mean", "linear"), ("thorough",)
ON_TORCH = "-torch"  # suffix of a solver that runs on torch instead of ONNX Runtime
METHODS = ("fast", f"fast{ON_TORCH}", *WITH_ENCODER, *SLOW, "telea", "ns", "biharmonic", *LEARNING)

# Benchmark on whole photos: holes, see completion.benchmark.whole.draw_hole, and default methods.
WHOLE_HOLES = ("middle", "eye", "mouth", "half", "scratches")
WHOLE_METHODS = ("fast", "thorough", "fast+alpha", "telea", "ns")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Settings of `completion.benchmark.compare.compare`.

    Attributes:
        limit: maximum number of faces, evenly spaced over the folder.
        slow_limit: maximum number of faces for the methods in SLOW.
        holes: names in BENCHMARK_HOLES.
        methods: names in METHODS.
        seed: seed of the order of the faces, the holes and the search.
    """

    limit: Annotated[int, Range(1, 1_000_000)] = 500
    slow_limit: Annotated[int, Range(1, 1_000_000)] = 20
    holes: tuple[str, ...] = tuple(BENCHMARK_HOLES)
    methods: tuple[str, ...] = METHODS
    seed: Annotated[int, SEEDS] = 0

    def __post_init__(self) -> None:
        check(self)

"""Settings and names of completion; imports nothing heavy, since the command line's defaults come from here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Start = Literal["random", "encoder"]
Prior = Literal["log", "saturating"]
Faces = Literal["largest", "all"]

# The default first.
BLENDS = ("poisson", "alpha", "none")
# Name of a hole to the default of the number after its colon, None where it takes none.
HOLES: dict[str, float | None] = {
    "center": 0.25,
    "random": 0.2,
    "left": None,
    "right": None,
    "top": None,
    "bottom": None,
    "half": None,
    "full": None,
    "grid": None,
    "lowres": None,
    "pattern": None,
    "eyes": None,
    "nose": None,
    "mouth": None,
}


@dataclass(frozen=True)
class Solver:
    """How to search.

    Attributes:
        steps: iterations of Adam.
        restarts: candidates that are followed at once, K; the best is kept.
        start: "random" draws; "encoder" moves them to around its guess, the first exactly there.
        draws: z that the candidates are chosen from, by their context loss.
        lr: Adam's learning rate at the start.
        cosine: let the learning rate fall to 0 on a cosine.
        weighted: weigh known pixels by how near the hole is (Yeh et al.), else all alike.
        prior: "log" for -log D(G(z)), "saturating" for log(1 - D(G(z))).
        prior_weight: of the prior loss.
        z_weight: of the mean square of z, which keeps z where G was trained.
        clip: bound on each dimension of z for a uniform prior, kept after every step; None for no bound.
        mirrored: take the mean of the image and of the one that an encoder finds for the mirrored face.
    """

    steps: int
    restarts: int
    start: Start
    draws: int
    lr: float
    cosine: bool
    weighted: bool
    prior: Prior
    prior_weight: float
    z_weight: float
    clip: float | None
    mirrored: bool = False


# One pass. Steps of Adam after it agree better with what is known, and worse with what is not. The weights only
# rank several candidates.
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
)


SOLVERS = {
    # What the encoder makes of the mirrored face errs elsewhere: the mean of both is nearer to the truth.
    "thorough": replace(_ENCODER, mirrored=True),
    # Without an encoder.
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
    # Yeh et al. 2017, section 3 and 4; the learning rate is not in the paper.
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
    # Amos 2016, the defaults of dcgan-completion.tensorflow.
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
# What people may ask for: "fast" is "encoder", or "search" where there is none.
SOLVER_NAMES = ("fast", *SOLVERS)


@dataclass(frozen=True)
class BatchOptions:
    """What to do with every photo.

    Attributes:
        mask: a name, "alpha", a mask file or a folder of masks.
        invert_mask: black, or opaque, means fill.
        faces: "largest" or "all": on which faces a named mask makes its hole.
        landmarks: a file that says where the faces of each photo are; None to look for them.
        box: (x, y, w, h) in the photo's pixels, where the one face is, from the brows to the chin.
        eyes: (x, y, x, y) in the photo's pixels, where the eyes of the one face are.
        candidates: how many different completions to write.
        seed: of the search and of the random masks.
        strip: also write photo, hole and completion side by side.
        history: also write the search as a GIF and its losses as JSON lines.
        overwrite: replace outputs that exist.
        measure: compare with the photo where a name made the hole, so that the truth is known.
        seconds: how long to search a photo at most; None for no limit.
    """

    mask: str
    invert_mask: bool = False
    faces: Faces = "largest"
    landmarks: Path | None = None
    box: tuple[float, ...] | None = None
    eyes: tuple[float, ...] | None = None
    candidates: int = 1
    seed: int = 0
    strip: bool = False
    history: bool = False
    overwrite: bool = False
    measure: bool = False
    seconds: float | None = None


# Name of a hole in the benchmark -> see completion.holes.named_hole; "half" is each of the four sides in turn.
BENCHMARK_HOLES = {
    "center": "center",
    "pattern": "pattern",
    "random80": "random:0.8",
    "half": "half",
    "eyes": "eyes",
    "mouth": "mouth",
}
# Methods that search for minutes, and see the first faces only; that learn from training faces; that need an encoder.
SLOW, LEARNING, WITH_ENCODER = ("paper", "bamos"), ("mean", "linear"), ("thorough",)
METHODS = ("fast", *WITH_ENCODER, *SLOW, "telea", "ns", "biharmonic", *LEARNING)

# On whole photos: holes, see completion.benchmark.whole.draw_hole; and methods, the default ones.
WHOLE_HOLES = ("middle", "eye", "mouth", "half", "scratches")
WHOLE_METHODS = ("fast", "thorough", "fast+alpha", "telea", "ns")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What `completion.benchmark.compare.compare` measures.

    Attributes:
        limit: faces, spread evenly over the folder.
        slow_limit: faces for the methods in SLOW.
        holes: names in BENCHMARK_HOLES.
        methods: names in METHODS.
        seed: of the faces' order, the holes and the search.
    """

    limit: int = 500
    slow_limit: int = 20
    holes: tuple[str, ...] = tuple(BENCHMARK_HOLES)
    methods: tuple[str, ...] = METHODS
    seed: int = 0

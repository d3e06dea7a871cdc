"""What a benchmark can be told; imports nothing heavy, since `--help` reads its defaults."""

from dataclasses import dataclass

# name -> see completion.masks.named_hole; "half" is each of the four sides in turn
HOLES = {
    "center": "center",
    "pattern": "pattern",
    "random80": "random:0.8",
    "half": "half",
    "eyes": "eyes",
    "mouth": "mouth",
}
# Those that search for minutes, see the first faces only; those that learn, need training faces.
SLOW, LEARNING = ("paper", "bamos"), ("mean", "linear")
ENCODER = ("thorough",)  # nothing without one
SOLVERS = ("fast", *ENCODER, *SLOW)
METHODS = (*SOLVERS, "telea", "ns", "biharmonic", *LEARNING)


@dataclass(frozen=True)
class BenchmarkOptions:
    """What `completion.compare.compare` measures.

    Attributes:
        limit: faces, spread evenly over the folder.
        slow_limit: faces for the methods in SLOW.
        holes: names in HOLES.
        methods: names in METHODS.
        seed: of the faces' order, the holes and the search.
    """

    limit: int = 500
    slow_limit: int = 20
    holes: tuple[str, ...] = tuple(HOLES)
    methods: tuple[str, ...] = METHODS
    seed: int = 0

"""Names and options of the benchmark. Imports no torch, so that --help stays fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from align.errors import ConfigError, hint
from align.settings import SEEDS, Option, Range, check
from completion.config import BLENDS, SOLVER_NAMES
from dcgan.weights import weights_name
from weights import AUTO, DEFAULT, REGISTRY

# Holes in aligned faces: name -> name for dcgan.holes.named_hole, except that "half" cycles through the four sides.
HOLES = {
    "center": "center",
    "pattern": "pattern",
    "random80": "random:0.8",
    "half": "half",
    "eyes": "eyes",
    "mouth": "mouth",
}
TONES = ("grey", "sepia", "blue", "scan", "faded", "dark")  # of whole photos, see completion.benchmark.tones
WHOLE_HOLES = ("middle", "eye", "mouth", "half", "scratches")  # in whole photos, see completion.benchmark.samples

CLASSICAL, LEARNING = ("telea", "ns", "biharmonic"), ("mean", "linear")  # the latter are fitted to training faces
SLOW = ("paper", "bamos")  # take minutes per face, and run on the first faces only
ON_TORCH = "-torch"  # suffix of a solver that runs on torch instead of ONNX Runtime
METHODS = ("fast", f"fast{ON_TORCH}", "thorough", *SLOW, *CLASSICAL, *LEARNING)
WHOLE_METHODS = ("fast", "fast+network", "thorough", "fast+alpha", "telea", "ns")
REFERENCE = "reference"
# What may follow a solver: a blend, or where detail comes from.
_CHANGES: dict[str, dict[str, str]] = {"": {}, "network": {"detail": "network"}, REFERENCE: {}}
_CHANGES |= {blend: {"blend": blend} for blend in BLENDS}


def split_method(name: str) -> tuple[dict[str, str], bool]:
    """Split the name of a method with the DCGAN: SOLVER[-torch], +BLEND, +network or +reference.

    Returns:
        Options of the completer, and whether it runs on torch.
    Raises:
        ConfigError: there is no such method.
    """
    rest, plus, change = name.partition("+")
    solver = rest.removesuffix(ON_TORCH)
    if solver not in SOLVER_NAMES or change not in _CHANGES or plus and not change:
        names = (*CLASSICAL, *LEARNING, *SOLVER_NAMES)
        after = ", ".join(f"+{each}" for each in _CHANGES if each)
        raise ConfigError(f"there is no method {name!r}; {hint(name, names)}, or one of the solvers with {after}")
    return {"solver": solver, **_CHANGES[change]}, rest != solver


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to compare, on what, and where to write it.

    Raises:
        ConfigError: a value has another type, is out of range or unknown.
    """

    whole: Annotated[bool, "use whole photos, with holes drawn at their own resolution"] = False
    damage: Annotated[bool, "draw damage on whole photos, find it and restore them"] = False
    train: Annotated[
        Path | None, "aligned faces of other people, to fit mean and linear to", Option(metavar="FOLDER")
    ] = None
    limit: Annotated[int, Range(1, 1_000_000), "maximum number of faces, evenly spaced", Option(metavar="N")] = 500
    slow_limit: Annotated[
        int, Range(1, 1_000_000), f"maximum number of faces for {' and '.join(SLOW)}", Option(metavar="N")
    ] = 20
    holes: Annotated[
        tuple[str, ...],
        f"holes to compare: {', '.join(HOLES)}; with --whole: {', '.join(WHOLE_HOLES)} (default: all)",
        Option(metavar="NAME"),
    ] = ()
    methods: Annotated[
        tuple[str, ...],
        f"methods to compare: {', '.join(METHODS)}, any SOLVER, SOLVER+BLEND, SOLVER+network or SOLVER+{REFERENCE} "
        f"(default: all these; with --whole: {', '.join(WHOLE_METHODS)}, and fast+{REFERENCE} with --reference)",
        Option(metavar="NAME"),
    ] = ()
    tones: Annotated[
        tuple[str, ...],
        f"with --whole, also complete each photo in these tones: {', '.join(TONES)}",
        Option(metavar="NAME"),
    ] = ()
    reference: Annotated[
        tuple[Path, ...],
        f"for SOLVER+{REFERENCE}: folders that show the people in other photos; none serves as its own reference",
        Option(metavar="FOLDER"),
    ] = ()
    output: Annotated[Path, "output folder", Option(short="-o")] = Path("benchmark")
    weights: Annotated[
        str | None,
        f"weights file or name: {', '.join(REGISTRY)} (default: {DEFAULT}; {AUTO} with --whole)",
        Option(parse=lambda name: weights_name(name, AUTO)),
    ] = None
    seed: Annotated[int, SEEDS, "seed of the order of the faces, the holes and the search", Option(metavar="N")] = 0
    overwrite: Annotated[bool, "replace existing results"] = False

    def __post_init__(self) -> None:
        check(self)
        names = WHOLE_HOLES if self.whole else tuple(HOLES)
        if unknown := [hole for hole in self.holes if hole not in names]:
            raise ConfigError(f"there is no hole {unknown[0]!r}; {hint(unknown[0], names)}")
        for name in self.methods:
            if name not in (*CLASSICAL, *LEARNING):
                split_method(name)
        if unknown := [tone for tone in self.tones if tone not in TONES]:
            raise ConfigError(f"there is no tone {unknown[0]!r}; {hint(unknown[0], TONES)}")
        if any(name.endswith(f"+{REFERENCE}") for name in self.methods) and not self.reference:
            raise ConfigError(f"a method ends in +{REFERENCE}, but no photos were given; give them as reference")
        if (self.tones or self.reference) and not self.whole:
            raise ConfigError("tones and references are for whole photos; leave them out of aligned faces")
        if self.whole and (self.train or {*LEARNING} & {*self.methods}):
            raise ConfigError(f"{' and '.join(LEARNING)} complete aligned faces only; leave them and --train out")

    @property
    def chosen_holes(self) -> tuple[str, ...]:
        """The names of the holes; by default all."""
        return self.holes or (WHOLE_HOLES if self.whole else tuple(HOLES))

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """The names of the methods; by default all."""
        more = (f"fast+{REFERENCE}",) if self.reference else ()
        return self.methods or ((*WHOLE_METHODS, *more) if self.whole else METHODS)

"""Choose what generates the faces: one pass on ONNX Runtime, or on torch, or a search on torch."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from completion.config import SOLVERS, Solver
from completion.step import Step
from dcgan.weights import Weights, WeightsError
from weights import AUTO, REGISTRY


class Runner(Protocol):
    """Generates faces from their visible pixels.

    Attributes:
        gpu: whether it runs on a GPU.
    """

    gpu: bool

    def solve(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
    ) -> Iterator[Step]:
        """Complete several faces at once; see `completion.search.Search.solve` for the arguments."""


def open_weights(name_or_file: str, device: str = "auto") -> list[Weights]:
    """Open the weights that faces of different sizes need: all in the registry for "auto", else one.

    Raises:
        WeightsError, DeviceError: the weights or the device cannot be used.
    """
    return [Weights.open(name, device) for name in (REGISTRY if name_or_file == AUTO else [name_or_file])]


def by_size(weights: Weights | Sequence[Weights]) -> dict[int, Weights]:
    """Return weights by the size of their images, the smallest first."""
    several = [weights] if isinstance(weights, Weights) else weights
    return {each.size: each for each in sorted(several, key=lambda each: each.size)}


def resolve(solver: str | Solver, weights: Weights, block: int = 1) -> Solver:
    """Look up a solver's settings and check that the weights support it.

    Args:
        solver: a name in SOLVERS, settings, or "fast": "encoder" if the weights have one and `block` is 1, otherwise
            "search".
        weights: the networks.
        block: as in `completion.search.Search.solve`.
    Raises:
        WeightsError: the solver needs an encoder and the weights have none.
    """
    if solver == "fast":
        solver = "encoder" if weights.has_encoder and block == 1 else "search"
    found = SOLVERS[solver] if isinstance(solver, str) else solver
    if found.start == "encoder" and not weights.has_encoder:
        raise WeightsError("the weights have no encoder; train one (python -m dcgan encode) or choose another solver")
    return found


def runner(weights: Weights, solver: Solver) -> Runner:
    """Return what runs a solver: ONNX Runtime for a single pass, if the device allows it, otherwise torch.

    Raises:
        ModuleNotFoundError: torch is needed and not installed.
        WeightsError, DeviceError: the weights or the device cannot be used.
    """
    if solver.start == "encoder":
        from completion.one_pass import OnePass
        from completion.runtime import OnnxGenerate, supports

        if supports(weights.device) and (path := weights.onnx_path()) is not None:
            return OnePass(OnnxGenerate(path, weights.sha256, weights.device), weights.network)
        from completion.search import TorchGenerate

        return OnePass(TorchGenerate(weights), weights.network)
    from completion.search import Search

    return Search(weights)

"""Choose what generates the faces: ONNX Runtime for one pass of encoder and generator, torch for everything else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from completion.config import SOLVERS, Solver
from dcgan.weights import Weights, WeightsError
from weights import AUTO, REGISTRY

NO_ENCODER = "the weights have no encoder; train one (python -m dcgan encode) or choose another solver"


@dataclass(frozen=True)
class Step:
    """State of a search after one step, for N faces and K candidates each.

    Attributes:
        number: step number, from 0 (the initial candidates) to the solver's `steps`.
        context: float32 (N, K), weighted L1 distance over the visible pixels, summed over values in [-1, 1].
        prior: float32 (N, K), the prior loss before weighting; 0 if it does not affect the result.
        total: float32 (N, K), the objective.
        images: uint8 (N, K, S, S, 3), images of the candidates.
    """

    number: int
    context: NDArray[np.float32]
    prior: NDArray[np.float32]
    total: NDArray[np.float32]
    images: NDArray[np.uint8]

    @property
    def best(self) -> NDArray[np.intp]:
        """Index of each face's candidate with the lowest total loss: (N,)."""
        return self.total.argmin(axis=1)

    @property
    def previews(self) -> NDArray[np.uint8]:
        """Image of each face's best candidate: uint8 (N, S, S, 3)."""
        return self.images[np.arange(len(self.images)), self.best]


class Engine(Protocol):
    """Generates faces from their visible pixels.

    Attributes:
        gpu: whether it runs on a GPU.
    """

    gpu: bool

    def solve(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
    ) -> Iterator[Step]:
        """Search for several faces at once; see `completion.solve.solve` for arguments and errors."""


class Networks:
    """Trained networks of one size. What a solver needs is loaded when it is first used.

    Args:
        source: name in the registry, weights file, or networks that are loaded already, which run on torch.
        device: auto, cpu, cuda or cuda:N.
    Attributes:
        size: side of the images in pixels.
        template: alignment template of the training faces.
        sha256: digest of settings and tensors.
        encoder: whether there is an encoder.
    Raises:
        WeightsError: the weights are unknown or unusable.
        DeviceError: the device is unknown.
    """

    def __init__(self, source: str | Weights, device: str = "auto") -> None:
        self.weights = Weights.open(source, device) if isinstance(source, str) else source
        self.size, self.template, self.sha256 = self.weights.size, self.weights.template, self.weights.sha256
        self.encoder = self.weights.has_encoder

    def resolve(self, solver: str | Solver, block: int = 1) -> Solver:
        """Look up a solver's settings and check that the weights support it.

        Args:
            solver: a name in SOLVERS, settings, or "fast": "encoder" if the weights have one and `block` is 1,
                otherwise "search".
            block: as in `completion.solve.solve`.
        Raises:
            WeightsError: the solver needs an encoder and the weights have none.
        """
        if solver == "fast":
            solver = "encoder" if self.encoder and block == 1 else "search"
        found = SOLVERS[solver] if isinstance(solver, str) else solver
        if found.start == "encoder" and not self.encoder:
            raise WeightsError(
                "the weights have no encoder; train one (python -m dcgan encode) or choose another solver"
            )
        return found

    def engine(self, solver: Solver) -> Engine:
        """Return the engine for a solver: ONNX Runtime for a single pass, if the device allows it, otherwise torch.

        Raises:
            ModuleNotFoundError: torch is needed and not installed.
            WeightsError, DeviceError: the weights or the device cannot be used.
        """
        if solver.start == "encoder" and solver.steps == 0:
            from completion.one_pass import supports

            if supports(self.weights.device) and self._onnx is not None:
                return self._one_pass
        return self._search

    @cached_property
    def _onnx(self) -> Path | None:
        return self.weights.onnx_path()

    @cached_property
    def _one_pass(self) -> Engine:
        from completion.one_pass import OnePass

        assert self._onnx is not None
        return OnePass(self._onnx, self.weights)

    @cached_property
    def _search(self) -> Engine:
        from completion.solve import Search

        return Search(self.torch)

    @cached_property
    def torch(self) -> Weights:
        """The loaded networks, which run on torch even if there is an .onnx file."""
        some = self.weights
        return Weights.of(some.generator, some.discriminator, some.template, some.metadata, some.encoder, some.sha256)


def load_fitting(name_or_file: str, device: str = "auto") -> list[Networks]:
    """Load the weights that faces of different sizes need: all in the registry for "auto", else one."""
    return [Networks(name, device) for name in (REGISTRY if name_or_file == AUTO else [name_or_file])]


def as_networks(weights: "Networks | Weights | Sequence[Networks | Weights]") -> list[Networks]:
    """Return networks, by size."""
    several = weights if isinstance(weights, Sequence) else [weights]
    networks = [each if isinstance(each, Networks) else Networks(each) for each in several]
    return sorted(networks, key=lambda each: each.size)

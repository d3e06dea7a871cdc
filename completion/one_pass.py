"""Complete faces by one pass of encoder and generator, on any runtime that generates them."""

from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from align.picture import rounded
from align.warp import Alignment
from completion.config import Solver, blur_radius
from completion.step import Step
from dcgan.config import NetworkConfig
from dcgan.weights import WeightsError

_BATCH = 8  # images at a time; more take more memory and are hardly faster on a CPU
_WINDOW_PX = 7  # as in `completion.loss.context_weight`


class Generate(Protocol):
    """Encoder and generator on some runtime.

    Attributes:
        gpu: whether it runs on a GPU.
    """

    gpu: bool

    def __call__(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Generate faces.

        Args:
            crops: uint8 (N, S, S, 3); pixels under the holes have no effect.
            holes: bool (N, S, S), True = fill this.
            noise: float32 (K, nz), added to the encoder's z of each crop.
        Returns:
            uint8 (N * K, S, S, 3), those of the first crop first.
        """


class OnePass:
    """A `Runner` for solvers that start from the encoder.

    Args:
        generate: encoder and generator.
        config: settings of the generator.
    """

    def __init__(self, generate: Generate, config: NetworkConfig) -> None:
        self._generate, self._config = generate, config
        self.gpu = generate.gpu

    def solve(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
    ) -> Iterator[Step]:
        """Yield the only step. Candidates differ by noise on z, whose mean square counts as that of z in the total."""
        if block > 1:
            raise WeightsError("an encoder cannot use the means of blocks; choose another solver, such as fast")
        rng, size = np.random.default_rng(seed), (solver.samples, self._config.nz)
        noise = rng.uniform(-1, 1, size) if self._config.z_prior == "uniform" else rng.standard_normal(size)
        # Growing from none for the first candidate to the full prior for the last.
        noise = np.linspace(0, 1, solver.samples)[:, None] * noise
        if solver.flip_sigma_px is None:
            images = self._images(crops, holes, noise)
        else:
            # Together, as every run converts the weights.
            both = np.concatenate([crops, crops[:, :, ::-1]]), np.concatenate([holes, holes[:, :, ::-1]])
            images, flipped = np.split(self._images(*both, noise), 2)
            change = flipped[:, :, :, ::-1].astype(np.float32) - images
            change = _blurred(change * np.float32(0.5), solver.flip_sigma_px)
            images = rounded(images + change)
        weight = np.stack([_weight(~hole) if solver.weighted else ~hole for hole in holes]).astype(np.float32)
        difference = np.abs(images.astype(np.float32) - crops[:, None]) / 127.5
        context = np.einsum("nkyxc,nyx->nk", difference, weight)
        total = context + np.float32(solver.z_weight) * np.square(noise).mean(axis=1, dtype=np.float32)
        if solver.samples > solver.candidates:
            nearest = context.argsort(axis=1, kind="stable")[:, : solver.candidates]
            context, total = (np.take_along_axis(values, nearest, axis=1) for values in (context, total))
            images = np.take_along_axis(images, nearest[..., None, None, None], axis=1)
        whole = Alignment.identity(crops.shape[1])
        yield Step(0, 0, crops, holes, context, np.zeros_like(context), total, images, whole)

    def _images(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Generate K faces for each of N crops, in batches: uint8 (N, K, S, S, 3)."""
        few = max(1, _BATCH // len(noise))  # crops at a time
        made = []
        for begin in range(0, len(crops), few):
            some = slice(begin, begin + few)
            part, part_holes = np.ascontiguousarray(crops[some]), np.ascontiguousarray(holes[some])
            faces = [
                self._generate(part, part_holes, z.astype(np.float32)).reshape(len(part), len(z), *crops.shape[1:])
                for z in np.array_split(noise, -(-len(noise) // _BATCH))
            ]
            made.append(np.concatenate(faces, axis=1))
        return np.concatenate(made)


def _blurred(images: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Blur images (N, K, S, S, 3) by a Gaussian."""
    if sigma_px == 0:
        return images
    side = 2 * blur_radius(sigma_px) + 1
    return np.stack([[cv2.GaussianBlur(image, (side, side), sigma_px) for image in several] for several in images])


def _weight(known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As `completion.loss.context_weight`: float32 (S, S)."""
    window = (_WINDOW_PX, _WINDOW_PX)
    missing, count = (
        cv2.boxFilter(values.astype(np.float32), -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
        for values in (~known, np.ones_like(known))
    )
    return (known * missing / count).astype(np.float32)

"""Completions without a GAN, to measure the others by: from the rim, the mean face, linear regression."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

# Crops uint8 (N, S, S, 3) and holes bool (N, S, S) to completed crops, which equal the given ones outside the holes.
Method = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]

_RADIUS_PX = 3
# Pixels have more in common than the components say, so the best noise is above what these leave over.
_NOISES = (1.0, 3.0, 10.0, 30.0, 100.0)
_ROUNDING = 1 / 12  # variance of what rounding to whole levels takes


def telea(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Carry the rim inwards, the nearest pixels first.

    Source: Telea 2004, "An image inpainting technique based on the fast marching method".
    """
    return _inpaint(crops, holes, cv2.INPAINT_TELEA)


def navier_stokes(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Carry the lines of equal brightness on from the rim.

    Source: Bertalmio, Bertozzi and Sapiro 2001, "Navier-Stokes, fluid dynamics, and image and video inpainting".
    """
    return _inpaint(crops, holes, cv2.INPAINT_NS)


def biharmonic(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bend a smooth surface over the hole that leaves the rim without a kink.

    Source: Damelin and Hoang 2018, "On surface completion and image inpainting by biharmonic functions".
    """
    from skimage.restoration import inpaint_biharmonic

    pairs = zip(crops, holes, strict=True)
    filled = np.stack([inpaint_biharmonic(crop, hole, channel_axis=-1) for crop, hole in pairs])  # in [0, 1]
    return _put(crops, holes, filled * 255)


@dataclass(frozen=True)
class MeanFace:
    """One and the same face in every hole, as it is.

    Attributes:
        face: (S, S, 3), in levels of 255.
    """

    face: NDArray[np.floating]

    def __call__(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Complete crops uint8 (N, S, S, 3) in holes bool (N, S, S)."""
        return _put(crops, holes, self.face)


@dataclass(frozen=True)
class Linear:
    """Ridge regression of the missing pixels on the known ones, in the space of the principal components.

    A face is mean + loadings @ c + e, all c independent and standard normal, e noise that is alike in every pixel. With
    W the loadings of the known pixels, the mean of c, given these, solves (W'W + noise I) c = W'(known - mean).

    Attributes:
        mean: (S, S, 3), the mean face, in levels of 255.
        loadings: (S * S * 3, K), principal components times their standard deviations; the columns are orthogonal.
        noise: variance of e.
    Source: Tipping and Bishop 1999, "Probabilistic principal component analysis", section 3; Hoerl and Kennard 1970,
        "Ridge regression".
    """

    mean: NDArray[np.floating]
    loadings: NDArray[np.floating]
    noise: float

    def __call__(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Complete crops uint8 (N, S, S, 3) in holes bool (N, S, S)."""
        return _put(crops, holes, self.expect(crops, holes, [self.noise])[0])

    def expect(self, crops: NDArray[Any], holes: NDArray[np.bool_], noises: Sequence[float]) -> NDArray[np.floating]:
        """The mean of all faces that agree with what is known of each, for several noises.

        Args:
            crops: (N, S, S, 3), in levels of 255; what stands in the hole is never read.
            holes: bool (N, S, S).
            noises: variances of e.
        Returns:
            (len(noises), N, S, S, 3), in the loadings' precision.
        """
        W = self.loadings
        centred = (crops - self.mean).reshape(len(crops), -1).astype(W.dtype)
        whole = np.diag(np.square(W).sum(axis=0))  # W'W of all pixels
        expected = np.empty((len(noises), *centred.shape), dtype=W.dtype)
        # Faces that share a hole share the work.
        kinds, kind_of = np.unique(holes.reshape(len(holes), -1), axis=0, return_inverse=True)
        for kind, hole in enumerate(kinds.repeat(3, axis=1)):
            faces = np.flatnonzero(kind_of.reshape(-1) == kind)
            known = W[~hole]
            gram = known.T @ known if 2 * hole.sum() > len(hole) else whole - W[hole].T @ W[hole]  # the lesser work
            right = known.T @ centred[np.ix_(faces, ~hole)].T  # (K, faces)
            for index, noise in enumerate(noises):
                c = np.linalg.solve(gram + noise * np.eye(len(gram), dtype=W.dtype), right)
                expected[index, faces] = (W @ c).T
        return expected.reshape(len(noises), *crops.shape) + self.mean.astype(W.dtype)

    def tuned(self, faces: NDArray[np.uint8], holes: NDArray[np.bool_]) -> "Linear":
        """Take, of a few multiples of the noise, the one that suits such holes best.

        Args:
            faces: uint8 (N, S, S, 3), held out of the fit.
            holes: bool (M, S, S), one for each face as far as they reach.
        """
        faces, holes = faces[: len(holes)], holes[: len(faces)]
        noises = [self.noise * times for times in _NOISES]
        errors = self.expect(faces, holes, noises) - faces
        return replace(self, noise=noises[int(np.square(errors[:, holes]).mean(axis=(1, 2)).argmin())])


def fit_linear(faces: NDArray[np.uint8], components: int = 600, seed: int = 0) -> Linear:
    """Fit the mean, the principal components, and for the noise what these leave over in each pixel.

    Args:
        faces: uint8 (N, S, S, 3); takes 4 bytes for each value.
        components: how many; at most half as many as there are faces, which else would leave nothing over.
        seed: of the randomised decomposition.
    Source: Halko, Martinsson and Tropp 2011, "Finding structure with randomness", algorithm 5.1.
    """
    values = torch.from_numpy(faces).flatten(1).float()  # (N, S * S * 3)
    mean = values.mean(dim=0)
    values -= mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, scales, basis = torch.svd_lowrank(values, min(components, max(1, len(faces) // 2)), niter=2)
    loadings = basis * scales / len(faces) ** 0.5
    left = float(values.var(dim=0, correction=0).mean() - loadings.square().sum(dim=1).mean())
    return Linear(mean.view(faces.shape[1:]).numpy(), loadings.numpy(), max(left, _ROUNDING))


def _inpaint(crops: NDArray[np.uint8], holes: NDArray[np.bool_], how: int) -> NDArray[np.uint8]:
    blank = np.where(holes[..., None], np.uint8(0), crops)  # OpenCV takes gradients across the rim
    pairs = zip(blank, holes.astype(np.uint8), strict=True)
    return _put(crops, holes, np.stack([cv2.inpaint(crop, hole, _RADIUS_PX, how) for crop, hole in pairs]))


def _put(crops: NDArray[np.uint8], holes: NDArray[np.bool_], filled: NDArray[Any]) -> NDArray[np.uint8]:
    return np.where(holes[..., None], np.clip(np.round(filled), 0, 255).astype(np.uint8), crops)

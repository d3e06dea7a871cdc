"""Completion methods without a GAN: classical inpainting, the mean face, and linear regression."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

# (crops uint8 (N, S, S, 3), holes bool (N, S, S)) -> completed crops, unchanged outside the holes.
Method = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]

_RADIUS_PX = 3
# Multiples of the residual variance. Residuals are correlated between pixels, so the best noise exceeds their variance.
_NOISES = (1.0, 3.0, 10.0, 30.0, 100.0)
_ROUNDING = 1 / 12  # variance of rounding to integers


def telea(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Inpaint by fast marching, from the rim inwards.

    Source: Telea 2004, "An image inpainting technique based on the fast marching method".
    """
    return _inpaint(crops, holes, cv2.INPAINT_TELEA)


def navier_stokes(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Inpaint by extending lines of equal brightness from the rim.

    Source: Bertalmio, Bertozzi and Sapiro 2001, "Navier-Stokes, fluid dynamics, and image and video inpainting".
    """
    return _inpaint(crops, holes, cv2.INPAINT_NS)


def biharmonic(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Inpaint with a biharmonic surface, which matches value and slope at the rim.

    Source: Damelin and Hoang 2018, "On surface completion and image inpainting by biharmonic functions".
    """
    from skimage.restoration import inpaint_biharmonic

    pairs = zip(crops, holes, strict=True)
    filled = np.stack([inpaint_biharmonic(crop, hole, channel_axis=-1) for crop, hole in pairs])  # in [0, 1]
    return _put(crops, holes, filled * 255)


@dataclass(frozen=True)
class MeanFace:
    """Fill every hole with the mean face.

    Attributes:
        face: (S, S, 3), range [0, 255].
    """

    face: NDArray[np.floating]

    def __call__(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Complete crops uint8 (N, S, S, 3) in holes bool (N, S, S)."""
        return _put(crops, holes, self.face)


@dataclass(frozen=True)
class Linear:
    """Ridge regression of the missing pixels on the visible ones, in a space of principal components.

    The model is face = mean + loadings @ c + e, with c standard normal and e white noise. With W the rows of the
    loadings for the visible pixels, the conditional mean of c solves (W'W + noise I) c = W'(visible - mean).

    Attributes:
        mean: (S, S, 3), the mean face, range [0, 255].
        loadings: (S * S * 3, K), principal components times their standard deviations, as orthogonal columns.
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
        """Compute the conditional mean of each face given its visible pixels, for several noise variances.

        Args:
            crops: (N, S, S, 3), range [0, 255]; pixels under the holes are never read.
            holes: bool (N, S, S).
            noises: variances of e.
        Returns:
            (len(noises), N, S, S, 3), with the dtype of the loadings.
        """
        W = self.loadings
        centred = (crops - self.mean).reshape(len(crops), -1).astype(W.dtype)
        whole = np.diag(np.square(W).sum(axis=0))  # W'W over all pixels
        expected = np.empty((len(noises), *centred.shape), dtype=W.dtype)
        # Faces with the same hole are solved together.
        kinds, kind_of = np.unique(holes.reshape(len(holes), -1), axis=0, return_inverse=True)
        for kind, hole in enumerate(kinds.repeat(3, axis=1)):
            faces = np.flatnonzero(kind_of.reshape(-1) == kind)
            known = W[~hole]
            gram = known.T @ known if 2 * hole.sum() > len(hole) else whole - W[hole].T @ W[hole]  # the cheaper way
            right = known.T @ centred[np.ix_(faces, ~hole)].T  # (K, faces)
            for index, noise in enumerate(noises):
                c = np.linalg.solve(gram + noise * np.eye(len(gram), dtype=W.dtype), right)
                expected[index, faces] = (W @ c).T
        return expected.reshape(len(noises), *crops.shape) + self.mean.astype(W.dtype)

    def tuned(self, faces: NDArray[np.uint8], holes: NDArray[np.bool_]) -> "Linear":
        """Choose the multiple of the noise variance with the lowest error on held-out faces.

        Args:
            faces: uint8 (N, S, S, 3), not used in the fit.
            holes: bool (M, S, S); hole i is applied to face i, and the longer of the two is cut.
        """
        faces, holes = faces[: len(holes)], holes[: len(faces)]
        noises = [self.noise * times for times in _NOISES]
        errors = self.expect(faces, holes, noises) - faces
        return replace(self, noise=noises[int(np.square(errors[:, holes]).mean(axis=(1, 2)).argmin())])


def fit_linear(faces: NDArray[np.uint8], components: int = 600, seed: int = 0) -> Linear:
    """Fit the mean, the principal components and the residual variance of faces.

    Args:
        faces: uint8 (N, S, S, 3); needs memory for a float32 copy.
        components: maximum number of components; at most N / 2 are used, so that a residual remains.
        seed: seed of the randomised decomposition.
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

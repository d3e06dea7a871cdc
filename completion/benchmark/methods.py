"""Completion methods of the benchmark: the DCGAN's solvers, classical inpainting, and what faces have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from align.errors import InputError
from align.photo import as_photo
from align.picture import rounded
from completion.benchmark.config import LEARNING, REFERENCE, BenchmarkOptions, split_method
from completion.completer import FaceCompleter
from completion.inpaint import opencv_inpaint
from dcgan.weights import Weights

# (photos uint8 (N, H, W, 3), holes bool (N, H, W)) -> completed photos, unchanged outside the holes.
Method = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]

_MOST_FITTED, _HELD_OUT = 20_000, 50
# Multiples of the residual variance. Residuals are correlated between pixels, so the best noise exceeds their variance.
_NOISES = (1.0, 3.0, 10.0, 30.0, 100.0)
_ROUNDING = 1 / 12  # variance of rounding to integers


class BenchmarkError(InputError):
    """The benchmark cannot run on the given faces and methods."""


def create_methods(
    weights: Sequence[Weights], training: NDArray[np.uint8] | None, options: BenchmarkOptions
) -> tuple[dict[str, Method], list[str]]:
    """Create the methods of a benchmark by name.

    Args:
        weights: networks of the solvers; each face uses those that fit its size.
        training: uint8 (M, S, S, 3), faces of other people to fit the methods in LEARNING to; None to skip these.
        options: names of the methods, and the seed.
    Returns:
        The methods, and notes on those that are skipped or replaced.
    Raises:
        BenchmarkError: no method can run, or there are too few training faces.
        WeightsError: the template of the weights is unknown.
    """
    has_encoder = all(each.has_encoder for each in weights)
    methods: dict[str, Method] = {"telea": partial(classical, "telea"), "ns": partial(classical, "ns")}
    methods["biharmonic"] = biharmonic
    lacking, notes = {}, []
    for name in options.chosen_methods:
        if name in LEARNING:
            if training is None:
                lacking[name] = "training faces"
            elif name not in methods:
                linear = fit_linear(*_split(training, options.seed), seed=options.seed)
                methods |= {"mean": MeanFace(linear.mean), "linear": linear}
        elif name not in methods:
            changes, on_torch = split_method(name)
            solver = changes["solver"]
            if solver in ("encoder", "thorough") and not has_encoder:
                lacking[name] = "weights with an encoder"
                continue
            if solver == "fast" and not has_encoder:
                notes.append(f"{name} uses the solver search because the weights have no encoder")
            networks = [_without_onnx(each) for each in weights] if on_torch else weights
            shown = options.reference if name.endswith(f"+{REFERENCE}") else ()
            completer = FaceCompleter(networks, **changes, reference=shown, seed=options.seed)
            methods[name] = InPhoto(completer) if options.whole else completer.complete_crops
    chosen = {name: methods[name] for name in options.chosen_methods if name not in lacking}
    if not chosen:
        needed = ", ".join(sorted({*lacking.values()}))
        raise BenchmarkError(f"none of {', '.join(sorted(lacking))} can run; give {needed}")
    return chosen, [f"{name} is skipped because it needs {what}" for name, what in lacking.items()] + notes


@dataclass(frozen=True)
class InPhoto:
    """Complete one whole photo at a time.

    Attributes:
        completer: completes it.
        sha256: digest of the file of the photo, which is no reference of its own.
    """

    completer: FaceCompleter
    sha256: str = ""

    def __call__(self, photos: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Complete photos uint8 (1, H, W, 3) in holes bool (1, H, W)."""
        photo = replace(as_photo(photos[0]), sha256=self.sha256)
        return self.completer(photo, holes[0]).pixels[None]


def _without_onnx(weights: Weights) -> Weights:
    networks = weights.generator, weights.discriminator
    template, metadata = weights.template, weights.metadata
    return Weights.of(*networks, template, metadata, weights.encoder, completer=weights.completer)


def classical(method: Literal["telea", "ns"], photos: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Inpaint by a method of OpenCV, see `completion.inpaint.opencv_inpaint`."""
    blank = np.where(holes[..., None], np.uint8(0), photos)
    pairs = zip(blank, holes, strict=True)
    return _put(photos, holes, np.stack([opencv_inpaint(photo, hole, method) for photo, hole in pairs]))


def biharmonic(photos: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Inpaint with a biharmonic surface, which matches value and slope at the edge of the hole.

    Source: Damelin and Hoang 2018, "On surface completion and image inpainting by biharmonic functions".
    """
    from skimage.restoration import inpaint_biharmonic

    pairs = zip(photos, holes, strict=True)
    filled = np.stack([inpaint_biharmonic(photo, hole, channel_axis=-1) for photo, hole in pairs])  # in [0, 1]
    return _put(photos, holes, filled * 255)


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
        held_out: uint8 (M, S, S, 3), faces that the model was not fitted to, to choose the noise on.
    Source: Tipping and Bishop 1999, "Probabilistic principal component analysis", section 3; Hoerl and Kennard 1970,
        "Ridge regression".
    """

    mean: NDArray[np.floating]
    loadings: NDArray[np.floating]
    noise: float
    held_out: NDArray[np.uint8] = field(repr=False)

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

    def tuned(self, holes: NDArray[np.bool_]) -> "Linear":
        """Choose the multiple of the noise variance with the lowest error on the held-out faces.

        Args:
            holes: bool (N, S, S); hole i is applied to face i, and the longer of the two is cut.
        """
        faces, holes = self.held_out[: len(holes)], holes[: len(self.held_out)]
        noises = [self.noise * times for times in _NOISES]
        errors = self.expect(faces, holes, noises) - faces
        return replace(self, noise=noises[int(np.square(errors[:, holes]).mean(axis=(1, 2)).argmin())])


def fit_linear(
    faces: NDArray[np.uint8], held_out: NDArray[np.uint8] | None = None, components: int = 600, seed: int = 0
) -> Linear:
    """Fit the mean, the principal components and the residual variance of faces.

    Args:
        faces: uint8 (N, S, S, 3); needs memory for a float32 copy.
        held_out: uint8 (M, S, S, 3), other faces, for `Linear.tuned`.
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
    held_out = faces[:0] if held_out is None else held_out
    return Linear(mean.view(faces.shape[1:]).numpy(), loadings.numpy(), max(left, _ROUNDING), held_out)


def _split(training: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split the training faces into those to fit and those to choose the noise on."""
    if len(training) < 4:
        raise BenchmarkError(f"{len(training)} training faces are too few; give at least 4, ideally 20,000")
    order = np.random.default_rng(seed).permutation(len(training))
    held_out = min(_HELD_OUT, len(training) // 4)
    return training[order[held_out:][:_MOST_FITTED]], training[order[:held_out]]


def _put(photos: NDArray[np.uint8], holes: NDArray[np.bool_], filled: NDArray[Any]) -> NDArray[np.uint8]:
    return np.where(holes[..., None], rounded(filled), photos)

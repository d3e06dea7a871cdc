"""Classify digits with few labels by features of D, of an untrained D, of patches and of pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, interpolate, unfold

from align.cli import Progress
from align.errors import ConfigError
from dcgan.dataset import DatasetError
from dcgan.explore.files import Outputs, plotted
from dcgan.networks import Discriminator
from dcgan.sampling import device_of, in_parts
from dcgan.tensors import to_tensor
from dcgan.weights import Weights

_REDUCED_PX = 32
_POOLED = 4
_PATCH_PX, _STRIDE_PX = 6, 2
_CENTROIDS, _PATCHES = 64, 20_000
_WHITENING = 0.1


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (N, S, S, 3), their classes from 0 on, int64 (N,), and which of them are for tests, bool (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]

    def draw(self, per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the indices of `per_class` training images of each class.

        Raises:
            DatasetError: a class has fewer images.
        """
        rows = [np.flatnonzero(~self.test & (self.labels == label)) for label in np.unique(self.labels)]
        least = min(map(len, rows))
        if least < per_class:
            raise DatasetError(f"the smallest class has {least} training images; expected at least {per_class}")
        return np.concatenate([rng.choice(row, per_class, replace=False) for row in rows])


def load_digits(size: int, seed: int) -> Labelled:
    """Load scikit-learn's digits in random order, enlarged to a side of `size`; half of them are test images."""
    from sklearn import datasets

    digits = datasets.load_digits()
    rng = np.random.default_rng(seed)
    test = np.zeros(len(digits.target), dtype=bool)
    test[rng.permutation(len(test))[: round(len(test) / 2)]] = True
    order = np.concatenate([rng.permutation(np.flatnonzero(test == side)) for side in (False, True)])
    grey = (digits.images[order] * (255 / 16)).astype(np.uint8)
    enlarged = np.stack([cv2.resize(digit, (size, size), interpolation=cv2.INTER_CUBIC) for digit in grey])
    return Labelled(enlarged[..., None].repeat(3, axis=3), digits.target[order], test[order])


def _reduced(images: NDArray[np.uint8]) -> Tensor:
    """Resize images uint8 (N, S, S, 3) to 32x32: float32 (N, 3, 32, 32) in [-1, 1]."""
    return interpolate(to_tensor(images), (_REDUCED_PX, _REDUCED_PX), mode="area")


def d_features(D: Discriminator, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Max-pool all layers of D to 4x4 and concatenate them: uint8 (N, S, S, 3) to float32 (N, F).

    Source: Radford et al., ICLR 2016, section 5.1.
    """
    device = device_of(D)
    with torch.inference_mode():
        layers = D.features(to_tensor(images).to(device))
        return torch.cat([adaptive_max_pool2d(layer, _POOLED).flatten(1) for layer in layers], dim=1).cpu().numpy()


def raw_pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce images uint8 (N, S, S, 3) to 32x32: float32 (N, 3072)."""
    return _reduced(images).flatten(1).numpy()


class PatchFeatures:
    """K-means features: how close the patches of each quarter of an image are to each centroid of unlabelled ones.

    Source: Coates, Ng and Lee 2011, "An analysis of single-layer networks in unsupervised feature learning".
    """

    def __init__(self, images: NDArray[np.uint8], seed: int) -> None:
        from sklearn.cluster import MiniBatchKMeans

        few = images[np.random.default_rng(seed).permutation(len(images))[:500]]
        patches = self._patches(few).transpose(1, 2).flatten(0, 1)  # (N * L, 108)
        patches = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:_PATCHES]]
        self._mean = patches.mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        self._whiten = (vectors / (values + _WHITENING).sqrt()) @ vectors.T
        white = ((patches - self._mean) @ self._whiten).numpy()
        found = MiniBatchKMeans(_CENTROIDS, random_state=seed, n_init=1, batch_size=1024).fit(white)
        self._centroids = torch.from_numpy(found.cluster_centers_).float()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images uint8 (N, S, S, 3) to float32 (N, 256)."""
        patches = self._patches(images).transpose(1, 2)  # (N, L, 108)
        apart = torch.cdist((patches - self._mean) @ self._whiten, self._centroids)  # (N, L, K)
        near = (apart.mean(dim=2, keepdim=True) - apart).clamp(min=0)
        side = round(near.shape[1] ** 0.5)
        return adaptive_avg_pool2d(near.transpose(1, 2).unflatten(2, (side, side)), 2).flatten(1).numpy()

    @staticmethod
    def _patches(images: NDArray[np.uint8]) -> Tensor:
        """Patches with mean 0 and standard deviation 1, or less for flat ones: (N, 108, L)."""
        patches = unfold(_reduced(images), _PATCH_PX, stride=_STRIDE_PX)
        patches = patches - patches.mean(dim=1, keepdim=True)
        return patches / (patches.var(dim=1, keepdim=True) + 0.01).sqrt()


def accuracy(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.bool_],
    seed: int = 0,
) -> float:
    """Test accuracy of an L2-regularised linear SVM on features (N, F) and labels (N,).

    Each feature is normalised, and all are scaled to a mean squared norm of 1, so that one regularisation strength
    suits any number of features. `train` are indices of rows, `test` is bool (N,).
    """
    from sklearn.svm import LinearSVC

    mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = (features - mean) / np.where(spread > 1e-6, spread, np.inf) / np.sqrt(features.shape[1])
    machine = LinearSVC(C=1.0, max_iter=20_000, random_state=seed).fit(scaled[train], labels[train])
    return float(machine.score(scaled[test], labels[test]))


def run(weights: Weights, labels: Sequence[int], draws: int, seed: int) -> Iterator[Progress | Outputs]:
    """Classify digits with few labels by features of D, of an untrained D, of patches and of pixels.

    Raises:
        ConfigError: D is not convolutional.
        DatasetError: a class has too few images.
    """
    D = weights.discriminator
    if D.config.network != "dcgan":
        raise ConfigError(f"D is of kind {D.config.network}; expected dcgan, whose convolutional layers can be pooled")
    images = load_digits(weights.size, seed)
    rng = np.random.default_rng(seed)
    chosen = {count: [images.draw(count, rng) for _ in range(draws)] for count in labels}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = Discriminator(D.config).to(device_of(D)).eval()
    kinds: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
        "D": partial(d_features, D),
        "untrained D": partial(d_features, untrained),
        "k-means patches": PatchFeatures(images.images[~images.test], seed),
        "pixels": raw_pixels,
    }
    results: dict[str, dict[str, dict[str, float]]] = {}
    for kind, extract in kinds.items():
        features = yield from in_parts(f"features, {kind}", images.images, extract)
        results[kind] = {}
        for done, (count, rows) in enumerate(chosen.items()):
            yield Progress(f"classify by {kind}", done, len(chosen))
            found = [accuracy(features, images.labels, row, images.test, seed) for row in rows]
            results[kind][str(count)] = {"mean": float(np.mean(found)), "std": float(np.std(found))}
    classes = len(np.unique(images.labels))
    numbers = {"classes": classes, "tested": int(images.test.sum()), "draws": draws, "accuracy": results}
    yield {"features.png": _draw(results, labels, classes), "features.json": numbers}


def _draw(results: dict[str, dict[str, dict[str, float]]], per_class: Sequence[int], classes: int) -> NDArray[np.uint8]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kind, by_count in results.items():
        means, spreads = ([by_count[str(count)][what] for count in per_class] for what in ("mean", "std"))
        axes.errorbar(per_class, means, spreads, marker="o", capsize=3, label=kind)
    axes.axhline(1 / classes, color="k", linestyle=":", label="chance")
    axes.set(xlabel="labels per class", ylabel="accuracy", xscale="log", ylim=(0, 1))
    axes.set_xticks(list(per_class), [str(count) for count in per_class])
    axes.minorticks_off()
    axes.legend()
    return plotted(figure)

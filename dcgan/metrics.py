"""Measures of images, as pure functions."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

# Wang et al. 2003: weights of the scales, the finest first; window and constants of SSIM (Wang et al. 2004).
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX, _WINDOW_SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
# Karras et al. 2018, section 5: patches per image and level, their side, the least level, directions.
_PATCHES, _PATCH_PX, _LEAST_PX, _DIRECTIONS = 128, 7, 16, 512
_ROWS = 1024  # of a table of distances at once


def psnr(real: NDArray[np.uint8], fake: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB; inf for equal images.

    Args:
        real: uint8 (H, W, 3).
        fake: uint8 (H, W, 3).
        where: bool (H, W), the pixels that count: the hole for hole-PSNR. Default: all.
    """
    difference = real.astype(np.float64) - fake
    if where is not None:
        difference = difference[where]
    mse = float(np.square(difference).mean())
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity: 1 for equal images, near 0 for unrelated ones.

    Five scales, as in the paper, need sides of 176 px. Here are as many as its window of 11 px fits into, their weights
    scaled to a sum of 1: three at 64 px (64, 32, 16), four at 128.

    Args:
        a: (N, 3, S, S) in [-1, 1], S at least 11; differentiable. Computed in float32.
        b: same shape and range.
    Returns:
        float32 (N,). A scale that is correlated negatively counts as 0.
    Raises:
        ValueError: shapes disagree, or the window does not fit.
    Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment", eq. 7.
    """
    if a.shape != b.shape or min(a.shape[-2:]) < _WINDOW_PX:
        raise ValueError(f"images of {tuple(a.shape)} and {tuple(b.shape)}, expected one shape, sides from 11 px on")
    weights = ms_ssim_weights(min(a.shape[-2:]))
    pair = (torch.cat([a, b], dim=1).float() + 1) / 2
    similarity = pair.new_ones(len(pair))
    for scale, weight in enumerate(weights):
        if scale:
            pair = avg_pool2d(pair, 2)
        x, y = pair.chunk(2, dim=1)
        means = _window_means(torch.cat([x, y, x * x, y * y, x * y], dim=1))
        mean_x, mean_y, square_x, square_y, product = means.chunk(5, dim=1)  # (N, 3, S - 10, S - 10)
        both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
        here = (2 * (product - both) + _C2) / (square_x + square_y - squares + _C2)
        if scale == len(weights) - 1:  # brightness counts at the coarsest scale alone
            here = here * (2 * both + _C1) / (squares + _C1)
        # The root of a value near 0 would have no gradient that training survives.
        similarity = similarity * here.mean(dim=(1, 2, 3)).clamp(min=1e-6) ** weight
    return similarity


def ms_ssim_weights(size: int) -> list[float]:
    """The weights of the scales that a side of `size` pixels has room for, the finest first; their sum is 1."""
    fitting = _SCALE_WEIGHTS[: int(math.log2(size / _WINDOW_PX)) + 1]
    return [weight / sum(fitting) for weight in fitting]


def _window_means(images: Tensor) -> Tensor:
    """Means under the Gaussian window, (N, C, H, W) to (N, C, H - 10, W - 10); as a product ten times a convolution."""
    offsets = torch.arange(_WINDOW_PX, device=images.device) - _WINDOW_PX // 2
    window = torch.softmax(-offsets.square() / (2 * _WINDOW_SIGMA**2), dim=0)

    def band(side: int) -> Tensor:
        places = torch.arange(side - _WINDOW_PX + 1, device=images.device)[:, None] + offsets + _WINDOW_PX // 2
        return window.new_zeros(len(places), side).scatter_(1, places, window.expand(len(places), -1))

    return band(images.shape[2]) @ images @ band(images.shape[3]).T


def frechet_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Squared Frechet distance of the normal distributions fitted to two sets of features; 0 for equal sets.

    Args:
        a: (N, F), N at least 2.
        b: (M, F). With few rows for F the distance is too large, so compare only figures of equal N and M.
    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6.
    """
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # tr sqrt(cov_a cov_b) through a symmetric matrix of the same eigenvalues, which stays real where ranks are short.
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel_distance(
    a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0, subset: int = 1000, subsets: int = 100
) -> float:
    """Unbiased squared MMD under a cubic kernel, a mean over random subsets; about 0, even below, for one distribution.

    The kernel is (x.y / s + 1)^3. Where the source divides by the number of features, s is the mean square length of
    a's rows: dlib's descriptors are so short that the kernel would else be all but linear, and compare means alone.

    Args:
        a: (N, F), N at least 2.
        b: (M, F).
        seed: of the subsets.
        subset: rows of each subset, or all of the smaller set.
        subsets: how many; 1 where a subset is everything.
    Source: Binkowski et al. 2018, "Demystifying MMD GANs", section 4 (KID); Gretton et al. 2012, eq. 3.
    """
    scale = np.square(a).sum(axis=1).mean()
    rng = np.random.default_rng(seed)
    count = min(len(a), len(b), subset)

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x @ y.T / scale + 1) ** 3

    distances = []
    for _ in range(1 if count == len(a) == len(b) else subsets):
        x, y = (rows[rng.choice(len(rows), count, replace=False)] for rows in (a, b))
        within = sum((table.sum() - np.trace(table)) / (count * (count - 1)) for table in (kernel(x, x), kernel(y, y)))
        distances.append(within - 2 * kernel(x, y).mean())
    return float(np.mean(distances))


def precision_recall(real: NDArray[np.float64], fake: NDArray[np.float64], k: int = 3) -> tuple[float, float]:
    """Share of the fake features that lie where real ones do, and share of the real ones that lie where fake ones do.

    Args:
        real: (N, F), N above k; the region of a set are the balls around its rows that reach their k-th neighbour.
        fake: (M, F), M above k. Recall grows with M.
        k: neighbours.
    Source: Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models", eq. 1.
    """

    def covered(rows: NDArray[np.float64], by: NDArray[np.float64]) -> float:
        # The row itself is the nearest, at 0. A hair of slack for what rounding takes from equal rows.
        reach = np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _squares(by, by)])
        return float(np.concatenate([(part <= reach + 1e-12).any(axis=1) for part in _squares(rows, by)]).mean())

    return covered(fake, real), covered(real, fake)


def nearest(rows: NDArray[np.floating], among: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Euclidean distance (N,) of each of the rows (N, F) to the nearest among others (M, F), and that one's index."""
    distances, indices = nearest_few(rows, among, 1)
    return distances[:, 0], indices[:, 0]


def nearest_few(
    rows: NDArray[np.floating], among: NDArray[np.floating], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same for the k nearest, (N, k) each, the nearest first; M at least k."""
    indices = np.concatenate([np.argpartition(part, k - 1, axis=1)[:, :k] for part in _squares(rows, among)])
    # Anew, since the table's differences of large numbers leave little of a small distance.
    pairs = zip(rows, indices, strict=True)
    distances = np.array([np.linalg.norm(row - among[few], axis=1) for row, few in pairs])
    order = distances.argsort(axis=1, kind="stable")
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


def _squares(a: NDArray[np.floating], b: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Squared distances of all rows of a (N, F) to all of b (M, F), (up to 1024, M) at a time."""
    lengths = np.square(b).sum(axis=1)
    for begin in range(0, len(a), _ROWS):
        part = a[begin : begin + _ROWS]
        yield np.maximum(np.square(part).sum(axis=1)[:, None] + lengths - 2 * part @ b.T, 0)


def swd(real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0) -> dict[int, float]:
    """Sliced Wasserstein distance of small patches, for each level of a Laplacian pyramid; 0 for equal sets.

    Args:
        real: uint8 (N, S, S, 3), S at least 16.
        fake: uint8 (N, S, S, 3).
        seed: of the patches' places and the directions.
    Returns:
        Side of the level in pixels, from S down to 16, to distance, without the source's factor of 1000.
    Raises:
        ValueError: the sets differ in shape.
    Source: Karras et al. 2018, "Progressive growing of GANs", section 5.
    """
    if real.shape != fake.shape:
        raise ValueError(f"sets of {real.shape} and {fake.shape} images, expected as many of one size")
    levels = zip(_pyramid(real), _pyramid(fake), strict=True)
    return {a.shape[1]: sliced_wasserstein(_patches(a, seed), _patches(b, seed), seed) for a, b in levels}


def sliced_wasserstein(a: NDArray[np.float32], b: NDArray[np.float32], seed: int = 0) -> float:
    """Mean over random directions of the 1-D Wasserstein distance of two projected sets of points (N, F)."""
    directions = np.random.default_rng(seed).standard_normal((a.shape[1], _DIRECTIONS), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    parts = np.split(directions, 16, axis=1)  # for the memory
    return float(np.mean([np.abs(np.sort(part.T @ a.T) - np.sort(part.T @ b.T)).mean() for part in parts]))


def _pyramid(images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """What each level adds to the one below it, the finest first: float32 (N, S, S, 3), (N, S / 2, S / 2, 3) ..."""
    level = images.astype(np.float32)
    while level.shape[1] > _LEAST_PX:
        below = np.stack([cv2.pyrDown(image) for image in level])
        yield level - np.stack([cv2.pyrUp(image) for image in below])
        level = below
    yield level


def _patches(level: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Patches from random places, float32 (N * 128, 147), each colour scaled to mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, level.shape[1] - _PATCH_PX + 1, (2, len(level), _PATCHES, 1, 1))
    window = np.arange(_PATCH_PX)
    patches = level[np.arange(len(level))[:, None, None, None], y + window[:, None], x + window]  # (N, 128, 7, 7, 3)
    spread = patches.std(axis=(0, 1, 2, 3))
    patches = (patches - patches.mean(axis=(0, 1, 2, 3))) / np.where(spread > 0, spread, 1)
    return patches.reshape(len(level) * _PATCHES, -1)

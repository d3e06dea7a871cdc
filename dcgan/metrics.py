"""Image quality measures as pure functions of numpy arrays; those on tensors are in `dcgan.similarity`."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

# Patches per image and level, their side, side of the coarsest level, directions (Karras et al. 2018, section 5).
_PATCHES, _PATCH_PX, _LEAST_PX, _DIRECTIONS = 128, 7, 16, 512
_ROWS = 1024  # rows per block of a distance table
_GRAIN_PX = 1.5  # standard deviation of the blur that excludes grain from detail


def psnr(real: NDArray[np.uint8], fake: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images uint8 (H, W, 3); inf for equal ones.

    `where` are the pixels to compare, such as the hole, bool (H, W).
    """
    difference = np.maximum(real, fake) - np.minimum(real, fake)
    if where is not None:
        difference = difference[where]
    mse = float(np.square(difference, dtype=np.uint16).mean(dtype=np.float64))  # little memory, also for large photos
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def detail(pixels: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """Strength of the fine structure among the given pixels of an image uint8 (H, W, 3), above 0; compare it by ratio.

    It is the mean of the absolute Laplacian of the lightness without its grain.
    """
    light = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), _GRAIN_PX)
    return float(np.abs(cv2.Laplacian(light, cv2.CV_32F))[where].mean()) + 1e-6


def frechet_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Squared Frechet distance of normal distributions fitted to features (N, F) and (M, F); 0 for equal sets.

    Small sets overestimate the distance, so compare only results of equal N and M.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6.
    """
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # tr sqrt(cov_a cov_b) from a symmetric matrix with the same eigenvalues, which stays real for deficient ranks.
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel_distance(
    a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0, subset: int = 1000, subsets: int = 100
) -> float:
    """Unbiased squared MMD with a cubic kernel, averaged over random subsets; about 0 for equal distributions.

    The kernel is (x.y / s + 1)^3, where s is the mean squared norm of a's rows. The source divides by the number of
    features instead, but dlib's embeddings are so short that such a kernel would be almost linear, and compare only
    means.

    Args:
        a: (N, F), N at least 2.
        b: (M, F).
        seed: seed of the subsets.
        subset: rows per subset, at most those of the smaller set.
        subsets: their number; 1 if a subset contains everything.
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
    """Precision: share of fake features in the region of the real ones. Recall: share of real ones in that of the fake.

    The region of a set is the union of the balls around its rows that reach their k-th neighbours.

    The sets are (N, F) and (M, F), N and M above k; recall grows with M.

    Source: Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models", eq. 1.
    """

    def covered(rows: NDArray[np.float64], by: NDArray[np.float64]) -> float:
        # Index 0 is the row itself. The slack allows for rounding between equal rows.
        reach = np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _squares(by, by)])
        return float(np.concatenate([(part <= reach + 1e-12).any(axis=1) for part in _squares(rows, by)]).mean())

    return covered(fake, real), covered(real, fake)


def nearest(rows: NDArray[np.floating], among: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the nearest of `among` (M, F) for each of the rows (N, F): Euclidean distances (N,) and indices (N,)."""
    distances, indices = nearest_few(rows, among, 1)
    return distances[:, 0], indices[:, 0]


def nearest_few(
    rows: NDArray[np.floating], among: NDArray[np.floating], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the k nearest likewise, M at least k: distances (N, k) and indices (N, k), the nearest first."""
    indices = np.concatenate([np.argpartition(part, k - 1, axis=1)[:, :k] for part in _squares(rows, among)])
    # Compute the distances again: the table loses small ones to cancellation.
    pairs = zip(rows, indices, strict=True)
    distances = np.array([np.linalg.norm(row - among[few], axis=1) for row, few in pairs])
    order = distances.argsort(axis=1, kind="stable")
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


def _squares(a: NDArray[np.floating], b: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Squared distances of all rows of a (N, F) to all rows of b (M, F), in blocks of (1024, M)."""
    lengths = np.square(b).sum(axis=1)
    for begin in range(0, len(a), _ROWS):
        part = a[begin : begin + _ROWS]
        yield np.maximum(np.square(part).sum(axis=1)[:, None] + lengths - 2 * part @ b.T, 0)


def swd(real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0) -> dict[int, float]:
    """Sliced Wasserstein distance of patches of uint8 (N, S, S, 3) at each level of a Laplacian pyramid; 0 if equal.

    Returns:
        Distance by side of the level in pixels, from S down to 16, without the source's factor of 1000.
    Raises:
        ValueError: the shapes differ.
    Source: Karras et al. 2018, "Progressive growing of GANs", section 5.
    """
    if real.shape != fake.shape:
        raise ValueError(f"sets of {real.shape} and {fake.shape} images; expected equal shapes")
    levels = zip(laplacian_pyramid(real), laplacian_pyramid(fake), strict=True)
    return {a.shape[1]: sliced_wasserstein(_patches(a, seed), _patches(b, seed), seed) for a, b in levels}


def sliced_wasserstein(a: NDArray[np.float32], b: NDArray[np.float32], seed: int = 0) -> float:
    """1-D Wasserstein distance of two sets of points (N, F), averaged over projections to random directions."""
    directions = np.random.default_rng(seed).standard_normal((a.shape[1], _DIRECTIONS), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    parts = np.split(directions, 16, axis=1)  # to limit memory
    return float(np.mean([np.abs(np.sort(part.T @ a.T) - np.sort(part.T @ b.T)).mean() for part in parts]))


def laplacian_pyramid(images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Laplacian pyramid, the finest level first: float32 (N, S, S, 3), (N, S / 2, S / 2, 3) ..."""
    level = images.astype(np.float32)
    while level.shape[1] > _LEAST_PX:
        below = np.stack([cv2.pyrDown(image) for image in level])
        yield level - np.stack([cv2.pyrUp(image) for image in below])
        level = below
    yield level


def _patches(level: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Random patches, float32 (N * 128, 147), each colour normalised to mean 0 and standard deviation 1."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, level.shape[1] - _PATCH_PX + 1, (2, len(level), _PATCHES, 1, 1))
    window = np.arange(_PATCH_PX)
    patches = level[np.arange(len(level))[:, None, None, None], y + window[:, None], x + window]  # (N, 128, 7, 7, 3)
    spread = patches.std(axis=(0, 1, 2, 3))
    patches = (patches - patches.mean(axis=(0, 1, 2, 3))) / np.where(spread > 0, spread, 1)
    return patches.reshape(len(level) * _PATCHES, -1)

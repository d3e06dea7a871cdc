"""Blend generated pixels into a hole without a visible seam, and classical inpainting; visible pixels never change."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu

from completion.config import BLENDS

_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0))
_CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32)
_DIRECT_PX = 60_000  # largest hole solved directly, in about half a second
_COARSEST_PX = 5_000  # the same for the coarsest grid of multigrid
_STEPS, _SMOOTHINGS, _DAMPING = 7, 2, 0.8
_TINY = 1e-20  # avoids division by 0 for a zero residual
_INPAINT_SIDE_PX = 512  # larger holes are inpainted at reduced size
_INPAINT_RIM_PX = 16  # width of the border around a hole that inpainting reads
_STRUCTURE_SIDE_PX, _STRUCTURE_PX = 512, 25_000  # limits on side and hole area for `surroundings`
_LEAST_VISIBLE = 0.25  # share of a reduced pixel that must be visible
_SPREAD_PX = 24  # longest side of the copy that is enlarged into a hole
_GRAIN_PX = 1.0  # standard deviation of the blur that separates grain from image structure
_GRAIN_WINDOW_PX = 7  # side of the windows in which grain is measured


def blend(
    photo: NDArray[np.uint8],
    fill: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    how: str = "poisson",
    ignored: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Fill a hole with generated pixels.

    Args:
        photo: uint8 (H, W, 3); not modified, and not read inside the hole.
        fill: uint8 (H, W, 3), the generated pixels; "poisson" also reads the one-pixel rim around the hole.
        hole: bool (H, W), True = fill this.
        how: "poisson" keeps the fill's gradients and matches the photo's colours at the rim; "alpha" fades from the
            nearest visible colour into the fill over a few pixels; "none" copies the fill.
        ignored: bool (H, W), pixels outside the hole that the fill need not match; None if there are none.
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    Raises:
        ValueError: `how` is not one of the above.
    """
    if how not in BLENDS:
        raise ValueError(f"the blend is {how!r}, expected one of {', '.join(BLENDS)}")
    blended = photo.copy()
    ys, xs = np.nonzero(hole)
    if not len(ys):
        return blended
    # Only the hole and the one-pixel rim around it matter.
    box = tuple(slice(max(0, axis.min() - 1), axis.max() + 2) for axis in (ys, xs))
    part = hole[box]
    known = ~part if ignored is None else ~(part | ignored[box])
    method = {"poisson": _poisson, "alpha": _alpha, "none": lambda photo, fill, hole, known: fill[hole]}[how]
    inside = method(photo[box], fill[box], part, known)  # (pixels in the hole, 3)
    blended[hole] = np.clip(np.round(inside), 0, 255).astype(np.uint8)
    return blended


def _poisson(
    photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Add a smooth correction, the solution of Laplace's equation, that makes the fill match the photo at the rim.

    x = fill + correction minimises || grad x - grad fill ||^2 subject to x = photo on the visible pixels. The border
    of the photo imposes no condition.
    Source: Yeh et al. 2017, eq. 8; Perez, Gangnet and Blake 2003, "Poisson image editing", eq. 7.
    """
    rim = ndimage.binary_dilation(hole) & known
    regions, _ = ndimage.label(hole)
    # A region without a rim has no boundary values.
    meets = hole & np.isin(regions, np.unique(regions[hole & ndimage.binary_dilation(rim)]))
    gap = np.where(rim[..., None], photo.astype(np.float32) - fill, 0)  # correction at the rim
    return fill[hole].astype(np.float64) + _membrane(_around(gap) * meets[..., None], rim, meets)[hole]


def _membrane(missing: NDArray[np.float32], rim: NDArray[np.bool_], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Solve Laplace's equation in a hole: directly if it is small, otherwise by multigrid-preconditioned CG.

    Args:
        missing: float32 (H, W, 3), for each pixel the sum of its neighbours' values on the rim; 0 outside the hole.
        rim: bool (H, W), pixels with given values; pixels in neither `rim` nor `hole` are not neighbours.
        hole: bool (H, W); each connected part touches the rim.
    Returns:
        float32 (H, W, 3), 0 outside the hole; for a large hole, the error is below one grey level.
    Source: Shewchuk 1994, "An introduction to the conjugate gradient method", B3, with the beta of Polak and Ribiere.
    """
    grid = _Grid(rim, hole, _DIRECT_PX)
    solution = np.zeros_like(missing)
    direction = better = grid.cycle(missing)
    if grid.coarse is None:
        return better
    square = (missing * better).sum(axis=(0, 1))
    for _ in range(_STEPS):
        applied = grid.applied(direction)
        length = square / np.maximum((direction * applied).sum(axis=(0, 1)), _TINY)
        solution += length * direction
        before, missing = missing, missing - length * applied
        better = grid.cycle(missing)
        turn = ((missing - before) * better).sum(axis=(0, 1)) / np.maximum(square, _TINY)
        direction, square = better + turn * direction, (missing * better).sum(axis=(0, 1))
    return solution


class _Grid:
    """Multigrid for Laplace's equation in a hole; each level has half the resolution of the one above.

    Args:
        rim: bool (H, W), pixels where the solution is 0; pixels in neither `rim` nor `hole` are not neighbours.
        hole: bool (H, W); each connected part touches the rim.
        direct_px: largest hole, in pixels, that is solved directly.
    Source: Briggs, Henson and McCormick 2000, "A multigrid tutorial", chapter 3.
    """

    def __init__(self, rim: NDArray[np.bool_], hole: NDArray[np.bool_], direct_px: int) -> None:
        self.hole = hole[..., None]
        self.count = _around((hole | rim).astype(np.float32))[..., None]
        self.coarse: _Grid | None = None
        if hole.sum() <= direct_px:
            self._factorise(hole)
            return
        # Damped, as plain Jacobi iteration does not reduce checkerboard errors.
        self.share = np.where(self.hole, _DAMPING / np.maximum(self.count, 1), 0).astype(np.float32)
        coarse_rim = _fours(rim) > 0
        self.coarse = _Grid(coarse_rim, (_fours(hole) > 0) & ~coarse_rim, _COARSEST_PX)

    def applied(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the negative discrete Laplacian; 0 outside the hole."""
        return (self.count * values - _around(values)) * self.hole

    def cycle(self, missing: NDArray[np.float32]) -> NDArray[np.float32]:
        """Solve applied(x) = missing, by one V-cycle or, on the coarsest grid, directly."""
        solution = np.zeros_like(missing)
        if self.coarse is None:
            if len(self._at[0]):
                solution[self._at] = self._factors.solve(missing[self._at].astype(np.float64))
            return solution
        for _ in range(_SMOOTHINGS):
            solution += self.share * (missing - self.applied(solution))
        rest = _fours(missing - self.applied(solution)) * self.coarse.hole
        coarse = self.coarse.cycle(rest)
        height, width = missing.shape[:2]
        solution += cv2.resize(coarse, (2 * coarse.shape[1], 2 * coarse.shape[0]))[:height, :width] * self.hole
        for _ in range(_SMOOTHINGS):
            solution += self.share * (missing - self.applied(solution))
        return solution

    def _factorise(self, hole: NDArray[np.bool_]) -> None:
        self._at = ys, xs = np.nonzero(hole)
        if not len(ys):
            return
        index = np.full(hole.shape, -1)
        index[ys, xs] = np.arange(len(ys))
        rows, columns = [], []
        for dy, dx in _SIDES:
            y, x = ys + dy, xs + dx
            here = np.nonzero((y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1]))[0]
            here = here[hole[y[here], x[here]]]
            rows.append(here)
            columns.append(index[y[here], x[here]])
        row, column = np.concatenate(rows), np.concatenate(columns)
        laplacian = sparse.csc_matrix((-np.ones(len(row)), (row, column)), shape=(len(ys), len(ys)))
        laplacian += sparse.diags_array(self.count[ys, xs, 0].astype(np.float64), format="csc")
        # The matrix is symmetric positive definite, so no pivoting is needed.
        self._factors = splu(
            laplacian, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )


def _around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum the four neighbours of each pixel."""
    return cv2.filter2D(values, -1, _CROSS, borderType=cv2.BORDER_CONSTANT).astype(np.float32, copy=False)


def _fours(values: NDArray[Any]) -> NDArray[np.float32]:
    """Sum blocks of 2x2 pixels, padded with zeros to even size."""
    odd = [(0, length % 2) for length in values.shape[:2]] + [(0, 0)] * (values.ndim - 2)
    even = np.pad(values.astype(np.float32), odd)
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _alpha(
    photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    inside = fill[hole].astype(np.float64)
    if not known.any():
        return inside
    distance, (y, x) = ndimage.distance_transform_edt(~known, return_indices=True)
    width = max(2.0, 0.05 * float(np.sqrt(hole.sum())))
    share = np.clip(distance[hole] / width, 0, 1)[:, None]
    return share * inside + (1 - share) * photo[y[hole], x[hole]]


def reduce_visible(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Reduce a photo with a hole; visible pixels never mix with those under the hole.

    Args:
        photo: uint8 (H, W, 3).
        hole: bool (H, W).
        scale: size of the copy relative to the photo, below 1.
    Returns:
        The copy uint8 (h, w, 3) and its hole bool (h, w), the pixels of which less than a quarter is visible. Under the
        hole the copy is the reduced photo.
    """
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    share = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    visible = share >= _LEAST_VISIBLE
    for channel in range(3):
        seen = cv2.resize(np.where(hole, np.float32(0), photo[..., channel]), size, interpolation=cv2.INTER_AREA)
        small[visible, channel] = np.clip(np.round(seen[visible] / share[visible]), 0, 255).astype(np.uint8)
    return small, ~visible


def inpaint(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole by Telea's method, without a network.

    Args:
        photo: uint8 (H, W, 3); not modified, and not read inside the hole.
        hole: bool (H, W), True = fill this.
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    Source: Telea 2004, "An image inpainting technique based on the fast marching method".
    """
    filled = photo.copy()
    if not hole.any() or hole.all():
        filled[hole] = 127
        return filled
    ys, xs = np.nonzero(hole)
    box = tuple(slice(max(0, axis.min() - _INPAINT_RIM_PX), axis.max() + 1 + _INPAINT_RIM_PX) for axis in (ys, xs))
    part, under = filled[box], hole[box]  # a view: writing to it changes `filled`
    part[under] = (photo[box][~under] if not under.all() else photo[~hole]).mean(axis=0).astype(np.uint8)
    # The rim cannot restore fine detail in a large hole, so a reduced size suffices.
    scale = min(1.0, _INPAINT_SIDE_PX / max(under.shape))
    size = max(1, round(under.shape[1] * scale)), max(1, round(under.shape[0] * scale))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(under.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if small_hole.all() or min(size) < 3:  # OpenCV reads out of bounds on single-row images
        return filled
    # Rounding to bytes at every pixel would brighten the fill; for floats OpenCV accepts only single channels.
    channels = [
        cv2.inpaint(channel, small_hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        for channel in cv2.split(small.astype(np.float32))
    ]
    full = cv2.resize(np.dstack(channels), under.shape[::-1], interpolation=cv2.INTER_LINEAR)[under]
    part[under] = np.clip(np.round(full), 0, 255).astype(np.uint8)
    return filled


def spread(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole with a blurred copy of the photo, which has no edges that could hide a face from a detector.

    Args:
        photo: uint8 (H, W, 3); not modified, and not read inside the hole.
        hole: bool (H, W), True = fill this.
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    """
    small, small_hole = reduce_visible(photo, hole, min(1.0, _SPREAD_PX / max(hole.shape)))
    blurred = cv2.resize(inpaint(small, small_hole), hole.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.where(hole[..., None], blurred, photo).astype(np.uint8)


def surroundings(photo: NDArray[np.uint8], hole: NDArray[np.bool_], part: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Extend surrounding structures into a hole; slower than `inpaint`, but better in wide holes.

    Large areas are reduced in size, which limits the time to about a second.

    Args:
        photo: uint8 (H, W, 3); not modified.
        hole: bool (H, W); its pixels are never read.
        part: bool (H, W), the pixels of the hole to fill.
    Returns:
        uint8 (H, W, 3), changed only in `part`.
    Source: Genser et al. 2018, "Demonstration of rapid frequency selective reconstruction for image resolution
        enhancement"; OpenCV's xphoto module.
    """
    rim_px = 2 * _INPAINT_RIM_PX
    ys, xs = np.nonzero(part)
    box = tuple(slice(max(0, axis.min() - rim_px), axis.max() + 1 + rim_px) for axis in (ys, xs))
    under = hole[box]
    scale = min(1.0, _STRUCTURE_SIDE_PX / max(under.shape), (_STRUCTURE_PX / under.sum()) ** 0.5)
    size = max(1, round(under.shape[1] * scale)), max(1, round(under.shape[0] * scale))
    # A reduced pixel that overlaps the hole belongs to it.
    small_hole = cv2.resize(under.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if small_hole.all():
        return photo
    small = cv2.resize(np.where(under[..., None], np.uint8(0), photo[box]), size, interpolation=cv2.INTER_AREA)
    filled = np.zeros_like(small)
    cv2.xphoto.inpaint(small, np.where(small_hole, 0, 255).astype(np.uint8), filled, cv2.xphoto.INPAINT_FSR_FAST)
    result = photo.copy()
    inside = part[box]
    result[box][inside] = cv2.resize(filled, under.shape[::-1], interpolation=cv2.INTER_CUBIC)[inside]
    return result


def grain(
    completed: NDArray[np.uint8], part: NDArray[np.bool_], hole: NDArray[np.bool_], reach_px: float, seed: int = 0
) -> NDArray[np.uint8]:
    """Add noise to an upscaled fill, as strong as the grain of the visible pixels around it.

    Args:
        completed: uint8 (H, W, 3); not modified.
        part: bool (H, W), pixels that receive noise.
        hole: bool (H, W), the whole hole; its pixels are not measured.
        reach_px: width of the border around `part` where grain is measured, in pixels.
        seed: seed of the noise.
    Returns:
        uint8 (H, W, 3), changed only in `part`.
    """
    ys, xs = np.nonzero(part)
    reach = int(np.ceil(reach_px))
    box = tuple(slice(max(0, axis.min() - reach), axis.max() + 1 + reach) for axis in (ys, xs))
    light = cv2.cvtColor(completed[box], cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = light - cv2.GaussianBlur(light, (0, 0), _GRAIN_PX)
    away = cv2.distanceTransform((~hole[box]).astype(np.uint8), cv2.DIST_L2, 3)
    around = (away > _GRAIN_WINDOW_PX / 2 + 1) & (away <= reach)
    if not around.any():
        return completed
    there, here = _strength(fine, around), _strength(fine, part[box])
    missing = np.sqrt(max(0.0, there**2 - here**2))
    white = np.random.default_rng(seed).standard_normal(fine.shape[:2], dtype=np.float32)
    noise: NDArray[np.float32] = white - cv2.GaussianBlur(white, (0, 0), _GRAIN_PX)
    noise *= missing / _strength(noise, np.ones(noise.shape, dtype=bool))
    grained = completed.copy()
    grained[part] = np.clip(np.round(completed[part] + noise[part[box]][:, None]), 0, 255).astype(np.uint8)
    return grained


def _strength(fine: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Measure grain in the smoothest fifth of the given pixels, which excludes hair and edges."""
    local = cv2.blur(fine * fine, (_GRAIN_WINDOW_PX, _GRAIN_WINDOW_PX))
    return float(np.sqrt(np.quantile(local[where], 0.2)))


def match_means(fill: NDArray[np.uint8], face: NDArray[np.uint8], block: int) -> NDArray[np.uint8]:
    """Adjust a generated face so that its block means match those of the true face.

    Args:
        fill: uint8 (S, S, 3), the generated face.
        face: uint8 (S, S, 3), the true face; only its block means are read.
        block: side of the blocks in pixels.
    Returns:
        uint8 (S, S, 3).
    Source: Irani and Peleg 1991, "Improving resolution by image registration" (back-projection).
    """
    small = (face.shape[1] // block, face.shape[0] // block)
    means = cv2.resize(face, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    corrected = fill.astype(np.float32)
    for _ in range(10):
        missing = means - cv2.resize(corrected, small, interpolation=cv2.INTER_AREA)
        corrected += cv2.resize(missing, fill.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(np.round(corrected), 0, 255).astype(np.uint8)

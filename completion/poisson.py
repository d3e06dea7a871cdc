"""Blend generated pixels into a hole without a visible seam; visible pixels never change."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from align.picture import rounded
from align.resize import box_around
from completion.config import BLENDS

_CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32)
_TOLERANCE = 2e-5  # maximum estimated error of a correction, in grey levels
_MAX_STEPS = 200  # of conjugate gradients; faces take 10 to 20, fine noise 39
_DENSE_PX = 64  # largest grid that is solved directly
_DAMPING = np.float32(0.8)  # undamped, Jacobi iteration does not reduce checkerboard errors
_BILINEAR = np.array([9, 3, 3, 1], dtype=np.float32) / 16
_REACH = 0.04  # length over which differences above the limit fade, relative to the root of the hole's area
_ROUNDING = np.float32(1 / 16384)  # corrections are multiples of this, in grey levels


def blend(
    photo: NDArray[np.uint8],
    fill: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    how: str = "poisson",
    ignored: NDArray[np.bool_] | None = None,
    limit: float = math.inf,
) -> NDArray[np.uint8]:
    """Fill a hole with generated pixels.

    Args:
        photo: uint8 (H, W, 3); not modified, and not read inside the hole.
        fill: uint8 (H, W, 3), the generated pixels; "poisson" also reads the one-pixel boundary around the hole.
        hole: bool (H, W), True = fill this.
        how: "poisson" keeps the fill's gradients and matches the photo's colours at the boundary; "alpha" fades from
            the nearest visible colour into the fill over a few pixels; "none" copies the fill.
        ignored: bool (H, W), pixels outside the hole that the fill need not match; None if there are none.
        limit: for "poisson", differences at the boundary that exceed the median by more levels fade into the fill.
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    Raises:
        ValueError: `how` is not one of the above.
    """
    if how not in BLENDS:
        raise ValueError(f"the blend is {how!r}, expected one of {', '.join(BLENDS)}")
    blended = photo.copy()
    if not hole.any():
        return blended
    box = box_around(hole, 1)  # only the hole and the one-pixel boundary around it matter
    part = hole[box]
    visible = ~part if ignored is None else ~(part | ignored[box])
    cut = photo[box], fill[box], part
    if how == "none":
        inside: NDArray[Any] = fill[hole]
    else:  # (pixels in the hole, 3)
        inside = _poisson(*cut, visible, limit) if how == "poisson" else _alpha(*cut, visible)
    blended[hole] = rounded(inside)
    return blended


def _poisson(
    photo: NDArray[np.uint8],
    fill: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    visible: NDArray[np.bool_],
    limit: float,
) -> NDArray[np.floating]:
    """Add a smooth correction, the solution of Laplace's equation, that makes the fill match the photo at the boundary.

    x = fill + correction minimises || grad x - grad fill ||^2 subject to x = photo on the visible pixels. The border
    of the photo imposes no condition.
    Source: Yeh et al. 2017, eq. 8; Perez, Gangnet and Blake 2003, "Poisson image editing", eq. 7.
    """
    boundary = _dilate(hole) & visible
    # A region without a boundary has no values to match.
    count, regions = cv2.connectedComponents(hole.astype(np.uint8), connectivity=4)
    matched = np.zeros(count, dtype=bool)
    matched[regions[_dilate(boundary)]] = True
    solvable = hole & matched[regions]
    mismatch = np.where(boundary[..., None], photo.astype(np.float32) - fill, np.float32(0))

    def spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
        around = cv2.filter2D(values, -1, _CROSS, borderType=cv2.BORDER_CONSTANT)
        correction = np.zeros(fill.shape, dtype=np.float32)
        correction[solvable] = _solve_laplace(around[solvable], boundary, solvable)
        return correction

    # What differs by much more than the rest of the boundary shows something else, such as background beside hair: its
    # colour must not spread over the face.
    usual = np.median(mismatch[boundary], axis=0) if boundary.any() else np.zeros(3)
    alike = np.where(boundary[..., None], mismatch.clip(usual - limit, usual + limit), 0).astype(np.float32)
    correction = spread(alike)
    if (mismatch != alike).any():
        away = np.maximum(cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, 5) - 1, 0)
        correction += spread(mismatch - alike) * np.exp(-away / (_REACH * np.sqrt(hole.sum())))[..., None]
    # Corrections of exactly half a level are frequent in holes of single pixels: drop the solver's error, which would
    # decide how they are rounded.
    return fill[hole] + np.round(correction[hole] / _ROUNDING) * _ROUNDING


def _solve_laplace(
    right: NDArray[np.float32], boundary: NDArray[np.bool_], hole: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Solve Laplace's equation in a hole by conjugate gradients, preconditioned by one V-cycle of multigrid.

    Args:
        right: float32 (N, 3), the right-hand side: for each of the N pixels of the hole, in row-major order, the sum of
            its neighbours' values on the boundary.
        boundary: bool (H, W), pixels with given values; pixels in neither `boundary` nor `hole` are not neighbours.
        hole: bool (H, W); each connected part touches the boundary.
    Returns:
        float32 (N, 3).
    Source: Notay 2000, "Flexible conjugate gradients", FCG(1), as the V-cycle is not symmetric.
    """
    grid, residual = _Grid(boundary, hole), np.pad(right, ((0, 1), (0, 1)))
    solution = np.zeros_like(residual)
    direction = error = grid.cycle(residual)
    for _ in range(_MAX_STEPS):
        if np.abs(error).max() <= _TOLERANCE:
            break
        applied = grid.apply(direction)
        energy = (direction * applied).sum()
        length = (direction * residual).sum() / energy
        solution += length * direction
        residual -= length * applied
        error = grid.cycle(residual)
        beta = -(error * applied).sum() / energy
        direction = error + beta * direction
    return solution[:-1, :3]


class _Grid:
    """Multigrid for Laplace's equation in a hole; each level has half the resolution of the one above.

    Values are float32 (N + 1, 4): a row for each pixel of the hole, and a last one of zeros for neighbours outside it.
    Time and memory thus depend on the hole and not on the box around it. The fourth column is unused, but numpy
    gathers rows of 16 bytes four times as fast as rows of 12.

    Args:
        boundary: bool (H, W), pixels where the solution is 0; pixels in neither `boundary` nor `hole` are not
            neighbours.
        hole: bool (H, W); each connected part touches the boundary.
    Source: Briggs, Henson and McCormick 2000, "A multigrid tutorial", chapter 3.
    """

    def __init__(self, boundary: NDArray[np.bool_], hole: NDArray[np.bool_]) -> None:
        ys, xs = np.nonzero(hole)
        last = len(ys)
        index = _index(hole)
        near = np.zeros(index.shape, dtype=bool)
        near[1 : len(hole) + 1, 1 : hole.shape[1] + 1] = hole | boundary
        sides = ys + [[0], [1], [1], [2]], xs + [[1], [0], [2], [1]]  # both images have a border of one pixel
        count = near[sides].sum(axis=0, dtype=np.float32)
        self.neighbours = _append(index[sides], last)
        self.count = np.repeat(_append(count, 0)[:, None], 4, axis=1)
        self.step = np.divide(_DAMPING, self.count, out=np.zeros_like(self.count), where=self.count > 0)
        self.coarse: _Grid | None = None
        if last <= _DENSE_PX:
            touching = np.abs(ys[:, None] - ys) + np.abs(xs[:, None] - xs) == 1
            self.inverse = np.linalg.inv(np.diag(count).astype(np.float64) - touching)
            return
        coarse_boundary, coarse_hole = np.zeros((2, (len(hole) + 1) // 2, (hole.shape[1] + 1) // 2), dtype=bool)
        for fine, coarse in ((boundary, coarse_boundary), (hole, coarse_hole)):
            y, x = np.nonzero(fine)
            coarse[y // 2, x // 2] = True
        coarse_hole &= ~coarse_boundary
        self.coarse = _Grid(coarse_boundary, coarse_hole)
        # Restriction sums the four pixels of a block.
        y, x = np.nonzero(coarse_hole)
        self.children = _append(index[2 * y + [[1], [1], [2], [2]], 2 * x + [[1], [2], [1], [2]]], last)
        # Prolongation is bilinear; at the border of the photo it repeats the outermost pixels.
        y, x = (
            np.clip([at // 2, at // 2 + at % 2 * 2 - 1], 0, side - 1)
            for at, side in ((ys, len(coarse_hole)), (xs, coarse_hole.shape[1]))
        )
        parents = _index(coarse_hole)[1 + y[[0, 0, 1, 1]], 1 + x[[0, 1, 0, 1]]]
        self.parents = _append(parents, int(coarse_hole.sum()))

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the negative discrete Laplacian."""
        applied = self.count * values
        for neighbour in self.neighbours:
            applied -= values.take(neighbour, axis=0)
        return applied

    def cycle(self, right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Solve apply(x) = right, by one V-cycle or, on the coarsest grid, directly."""
        if self.coarse is None:
            solution = np.zeros_like(right)
            solution[:-1] = self.inverse @ right[:-1]
            return solution
        solution = self.step * right  # the first step of Jacobi, from 0
        rest = right - self.apply(solution)
        a, b, c, d = (rest.take(child, axis=0) for child in self.children)
        coarse = self.coarse.cycle(a + b + c + d)
        for weight, parent in zip(_BILINEAR, self.parents, strict=True):
            solution += weight * coarse.take(parent, axis=0)
        solution += self.step * (right - self.apply(solution))
        return solution


def _index(hole: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Number the pixels of a hole in row-major order, in an image with a border of 1 to 2 pixels; else their count."""
    index = np.full((len(hole) + 3, hole.shape[1] + 3), np.count_nonzero(hole))
    index[1:-2, 1:-2][hole] = np.arange(np.count_nonzero(hole))
    return index


def _append(values: NDArray[Any], last: float) -> NDArray[Any]:
    """Append a value to each row."""
    return np.concatenate([values, np.full((*values.shape[:-1], 1), last, values.dtype)], axis=-1)


def _dilate(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Add the four neighbours of each marked pixel."""
    return cv2.dilate(pixels.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0


def _alpha(
    photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_], visible: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Fade from the colour of the nearest visible pixel into the fill."""
    inside = fill[hole].astype(np.float64)
    if not visible.any():
        return inside
    hidden = (~visible).astype(np.uint8)
    distance = cv2.distanceTransform(hidden, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[hole]
    # OpenCV labels pixels with its 5x5 mask only. Its distances are approximate, but within the width of the fade it
    # always chose one of the nearest pixels.
    _, nearest = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.zeros((nearest.max() + 1, 3), dtype=np.uint8)
    colours[nearest[visible]] = photo[visible]
    share = np.clip(distance / max(2.0, 0.05 * float(np.sqrt(hole.sum()))), 0, 1)[:, None]
    return share * inside + (1 - share) * colours[nearest[hole]]

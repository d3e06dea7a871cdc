"""Put the generated pixels into the hole so that no seam shows; known pixels stay as they are, byte for byte."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu

BLENDS = ("poisson", "alpha", "none")
_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0))
_INPAINT_SIDE_PX = 1024


def blend(
    photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_], how: str = "poisson"
) -> NDArray[np.uint8]:
    """Fill a hole.

    Args:
        photo: uint8 (H, W, 3); not written to, and not read inside the hole.
        fill: uint8 (H, W, 3), what to fill the hole with; around it, what fits the fill there.
        hole: bool (H, W), True = fill this.
        how: "poisson" keeps the fill's gradients and meets the photo's colours at the rim, "alpha" fades from the
            nearest known colour into the fill over a few pixels, "none" copies.
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    """
    if how not in BLENDS:
        raise ValueError(f"the blend is {how!r}, expected one of {', '.join(BLENDS)}")
    blended = photo.copy()
    ys, xs = np.nonzero(hole)
    if not len(ys):
        return blended
    # Only the hole and one pixel around it matter.
    box = tuple(slice(max(0, axis.min() - 1), axis.max() + 2) for axis in (ys, xs))
    method = {"poisson": _poisson, "alpha": _alpha, "none": lambda photo, fill, hole: fill[hole]}[how]
    inside = method(photo[box], fill[box], hole[box])  # (pixels in the hole, 3)
    blended[hole] = np.clip(np.round(inside), 0, 255).astype(np.uint8)
    return blended


def _poisson(photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Add to the fill what makes it meet the photo at the rim, spread smoothly over the hole (Laplace's equation).

    With x = fill + c, c the correction, this is argmin || grad x - grad fill ||^2 with x = photo on the known pixels.
    At the border of the photo there is no neighbour to meet.
    Source: Yeh et al. 2017, eq. 8; Perez, Gangnet and Blake 2003, "Poisson image editing", eq. 7.
    """
    result = fill[hole].astype(np.float64)
    regions, _ = ndimage.label(hole)
    meets = ndimage.binary_dilation(~hole) & hole
    solvable = np.isin(regions, np.unique(regions[meets])) & hole  # a region without a rim has nothing to meet
    ys, xs = np.nonzero(solvable)
    if not len(ys):
        return result
    index = np.full(hole.shape, -1)
    index[ys, xs] = np.arange(len(ys))
    gap = photo.astype(np.float64) - fill  # what c is at the rim
    diagonal = np.zeros(len(ys))
    rim = np.zeros((len(ys), 3))
    rows, columns = [], []
    for dy, dx in _SIDES:
        y, x = ys + dy, xs + dx
        present = (y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1])
        diagonal += present
        here, y, x = np.nonzero(present)[0], y[present], x[present]
        unknown = hole[y, x]
        rows.append(here[unknown])
        columns.append(index[y[unknown], x[unknown]])
        rim[here[~unknown]] += gap[y[~unknown], x[~unknown]]
    row, column = np.concatenate(rows), np.concatenate(columns)
    laplacian = sparse.csc_matrix((-np.ones(len(row)), (row, column)), shape=(len(ys), len(ys)))
    laplacian += sparse.diags_array(diagonal, format="csc")
    # The matrix is symmetric positive definite: no pivoting, and one factorisation serves the three channels.
    factors = splu(laplacian, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    result[solvable[hole]] += factors.solve(rim)
    return result


def _alpha(photo: NDArray[np.uint8], fill: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    inside = fill[hole].astype(np.float64)
    if hole.all():
        return inside
    distance, (y, x) = ndimage.distance_transform_edt(hole, return_indices=True)
    width = max(2.0, 0.05 * float(np.sqrt(hole.sum())))
    share = np.clip(distance[hole] / width, 0, 1)[:, None]
    return share * inside + (1 - share) * photo[y[hole], x[hole]]


def inpaint(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole from its rim alone, without any network; the values under it are never read.

    Args:
        photo: uint8 (H, W, 3); not written to.
        hole: bool (H, W).
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    Source: Telea 2004, "An image inpainting technique based on the fast marching method".
    """
    filled = photo.copy()
    filled[hole] = 127 if hole.all() else photo[~hole].mean(axis=0).astype(np.uint8)
    if not hole.any() or hole.all():
        return filled
    # Detail does not come back from a rim, so a large photo is filled at a smaller size.
    scale = min(1.0, _INPAINT_SIDE_PX / max(hole.shape))
    size = max(1, round(hole.shape[1] * scale)), max(1, round(hole.shape[0] * scale))
    small = cv2.resize(filled, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if small_hole.all() or min(size) < 3:  # OpenCV reads beyond pictures of a single row
        return filled
    # In bytes every pixel's rounding would add brightness; floats OpenCV takes one channel at a time.
    channels = [
        cv2.inpaint(channel, small_hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        for channel in cv2.split(small.astype(np.float32))
    ]
    full = cv2.resize(np.dstack(channels), hole.shape[::-1], interpolation=cv2.INTER_LINEAR)[hole]
    filled[hole] = np.clip(np.round(full), 0, 255).astype(np.uint8)
    return filled


def match_means(fill: NDArray[np.uint8], face: NDArray[np.uint8], block: int) -> NDArray[np.uint8]:
    """Correct a generated face until the means of its blocks are those of the true face, all that is known of it.

    Args:
        fill: uint8 (S, S, 3).
        face: uint8 (S, S, 3), read by its block means alone.
        block: side of the blocks in pixels.
    Source: Irani and Peleg 1991, "Improving resolution by image registration" (back-projection).
    """
    small = (face.shape[1] // block, face.shape[0] // block)
    means = cv2.resize(face, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    corrected = fill.astype(np.float32)
    for _ in range(10):
        missing = means - cv2.resize(corrected, small, interpolation=cv2.INTER_AREA)
        corrected += cv2.resize(missing, fill.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(np.round(corrected), 0, 255).astype(np.uint8)

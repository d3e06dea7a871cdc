"""The geometry between a photo and the crop of a face: fit an alignment, warp into the crop, paste back."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from align.template import Template

# The Lanczos kernel reads 4 px to each side; a few more keep the border of a cut-out from being seen.
_MARGIN_PX = 8


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where a square crop lies in a photo.

    Attributes:
        matrix: float64 (2, 3), takes (x, y, 1) in the photo's pixels to (x, y) in the crop's.
        size: side of the crop in pixels.
    """

    matrix: NDArray[np.float64]
    size: int

    @classmethod
    def identity(cls, size: int) -> "Alignment":
        """The alignment of a photo that is an aligned crop already."""
        return cls(np.eye(2, 3), size)

    @property
    def inverse(self) -> NDArray[np.float64]:
        """The matrix crop -> photo, float64 (2, 3)."""
        return invert(self.matrix)

    @property
    def scale(self) -> float:
        """Pixels of the crop per pixel of the photo, along the longer axis of an affine fit."""
        return float(np.linalg.norm(self.matrix[:, :2], ord=2))

    def resized(self, size: int) -> "Alignment":
        """The same part of the photo as a crop of another size."""
        times = size / self.size
        matrix = self.matrix * times
        matrix[:, 2] += (times - 1) / 2  # pixel centres lie half a pixel inside of the border
        return Alignment(matrix, size)

    def apply(self, points: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
        """Points (..., 2) of the photo to points of the crop."""
        return transform(self.matrix, points)

    def warp(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the crop out of a photo; beyond the photo's edge its last pixels repeat.

        Args:
            photo: uint8 (H, W, 3) or (H, W).
        Returns:
            uint8 (size, size, 3) or (size, size).
        """
        return _resample(photo, self.matrix, self.size, self.size)

    def footprint(self, shape: tuple[int, int], beyond_px: float = 0) -> NDArray[np.bool_]:
        """The pixels of a photo of `shape` (H, W) that the crop covers, and up to `beyond_px` around: bool (H, W)."""
        covered = np.zeros(shape, dtype=bool)
        x0, y0, x1, y1 = _bounds(self.inverse, self.size, self.size, shape)
        ys, xs = np.mgrid[y0:y1, x0:x1]
        points = self.apply(np.stack([xs, ys], axis=-1))
        # A hair of slack, for what rounding takes from a matrix that meets the border exactly.
        least = -1e-6 - beyond_px * self.scale
        covered[y0:y1, x0:x1] = ((points >= least) & (points <= self.size - 1 - least)).all(axis=-1)
        return covered

    def paste(self, photo: NDArray[np.uint8], crop: NDArray[np.uint8], beyond_px: float = 0) -> NDArray[np.uint8]:
        """Put a crop back where `warp` cut it out.

        Args:
            photo: uint8 (H, W, 3); not written to.
            crop: uint8 (size, size, 3).
            beyond_px: repeat the crop's last pixels up to so far around it, at most 8, in the photo's pixels.
        Returns:
            uint8 (H, W, 3): the crop inside its footprint, the photo everywhere else.
        """
        pasted = photo.copy()
        height, width = photo.shape[:2]
        x0, y0, x1, y1 = _bounds(self.inverse, self.size, self.size, (height, width))
        if x1 <= x0 or y1 <= y0:
            return pasted
        back = self.inverse - np.array([[0, 0, x0], [0, 0, y0]])
        inside = self.footprint((height, width), beyond_px)[y0:y1, x0:x1]
        pasted[y0:y1, x0:x1][inside] = _resample(crop, back, x1 - x0, y1 - y0)[inside]
        return pasted


def transform(matrix: NDArray[np.float64], points: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Apply a (2, 3) matrix to points (..., 2)."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([row[0] * x + row[1] * y + row[2] for row in matrix], axis=-1)


def invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (2, 3) matrix of the opposite direction."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def fit(template: Template, landmarks: NDArray[np.float64], size: int) -> Alignment:
    """The alignment that takes a face's landmarks to the template's targets.

    Args:
        template: which landmarks go where.
        landmarks: float64 (template.points, 2), (x, y) in the photo's pixels.
        size: side of the crop in pixels.
    Returns:
        the alignment, photo -> crop.
    Raises:
        ValueError: the landmarks lie on one point or, for an affine fit, on one line.
    """
    source = template.sources(landmarks)
    target = np.array(template.targets) * size
    if template.fit == "affine":
        unknowns = np.hstack([source, np.ones((3, 1))])
        if np.linalg.cond(unknowns) > 1e8:
            raise ValueError(f"the landmarks {source.tolist()} lie on one line, so no affine fit exists")
        return Alignment(np.linalg.solve(unknowns, target).T, size)
    # Least-squares similarity: x' = a x - b y + s, y' = b x + a y + t is linear in (a, b, s, t).
    if np.allclose(source, source[0]):
        raise ValueError(f"the landmarks {source.tolist()} lie on one point, so no similarity fit exists")
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = np.vstack([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, s, t = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
    return Alignment(np.array([[a, -b, s], [b, a, t]]), size)


def _bounds(matrix: NDArray[np.float64], width: int, height: int, limit: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) that a width x height image takes after `matrix`, cut to `limit` (H, W)."""
    moved = transform(matrix, np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]))
    x0, y0 = np.floor(moved.min(axis=0)).astype(int) - _MARGIN_PX
    x1, y1 = np.ceil(moved.max(axis=0)).astype(int) + _MARGIN_PX + 1
    x0, x1 = np.clip([x0, x1], 0, limit[1])
    y0, y1 = np.clip([y0, y1], 0, limit[0])
    return int(x0), int(y0), int(x1), int(y1)


def _resample(image: NDArray[np.uint8], matrix: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    """Warp an image, Lanczos when it grows, area means when it shrinks (plain interpolation would alias)."""
    # Only the part that is seen takes part: OpenCV refuses sides over 32,767 px, and less is faster.
    x0, y0, x1, y1 = _bounds(invert(matrix), width, height, image.shape[:2])
    x0, y0 = min(x0, image.shape[1] - 1), min(y0, image.shape[0] - 1)
    part = np.ascontiguousarray(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    matrix = np.hstack([matrix[:, :2], matrix @ np.array([[x0], [y0], [1.0]])])
    scale = np.linalg.norm(matrix[:, :2], ord=2)
    times = max(1, int(np.ceil(1 / scale - 0.05)))
    # On a grid `times` finer, pixel centre c lies at times * c + (times - 1) / 2.
    fine = matrix * times
    fine[:, 2] += (times - 1) / 2
    warped = cv2.warpAffine(
        part,
        fine,
        (width * times, height * times),
        flags=cv2.INTER_LANCZOS4 if times == 1 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if times > 1:
        warped = cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)
    return warped.astype(np.uint8, copy=False)

"""Geometry between a photo and the crop of a face: fit an alignment, warp into the crop, paste back."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from align.template import Template

# The Lanczos kernel reads 4 px on each side; 8 px keep the edges of a cut-out invisible.
_MARGIN_PX = 8


@dataclass(frozen=True, eq=False)
class Alignment:
    """Position of a square crop in a photo.

    Attributes:
        matrix: float64 (2, 3), maps (x, y, 1) in the photo's pixels to (x, y) in the crop's pixels.
        size: side of the crop in pixels.
    """

    matrix: NDArray[np.float64]
    size: int

    @classmethod
    def identity(cls, size: int) -> "Alignment":
        """Return the alignment of a photo that is itself an aligned crop."""
        return cls(np.eye(2, 3), size)

    @property
    def inverse(self) -> NDArray[np.float64]:
        """Matrix from the crop to the photo, float64 (2, 3)."""
        return invert(self.matrix)

    @property
    def scale(self) -> float:
        """Pixels of the crop per pixel of the photo; for an affine matrix, along the axis that is enlarged most."""
        return float(np.linalg.norm(self.matrix[:, :2], ord=2))

    def resized(self, size: int) -> "Alignment":
        """Return the alignment of the same part of the photo for a crop of another size."""
        times = size / self.size
        matrix = self.matrix * times
        matrix[:, 2] += (times - 1) / 2  # pixel centres lie half a pixel inside the border
        return Alignment(matrix, size)

    def rescaled(self, scale: float) -> "Alignment":
        """Return the alignment of the same crop in a copy of the photo that is `scale` times as large."""
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2].sum(axis=1) * (1 / scale - 1) / 2  # pixel centres, as above
        matrix[:, :2] /= scale
        return Alignment(matrix, self.size)

    def cut(self, corner: tuple[float, float], scale: float = 1) -> "Alignment":
        """Return the alignment of the same crop in the part of a photo that begins at (x, y), enlarged by `scale`."""
        moved = np.column_stack([self.matrix[:, :2], transform(self.matrix, np.array(corner))])
        return Alignment(moved, self.size).rescaled(scale)

    def uncut(self, corner: tuple[float, float], scale: float = 1) -> "Alignment":
        """Undo `cut`."""
        return self.rescaled(1 / scale).cut((-corner[0], -corner[1]))

    def apply(self, points: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
        """Map points (..., 2) from the photo to the crop."""
        return transform(self.matrix, points)

    def warp(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the crop out of a photo; outside the photo its edge pixels are repeated.

        Args:
            photo: uint8 (H, W, 3) or (H, W).
        Returns:
            uint8 (size, size, 3) or (size, size).
        """
        return _resample(photo, self.matrix, self.size, self.size)

    def footprint(self, shape: tuple[int, int], beyond_px: float = 0) -> NDArray[np.bool_]:
        """Return which pixels of a photo (H, W) the crop and a border of `beyond_px` around it cover: bool (H, W)."""
        covered = np.zeros(shape, dtype=bool)
        x0, y0, x1, y1 = _bounds(self.inverse, self.size, self.size, shape)
        ys, xs = np.mgrid[y0:y1, x0:x1]
        points = self.apply(np.stack([xs, ys], axis=-1))
        # Tolerance for rounding errors when a pixel lies exactly on the border.
        least = -1e-6 - beyond_px * self.scale
        covered[y0:y1, x0:x1] = ((points >= least) & (points <= self.size - 1 - least)).all(axis=-1)
        return covered

    def paste(self, photo: NDArray[np.uint8], crop: NDArray[np.uint8], beyond_px: float = 0) -> NDArray[np.uint8]:
        """Put a crop back into the photo that `warp` cut it out of.

        Args:
            photo: uint8 (H, W, 3); not modified.
            crop: uint8 (size, size, 3).
            beyond_px: width of a border around the crop to fill with its edge pixels, in the photo's pixels, at most 8.
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
    """Apply a (2, 3) matrix to points (..., 2). The only place that does."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([row[0] * x + row[1] * y + row[2] for row in matrix], axis=-1)


def invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of a (2, 3) matrix."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def compose(second: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (2, 3) matrix that applies one matrix after another."""
    return np.column_stack([second[:, :2] @ first[:, :2], transform(second, first[:, 2])])


def fit(template: Template, landmarks: NDArray[np.float64], size: int) -> Alignment:
    """Compute the alignment that maps a face's landmarks onto the targets of a template.

    Args:
        template: target positions.
        landmarks: float64 (template.points, 2), (x, y) in the photo's pixels.
        size: side of the crop in pixels.
    Raises:
        ValueError: the landmarks coincide or, for an affine fit, lie on one line.
    """
    source = template.sources(landmarks)
    target = np.array(template.targets) * size
    if template.fit == "affine":
        unknowns = np.hstack([source, np.ones((3, 1))])
        if np.linalg.cond(unknowns) > 1e8:
            raise ValueError(f"the landmarks {source.tolist()} lie on one line; an affine fit needs three that do not")
        return Alignment(np.linalg.solve(unknowns, target).T, size)
    if np.allclose(source, source[0]):
        raise ValueError(f"the landmarks {source.tolist()} lie on one point; a similarity fit needs two that differ")
    return Alignment(similarity(source, target), size)


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (2, 3) matrix that scales, rotates and moves points (N, 2) nearest to others, by least squares."""
    # x' = a x - b y + s, y' = b x + a y + t is linear in (a, b, s, t).
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = np.vstack([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, s, t = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, s], [b, a, t]])


def _bounds(matrix: NDArray[np.float64], width: int, height: int, limit: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) of a mapped width x height image, with a margin, clipped to `limit` (H, W)."""
    moved = transform(matrix, np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]))
    x0, y0 = np.floor(moved.min(axis=0)).astype(int) - _MARGIN_PX
    x1, y1 = np.ceil(moved.max(axis=0)).astype(int) + _MARGIN_PX + 1
    x0, x1 = np.clip([x0, x1], 0, limit[1])
    y0, y1 = np.clip([y0, y1], 0, limit[0])
    return int(x0), int(y0), int(x1), int(y1)


def _resample(image: NDArray[np.uint8], matrix: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    """Warp an image: Lanczos interpolation to enlarge, area means to shrink (plain interpolation would alias)."""
    # Only the visible part is warped, because OpenCV refuses sides above 32,767 px and a small part is faster.
    x0, y0, x1, y1 = _bounds(invert(matrix), width, height, image.shape[:2])
    x0, y0 = min(x0, image.shape[1] - 1), min(y0, image.shape[0] - 1)
    part = np.ascontiguousarray(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    matrix = np.column_stack([matrix[:, :2], transform(matrix, np.array([x0, y0]))])
    scale = np.linalg.norm(matrix[:, :2], ord=2)
    times = max(1, int(np.ceil(1 / scale - 0.05)))
    # On a grid `times` as fine, the pixel centre c is at times * c + (times - 1) / 2.
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

"""Divide a hole by how its parts are filled: generated faces, scratches, and the background; cut out the area."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from align.locate import view_of
from align.resize import box_around
from align.warp import Alignment, transform

_SCRATCH = 0.015  # maximum half width of a scratch, relative to the crop's side
# Where there is no face, the side that is assumed for its crop, relative to the photo's shorter side; and a limit.
_FACELESS, _MOST_PX = 0.5, 10
_SCRATCHED = 0.3  # holes that cover more of the crops than this are not treated as scratches
_AROUND, _AROUND_PX, _AROUND_FACE = 0.5, 64, 1.5  # area around a hole, by its longer side and in pixels; around a face
# Larger holes, areas around them and faces are completed at reduced size.
_LARGEST_HOLE_PX, _LARGEST_AREA_PX, _LARGEST_FACE_PX = 3_000_000, 12_000_000, 1024


@dataclass(frozen=True, eq=False)
class Regions:
    """A hole divided by how its parts are filled.

    Attributes:
        faces: the faces that the hole touches.
        parts: bool (H, W) for each face, the pixels to generate; empty if they are all scratches.
        scratches: bool (H, W), thin parts, filled from their surroundings.
        background: bool (H, W), other pixels outside all faces.
    """

    faces: list[Alignment]
    parts: list[NDArray[np.bool_]]
    scratches: NDArray[np.bool_]
    background: NDArray[np.bool_]


def divide(hole: NDArray[np.bool_], faces: Sequence[Alignment]) -> Regions:
    """Assign each pixel of a hole (H, W) to a face, to a scratch or to the background."""
    owner = owners(hole, faces)
    touched = [face for index, face in enumerate(faces) if (owner == index).any()]
    owner, scratches, areas = owners(hole, touched), np.zeros_like(hole), []
    sides = [face.size / face.scale for face in touched]
    for number, side in enumerate([min(_FACELESS * min(hole.shape), _MOST_PX / _SCRATCH), *sides], -1):
        area = np.zeros_like(hole)
        area[hole] = owner == number
        # Scratches are better filled from their surroundings, unless they leave little of the face visible.
        if area.any() and (number < 0 or area.sum() < _SCRATCHED * side**2):
            scratches |= area & _thin(hole, side)
        areas.append(area)
    background, *parts = (area & ~scratches for area in areas)
    return Regions(touched, parts, scratches, background)


def owners(hole: NDArray[np.bool_], faces: Sequence[Alignment]) -> NDArray[np.intp]:
    """Index of the face with the nearest crop centre for each pixel of a hole; -1 outside all crops: (pixels,)."""
    points = np.argwhere(hole)[:, ::-1]  # (x, y)
    nearest, owner = np.full(len(points), 1 + 1e-6), np.full(len(points), -1)  # tolerance for rounding
    for index, face in enumerate(faces):
        middle = (face.size - 1) / 2
        distance = np.abs(face.apply(points) / middle - 1).max(axis=1)
        owner[distance < nearest] = index
        nearest = np.minimum(nearest, distance)
    return owner


def touches(hole: NDArray[np.bool_], face: Alignment) -> bool:
    """Whether a hole (H, W) has a pixel in a crop."""
    return bool((owners(hole, [face]) >= 0).any())


def hole_in_crop(hole: NDArray[np.bool_], face: Alignment) -> NDArray[np.bool_]:
    """Mark pixels of a crop that overlap a hole (H, W) or lie outside the photo: bool (S, S)."""
    if np.array_equal(face.matrix, np.eye(2, 3)):
        return hole
    share = face.warp(hole * np.uint8(255))
    v, u = np.mgrid[: face.size, : face.size]
    x, y = np.moveaxis(transform(face.inverse, np.stack([u, v], axis=-1)), -1, 0)
    beyond = (x < -0.5) | (x > hole.shape[1] - 0.5) | (y < -0.5) | (y > hole.shape[0] - 0.5)
    return (share > 0) | beyond


def _thin(hole: NDArray[np.bool_], side_px: float) -> NDArray[np.bool_]:
    """Mark the thin parts of a hole, such as scratches, relative to a crop's side: bool (H, W)."""
    thin = np.zeros_like(hole)
    radius = int(_SCRATCH * side_px)
    box = box_around(hole, 2 * radius)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # Dilation restores the corners of wide parts that the opening removes.
    wide = cv2.dilate(cv2.morphologyEx(hole[box].astype(np.uint8), cv2.MORPH_OPEN, disc), disc)
    thin[box] = hole[box] & (wide == 0)
    return thin


def working_area(hole: NDArray[np.bool_], faces: Sequence[Alignment]) -> tuple[tuple[slice, slice], float]:
    """The rows and columns of a photo on which the fill of a hole (H, W) depends, and at what scale to fill it."""
    sides = box_around(hole)
    margin = round(_AROUND * max(side.stop - side.start for side in sides)) + _AROUND_PX
    ends = [[side.start - margin, side.stop + margin] for side in sides]
    for face in faces:
        view = view_of(face, reach=_AROUND_FACE)
        corners = transform(view.inverse, view.size * np.array([(0, 0), (1, 0), (0, 1), (1, 1)]))
        for end, values in zip(ends, corners.T[::-1], strict=True):
            end[:] = min(end[0], math.floor(values.min())), max(end[1], math.ceil(values.max()) + 1)
    rows, columns = (slice(max(0, low), min(high, side)) for (low, high), side in zip(ends, hole.shape, strict=True))
    largest_px = max((face.size / face.scale for face in faces), default=1.0)
    area_px = (rows.stop - rows.start) * (columns.stop - columns.start)
    scales = math.sqrt(_LARGEST_HOLE_PX / hole.sum()), math.sqrt(_LARGEST_AREA_PX / area_px)
    return (rows, columns), min(1.0, *scales, _LARGEST_FACE_PX / largest_px)

"""Locate the faces in a photo: by dlib, by given eyes or a given box, or by landmarks from a file."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from align.errors import NoFaceError, PhotoError
from align.files import read_json_lines
from align.landmarks import find_faces
from align.resize import reduced, reduction, scale_to
from align.template import TEMPLATES, Template
from align.warp import Alignment, fit, invert, transform

# Larger photos are first searched at this size, which takes 0.1 s instead of seconds.
_COARSE_PX = 1200
# Rotations to try, in degrees: dlib's detector finds faces up to about 30 degrees from upright.
_ANGLES = (45, -45, 90, -90, 135, -135, 180)
_MIN_SCORE = 0.5  # in rotated photos: more views give more false detections
# Longest side of the photo, and minimum score, for faces that are mostly hidden.
_FAINT_PX, _FAINT_SCORE = 800, -0.5
_MAX_PX = 1_000_000  # of a landmark's coordinates
# (x, y) of the eyes in the detector's boxes, as fractions of the sides: means over 158 CelebA photos.
_EYES_IN_BOX = np.array([[0.29, 0.28], [0.71, 0.28]])
# The locator of partly hidden faces sees a crop of this many pixels a side, so many times as wide as that of the face.
VIEW_PX, REACH = 128, 1.25


def locate(photo: NDArray[np.uint8], template: Template, size: int, every: bool = False) -> list[Alignment]:
    """Locate the faces in a photo uint8 (H, W, 3): one alignment each, in the order of `align.landmarks.find_faces`.

    With `every`, a large photo is searched for small faces even after a large one is found.
    """
    found = find_upright(photo, template, size)
    if found and not (every and scale_to(photo.shape, _COARSE_PX) < 1):
        return found
    return found + [face for face in find_hard(photo, template, size) if not is_among(face, found)]


def find_upright(photo: NDArray[np.uint8], template: Template, size: int) -> list[Alignment]:
    """Locate upright faces within 0.1 s; a large photo is reduced first. See `locate`."""
    return _find_reduced(photo, template, size, _COARSE_PX)


def find_hard(photo: NDArray[np.uint8], template: Template, size: int) -> list[Alignment]:
    """Locate faces that take seconds: the small ones in a large photo or, if there are none, rotated ones."""
    scale = scale_to(photo.shape, _COARSE_PX)
    if scale < 1:
        found = _fits(template, find_faces(photo, template.points, upsample=0), size)
        if found:
            return found
    small = reduced(photo, scale)
    side = sum(small.shape[:2])
    for degrees in _ANGLES:
        rotation = _rotation(small.shape[:2], degrees)
        view = cv2.warpAffine(small, rotation, (side, side)).astype(np.uint8, copy=False)
        back = [
            transform(invert(reduction(scale)), transform(invert(rotation), points))
            for points in find_faces(view, template.points, upsample=0, least=_MIN_SCORE)
        ]
        if back:
            return _fits(template, back, size)
    return []


def find_faint(photo: NDArray[np.uint8], template: Template, size: int) -> list[Alignment]:
    """Locate possible faces, in a photo that is known to contain one although little of it is visible."""
    return _find_reduced(photo, template, size, _FAINT_PX, _FAINT_SCORE)


def is_among(face: Alignment, others: Sequence[Alignment]) -> bool:
    """Whether two crops show the same face: the centre of one lies in the middle half of another."""
    middle = np.full(2, (face.size - 1) / 2)
    offsets = [other.apply(transform(face.inverse, middle)) - middle for other in others]
    return any(np.abs(offset).max() < face.size / 4 for offset in offsets)


def align_by_eyes(eyes: Sequence[float], shape: tuple[int, int], template: Template, size: int) -> Alignment:
    """Align a face at any angle by the centres of its eyes.

    The eyes are (x, y, x, y) in the pixels of a photo of shape (H, W), in any order: the face is not upside down.

    Raises:
        NoFaceError: the eyes coincide or lie outside the photo, or the template is not "face", which needs only them.
    """
    if template != TEMPLATES["face"]:
        raise NoFaceError(f"the template {template.name} needs more than two eyes; give landmarks")
    left, right = sorted(np.reshape(eyes, (2, 2)), key=lambda eye: float(eye[0]))
    height, width = shape
    if not all(0 <= x < width and 0 <= y < height for x, y in (left, right)):
        raise NoFaceError(
            f"the eyes {left.tolist()} and {right.tolist()} are not both inside the {width}x{height} photo"
        )
    try:
        return fit(template, np.array([right, right, left, left, left]), size)
    except ValueError as error:
        raise NoFaceError(f"the eyes are both at {left.tolist()}; expected two different points") from error


def align_by_box(box: Sequence[float], shape: tuple[int, int], template: Template, size: int) -> Alignment:
    """Align an upright face by its box (x, y, width, height) from the brows to the chin; else as `align_by_eyes`.

    Raises:
        NoFaceError: the box is empty, its eyes lie outside the photo, or the template is not "face".
    """
    x, y, width, height = box
    if not (width > 0 and height > 0):
        raise NoFaceError(f"the box is {width:g}x{height:g}; expected a width and height above 0")
    eyes = _EYES_IN_BOX * [width, height] + [x, y]
    if (eyes < 0).any() or (eyes >= shape[::-1]).any():
        raise NoFaceError(f"the eyes in the box at {x:g}, {y:g} are not inside the {shape[1]}x{shape[0]} photo")
    return align_by_eyes(eyes.ravel().tolist(), shape, template, size)


def align_by_landmarks(
    path: Path | Mapping[str, Sequence[NDArray[np.float64]]], source: Path, template: Template, size: int
) -> list[Alignment]:
    """Align faces by landmarks from a JSON Lines file, such as the faces.jsonl of python -m align.

    Args:
        path: the file, or what `read_landmarks` returned for it.
        source: the photo's path relative to the input folder; if no line has it, lines with the file name are used.
        template: alignment template.
        size: side of the crops in pixels.
    Raises:
        NoFaceError: the file cannot be read, or has no landmarks for this photo and template.
    """
    by_source = read_landmarks(path) if isinstance(path, Path) else path
    found = by_source.get(source.as_posix(), by_source.get(source.name, []))
    fitting = [landmarks for landmarks in found if len(landmarks) == template.points]
    faces = _fits(template, fitting, size)
    if not faces:
        counts = ", ".join(str(len(landmarks)) for landmarks in found) or "none"
        raise NoFaceError(
            f"there are no usable landmarks for {source.as_posix()}: found {counts}, "
            f"the template {template.name} needs {template.points}"
        )
    return faces


def read_landmarks(path: Path) -> dict[str, list[NDArray[np.float64]]]:
    """Read a JSON Lines file of landmarks; each line has "source", a photo, and "landmarks", [[x, y], ...].

    Returns:
        For each source float64 (5 or 68, 2) per face, in dlib's order.
    Raises:
        NoFaceError: the file cannot be read or has an invalid line.
    """
    by_source: dict[str, list[NDArray[np.float64]]] = {}
    try:
        for record in read_json_lines(path):
            landmarks = np.array(record["landmarks"], dtype=np.float64)
            if landmarks.ndim != 2 or landmarks.shape[1] != 2:
                raise ValueError(f"landmarks of shape {landmarks.shape}")
            if np.abs(landmarks).max(initial=0) > _MAX_PX:
                raise ValueError(f"a landmark is not in the range from {-_MAX_PX:,} to {_MAX_PX:,}")
            by_source.setdefault(str(record["source"]), []).append(landmarks)
    except PhotoError as error:
        raise NoFaceError(f"the landmarks file {path}: {error}") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise NoFaceError(
            f"the landmarks file {path} has an invalid line ({type(error).__name__}: {error}); "
            'expected {"source": PHOTO, "landmarks": [[x, y], ...]}, as in the faces.jsonl of python -m align'
        ) from error
    return by_source


def eyes_in_view() -> NDArray[np.float64]:
    """Where the eyes of a well-placed face lie in the view: (2, 2), (x, y) in pixels; first the one on the left."""
    return view_of(Alignment.identity(VIEW_PX)).apply(np.array(TEMPLATES["face"].targets) * VIEW_PX)


def eye_distance() -> float:
    """Distance between the eyes of a well-placed face in the view, in pixels."""
    return float(np.diff(eyes_in_view()[:, 0])[0])


def view_of(face: Alignment, size: int = VIEW_PX, reach: float = REACH) -> Alignment:
    """Return the alignment of a crop about the same centre, `reach` times as wide and `size` pixels a side."""
    view = face.resized(size)
    middle = (size - 1) / 2
    return Alignment(np.column_stack([view.matrix[:, :2] / reach, (view.matrix[:, 2] - middle) / reach + middle]), size)


def _fits(template: Template, faces: Sequence[NDArray[np.float64]], size: int) -> list[Alignment]:
    """The alignments of faces, without those whose landmarks lie on one point or line."""
    found = []
    for landmarks in faces:
        with suppress(ValueError):
            found.append(fit(template, landmarks, size))
    return found


def _rotation(shape: tuple[int, int], degrees: float) -> NDArray[np.float64]:
    """The (2, 3) matrix that rotates an image about its centre, into a square that contains it."""
    height, width = shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0).astype(np.float64)
    matrix[:, 2] += (height + width - np.array([width, height])) / 2
    return matrix


def _find_reduced(
    photo: NDArray[np.uint8], template: Template, size: int, limit_px: int, least: float = 0.0
) -> list[Alignment]:
    """Locate the faces in a copy of the photo whose sides are at most `limit_px` long."""
    scale = scale_to(photo.shape, limit_px)
    faces = find_faces(reduced(photo, scale), template.points, upsample=int(scale == 1), least=least)
    return _fits(template, [transform(invert(reduction(scale)), points) for points in faces], size)

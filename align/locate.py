"""Locate the faces of a photo: by dlib, by given eyes or a box, or by landmarks from a file."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from align.errors import NoFaceError
from align.landmarks import find_faces
from align.template import TEMPLATES, Template
from align.warp import Alignment, fit, invert, transform

# A larger photo is searched at this size first, in a tenth of a second instead of seconds.
_COARSE_PX = 1200
# dlib's detector knows faces up to 30 degrees or so from upright.
_TURNS = (45, -45, 90, -90, 135, -135, 180)
_FAINT_PX, _FAINT = 800, -0.5  # size and least score for faces of which little is visible
_CLEAR = 0.5  # least score of a face in a turned photo, where there are eight times as many chances to err
# The eyes in the detector's boxes, x and y as shares of the sides: means over 158 CelebA photos.
_EYES_IN_BOX = np.array([[0.29, 0.28], [0.71, 0.28]])


def locate(photo: NDArray[np.uint8], template: Template, size: int, every: bool = False) -> list[Alignment]:
    """Find the faces of a photo.

    Args:
        photo: uint8 (H, W, 3).
        template: how crops are aligned.
        size: side of the crops in pixels.
        every: look for small faces of a large photo, too, even where there is a large one.
    Returns:
        one alignment per face, the largest first, doubtful ones last.
    """
    found = find_upright(photo, template, size)
    if found and not (every and _scale(photo) < 1):
        return found
    return found + [face for face in find_hard(photo, template, size) if not is_among(face, found)]


def find_upright(photo: NDArray[np.uint8], template: Template, size: int) -> list[Alignment]:
    """The faces that are found in a tenth of a second; of a large photo, in a smaller copy of it."""
    scale = _scale(photo)
    faces = find_faces(_shrunk(photo, scale), template.points, upsample=int(scale == 1))
    return _fits(template, [transform(invert(_shrinking(scale)), points) for points in faces], size)


def find_hard(photo: NDArray[np.uint8], template: Template, size: int) -> list[Alignment]:
    """The faces that are found in seconds: the small ones of a large photo, and where there is none, turned ones."""
    scale = _scale(photo)
    if scale < 1:
        found = _fits(template, find_faces(photo, template.points, upsample=0), size)
        if found:
            return found
    small = _shrunk(photo, scale)
    side = sum(small.shape[:2])
    for degrees in _TURNS:
        turn = _turn(small.shape[:2], degrees)
        view = cv2.warpAffine(small, turn, (side, side)).astype(np.uint8, copy=False)
        back = [
            transform(invert(_shrinking(scale)), transform(invert(turn), points))
            for points in find_faces(view, template.points, upsample=0, least=_CLEAR)
        ]
        if back:
            return _fits(template, back, size)
    return []


def find_faint(photo: NDArray[np.uint8], template: Template, size: int) -> list[Alignment]:
    """What may be a face, the likeliest first: for photos that must hold one, though little of it is visible."""
    scale = min(1.0, _FAINT_PX / max(photo.shape[:2]))
    faces = find_faces(_shrunk(photo, scale), template.points, upsample=int(scale == 1), least=_FAINT)
    return _fits(template, [transform(invert(_shrinking(scale)), points) for points in faces], size)


def is_among(face: Alignment, others: Sequence[Alignment]) -> bool:
    """Whether the centre of a crop lies in the middle half of another's: then both are of one face."""
    middle = np.full(2, (face.size - 1) / 2)
    offsets = [other.apply(transform(face.inverse, middle)) - middle for other in others]
    return any(np.abs(offset).max() < face.size / 4 for offset in offsets)


def align_by_eyes(eyes: Sequence[float], shape: tuple[int, int], template: Template, size: int) -> Alignment:
    """Place a face by the centres of its eyes, at whatever angle.

    Args:
        eyes: (x, y, x, y) in the photo's pixels, of an upright face the left one in the photo first.
        shape: (H, W) of the photo.
        template: how crops are aligned; only that with two eyes will do.
        size: side of the crop in pixels.
    Raises:
        NoFaceError: the eyes lie on one point or outside the photo, or the template has more than eyes.
    """
    if template != TEMPLATES["face"]:
        raise NoFaceError(f"two eyes do not place a face of the template {template.name}; give its landmarks")
    left, right = np.reshape(eyes, (2, 2))
    height, width = shape
    if not all(0 <= x < width and 0 <= y < height for x, y in (left, right)):
        raise NoFaceError(f"the eyes are at {left.tolist()} and {right.tolist()}, outside the {width}x{height} photo")
    try:
        return fit(template, np.array([right, right, left, left, left]), size)
    except ValueError as error:
        raise NoFaceError(f"the eyes are both at {left.tolist()}, so no face can be placed") from error


def align_by_box(box: Sequence[float], shape: tuple[int, int], template: Template, size: int) -> Alignment:
    """Place an upright face by its box (x, y, w, h), from the brows to the chin as detectors draw it.

    Raises:
        NoFaceError: as `align_by_eyes`, or the box is empty.
    """
    x, y, width, height = box
    if not (width > 0 and height > 0):
        raise NoFaceError(f"the box is {width:g}x{height:g}; expected x,y,w,h in pixels with w and h above 0")
    return align_by_eyes((_EYES_IN_BOX * [width, height] + [x, y]).ravel().tolist(), shape, template, size)


def align_by_landmarks(path: Path, source: Path, template: Template, size: int) -> list[Alignment]:
    """Place faces by landmarks from a file of JSON lines, such as the faces.jsonl of python -m align.

    Args:
        path: each line has "source", a photo, and "landmarks", [x, y] for each of the 5 or 68 in dlib's order.
        source: the photo, relative to the folder of all photos; a line that has the mere name will do, too.
        template: how crops are aligned.
        size: side of the crops in pixels.
    Raises:
        NoFaceError: the file cannot be read, or holds no landmarks of this photo that fit the template.
    """
    by_source: dict[str, list[NDArray[np.float64]]] = {}
    try:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            landmarks = np.array(record["landmarks"], dtype=np.float64)
            if landmarks.ndim != 2 or landmarks.shape[1] != 2 or not np.isfinite(landmarks).all():
                raise ValueError(f"landmarks of shape {landmarks.shape}")
            by_source.setdefault(str(record["source"]), []).append(landmarks)
    except OSError as error:
        raise NoFaceError(f"the landmarks {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NoFaceError(
            f"the landmarks {path} hold a line that is none ({type(error).__name__}: {error}); "
            'expected {"source": PHOTO, "landmarks": [[x, y], ...]}, as in the faces.jsonl of python -m align'
        ) from error
    found = by_source.get(source.as_posix(), by_source.get(source.name, []))
    fitting = [landmarks for landmarks in found if len(landmarks) == template.points]
    faces = _fits(template, fitting, size)
    if not faces:
        counts = ", ".join(str(len(landmarks)) for landmarks in found) or "none"
        raise NoFaceError(
            f"{path} holds no landmarks that place {source.as_posix()}: the template {template.name} "
            f"takes {template.points} points, the file has {counts} for this photo"
        )
    return faces


def _fits(template: Template, faces: Sequence[NDArray[np.float64]], size: int) -> list[Alignment]:
    found = []
    for landmarks in faces:
        try:
            found.append(fit(template, landmarks, size))
        except ValueError:  # landmarks on one point or line are no face
            continue
    return found


def _turn(shape: tuple[int, int], degrees: float) -> NDArray[np.float64]:
    """The (2, 3) matrix that turns an image about its centre and moves that to the middle of a square that holds it."""
    height, width = shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0).astype(np.float64)
    matrix[:, 2] += (height + width - np.array([width, height])) / 2
    return matrix


def _scale(photo: NDArray[np.uint8]) -> float:
    return min(1.0, _COARSE_PX / max(photo.shape[:2]))


def _shrunk(photo: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return photo
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _shrinking(scale: float) -> NDArray[np.float64]:
    """The (2, 3) matrix from a photo to its smaller copy."""
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])

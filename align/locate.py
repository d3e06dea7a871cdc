"""Where the faces of a photo are: found in it, or told by a person; each as the (2, 3) matrix photo -> crop."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from align.landmarks import NoFaceError, find_faces
from align.template import TEMPLATES, Template
from align.warp import fit, invert, warp

# A larger photo is searched at this size first, in a tenth of a second instead of seconds.
_COARSE_PX = 1200
# dlib's detector knows faces up to 30 degrees or so from upright.
_TURNS = (45, -45, 90, -90, 135, -135, 180)
_CLEAR = 0.5  # least score of a face in a turned photo, where there are eight times as many chances to err
# dlib's detector wants faces of 80 px with some air around them, which a crop does not have.
_CROP_ZOOM = 4
_CROP_AIR = 0.5
# The eyes in the detector's boxes, x and y as shares of the sides: means over 158 CelebA photos.
_EYES_IN_BOX = np.array([[0.29, 0.28], [0.71, 0.28]])


def find_matrices(
    photo: NDArray[np.uint8], template: Template, size: int, every: bool = False
) -> list[NDArray[np.float64]]:
    """Find the faces of a photo.

    Args:
        photo: uint8 (H, W, 3).
        template: how crops are aligned.
        size: side of the crops in pixels.
        every: look for small faces of a large photo, too, even where there is a large one.
    Returns:
        float64 (2, 3) per face, the largest first, doubtful ones last.
    """
    found = find_upright(photo, template, size)
    if found and not (every and _scale(photo) < 1):
        return found
    return found + [matrix for matrix in find_hard(photo, template, size) if not is_among(matrix, found, size)]


def find_upright(photo: NDArray[np.uint8], template: Template, size: int) -> list[NDArray[np.float64]]:
    """The faces that are found in a tenth of a second; of a large photo, in a smaller copy of it."""
    scale = _scale(photo)
    faces = find_faces(_shrunk(photo), template.points, upsample=int(scale == 1))
    return _fits(template, [_moved(points, invert(_shrinking(scale))) for points in faces], size)


def find_hard(photo: NDArray[np.uint8], template: Template, size: int) -> list[NDArray[np.float64]]:
    """The faces that are found in seconds: the small ones of a large photo, and where there is none, turned ones."""
    scale = _scale(photo)
    if scale < 1:
        matrices = _fits(template, find_faces(photo, template.points, upsample=0), size)
        if matrices:
            return matrices
    small = _shrunk(photo)
    side = sum(small.shape[:2])
    for degrees in _TURNS:
        turn = _turn(small.shape[:2], degrees)
        view = cv2.warpAffine(small, turn, (side, side)).astype(np.uint8, copy=False)
        back = [
            _moved(_moved(points, invert(turn)), invert(_shrinking(scale)))
            for points in find_faces(view, template.points, upsample=0, least=_CLEAR)
        ]
        if back:
            return _fits(template, back, size)
    return []


def is_among(matrix: NDArray[np.float64], others: Sequence[NDArray[np.float64]], size: int) -> bool:
    """Whether a crop's centre lies in the middle half of another's: then both are of one face."""
    middle = np.full((1, 2), (size - 1) / 2)
    offsets = [_moved(_moved(middle, invert(matrix)), other) - middle for other in others]
    return any(np.abs(offset).max() < size / 4 for offset in offsets)


def matrix_of_eyes(eyes: Sequence[float], shape: tuple[int, int], template: Template, size: int) -> NDArray[np.float64]:
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
        raise NoFaceError(f"two eyes do not place a face of the template {template.name}; give its --landmarks")
    left, right = np.reshape(eyes, (2, 2))
    height, width = shape
    if not all(0 <= x < width and 0 <= y < height for x, y in (left, right)):
        raise NoFaceError(f"the eyes are at {left.tolist()} and {right.tolist()}, outside the {width}x{height} photo")
    try:
        return fit(template, np.array([right, right, left, left, left]), size)
    except ValueError as error:
        raise NoFaceError(f"the eyes are both at {left.tolist()}, so no face can be placed") from error


def matrix_of_box(box: Sequence[float], shape: tuple[int, int], template: Template, size: int) -> NDArray[np.float64]:
    """Place an upright face by its box (x, y, w, h), from the brows to the chin as detectors draw it.

    Raises:
        NoFaceError: as `matrix_of_eyes`, or the box is empty.
    """
    x, y, width, height = box
    if not (width > 0 and height > 0):
        raise NoFaceError(f"the box is {width:g}x{height:g}; expected x,y,w,h in pixels with w and h above 0")
    return matrix_of_eyes((_EYES_IN_BOX * [width, height] + [x, y]).ravel().tolist(), shape, template, size)


def matrices_of_landmarks(path: Path, source: Path, template: Template, size: int) -> list[NDArray[np.float64]]:
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
    matrices = _fits(template, fitting, size)
    if not matrices:
        counts = ", ".join(str(len(landmarks)) for landmarks in found) or "none"
        raise NoFaceError(
            f"{path} holds no landmarks that place {source.as_posix()}: the template {template.name} "
            f"takes {template.points} points, the file has {counts} for this photo"
        )
    return matrices


def features(photo: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> NDArray[np.float64] | None:
    """The 68 landmarks of one face of a photo, float64 (68, 2) in its crop's pixels; None if they are not found."""
    air = round(size * _CROP_AIR)
    around = matrix + np.array([[0, 0, air], [0, 0, air]])
    side = size + 2 * air
    view = warp(photo, around * _CROP_ZOOM, side * _CROP_ZOOM)
    faces = find_faces(view, 68)
    if not faces:
        return None
    centred = min(faces, key=lambda points: float(np.linalg.norm(points.mean(axis=0) - view.shape[0] / 2)))
    return centred / _CROP_ZOOM - air


def _fits(template: Template, faces: Sequence[NDArray[np.float64]], size: int) -> list[NDArray[np.float64]]:
    matrices = []
    for landmarks in faces:
        try:
            matrices.append(fit(template, landmarks, size))
        except ValueError:  # landmarks on one point or line are no face
            continue
    return matrices


def _moved(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _turn(shape: tuple[int, int], degrees: float) -> NDArray[np.float64]:
    """The (2, 3) matrix that turns an image about its centre and moves that to the middle of a square that holds it."""
    height, width = shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0).astype(np.float64)
    matrix[:, 2] += (height + width - np.array([width, height])) / 2
    return matrix


def _scale(photo: NDArray[np.uint8]) -> float:
    return min(1.0, _COARSE_PX / max(photo.shape[:2]))


def _shrunk(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _scale(photo)
    if scale == 1:
        return photo
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _shrinking(scale: float) -> NDArray[np.float64]:
    """The (2, 3) matrix from a photo to its smaller copy."""
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])

"""Holes: which pixels to fill, by name, at random, or from a file. bool arrays, True = fill this."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.errors import InputError
from align.files import list_photos
from align.photo import Photo, read_photo
from completion.config import HOLES

# The parts of a face by dlib's 68 landmarks (iBUG 300-W); the eyes are two parts.
_PARTS = {"eyes": ((36, 42), (42, 48)), "nose": ((27, 36),), "mouth": ((48, 68),)}
_LATTICES = ("random", "grid", "lowres")
LOWRES_SCALE = 4
_SIDES = ("left", "right", "top", "bottom")
_LATTICE = 4  # of a grid, the pixels from one known one to the next
_UNION = 0.15  # share of the training holes that are two kinds at once
_TOUCHES = 24  # of the brush in one stroke
# Eyes, nose and mouth in the template "face": x and y of the centre, half the width and height, as shares of the side.
_FEATURES = np.array(
    [(0.345, 0.41, 0.11, 0.08), (0.655, 0.41, 0.11, 0.08), (0.5, 0.58, 0.1, 0.1), (0.5, 0.75, 0.17, 0.09)]
)
_MARGIN = 0.045  # around landmarks, of the crop's side: lids and lips reach beyond them


class MaskError(InputError):
    """A hole that cannot be made; says what was found, what was expected and what to do."""


def split_name(mask: str) -> tuple[str, float | None] | None:
    """Take "center:0.3" apart into a name and its number; None if the text is no name at all but a file's.

    Raises:
        MaskError: the name takes no number, or not that one.
    """
    name, colon, number = mask.partition(":")
    if name not in HOLES:
        return None
    default = HOLES[name]
    if not colon:
        return name, default
    top = 0.5 if name == "center" else 1.0
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if default is None or not 0 < value <= top or (name == "center" and value == top):
        expected = f"a number above 0 and {'below 0.5' if name == 'center' else 'up to 1'}" if default else "no number"
        raise MaskError(f"the mask is {mask!r}, but {name} takes {expected}")
    return name, value


def needs_landmarks(mask: str) -> bool:
    """Whether a hole of this name follows the features of the face."""
    return mask in _PARTS


def is_lattice(mask: str) -> bool:
    """Whether a hole of this name is made of single pixels of the crop."""
    return mask.partition(":")[0] in _LATTICES


def named_hole(
    mask: str, size: int, rng: np.random.Generator, landmarks: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """A hole by name, in the frame of a crop.

    Args:
        mask: a name in HOLES, with a number after a colon where it takes one. center:M leaves a margin of M times the
            side around the hole; random:F takes the share F of all pixels.
        size: side of the crop in pixels.
        rng: for random, half and pattern.
        landmarks: float64 (68, 2), (x, y) in the crop's pixels; for eyes, nose and mouth.
    Returns:
        bool (size, size).
    Raises:
        MaskError: no such name or number, or the landmarks are missing.
    Source: Amos 2016, dcgan-completion.tensorflow (center, random, left, full, grid, lowres); Yeh et al. 2017,
        section 4 (center, random, half, pattern).
    """
    parsed = split_name(mask)
    if parsed is None:
        raise MaskError(f"there is no mask named {mask!r}; names: {', '.join(HOLES)}; or give a file or folder")
    name, number = parsed
    if name in _PARTS:
        if landmarks is None:
            raise MaskError(f"the mask {name} needs the face's 68 landmarks, and no face was found to take them from")
        return _part(name, size, landmarks)
    if name == "half":
        name = _SIDES[rng.integers(4)]
    if name in _SIDES:
        return _half(size, name)
    if name in ("full", "lowres"):  # lowres: no pixel is known, only the means of blocks of 4x4
        return np.ones((size, size), dtype=bool)
    if name == "grid":
        return _grid(size)
    if name == "pattern":
        return _pattern(size, 0.25, rng)
    return _center(size, number or 0) if name == "center" else _random(size, number or 0, rng)


def draw_holes(count: int, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw random holes to train with: each of a random kind, some of two kinds at once.

    Args:
        count: how many, N.
        size: side of the images in pixels.
        rng: of the kinds and of the holes.
    Returns:
        bool (N, size, size); none is empty, a union may cover everything.
    """
    kinds = list(TRAINING_KINDS.values())
    holes = np.zeros((count, size, size), dtype=bool)
    for hole in holes:
        for _ in range(1 + (rng.random() < _UNION)):
            hole |= kinds[rng.integers(len(kinds))](size, rng)
        if not hole.any():
            hole |= _center(size, 0.25)
    return holes


def _center(size: int, margin: float) -> NDArray[np.bool_]:
    """All but a margin, given as a share of the side."""
    edge = int(size * margin)
    hole = np.zeros((size, size), dtype=bool)
    hole[edge : size - edge, edge : size - edge] = True
    return hole


def _random(size: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Exactly that share of the pixels."""
    hole = np.zeros((size, size), dtype=bool)
    hole.flat[rng.permutation(size * size)[: round(size * size * share)]] = True
    return hole


def _half(size: int, side: str, share: float = 0.5) -> NDArray[np.bool_]:
    """A share of the image from one side on."""
    hole = np.zeros((size, size), dtype=bool)
    line = int(size * share)
    if side in ("left", "right"):
        hole[:, slice(line) if side == "left" else slice(size - line, None)] = True
    else:
        hole[slice(line) if side == "top" else slice(size - line, None)] = True
    return hole


def _grid(size: int, row: int = 0, column: int = 0) -> NDArray[np.bool_]:
    """All but every fourth pixel of every fourth row."""
    hole = np.ones((size, size), dtype=bool)
    hole[row::_LATTICE, column::_LATTICE] = False
    return hole


def _pattern(size: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Blobs of arbitrary shape: the share of the pixels where smooth noise is lowest."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size / 16)
    return noise < np.quantile(noise, share)


def _part(name: str, size: int, landmarks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A part of a face by its landmarks (68, 2)."""
    hole = np.zeros((size, size), dtype=bool)
    reach = 2 * round(size * _MARGIN) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    for first, last in _PARTS[name]:
        outline = cv2.convexHull(np.round(landmarks[first:last]).astype(np.int32))
        part = cv2.fillConvexPoly(np.zeros((size, size), dtype=np.uint8), outline, 1)
        hole |= cv2.dilate(part, kernel).astype(bool)
    return hole


def _box(size: int, left: float, top: float, right: float, bottom: float) -> NDArray[np.bool_]:
    """A rectangle by its sides, as shares of the image's; what lies beyond the border is cut off."""
    hole = np.zeros((size, size), dtype=bool)
    x0, y0 = (max(0, int(size * share)) for share in (left, top))
    x1, y1 = (max(0, size - int(size * (1 - share))) for share in (right, bottom))
    hole[y0:y1, x0:x1] = True
    return hole


def _rectangle(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    width, height = rng.uniform(0.15, 0.7, 2)
    left, top = rng.uniform(-0.1, 1.1, 2) * (1 - np.array([width, height]))  # some reach beyond the border
    return _box(size, left, top, left + width, top + height)


def _stroke(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The path of a round brush that turns as it goes."""
    turns = 0.6 * rng.standard_normal(_TOUCHES)
    turns[0] = rng.uniform(0, 2 * math.pi)
    angles = turns.cumsum()
    path = rng.uniform(0.2, 0.8, 2) + 0.05 * np.stack([np.cos(angles), np.sin(angles)], axis=1).cumsum(axis=0)
    radius = rng.uniform(0.04, 0.1)
    x, y = (np.square((np.arange(size) + 0.5) / size - path[:, axis, None]) for axis in (0, 1))  # (touches, S)
    return (y[:, :, None] + x[:, None, :]).min(axis=0) < radius**2


def _features(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Eyes, nose and mouth, each with even chances."""
    hole = np.zeros((size, size), dtype=bool)
    for feature in _FEATURES:
        x, y, width, height = feature + rng.uniform(-0.03, 0.03, 4)
        if rng.random() < 0.5:
            hole |= _box(size, x - width, y - height, x + width, y + height)
    return hole


# The kinds of holes to train with; those with a name of HOLES are drawn as that is, with a random number.
TRAINING_KINDS: dict[str, Callable[[int, np.random.Generator], NDArray[np.bool_]]] = {
    "center": lambda size, rng: _center(size, rng.uniform(0.1, 0.4)),
    "rectangle": _rectangle,
    "half": lambda size, rng: _half(size, _SIDES[rng.integers(4)], rng.uniform(0.4, 0.6)),
    "random": lambda size, rng: _random(size, rng.uniform(0.2, 0.95), rng),
    "grid": lambda size, rng: _grid(size, *rng.integers(_LATTICE, size=2)),
    "pattern": lambda size, rng: _pattern(size, rng.uniform(0.1, 0.5), rng),
    "stroke": _stroke,
    "features": _features,
}


def read_hole(path: Path, shape: tuple[int, int], invert: bool = False) -> tuple[NDArray[np.bool_], str | None]:
    """A hole from an image file: white means fill, and grey counts as the nearer of black and white.

    Args:
        path: the mask.
        shape: (H, W) of the photo; a mask of another size is resized to it, nearest neighbour.
        invert: black means fill instead.
    Returns:
        bool (H, W), and a warning where the size had to change.
    Raises:
        PhotoError: the file cannot be read.
    """
    image = read_photo(path).image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)  # what is transparent is not painted
    white = np.asarray(image.convert("L")) >= 128
    warning = None
    if white.shape != shape:
        warning = f"the mask is {white.shape[1]}x{white.shape[0]}, the photo {shape[1]}x{shape[0]}: the mask is resized"
        white = cv2.resize(white.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    return white != invert, warning


def alpha_hole(photo: Photo, invert: bool = False) -> NDArray[np.bool_]:
    """The pixels of a photo that are not fully opaque: bool (H, W); their colours are not to be trusted.

    Raises:
        MaskError: the photo has no alpha channel.
    """
    if "A" not in photo.image.mode:
        raise MaskError(f"the mask is alpha, but the photo is {photo.image.mode} without alpha; erase the hole in it")
    return (np.asarray(photo.image)[..., -1] < 255) != invert


def find_mask_file(folder: Path, photo: Path) -> Path:
    """The mask of a photo in a folder of masks: same relative path and stem, any suffix.

    Args:
        folder: the folder of masks.
        photo: the photo's path relative to the folder of photos.
    Raises:
        MaskError: there is none, or several.
    """
    wanted = photo.with_suffix("")
    found = [path for path in list_photos(folder) if path.relative_to(folder).with_suffix("") == wanted]
    if len(found) != 1:
        what = "no mask" if not found else f"{len(found)} masks"
        raise MaskError(f"{folder} holds {what} for {photo}; expected one image named {wanted}.*")
    return found[0]

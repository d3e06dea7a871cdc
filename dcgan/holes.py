"""Shapes of holes in a crop, by name or drawn at random for training: bool arrays, True = fill this."""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from align.errors import MaskError, hint

# Name of each hole -> default of the number after its colon; None if it takes no number.
HOLES: dict[str, float | None] = {"center": 0.25, "random": 0.2} | dict.fromkeys(
    "left right top bottom half full grid lowres pattern eyes nose mouth".split()
)
# Parts of a face as ranges of the 68 landmarks (iBUG 300-W); the eyes are two ranges.
_PARTS = {"eyes": ((36, 42), (42, 48)), "nose": ((27, 36),), "mouth": ((48, 68),)}
_PIXEL_HOLES = ("random", "grid", "lowres")
LOWRES_SCALE = 4
_SIDES = ("left", "right", "top", "bottom")
_GRID_STEP = 4  # spacing of the visible pixels of a grid
_UNION = 0.15  # share of the training holes that combine two kinds
_TOUCHES = 24  # discs that form a brush stroke
# Eyes, nose and mouth in the template "face": centre x, centre y, half width, half height, relative to the side.
_FEATURES = np.array(
    [(0.345, 0.41, 0.11, 0.08), (0.655, 0.41, 0.11, 0.08), (0.5, 0.58, 0.1, 0.1), (0.5, 0.75, 0.17, 0.09)]
)
_MARGIN = 0.045  # around landmarks, relative to the crop's side: lids and lips extend beyond them


def split_names(mask: str) -> list[tuple[str, float | None]] | None:
    """Split "eyes,center:0.3" into names and numbers; None if a part is not the name of a hole.

    Raises:
        MaskError: a name takes no number, its number is out of range, or lowres is combined with another hole.
    """
    parts = mask.split(",")
    if any(part.partition(":")[0] not in HOLES for part in parts):
        return None
    if len(parts) > 1 and "lowres" in parts:
        raise MaskError(f"the mask is {mask!r}, but lowres cannot be combined with other holes")
    return [_split_name(part) for part in parts]


def _split_name(mask: str) -> tuple[str, float | None]:
    name, colon, number = mask.partition(":")
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
    """Whether a named hole is placed by landmarks."""
    return any(part in _PARTS for part in mask.split(","))


def is_lattice(mask: str) -> bool:
    """Whether a named hole contains single pixels of the crop."""
    return any(part.partition(":")[0] in _PIXEL_HOLES for part in mask.split(","))


def named_hole(
    mask: str, size: int, rng: np.random.Generator, landmarks: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """Create a named hole in a crop: bool (size, size).

    Args:
        mask: a name in HOLES, optionally with a number: center:M leaves a margin of M times the side around the hole;
            random:F removes the share F of all pixels. Names separated by commas give the union of their holes.
        size: side of the crop in pixels.
        rng: random generator for random, half and pattern.
        landmarks: float64 (68, 2), (x, y) in the crop's pixels; required for eyes, nose and mouth.
    Raises:
        MaskError: the name is unknown, its number is out of range, or landmarks are missing.
    Source: Amos 2016, dcgan-completion.tensorflow (center, random, left, full, grid, lowres); Yeh et al. 2017,
        section 4 (center, random, half, pattern).
    """
    parts = split_names(mask)
    if parts is None:
        wrong = next(part for part in mask.split(",") if part.partition(":")[0] not in HOLES)
        raise MaskError(f"there is no mask named {wrong!r}; {hint(wrong.partition(':')[0], HOLES)}")
    return np.logical_or.reduce([_single_hole(*part, size, rng, landmarks) for part in parts])


def _single_hole(
    name: str, number: float | None, size: int, rng: np.random.Generator, landmarks: NDArray[np.float64] | None
) -> NDArray[np.bool_]:
    if name in _PARTS:
        if landmarks is None:
            raise MaskError(f"the mask {name} needs 68 landmarks, but no face was found; choose another mask")
        return _part(name, size, landmarks)
    if name == "half":
        name = _SIDES[rng.integers(4)]
    if name in _SIDES:
        return _half(size, name)
    if name in ("full", "lowres"):  # lowres covers every pixel; only the block means are used
        return np.ones((size, size), dtype=bool)
    if name == "grid":
        return _grid(size)
    if name == "pattern":
        return _pattern(size, 0.25, rng)
    return _center(size, number or 0) if name == "center" else _random(size, number or 0, rng)


def draw_holes(count: int, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw random training holes, each of a random kind, single pixels less often; some combine two kinds.

    Returns:
        bool (count, size, size); no hole is empty, but a combination may cover the whole image.
    """
    kinds = [draw for name, draw in TRAINING_KINDS.items() for _ in range(1 if name in _PIXEL_HOLES else 2)]
    holes = np.zeros((count, size, size), dtype=bool)
    for hole in holes:
        for _ in range(1 + (rng.random() < _UNION)):
            hole |= kinds[rng.integers(len(kinds))](size, rng)
        if not hole.any():
            hole |= _center(size, 0.25)
    return holes


def _center(size: int, margin: float) -> NDArray[np.bool_]:
    """A square with a margin on all sides, relative to the side."""
    edge = int(size * margin)
    hole = np.zeros((size, size), dtype=bool)
    hole[edge : size - edge, edge : size - edge] = True
    return hole


def _random(size: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Random pixels, exactly the given share of them."""
    hole = np.zeros((size, size), dtype=bool)
    hole.flat[rng.permutation(size * size)[: round(size * size * share)]] = True
    return hole


def _half(size: int, side: str, share: float = 0.5) -> NDArray[np.bool_]:
    """A share of the image, starting at one side."""
    hole = np.zeros((size, size), dtype=bool)
    line = int(size * share)
    if side in ("left", "right"):
        hole[:, slice(line) if side == "left" else slice(size - line, None)] = True
    else:
        hole[slice(line) if side == "top" else slice(size - line, None)] = True
    return hole


def _grid(size: int, row: int = 0, column: int = 0) -> NDArray[np.bool_]:
    """All pixels except every fourth one of every fourth row."""
    hole = np.ones((size, size), dtype=bool)
    hole[row::_GRID_STEP, column::_GRID_STEP] = False
    return hole


def _pattern(size: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Irregular blobs: the given share of pixels, those where smooth noise is lowest."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size / 16)
    count = math.ceil(share * (noise.size - 1))
    return noise < np.partition(noise, count, axis=None)[count]  # as np.quantile does, but faster


def _part(name: str, size: int, landmarks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A part of the face, from its landmarks (68, 2)."""
    hole = np.zeros((size, size), dtype=bool)
    reach = 2 * round(size * _MARGIN) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    for first, last in _PARTS[name]:
        outline = cv2.convexHull(np.round(landmarks[first:last]).astype(np.int32))
        part = cv2.fillConvexPoly(np.zeros((size, size), dtype=np.uint8), outline, 1)
        hole |= cv2.dilate(part, kernel).astype(bool)
    return hole


def _box(size: int, left: float, top: float, right: float, bottom: float) -> NDArray[np.bool_]:
    """A rectangle with sides relative to the image's side, clipped at the border."""
    hole = np.zeros((size, size), dtype=bool)
    x0, y0 = (max(0, int(size * share)) for share in (left, top))
    x1, y1 = (max(0, size - int(size * (1 - share))) for share in (right, bottom))
    hole[y0:y1, x0:x1] = True
    return hole


def _rectangle(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    width, height = rng.uniform(0.15, 0.7, 2)
    left, top = rng.uniform(-0.1, 1.1, 2) * (1 - np.array([width, height]))  # some extend beyond the border
    return _box(size, left, top, left + width, top + height)


def _oval(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """An ellipse about the middle of the face or its mouth."""
    line = (np.arange(size) + 0.5) / size
    x, y = rng.uniform(0.4, 0.6), rng.choice([0.5, 0.75]) + rng.uniform(-0.08, 0.08)
    width, height = rng.uniform(0.15, 0.3), rng.uniform(0.1, 0.3)
    return np.hypot((line - x) / width, (line[:, None] - y) / height) < 1


def _stroke(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A stroke of a round brush along a curved path."""
    turns = 0.6 * rng.standard_normal(_TOUCHES)
    turns[0] = rng.uniform(0, 2 * math.pi)
    angles = turns.cumsum()
    path = rng.uniform(0.2, 0.8, 2) + 0.05 * np.stack([np.cos(angles), np.sin(angles)], axis=1).cumsum(axis=0)
    radius = rng.uniform(0.04, 0.1)
    x, y = (np.square((np.arange(size) + 0.5) / size - path[:, axis, None]) for axis in (0, 1))  # (touches, S)
    return (y[:, :, None] + x[:, None, :]).min(axis=0) < radius**2


def _features(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Boxes over eyes, nose and mouth, each included with probability 0.5."""
    hole = np.zeros((size, size), dtype=bool)
    for feature in _FEATURES:
        x, y, width, height = feature + rng.uniform(-0.03, 0.03, 4)
        if rng.random() < 0.5:
            hole |= _box(size, x - width, y - height, x + width, y + height)
    return hole


# Kinds of training holes. Those named as in HOLES are drawn like the named hole, with a random parameter.
TRAINING_KINDS: dict[str, Callable[[int, np.random.Generator], NDArray[np.bool_]]] = {
    "center": lambda size, rng: _center(size, rng.uniform(0.1, 0.4)),
    "rectangle": _rectangle,
    "half": lambda size, rng: _half(size, _SIDES[rng.integers(4)], rng.uniform(0.4, 0.6)),
    "random": lambda size, rng: _random(size, rng.uniform(0.2, 0.95), rng),
    "grid": lambda size, rng: _grid(size, *rng.integers(_GRID_STEP, size=2)),
    "pattern": lambda size, rng: _pattern(size, rng.uniform(0.1, 0.5), rng),
    "oval": _oval,
    "stroke": _stroke,
    "features": _features,
}

"""Holes: which pixels are to be filled. bool arrays, True = fill this."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.photo import Photo, read_photo

# name -> default of the number after the colon, None where the name takes none
NAMES: dict[str, float | None] = {
    "center": 0.25,
    "random": 0.2,
    "left": None,
    "right": None,
    "top": None,
    "bottom": None,
    "half": None,
    "full": None,
    "grid": None,
    "lowres": None,
    "pattern": None,
    "eyes": None,
    "nose": None,
    "mouth": None,
}
# The parts of a face by dlib's 68 landmarks (iBUG 300-W); the eyes are two parts.
_PARTS = {"eyes": ((36, 42), (42, 48)), "nose": ((27, 36),), "mouth": ((48, 68),)}
LOWRES_SCALE = 4
_MARGIN = 0.045  # around landmarks, of the crop's side: lids and lips reach beyond them


class MaskError(Exception):
    """A hole that cannot be made; says what was found, what was expected and what to do."""


def split_name(mask: str) -> tuple[str, float | None] | None:
    """Take "center:0.3" apart into a name and its number; None if the text is no name at all but a file's.

    Raises:
        MaskError: the name takes no number, or not that one.
    """
    name, colon, number = mask.partition(":")
    if name not in NAMES:
        return None
    default = NAMES[name]
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


def named_hole(
    mask: str, size: int, rng: np.random.Generator, landmarks: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """A hole by name, in the frame of a crop.

    Args:
        mask: one of NAMES, with a number after a colon where it takes one. center:M leaves a margin of M times the
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
        raise MaskError(f"there is no mask named {mask!r}; names: {', '.join(NAMES)}; or give a file or folder")
    name, number = parsed
    hole = np.zeros((size, size), dtype=bool)
    half = size // 2
    if name == "half":
        name = ("left", "right", "top", "bottom")[rng.integers(4)]
    if name == "center":
        margin = int(size * (number or 0))
        hole[margin : size - margin, margin : size - margin] = True
    elif name == "random":
        hole.flat[rng.permutation(size * size)[: round(size * size * (number or 0))]] = True
    elif name == "left":
        hole[:, :half] = True
    elif name == "right":
        hole[:, half:] = True
    elif name == "top":
        hole[:half] = True
    elif name == "bottom":
        hole[half:] = True
    elif name in ("full", "lowres"):  # lowres: no pixel is known, only the means of blocks of 4x4
        hole[:] = True
    elif name == "grid":
        hole[:] = True
        hole[::4, ::4] = False
    elif name == "pattern":
        # A quarter of the image in blobs of arbitrary shape: the lowest quarter of smooth noise.
        noise = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size / 16)
        hole = noise < np.quantile(noise, 0.25)
    else:
        if landmarks is None:
            raise MaskError(f"the mask {name} needs the face's 68 landmarks, and no face was found to take them from")
        for first, last in _PARTS[name]:
            outline = cv2.convexHull(np.round(landmarks[first:last]).astype(np.int32))
            part = cv2.fillConvexPoly(np.zeros((size, size), dtype=np.uint8), outline, 1)
            reach = 2 * round(size * _MARGIN) + 1
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
            hole |= cv2.dilate(part, kernel).astype(bool)
    return hole


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
    from align.files import list_photos

    wanted = photo.with_suffix("")
    found = [path for path in list_photos(folder) if path.relative_to(folder).with_suffix("") == wanted]
    if len(found) != 1:
        what = "no mask" if not found else f"{len(found)} masks"
        raise MaskError(f"{folder} holds {what} for {photo}; expected one image named {wanted}.*")
    return found[0]

"""Photos as old prints, scans and bad exposures, and how far a fill strays from their tone."""

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.picture import rounded
from completion.tone import luma


def _curve(*ends: tuple[int, int, int]) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """Colour luminance between the colours of black, of middle grey and of white."""
    return lambda photo: np.stack(
        [np.interp(luma(photo), (0, 128, 255), levels) for levels in zip(*ends, strict=True)], axis=-1
    )


def _faded(photo: NDArray[np.uint8]) -> NDArray[np.float64]:
    light = luma(photo)[..., None].astype(np.float64)
    return 60 + 0.5 * light + 0.22 * (photo - light)


def _scan(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rng, grain = np.random.default_rng(0), (*photo.shape[:2], 1)
    chroma = rng.normal(0, 9, photo.shape)
    chroma -= chroma @ [[0.299], [0.587], [0.114]]
    file = io.BytesIO()
    Image.fromarray(rounded(_SEPIA(photo) + rng.normal(0, 6, grain) + chroma)).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


_SEPIA = _curve((30, 16, 6), (150, 126, 98), (255, 240, 205))
COLOUR = "colour"  # the photo as it is
ONE_TONE = "grey", "sepia", "blue", "scan"
_TONES: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.generic]]] = {
    "grey": _curve((0, 0, 0), (128, 128, 128), (255, 255, 255)),
    "sepia": _SEPIA,
    "blue": _curve((8, 16, 44), (112, 130, 160), (235, 244, 255)),
    "scan": _scan,
    "faded": _faded,
    "dark": lambda photo: 0.4 * 255 * (photo / 255) ** 1.6,
}


def toned(photo: NDArray[np.uint8], tone: str) -> NDArray[np.uint8]:
    """A photo uint8 (H, W, 3) in another tone, one of `completion.benchmark.config.TONES`."""
    return photo if tone == COLOUR else rounded(_TONES[tone](photo))


def stray(fill: NDArray[np.uint8], photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    """Mean distance of the chroma in a hole from the mean that the photo has at the same luminance, in Lab."""
    light = luma(photo)[..., None].ravel()
    count = np.bincount(light, minlength=256)
    seen = np.flatnonzero(count)
    chroma = _chroma(photo).reshape(-1, 2)
    means = [np.bincount(light, values, 256)[seen] / count[seen] for values in chroma.T]
    inside = luma(fill)[hole]
    expected = np.stack([np.interp(inside, seen, values) for values in means], axis=-1)
    return float(np.linalg.norm(_chroma(fill)[hole] - expected, axis=-1).mean())


def _chroma(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:].astype(np.float32, copy=False)

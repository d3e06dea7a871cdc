"""Sharpen generated faces that are enlarged, by a small network on ONNX Runtime."""

import cv2
import numpy as np
from numpy.typing import NDArray

from align.picture import rounded
from align.warp import Alignment
from completion.regions import hole_in_crop
from completion.tone import Stretch, luma
from weights import OCTAVE

_LEAST_PX = 128  # side of the smallest crops that the network was trained on, half its own
_ENLARGED = 4 / 3  # faces enlarged by less are sharp enough
_CHROMA_PX = 2.5  # standard deviation of the blur of the colours, which removes red and green specks


def is_soft(face: Alignment) -> bool:
    """Whether a face generated at the size of its crop looks soft in the photo."""
    return face.size >= _LEAST_PX and face.scale * _ENLARGED < 1


def sharpen(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], face: Alignment, completed: NDArray[np.uint8], one_tone: bool
) -> NDArray[np.uint8]:
    """Enlarge a completed crop to twice its size, and add the detail that the photo has at that size.

    Args:
        photo: uint8 (H, W, 3); not read inside the hole.
        hole: bool (H, W).
        face: position of the crop.
        completed: uint8 (S, S, 3), the crop with its hole filled and blended.
        one_tone: whether the photo has three equal channels.
    Returns:
        uint8 (2S, 2S, 3).
    Raises:
        WeightsError: the network's file is missing or damaged.
    """
    from completion.runtime import bundled_session  # late, as not every photo needs it

    face = face.resized(2 * face.size)
    holes = hole_in_crop(hole, face)
    crop = face.warp(photo)
    stretch = Stretch.of(crop, holes, one_tone)
    enlarged = cv2.resize(completed, (face.size, face.size), interpolation=cv2.INTER_CUBIC)
    crop = np.where(holes[..., None], enlarged, crop)
    feed = {"crops": stretch.apply(crop)[None], "holes": holes[None]}
    made = stretch.undo(bundled_session(OCTAVE).run(None, feed)[0][0])
    light = luma(made)[..., None].astype(np.float32)
    chroma = cv2.GaussianBlur(made - light, (0, 0), _CHROMA_PX)
    return np.where(holes[..., None], rounded(light + chroma), crop)

"""Face embeddings by dlib's network: faces of one person lie close together."""

from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.errors import LandmarkModelError
from align.landmarks import import_dlib, model_path
from align.template import TEMPLATES
from align.warp import Alignment, compose

MODEL_FILE = "dlib_face_recognition_resnet_model_v1.dat"
# Centres of the eyes in dlib's face chips of padding 0.25.
_CHIP_PX = 150
_CHIP_EYES = ((0.318, 0.314), (0.6685, 0.314))
_lock = Lock()  # the network keeps its layers' outputs


def embed(photo: NDArray[np.uint8], face: Alignment) -> NDArray[np.float64]:
    """Compute the embedding of a face; below a distance of 0.6, two faces are of one person.

    Args:
        photo: uint8 (H, W, 3).
        face: position of the face, of the template "face".
    Returns:
        float64 (128,).
    Raises:
        LandmarkModelError: dlib or the network's file is missing or broken.
    Source: King, "Dlib-ml", JMLR 2009.
    """
    chip = Alignment(compose(chip_alignment(face.size).matrix, face.matrix), _CHIP_PX).warp(photo)
    with _lock:
        return np.array(_network().compute_face_descriptor(np.ascontiguousarray(chip)))


def chip_alignment(size: int) -> Alignment:
    """The alignment of a crop of the template "face" to dlib's chip; in both, the eyes are level."""
    left, right = np.array(TEMPLATES["face"].targets) * size
    chip_left, chip_right = np.array(_CHIP_EYES) * _CHIP_PX
    zoom = (chip_right - chip_left)[0] / (right - left)[0]
    return Alignment(np.hstack([np.eye(2) * zoom, (chip_left - zoom * left)[:, None]]), _CHIP_PX)


@cache
def _network() -> Any:
    path = model_path(MODEL_FILE)
    try:
        return import_dlib().face_recognition_model_v1(str(path))
    except RuntimeError as error:
        what = str(error).partition("\n")[0]
        raise LandmarkModelError(f"the network file {path.name} is broken ({what}); reinstall its package") from error

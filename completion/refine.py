"""Estimate where a partly hidden face lies, from its visible pixels."""

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from align.locate import VIEW_PX, eye_distance, eyes_in_view, view_of
from align.resize import reduced
from align.template import TEMPLATES
from align.warp import Alignment, fit, transform
from completion.masks import hole_in_crop
from dcgan.weights import bundled_file
from weights import LOCATOR

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_TEMPLATE = TEMPLATES["face"]
_NEAR = 0.1  # radius of an eye with its lids, as a fraction of the view's side
_CROP_PX = 256  # maximum side of the crop in the photo that the views are cut out of
_PASSES = 5  # each starts from the position that the one before it found


def moved(face: Alignment, eyes: NDArray[np.float64]) -> Alignment:
    """Return the alignment for a face whose eyes lie elsewhere.

    Args:
        face: of the template "face".
        eyes: where its eyes lie in its view, as in `eyes_in_view`.
    Raises:
        ValueError: both eyes lie on one point.
    """
    left, right = transform(view_of(face).inverse, eyes)
    return fit(_TEMPLATE, np.array([right, right, left, left, left]), face.size)


def locate_hidden(photo: NDArray[np.uint8], hole: NDArray[np.bool_], face: Alignment) -> Alignment:
    """Correct the position of a face whose eyes are hidden, so that a detector had to guess where they are.

    Args:
        photo: uint8 (H, W, 3); what is under the hole has no effect.
        hole: bool (H, W).
        face: the position to start from, of the template "face".
    Returns:
        The corrected position; the same if both eyes are visible.
    Raises:
        WeightsError: the locator's file is missing or damaged.
    """
    # Views are cut out of a reduced photo: from a large one, cutting takes ten times as long as the network.
    scale = min(1.0, _CROP_PX * face.scale / face.size)
    if scale < 1:
        photo, hole = reduced(photo, scale), reduced(hole * np.uint8(255), scale) > 0
    found = face.rescaled(scale)
    if not (hole_in_crop(hole, view_of(found)) & _near_eyes()).any():
        return face
    for _ in range(_PASSES):
        view = view_of(found)
        feed = {"crops": view.warp(photo)[None], "holes": hole_in_crop(hole, view)[None]}
        shifts = _session().run(None, feed)[0][0]
        found = moved(found, eyes_in_view() + eye_distance() * shifts)
    return found.rescaled(1 / scale)


def _near_eyes() -> NDArray[np.bool_]:
    """The eyes with their lids in a view: bool (VIEW_PX, VIEW_PX)."""
    near = np.zeros((VIEW_PX, VIEW_PX), dtype=np.uint8)
    for x, y in np.round(eyes_in_view()).astype(int):
        cv2.circle(near, (int(x), int(y)), round(_NEAR * VIEW_PX), 1, -1)
    return near > 0


@cache
def _session() -> "InferenceSession":
    from completion.runtime import open_session  # late, as not every photo needs it

    return open_session(bundled_file(LOCATOR))

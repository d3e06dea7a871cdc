"""Find the faces that a hole covers, also from the few pixels around it that are visible."""

from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from align import locate
from align.errors import InputError, NoFaceError
from align.locate import VIEW_PX, eye_distance, eyes_in_view, view_of
from align.resize import reduced, scale_to
from align.template import TEMPLATES, Template
from align.warp import Alignment, fit, transform
from completion.config import FillOptions
from completion.inpaint import blurred_fill, inpaint
from completion.regions import hole_in_crop, owners, touches
from weights import LOCATOR

_SEARCHED_PX = 4000  # larger photos are searched at this size, which bounds time and memory
_FIVE_OF_68 = [45, 42, 36, 39, 33]  # corners of the eyes, and the nose
_STRAY = 0.05  # share of a hole that may lie outside the faces before more faces are searched for
_SMALLEST_PX, _LARGEST = 4, 4  # limits on the side of a given face: in pixels, and relative to the photo
_TEMPLATE = TEMPLATES["face"]
_NEAR = 0.1  # radius of an eye with its lids, as a fraction of the view's side
_CROP_PX = 256  # maximum side of the crop in the photo that the views are cut out of
_PASSES = 5  # each starts from the position that the one before it found


def as_faces(faces: Any) -> list[Alignment] | None:
    """Return alignments that may be given alone, or as what `align_faces` returns.

    Raises:
        InputError: a face is something else.
    """
    if faces is None:
        return None
    several = faces if isinstance(faces, list | tuple) else [faces]
    found: list[Any] = [getattr(face, "alignment", face) for face in several]
    if odd := [face for face in found if not isinstance(face, Alignment)]:
        raise InputError(f"faces has a {type(odd[0]).__name__}; expected alignments, or give eyes or a box")
    return found


def faces_by_landmarks(landmarks: ArrayLike, template: Template, size: int) -> list[Alignment]:
    """Align faces by the landmarks of one, (5, 2) or (68, 2), or of several, (N, 5, 2) or (N, 68, 2).

    Raises:
        InputError: the landmarks have another shape, lie on one point or line, or are too few for the template.
    """
    try:
        points = np.asarray(landmarks, dtype=np.float64)
        if points.shape[-2:] == (68, 2) and template.points == 5:
            points = points[..., _FIVE_OF_68, :]
        if points.ndim in (2, 3) and points.shape[-2:] == (template.points, 2) and np.isfinite(points).all():
            return [fit(template, each, size) for each in points.reshape(-1, template.points, 2)]
        found = f"have shape {points.shape}"
    except (ValueError, TypeError) as error:
        found = f"cannot be used ({error})"
    raise InputError(f"the landmarks {found}; expected finite ({template.points}, 2) or (68, 2), or several of them")


def given_face(options: FillOptions, shape: tuple[int, int], template: Template, size: int) -> list[Alignment] | None:
    """Return the face that the options eyes or box give, for a photo (H, W); None without them.

    Raises:
        NoFaceError: the position is impossible, see `align.locate`.
    """
    if options.eyes:
        return checked([locate.align_by_eyes(options.eyes, shape, template, size)], shape)
    if options.box:
        return checked([locate.align_by_box(options.box, shape, template, size)], shape)
    return None


def checked(faces: list[Alignment], shape: tuple[int, int]) -> list[Alignment]:
    """Return given faces.

    Raises:
        NoFaceError: a face is absurdly small or large for a photo (H, W).
    """
    for face in faces:
        side_px = face.size / face.scale
        if not _SMALLEST_PX <= side_px <= _LARGEST * max(shape):
            raise NoFaceError(
                f"the given face has a side of {side_px:.3g} px; expected {_SMALLEST_PX} to {_LARGEST * max(shape)} "
                f"in a photo of {shape[1]}x{shape[0]}"
            )
    return faces


def faces_under(
    pixels: NDArray[np.uint8], hole: NDArray[np.bool_], template: Template, size: int
) -> tuple[list[Alignment], int]:
    """Find the faces that a hole may cover.

    Args:
        pixels: uint8 (H, W, 3), the original photo; only the positions of faces are used from under the hole.
        hole: bool (H, W).
        template: alignment template.
        size: side of the crops in pixels.
    Returns:
        The faces, and how many of them were found only in the original photo.
    Raises:
        WeightsError: the locator's file is missing or damaged.
    """
    scale = scale_to(hole.shape, _SEARCHED_PX)
    if scale < 1:
        small, under = reduced(pixels, scale), reduced(hole * np.uint8(255), scale) > 0
        faces, hidden = faces_under(small, under, template, size)
        return [face.rescaled(1 / scale) for face in faces], hidden
    visible = inpaint(pixels, hole)
    found: list[Alignment] = []
    hidden = 0

    def corrected(face: Alignment) -> Alignment:
        """Correct the position of a face that was detected in the visible part."""
        if template.name != "face":  # another one needs more than the eyes
            return face
        moved = locate_hidden(visible, hole, face)
        return moved if locate.is_among(moved, [face]) else face  # it may have strayed to another one

    # Quick passes first, and the visible part before the original: a covered face can only be found in the latter.
    for find, photo in product((locate.find_upright, locate.find_hard), (visible, pixels)):
        outside = owners(hole, found) < 0
        if outside.sum() <= _STRAY * len(outside):
            break
        rest = hole.copy()
        rest[hole] = outside
        for face in find(photo, template, size):
            if not locate.is_among(face, found) and touches(rest, face):
                found.append(face if photo is pixels else corrected(face))
                hidden += photo is pixels
    # Accept a detection of low confidence.
    for fill in (visible, blurred_fill(pixels, hole)) if not found else ():
        faint = [face for face in locate.find_faint(fill, template, size) if touches(hole, face)]
        if faint:
            return [corrected(faint[0])], hidden
    return found, hidden


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
    from completion.runtime import bundled_session  # late, as not every photo needs it

    for _ in range(_PASSES):
        view = view_of(found)
        feed = {"crops": view.warp(photo)[None], "holes": hole_in_crop(hole, view)[None]}
        shifts = bundled_session(LOCATOR).run(None, feed)[0][0]
        found = moved(found, eyes_in_view() + eye_distance() * shifts)
    return found.rescaled(1 / scale)


def _near_eyes() -> NDArray[np.bool_]:
    """The eyes with their lids in a view: bool (VIEW_PX, VIEW_PX)."""
    near = np.zeros((VIEW_PX, VIEW_PX), dtype=np.uint8)
    for x, y in np.round(eyes_in_view()).astype(int):
        cv2.circle(near, (int(x), int(y)), round(_NEAR * VIEW_PX), 1, -1)
    return near > 0

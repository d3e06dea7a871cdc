"""Variants of a generated face: different candidates, sharpened where they are enlarged, and with detail."""

from collections.abc import Iterator, Sequence
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from align.landmarks import predict_aligned
from align.warp import Alignment
from completion.config import FillOptions
from completion.detail import Generated, Variant, add_detail, head_of, inner_face
from completion.octave import is_soft, sharpen
from completion.poisson import blend
from completion.references import Reference, choose
from completion.step import Step

_AGREES = 1.1  # maximum context loss of a returned candidate, as a multiple of the best one's
_LEAST_DIFFERENCE = 1.5  # mean absolute difference between candidates in the hole, in levels
_ONE_SIDED = 0.12  # smaller shares of a hole whose mirror image is visible bring no detail
# An area that every head covers in the template "face", as (x, y) shares of the crop.
_FACE = np.array([(0.21, 0.2), (0.79, 0.2), (0.79, 0.76), (0.67, 0.88), (0.33, 0.88), (0.21, 0.76)])


def different(step: Step, count: int) -> list[NDArray[np.uint8]]:
    """Select the best candidate for a face, then repeatedly the one farthest in its hole from those selected.

    Prefers candidates that match the visible pixels about as well as the best one.

    Returns:
        uint8 (S, S, 3) each, at most `count`, in order of their total loss.
    """
    order = step.total[0].argsort(kind="stable")
    context = step.context[0, order]
    enough = np.sort(context)[min(count, len(order)) - 1]
    order = order[context <= max(_AGREES * context[0], enough)]
    images = step.images[0, order]
    inside = images[:, step.holes[0]].reshape(len(images), -1).astype(np.float32)
    distances = np.stack([np.abs(inside - each).mean(axis=1) for each in inside])
    taken = [0]
    while len(taken) < min(count, len(order)):
        taken.append(int(distances[:, taken].min(axis=1).argmax()))
    return list(images[sorted(taken)])


def visibly_different(fills: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], ...]:
    """Leave out fills that look like one before them."""
    kept = [fills[0]]
    for fill in fills[1:]:
        if all(np.abs(fill.astype(np.int16) - other).mean() >= _LEAST_DIFFERENCE for other in kept):
            kept.append(fill)
    return tuple(kept)


def pasted(
    face: Alignment, images: Sequence[NDArray[np.uint8]], visible: NDArray[np.uint8], part: NDArray[np.bool_]
) -> Iterator[Variant]:
    """Put generated faces into a photo; blending reads one pixel around the hole."""
    return (Variant(face.paste(visible, image, beyond_px=2), part) for image in images)


def detailed(
    step: Step,
    images: Sequence[NDArray[np.uint8]],
    visible: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    part: NDArray[np.bool_],
    references: Sequence[Reference],
    one_tone: bool,
    options: FillOptions,
) -> tuple[Iterator[Variant], NDArray[np.bool_], list[str]]:
    """Sharpen generated faces that are enlarged, and give the best one detail.

    Args:
        step: last step of the search for the face.
        images: uint8 (S, S, 3) each, generated faces, the best first.
        visible: uint8 (H, W, 3), the photo with its hole filled classically.
        hole: bool (H, W), the whole hole.
        part: bool (H, W), the part of the hole that belongs to the face.
        references: faces in reference photos.
        one_tone: whether the photo has three equal channels.
        options: number of variants, and how to blend.
    Returns:
        The variants, the best first; the features of the face, bool (H, W); and remarks.
    """
    face, covered = step.alignment, step.holes[0]
    if is_soft(face):
        blended = (blend(step.crops[0], image, covered, options.blend) for image in images)
        images = [sharpen(visible, hole, face, crop, one_tone) for crop in blended]
        face, completed = face.resized(2 * face.size), images[0]
    else:
        completed = blend(step.crops[0], images[0], covered)
    # The landmarks take half a second to load, and bring nothing where the mirror image is hidden as well.
    within = (
        cv2.fillConvexPoly(np.zeros_like(covered, np.uint8), np.round(_FACE * len(covered)).astype(np.int32), 1) > 0
    )
    if not references and (covered & ~covered[:, ::-1]).sum() < _ONE_SIDED * covered.sum() and within[covered].all():
        return pasted(face, images, visible, part), np.zeros_like(hole), []
    generated = face.paste(visible, completed, beyond_px=2)
    coarse = np.where(part[..., None], generated, visible)
    landmarks = predict_aligned(coarse, face)
    portraits, remark = choose(references, coarse, face, landmarks, part)
    improved = add_detail(Generated(visible, generated, hole, part, landmarks), portraits, options.candidates)
    plain = pasted(face, images, visible, head_of(part, landmarks))
    remarks = [f"face {step.face + 1}: {remark}"] if remark else []
    return chain(improved, plain), inner_face(landmarks, hole.shape), remarks

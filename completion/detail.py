"""Give a generated face the fine structure of a real one: of its own other half, or of another photo of the person.

The generated face decides where everything lies, and everything coarse: pose, light and colour. Lengths are in spans,
the distance between the centres of the eyes, unless a name ends in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from align.picture import rounded
from align.resize import box_around, scaled_size
from align.warp import similarity, transform
from completion.inpaint import is_wide

MIRROR = "its mirror image"
MIRROR_LIMIT, REFERENCE_LIMIT = 0.20, 0.15  # largest misfits; above, cheeks fold and eyes drift
_MOST_TURNED, _TURNED_HAIR = 0.6, 0.3  # largest yaw for the mirrored face, and for its hair and ears
# dlib's 68 landmarks in the order of the mirror image.
_FLIPPED = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38]
_FLIPPED += [37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
_EYES = slice(36, 42), slice(42, 48)
_FOREHEAD, _FACE, HEAD, _INNER = 0.45, 0.08, 0.12, 0.15  # height above the brows; how far outlines are grown
_HAIR = 0.8  # how far beyond the face hair and ears are mirrored
_FADE, _HAIR_FADE = 0.12, 0.3
_LEAST_SHARE = 0.1  # of the hole in the face must be covered
# Gaussians that keep what is coarse, of luminance and of colour. 0.08 for luminance costs 0.2 dB. Colour is coarser for
# mirror images, as what the network generates has brown lids and grey irises; a reference may have other lipstick.
_COARSE, _COARSE_COLOUR = 0.05, 0.2
_GAINS = 0.6, 1.5
_SHARPER, _BLURRED_TO = 1.1, 1.05  # a source this much sharper than the photo is blurred
_STIFF, _ANCHORS, _CIRCLE, _GRID = 0.02, 8, 2.6, 16  # of the spline; it is evaluated at so many points per span
# Glance, in widths of the eye: lashes make every eye look outward; a copied iris is moved a little less than twice the
# offset of the visible one.
_LASHES, _GLANCE, _LEAST_SHIFT, _LARGEST_SHIFT, _IRIS, _LEAST_EYE_PX = 0.06, 1.4, 0.03, 0.15, 0.26, 14
_BLUR_PX = 8.0  # widest Gaussian that is computed at full size
_LEAST_PX = 50  # as many visible pixels are needed to compare sharpness and contrast
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Portrait:
    """A picture of a face to take detail from.

    Attributes:
        name: what to call it, such as its file name.
        pixels: uint8 (h, w, 3).
        landmarks: float64 (68, 2), (x, y) in its pixels.
        usable: bool (h, w); None if all of it is.
        mirrored: whether it is the mirror image of the photo.
    """

    name: str
    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    usable: NDArray[np.bool_] | None = None
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class Generated:
    """A generated face in its photo.

    Attributes:
        photo: uint8 (H, W, 3); not read inside the hole.
        pixels: uint8 (H, W, 3), the generated face in the photo, at least one pixel wider than the part.
        hole: bool (H, W), the whole hole.
        part: bool (H, W), the part of the hole that belongs to the face, not empty.
        landmarks: float64 (68, 2), those of the generated face.
    """

    photo: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    hole: NDArray[np.bool_]
    part: NDArray[np.bool_]
    landmarks: NDArray[np.float64]

    @property
    def inserted(self) -> NDArray[np.uint8]:
        """The photo with the face in its part: uint8 (H, W, 3)."""
        return np.where(self.part[..., None], self.pixels, self.photo)


@dataclass(frozen=True, eq=False)
class Variant:
    """What can be filled in for a face.

    Attributes:
        pixels: uint8 (H, W, 3), the photo with the face, before blending.
        part: bool (H, W), the part of the hole that it fills; the rest is left to the surroundings.
        source: name of the portrait that its detail comes from; empty if it has none.
        misfit: root mean square distance between the landmarks of the face and those of the portrait, in spans.
    """

    pixels: NDArray[np.uint8]
    part: NDArray[np.bool_]
    source: str = ""
    misfit: float = 0.0


def span(landmarks: NDArray[np.float64]) -> float:
    """Distance between the centres of the eyes in pixels, at least 1."""
    left, right = (landmarks[eye].mean(axis=0) for eye in _EYES)
    return max(1.0, float(np.linalg.norm(right - left)))


def outline(landmarks: NDArray[np.float64], shape: tuple[int, int], grown: float) -> NDArray[np.bool_]:
    """Draw the face with its forehead, grown by some spans: bool (H, W)."""
    left, right = (landmarks[eye].mean(axis=0) for eye in _EYES)
    up = np.array([1, -1]) * (right - left)[::-1]  # as long as the span
    return _hull(np.vstack([landmarks[:17], landmarks[17:27] + _FOREHEAD * up]), shape, grown * span(landmarks))


def inner_face(landmarks: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw brows, eyes, nose and mouth, with a border: bool (H, W)."""
    return _hull(landmarks[17:], shape, _INNER * span(landmarks))


def _hull(points: NDArray[np.float64], shape: tuple[int, int], grown_px: float) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.uint8)
    corners = np.round(cv2.convexHull(points.astype(np.float32))).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 1)
    cv2.polylines(mask, [corners], True, 1, max(1, 2 * round(grown_px)))
    return mask > 0


def head_of(part: NDArray[np.bool_], landmarks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The part of a hole that a network should fill: the head, with narrow gaps beside it."""
    return _without_gaps(part & outline(landmarks, part.shape, HEAD), part)


def add_detail(face: Generated, portraits: Sequence[Portrait], count: int) -> list[Variant]:
    """Give a generated face detail from other portraits and its own mirror image, as far as they fit.

    Args:
        face: the generated face.
        portraits: other pictures of the person, the best first.
        count: number of variants needed.
    Returns:
        At most `count` variants, the best first.
    """
    mirrored = transfer(face, mirror(face.inserted, face.hole, face.landmarks), MIRROR_LIMIT)
    # The mirror image has the hair, which a reference shows in another way.
    under = replace(face, pixels=mirrored.pixels) if mirrored else face
    covered = mirrored.part if mirrored else np.zeros_like(face.part)
    variants: list[Variant] = []
    for portrait in portraits:
        if len(variants) < count and (found := transfer(under, portrait, REFERENCE_LIMIT)):
            variants.append(replace(found, part=found.part | covered))
    return [*variants, *([mirrored] if mirrored else [])][:count]


def _without_gaps(covered: NDArray[np.bool_], part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Extend what is covered of a part over the rest, unless that is wide enough for its surroundings."""
    return covered if is_wide(part & ~covered) else part


def mirror(photo: NDArray[np.uint8], hole: NDArray[np.bool_], landmarks: NDArray[np.float64]) -> Portrait:
    """The mirror image of a photo, of which only what is visible is usable."""
    grown = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)) > 0
    flipped = landmarks[_FLIPPED] * [-1, 1] + [photo.shape[1] - 1, 0]
    return Portrait(MIRROR, np.ascontiguousarray(photo[:, ::-1]), flipped, ~grown[:, ::-1], mirrored=True)


def yaw(landmarks: NDArray[np.float64]) -> float:
    """How far a face is turned: log of the ratio of the nose tip's distances from both eyes along the eye line."""
    left, right = (landmarks[eye].mean(axis=0) for eye in _EYES)
    size = span(landmarks)
    along = (right - left) / size
    near, far = (max(0.05 * size, float(way @ along)) for way in (landmarks[30] - left, right - landmarks[30]))
    return float(np.log(near / far))


class Warp:
    """Map from a face to the same face in another picture: a similarity, and a thin-plate spline for the rest.

    Args:
        target: float64 (68, 2), landmarks of the face.
        source: float64 (68, 2), landmarks in the other picture.
    Attributes:
        matrix: float64 (2, 3), the similarity.
        misfit: root mean square residual of the similarity, in spans of the source.
    Source: Bookstein 1989, "Principal warps: thin-plate splines and the decomposition of deformations".
    """

    def __init__(self, target: NDArray[np.float64], source: NDArray[np.float64]) -> None:
        self.matrix = similarity(target, source)
        rest = source - transform(self.matrix, target)
        self.misfit = float(np.sqrt((rest**2).sum(axis=1).mean())) / span(source)
        self._span, self._middle = span(target), target.mean(axis=0)
        angles = 2 * np.pi * np.arange(_ANCHORS) / _ANCHORS  # far from the face, only the similarity counts
        circle = self._middle + _CIRCLE * self._span * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._knots = np.vstack([target, circle])
        kernel, plane = self._basis(self._knots)
        kernel += _STIFF * np.eye(len(kernel))
        system = np.block([[kernel, plane], [plane.T, np.zeros((3, 3))]])
        self._weights = np.linalg.solve(system, np.vstack([rest, np.zeros((_ANCHORS + 3, 2))]))

    def _basis(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        square = ((points[:, None] - self._knots) ** 2).sum(axis=-1) / self._span**2
        plane = np.column_stack([np.ones(len(points)), (points - self._middle) / self._span])
        return 0.5 * square * np.log(np.maximum(square, 1e-12)), plane

    def __call__(self, box: tuple[slice, slice]) -> NDArray[np.float32]:
        """Map every pixel of a box, rows and columns, to (x, y) in the other picture: float32 (h, w, 2)."""
        rows, columns = box
        ys, xs = (
            np.linspace(side.start, side.stop - 1, max(2, round((side.stop - side.start) * _GRID / self._span) + 1))
            for side in box
        )
        points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        coarse = (np.hstack(self._basis(points)) @ self._weights).reshape(len(ys), len(xs), 2).astype(np.float32)
        v = np.linspace(0, len(ys) - 1, rows.stop - rows.start, dtype=np.float32)
        u = np.linspace(0, len(xs) - 1, columns.stop - columns.start, dtype=np.float32)
        shift = cv2.remap(coarse, *np.meshgrid(u, v), cv2.INTER_LINEAR)
        y, x = np.mgrid[box]
        return (transform(self.matrix, np.stack([x, y], axis=-1)) + shift).astype(np.float32)


def transfer(face: Generated, portrait: Portrait, limit: float) -> Variant | None:
    """Give a generated face the detail of a portrait.

    Args:
        face: the generated face.
        portrait: where the detail comes from.
        limit: largest misfit.
    Returns:
        The detailed face, wherever the portrait shows it; None if the portrait does not fit, or shows too little.
    """
    part, landmarks = face.part, face.landmarks
    warp, size = Warp(landmarks, portrait.landmarks), span(landmarks)
    turned = abs(yaw(landmarks)) if portrait.mirrored else 0.0
    if warp.misfit > limit or turned > _MOST_TURNED:
        return None
    box = box_around(part, round(3 * _COARSE_COLOUR * size))
    y, x = np.mgrid[box]
    where = warp(box)
    if portrait.mirrored:
        for eye in _EYES:
            where -= _glance(portrait, landmarks, eye, warp.matrix, np.stack([x, y], axis=-1))
    moved, usable = _sampled(portrait, where, float(np.sqrt(abs(np.linalg.det(warp.matrix[:, :2])))))

    # The portrait counts fully where it is usable in the face, and fades out towards the border of that.
    inside = outline(landmarks, part.shape, _FACE)[box]
    share = _faded(usable & inside, _FADE * size)
    within = part[box] & inside
    if not within.any() or share[within].mean() < _LEAST_SHARE:
        return None
    base = np.where(part[box][..., None], face.pixels[box], face.photo[box]).astype(np.float32)
    seen = usable & inside & ~face.hole[box]
    if not portrait.mirrored:
        moved = _as_sharp(moved, base, seen, size)
    bands = [band - _blurred(band, _COARSE * size) for band in (base @ _LUMA, moved @ _LUMA)]
    gain = 1.0
    if seen.sum() >= _LEAST_PX:
        gain = float(np.clip(bands[0][seen].std() / max(float(bands[1][seen].std()), 1e-3), *_GAINS))
    light = base @ _LUMA - bands[0] + gain * bands[1]
    # Only the face counts for its colour: beside it, a bright background would shine in.
    colour_px = size * (_COARSE_COLOUR if portrait.mirrored else _COARSE)
    weight = inside.astype(np.float32)
    shift = _blurred((base - moved) * weight[..., None], colour_px)
    colour = moved + shift / np.maximum(_blurred(weight, colour_px), 0.01)[..., None]
    made = colour + (light - colour @ _LUMA)[..., None]
    mixed = base + share[..., None] * (made - base)

    # Hair, ears and collar are mirrored as they are.
    filled = part[box] & outline(landmarks, part.shape, HEAD)[box]
    if portrait.mirrored and turned <= _TURNED_HAIR:
        beside = usable & outline(landmarks, part.shape, _HAIR)[box]
        away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) / (_HAIR_FADE * size)
        copied = np.minimum(np.clip(away, 0, 1), _faded(beside, _FADE * size))
        mixed += copied[..., None] * (moved - mixed)
        filled |= part[box] & beside
    result, covered = face.pixels.copy(), np.zeros_like(part)
    covered[box] = filled
    rim = cv2.dilate(filled.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)) > 0  # blending reads it, too
    result[box][rim] = rounded(mixed[rim])
    return Variant(result, _without_gaps(covered, part), portrait.name, warp.misfit)


def _sampled(
    portrait: Portrait, where: NDArray[np.float32], shrunk: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sample a portrait and whether it is usable; `shrunk` is the number of its pixels per pixel of the photo."""
    sigma_px = 0.45 * float(np.sqrt(max(0.0, shrunk**2 - 1)))
    reach = 8 + int(4 * sigma_px)
    low = np.maximum(0, np.floor(where.min(axis=(0, 1))).astype(int) - reach)
    low = np.minimum(low, np.array(portrait.pixels.shape[1::-1]) - 1)
    high = np.maximum(low, np.ceil(where.max(axis=(0, 1))).astype(int) + reach) + 1
    near = slice(low[1], high[1]), slice(low[0], high[0])  # a whole photo in floats takes much memory
    pixels = portrait.pixels[near].astype(np.float32)
    if shrunk > 1:
        pixels = _blurred(pixels, max(0.01, sigma_px))
    x, y = np.moveaxis(where - low.astype(np.float32), -1, 0)
    moved = cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32, copy=False)
    usable = np.ones(pixels.shape[:2], dtype=bool) if portrait.usable is None else portrait.usable[near]
    share = cv2.remap(usable * np.uint8(255), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return moved, share > 250


def _faded(mask: NDArray[np.bool_], width_px: float) -> NDArray[np.float32]:
    """1 inside a mask, falling to 0 at its border, but not at the border of the image."""
    return np.clip(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) / width_px, 0, 1)


def _blurred(values: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Blur by a Gaussian; a wide one at reduced size, as its time grows with its width."""
    scale = min(1.0, _BLUR_PX / sigma_px)
    size = scaled_size(values.shape, scale)
    blurred = cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), scale * sigma_px)
    return cv2.resize(blurred, values.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def _as_sharp(
    moved: NDArray[np.float32], base: NDArray[np.float32], seen: NDArray[np.bool_], size: float
) -> NDArray[np.float32]:
    """Blur a portrait that is sharper than the photo, by bisection."""

    def sharpness(pixels: NDArray[np.float32]) -> float:
        return float(np.abs(cv2.Laplacian(_blurred(pixels @ _LUMA, 1), cv2.CV_32F))[seen].mean())

    if seen.sum() < _LEAST_PX or sharpness(moved) <= _SHARPER * (there := sharpness(base)):
        return moved
    low, high = 0.01, 0.1 * size
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if sharpness(_blurred(moved, middle)) > _BLURRED_TO * there else (low, middle)
    return _blurred(moved, high)


def _glance(
    portrait: Portrait,
    landmarks: NDArray[np.float64],
    eye: slice,
    matrix: NDArray[np.float64],
    points: NDArray[np.intp],
) -> NDArray[np.float32]:
    """Move a mirrored iris to where the visible one looks: what to subtract from the map, float32 (h, w, 2)."""
    seen = _iris(portrait, portrait.landmarks[eye])
    if seen is None:
        return np.zeros(points.shape, dtype=np.float32)
    outward = -_LASHES if eye == _EYES[0] else _LASHES
    shift = float(np.clip(-_GLANCE * (seen - outward), -_LARGEST_SHIFT, _LARGEST_SHIFT))
    if abs(shift) < _LEAST_SHIFT:
        return np.zeros(points.shape, dtype=np.float32)
    inner, outer = landmarks[eye][0], landmarks[eye][3]
    axis = outer - inner
    away = ((points - ((inner + outer) / 2 + axis * (seen + shift))) ** 2).sum(axis=-1)
    bump = np.exp(-away / (2 * (_IRIS * np.linalg.norm(axis)) ** 2))
    return (bump[..., None] * (matrix[:, :2] @ (axis * shift))).astype(np.float32)


def _iris(portrait: Portrait, corners: NDArray[np.float64]) -> float | None:
    """Offset of an iris from the middle of the eye, along the eye and in its widths; None if it is hidden or small."""
    along = corners[3] - corners[0]
    width_px = float(np.linalg.norm(along))
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    height, width = portrait.pixels.shape[:2]
    if width_px < _LEAST_EYE_PX or min(left, top) < 0 or right >= width or bottom >= height:
        return None
    window = slice(top, bottom + 1), slice(left, right + 1)
    mask = np.zeros((bottom + 1 - top, right + 1 - left), dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(corners - [left, top]).astype(np.int32)], 1)
    inside = cv2.erode(mask, np.ones((3, 3), dtype=np.uint8), borderValue=0) > 0
    if not inside.any() or (portrait.usable is not None and not portrait.usable[window][inside].all()):
        return None
    light = portrait.pixels[window].astype(np.float32) @ _LUMA
    weight = np.where(inside, np.maximum(0, np.quantile(light[inside], 0.3) - light), 0)
    if not weight.any():
        return None
    ys, xs = np.nonzero(weight)
    centre = np.average(np.stack([xs + left, ys + top], axis=1), axis=0, weights=weight[ys, xs])
    return float((centre - (corners[0] + corners[3]) / 2) @ along) / width_px**2

"""Masks of photos: which pixels to fill, from files, images, arrays and alpha; bool arrays, True = fill this."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.deep import to_8_bits
from align.errors import MaskError, PhotoError, hint
from align.photo import Photo, as_photo
from align.resize import in_bands
from align.warp import Alignment
from completion.damage import DAMAGE, SENSITIVITY
from completion.mask_files import folded
from dcgan.holes import HOLES, split_names

MaskLike = NDArray[Any] | Image.Image | Photo | str | os.PathLike[str] | bytes | IO[bytes] | Mapping[str, Any]


@dataclass(frozen=True)
class MaskSpec:
    """A mask as it is given in words, the union of its parts.

    Attributes:
        names: names of holes as for `dcgan.holes.named_hole`; "" if there is none.
        alpha: whether the transparent pixels of the photo belong to the hole.
        files: mask files, or a folder of masks.
        damage: sensitivity with which damage is searched for, see completion.damage.find_damage; None if it is not.
    """

    names: str = ""
    alpha: bool = False
    files: tuple[Path, ...] = ()
    damage: float | None = None


class Marked(NamedTuple):
    """What a mask marks in a photo.

    Attributes:
        hole: bool (H, W), empty only if no damage was found.
        faces: the faces it is placed on alone, or that were given; None if they are still to be found.
        notes: how it was read.
        damage: whether damage was searched for.
        lowres: whether the means of 4x4 blocks of the aligned face are visible.
    """

    hole: NDArray[np.bool_]
    faces: Sequence[Alignment] | None = None
    notes: tuple[str, ...] = ()
    damage: bool = False
    lowres: bool = False


_SAME_SHAPE = 0.01  # largest difference of two aspect ratios that rounding explains
_SAME_LEVEL = 12  # levels by which a saved copy of a pixel may differ
_TRANSPARENT, _PAINTED = 0.9, 0.25  # of the greatest alpha: what is erased is below, what is painted above
_COPIED = 0.8  # share of the opaque pixels that a copy of the photo has in common with it
_NEAR = 0.15  # of the distance between two levels: pixels that belong to one of them
_BETWEEN = 0.1  # maximum share of pixels between two levels, at soft edges
_ALIKE = 0.7  # as many pixels between two levels of one colour are a third level, not a soft edge
_SOFT_PX = 2  # edges wider than this belong to a soft brush
_MOST = 0.8  # maximum share of a photo that a mask may fill
_SPECK_PX = 4  # smaller differences from the photo are noise
_WIDE_PX = 9  # errors of JPEG beside paint are narrower
_CHANGED = 0.1  # of the painted area: a copy that differs in more beside it was changed all over


def read_mask(mask: MaskLike, photo: Photo, invert: bool = False) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Find the pixels that a mask marks. Equal content gives equal holes, in whatever form it comes.

    A mask is a picture of two levels, of which the lighter one or a colour on black is filled; a layer with paint on
    nothing; or the photo itself with a part erased or painted over. Nothing is guessed: other pictures are refused.

    Args:
        mask: a file by its path, its bytes or an open file; an image, an array or a torch tensor of any usual shape,
            type and range; a Photo; or what Gradio's image editor returns.
        photo: the photo that the mask belongs to.
        invert: fill the darker level instead, or what was not erased or painted.
    Returns:
        bool (H, W) of the photo's size, and notes on what was taken, unless it is plain white on black.
    Raises:
        MaskError: the mask cannot be read, has another shape, or does not say what to fill.
    """
    height, width = photo.pixels.shape[:2]
    if isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == (height, width):
        return ~mask if invert else mask, ()
    pixels, alpha = _split(_as_photo(mask))
    notes: list[str] = []
    if pixels.shape[:2] == (width, height) != (height, width) and photo.turned:
        pixels, alpha = (_turned(part, photo.turned) for part in (pixels, alpha))
        notes.append("the mask was turned like the photo")
    rows, columns = pixels.shape[:2]
    if abs(columns / rows * height / width - 1) > _SAME_SHAPE:
        raise MaskError(
            f"the mask has {columns}x{rows} pixels and the photo {width}x{height}, another shape; draw it on the photo"
        )
    shown = photo.pixels
    if (rows, columns) != (height, width):
        notes.append(f"the mask was resized from {columns}x{rows} to the photo's {width}x{height}")
        shown = cv2.resize(shown, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    hole, origin = _marked(pixels, alpha, shown, invert)
    if invert:
        hole = ~hole
    if (rows, columns) != (height, width):
        hole = cv2.resize(hole * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA) > 127
    share = float(hole.mean())
    if not hole.any():
        raise MaskError(f"the hole is empty: {origin or 'nothing is white'}; mark at least one pixel to fill")
    if share > _MOST:
        advice = f"{'do not ' * invert}invert the mask, or use the mask full to fill a whole face"
        raise MaskError(f"{share:.0%} of the photo would be filled; {advice}")
    if origin:
        notes.append(f"{share:.2%} of the photo is filled: {origin}")
    return hole, tuple(notes)


def parse_mask(text: str) -> MaskSpec:
    """Read names, "alpha", "damage" and paths, separated by commas; upper case and spaces do not matter in names.

    Raises:
        MaskError: a part is neither a name nor an existing path, or the number of a name is out of range.
    """
    words = [word.strip() for word in text.split(",")]
    kinds = {word: word.casefold().partition(":")[0] for word in words}
    names = [word.casefold() for word in words if kinds[word] in HOLES]
    files = [word for word in words if kinds[word] not in (*HOLES, "alpha", DAMAGE)]
    damage = [_sensitivity(word) for word in words if kinds[word] == DAMAGE]
    if files and os.path.lexists(text):
        return MaskSpec(files=(Path(text),))
    for word in files:
        if not os.path.lexists(word):
            raise unknown_mask(word)
    split_names(",".join(names))  # checks the numbers
    files_named = tuple(map(Path, files))
    return MaskSpec(",".join(names), "alpha" in map(str.casefold, words), files_named, max(damage, default=None))


def _sensitivity(word: str) -> float:
    """The number of "damage:0.7"."""
    _, colon, number = word.partition(":")
    with suppress(ValueError):
        value = float(number) if colon else SENSITIVITY
        if 0 < value < 1:
            return value
    raise MaskError(f"the mask is {word!r}, but damage takes a number above 0 and below 1")


def unknown_mask(word: str) -> MaskError:
    """Return the error for a part of a mask that is neither a name nor a file."""
    path = Path(word)
    if path.suffix or len(path.parts) > 1:
        try:
            beside = {folded(other).stem: other for other in path.parent.iterdir()}
        except OSError:
            beside = {}
        near = get_close_matches(folded(path).stem, beside, 1)
        return MaskError(f"there is no mask file {word}" + (f"; there is {beside[near[0]]}" if near else ""))
    name = word.partition(":")[0].casefold()
    return MaskError(f"there is no mask named {word!r}; {hint(name, (*HOLES, 'alpha', DAMAGE, 'a mask file'))}")


def alpha_hole(photo: Photo, invert: bool = False) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Find the erased pixels of a photo: those clearly more transparent than its most opaque one.

    Args:
        photo: the photo, with an alpha channel.
        invert: fill the opaque pixels instead.
    Returns:
        bool (H, W), and a note if all four corners are transparent, as in a photo that was turned by a few degrees:
        then they, and what they touch, are not filled.
    Raises:
        MaskError: the photo has no alpha channel, or only the corners are transparent.
    """
    if "A" not in photo.mode:
        raise MaskError(f"the mask is alpha, but the photo is {photo.mode} without alpha; make the hole transparent")
    alpha = photo.stored[..., -1]
    hole = alpha < _TRANSPARENT * alpha.max()
    corners = np.ix_((0, -1), (0, -1))
    if invert or not hole[corners].all():
        return hole != invert, ()
    labels = cv2.connectedComponents(hole.astype(np.uint8), connectivity=8)[1]
    hole &= ~np.isin(labels, labels[corners])
    if not hole.any():
        raise MaskError("only the corners of the photo and what they touch are transparent; erase what to fill")
    return hole, ("the transparent corners of the photo were left as they are; to fill them, give a mask file",)


def _marked(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], shown: NDArray[np.uint8], invert: bool
) -> tuple[NDArray[np.bool_], str]:
    """Find what a mask marks in a photo of its size, and say where from; "" for plain white on black."""
    most = int(alpha.max())
    if alpha.min() < _TRANSPARENT * most:  # alpha decides
        opaque = alpha >= _TRANSPARENT * most
        if (_change(pixels, shown)[opaque] <= _SAME_LEVEL).mean() > _COPIED:
            return ~opaque, "what was erased"
        painted = alpha > _PAINTED * most
        inside = pixels[painted]
        levels = _two_levels(inside[:, None])
        if levels is None or np.ptp(inside.reshape(-1, 3), axis=0).max() <= 2 * _SAME_LEVEL:
            return painted, "what was painted on the layer"
        pixels = np.where(painted[..., None], pixels, levels[0].astype(np.uint8))
    levels = _two_levels(pixels)
    change = _change(pixels, shown)
    if (change <= _SAME_LEVEL).mean() > 0.5 and (levels is None or not _is_dark(levels[0])):
        differs = _differing(change)
        if not differs.any():
            raise MaskError("the mask is the photo itself, without clear paint; paint what to fill white on black")
        return differs, "what differs from the photo"
    if levels is None:
        flat = np.ptp(pixels, axis=(0, 1)).max() <= _SAME_LEVEL
        if flat and pixels.max() <= _SAME_LEVEL:
            return np.zeros(pixels.shape[:2], dtype=bool), f"the mask has one level only, {pixels.max()}"
        if flat:
            return np.ones(pixels.shape[:2], dtype=bool), "the mask has one level only"
        if _two_levels(shown) is not None:
            raise MaskError("the mask has more than two levels, and the photo has two; were they swapped?")
        raise MaskError("the mask has more than two levels; paint what to fill white, and everything else black")
    ground, paint = levels
    line = paint - ground
    if _has_third(pixels, ground, line):
        raise MaskError("the mask has a third colour or level; paint all that is to be filled white on black")
    along = in_bands(  # 0 on the ground, 200 in the paint
        lambda rows: np.clip((rows - ground) @ line * (200 / (line @ line)), 0, 200).round().astype(np.uint8), pixels
    )
    hole = along > 100
    border = np.concatenate([hole[0], hole[-1], hole[:, 0], hole[:, -1]])
    if not invert and hole.mean() > 0.5 and border.mean() > 0.9:
        raise MaskError("the mask is dark on a light ground; invert the mask, or paint what to fill white on black")
    edge = hole & ~_eroded(hole, 3)
    if (np.abs(along.astype(np.int16) - 100) < 100 - 200 * _NEAR).sum() > _SOFT_PX * max(1, edge.sum()):
        hole = along > 50  # else a rim of what the brush covers softly would remain
    plain = _is_dark(ground) and paint.min() > 255 - 2 * _SAME_LEVEL
    return hole, "" if plain else f"level {_name(paint)} on {_name(ground)}"


def _two_levels(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The darker and the lighter of the two colours that nearly all pixels (H, W, 3) have; None if there are others."""
    flat = pixels.reshape(-1, 3)
    values = flat[:: max(1, len(flat) // 200_000)].astype(np.float64)
    first = _most_common(values)
    away = np.abs(values - first).max(axis=1)
    if away.max() == 0:
        return None
    far = values[away > 0.5 * away.max()]
    second = _most_common(far)
    length = float(np.square(second - first).sum())
    along = (values - first) @ (second - first) / length
    aside = np.sqrt(np.square(values - first - along[:, None] * (second - first)).sum(axis=1) / length)
    near = (np.minimum(np.abs(along), np.abs(along - 1)) < _NEAR) & (aside < 2 * _NEAR)
    if (~near).mean() > _BETWEEN or (~near).sum() > 4 * max(1, min((along < 0.5).sum(), (along >= 0.5).sum())):
        return None
    between, fewer = np.clip(along[~near], 0, 1), min((near & (along < 0.5)).sum(), (near & (along >= 0.5)).sum())
    if len(between) > fewer / 2 and np.bincount((between * 10).astype(np.int64)).max() > _ALIKE * len(between):
        return None
    dark, light = sorted((first, second), key=lambda colour: float(colour @ [0.299, 0.587, 0.114]))
    return dark, light


def _has_third(pixels: NDArray[np.uint8], ground: NDArray[np.float64], line: NDArray[np.float64]) -> bool:
    """Whether an area has another colour than ground and paint, or an even one between them, unlike a soft edge."""
    step = max(1, round((pixels.shape[0] * pixels.shape[1] / 1e6) ** 0.5))
    away = (pixels[::step, ::step] - ground).astype(np.float32)
    along = away @ line.astype(np.float32) / np.float32(line @ line)
    aside = np.square(away).sum(axis=2) / (line @ line) - np.square(along) > (2 * _NEAR) ** 2
    even = cv2.morphologyEx(along, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) < 0.01
    return bool((_eroded(aside, 5) | even & (np.abs(along - 0.5) < 0.5 - _NEAR)).any())


def _most_common(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the pixels (N, 3) in the fullest cell of a coarse histogram."""
    step = max(1.0, float(np.ptp(values, axis=0).max()) / 16)
    cells = ((values - values.min(axis=0)) / step).astype(np.int64) @ np.array([1, 32, 1024])
    found = np.bincount(cells).argmax()
    return values[cells == found].mean(axis=0)


def _change(pixels: NDArray[np.uint8], shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest difference of a channel from the photo's: uint8 (H, W)."""
    return in_bands(
        lambda ours, theirs: np.abs(ours.astype(np.int16) - theirs).max(axis=2).astype(np.uint8), pixels, shown
    )


def _differing(change: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels were painted over in a copy of the photo, not just changed when it was saved: bool (H, W)."""
    strong = change > 4 * _SAME_LEVEL
    if ((change > 0) & (change <= _SAME_LEVEL)).sum() <= strong.sum():  # saved without loss
        _, labels, stats, _ = cv2.connectedComponentsWithStats((change > 0).astype(np.uint8), connectivity=8)
        return np.append(False, stats[1:, cv2.CC_STAT_AREA] >= _SPECK_PX)[labels]
    # The errors of JPEG are thin, and grow with the contrast of the paint around it.
    limit = max(_SAME_LEVEL, 0.35 * float(np.median(change[strong]))) if strong.any() else _SAME_LEVEL
    painted = _touching(change > limit, _eroded(strong, 3))
    other = ((change > _SAME_LEVEL) & ~painted).astype(np.uint8)
    faint = cv2.morphologyEx(other, cv2.MORPH_OPEN, np.ones((_WIDE_PX, _WIDE_PX), np.uint8)) > 0
    # Over what has nearly the colour of the paint, a stroke is faint.
    stroke = _touching(faint, cv2.dilate(painted.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    if (faint & ~stroke).sum() > _CHANGED * painted.sum():
        return np.zeros_like(painted)  # other colours, or sharper, all over
    return painted | stroke


def _touching(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The areas of a mask that contain a seed."""
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    return mask & np.isin(labels, np.unique(labels[mask & seeds]))


def _eroded(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    return cv2.erode(mask.astype(np.uint8), np.ones((side_px, side_px), np.uint8)) > 0


def _is_dark(colour: NDArray[np.float64]) -> bool:
    return bool(colour.max() <= 2 * _SAME_LEVEL)


def _name(colour: NDArray[np.float64]) -> str:
    levels = [str(round(value)) for value in colour]
    return levels[0] if len(set(levels)) == 1 else f"({', '.join(levels)})"


def _split(mask: Photo) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The colours uint8 (H, W, 3) and the alpha uint8 (H, W) of a mask."""
    stored = to_8_bits(mask.stored)
    planes = stored if stored.ndim == 3 else stored[..., None]
    shape = planes.shape[:2]
    if "A" in mask.mode:
        return np.broadcast_to(planes[..., :-1], (*shape, 3)), planes[..., -1]
    return np.broadcast_to(planes, (*shape, 3)), np.broadcast_to(np.uint8(255), shape)


def _turned(pixels: NDArray[np.uint8], turn: Image.Transpose) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).transpose(turn))


def _as_photo(mask: MaskLike) -> Photo:
    """Decode a mask."""
    source: Any = _of_editor(mask) if isinstance(mask, Mapping) else mask
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | Photo) and not hasattr(
        source, "read"
    ):
        source = _as_bytes(source)
    try:
        return as_photo(source)
    except PhotoError as error:  # which names a path itself
        raise MaskError(f"the mask {'' if isinstance(source, str | os.PathLike) else 'is '}{error}") from error


def _of_editor(value: Mapping[str, Any]) -> Image.Image:
    """The painted layers of what Gradio's image editor returns, on each other."""
    layers = [as_photo(layer).image.convert("RGBA") for layer in value.get("layers") or () if layer is not None]
    if len({layer.size for layer in layers}) != 1:
        raise MaskError(f"the image editor has {len(layers)} painted layers; expected some of one size")
    for layer in layers[1:]:
        layers[0].alpha_composite(layer)
    return layers[0]


def _as_bytes(mask: Any) -> NDArray[np.uint8]:
    """Scale an array of any usual shape and range to uint8 (H, W) or (H, W, C)."""
    values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    what = f"the mask is {values.dtype} of shape {values.shape}"
    if values.dtype.kind not in "biuf" or values.ndim == 0:
        kind = type(mask).__name__
        raise MaskError(f"the mask is a {kind}; expected a name, a path, a Pillow image or a numpy array")
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[2] not in (2, 3, 4):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or values.ndim == 3 and values.shape[2] > 4 or 0 in values.shape:
        raise MaskError(f"{what}; expected (H, W) or an image (H, W, 3)")
    least, most = float(values.min()), float(values.max())
    if values.dtype == np.uint8:
        return values
    if not (-1 <= least and most <= 65_535):  # also NaN
        raise MaskError(f"the mask has values from {least:g} to {most:g}; expected 0 and 1, or 0 and 255")
    low = -1.0 if least < 0 else 0.0
    high = next(limit for limit in (1, 255, 65_535) if most <= limit)
    if values.dtype.kind in "iu" and high == 255:
        return values.astype(np.uint8)
    return np.round((values.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)

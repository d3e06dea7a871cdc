"""Classical inpainting of holes; pixels under them are never read, and visible pixels never change."""

from threading import Lock
from typing import Any, Literal

import cv2
import numpy as np
import patchmatch
from numpy.typing import NDArray

from align.picture import rounded
from align.resize import box_around, scale_to, scaled_size

_RADIUS_PX = 3  # of the pixels that OpenCV's methods average
_SIDE_PX, _MARGIN_PX = 512, 16  # larger areas are inpainted at reduced size; width of the border that is read
_FSR_SIDE_PX, _FSR_PX, _FSR_MARGIN_PX = 512, 25_000, 32  # limits on side and hole area; width of the border
_FSR_TILES = 5  # at most so many beside each other
_PATCH_RADIUS_PX, _PATCH_SEED = 3, 0
_PATCH_SOURCE = 0.75  # width of the border that patches are taken from, relative to the longer side of the area
_PATCHED_SIDE_PX, _PATCHED_PX = 512, 60_000  # limits on the sides of the border and on the area
_patching = Lock()  # the library keeps its seed for the whole process
_WIDE_PX = 20  # narrower gaps need only colour
_LEAST_VISIBLE = 0.25  # share of a reduced pixel that must be visible
_BLURRED_PX = 24  # longest side of the copy that is enlarged into a hole


def inpaint(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole by Telea's method, without a network.

    Args:
        photo: uint8 (H, W, 3); not modified, and not read inside the hole.
        hole: bool (H, W), True = fill this.
    Returns:
        uint8 (H, W, 3), equal to `photo` outside the hole.
    Source: Telea 2004, "An image inpainting technique based on the fast marching method".
    """
    filled = photo.copy()
    if not hole.any() or hole.all():
        filled[hole] = 127
        return filled
    box = box_around(hole, _MARGIN_PX)
    part, under = filled[box], hole[box]  # a view: writing to it changes `filled`
    part[under] = (photo[box][~under] if not under.all() else photo[~hole]).mean(axis=0).astype(np.uint8)
    # The border cannot restore fine detail in a large hole, so a reduced size suffices.
    size = scaled_size(under.shape, scale_to(under.shape, _SIDE_PX))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(under.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if small_hole.all() or min(size) < 3:  # OpenCV reads out of bounds on single-row images
        return filled
    # Rounding to bytes at every pixel would brighten the fill; for floats OpenCV accepts only single channels.
    channels = [opencv_inpaint(channel, small_hole, "telea") for channel in cv2.split(small.astype(np.float32))]
    full = cv2.resize(np.dstack(channels), under.shape[::-1], interpolation=cv2.INTER_LINEAR)[under]
    part[under] = rounded(full)
    return filled


def blurred_fill(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """As `inpaint`, with a blurred copy of the photo, which has no edges that could hide a face from a detector."""
    small, small_hole = reduce_visible(photo, hole, scale_to(hole.shape, _BLURRED_PX))
    blurred = cv2.resize(inpaint(small, small_hole), hole.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.where(hole[..., None], blurred, photo).astype(np.uint8)


def fsr_inpaint(photo: NDArray[np.uint8], hole: NDArray[np.bool_], part: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Extend surrounding structures into a hole; slower than `inpaint`, but better.

    Works tile by tile, at a reduced size where a tile has much to fill or the area is very large, which limits the time
    to about a second for each of at most 25 tiles.

    Args:
        photo: uint8 (H, W, 3); not modified.
        hole: bool (H, W); its pixels are never read.
        part: bool (H, W), the pixels of the hole to fill.
    Returns:
        uint8 (H, W, 3), changed only in `part`.
    Source: Genser et al. 2018, "Demonstration of rapid frequency selective reconstruction for image resolution
        enhancement"; OpenCV's xphoto module.
    """
    result, (rows, columns) = photo.copy(), box_around(part)
    longer_px = max(rows.stop - rows.start, columns.stop - columns.start)
    side_px = max(_FSR_SIDE_PX - 2 * _FSR_MARGIN_PX, -(-longer_px // _FSR_TILES))
    for top in range(rows.start, rows.stop, side_px):
        for left in range(columns.start, columns.stop, side_px):
            tile = slice(top, min(top + side_px, rows.stop)), slice(left, min(left + side_px, columns.stop))
            if part[tile].any():
                box = tuple(slice(max(0, side.start - _FSR_MARGIN_PX), side.stop + _FSR_MARGIN_PX) for side in tile)
                filled = _fsr(photo[box], hole[box])
                within = tuple(
                    slice(side.start - whole.start, side.stop - whole.start)
                    for side, whole in zip(tile, box, strict=True)
                )
                result[tile][part[tile]] = filled[within][part[tile]]
    return result


def _fsr(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole in a small photo; the photo itself if too little of it is visible."""
    size = scaled_size(hole.shape, min(scale_to(hole.shape, _FSR_SIDE_PX), (_FSR_PX / hole.sum()) ** 0.5))
    # A reduced pixel that overlaps the hole belongs to it.
    small_hole = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if small_hole.all():
        return photo
    small = cv2.resize(np.where(hole[..., None], np.uint8(0), photo), size, interpolation=cv2.INTER_AREA)
    # OpenCV leaves up to 12 of the last rows and columns unfilled, as bright green lines.
    padding = [(0, 16 + -length % 4) for length in small_hole.shape]
    small, small_hole = np.pad(small, [*padding, (0, 0)]), np.pad(small_hole, padding, constant_values=True)
    filled = np.zeros_like(small)
    cv2.xphoto.inpaint(small, np.where(small_hole, 0, 255).astype(np.uint8), filled, cv2.xphoto.INPAINT_FSR_FAST)
    filled = np.ascontiguousarray(filled[: size[1], : size[0]])
    return cv2.resize(filled, hole.shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def fill_around(
    photo: NDArray[np.uint8], part: NDArray[np.bool_], barred: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Fill each area of a hole from what is around it: narrow ones with colour, wide ones with patches.

    Args:
        photo: uint8 (H, W, 3); not modified.
        part: bool (H, W), the pixels to fill; they are never read.
        barred: see `patchmatch_inpaint`.
    Returns:
        uint8 (H, W, 3), changed only in `part`.
    """
    near = cv2.dilate(part.astype(np.uint8), np.ones((2 * _MARGIN_PX + 1,) * 2, np.uint8))
    filled = photo.copy()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near)
    for number in range(1, count):
        left, top, width, height = (int(value) for value in stats[number, :4])
        reach = round(_PATCH_SOURCE * max(width, height)) + 4 * _PATCH_RADIUS_PX
        box = slice(max(0, top - reach), top + height + reach), slice(max(0, left - reach), left + width + reach)
        area, source = part[box] & (labels[box] == number), None if barred is None else barred[box]
        if is_wide(area):
            filled[box] = patchmatch_inpaint(filled[box], part[box], area, source)
        else:
            filled[box] = inpaint(filled[box], area)
    return filled


def is_wide(area: NDArray[np.bool_]) -> bool:
    """Whether an area (H, W) is so wide that structure has to be continued into it."""
    return bool(cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 3).max() > _WIDE_PX / 2)


def patchmatch_inpaint(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], part: NDArray[np.bool_], barred: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Fill an area with patches from around it, so that edges and textures continue.

    Large areas are reduced in size, which limits the time to about two seconds.

    Args:
        photo: uint8 (H, W, 3); not modified.
        hole: bool (H, W); its pixels are never read.
        part: bool (H, W), the pixels of the hole to fill, not empty.
        barred: bool (H, W), visible pixels that must not be copied, such as eyes; None if there are none.
    Returns:
        uint8 (H, W, 3), changed only in `part`.
    Source: Barnes et al. 2009, "PatchMatch: a randomized correspondence algorithm for structural image editing".
    """
    rows, columns = box_around(part)
    longer_px = max(rows.stop - rows.start, columns.stop - columns.start)
    box = box_around(part, round(_PATCH_SOURCE * longer_px) + 4 * _PATCH_RADIUS_PX)
    inside, unread = part[box], hole[box] & ~part[box]
    size = scaled_size(inside.shape, min(scale_to(inside.shape, _PATCHED_SIDE_PX), (_PATCHED_PX / inside.sum()) ** 0.5))

    def reduced(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A reduced pixel that overlaps the mask belongs to it."""
        return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0

    small_part, excluded = reduced(inside), reduced(unread if barred is None else unread | barred[box])
    excluded &= ~small_part
    if (small_part | excluded).all() or min(size) <= 2 * _PATCH_RADIUS_PX:
        return photo
    small = cv2.resize(np.where(hole[box][..., None], np.uint8(0), photo[box]), size, interpolation=cv2.INTER_AREA)
    with _patching:
        patchmatch.set_random_seed(_PATCH_SEED)
        filled = patchmatch.inpaint(small, small_part, global_mask=excluded, patch_size=_PATCH_RADIUS_PX)
    result = photo.copy()
    enlarged = cv2.resize(filled, inside.shape[::-1], interpolation=cv2.INTER_CUBIC)
    result[box][inside] = enlarged[inside]
    return result


def reduce_visible(
    photo: NDArray[np.uint8], hole: NDArray[np.bool_], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Reduce a photo with a hole; visible pixels never mix with those under the hole.

    Args:
        photo: uint8 (H, W, 3).
        hole: bool (H, W).
        scale: size of the copy relative to the photo, below 1.
    Returns:
        The copy uint8 (h, w, 3) and its hole bool (h, w), the pixels of which less than a quarter is visible. Under the
        hole the copy is the reduced photo.
    """
    size = scaled_size(photo.shape, scale)
    known = ~hole * np.uint16(257)  # 16 bits take half the memory of floats
    share = cv2.resize(known * np.uint16(255), size, interpolation=cv2.INTER_AREA) / 65_535
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    visible = share >= _LEAST_VISIBLE
    for channel in range(3):
        seen = cv2.resize(known * photo[..., channel], size, interpolation=cv2.INTER_AREA)[visible] / 257
        small[visible, channel] = rounded(seen / share[visible])
    return small, ~visible


def opencv_inpaint(image: NDArray[Any], hole: NDArray[np.bool_], method: Literal["telea", "ns"]) -> NDArray[Any]:
    """Inpaint by fast marching, or by extending lines of equal brightness ("ns", Navier-Stokes).

    Args:
        image: uint8 (H, W, 3) or float32 (H, W). Its gradients across the edge of the hole are read, so give the pixels
            under the hole a fixed colour.
        hole: bool (H, W).
        method: "telea" or "ns".
    Returns:
        the same shape and type.
    Source: Telea 2004, "An image inpainting technique based on the fast marching method"; Bertalmio, Bertozzi and
        Sapiro 2001, "Navier-Stokes, fluid dynamics, and image and video inpainting".
    """
    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    return cv2.inpaint(image, hole.astype(np.uint8), _RADIUS_PX, flag)

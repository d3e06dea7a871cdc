"""Find the damage in photos: cracks, scratches, dust, stains, torn edges."""

import cv2
import numpy as np
from numpy.typing import NDArray

from align.errors import MaskError
from align.photo import PhotoLike, as_photo
from align.resize import reduced, scale_to
from weights import FINDER

DAMAGE, SENSITIVITY = "damage", 0.5  # as a mask, with its default number
_TILE_PX, _MARGIN_PX, _STRIDE_PX = 1024, 64, 16  # margin: what the network sees around a pixel
_SPECK_PX = 6  # smaller marks are grain
_AROUND = np.ones((3, 3), np.uint8)
_COPY_PX, _SMALLER = 1000, 0.7  # longer side of a copy of photos that are reduced at least so much by it
_OVERVIEW_PX, _LARGE = 288, 0.01  # longer side of the copy in which torn edges count, of at least this share of it
_MOST = 0.5  # greatest share of a photo that may be marked


def find_damage(photo: PhotoLike, sensitivity: float = SENSITIVITY) -> NDArray[np.bool_]:
    """Find the damaged pixels of a photo, at its own resolution.

    What is only faintly marked counts where it touches what is marked clearly: else remains of a crack would be taken
    for the photo, and continued into the hole.

    Args:
        photo: see align.photo.as_photo.
        sensitivity: above 0 and below 1; higher values mark more.
    Returns:
        bool (H, W), at most half of it True; all False for a photo without damage.
    Raises:
        PhotoError: the photo cannot be used.
        MaskError: the sensitivity is out of range.
        WeightsError: the finder's file is missing or damaged.
    """
    if not 0 < sensitivity < 1:
        raise MaskError(f"the sensitivity is {sensitivity}; expected a number above 0 and below 1")
    pixels = as_photo(photo).pixels
    likely = damage_likelihood(pixels)
    marked = _marks(likely, sensitivity, _SPECK_PX)
    # In a large scan cracks are wide, and what is torn off is plain inside: both show in smaller copies.
    for side_px, torn in ((_COPY_PX, False), (_OVERVIEW_PX, True)):
        if (scale := scale_to(pixels.shape, side_px)) < (1 if torn else _SMALLER):
            copy = damage_likelihood(reduced(pixels, scale))
            found = _marks(copy, sensitivity, round(_LARGE * copy.size) if torn else _SPECK_PX, at_border=torn)
            enlarged = cv2.resize(found, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            marked[enlarged > 0] = 1
    hole = cv2.dilate(marked, _AROUND) > 0  # as edges are blurred
    return hole if hole.mean() <= _MOST else likely > np.quantile(likely, 1 - _MOST, method="higher")


def _marks(likely: NDArray[np.uint8], sensitivity: float, least_px: int, at_border: bool = False) -> NDArray[np.uint8]:
    """Mark areas of likely pixels, at least one of them very likely: 0 or 1, (H, W)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((likely > 255 * (1 - 0.7 * sensitivity)).astype(np.uint8))
    kept = np.zeros(len(stats), dtype=np.uint8)
    kept[np.unique(labels[likely > 255 * (1 - sensitivity**6)])] = 1
    kept[stats[:, cv2.CC_STAT_AREA] < least_px] = 0
    if at_border:
        edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        kept[np.setdiff1d(np.arange(len(stats)), edges)] = 0
    kept[0] = 0  # the background
    return kept[labels]


def damage_likelihood(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how likely each pixel of a photo (H, W, 3) is damaged, from 0 to 255: (H, W)."""
    from completion.runtime import bundled_session  # late, as not every photo needs it

    height, width = pixels.shape[:2]
    likely = np.zeros((height, width), dtype=np.uint8)
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            bottom, right = min(top + _TILE_PX, height), min(left + _TILE_PX, width)
            above, before = min(top, _MARGIN_PX), min(left, _MARGIN_PX)
            tile = pixels[top - above : bottom + _MARGIN_PX, left - before : right + _MARGIN_PX]
            padding = [(0, -length % _STRIDE_PX) for length in tile.shape[:2]]
            found = bundled_session(FINDER).run(None, {"tiles": np.pad(tile, [*padding, (0, 0)], "edge")[None]})[0][0]
            likely[top:bottom, left:right] = found[above:, before:][: bottom - top, : right - left]
    return likely

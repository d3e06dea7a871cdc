"""Draw named masks on the faces of a photo, at the photo's resolution."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from align.landmarks import find_landmarks
from align.warp import Alignment, transform
from dcgan import holes

_FINEST_PX = 2048  # maximum side at which a named hole is drawn
_ROWS = 256  # of a photo, processed at once


def draw_named_mask(
    pixels: NDArray[np.uint8], mask: str, faces: Sequence[Alignment], seed: int = 0
) -> NDArray[np.bool_]:
    """Draw a named mask on faces.

    Args:
        pixels: uint8 (H, W, 3).
        mask: names, see dcgan.holes.named_hole.
        faces: the faces to draw it on.
        seed: seed of random holes.
    Returns:
        bool (H, W).
    Raises:
        MaskError: the hole cannot be created, see dcgan.holes.named_hole.
    """
    height, width = pixels.shape[:2]
    hole = np.zeros((height, width), dtype=bool)
    for face in faces:
        drawn = face  # holes made of single pixels are drawn at the size of the crop
        if not holes.is_lattice(mask):
            drawn = face.resized(min(_FINEST_PX, max(face.size, round(face.size / face.scale))))
        landmarks = find_landmarks(pixels, face) if holes.needs_landmarks(mask) else None
        if landmarks is not None:
            landmarks = drawn.apply(transform(face.inverse, landmarks))
        in_crop = holes.named_hole(mask, drawn.size, np.random.default_rng(seed), landmarks)
        footprint = face.footprint((height, width))
        for top in range(0, height, _ROWS):  # in strips, which bounds the memory
            ys, xs = np.nonzero(footprint[top : top + _ROWS])
            u, v = np.round(drawn.apply(np.stack([xs, ys + top], axis=1))).astype(int).T  # nearest neighbour
            hole[ys + top, xs] |= in_crop[v, u]
    return hole

"""Cut the faces out of a photo in memory."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.config import AlignOptions
from align.landmarks import find_faces
from align.photo import PhotoLike, as_photo
from align.template import TEMPLATES, TemplateName
from align.warp import Alignment, fit


@dataclass(frozen=True)
class AlignedFace:
    """A face found in a photo.

    Attributes:
        photo: uint8 (H, W, 3), the photo.
        landmarks: float64 (5, 2) or (68, 2), by template: (x, y) in the photo's pixels.
        alignment: maps the photo to the crop.
    """

    photo: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    alignment: Alignment

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The crop: uint8 (size, size, 3)."""
        return self.alignment.warp(self.photo)

    @property
    def image(self) -> Image.Image:
        """The crop as a Pillow image."""
        return Image.fromarray(self.pixels)


def align_faces(
    photo: PhotoLike,
    size: int = AlignOptions.size,
    template: TemplateName = AlignOptions.template,
    upsample: int = AlignOptions.upsample,
) -> list[AlignedFace]:
    """Find the faces in a photo and cut them out upright and at one size.

    The photo is what `align.photo.as_photo` takes; the other arguments are settings of `align.config.AlignOptions`.

    Returns:
        The faces, the largest first; empty if there is none.
    Raises:
        PhotoError: the photo cannot be used.
        ConfigError: a setting has another type or is out of range.
        LandmarkModelError: dlib or its landmark file is missing or broken.
    """
    AlignOptions(template=template, size=size, upsample=upsample)  # checks them
    pixels, target = as_photo(photo).pixels, TEMPLATES[template]
    faces = []
    for landmarks in find_faces(pixels, target.points, upsample):
        with suppress(ValueError):  # landmarks on one point or line are no face
            faces.append(AlignedFace(pixels, landmarks, fit(target, landmarks, size)))
    return faces

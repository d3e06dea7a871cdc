"""One step of a search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.warp import Alignment


@dataclass(frozen=True, eq=False)
class Step:
    """State of a search after one step, for N faces and K candidates each; in a whole photo, for one face at a time.

    Attributes:
        number: step number, from 0 (the initial candidates) to `steps`.
        steps: number of the last step.
        crops: uint8 (N, S, S, 3), the aligned faces.
        holes: bool (N, S, S), True = fill this.
        context: float32 (N, K), weighted L1 distance over the visible pixels, summed over values in [-1, 1].
        prior: float32 (N, K), the prior loss before weighting; 0 if it does not affect the result.
        total: float32 (N, K), the objective.
        images: uint8 (N, K, S, S, 3), images of the candidates.
        z: float32 (N, K, nz), the candidates of a search; None for a single pass of the encoder.
        alignment: maps the photo to the crop; the identity if the crops are not parts of a photo.
        face: index of the face in the photo, from 0.
        faces: number of faces in the photo.
    """

    number: int
    steps: int
    crops: NDArray[np.uint8]
    holes: NDArray[np.bool_]
    context: NDArray[np.float32]
    prior: NDArray[np.float32]
    total: NDArray[np.float32]
    images: NDArray[np.uint8]
    alignment: Alignment
    z: NDArray[np.float32] | None = None
    face: int = 0
    faces: int = 1

    @property
    def best(self) -> NDArray[np.intp]:
        """Index of each face's candidate with the lowest total loss: (N,)."""
        return self.total.argmin(axis=1)

    @property
    def best_images(self) -> NDArray[np.uint8]:
        """Image of each face's best candidate: uint8 (N, S, S, 3)."""
        return self.images[np.arange(len(self.images)), self.best]

    @property
    def previews(self) -> NDArray[np.uint8]:
        """The crops with the best candidates copied into their holes, without blending: uint8 (N, S, S, 3)."""
        return np.where(self.holes[..., None], self.best_images, self.crops)

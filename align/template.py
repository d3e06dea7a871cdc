"""Landmark templates: where the landmarks of a face come to lie in its crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Template:
    """Where groups of landmarks go in a crop.

    Attributes:
        name: what people type.
        points: landmarks that the predictor must find, 5 or 68.
        groups: landmark indices; the mean of each group is one point of the fit.
        targets: one (x, y) per group, in units of the crop's side.
        fit: "similarity" keeps the face's proportions; "affine" meets three targets exactly.
    """

    name: str
    points: int
    groups: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[float, float], ...]
    fit: str

    def sources(self, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The points of one face that the fit moves, float64 (len(groups), 2) in the photo's pixels."""
        import numpy as np  # here, since command lines read the names above and shall start at once

        return np.array([landmarks[list(group)].mean(axis=0) for group in self.groups])


# The targets of the two 68-point templates are openface's (align_dlib.py), there given in pixels of a 64x64 crop.
TEMPLATES = {
    template.name: template
    for template in (
        Template(
            name="face",
            points=5,
            groups=((2, 3), (0, 1)),  # dlib counts from the person's left eye, which is on the photo's right
            targets=((0.345, 0.41), (0.655, 0.41)),
            fit="similarity",
        ),
        Template(
            name="inner-eyes-bottom-lip",
            points=68,
            groups=((39,), (42,), (57,)),
            targets=((23.28 / 64, 11.39 / 64), (39.61 / 64, 11.06 / 64), (32.01 / 64, 48.04 / 64)),
            fit="affine",
        ),
        Template(
            name="outer-eyes-nose",
            points=68,
            groups=((36,), (45,), (33,)),
            targets=((12.43 / 64, 10.83 / 64), (50.49 / 64, 10.12 / 64), (31.68 / 64, 32.92 / 64)),
            fit="affine",
        ),
    )
}

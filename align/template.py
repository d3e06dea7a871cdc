"""Alignment templates: target positions of facial landmarks in a crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TemplateName = Literal["face", "inner-eyes-bottom-lip", "outer-eyes-nose"]


@dataclass(frozen=True)
class Template:
    """Target positions for groups of landmarks.

    Attributes:
        name: name of the template.
        points: number of landmarks per face, 5 or 68.
        groups: indices of landmarks; the mean of each group is one point of the fit.
        targets: (x, y) for each group, as fractions of the crop's side.
        fit: "similarity" preserves the face's proportions; "affine" maps three points exactly onto their targets.
    """

    name: TemplateName
    points: int
    groups: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[float, float], ...]
    fit: str

    def sources(self, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of each group, float64 (len(groups), 2), for landmarks (points, 2)."""
        import numpy as np  # imported late: command lines need only the names above and should start quickly

        return np.array([landmarks[list(group)].mean(axis=0) for group in self.groups])


# The targets of the two 68-point templates are those of OpenFace (align_dlib.py), in pixels of a 64x64 crop.
TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="face",
            points=5,
            groups=((2, 3), (0, 1)),  # dlib starts with the person's left eye, which is on the right of the photo
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

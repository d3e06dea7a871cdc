"""What completing a photo gives: fills, where they come from, figures and notes."""

import io
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.photo import Photo, filled, merge, write_photo
from align.warp import Alignment


@dataclass(frozen=True)
class Detail:
    """Where a face's fine structure comes from.

    Attributes:
        source: "its mirror image", or the file name of a reference photo.
        misfit: root mean square distance between the landmarks of the generated face and those of the source, in
            distances of the eyes; up to 0.2 for a mirror image and 0.15 for a reference.
    """

    source: str
    misfit: float


@dataclass(frozen=True, eq=False, repr=False)
class Completion:
    """A completed photo.

    Attributes:
        fills: uint8 (N, 3) each, the colours of the N pixels of the hole in different completions, the best first.
        photo: the photo.
        hole: bool (H, W), the pixels that were filled.
        faces: the faces that the hole touches.
        sources: origin of the hole's pixels -> bool (H, W), not empty: "face 1", "face 2" and so on for generated
            faces; "surroundings" for scratches and areas outside all faces, filled by a classical method.
        context: final context loss, averaged over the faces.
        hidden: number of faces that were found only in the original photo, by looking under the hole.
        unseen: whether a face has no visible pixels, so that it was generated at random.
        stopped_s: the time limit in seconds, if it ended the search; else None.
        search_s: duration of the search in seconds.
        details: for each detailed face in `sources`, where its fine structure comes from.
        remarks: what was found in the photo, the mask and reference photos, where that is not obvious.
    """

    fills: tuple[NDArray[np.uint8], ...]
    photo: Photo
    hole: NDArray[np.bool_]
    faces: tuple[Alignment, ...] = ()
    sources: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    context: float = 0.0
    hidden: int = 0
    unseen: bool = False
    stopped_s: float | None = None
    search_s: float = 0.0
    details: dict[str, Detail] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @cached_property
    def candidates(self) -> tuple[NDArray[np.uint8], ...]:
        """Different completions, the best first: uint8 (H, W, 3) each, equal to the photo outside the hole."""
        return tuple(filled(self.photo.pixels, self.hole, fill) for fill in self.fills)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The best completion: uint8 (H, W, 3)."""
        return self.candidates[0]

    @property
    def image(self) -> Image.Image:
        """The best completion in the photo's mode (L, LA, RGB or RGBA), with its colour profile."""
        image = merge(self.fills[0], self.photo, self.hole)
        if self.photo.icc_profile:
            image.info["icc_profile"] = self.photo.icc_profile
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the best completion with the photo's metadata, in the format of the suffix.

        Raises:
            PhotoError: the suffix is not supported, or the file cannot be written.
        """
        write_photo(Path(path), self.fills[0], self.photo, self.hole)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        height, width = self.hole.shape
        return f"<Completion of a photo of {width}x{height}: {', '.join(self.sources)}>"

    def _repr_png_(self) -> bytes:
        """Show the image in a notebook."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the hole by its origin, see `sources`."""
        size = int(self.hole.sum())
        return {name: float(part.sum() / size) for name, part in self.sources.items()}

    @property
    def figures(self) -> dict[str, float]:
        """Figures for reports: hole_share, faces, outside_share, context_loss, search_seconds."""
        return {
            "hole_share": float(self.hole.mean()),
            "faces": len(self.sources) - ("surroundings" in self.sources),
            "outside_share": self.shares.get("surroundings", 0.0),
            "context_loss": self.context,
            "search_seconds": self.search_s,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user, as sentences without a full stop."""
        notes = []
        if self.unseen:
            notes.append("a face has no visible pixels and was generated at random")
        if self.stopped_s is not None:
            notes.append(f"the search was stopped after {self.stopped_s:.3g} s; the best result so far was used")
        if self.hidden == 1:
            notes.append("a face was found only in the original photo; its position was used, not the colours")
        elif self.hidden:
            found = f"{self.hidden} faces were found only in the original photo"
            notes.append(f"{found}; their positions were used, not the colours")
        if outside := self.shares.get("surroundings"):
            notes.append(f"{outside:.0%} of the hole was filled from the surroundings instead of a generated face")
        for source, count in Counter(detail.source for detail in self.details.values()).items():
            notes.append(f"{count} {'face has its' if count == 1 else 'faces have their'} detail from {source}")
        return (*notes, *self.remarks)

"""Settings of the aligner. Imports nothing heavy, because `--help` reads the defaults."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from align.settings import Range, check

Faces = Literal["largest", "all", "single"]


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class AlignOptions:
    """Settings of `align.folder.align_folder`.

    Attributes:
        template: alignment template, a name in `align.template.TEMPLATES`.
        size: side of the crops in pixels.
        faces: "largest" face of each photo, "all" of them, or "single" to skip photos with several.
        upsample: how often to double the photo's size, while no face is found with confidence.
        overwrite: align photos again whose crops exist.
        missing: folder for copies of the photos without a face; None for no copies.
        jobs: number of workers.
        engine: where the workers run, see `align.workers.spread`.
    """

    template: str = "face"
    size: Annotated[int, Range(1, 4096)] = 64
    faces: Faces = "largest"
    upsample: Annotated[int, Range(0, 8)] = 1
    overwrite: bool = False
    missing: Path | None = None
    jobs: Annotated[int, Range(1, 1024)] = field(default_factory=cores)
    engine: Literal["processes", "ray"] = "processes"

    def __post_init__(self) -> None:
        check(self)

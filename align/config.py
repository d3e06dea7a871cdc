"""Options of the aligner; imports nothing heavy, since `--help` reads the defaults."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class AlignOptions:
    """How `align.folder.align_folder` works.

    Attributes:
        template: a name in align.template.TEMPLATES.
        size: side of the crops in pixels.
        faces: of a photo with several faces take the largest, or all, or none ("single").
        upsample: how often a photo may be doubled in size, tried only while no face is found clearly.
        overwrite: do photos again whose crops exist.
        missing: folder for copies of the photos without a face.
        jobs: workers.
        engine: where they work, see align.workers.
    """

    template: str = "face"
    size: int = 64
    faces: Literal["largest", "all", "single"] = "largest"
    upsample: int = 1
    overwrite: bool = False
    missing: Path | None = None
    jobs: int = field(default_factory=cores)
    engine: Literal["processes", "ray"] = "processes"

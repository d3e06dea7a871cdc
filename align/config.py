"""Settings of the aligner. Imports nothing heavy, because `--help` reads the defaults."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from align.settings import Option, Range, check
from align.template import TemplateName

Faces = Literal["largest", "all", "single"]
Backend = Annotated[
    Literal["processes", "ray"],
    "where the workers run: processes on this machine, or ray for the cluster at RAY_ADDRESS (if unset, Ray on this "
    "machine); all machines need the same files under the same paths",
]


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class AlignOptions:
    """Settings of `align.folder.align_folder`; their help texts describe them."""

    template: Annotated[TemplateName, "alignment template: the target positions of the landmarks"] = "face"
    size: Annotated[int, Range(1, 4096), "side of the crops in pixels"] = 64
    faces: Annotated[
        Faces,
        "which faces to cut out: the largest of each photo, all of them, or the only one; single skips photos with "
        "several faces",
    ] = "largest"
    upsample: Annotated[
        int,
        Range(0, 8),
        "how often to double a photo's size while no face is found with confidence",
        Option(metavar="N"),
    ] = 1
    missing: Annotated[Path | None, "folder for copies of the photos without a face", Option(metavar="FOLDER")] = None
    overwrite: Annotated[bool, "align photos again whose crops exist (default: skip them)"] = False
    jobs: Annotated[int, Range(1, 1024), "number of workers; all cores if not given"] = field(default_factory=cores)
    backend: Backend = "processes"

    def __post_init__(self) -> None:
        check(self)

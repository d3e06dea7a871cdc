"""The weights that come with the program: which file is which, and whether it is still what it was."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


class WeightsFileError(Exception):
    """An embedded weights file that is absent or not what was published."""


@dataclass(frozen=True)
class Entry:
    """One embedded file.

    Attributes:
        file: its name in this folder.
        sha256: of the whole file.
        size: side of the images in pixels.
        template: alignment template of the faces that it was trained on.
        licence: what it may be used for.
    """

    file: str
    sha256: str
    size: int
    template: str
    licence: str


REGISTRY = {
    "faces-64": Entry(
        file="faces-64.safetensors",
        sha256="3d2d6be0c5e72fb4c1a0ff3932f6f225c925e218d1b3380178f7d949d5c6f57c",
        size=64,
        template="face",
        licence="non-commercial research",
    ),
}
DEFAULT = "faces-64"
VERSION = "0.2.0"


def resolve(name_or_file: str) -> Path:
    """What people give as --weights: a name in the registry, or the path of a file of their own."""
    return path(name_or_file) if name_or_file in REGISTRY or not Path(name_or_file).suffix else Path(name_or_file)


def path(name: str = DEFAULT) -> Path:
    """The file of embedded weights, its sha256 checked.

    Raises:
        WeightsFileError: the name is unknown, or the file is absent or changed.
    """
    if name not in REGISTRY:
        raise WeightsFileError(f"there are no weights named {name!r}, only: {', '.join(REGISTRY)}; or give a file")
    entry = REGISTRY[name]
    file = Path(__file__).parent / entry.file
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsFileError(f"the weights {file} cannot be read ({error.strerror}); install again") from error
    if found != entry.sha256:
        raise WeightsFileError(f"the weights {file} have sha256 {found}, expected {entry.sha256}; install again")
    return file

"""Registry of the bundled weights, verified by SHA-256."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


class WeightsFileError(Exception):
    """A bundled weights file is unknown, missing or altered."""


@dataclass(frozen=True)
class Entry:
    """A bundled weights file.

    Attributes:
        file: its name in this folder.
        sha256: SHA-256 of the file, in hex.
        size: side of the images in pixels.
        template: alignment template of the training faces, see `align.template`.
        licence: permitted use.
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
    "faces-128": Entry(
        file="faces-128.safetensors",
        sha256="f85162b0bafe1450d75ecafda3e214aff29df934dd2a3e075b4b936b8277dcf4",
        size=128,
        template="face",
        licence="non-commercial research",
    ),
}
DEFAULT = "faces-64"
AUTO = "auto"  # all weights in the registry: each face uses those that fit its size
VERSION = __version__ = "0.2.0"


def resolve(name_or_file: str) -> Path:
    """Return the path of a weights file, given by path or, if without a suffix, by name; see `path` for errors."""
    return path(name_or_file) if name_or_file in REGISTRY or not Path(name_or_file).suffix else Path(name_or_file)


def path(name: str = DEFAULT) -> Path:
    """Return the file of bundled weights after checking its SHA-256.

    Raises:
        WeightsFileError: the name is not in the registry, or the file is missing or altered.
    """
    if name not in REGISTRY:
        raise WeightsFileError(f"no weights named {name!r}; expected {', '.join(REGISTRY)} or a weights file")
    entry = REGISTRY[name]
    file = Path(__file__).parent / entry.file
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsFileError(f"{file} cannot be read ({error.strerror}); reinstall dcgan-completion") from error
    if found != entry.sha256:
        raise WeightsFileError(f"{file} has sha256 {found}, expected {entry.sha256}; reinstall dcgan-completion")
    return file

"""Registry of the bundled weights, verified by SHA-256."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


class WeightsFileError(Exception):
    """A file of bundled weights is unknown, missing or altered."""


@dataclass(frozen=True)
class Entry:
    """Bundled weights: NAME.safetensors has all networks, NAME.onnx those that completion needs.

    Attributes:
        sha256: suffix of each file -> its SHA-256, in hex.
        size: side of the images in pixels.
        template: alignment template of the training faces, see `align.template`.
        licence: permitted use.
    """

    sha256: dict[str, str]
    size: int
    template: str
    licence: str


REGISTRY = {
    "faces-64": Entry(
        sha256={
            ".safetensors": "3d2d6be0c5e72fb4c1a0ff3932f6f225c925e218d1b3380178f7d949d5c6f57c",
            ".onnx": "d3c80f9cd40766093d0152a357d9ec24799a5a27f9ac03134b64151232a41800",
        },
        size=64,
        template="face",
        licence="non-commercial research",
    ),
    "faces-128": Entry(
        sha256={
            ".safetensors": "f85162b0bafe1450d75ecafda3e214aff29df934dd2a3e075b4b936b8277dcf4",
            ".onnx": "693880f998855340e5112f9ec67d446494d5105349631681ec28b954b01212bc",
        },
        size=128,
        template="face",
        licence="non-commercial research",
    ),
}
# Finds the eyes of partly hidden faces; see completion.refine.
LOCATOR = "locator.onnx"
_LOCATOR_SHA256 = "6dcca5cc1298631caa1c00088bd8722ac6347037edad91f0117754b4064f81f5"
DEFAULT = "faces-64"
AUTO = "auto"  # all weights in the registry: each face uses those that fit its size
VERSION = __version__ = "0.2.0"


def resolve(name_or_file: str, suffix: str = ".safetensors", verify: bool = True) -> Path:
    """Return the path of a weights file, given by path or, if without a suffix, by name; see `path` for errors."""
    if name_or_file in REGISTRY or not Path(name_or_file).suffix:
        return path(name_or_file, suffix, verify)
    return Path(name_or_file) if suffix == ".safetensors" else Path(name_or_file).with_suffix(suffix)


def path(name: str = DEFAULT, suffix: str = ".safetensors", verify: bool = True) -> Path:
    """Return a file of bundled weights after checking its SHA-256.

    Args:
        name: a name in the registry.
        suffix: .safetensors or .onnx.
        verify: check more than that the file exists.
    Raises:
        WeightsFileError: the name is not in the registry, or the file is missing or altered.
    """
    if name not in REGISTRY:
        raise WeightsFileError(f"no weights named {name!r}; expected {', '.join(REGISTRY)} or a weights file")
    return _bundled(name + suffix, REGISTRY[name].sha256[suffix], verify)


def locator() -> Path:
    """Return the file of the locator after checking its SHA-256; errors as of `path`."""
    return _bundled(LOCATOR, _LOCATOR_SHA256)


def _bundled(name: str, expected: str, verify: bool = True) -> Path:
    file = Path(__file__).parent / name
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest() if verify else expected
    except OSError as error:
        raise WeightsFileError(f"{file} cannot be read ({error.strerror}); reinstall dcgan-completion") from error
    if found != expected:
        raise WeightsFileError(f"{file} has sha256 {found}, expected {expected}; reinstall dcgan-completion")
    return file

"""The base class of every public error, and the errors of this package.

InputError
├── BackendError          the backend for parallel work is not installed
├── ConfigError           a setting is invalid
├── DeviceError           the requested device is unknown or absent
├── LandmarkModelError    dlib or its landmark file is missing or broken (exit code 1)
├── MaskError             a hole cannot be made from a name, a file or a photo
├── NoFaceError           a photo has no face
├── PhotoError            a photo or a folder cannot be used
├── WorkerError           a worker process died (exit code 1)
├── dcgan
│   ├── CheckpointError   a checkpoint cannot be used
│   ├── DatasetError      a folder or file of faces cannot be used
│   ├── EmbeddingError    the network of face embeddings is missing or broken
│   ├── EvaluationError   a generator cannot be measured
│   ├── OutputError       the networks give NaN
│   ├── TrainingError     a training run cannot start or go on
│   └── WeightsError      a weights file cannot be used
├── completion
│   └── BenchmarkError    methods cannot be compared
└── ui
    ├── ServiceError      a visitor's request cannot be served
    └── TooSlowError      work on a photo takes too long
"""

from collections.abc import Collection
from difflib import get_close_matches


class InputError(Exception):
    """An input or a dependency cannot be used; the message says what was found, what was expected and what to do.

    Attributes:
        exit_code: exit code of a command that fails with this error.
    """

    exit_code = 2


class BackendError(InputError):
    """The backend for parallel work is not installed."""


class ConfigError(InputError):
    """A setting is invalid."""


class DeviceError(InputError):
    """The requested device is unknown or absent."""


class LandmarkModelError(InputError):
    """dlib or one of its landmark files is missing or broken."""

    exit_code = 1


class MaskError(InputError):
    """A hole cannot be created from the given name, file or photo."""


class NoFaceError(InputError):
    """No face was found in a photo."""


class PhotoError(InputError):
    """A photo cannot be read or written, or a folder cannot be used. The photo's own path is not in the message."""


class WorkerError(InputError):
    """A worker process died."""

    exit_code = 1


def hint(wrong: str, names: Collection[str]) -> str:
    """Return "did you mean 'X'?" with the most similar of the names or, if none is similar, the list of the names."""
    similar = get_close_matches(wrong.lower(), names, n=1)
    return f"did you mean {similar[0]!r}?" if similar else f"expected one of {', '.join(names)}"

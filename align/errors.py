"""The errors of all packages derive from InputError; those of align are defined here.

InputError
├── PhotoError            a photo or a folder cannot be used
├── NoFaceError           no face in a photo
├── EngineError           an engine for parallel work is not installed
├── LandmarkModelError    exit code 1
└── WorkerError           exit code 1
"""


class InputError(Exception):
    """Something the program was given, or needs, cannot be used: says what was found, what was expected, what to do.

    Attributes:
        exit_code: of a command that ends with this error.
    """

    exit_code = 2


class PhotoError(InputError):
    """A photo cannot be read or written, or a folder not be used; says why, without the photo's path."""


class NoFaceError(InputError):
    """No face was found in a photo."""


class LandmarkModelError(InputError):
    """dlib, or one of the files that it needs, is absent or broken."""

    exit_code = 1


class WorkerError(InputError):
    """A worker process died."""

    exit_code = 1


class EngineError(InputError):
    """Ray was asked for and is not installed."""

"""Face alignment: find the faces in photos and cut them out upright and at one size. Needs dlib but not torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weights import VERSION as __version__

if TYPE_CHECKING:
    from align.crop import AlignedFace, align_faces
    from align.errors import InputError, NoFaceError, PhotoError
    from align.photo import Photo
    from align.warp import Alignment

__all__ = ["AlignedFace", "Alignment", "InputError", "NoFaceError", "Photo", "PhotoError", "__version__", "align_faces"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that --help starts without OpenCV.
    modules = {"AlignedFace": "crop", "align_faces": "crop", "Photo": "photo", "Alignment": "warp"}
    if name in __all__:
        return getattr(import_module(f"align.{modules.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

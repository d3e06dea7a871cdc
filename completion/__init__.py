"""Fill holes in photos of faces: a `FaceCompleter` turns a photo and a mask into a `Completion`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weights import VERSION as __version__

if TYPE_CHECKING:
    from completion.completer import FaceCompleter
    from completion.config import FillOptions
    from completion.damage import find_damage
    from completion.result import Completion
    from completion.step import Step

__all__ = ["Completion", "FaceCompleter", "FillOptions", "Step", "__version__", "find_damage"]
_MODULES = {
    "Completion": "result",
    "FaceCompleter": "completer",
    "FillOptions": "config",
    "Step": "step",
    "find_damage": "damage",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: OpenCV and ONNX Runtime are slow to load.
    if name in _MODULES:
        return getattr(import_module(f"completion.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

"""Fill holes in photos of faces: a `FaceCompleter` turns a photo and a mask into a `Completion`."""

from typing import TYPE_CHECKING, Any

from weights import VERSION as __version__

if TYPE_CHECKING:
    from completion.complete import Completion, FaceCompleter, SearchStep

__all__ = ["Completion", "FaceCompleter", "SearchStep", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on first use: OpenCV and ONNX Runtime are slow to load.
    if name in __all__:
        from completion import complete

        return getattr(complete, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

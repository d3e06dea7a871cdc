"""Fill holes in photos of faces: `FaceCompleter` completes photos in memory, one `Completion` each."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from completion.complete import Completion, FaceCompleter

__all__ = ["Completion", "FaceCompleter"]


def __getattr__(name: str) -> Any:
    # Late, so that `import completion` does not wait for torch.
    if name in __all__:
        from completion import complete

        return getattr(complete, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Face alignment: find the faces in photos and cut them out upright and at one size. Needs dlib but not torch."""

from typing import TYPE_CHECKING, Any

from weights import VERSION as __version__

if TYPE_CHECKING:
    from align.crop import AlignedFace, align_faces

__all__ = ["AlignedFace", "__version__", "align_faces"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that --help starts without OpenCV.
    if name in __all__:
        from align import crop

        return getattr(crop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

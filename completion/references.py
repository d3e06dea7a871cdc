"""Find the person of a photo in reference photos."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align.embedding import embed
from align.errors import PhotoError
from align.files import list_photos
from align.landmarks import find_faces, predict_aligned
from align.photo import MAX_PIXELS, digest, read_photo
from align.resize import reduced, reduction, scale_to
from align.template import TEMPLATES
from align.warp import Alignment, fit, invert, transform
from completion.detail import REFERENCE_LIMIT, Portrait, Warp, span
from completion.tone import grey

_SEARCH_PX = 700  # faces are searched for in copies of this size
_LEAST_SPAN_PX = 25
# Largest distance between the embeddings of a completed face and one in a folder: in 99 searches among 66 faces, none
# within it was another person.
DISTANCE = 0.55
_ALIKE = 0.08  # faces this much farther than the nearest are as good
_MOUTH_ALIKE = 0.08  # so are mouths open by as much, in widths of the mouth
_BORDER = 1.5  # of a reference that is kept around the face, in spans
_EMBEDDED_PX = 150
_KEPT_BYTES = 100_000_000  # of faces that are remembered


@dataclass(frozen=True, eq=False)
class Reference:
    """A face in a reference photo.

    Attributes:
        portrait: the face.
        embedding: float64 (128,).
        named: whether its file was named, not found in a folder: then it is believed to show the person.
    """

    portrait: Portrait
    embedding: NDArray[np.float64]
    named: bool = True

    def in_grey(self) -> "Reference":
        """The face in luminance, for a photo of one tone."""
        return replace(self, portrait=replace(self.portrait, pixels=grey(self.portrait.pixels)))


def find_in(file: Path, max_pixels: int = MAX_PIXELS) -> list[Reference]:
    """Find the faces in a photo; raises PhotoError, see `align.photo.read_photo`."""
    return _faces(file.name, read_photo(file, max_pixels).pixels)


class References:
    """Finds the faces in reference photos, and remembers them by the digest of the file; threads may share it.

    Args:
        finds: finds the faces in a file.
    """

    def __init__(self, finds: Callable[[Path], list[Reference]] = find_in) -> None:
        self._finds = finds
        self._found: dict[str, list[Reference]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["References"], tuple[()]]:
        return References, ()  # another process finds its own

    def find(self, paths: Sequence[Path], photo_sha256: str) -> tuple[list[Reference], list[str]]:
        """Find all faces in files and folders.

        Args:
            paths: the files and folders.
            photo_sha256: digest of the photo to complete, which is no reference of its own.
        Returns:
            The faces, and remarks on what cannot be used.
        """
        references, remarks = [], []
        for path in paths:
            named = not path.is_dir()
            try:
                files = [path] if named else list_photos(path)
            except PhotoError as error:
                remarks.append(f"the reference {path} cannot be used: {error}")
                continue
            for file in files:
                try:
                    sha256 = digest(file)
                    found = [] if sha256 == photo_sha256 else self.faces_in(file, sha256)
                except PhotoError as error:
                    remarks.append(f"the reference {file} cannot be used: {error}")
                    continue
                references += [replace(each, named=named) for each in found]
                if named and not found and sha256 != photo_sha256:
                    remarks.append(f"no face was found in the reference {file}")
        return references, remarks

    def faces_in(self, file: Path, sha256: str) -> list[Reference]:
        """Find the faces in a file with this digest; raises PhotoError if it cannot be read."""
        with self._lock:
            if sha256 in self._found:
                return self._found[sha256]
        found = self._finds(file)
        with self._lock:
            self._found[sha256] = found
            while sum(each.portrait.pixels.nbytes for faces in self._found.values() for each in faces) > _KEPT_BYTES:
                del self._found[next(iter(self._found))]
        return found


def choose(
    references: Sequence[Reference],
    photo: NDArray[np.uint8],
    face: Alignment,
    landmarks: NDArray[np.float64],
    part: NDArray[np.bool_],
) -> tuple[list[Portrait], str]:
    """Choose the references that show the person of a face, the best first.

    The person is chosen first, and only then the pose: a score of both chooses other people.

    Args:
        references: faces.
        photo: uint8 (H, W, 3), the completed photo.
        face: position of the face.
        landmarks: float64 (68, 2), those of the face.
        part: bool (H, W), the part of the hole that belongs to the face.
    Returns:
        The portraits, and why there is none.
    """
    if not references:
        return [], ""
    here = embed(photo, face)
    pairs = [(each, float(np.linalg.norm(each.embedding - here))) for each in references]
    known = [(each, distance) for each, distance in pairs if each.named or distance <= DISTANCE]
    if not known:
        nearest, least = min(pairs, key=lambda pair: pair[1])
        where = f"the nearest face is in {nearest.portrait.name}, at a distance of {least:.2f}"
        return [], f"no reference was used: {where}, and the limit is {DISTANCE}; name that file to use it"
    within = min(distance for _, distance in known) + _ALIKE
    alike = [(each, distance) for each, distance in known if distance <= within]
    misfits = {each.portrait: Warp(landmarks, each.portrait.landmarks).misfit for each, _ in alike}
    fitting = [(each, distance) for each, distance in alike if misfits[each.portrait] <= REFERENCE_LIMIT]
    if not fitting:
        portrait = min(misfits, key=lambda each: misfits[each])
        what = f"{portrait.name} shows the face in another pose (misfit {misfits[portrait]:.2f}"
        return [], f"no reference was used: {what}, limit {REFERENCE_LIMIT})"
    mouth = np.round(landmarks[48:60]).astype(int).clip(0, np.array(part.shape)[::-1] - 1)
    hides_mouth = bool(part[mouth[:, 1], mouth[:, 0]].any())

    def rank(pair: tuple[Reference, float]) -> tuple[float, float, str]:
        gap = abs(_opening(pair[0].portrait.landmarks) - _opening(landmarks)) if hides_mouth else 0.0
        return max(gap, _MOUTH_ALIKE), pair[1], pair[0].portrait.name

    return [each.portrait for each, _ in sorted(fitting, key=rank)], ""


def _opening(landmarks: NDArray[np.float64]) -> float:
    """Height of the gap between the lips, in widths of the mouth."""
    lips = landmarks[61:64] - landmarks[[67, 66, 65]]
    return float(np.linalg.norm(lips, axis=1).mean() / max(1.0, float(np.linalg.norm(landmarks[54] - landmarks[48]))))


def _faces(name: str, photo: NDArray[np.uint8]) -> list[Reference]:
    """Find the faces of a photo that are large enough."""
    scale = scale_to(photo.shape, _SEARCH_PX)
    found = []
    for points in find_faces(reduced(photo, scale)):
        try:
            face = fit(TEMPLATES["face"], transform(invert(reduction(scale)), points), _EMBEDDED_PX)
        except ValueError:  # all landmarks on one point
            continue
        landmarks = predict_aligned(photo, face)
        size = span(landmarks)
        if size < _LEAST_SPAN_PX:
            continue
        low = np.maximum(0, np.floor(landmarks.min(axis=0) - _BORDER * size)).astype(int)
        high = np.ceil(landmarks.max(axis=0) + _BORDER * size).astype(int) + 1
        part = np.ascontiguousarray(photo[low[1] : high[1], low[0] : high[0]])
        found.append(Reference(Portrait(name, part, landmarks - low), embed(photo, face)))
    return found

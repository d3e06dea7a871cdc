"""Photos and aligned faces to measure on, and the holes that are drawn on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from align.errors import PhotoError
from align.files import list_photos
from align.landmarks import find_landmarks
from align.locate import locate
from align.photo import read_photo
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion.benchmark.config import HOLES, BenchmarkOptions
from completion.benchmark.methods import BenchmarkError
from completion.benchmark.tones import COLOUR, toned
from dcgan.dataset import load_faces
from dcgan.holes import named_hole, needs_landmarks

_SIDES = ("left", "right", "top", "bottom")
_CROP_PX = 150  # side of the crops of whole photos for face embeddings and the detector
_VIEW_PX, _WHOLE_VIEW_PX = 192, 384  # sides of the pictures in a sheet
_SCRATCHES = 5


@dataclass(frozen=True, eq=False)
class Sample:
    """A photo and its face; an aligned face is a photo whose face is given.

    Attributes:
        index: position in the order of the benchmark.
        name: the photo's file name; for an aligned face, its position in the folder.
        pixels: uint8 (H, W, 3).
        face: maps the photo to the crop.
        landmarks: float64 (68, 2), (x, y) in the photo's pixels; None for an aligned face, where some holes need none.
        tone: that of the pixels; "colour" for the photo as it is.
        sha256: digest of the photo's file; empty for an aligned face.
    """

    index: int
    name: str
    pixels: NDArray[np.uint8]
    face: Alignment
    landmarks: NDArray[np.float64] | None = None
    tone: str = COLOUR
    sha256: str = ""

    @property
    def crop_px(self) -> float:
        """Side of the face's crop in pixels of the photo."""
        return self.face.size / self.face.scale

    def at(self, shares: Any) -> NDArray[np.float64]:
        """Map points relative to the crop's side to pixels of the photo: (N, 2)."""
        return transform(self.face.inverse, np.array(shares, dtype=np.float64) * self.face.size)

    def view(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crop the face for a sheet: uint8 (S, S, 3), larger for whole photos."""
        return self.face.resized(_VIEW_PX if self.landmarks is None else _WHOLE_VIEW_PX).warp(photo)


def read_faces(folder: Path, size: int, options: BenchmarkOptions, report: Callable[[str], None]) -> list[Sample]:
    """Read up to `options.limit` aligned faces of a folder.

    Raises:
        DatasetError: the faces cannot be used.
    """
    faces, whole = load_faces(folder, size, report), Alignment.identity(size)
    chosen = subsample(len(faces), options)
    return [Sample(index, str(position), faces[position], whole) for index, position in enumerate(chosen)]


def read_photos(folders: Sequence[Path], options: BenchmarkOptions, report: Callable[[str], None]) -> list[Sample]:
    """Read up to `options.limit` photos of folders, recursively, and find their largest faces.

    Args:
        folders: searched recursively.
        options: limit, seed and tones.
        report: called with a message for each photo that is unusable or shows no face.
    Raises:
        BenchmarkError: no photo has a face.
    """
    paths = [path for folder in folders for path in list_photos(folder)]
    samples: list[Sample] = []
    for path in [paths[position] for position in subsample(len(paths), options)]:
        try:
            photo = read_photo(path)
            sample = find_sample(len(samples), path.name, photo.pixels)
        except PhotoError as error:
            report(f"{path}: {error}")
            continue
        if sample is None:
            report(f"{path}: no face was found")
        else:
            sample = replace(sample, sha256=photo.sha256)
            tones = (COLOUR, *options.tones)
            samples += [replace(sample, pixels=toned(photo.pixels, tone), tone=tone) for tone in tones]
    if not samples:
        raise BenchmarkError(f"found no face in {', '.join(map(str, folders))}; give folders of photos with faces")
    return samples


def find_sample(index: int, name: str, pixels: NDArray[np.uint8]) -> Sample | None:
    """Find the largest face of a photo and its 68 landmarks; None if there is no face."""
    for face in locate(pixels, TEMPLATES["face"], _CROP_PX)[:1]:
        landmarks = find_landmarks(pixels, face)
        if landmarks is not None:
            return Sample(index, name, pixels, face, transform(face.inverse, landmarks))
    return None


def subsample(count: int, options: BenchmarkOptions) -> list[int]:
    """Select up to `options.limit` of `count` positions, evenly spaced, shuffled so that any first are a sample."""
    chosen = np.linspace(0, count - 1, min(options.limit, count)).round().astype(int)
    return np.random.default_rng(options.seed).permutation(chosen).tolist()


def draw_hole(name: str, sample: Sample, seed: int = 0) -> NDArray[np.bool_] | None:
    """Draw a hole on an aligned face.

    Args:
        name: a name in HOLES.
        sample: the face; its pixels are read only to find landmarks.
        seed: seed of random holes, together with the index of the face.
    Returns:
        bool (S, S); None if the landmarks that the hole needs are not found.
    Raises:
        LandmarkModelError: dlib or its model files are missing.
    """
    mask = _SIDES[sample.index % 4] if name == "half" else HOLES[name]
    landmarks = find_landmarks(sample.pixels, sample.face) if needs_landmarks(mask) else None
    if needs_landmarks(mask) and landmarks is None:
        return None
    rng = np.random.default_rng([seed, sample.index, list(HOLES).index(name)])
    return named_hole(mask, sample.face.size, rng, landmarks)


def draw_whole_hole(name: str, sample: Sample, seed: int = 0) -> NDArray[np.bool_]:
    """Draw a hole over a part of a face at the photo's resolution.

    Args:
        name: "middle", an ellipse from the brows to the upper lip; "eye", one eye with its lids; "mouth"; "half", the
            left or right half of the crop; "scratches", thin strokes across the crop.
        sample: the photo and its face.
        seed: seed of the choice of eye and half, and of the scratches.
    Returns:
        bool (H, W), True = fill this.
    """
    rng = np.random.default_rng([seed, *sample.name.encode()])
    points = sample.landmarks
    assert points is not None
    mask = np.zeros(sample.pixels.shape[:2], dtype=np.uint8)
    apart = points[42:48].mean(axis=0) - points[36:42].mean(axis=0)  # from eye to eye
    tilt = float(np.degrees(np.arctan2(apart[1], apart[0])))

    def length(way: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(way))

    def ellipse(centre: NDArray[np.float64], width: float, height: float) -> None:
        cv2.ellipse(mask, ((float(centre[0]), float(centre[1])), (width, height), tilt), 255, -1)

    if name == "middle":
        brows, lip = points[17:27].mean(axis=0), points[51]
        ellipse((brows + lip) / 2, 1.35 * length(apart), length(lip - brows))
    elif name == "eye":
        eye = points[36:42] if rng.random() < 0.5 else points[42:48]
        width = length(eye[3] - eye[0])
        ellipse(eye.mean(axis=0), 1.7 * width, 1.2 * width)
    elif name == "mouth":
        width, height = length(points[54] - points[48]), length(points[57] - points[51])
        ellipse(points[48:60].mean(axis=0), 1.3 * width, height + 0.3 * width)
    elif name == "half":
        left = 0.0 if rng.random() < 0.5 else 0.5
        corners = sample.at([(left, 0), (left + 0.5, 0), (left + 0.5, 1), (left, 1)])
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    else:
        for _ in range(_SCRATCHES):
            across = rng.random() < 0.5
            ends = np.array([(0.1, rng.uniform(0.2, 0.9)), (0.9, rng.uniform(0.2, 0.9))])
            path = np.vstack([ends[:1], ends.mean(axis=0) + rng.normal(0, 0.05, 2), ends[1:]])
            path = sample.at(path if across else path[:, ::-1])
            width_px = max(2, round(0.02 * sample.crop_px))
            cv2.polylines(mask, [np.round(path).astype(np.int32)], False, 255, width_px)
    return mask > 0

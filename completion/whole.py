"""Completion measured on whole photos: holes drawn at the photo's resolution, figures of what a person sees."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from align.landmarks import NoFaceError, find_faces
from align.photo import PhotoError, list_photos, read_photo
from align.template import TEMPLATES
from align.warp import fit, warp
from completion import place
from completion.blend import inpaint
from completion.complete import Completion, FaceCompleter
from dcgan.checkpoint import Weights
from dcgan.descriptors import describe
from dcgan.metrics import psnr

HOLES = ("middle", "eye", "mouth", "half", "scratches")
GROUPS = ((0, 100), (100, 180), (180, 320), (320, 10**6))  # sides of the face crop in pixels
_CHIP_PX = 150  # of the crop that the embedding is taken from
_VIEW_PX, _VIEW_SHARE = 256, 0.5  # of the picture that the face detector sees, and the crop's share of its side
_TELEA_RADIUS_PX = 3
_STROKES = 5
_BLUR_PX = 1.5  # standard deviation: grain is no detail

Method = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Subject:
    """A photo and its largest face.

    Attributes:
        name: the photo's path below its folder.
        pixels: uint8 (H, W, 3).
        chip: float64 (2, 3), the photo to a crop of 150 px of the template "face".
        landmarks: float64 (68, 2), (x, y) in the photo's pixels.
    """

    name: str
    pixels: NDArray[np.uint8]
    chip: NDArray[np.float64]
    landmarks: NDArray[np.float64]

    @property
    def crop_px(self) -> float:
        """The side of the face's crop in the photo's pixels."""
        return _CHIP_PX / float(np.linalg.norm(self.chip[:, :2], ord=2))


@dataclass(frozen=True)
class Row:
    """What one method made of one hole.

    Attributes:
        photo: the photo's name.
        crop_px: side of its face's crop.
        hole: a name in HOLES.
        method: the name of the method.
        hole_psnr: in dB, over the pixels of the hole.
        detail: mean absolute Laplacian after a blur of 1.5 px, completed over true.
        colour: distance of the mean colours inside the hole in OpenCV's 8-bit Lab.
        rim: mean absolute difference across the hole's rim, completed over true.
        identity: distance of the face embeddings.
        found: dlib's detector finds a face.
        located: the method found the face that it was to complete.
        cpu_s: processor time.
        pixels: uint8 (H, W, 3), the completed photo.
    """

    photo: str
    crop_px: float
    hole: str
    method: str
    hole_psnr: float
    detail: float
    colour: float
    rim: float
    identity: float
    found: bool
    located: bool
    cpu_s: float
    pixels: NDArray[np.uint8]


def read_subjects(folders: Sequence[Path], report: Callable[[str], None]) -> list[Subject]:
    """Every photo with a face in some folders; those that cannot be used are reported."""
    subjects = []
    for path in [path for folder in folders for path in list_photos(folder)]:
        try:
            pixels = read_photo(path).pixels
        except PhotoError as error:
            report(f"{path}: {error}")
            continue
        subject = find_subject(str(path.name), pixels)
        if subject is None:
            report(f"{path}: no face was found")
        else:
            subjects.append(subject)
    return subjects


def find_subject(name: str, pixels: NDArray[np.uint8]) -> Subject | None:
    """The largest face of a photo with its 68 landmarks; None without any."""
    matrices = place.find_matrices(pixels, TEMPLATES["face"], _CHIP_PX)
    if not matrices:
        return None
    in_crop = place.features(pixels, matrices[0], _CHIP_PX)
    if in_crop is None:
        return None
    linear = np.linalg.inv(matrices[0][:, :2])
    return Subject(name, pixels, matrices[0], (in_crop - matrices[0][:, 2]) @ linear.T)


def draw_hole(name: str, subject: Subject, seed: int = 0) -> NDArray[np.bool_]:
    """A hole over a part of the face, at the photo's resolution: bool (H, W).

    Args:
        name: "middle", an ellipse from the brows to the upper lip; "eye", one eye and its lids; "mouth"; "half", one
            half of the face's crop; "scratches", thin strokes across the crop.
        subject: the photo and its face.
        seed: which eye, which half, where the scratches run.
    """
    rng = np.random.default_rng([seed, *subject.name.encode()])
    points, side = subject.landmarks, subject.crop_px
    mask = np.zeros(subject.pixels.shape[:2], dtype=np.uint8)
    right = (points[42:48].mean(axis=0) - points[36:42].mean(axis=0)) / 2  # half of the distance of the eyes
    tilt = float(np.degrees(np.arctan2(right[1], right[0])))

    def ellipse(centre: NDArray[np.float64], across: float, along: float) -> None:
        box = tuple(map(float, centre)), (2 * across, 2 * along), tilt
        cv2.ellipse(mask, box, 255, -1, cv2.LINE_AA)

    if name == "middle":
        brows, lip = points[17:27].mean(axis=0), points[51]
        ellipse((brows + lip) / 2, float(np.linalg.norm(right)) * 1.35, float(np.linalg.norm(lip - brows)) / 2)
    elif name == "eye":
        eye = points[36:42] if rng.random() < 0.5 else points[42:48]
        width = float(np.ptp(eye, axis=0).max())
        ellipse(eye.mean(axis=0), 0.85 * width, 0.6 * width)
    elif name == "mouth":
        mouth = points[48:60]
        width = float(np.linalg.norm(mouth[6] - mouth[0]))
        height = float(np.linalg.norm(mouth[9] - mouth[3]))
        ellipse(mouth.mean(axis=0), 0.65 * width, 0.5 * height + 0.15 * width)
    elif name == "half":
        start = 0.0 if rng.random() < 0.5 else 0.5
        corners = _in_photo(subject, np.array([[start, 0], [start + 0.5, 0], [start + 0.5, 1], [start, 1]]))
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255, cv2.LINE_AA)
    else:
        for _ in range(_STROKES):
            across = rng.random() < 0.5
            ends = np.array([[0.1, rng.uniform(0.2, 0.9)], [0.9, rng.uniform(0.2, 0.9)]])
            bend = np.append(ends.mean(axis=0) + rng.normal(0, 0.05, 2), []).reshape(1, 2)
            path = np.vstack([ends[:1], bend, ends[1:]])
            path = _in_photo(subject, path if across else path[:, ::-1])
            cv2.polylines(mask, [np.round(path).astype(np.int32)], False, 255, max(2, round(0.02 * side)))
    return mask > 127


def methods(weights: Weights, names: Sequence[str], seed: int = 0) -> dict[str, Method]:
    """Ways to complete a photo: a solver, a solver and a blend as in "fast+alpha", "telea" or "ns"."""
    chosen: dict[str, Method] = {}
    for name in names:
        if name in ("telea", "ns"):
            chosen[name] = _classical(cv2.INPAINT_TELEA if name == "telea" else cv2.INPAINT_NS)
        else:
            solver, _, blend = name.partition("+")
            chosen[name] = _by_network(FaceCompleter(weights, solver, blend or "poisson"), seed)
    return chosen


def measure(subject: Subject, hole: str, method: str, complete: Method, seed: int = 0) -> Row:
    """Complete one hole of one photo by one method; what lies under the hole is blackened first."""
    under = draw_hole(hole, subject, seed)
    true = subject.pixels
    began, located = time.process_time(), True
    try:
        completed = complete(np.where(under[..., None], np.uint8(0), true), under)
    except NoFaceError:
        completed, located = inpaint(true, under), False
    cpu_s = time.process_time() - began
    chips = np.stack([warp(photo, subject.chip, _CHIP_PX) for photo in (true, completed)])
    features = describe(chips)
    return Row(
        photo=subject.name,
        crop_px=subject.crop_px,
        hole=hole,
        method=method,
        hole_psnr=psnr(true, completed, under),
        detail=_detail(completed, under) / _detail(true, under),
        colour=float(np.linalg.norm(_mean_lab(completed, under) - _mean_lab(true, under))),
        rim=_rim(completed, under) / _rim(true, under),
        identity=float(np.linalg.norm(features[0] - features[1])),
        found=bool(find_faces(warp(completed, _view(subject), _VIEW_PX), upsample=0)),
        located=located,
        cpu_s=cpu_s,
        pixels=completed,
    )


def compare_whole(
    subjects: Sequence[Subject], chosen: dict[str, Method], holes: Sequence[str] = HOLES, seed: int = 0
) -> Iterator[Row]:
    """Every hole of every photo by every method."""
    for subject in subjects:
        for hole in holes:
            for name, complete in chosen.items():
                yield measure(subject, hole, name, complete, seed)


def _by_network(completer: FaceCompleter, seed: int) -> Method:
    def complete(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        *_, done = completer.complete(pixels, hole, seed=seed)
        assert isinstance(done, Completion)
        return done.pixels

    return complete


def _classical(how: int) -> Method:
    def complete(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        filled = cv2.inpaint(pixels, hole.astype(np.uint8), _TELEA_RADIUS_PX, how)
        return np.where(hole[..., None], filled, pixels)

    return complete


def _in_photo(subject: Subject, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the crop, as shares of its side, in the photo's pixels: (N, 2)."""
    return (shares * _CHIP_PX - subject.chip[:, 2]) @ np.linalg.inv(subject.chip[:, :2]).T


def _view(subject: Subject) -> NDArray[np.float64]:
    """The matrix from the photo to the face with air around it."""
    zoom = _VIEW_PX * _VIEW_SHARE / _CHIP_PX
    matrix = subject.chip * zoom
    matrix[:, 2] += _VIEW_PX * (1 - _VIEW_SHARE) / 2
    return matrix


def _detail(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    light = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), _BLUR_PX)
    return float(np.abs(cv2.Laplacian(light, cv2.CV_32F))[hole].mean()) + 1e-6


def _mean_lab(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[hole].mean(axis=0)


def _rim(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    values = pixels.astype(np.float32)
    down = np.abs(np.diff(values, axis=0))[hole[1:] != hole[:-1]]
    across = np.abs(np.diff(values, axis=1))[hole[:, 1:] != hole[:, :-1]]
    return float(np.concatenate([down, across]).mean()) + 1e-6

"""Benchmark on whole photos: holes at the photo's resolution, and measures of visible quality."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from align.cli import Progress
from align.errors import InputError, NoFaceError, PhotoError
from align.files import atomic_write, list_photos
from align.landmarks import find_landmarks
from align.locate import locate
from align.photo import read_photo, write_photo
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion.completer import Completion, FaceCompleter
from completion.config import WHOLE_HOLES
from completion.inpaint import inpaint
from completion.picture import overlay_mask
from dcgan.embeddings import embed
from dcgan.metrics import psnr
from dcgan.report import markdown
from dcgan.weights import Weights

JSON_FILE, MARKDOWN_FILE = "whole.json", "whole.md"
_GROUPS = ((0, 100), (100, 180), (180, 320), (320, None))  # ranges of the crop's side, in pixels of the photo
_CROP_PX = 150  # side of the crop for face embeddings
_VIEW_PX = 192  # side of a picture in the sheets
_SHOWN = 24  # maximum number of photos in a sheet
_RADIUS_PX = 3  # of OpenCV's inpainting
_SCRATCHES = 5
_BLUR_PX = 1.5  # standard deviation of the blur that excludes grain from detail
_LEAST = 1e-6  # avoids zeros in ratios
_COLUMNS = (
    ("n", "n", "d"),
    ("hole-PSNR", "hole_psnr", ".2f"),
    ("detail", "detail", ".2f"),
    ("colour", "colour", ".1f"),
    ("rim", "rim", ".2f"),
    ("identity", "identity", ".3f"),
    ("face found", "found", ".1%"),
    ("located", "located", ".1%"),
    ("CPU s", "cpu_s", ".2f"),
)
_RATIOS = ("detail", "rim")  # averaged as geometric means
_NOTES = """
- **Hole-PSNR**: PSNR over the pixels of the hole in dB, mean over the holes.
- **Detail**: mean absolute Laplacian after a Gaussian blur of 1.5 px, completed / original; geometric mean, ideally 1.
- **Colour**: distance between the mean colours of the hole in 8-bit Lab; ideally 0.
- **Rim**: mean absolute difference between neighbouring pixels across the rim, completed / original; geometric mean,
  ideally 1.
- **Identity**: distance between dlib's face embeddings of the completed and the true face.
- **Face found**: share of completed faces that dlib's detector finds.
- **Located**: share of holes in which the method found the face; the others are filled by Telea's method.
- **CPU s**: processor time per hole, summed over threads, including face detection.
- Pixels under a hole are blackened before a method sees the photo.
"""

Method = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]


class WholeBenchmarkError(InputError):
    """No photo with a face was given, or a method is unknown."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo and its largest face.

    Attributes:
        name: the photo's file name.
        pixels: uint8 (H, W, 3).
        face: maps the photo to a crop of the template "face".
        landmarks: float64 (68, 2), (x, y) in the photo's pixels.
    """

    name: str
    pixels: NDArray[np.uint8]
    face: Alignment
    landmarks: NDArray[np.float64]

    @property
    def crop_px(self) -> float:
        """Side of the face's crop in pixels of the photo."""
        return self.face.size / self.face.scale

    def at(self, shares: Any) -> NDArray[np.float64]:
        """Map points relative to the crop's side to pixels of the photo: (N, 2)."""
        return transform(self.face.inverse, np.array(shares, dtype=np.float64) * self.face.size)


@dataclass(frozen=True, eq=False)
class Row:
    """Results of one method on one hole; the report explains the figures.

    Attributes:
        photo: the photo's name.
        crop_px: side of the face's crop in pixels of the photo.
        hole: a name in WHOLE_HOLES.
        method: the method's name.
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
    pixels: NDArray[np.uint8] = field(repr=False)

    def figures(self) -> dict[str, Any]:
        """Return everything except the pixels."""
        return {name: value for name, value in asdict(self).items() if name != "pixels"}


def read_subjects(folders: Sequence[Path], report: Callable[[str], None]) -> list[Subject]:
    """Read all photos in folders and find their largest faces.

    Args:
        folders: searched recursively.
        report: called with a message for each photo that is unusable or shows no face.
    Raises:
        WholeBenchmarkError: no photo has a face.
    """
    subjects = []
    for path in [path for folder in folders for path in list_photos(folder)]:
        try:
            subject = find_subject(path.name, read_photo(path).pixels)
        except PhotoError as error:
            report(f"{path}: {error}")
            continue
        if subject is None:
            report(f"{path}: no face was found")
        else:
            subjects.append(subject)
    if not subjects:
        raise WholeBenchmarkError(f"found no face in {', '.join(map(str, folders))}; give folders of photos with faces")
    return subjects


def find_subject(name: str, pixels: NDArray[np.uint8]) -> Subject | None:
    """Find the largest face of a photo and its 68 landmarks; None if there is no face."""
    for face in locate(pixels, TEMPLATES["face"], _CROP_PX)[:1]:
        landmarks = find_landmarks(pixels, face)
        if landmarks is not None:
            return Subject(name, pixels, face, transform(face.inverse, landmarks))
    return None


def draw_hole(name: str, subject: Subject, seed: int = 0) -> NDArray[np.bool_]:
    """Draw a hole over a part of a face at the photo's resolution.

    Args:
        name: "middle", an ellipse from the brows to the upper lip; "eye", one eye with its lids; "mouth"; "half", the
            left or right half of the crop; "scratches", thin strokes across the crop.
        subject: the photo and its face.
        seed: seed of the choice of eye and half, and of the scratches.
    Returns:
        bool (H, W), True = fill this.
    """
    rng = np.random.default_rng([seed, *subject.name.encode()])
    points = subject.landmarks
    mask = np.zeros(subject.pixels.shape[:2], dtype=np.uint8)
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
        corners = subject.at([(left, 0), (left + 0.5, 0), (left + 0.5, 1), (left, 1)])
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    else:
        for _ in range(_SCRATCHES):
            across = rng.random() < 0.5
            ends = np.array([(0.1, rng.uniform(0.2, 0.9)), (0.9, rng.uniform(0.2, 0.9))])
            path = np.vstack([ends[:1], ends.mean(axis=0) + rng.normal(0, 0.05, 2), ends[1:]])
            path = subject.at(path if across else path[:, ::-1])
            width_px = max(2, round(0.02 * subject.crop_px))
            cv2.polylines(mask, [np.round(path).astype(np.int32)], False, 255, width_px)
    return mask > 0


def methods(weights: Sequence[Weights], names: Sequence[str], seed: int = 0) -> dict[str, Method]:
    """Create completion methods by name.

    Args:
        weights: networks for the solvers; each face uses those that fit its size.
        names: solvers, solvers with a blend such as "fast+alpha", "telea" or "ns" (Navier-Stokes).
        seed: seed of the solvers.
    Raises:
        WholeBenchmarkError: a method is unknown.
    """
    classical = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}
    return {
        name: _by_opencv(classical[name]) if name in classical else _by_network(weights, name, seed) for name in names
    }


def compare_whole(
    subjects: Sequence[Subject], chosen: dict[str, Method], holes: Sequence[str] = WHOLE_HOLES, seed: int = 0
) -> Iterator[Row | Progress]:
    """Complete and measure every hole of every photo by every method."""
    for done, subject in enumerate(subjects):
        yield Progress(subject.name, done, len(subjects))
        for hole in holes:
            for name, complete in chosen.items():
                yield measure(subject, hole, name, complete, seed)


def measure(subject: Subject, hole: str, method: str, complete: Method, seed: int = 0) -> Row:
    """Complete one hole by one method and compare the result with the original photo."""
    under, true = draw_hole(hole, subject, seed), subject.pixels
    seen = np.where(under[..., None], np.uint8(0), true)
    began, located = time.process_time(), True
    try:
        completed = complete(seen, under)
    except NoFaceError:
        completed, located = inpaint(seen, under), False
    cpu_s = time.process_time() - began
    embeddings = embed(np.stack([subject.face.warp(photo) for photo in (true, completed)]))
    return Row(
        photo=subject.name,
        crop_px=subject.crop_px,
        hole=hole,
        method=method,
        hole_psnr=psnr(true, completed, under),
        detail=_detail(completed, under) / _detail(true, under),
        colour=float(np.linalg.norm(_mean_lab(completed, under) - _mean_lab(true, under))),
        rim=_rim(completed, under) / _rim(true, under),
        identity=float(np.linalg.norm(embeddings[0] - embeddings[1])),
        found=find_landmarks(completed, subject.face, 5, zoom=1, upsample=0) is not None,
        located=located,
        cpu_s=cpu_s,
        pixels=completed,
    )


class WholeReport:
    """Collects rows and writes tables, JSON and a sheet of pictures per hole.

    Args:
        facts: metadata at the start of the JSON.
        subjects: the photos.
        seed: seed of the holes.
    """

    def __init__(self, facts: dict[str, Any], subjects: Sequence[Subject], seed: int = 0) -> None:
        self._facts, self._seed = facts, seed
        step = -(-len(subjects) // _SHOWN)
        self._shown = {subject.name: subject for subject in subjects[::step]}
        self._rows: list[dict[str, Any]] = []
        self._pictures: dict[str, dict[str, list[NDArray[np.uint8]]]] = {}

    def add(self, row: Row) -> None:
        """Add the results of one method on one hole."""
        self._rows.append(row.figures())
        if row.photo not in self._shown:
            return
        subject = self._shown[row.photo]
        sheet = self._pictures.setdefault(row.hole, {})
        if row.photo not in sheet:
            hole = draw_hole(row.hole, subject, self._seed)
            sheet[row.photo] = [_view(subject, photo) for photo in (subject.pixels, overlay_mask(subject.pixels, hole))]
        sheet[row.photo].append(_view(subject, row.pixels))

    def table(self) -> str:
        """Format a Markdown table of all methods by face size, by hole, and overall."""
        parts = {
            (f"{least} to {most} px" if most else f"above {least} px"): [
                row for row in self._rows if least <= row["crop_px"] < (most or float("inf"))
            ]
            for least, most in _GROUPS
        }
        parts |= {hole: [row for row in self._rows if row["hole"] == hole] for hole in self._pictures}
        parts |= {"all": self._rows}
        body = [
            [f"{part}, `{name}`", *(format(_mean(rows, key), form) for _, key, form in _COLUMNS)]
            for part, found in parts.items()
            for name in dict.fromkeys(row["method"] for row in found)
            for rows in [[row for row in found if row["method"] == name]]
        ]
        return markdown([["", *(heading for heading, _, _ in _COLUMNS)], *body])

    def write(self, folder: Path) -> None:
        """Write the JSON, the Markdown and the sheets to an existing folder, replacing files."""
        shown = [f"![{hole}](whole-{hole}.jpg)" for hole in self._pictures]
        legend = f"From left to right: photo, hole, {', '.join(dict.fromkeys(row['method'] for row in self._rows))}."
        text = "\n\n".join(["# Completion of whole photos", self.table(), _NOTES.strip(), legend, *shown])
        for name, content in (
            (JSON_FILE, json.dumps(self._facts | {"rows": self._rows}, indent=1)),
            (MARKDOWN_FILE, text),
        ):
            with atomic_write(folder / name) as file:
                file.write(content.encode() + b"\n")
        for hole, sheet in self._pictures.items():
            write_photo(folder / f"whole-{hole}.jpg", np.vstack([np.hstack(cells) for cells in sheet.values()]))


def _by_network(weights: Sequence[Weights], name: str, seed: int) -> Method:
    solver, _, blend = name.partition("+")
    try:
        completer = FaceCompleter(weights, solver=solver, blend=blend or "poisson")
    except (KeyError, ValueError) as error:
        raise WholeBenchmarkError(f"there is no method {name!r}; expected telea, ns, SOLVER or SOLVER+BLEND") from error

    def complete(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        *_, done = completer.steps(pixels, hole, seed=seed)
        assert isinstance(done, Completion)
        return done.pixels

    return complete


def _by_opencv(how: int) -> Method:
    def complete(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        filled = cv2.inpaint(pixels, hole.astype(np.uint8), _RADIUS_PX, how)
        return np.where(hole[..., None], filled, pixels).astype(np.uint8)

    return complete


def _mean(rows: Sequence[dict[str, Any]], key: str) -> Any:
    if key == "n":
        return len(rows)
    values = np.array([row[key] for row in rows], dtype=np.float64)
    return float(np.exp(np.log(values).mean())) if key in _RATIOS else float(values.mean())


def _view(subject: Subject, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop the face for a sheet: uint8 (_VIEW_PX, _VIEW_PX, 3)."""
    return subject.face.resized(_VIEW_PX).warp(photo)


def _detail(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    light = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), _BLUR_PX)
    return float(np.abs(cv2.Laplacian(light, cv2.CV_32F))[hole].mean()) + _LEAST


def _mean_lab(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[hole].mean(axis=0)


def _rim(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    values = pixels.astype(np.float32)
    down = np.abs(np.diff(values, axis=0))[hole[1:] != hole[:-1]]
    across = np.abs(np.diff(values, axis=1))[hole[:, 1:] != hole[:, :-1]]
    return float(np.concatenate([down, across]).mean()) + _LEAST

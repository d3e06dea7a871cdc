"""Measure completion methods: same faces, same holes, same measures."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from align.cli import Progress
from align.errors import NoFaceError, PhotoError
from align.files import list_photos
from align.landmarks import find_landmarks
from align.locate import locate
from align.photo import read_photo
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion.benchmark.config import HOLES, SLOW, BenchmarkOptions
from completion.benchmark.methods import BenchmarkError, InPhoto, Linear, Method
from completion.benchmark.tones import COLOUR, ONE_TONE, stray, toned
from completion.inpaint import inpaint
from completion.picture import overlay_mask
from dcgan.dataset import load_faces
from dcgan.embeddings import embed
from dcgan.holes import named_hole, needs_landmarks
from dcgan.metrics import detail, frechet_distance, psnr

_BATCH = 50  # aligned faces; whole photos are completed one by one
_SIDES = ("left", "right", "top", "bottom")
_CROP_PX = 150  # side of the crops of whole photos for face embeddings and the detector
_DETECTOR_PX = 192  # side of an aligned face as the detector sees it
_VIEW_PX, _WHOLE_VIEW_PX, _SHOWN = 192, 384, 24  # sides and number of the pictures in a sheet
# Face embeddings have 128 dimensions; from fewer faces their covariance cannot be estimated.
_LEAST_FRECHET = 50
_SCRATCHES = 5
_LEAST = 1e-6  # avoids zeros in ratios


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


@dataclass(frozen=True, eq=False)
class Task:
    """A kind of hole, and the faces it is applied to.

    Attributes:
        hole: name of the hole.
        samples: the faces.
        holes: bool (H, W) each.
        left_out: number of faces left out because their landmarks were not found.
    """

    hole: str
    samples: list[Sample]
    holes: list[NDArray[np.bool_]]
    left_out: int

    @property
    def pictures(self) -> list[list[NDArray[np.uint8]]]:
        """Views of the first faces, without and with their holes."""
        pairs = list(zip(self.samples, self.holes, strict=True))[:_SHOWN]
        return [[each.view(each.pixels), each.view(overlay_mask(each.pixels, hole))] for each, hole in pairs]


@dataclass(frozen=True, eq=False)
class Row:
    """Results of one method on one kind of hole; the report explains the figures.

    Attributes:
        hole: name of the hole.
        method: name of the method.
        samples: the faces.
        figures: name -> one value per face.
        frechet: squared Frechet distance between the face embeddings of completed and true faces; None for whole photos
            and below 50 faces.
        pictures: views of the first completed faces.
    """

    hole: str
    method: str
    samples: list[Sample]
    figures: dict[str, NDArray[np.float64]]
    frechet: float | None
    pictures: list[NDArray[np.uint8]]


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


def compare(
    samples: Sequence[Sample],
    methods: dict[str, Method],
    options: BenchmarkOptions,
    template: str = "face",
    device: torch.device | str = "cpu",
) -> Iterator[Progress | Task | Row]:
    """Complete faces by several methods and measure the results.

    Pixels under the holes are blackened before a method sees a photo.

    Args:
        samples: the faces.
        methods: see completion.benchmark.methods.create_methods.
        options: what to compare.
        template: alignment template of the faces.
        device: where face embeddings are computed.
    Yields:
        Progress; for each hole, its Task followed by a Row per method.
    Raises:
        BenchmarkError: no face has the hole.
        EmbeddingError: the template of the faces does not support face embeddings.
        LandmarkModelError: dlib or its model files are missing.
    """
    embedded = partial(embed, template=template, device=device)
    for hole in options.chosen_holes:
        yield Progress(f"{hole}, holes", 0, len(samples))
        task = make_task(hole, samples, options)
        yield task
        truth = np.concatenate([embedded(each.face.warp(each.pixels)[None]) for each in task.samples])
        for name, method in methods.items():
            if isinstance(method, Linear):
                method = method.tuned(np.stack(task.holes))
            yield from _measure(name, method, task, truth, embedded, options)


def make_task(hole: str, samples: Sequence[Sample], options: BenchmarkOptions) -> Task:
    """Draw the holes of all faces; each depends only on the seed, the kind of hole, and the face.

    Raises:
        BenchmarkError: no face has landmarks for the hole.
        LandmarkModelError: dlib or its model files are missing.
    """
    draw = draw_whole_hole if options.whole else draw_hole
    drawn = [(sample, draw(hole, sample, options.seed)) for sample in samples]
    kept = [(sample, mask) for sample, mask in drawn if mask is not None]
    if not kept:
        raise BenchmarkError(f"none of {len(samples)} faces has landmarks for the hole {hole}; choose another hole")
    return Task(hole, [sample for sample, _ in kept], [mask for _, mask in kept], len(samples) - len(kept))


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


def _measure(
    name: str,
    method: Method,
    task: Task,
    truth: NDArray[np.float64],
    embedded: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    options: BenchmarkOptions,
) -> Iterator[Progress | Row]:
    """Run one method on one kind of hole, and compare its results with the true pixels."""
    n = min(options.slow_limit, len(task.samples)) if name in SLOW else len(task.samples)
    batch = 1 if options.whole else _BATCH
    figures: list[dict[str, float]] = []
    embeddings: list[NDArray[np.float64]] = []
    pictures: list[NDArray[np.uint8]] = []
    for begin in range(0, n, batch):
        yield Progress(f"{task.hole}, {name}", begin, n)
        samples = task.samples[begin : min(begin + batch, n)]
        holes = np.stack(task.holes[begin : begin + len(samples)])
        true = np.stack([sample.pixels for sample in samples])
        seen = np.where(holes[..., None], np.uint8(0), true)
        cpu, wall, located = time.process_time(), time.perf_counter(), True
        chosen = replace(method, sha256=samples[0].sha256) if isinstance(method, InPhoto) else method
        try:
            completed = chosen(seen, holes)
        except NoFaceError:
            completed, located = np.stack([inpaint(*pair) for pair in zip(seen, holes, strict=True)]), False
        seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        crops = [sample.face.warp(photo) for sample, photo in zip(samples, completed, strict=True)]
        embeddings.append(embedded(np.stack(crops)))
        distances = np.linalg.norm(embeddings[-1] - truth[begin : begin + len(samples)], axis=1)
        for sample, real, fake, hole, distance in zip(samples, true, completed, holes, distances, strict=True):
            zoom = 1 if options.whole else _DETECTOR_PX / sample.face.size
            found = find_landmarks(fake, sample.face, 5, zoom, upsample=0) is not None
            row = {"hole_psnr": psnr(real, fake, hole), "identity": float(distance), "found": float(found)}
            if options.whole:
                row |= {
                    "detail": detail(fake, hole) / detail(real, hole),
                    "colour": float(np.linalg.norm(_mean_lab(fake, hole) - _mean_lab(real, hole))),
                    "rim": _rim(fake, hole) / _rim(real, hole),
                    "error": float(np.abs(fake.astype(np.int16) - real)[hole].mean() / max(1, real.std())),
                    "stray": stray(fake, real, hole) if sample.tone in ONE_TONE else math.nan,
                    "located": float(located),
                }
            else:
                row |= {
                    "psnr": psnr(real, fake),
                    "ssim": float(structural_similarity(real, fake, channel_axis=2, data_range=255)),
                }
            figures.append(row | {key: value / len(samples) for key, value in seconds.items()})
            if len(pictures) < _SHOWN:
                pictures.append(sample.view(fake))
    made = np.concatenate(embeddings)
    yield Row(
        hole=task.hole,
        method=name,
        samples=task.samples[:n],
        figures={key: np.array([row[key] for row in figures]) for key in figures[0]},
        frechet=frechet_distance(made, truth[:n]) if n >= _LEAST_FRECHET and not options.whole else None,
        pictures=pictures,
    )


def _mean_lab(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[hole].mean(axis=0)


def _rim(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    values = pixels.astype(np.float32)
    down = np.abs(np.diff(values, axis=0))[hole[1:] != hole[:-1]]
    across = np.abs(np.diff(values, axis=1))[hole[:, 1:] != hole[:, :-1]]
    return float(np.concatenate([down, across]).mean()) + _LEAST

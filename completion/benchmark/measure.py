"""Measure completion methods: same faces, same holes, same measures."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from align.cli import Progress
from align.errors import NoFaceError
from align.landmarks import find_landmarks
from completion.benchmark.config import SLOW, BenchmarkOptions
from completion.benchmark.methods import BenchmarkError, InPhoto, Linear, Method
from completion.benchmark.samples import Sample, draw_hole, draw_whole_hole
from completion.benchmark.tones import ONE_TONE, stray
from completion.inpaint import inpaint
from completion.picture import overlay_mask
from dcgan.embeddings import embed
from dcgan.metrics import detail, frechet_distance, psnr

_BATCH = 50  # aligned faces; whole photos are completed one by one
_DETECTOR_PX = 192  # side of an aligned face as the detector sees it
_SHOWN = 24  # number of the pictures in a sheet
# Face embeddings have 128 dimensions; from fewer faces their covariance cannot be estimated.
_LEAST_FRECHET = 50
_LEAST = 1e-6  # avoids zeros in ratios


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

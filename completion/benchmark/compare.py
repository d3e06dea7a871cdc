"""Compare completion methods on aligned faces: same faces, same holes, same measures."""

import ctypes
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from align.cli import Progress
from align.errors import InputError
from align.landmarks import find_landmarks
from align.warp import Alignment
from completion.benchmark.baselines import MeanFace, Method, biharmonic, fit_linear, navier_stokes, telea
from completion.completer import FaceCompleter
from completion.config import BENCHMARK_HOLES, LEARNING, ON_TORCH, SLOW, WITH_ENCODER, BenchmarkOptions
from dcgan import metrics
from dcgan.embeddings import embed
from dcgan.evaluate import faces_detected as found
from dcgan.holes import named_hole, needs_landmarks
from dcgan.metrics import psnr
from dcgan.sampling import device_of
from dcgan.weights import Weights

_BATCH = 50
_SIDES = ("left", "right", "top", "bottom")
SHOWN = 12
# Face embeddings have 128 dimensions; from fewer faces their covariance cannot be estimated.
_LEAST_FRECHET = 50
_MOST_FITTED, _HELD_OUT = 20_000, 50


class CompareError(InputError):
    """The benchmark cannot run on the given faces and methods."""


@dataclass(frozen=True)
class Task:
    """A kind of hole and the faces it is applied to.

    Attributes:
        hole: a name in BENCHMARK_HOLES.
        faces: uint8 (N, S, S, 3), the truth.
        holes: bool (N, S, S).
        left_out: number of faces left out because their landmarks were not found.
    """

    hole: str
    faces: NDArray[np.uint8]
    holes: NDArray[np.bool_]
    left_out: int


@dataclass(frozen=True)
class Row:
    """Results of one method on one kind of hole, as means over the faces.

    Attributes:
        hole: a name in BENCHMARK_HOLES.
        method: a name in METHODS.
        n: number of faces.
        hole_psnr: PSNR over the pixels of the hole in dB; inf if a face was restored exactly.
        same_psnr: hole_psnr on the faces that the methods in SLOW also run on.
        psnr: PSNR over all pixels in dB.
        ssim: structural similarity of the whole crops.
        identity: Euclidean distance between dlib's face embeddings of the completed and the true face.
        found: share of the completed faces that dlib's detector finds.
        frechet: squared Frechet distance between the face embeddings of completed and true faces; None below 50 faces.
        cpu_s: CPU time per face in seconds, summed over threads.
        wall_s: wall-clock time per face in seconds.
        memory_mb: peak memory above the use at the start, in MB; None if the system does not report it.
        pictures: uint8 (up to SHOWN, S, S, 3), the first completed faces.
    """

    hole: str
    method: str
    n: int
    hole_psnr: float
    same_psnr: float
    psnr: float
    ssim: float
    identity: float
    found: float
    frechet: float | None
    cpu_s: float
    wall_s: float
    memory_mb: float | None
    pictures: NDArray[np.uint8]

    def figures(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {name: value for name, value in asdict(self).items() if name not in ("hole", "method", "pictures")}


def compare(
    weights: Weights, faces: NDArray[np.uint8], training: NDArray[np.uint8] | None, options: BenchmarkOptions
) -> Iterator[Progress | Task | Row]:
    """Complete faces by several methods and measure the results.

    Pixels under the holes are blackened before a method sees the faces.

    Args:
        weights: networks of the DCGAN methods; their template is that of the faces.
        faces: uint8 (N, S, S, 3), see `spread`.
        training: uint8 (M, S, S, 3), faces of other people to fit the methods in LEARNING to; None to skip these.
        options: what to compare.
    Yields:
        Progress; for each hole, its Task followed by a Row per method.
    Raises:
        CompareError: no method can run, no face has the hole, or there are too few training faces.
        EmbeddingError: the template of the faces does not support face embeddings.
        LandmarkModelError: dlib or its model files are missing.
        WeightsError: the template of the weights is unknown.
    """
    left_out = lacking(options.methods, weights.has_encoder, training is not None)
    names = [name for name in options.methods if name not in left_out]
    if not names:
        raise CompareError(f"none of {', '.join(left_out)} can run; give {', '.join(sorted({*left_out.values()}))}")
    methods: dict[str, Method] = {"telea": telea, "ns": navier_stokes, "biharmonic": biharmonic}
    for name in names:
        if name not in methods and name not in LEARNING:
            solver = name.removesuffix(ON_TORCH)
            source = weights if solver == name else _on_torch(weights)
            methods[name] = partial(FaceCompleter(source, solver=solver).complete_crops, seed=options.seed)
    if training is not None and set(LEARNING) & set(names):
        yield Progress("principal components", 0, 1)
        fitted, held_out = _split(training, options.seed)
        linear = fit_linear(fitted, seed=options.seed)
        methods["mean"] = MeanFace(linear.mean)
    description = partial(embed, template=weights.template, device=device_of(weights.generator))
    for hole in options.holes:
        yield Progress(f"{hole}, holes", 0, len(faces))
        task = make_task(hole, faces, options.seed)
        if not len(task.faces):
            raise CompareError(f"none of {len(faces)} faces has landmarks for the hole {hole}; choose another hole")
        yield task
        if "linear" in names:
            yield Progress(f"{hole}, noise of linear", 0, 1)
            methods["linear"] = linear.tuned(held_out, task.holes)
        yield Progress(f"{hole}, true faces", 0, 1)
        truth = description(task.faces)
        for name in names:
            yield from _run(name, methods[name], task, truth, description, options.slow_limit)


def spread(faces: NDArray[np.uint8], limit: int, seed: int) -> NDArray[np.uint8]:
    """Select up to `limit` evenly spaced faces, shuffled so that the first few are also a fair sample."""
    chosen = np.linspace(0, len(faces) - 1, min(limit, len(faces))).round().astype(int)
    return faces[np.random.default_rng(seed).permutation(chosen)]


def lacking(names: tuple[str, ...], encoder: bool, training: bool) -> dict[str, str]:
    """Return the methods that cannot run, and what each of them needs."""
    needs = {} if encoder else dict.fromkeys(WITH_ENCODER, "weights with an encoder")
    needs |= {} if training else dict.fromkeys(LEARNING, "training faces")
    return {name: needs[name] for name in sorted(names) if name in needs}


def _on_torch(weights: Weights) -> Weights:
    """The same networks without the .onnx file."""
    return Weights.of(weights.generator, weights.discriminator, weights.template, weights.metadata, weights.encoder)


def make_task(hole: str, faces: NDArray[np.uint8], seed: int) -> Task:
    """Create the holes of all faces; each depends only on the seed, the kind of hole, and the face and its index.

    Args:
        hole: a name in BENCHMARK_HOLES.
        faces: uint8 (N, S, S, 3); read only to find landmarks.
        seed: seed of the random holes.
    Raises:
        LandmarkModelError: dlib or its model files are missing.
    """
    size, made = faces.shape[1], []
    for index, face in enumerate(faces):
        mask = _SIDES[index % 4] if hole == "half" else BENCHMARK_HOLES[hole]
        landmarks = find_landmarks(face, Alignment.identity(size)) if needs_landmarks(mask) else None
        if needs_landmarks(mask) and landmarks is None:
            made.append(np.zeros((size, size), dtype=bool))
        else:
            made.append(
                named_hole(
                    mask, size, np.random.default_rng([seed, index, list(BENCHMARK_HOLES).index(hole)]), landmarks
                )
            )
    holes = np.stack(made)
    kept = holes.any(axis=(1, 2))
    return Task(hole, faces[kept], holes[kept], int((~kept).sum()))


def _run(
    name: str,
    method: Method,
    task: Task,
    truth: NDArray[np.float64],
    description: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    slow_limit: int,
) -> Iterator[Progress | Row]:
    """Run and measure one method on one kind of hole."""
    few = min(slow_limit, len(task.faces))
    n = few if name in SLOW else len(task.faces)
    faces, holes = task.faces[:n], task.holes[:n]
    known = np.where(holes[..., None], np.uint8(0), faces)
    parts, cpu_s, wall_s = [], 0.0, 0.0
    before = _begin_peak()
    for begin in range(0, n, _BATCH):
        yield Progress(f"{task.hole}, {name}", begin, n)
        part = slice(begin, begin + _BATCH)
        cpu, wall = time.process_time(), time.perf_counter()
        parts.append(method(known[part], holes[part]))
        cpu_s, wall_s = cpu_s + time.process_time() - cpu, wall_s + time.perf_counter() - wall
    memory_mb = _status_mb("VmHWM") - before if before is not None else None
    yield Progress(f"{task.hole}, measure {name}", n, n)
    completed = np.concatenate(parts)
    pairs = list(zip(faces, completed, holes, strict=True))
    features = description(completed)
    hole_psnr = [psnr(face, fill, hole) for face, fill, hole in pairs]
    yield Row(
        hole=task.hole,
        method=name,
        n=n,
        hole_psnr=float(np.mean(hole_psnr)),
        same_psnr=float(np.mean(hole_psnr[:few])),
        psnr=float(np.mean([psnr(face, fill) for face, fill, _ in pairs])),
        ssim=float(
            np.mean([structural_similarity(face, fill, channel_axis=2, data_range=255) for face, fill, _ in pairs])
        ),
        identity=float(np.linalg.norm(features - truth[:n], axis=1).mean()),
        found=float(found(completed).mean()),
        frechet=metrics.frechet_distance(features, truth[:n]) if n >= _LEAST_FRECHET else None,
        cpu_s=cpu_s / n,
        wall_s=wall_s / n,
        memory_mb=memory_mb,
        pictures=completed[:SHOWN],
    )


def _split(training: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split the training faces into those to fit and those to choose the noise on."""
    if len(training) < 4:
        raise CompareError(f"{len(training)} training faces are too few; give at least 4, ideally 20,000")
    order = np.random.default_rng(seed).permutation(len(training))
    held_out = min(_HELD_OUT, len(training) // 4)
    return training[order[held_out:][:_MOST_FITTED]], training[order[:held_out]]


def _begin_peak() -> float | None:
    """Reset the peak memory counter of Linux and return the current use in MB; None on other systems."""
    try:
        # Return freed memory to the system; otherwise its reuse would not be counted.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    except (OSError, AttributeError):
        return None


def _status_mb(name: str) -> float:
    [kb] = re.findall(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kb) / 1000

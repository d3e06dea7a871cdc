"""Ways of completion side by side: the same faces, the same holes, the same measures."""

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

from align.errors import InputError
from align.landmarks import find_landmarks
from align.warp import Alignment
from completion.benchmark.baselines import MeanFace, Method, biharmonic, fit_linear, navier_stokes, telea
from completion.complete import FaceCompleter
from completion.config import BENCHMARK_HOLES, LEARNING, SLOW, WITH_ENCODER, BenchmarkOptions
from completion.holes import named_hole, needs_landmarks
from dcgan import metrics
from dcgan.checkpoint import Weights
from dcgan.descriptors import describe
from dcgan.evaluate import found_faces as found
from dcgan.sampling import Progress, device_of

_BATCH = 50
_SIDES = ("left", "right", "top", "bottom")
SHOWN = 12
# The descriptors have 128 dimensions; with fewer faces than this their covariance says nothing.
_LEAST_FRECHET = 50
_MOST_FITTED, _HELD_OUT = 20_000, 50


class CompareError(InputError):
    """Faces or methods that nothing can be compared with."""


@dataclass(frozen=True)
class Task:
    """A hole, and the faces that have it.

    Attributes:
        hole: a name in BENCHMARK_HOLES.
        faces: uint8 (N, S, S, 3), the truth.
        holes: bool (N, S, S).
        left_out: faces in which the part that the hole is to cover was not found.
    """

    hole: str
    faces: NDArray[np.uint8]
    holes: NDArray[np.bool_]
    left_out: int


@dataclass(frozen=True)
class Row:
    """What one method made of one hole; means over its faces.

    Attributes:
        hole: a name in BENCHMARK_HOLES.
        method: a name in METHODS.
        n: faces.
        hole_psnr: dB over the pixels of the hole; inf if a face came back exactly.
        same_psnr: the same of those faces alone that the methods in SLOW have.
        psnr: dB over all pixels.
        ssim: structural similarity of the whole crops.
        identity: Euclidean distance of dlib's descriptors of the completed and the true face.
        found: share of the completed faces that dlib's detector finds.
        frechet: squared Frechet distance of the descriptors of all completed to those of the true faces; None for few.
        cpu_s: CPU-seconds for a face, of all threads.
        wall_s: wall-clock seconds for a face.
        memory_mb: peak memory above what was in use before; None where the system does not tell.
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
        """All numbers by name."""
        return {name: value for name, value in asdict(self).items() if name not in ("hole", "method", "pictures")}


def compare(
    weights: Weights, faces: NDArray[np.uint8], training: NDArray[np.uint8] | None, options: BenchmarkOptions
) -> Iterator[Progress | Task | Row]:
    """Complete faces by several methods and measure what comes out.

    What lies under the holes is taken out before a method sees the faces.

    Args:
        weights: of the methods with a DCGAN, and how the faces are aligned.
        faces: uint8 (N, S, S, 3), see `spread`.
        training: uint8 (M, S, S, 3), faces of others for the methods that learn; None leaves these out.
        options: what to compare.
    Yields:
        Progress; for every hole its Task, and then a Row for every method.
    Raises:
        CompareError: no method is left, or there are too few training faces.
        DescriptorError: the faces are aligned in a way that they cannot be described.
        LandmarkModelError: dlib or its files are absent.
        WeightsError: the weights are for faces aligned in an unknown way.
    """
    left_out = lacking(options.methods, weights.encoder is not None, training is not None)
    names = [name for name in options.methods if name not in left_out]
    if not names:
        raise CompareError(f"none of {', '.join(left_out)} can be used; give {', '.join(sorted({*left_out.values()}))}")
    methods: dict[str, Method] = {"telea": telea, "ns": navier_stokes, "biharmonic": biharmonic}
    for name in names:
        if name not in methods and name not in LEARNING:
            methods[name] = partial(FaceCompleter(weights, name).complete_crops, seed=options.seed)
    if training is not None and set(LEARNING) & set(names):
        yield Progress("principal components", 0, 1)
        fitted, held_out = _split(training, options.seed)
        linear = fit_linear(fitted, seed=options.seed)
        methods["mean"] = MeanFace(linear.mean)
    description = partial(describe, template=weights.template, device=device_of(weights.generator))
    for hole in options.holes:
        yield Progress(f"{hole}, holes", 0, len(faces))
        task = make_task(hole, faces, options.seed)
        if not len(task.faces):
            raise CompareError(f"the part that the hole {hole} covers was found in none of {len(faces)} faces")
        yield task
        if "linear" in names:
            yield Progress(f"{hole}, noise of linear", 0, 1)
            methods["linear"] = linear.tuned(held_out, task.holes)
        yield Progress(f"{hole}, true faces", 0, 1)
        truth = description(task.faces)
        for name in names:
            yield from _run(name, methods[name], task, truth, description, options.slow_limit)


def spread(faces: NDArray[np.uint8], limit: int, seed: int) -> NDArray[np.uint8]:
    """Up to `limit` faces, spread evenly, then shuffled so that the first few are spread just as well."""
    chosen = np.linspace(0, len(faces) - 1, min(limit, len(faces))).round().astype(int)
    return faces[np.random.default_rng(seed).permutation(chosen)]


def lacking(names: tuple[str, ...], encoder: bool, training: bool) -> dict[str, str]:
    """The methods that do not have what they need, and what that is."""
    needs = {} if encoder else dict.fromkeys(WITH_ENCODER, "weights with an encoder")
    needs |= {} if training else dict.fromkeys(LEARNING, "training faces")
    return {name: needs[name] for name in sorted(names) if name in needs}


def make_task(hole: str, faces: NDArray[np.uint8], seed: int) -> Task:
    """Make holes that depend on the seed, the hole, and each face's place alone, so that every run has the same.

    Args:
        hole: a name in BENCHMARK_HOLES.
        faces: uint8 (N, S, S, 3); read for the landmarks of the parts of a face.
        seed: of the random ones.
    Raises:
        LandmarkModelError: dlib or its files are absent.
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
    """Let one method fill one kind of hole, and measure it."""
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
    hole_psnr = [metrics.psnr(face, fill, hole) for face, fill, hole in pairs]
    yield Row(
        hole=task.hole,
        method=name,
        n=n,
        hole_psnr=float(np.mean(hole_psnr)),
        same_psnr=float(np.mean(hole_psnr[:few])),
        psnr=float(np.mean([metrics.psnr(face, fill) for face, fill, _ in pairs])),
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
    """Faces to fit and others to choose the noise with."""
    if len(training) < 4:
        raise CompareError(f"{len(training)} training faces are too few to learn from; give at least 4, better 20,000")
    order = np.random.default_rng(seed).permutation(len(training))
    held_out = min(_HELD_OUT, len(training) // 4)
    return training[order[held_out:][:_MOST_FITTED]], training[order[:held_out]]


def _begin_peak() -> float | None:
    """Let Linux forget the peak of memory so far, and tell what is in use now, in MB; None on other systems."""
    try:
        # What others gave back would else be there for the taking, and count for nobody.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    except (OSError, AttributeError):
        return None


def _status_mb(name: str) -> float:
    [kb] = re.findall(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kb) / 1000

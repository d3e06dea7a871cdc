"""Evaluate a generator: distance to real faces, variety, reconstruction and memorisation, with baselines."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from align.cli import Progress
from align.errors import InputError
from align.landmarks import find_landmarks
from align.picture import grid
from align.warp import Alignment
from dcgan import metrics, networks, similarity
from dcgan.adam import Adam
from dcgan.config import EvaluateOptions
from dcgan.embeddings import embed
from dcgan.sampling import device_of, generate, in_parts, sample_z
from dcgan.step import cosine
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights

LEAST_FACES = 16
_BATCH = 64
_LR = 0.2
_MAX_PAIRS = 1000
_MAX_DETECTED = 500
_MAX_SEARCHED = 1000
_THUMBNAIL_PX = 16
_VIEW_PX = 192  # side of a crop as the detector sees it


class EvaluationError(InputError):
    """There are too few faces."""


@dataclass(frozen=True)
class Metric:
    """A measure: its values for generated and for real faces, the baseline; and what is better: less, more, as real."""

    name: str
    fake: float
    real: float
    better: str


@dataclass
class Evaluation:
    """The results of an evaluation."""

    options: EvaluateOptions
    counts: dict[str, int]  # number of faces by purpose
    baseline: str  # which real faces are compared for the real-vs-real baseline
    metrics: list[Metric] = field(default_factory=list)
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # (H, W, 3) by file name
    seconds: dict[str, float] = field(default_factory=dict)  # wall-clock time of each part

    def as_json(self) -> dict[str, Any]:
        """Everything except the pictures."""
        return {
            "options": asdict(self.options),
            "faces": self.counts,
            "baseline": self.baseline,
            "figures": [asdict(metric) for metric in self.metrics],
            "seconds": {name: round(seconds, 2) for name, seconds in self.seconds.items()},
        }


@dataclass(frozen=True)
class _Sets:
    """Validation faces, the baseline's, generated ones, more to reconstruct, and the training set: uint8."""

    reference: NDArray[np.uint8]
    other: NDArray[np.uint8]
    fake: NDArray[np.uint8]
    own: NDArray[np.uint8]
    training: NDArray[np.uint8] | None


# What one measure found: the metrics, counts and pictures of an `Evaluation`.
_Found = tuple[list[Metric], dict[str, int], dict[str, NDArray[np.uint8]]]
_Measuring = Generator[Progress, None, _Found]


def evaluate(
    weights: Weights, validation: NDArray[np.uint8], training: NDArray[np.uint8] | None, options: EvaluateOptions
) -> Iterator[Progress | Evaluation]:
    """Measure a generator on faces uint8 (N, S, S, 3); yields Progress, then the Evaluation.

    The real-vs-real baseline compares training faces with validation faces. Without training faces, it compares the
    second half of the validation faces with the first, in the given order so that one person's photos stay together;
    then generated faces are compared with the first half, too. Since most distances fall with the number of faces, as
    many faces are generated as the baseline has real ones.

    Raises:
        EvaluationError: there are too few faces.
        EmbeddingError: face embeddings do not support the alignment template.
        LandmarkModelError: dlib or one of its files is absent.
    """
    rng = np.random.default_rng(options.seed)
    reference, other, baseline = _real_sets(validation, training, options.samples, rng)
    if options.k >= min(len(reference), len(other)):
        raise EvaluationError(f"k is {options.k}; expected fewer than the {min(len(reference), len(other))} faces")
    G = weights.generator
    generator = torch.Generator().manual_seed(options.seed)
    fake = generate(G, sample_z(len(other), G.config, generator))
    few = min(options.mre_faces, len(reference), len(other))
    own = generate(G, sample_z(few, G.config, generator))  # the same random stream, so other images than `fake`
    counts = {"generated": len(fake), "reference": len(reference), "baseline": len(other), "MRE": few}
    side = min(8, math.isqrt(len(fake)))
    result = Evaluation(options, counts, baseline, pictures={"samples.png": grid(fake[: side**2], side)})
    sets = _Sets(reference, other, fake, own, training)
    embeddings: dict[str, NDArray[np.float64]] = {}
    for name, measure in (
        ("embeddings", _embeddings(sets, embeddings, weights.template, device_of(G), options)),
        ("patches", _patches(sets, options.seed)),
        ("variety", _variety(sets)),
        ("detector", _detection(sets)),
        ("reconstruction", _reconstruction(sets, G, options)),
        ("neighbours", _neighbours(sets, embeddings)),
    ):
        begin = time.monotonic()
        found, counts, pictures = yield from measure
        result.metrics += found
        result.counts |= counts
        result.pictures |= pictures
        result.seconds[name] = time.monotonic() - begin
    yield result


def _embeddings(
    sets: _Sets,
    embeddings: dict[str, NDArray[np.float64]],
    template: str,
    device: torch.device,
    options: EvaluateOptions,
) -> _Measuring:
    """Compare face embeddings, which stay in `embeddings`."""
    work = partial(embed, template=template, device=device)
    for name in ("reference", "other", "fake"):
        embeddings[name] = yield from in_parts(f"embed {name} faces", getattr(sets, name), work)
    fake, real = ((embeddings["reference"], embeddings[name]) for name in ("fake", "other"))
    of_fake, of_real = (
        {
            "Frechet distance": metrics.frechet_distance(*pair),
            "MMD x1000": 1000 * metrics.kernel_distance(*pair, options.seed),
            **dict(zip(("precision", "recall"), metrics.precision_recall(*pair, options.k), strict=True)),
        }
        for pair in (fake, real)
    )
    better = ("less", "less", "more", "more")
    return [Metric(name, of_fake[name], of_real[name], how) for name, how in zip(of_fake, better, strict=True)], {}, {}


def _patches(sets: _Sets, seed: int) -> _Measuring:
    yield Progress("sliced Wasserstein distance", 0, 1)
    few = min(len(sets.reference), len(sets.other))

    def distances(crops: NDArray[np.uint8]) -> dict[str, float]:
        levels = metrics.swd(sets.reference[:few], crops[:few], seed)
        found = {f"{px} px": 1000 * value for px, value in levels.items()}
        return found | {"mean": sum(found.values()) / len(found)}

    fake, real = distances(sets.fake), distances(sets.other)
    return [Metric(f"SWD x1000, {level}", fake[level], real[level], "less") for level in fake], {"SWD": few}, {}


def _variety(sets: _Sets) -> _Measuring:
    yield Progress("MS-SSIM of pairs", 0, 1)
    few = min(len(sets.reference) // 2, len(sets.fake) // 2, _MAX_PAIRS)

    @torch.inference_mode()
    def of_pairs(crops: NDArray[np.uint8]) -> float:
        parts = (slice(begin, min(begin + _BATCH, few)) for begin in range(0, few, _BATCH))
        a, b = crops[:few], crops[few : 2 * few]
        return float(torch.cat([similarity.ms_ssim(to_tensor(a[part]), to_tensor(b[part])) for part in parts]).mean())

    metric = Metric("MS-SSIM of pairs", of_pairs(sets.fake), of_pairs(sets.reference), "as real")
    return [metric], {"MS-SSIM pairs": few}, {}


def _detection(sets: _Sets) -> _Measuring:
    few = min(len(sets.reference), len(sets.fake), _MAX_DETECTED)
    fake = yield from in_parts("detect generated faces", sets.fake[:few], faces_detected)
    real = yield from in_parts("detect validation faces", sets.reference[:few], faces_detected)
    return [Metric("face found", float(fake.mean()), float(real.mean()), "more")], {"detector": few}, {}


def _reconstruction(sets: _Sets, G: networks.Generator, options: EvaluateOptions) -> _Measuring:
    few = len(sets.own)
    targets = {"own": sets.own, "validation": sets.reference[:few]}
    if sets.training is not None:
        targets["training"] = sets.other[:few]
    mre, pictures = {}, {}
    for name, crops in targets.items():
        found = yield from in_parts(f"reconstruct {name} faces", crops, partial(reconstruct, G, options=options))
        errors = np.abs(found.astype(np.float64) - crops).mean(axis=(1, 2, 3))
        mre[name] = float(errors.mean())
        if name == "validation":  # show the best, the median and the worst
            order, shown = errors.argsort(kind="stable"), min(4, few)
            middle = (few - shown) // 2
            chosen = np.concatenate([order[:shown], order[middle : middle + shown], order[few - shown :]])
            pictures["reconstructions.png"] = grid([*crops[chosen], *found[chosen]], len(chosen))
    result = [Metric("MRE of validation faces", mre["validation"], mre["own"], "less")]
    if "training" in mre:
        result.append(Metric("MRE of training faces", mre["training"], mre["own"], "as validation"))
    return result, {}, pictures


def _neighbours(sets: _Sets, embeddings: dict[str, NDArray[np.float64]]) -> _Measuring:
    training = sets.training
    if training is None:
        return [], {}, {}
    yield Progress("nearest training faces", 0, 1)
    few = min(len(sets.fake), len(sets.reference), _MAX_SEARCHED)
    # Flipped ones too, since training flips half of the faces.
    pixels = np.concatenate([thumbnails(training), thumbnails(training[:, :, ::-1])])
    found = {
        "embedding": [metrics.nearest(embeddings[name], embeddings["other"]) for name in ("fake", "reference")],
        "pixels": [metrics.nearest(thumbnails(crops[:few]), pixels) for crops in (sets.fake, sets.reference)],
    }
    result = [
        Metric(
            f"nearest training face, {by}, {name}",
            float(np.percentile(fake, percent)),
            float(np.percentile(real, percent)),
            "as real",
        )
        for by, ((fake, _), (real, _)) in found.items()
        for name, percent in (("median", 50), ("1st percentile", 1))
    ]
    (by_face, face_index), (by_pixels, pixel_index) = found["embedding"][0], found["pixels"][0]
    closest = np.concatenate([distances[:few].argsort(kind="stable")[:6] for distances in (by_face, by_pixels)])
    rows = [*sets.fake[closest], *sets.other[face_index[closest]], *training[pixel_index[closest] % len(training)]]
    counts = {"searched by embedding": len(sets.other), "searched by pixels": len(training)}
    return result, counts, {"neighbours.png": grid(rows, len(closest))}


def reconstruct(G: networks.Generator, faces: NDArray[np.uint8], options: EvaluateOptions) -> NDArray[np.uint8]:
    """Find the images of G, in eval mode, with the least absolute difference to given faces: uint8 (N, S, S, 3).

    For each face, Adam optimises the best of `mre_draws` random z, with a learning rate that falls from 0.2 to 0 on a
    cosine schedule. A uniform z stays within its bounds.

    Source: Qi 2020, "Loss-sensitive generative adversarial networks on Lipschitz densities", section 7 (MRE).
    """
    device = device_of(G)
    real = to_tensor(faces).to(device)
    drawn = sample_z(options.mre_draws, G.config, options.seed + 1).to(device)
    with torch.no_grad():
        images = torch.cat([G(part) for part in drawn.split(_BATCH)])
        nearest = torch.cdist(real.flatten(1), images.flatten(1), p=1).argmin(dim=1)
    z = drawn[nearest].requires_grad_(True)
    adam = Adam(z)
    for step in range(options.mre_steps):
        (gradient,) = torch.autograd.grad((G(z) - real).abs().mean(dim=(1, 2, 3)).sum(), z)
        adam.step(gradient, cosine(_LR, 0, step / options.mre_steps))
        if G.config.z_prior == "uniform":
            with torch.no_grad():
                z.clamp_(-1, 1)
    with torch.no_grad():
        return to_image(G(z))


def _real_sets(
    validation: NDArray[np.uint8], training: NDArray[np.uint8] | None, samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """The reference and the baseline's faces, both shuffled, and a description of the baseline."""
    if training is None:
        reference, other = np.array_split(validation, 2)
        words = "the second half of the validation faces against the first"
    else:
        reference, other, words = validation, training, "training faces against validation faces"
    reference, other = rng.permutation(reference), other[rng.permutation(len(other))[:samples]]
    if min(len(reference), len(other)) < LEAST_FACES:
        raise EvaluationError(
            f"{samples} samples, {len(validation)} validation faces and {'no' if training is None else len(training)} "
            f"training faces are too few; expected at least {LEAST_FACES} of each, or {2 * LEAST_FACES} validation "
            "faces without training faces"
        )
    return reference, other, words


def faces_detected(crops: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Run dlib's face detector on crops (N, S, S, 3), enlarged and with a margin: bool (N,)."""
    whole = Alignment.identity(crops.shape[1])
    return np.array([find_landmarks(crop, whole, 5, _VIEW_PX / whole.size, upsample=0) is not None for crop in crops])


def thumbnails(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce faces (N, S, S, 3) to 16x16 thumbnails, in which a shift by a pixel hardly matters: float32 (N, 768).

    Scaled so that the Euclidean distance is the root mean square difference in levels of 255.
    """
    block = faces.shape[1] // _THUMBNAIL_PX
    parts = np.array_split(faces, math.ceil(len(faces) / 1024))  # to limit memory
    shape = (-1, _THUMBNAIL_PX, block, _THUMBNAIL_PX, block, 3)
    small = np.concatenate([part.reshape(shape).mean(axis=(2, 4), dtype=np.float32) for part in parts])
    return small.reshape(len(faces), -1) * np.float32((_THUMBNAIL_PX**2 * 3) ** -0.5)

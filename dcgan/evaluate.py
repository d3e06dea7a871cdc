"""Evaluate a generator: distance to real faces, variety, reconstruction and memorisation, with baselines."""

import importlib.util
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from align.cli import Progress
from align.errors import InputError
from align.landmarks import find_landmarks
from align.warp import Alignment
from dcgan import metrics, similarity
from dcgan.adam import Adam
from dcgan.config import EvaluateOptions
from dcgan.descriptors import describe
from dcgan.networks import Generator
from dcgan.sampling import device_of, generate, in_parts, sample_z
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
    """There are too few faces, or a requested measure is unavailable."""


@dataclass(frozen=True)
class Figure:
    """The result of one measure.

    Attributes:
        name: the measure, with its unit.
        fake: value for generated faces; None if not measured.
        real: real-vs-real baseline, the value for real faces.
        better: "less", "more", or "as real".
        note: why it was not measured.
    """

    name: str
    fake: float | None
    real: float | None
    better: str
    note: str = ""


@dataclass
class Evaluation:
    """The results of an evaluation.

    Attributes:
        options: the settings.
        counts: number of faces by purpose.
        baseline: which real faces are compared for the real-vs-real baseline.
        scales: weight of each scale of MS-SSIM by its side in pixels.
        figures: results of the measures.
        pictures: uint8 (H, W, 3) by file name; "neighbours.png" shows training faces.
        seconds: wall-clock time of each part.
    """

    options: EvaluateOptions
    counts: dict[str, int]
    baseline: str
    scales: dict[int, float]
    figures: list[Figure] = field(default_factory=list)
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything except the pictures."""
        options = asdict(self.options) | {"fid_weights": str(self.options.fid_weights or "")}
        figures = [asdict(figure) for figure in self.figures]
        return {
            "options": options,
            "faces": self.counts,
            "baseline": self.baseline,
            "ms_ssim_scales": self.scales,
            "figures": figures,
            "seconds": {name: round(seconds, 2) for name, seconds in self.seconds.items()},
        }


def evaluate(
    weights: Weights, validation: NDArray[np.uint8], training: NDArray[np.uint8] | None, options: EvaluateOptions
) -> Iterator[Progress | Evaluation]:
    """Measure a generator.

    The real-vs-real baseline compares training faces with validation faces. Without training faces, it compares the
    second half of the validation faces with the first, in the given order so that one person's photos stay together;
    then generated faces are compared with the first half, too. Since most distances fall with the number of faces, as
    many faces are generated as the baseline has real ones.

    Args:
        weights: the generator, and the alignment template of its faces.
        validation: uint8 (N, S, S, 3), faces of people who are not in the training set.
        training: uint8 (M, S, S, 3), the faces that G was trained on.
        options: the settings.
    Yields:
        Progress, then the Evaluation.
    Raises:
        EvaluationError: there are too few faces, or FID is requested but unavailable.
        DescriptorError: face embeddings do not support the alignment template.
        LandmarkModelError: dlib or one of its files is absent.
    """
    rng = np.random.default_rng(options.seed)
    reference, other, baseline = _real_sets(validation, training, options.samples, rng)
    if options.k >= min(len(reference), len(other)):
        raise EvaluationError(f"k is {options.k}; expected fewer than the {min(len(reference), len(other))} faces")
    if options.fid_weights:
        _require_fid(options.fid_weights)
    G = weights.generator
    generator = torch.Generator().manual_seed(options.seed)
    fake = generate(G, sample_z(len(other), G.config, generator))
    few = min(options.mre_faces, len(reference), len(other))
    own = generate(G, sample_z(few, G.config, generator))  # the same random stream, so other images than `fake`
    counts = {"generated": len(fake), "reference": len(reference), "baseline": len(other), "MRE": few}
    scales = {G.config.size >> scale: share for scale, share in enumerate(similarity.ms_ssim_weights(G.config.size))}
    side = min(8, math.isqrt(len(fake)))
    pictures = {"samples.png": _grid([fake[row * side : (row + 1) * side] for row in range(side)])}
    result = Evaluation(options, counts, baseline, scales, pictures=pictures)
    faces = _Faces(reference, other, fake, own, training)
    for name, measure in (
        ("embeddings", _compare_embeddings),
        ("patches", _compare_patches),
        ("variety", _compare_variety),
        ("detector", _compare_detection),
        ("reconstruction", _compare_reconstruction),
        ("neighbours", _compare_neighbours),
        ("FID", _compare_fid),
    ):
        begin = time.monotonic()
        yield from measure(faces, weights, result)
        result.seconds[name] = time.monotonic() - begin
    yield result


@dataclass
class _Faces:
    """Validation faces, the baseline's, generated ones, more to reconstruct, the training set; embeddings by name."""

    reference: NDArray[np.uint8]
    other: NDArray[np.uint8]
    fake: NDArray[np.uint8]
    own: NDArray[np.uint8]
    training: NDArray[np.uint8] | None
    features: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def _compare_embeddings(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    features, device = faces.features, device_of(weights.generator)
    for name, crops in (("reference", faces.reference), ("other", faces.other), ("fake", faces.fake)):
        work = partial(describe, template=weights.template, device=device)
        features[name] = yield from in_parts(f"embed {name} faces", crops, work)
    seed, k = result.options.seed, result.options.k
    fake, real = ((features["reference"], features[name]) for name in ("fake", "other"))
    frechet = metrics.frechet_distance(*fake), metrics.frechet_distance(*real)
    mmd = 1000 * metrics.kernel_distance(*fake, seed), 1000 * metrics.kernel_distance(*real, seed)
    (precision, recall), (real_precision, real_recall) = (metrics.precision_recall(*pair, k) for pair in (fake, real))
    result.figures += [
        Figure("Frechet distance", *frechet, "less"),
        Figure("MMD x1000", *mmd, "less"),
        Figure("precision", precision, real_precision, "more"),
        Figure("recall", recall, real_recall, "more"),
    ]


def _compare_patches(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    yield Progress("sliced Wasserstein distance", 0, 1)
    result.counts["SWD"] = few = min(len(faces.reference), len(faces.other))
    fake, real = (
        metrics.swd(faces.reference[:few], crops[:few], result.options.seed) for crops in (faces.fake, faces.other)
    )
    for level in fake:
        result.figures.append(Figure(f"SWD x1000, {level} px", 1000 * fake[level], 1000 * real[level], "less"))
    mean, real_mean = (1000 * sum(levels.values()) / len(levels) for levels in (fake, real))
    result.figures.append(Figure("SWD x1000, mean", mean, real_mean, "less"))


def _compare_variety(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    yield Progress("MS-SSIM of pairs", 0, 1)
    result.counts["MS-SSIM pairs"] = few = min(len(faces.reference) // 2, len(faces.fake) // 2, _MAX_PAIRS)

    def alike(crops: NDArray[np.uint8]) -> float:
        parts = (slice(begin, min(begin + _BATCH, few)) for begin in range(0, few, _BATCH))
        a, b = crops[:few], crops[few : 2 * few]
        with torch.inference_mode():
            return float(
                torch.cat([similarity.ms_ssim(to_tensor(a[part]), to_tensor(b[part])) for part in parts]).mean()
            )

    result.figures.append(Figure("MS-SSIM of pairs", alike(faces.fake), alike(faces.reference), "as real"))


def _compare_detection(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    result.counts["detector"] = few = min(len(faces.reference), len(faces.fake), _MAX_DETECTED)
    fake = yield from in_parts("detect generated faces", faces.fake[:few], found_faces)
    real = yield from in_parts("detect validation faces", faces.reference[:few], found_faces)
    result.figures.append(Figure("face found", float(fake.mean()), float(real.mean()), "more"))


def _compare_reconstruction(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    few = len(faces.own)
    targets = {"own": faces.own, "validation": faces.reference[:few]}
    if faces.training is not None:
        targets["training"] = faces.other[:few]
    mre = {}
    for name, crops in targets.items():
        work = partial(reconstruct, weights.generator, options=result.options)
        found = yield from in_parts(f"reconstruct {name} faces", crops, work)
        errors = np.abs(found.astype(np.float64) - crops).mean(axis=(1, 2, 3))
        mre[name] = float(errors.mean())
        if name == "validation":
            order, shown = errors.argsort(kind="stable"), min(4, few)
            middle = (few - shown) // 2
            chosen = np.concatenate([order[:shown], order[middle : middle + shown], order[few - shown :]])
            result.pictures["reconstructions.png"] = _grid([crops[chosen], found[chosen]])
    result.figures.append(Figure("MRE of validation faces", mre["validation"], mre["own"], "less"))
    if "training" in mre:
        result.figures.append(Figure("MRE of training faces", mre["training"], mre["own"], "as validation"))


def _compare_neighbours(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    percents = {"median": 50, "1st percentile": 1}
    training, note = faces.training, "needs training faces"
    if training is None:
        names = [f"nearest training face, {by}, {name}" for by in ("embedding", "pixels") for name in percents]
        result.figures += [Figure(name, None, None, "as real", note) for name in names]
        return
    yield Progress("nearest training faces", 0, 1)
    few = min(len(faces.fake), len(faces.reference), _MAX_SEARCHED)
    # Flipped ones too, since training flips half of the faces.
    pixels = np.concatenate([thumbnails(training), thumbnails(training[:, :, ::-1])])
    result.counts |= {"searched by embedding": len(faces.other), "searched by pixels": len(training)}
    found = {
        "embedding": [metrics.nearest(faces.features[name], faces.features["other"]) for name in ("fake", "reference")],
        "pixels": [metrics.nearest(thumbnails(crops[:few]), pixels) for crops in (faces.fake, faces.reference)],
    }
    for by, ((fake, _), (real, _)) in found.items():
        for name, percent in percents.items():
            values = float(np.percentile(fake, percent)), float(np.percentile(real, percent))
            result.figures.append(Figure(f"nearest training face, {by}, {name}", *values, "as real"))
    (near, by_face), (alike, by_pixels) = found["embedding"][0], found["pixels"][0]
    closest = np.concatenate([distances[:few].argsort(kind="stable")[:6] for distances in (near, alike)])
    rows = [faces.fake[closest], faces.other[by_face[closest]], training[by_pixels[closest] % len(training)]]
    result.pictures["neighbours.png"] = _grid(rows)


def _compare_fid(faces: _Faces, weights: Weights, result: Evaluation) -> Iterator[Progress]:
    path = result.options.fid_weights
    if path is None:
        result.figures.append(Figure("FID", None, None, "less", "needs the Inception weights"))
        return
    from torchmetrics.image.fid import FrechetInceptionDistance

    device = device_of(weights.generator)
    fid = FrechetInceptionDistance(reset_real_features=False, feature_extractor_weights_path=str(path)).to(device)

    def update(crops: NDArray[np.uint8], real: bool) -> NDArray[np.bool_]:
        fid.update(torch.from_numpy(crops).permute(0, 3, 1, 2).to(device), real=real)
        return np.empty(0, dtype=bool)

    yield from in_parts("FID, reference", faces.reference, partial(update, real=True))
    distances = []
    for name, crops in (("generated", faces.fake), ("baseline", faces.other)):
        fid.reset()
        yield from in_parts(f"FID, {name}", crops, partial(update, real=False))
        distances.append(float(fid.compute()))
    result.figures.append(Figure("FID", distances[0], distances[1], "less"))


def reconstruct(G: Generator, faces: NDArray[np.uint8], options: EvaluateOptions) -> NDArray[np.uint8]:
    """Find the images of G with the least absolute difference to given faces.

    For each face, Adam optimises the best `mre_restarts` of `mre_draws` random z, with a learning rate that falls from
    0.2 to 0 on a cosine schedule, and the best result is kept. A uniform z stays within its bounds.

    Args:
        G: in eval mode.
        faces: uint8 (N, S, S, 3).
        options: the search settings.
    Returns:
        uint8 (N, S, S, 3).
    Source: Qi 2020, "Loss-sensitive generative adversarial networks on Lipschitz densities", section 7 (MRE).
    """
    device = device_of(G)
    real = to_tensor(faces).to(device)
    drawn = sample_z(options.mre_draws, G.config, torch.Generator().manual_seed(options.seed + 1)).to(device)
    with torch.no_grad():
        images = torch.cat([G(part) for part in drawn.split(_BATCH)])
        far = torch.cdist(real.flatten(1), images.flatten(1), p=1)  # (N, draws)
    starts = far.topk(min(options.mre_restarts, options.mre_draws), largest=False).indices  # (N, restarts)
    z = drawn[starts.flatten()].requires_grad_(True)
    target = real.repeat_interleave(starts.shape[1], dim=0)
    adam = Adam(z)
    for step in range(options.mre_steps):
        (gradient,) = torch.autograd.grad((G(z) - target).abs().mean(dim=(1, 2, 3)).sum(), z)
        adam.step(gradient, _LR * (1 + math.cos(math.pi * step / options.mre_steps)) / 2)
        if G.config.z_prior == "uniform":
            with torch.no_grad():
                z.clamp_(-1, 1)
    with torch.no_grad():
        images = G(z)
        best = (images - target).abs().mean(dim=(1, 2, 3)).view(starts.shape).argmin(dim=1)
    return to_image(images.unflatten(0, starts.shape)[torch.arange(len(faces)), best.cpu()])


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


def found_faces(crops: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Run dlib's face detector on crops (N, S, S, 3), enlarged and with a margin: bool (N,)."""
    whole = Alignment.identity(crops.shape[1])
    zoom = _VIEW_PX / whole.size
    return np.array([find_landmarks(crop, whole, 5, zoom, upsample=0) is not None for crop in crops])


def thumbnails(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce faces (N, S, S, 3) to 16x16 thumbnails, in which a shift by a pixel hardly matters: float32 (N, 768).

    Scaled so that the Euclidean distance is the root mean square difference in levels of 255.
    """
    block = faces.shape[1] // _THUMBNAIL_PX
    parts = np.array_split(faces, math.ceil(len(faces) / 1024))  # to limit memory
    shape = (-1, _THUMBNAIL_PX, block, _THUMBNAIL_PX, block, 3)
    small = np.concatenate([part.reshape(shape).mean(axis=(2, 4), dtype=np.float32) for part in parts])
    return small.reshape(len(faces), -1) * np.float32((_THUMBNAIL_PX**2 * 3) ** -0.5)


def _grid(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.vstack([np.hstack(list(row)) for row in rows])


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _require_fid(path: Path) -> None:
    absent = [name for name in ("torchmetrics", "torch_fidelity") if not _installed(name)]
    if absent:
        raise EvaluationError(f"FID needs {' and '.join(absent)}; run in the project folder: pip install -e '.[fid]'")
    if not path.is_file():
        raise EvaluationError(f"{path} is not a file; expected the Inception weights of torch-fidelity")

"""Arithmetic on z as in the paper, sweeps along directions, and turning heads, with labels measured from landmarks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.cli import Progress
from align.landmarks import find_landmarks
from align.warp import Alignment
from dcgan.dataset import DatasetError
from dcgan.explore.files import Outputs, sheet
from dcgan.explore.registry import LABELS
from dcgan.sampling import generate, lerp, sample_z
from dcgan.weights import Weights

# dlib's detector needs faces of 80 px; at 96 px with a margin of a quarter it finds as many as at 192 px, in a tenth of
# the time.
_VIEW_PX, _AIR = 96, 0.25
_LEAST_FACES = 40  # to fit a direction
_RIDGE = 0.01  # regularisation, as a share of the number of faces
_END = 0.15  # share of the samples that count as having a label, and share that count as lacking it
_NOISE = 0.25
_TRIALS, _FRESH = 8, 64
_SWEEP = (-3, -2, -1, 0, 1, 2, 3)


def measure(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Measure labels of aligned faces from dlib's 68 landmarks and the brightness.

    - mouth open: gap between the inner lips.
    - smile width: distance between the corners of the mouth.
    - turn right: distance of the tip of the nose from the centre between the eyes, positive to the right of the image.
    - eyes open: gap between the lids, mean of both eyes.
    - bright hair: mean luma in [0, 1] of the middle half of the top eighth of the crop.

    Lengths are in units of the distance between the centres of the eyes.

    Returns:
        The labels above of faces uint8 (N, S, S, 3): float64 (N,) each; NaN where dlib finds no face.
    Raises:
        LandmarkModelError: dlib or its landmark file is absent or broken.
    """
    values = np.array([_measure_one(face) for face in faces]).reshape(len(faces), len(LABELS))
    return dict(zip(LABELS, values.T.copy(), strict=True))


def direction(z: Tensor, values: NDArray[np.float64]) -> Tensor:
    """Find the direction of z (N, nz) in which a label grows, by ridge regression: float32 (nz,), of length 1.

    The values of the label are (N,); rows with NaN are ignored.
    """
    known = np.isfinite(values)
    x = z.cpu().double()[torch.from_numpy(known)]
    y = torch.from_numpy(values[known])
    x, y = x - x.mean(dim=0), y - y.mean()
    slope = torch.linalg.solve(x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1]), x.T @ y)
    return (slope / slope.norm()).float()


def directions(weights: Weights, count: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """Find, for each label of `measure`, the direction of z in which it grows while the other labels stay the same.

    The directions, float32 (nz,) of length 1 by label, are fitted to `count` samples.

    Raises:
        DatasetError: too few of the samples are faces.
        LandmarkModelError: see `measure`.
    """
    return _directions(draw_samples(weights, count, seed))


def run(weights: Weights, label: Sequence[str], count: int, seed: int) -> Iterator[Progress | Outputs]:
    """Add and subtract mean z as in the paper, sweep along the direction of each label, and turn heads.

    Raises:
        DatasetError: too few of the samples are faces.
    Source: Radford et al., ICLR 2016, section 6.3.2, figures 7 and 8.
    """
    yield Progress("samples", 0, 1)
    drawn = draw_samples(weights, count, seed)
    rng = np.random.default_rng(seed)
    ways = _directions(drawn)
    rows: list[tuple[str, NDArray[np.uint8]]] = []
    numbers: dict[str, Any] = {"samples": count, "faces": int(drawn.found.sum()), "arithmetic": {}}
    for index, name in enumerate(label):
        yield Progress("arithmetic", index, len(label))
        low, high = extremes(drawn.values[name])
        trials = [Trial(rng.choice(high, 3, False), *rng.choice(low, (2, 3), False)) for _ in range(_TRIALS)]
        rows += _rows(weights, drawn, name, trials[0], rng)
        numbers["arithmetic"][name] = _score(weights, drawn, name, trials, rng)
    yield Progress("sweeps", 0, 1)
    fresh = sample_z(_FRESH, weights.generator.config, seed + 1)
    swept = {name: ways[name] for name in label}
    numbers["change_per_unit_in_stds"] = label_changes(weights, drawn, swept, fresh)
    amounts = torch.tensor(_SWEEP)[:, None]
    sweeps = [
        (name if index == 0 else "", generate(weights.generator, start + amounts * way))
        for name, way in swept.items()
        for index, start in enumerate(fresh[:2])
    ]
    yield Progress("turn", 0, 1)
    turned, numbers["turn"] = _turn(weights, drawn, fresh)
    yield {
        "arithmetic.png": sheet(rows),
        "sweep.png": sheet(sweeps, [f"{amount:+d}" if amount else "0" for amount in _SWEEP]),
        "turn.png": turned,
        "arithmetic.json": numbers,
    }


class Samples(NamedTuple):
    """Samples: z (N, nz), faces uint8 (N, S, S, 3), values of the labels (N,), and whether dlib finds a face (N,)."""

    z: Tensor
    faces: NDArray[np.uint8]
    values: dict[str, NDArray[np.float64]]
    found: NDArray[np.bool_]


class Trial(NamedTuple):
    """The numbers of the samples whose means are combined as a - b + c."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    c: NDArray[np.int64]


def draw_samples(weights: Weights, count: int, seed: int) -> Samples:
    z = sample_z(count, weights.generator.config, seed)
    faces = generate(weights.generator, z)
    values = measure(faces)
    return Samples(z, faces, values, faces_found(values))


def faces_found(values: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Return in which of the samples dlib found a face, bool (N,), from the labels that `measure` returned.

    Raises:
        DatasetError: there are too few to fit a direction.
    """
    found = np.isfinite(values[LABELS[0]])
    if found.sum() < _LEAST_FACES:
        raise DatasetError(
            f"dlib finds a face in {found.sum()} of {len(found)} samples; expected at least {_LEAST_FACES}. Draw more "
            "samples, or use weights that generate faces"
        )
    return found


def _directions(drawn: Samples) -> dict[str, Tensor]:
    """The direction of each label, orthogonal to those of the others, so that an open mouth is not also a smile."""
    ways = torch.stack([direction(drawn.z, values) for values in drawn.values.values()])
    found = {}
    for index, label in enumerate(drawn.values):
        others = torch.cat([ways[:index], ways[index + 1 :]]).T  # (nz, labels - 1)
        own = ways[index] - others @ torch.linalg.lstsq(others, ways[index, :, None]).solution[:, 0]
        found[label] = own / own.norm()
    return found


def _measure_one(face: NDArray[np.uint8]) -> list[float]:
    whole = Alignment.identity(len(face))
    points = find_landmarks(face, whole, zoom=_VIEW_PX / len(face), air=_AIR, upsample=0)
    if points is None:
        return [np.nan] * len(LABELS)
    one, other = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    across = (other - one) / np.square(other - one).sum()  # projects to units of the distance between the eyes

    def gap(upper: list[int], lower: list[int]) -> float:
        return float(np.linalg.norm(points[upper] - points[lower], axis=1).mean() * np.linalg.norm(across))

    side = len(face)
    hair = face[: side // 8, side // 4 : side - side // 4] @ np.array([0.299, 0.587, 0.114]) / 255
    return [
        gap([61, 62, 63], [67, 66, 65]),
        gap([48], [54]),
        float((points[30] - (one + other) / 2) @ across),
        gap([37, 38, 43, 44], [41, 40, 47, 46]),
        float(hair.mean()),
    ]


def extremes(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows with the lowest and the highest values of a label."""
    order = values.argsort()[: np.isfinite(values).sum()]  # NaN are sorted last
    few = max(6, round(_END * len(order)))
    return order[:few], order[-few:]


def _combined(z: Tensor, trial: Trial, rng: np.random.Generator) -> Tensor:
    """Combine mean z to a - b + c, see `_varied`."""
    a, b, c = (z[rows].mean(dim=0) for rows in trial)
    return _varied(a - b + c, rng)


def _varied(z: Tensor, rng: np.random.Generator) -> Tensor:
    """Stack z (nz,) itself and eight noisy copies: (9, nz)."""
    noise = rng.uniform(-_NOISE, _NOISE, (9, len(z))) * (np.arange(9) > 0)[:, None]
    return z + torch.from_numpy(noise).float()


def pixel_arithmetic(faces: NDArray[np.uint8], trial: Trial) -> NDArray[np.uint8]:
    a, b, c = (faces[rows].mean(axis=0) for rows in trial)
    return (a - b + c).round().clip(0, 255).astype(np.uint8)[None]


def _rows(
    weights: Weights, drawn: Samples, label: str, trial: Trial, rng: np.random.Generator
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Rows of the faces that are combined, each followed by the face of their mean z, and of the results."""

    def terms(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.concatenate([drawn.faces[chosen], generate(weights.generator, drawn.z[chosen].mean(dim=0)[None])])

    return [
        (f"{label}, mean", terms(trial.a)),
        ("- without, mean", terms(trial.b)),
        ("+ others, mean", terms(trial.c)),
        ("= and noise", generate(weights.generator, _combined(drawn.z, trial, rng))),
        ("= of pixels", pixel_arithmetic(drawn.faces, trial)),
    ]


def _score(
    weights: Weights, drawn: Samples, label: str, trials: list[Trial], rng: np.random.Generator
) -> dict[str, float]:
    """Share of the results in which dlib finds a face, and share whose label is above the median of the samples."""
    z = torch.cat([_combined(drawn.z, trial, rng) for trial in trials])
    c_alone = torch.cat([_varied(drawn.z[trial.c].mean(dim=0), rng) for trial in trials])
    results = {
        "z": generate(weights.generator, z),
        "pixels": np.concatenate([pixel_arithmetic(drawn.faces, trial) for trial in trials]),
        "c_alone": generate(weights.generator, c_alone),
    }
    middle, scores = np.nanmedian(drawn.values[label]), {}
    for name, faces in results.items():
        found = measure(faces)[label]
        scores[f"{name}_face_found"] = float(np.isfinite(found).mean())
        scores[f"{name}_has_label"] = float((found > middle).mean())
    return scores


def label_changes(
    weights: Weights, drawn: Samples, ways: Mapping[str, Tensor], fresh: Tensor
) -> dict[str, dict[str, float]]:
    """Change of each label, in its standard deviations over the samples, per unit along each direction."""
    found = {}
    for name, way in ways.items():
        less, more = (measure(generate(weights.generator, fresh + step * way)) for step in (-2, 2))
        found[name] = {
            label: float(np.nanmean((more[label] - less[label]) / 4) / np.nanstd(drawn.values[label]))
            for label in LABELS
        }
    return found


def _turn(weights: Weights, drawn: Samples, fresh: Tensor) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """Add the paper's turn vector, from four faces that look left to four that look right, to random samples."""
    values = drawn.values["turn right"]
    order = values.argsort()[: drawn.found.sum()]
    turn = drawn.z[order[-4:]].mean(dim=0) - drawn.z[order[:4]].mean(dim=0)
    way = lerp(-turn / 2, turn / 2, 7)
    rows = [(f"sample {index + 1}", generate(weights.generator, z + way)) for index, z in enumerate(fresh[:4])]
    left, right = (measure(generate(weights.generator, fresh + end))["turn right"] for end in (way[0], way[-1]))
    both = np.isfinite(left) & np.isfinite(right)
    numbers = {
        "face_found_at_both_ends": float(both.mean()),
        "turned_right": float((right[both] > left[both]).mean()) if both.any() else 0.0,
        "change_in_stds": float((right[both] - left[both]).mean() / np.nanstd(values)) if both.any() else 0.0,
    }
    return sheet(rows), numbers

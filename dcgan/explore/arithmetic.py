"""Arithmetic on z: smile - no smile + another, sweeps along directions, a turn of the head; labels without people."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.cli import at_least
from align.landmarks import find_landmarks
from align.warp import Alignment
from dcgan.checkpoint import Weights
from dcgan.config import ConfigError
from dcgan.dataset import DatasetError
from dcgan.explore.files import Files, sheet
from dcgan.explore.walk import lerp
from dcgan.sampling import Progress, generate, sample_z

LABELS = ("mouth open", "smile width", "turn right", "eyes open", "bright hair")
# dlib's detector begins at 80 px; at 96 with a quarter of air it finds as many of the faces as at 192, in a tenth of
# the time.
_VIEW_PX, _AIR = 96, 0.25
_LEAST_FACES = 40  # to learn a direction from
_RIDGE = 0.01  # of the number of faces
_END = 0.15  # share of the samples that have a label, and share that lack it
_NOISE = 0.25
_TRIALS, _FRESH = 8, 64
_SWEEP = (-3, -2, -1, 0, 1, 2, 3)

# Label to the numbers of the samples "with" it and "without" it.
Lists = Mapping[str, Mapping[str, Sequence[int]]]


def measure(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """What dlib's 68 landmarks and the brightness tell of aligned faces.

    - mouth open: the gap between the inner lips.
    - smile width: from one corner of the mouth to the other.
    - turn right: the tip of the nose from the middle between the eyes, positive to the picture's right.
    - eyes open: the gap between the lids, mean of both eyes.
    - bright hair: mean luma in [0, 1] of the middle half of the uppermost eighth of the crop.

    Lengths are in distances between the eyes' centres.

    Args:
        faces: uint8 (N, S, S, 3), aligned.
    Returns:
        The labels above, float64 (N,) each; NaN where dlib finds no face.
    Raises:
        LandmarkModelError: dlib or its landmark file is absent or broken.
    """
    values = np.array([_measure_one(face) for face in faces]).reshape(len(faces), len(LABELS))
    return dict(zip(LABELS, values.T.copy(), strict=True))


def direction(z: Tensor, values: NDArray[np.float64]) -> Tensor:
    """The way in which a label grows: the weights of a ridge regression of the label on z, scaled to length 1.

    Args:
        z: float32 (N, nz).
        values: (N,); where it is no finite number the row does not count.
    Returns:
        float32 (nz,).
    """
    known = np.isfinite(values)
    x = z.cpu().double()[torch.from_numpy(known)]
    y = torch.from_numpy(values[known])
    x, y = x - x.mean(dim=0), y - y.mean()
    slope = torch.linalg.solve(x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1]), x.T @ y)
    return (slope / slope.norm()).float()


def directions(weights: Weights, count: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """For each label of `measure` the direction of z in which it grows and the others stay, learnt from samples.

    Args:
        weights: the generator.
        count: samples to learn from.
        seed: of the samples.
    Returns:
        Label to float32 (nz,), of length 1.
    Raises:
        DatasetError: too few of the samples are faces.
        LandmarkModelError: dlib or its landmark file is absent or broken.
    """
    return _directions(_draw(weights, count, seed))


def arithmetic(
    weights: Weights, labels: Sequence[str], lists: Lists, count: int, seed: int
) -> Iterator[Progress | Files]:
    """Add and subtract mean z's as in the paper, sweep along each label's direction, and turn heads.

    Args:
        weights: the generator.
        labels: some of LABELS.
        lists: labels that people saw: numbers of the samples of that seed, at least 1 with and 2 without it. Nothing
            measures those.
        count: samples to find faces with and without a label among.
        seed: of every choice.
    Yields:
        Progress, then arithmetic.png, sweep.png, turn.png and arithmetic.json.
    Raises:
        DatasetError: too few of the samples are faces, or a list cannot be used.
    Source: Radford et al., ICLR 2016, section 6.3.2, figures 7 and 8.
    """
    _check_lists(lists, count)
    yield Progress("samples", 0, 1)
    drawn = _draw(weights, count, seed)
    rng = np.random.default_rng(seed)
    ways = _directions(drawn)
    rows: list[tuple[str, NDArray[np.uint8]]] = []
    numbers: dict[str, Any] = {"samples": count, "faces": int(drawn.found.sum()), "arithmetic": {}}
    for index, label in enumerate(labels):
        yield Progress("arithmetic", index, len(labels))
        low, high = _ends(drawn.values[label])
        trials = [_Trial(rng.choice(high, 3, False), *rng.choice(low, (2, 3), False)) for _ in range(_TRIALS)]
        rows += _figure(weights, drawn, label, trials[0], rng)
        numbers["arithmetic"][label] = _score(weights, drawn, label, trials, rng)
    for label, sides in lists.items():
        trial = _Trial(np.array(sides["with"]), *np.array_split(sides["without"], 2))
        rows += _figure(weights, drawn, label, trial, rng)
        apart = drawn.z[list(sides["with"])].mean(dim=0) - drawn.z[list(sides["without"])].mean(dim=0)
        ways[label] = apart / apart.norm()
    yield Progress("sweeps", 0, 1)
    fresh = sample_z(_FRESH, weights.generator.config, torch.Generator().manual_seed(seed + 1))
    swept = {label: ways[label] for label in [*labels, *lists]}
    numbers["change_per_unit_in_deviations"] = _responses(weights, drawn, swept, fresh)
    yield Progress("turn", 0, 1)
    turned, numbers["turn"] = _turn(weights, drawn, fresh)
    yield {
        "arithmetic.png": sheet(rows),
        "sweep.png": _sweeps(weights, swept, fresh[:2]),
        "turn.png": turned,
        "arithmetic.json": numbers,
    }


@dataclass(frozen=True)
class _Drawn:
    """Samples: z (N, nz), faces uint8 (N, S, S, 3), the labels' values (N,), and in which dlib finds a face (N,)."""

    z: Tensor
    faces: NDArray[np.uint8]
    values: dict[str, NDArray[np.float64]]
    found: NDArray[np.bool_]


class _Trial(NamedTuple):
    """A sum of three means, a - b + c: the numbers of the samples of each."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    c: NDArray[np.int64]


def _draw(weights: Weights, count: int, seed: int) -> _Drawn:
    z = sample_z(count, weights.generator.config, torch.Generator().manual_seed(seed))
    faces = generate(weights.generator, z)
    values = measure(faces)
    found = np.isfinite(values[LABELS[0]])
    if found.sum() < _LEAST_FACES:
        raise DatasetError(
            f"dlib finds a face in {found.sum()} of {count} samples, at least {_LEAST_FACES} are needed; "
            "draw more of them, or take weights that make faces"
        )
    return _Drawn(z, faces, values, found)


def _directions(drawn: _Drawn) -> dict[str, Tensor]:
    """Each label's direction without what it shares with the others': an open mouth need not be a smile."""
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
    across = (other - one) / np.square(other - one).sum()  # a length along it comes out in distances of the eyes

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


def _ends(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The samples with the least and those with the most of a label, numbers of the rows."""
    order = values.argsort()[: np.isfinite(values).sum()]  # NaN comes last
    few = max(6, round(_END * len(order)))
    return order[:few], order[-few:]


def _combine(z: Tensor, trial: _Trial) -> Tensor:
    a, b, c = (z[rows].mean(dim=0) for rows in trial)
    return a - b + c


def _varied(z: Tensor, rng: np.random.Generator) -> Tensor:
    """The z (nz,) itself and eight with noise: (9, nz)."""
    noise = rng.uniform(-_NOISE, _NOISE, (9, len(z))) * (np.arange(9) > 0)[:, None]
    return z + torch.from_numpy(noise).float()


def _in_pixels(faces: NDArray[np.uint8], trial: _Trial) -> NDArray[np.uint8]:
    a, b, c = (faces[rows].mean(axis=0) for rows in trial)
    return (a - b + c).round().clip(0, 255).astype(np.uint8)[None]


def _figure(
    weights: Weights, drawn: _Drawn, label: str, trial: _Trial, rng: np.random.Generator
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Three rows of faces, each with the face of their mean z behind it, and what comes out."""

    def terms(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.concatenate([drawn.faces[chosen], generate(weights.generator, drawn.z[chosen].mean(dim=0)[None])])

    return [
        (f"{label}, mean", terms(trial.a)),
        ("- without, mean", terms(trial.b)),
        ("+ others, mean", terms(trial.c)),
        ("= and noise", generate(weights.generator, _varied(_combine(drawn.z, trial), rng))),
        ("= of pixels", _in_pixels(drawn.faces, trial)),
    ]


def _score(
    weights: Weights,
    drawn: _Drawn,
    label: str,
    trials: list[_Trial],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Shares of the results in which dlib finds a face, and in which the label is above the samples' median."""
    middle = np.nanmedian(drawn.values[label])
    z = [torch.cat([_varied(_combine(drawn.z, trial), rng) for trial in trials])]
    z += [torch.cat([_varied(drawn.z[trial.c].mean(dim=0), rng) for trial in trials])]
    results = {
        "z": generate(weights.generator, z[0]),
        "pixels": np.concatenate([_in_pixels(drawn.faces, trial) for trial in trials]),
        "c_alone": generate(weights.generator, z[1]),
    }
    scores = {}
    for name, faces in results.items():
        found = measure(faces)[label]
        scores[f"{name}_face_found"] = float(np.isfinite(found).mean())
        scores[f"{name}_has_label"] = float((found > middle).mean())
    return scores


def _responses(
    weights: Weights, drawn: _Drawn, ways: Mapping[str, Tensor], fresh: Tensor
) -> dict[str, dict[str, float]]:
    """How far each label moves, in its deviations over the samples, for one unit along each direction."""
    found = {}
    for name, way in ways.items():
        less, more = (measure(generate(weights.generator, fresh + step * way)) for step in (-2, 2))
        found[name] = {
            label: float(np.nanmean((more[label] - less[label]) / 4) / np.nanstd(drawn.values[label]))
            for label in LABELS
        }
    return found


def _sweeps(weights: Weights, ways: Mapping[str, Tensor], starts: Tensor) -> NDArray[np.uint8]:
    amounts = torch.tensor(_SWEEP)[:, None]
    rows = [
        (name if index == 0 else "", generate(weights.generator, start + amounts * way))
        for name, way in ways.items()
        for index, start in enumerate(starts)
    ]
    return sheet(rows, [f"{amount:+d}" if amount else "0" for amount in _SWEEP])


def _turn(weights: Weights, drawn: _Drawn, fresh: Tensor) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """The paper's turn vector, from four faces that look left to four that look right, added to random samples."""
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
        "change_in_deviations": float((right[both] - left[both]).mean() / np.nanstd(values)) if both.any() else 0.0,
    }
    return sheet(rows), numbers


def _check_lists(lists: Lists, count: int) -> None:
    for label, sides in lists.items():
        for side, least in (("with", 1), ("without", 2)):
            given = sides.get(side, [])
            if len(given) < least or not all(isinstance(index, int) and 0 <= index < count for index in given):
                raise DatasetError(
                    f'the label {label!r} has {given} for "{side}"; expected at least {least} numbers of samples, from '
                    f"0 to {count - 1}"
                )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the experiment's own flags."""
    parser.add_argument(
        "--label", action="append", help="a label that is measured, may be repeated: mouth open, ... (all)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.json",
        help='your own: {"glasses": {"with": [3, 17], "without": [0, 1, 2]}}, numbers of the samples of --seed',
    )
    parser.add_argument("--count", type=at_least(1), default=1000, help="samples to choose from (%(default)s)")


def run(arguments: argparse.Namespace, weights: Weights) -> Iterator[Progress | Files]:
    """Run the experiment as the command line has it."""
    labels = arguments.label or LABELS
    check_labels(labels)
    try:
        lists = json.loads(arguments.labels.read_text()) if arguments.labels else {}
        if not all(isinstance(sides, dict) for sides in lists.values()):
            raise ValueError("a label is no object")
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(
            f'the labels {arguments.labels} cannot be read ({error}); expected {{"name": {{"with": [...], '
            '"without": [...]}} in JSON'
        ) from error
    return arithmetic(weights, labels, lists, arguments.count, arguments.seed)


def check_labels(labels: Sequence[str]) -> None:
    """See that every label can be measured.

    Raises:
        ConfigError: one cannot.
    """
    unknown = [label for label in labels if label not in LABELS]
    if unknown:
        raise ConfigError(f"the label {unknown[0]!r} cannot be measured, only: {', '.join(LABELS)}")

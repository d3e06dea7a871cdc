"""Compare ways to find damage, and to restore photos: on whole photos, with damage drawn as in no training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from align.files import list_photos
from align.photo import read_photo
from align.picture import grid
from align.resize import reduced, scale_to
from completion.benchmark.config import BenchmarkOptions
from completion.benchmark.methods import BenchmarkError, classical
from completion.benchmark.samples import subsample
from completion.benchmark.tones import toned
from completion.completer import FaceCompleter
from completion.damage import find_damage
from completion.masks import Marked
from completion.picture import overlay_mask
from dcgan.damage import score
from dcgan.metrics import detail, psnr
from dcgan.report import markdown

Pixels = NDArray[np.uint8]
Hole = NDArray[np.bool_]
Shape = tuple[int, int]
Floats = NDArray[np.float64]
Rng = np.random.Generator
_UNIT_PX = 600  # side of a photo whose finest cracks are about a pixel wide
_TONES = ("colour", "grey", "sepia", "faded")
_GRAIN = 3  # standard deviation in grey levels
_TOPHAT_PX = 9
_LARGEST_PX = 1000  # longer side of the photos
_SHOWN, _SHOWN_PX = 8, 400
MIXED, CLEAN = "mixed", "clean"


# Ways to draw: opacity float (H, W) in [0, 1] for a photo of this size, and its material. They share nothing with
# those of dcgan.damage: cracks are fractal, profiles come from distances, spots from filtered noise.


def _crack(shape: Shape, unit: float, rng: Rng) -> Floats:
    opacity = np.zeros(shape)
    for _ in range(rng.integers(1, 4)):
        begin, end = rng.uniform(0, 1, (2, 2)) * shape[::-1]
        points = _fractal(begin, end, rng, 0.12)
        opacity = np.maximum(opacity, _profile(shape, points, unit * rng.uniform(0.7, 2.5), hard=True))
        for _ in range(rng.integers(0, 4)):
            begin = points[rng.integers(len(points))]
            branch = _fractal(begin, begin + rng.normal(0, 0.12, 2) * max(shape), rng, 0.2)
            opacity = np.maximum(opacity, _profile(shape, branch, unit * rng.uniform(0.5, 1.2), hard=True))
    return opacity


def _scratches(shape: Shape, unit: float, rng: Rng) -> Floats:
    opacity, angle = np.zeros(shape), rng.uniform(0, np.pi)
    for _ in range(rng.integers(2, 10)):
        begin, turn = rng.uniform(0, 1, 2) * shape[::-1], angle + rng.normal(0, 0.3)
        end = begin + rng.uniform(0.05, 0.5) * max(shape) * np.array([np.cos(turn), np.sin(turn)])
        line = _profile(shape, np.linspace(begin, end, 20), unit * rng.uniform(0.5, 1))
        opacity = np.maximum(opacity, rng.uniform(0.5, 1) * line)
    return opacity


def _dust(shape: Shape, unit: float, rng: Rng) -> Floats:
    points = (rng.random(shape) < 40 / (shape[0] * shape[1])) * rng.uniform(0.5, 2, shape)
    spots = cv2.GaussianBlur(points, (0, 0), 1.2 * unit)
    return np.clip(spots * 12 * unit**2, 0, 1)


def _hairs(shape: Shape, unit: float, rng: Rng) -> Floats:
    opacity, t = np.zeros(shape), np.linspace(0, 1, 60)[:, None]
    for _ in range(rng.integers(1, 5)):
        corners = rng.uniform(0, 1, 2) * shape[::-1] + rng.normal(0, 0.12, (4, 2)) * max(shape)
        weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
        opacity = np.maximum(opacity, _profile(shape, weights @ corners, unit * 0.7))
    return opacity


def _flakes(shape: Shape, unit: float, rng: Rng) -> Floats:
    coarse, fine = (cv2.GaussianBlur(rng.normal(size=shape), (0, 0), sigma * unit) for sigma in (6, 1.5))
    field = coarse / coarse.std() + 0.25 * fine / fine.std()
    return np.clip((field - np.quantile(field, rng.uniform(0.985, 0.998))) * 20, 0, 1)


def _torn(shape: Shape, unit: float, rng: Rng) -> Floats:
    height, width = shape
    top, side = np.array([width * rng.uniform(0.1, 0.4), 0]), np.array([0, height * rng.uniform(0.1, 0.4)])
    edge = _fractal(top, side, rng, 0.1)
    outline = np.concatenate([edge, [[-9, edge[-1, 1]], [-9, -9], [edge[0, 0], -9]]])
    opacity = cv2.fillPoly(np.zeros(shape), [np.round(outline).astype(np.int32)], 1)
    turns = rng.integers(2, size=2)
    return opacity[:: 1 - 2 * turns[0], :: 1 - 2 * turns[1]].astype(np.float64)


def _stains(shape: Shape, unit: float, rng: Rng) -> Floats:
    field = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 22 * unit)
    return np.clip((field / field.std() - 2.0) * 3, 0, rng.uniform(0.5, 0.9))


def _writing(shape: Shape, unit: float, rng: Rng) -> Floats:
    t = np.linspace(0, rng.uniform(10, 30), 400)
    loops = np.column_stack([9 * t + 8 * np.sin(2.1 * t), 14 * np.sin(1.3 * t) + 5 * np.cos(3.7 * t)])
    points = rng.uniform(0.05, 0.6, 2) * shape[::-1] + unit * rng.uniform(0.6, 1.5) * loops
    return _profile(shape, points, unit * rng.uniform(0.8, 2), hard=True)


_LIGHT, _DARK, _INK, _BROWN = (250, 246, 236), (22, 20, 24), (28, 40, 120), (96, 70, 38)
_Draw = Callable[[Shape, float, Rng], Floats]
KINDS: dict[str, tuple[_Draw, tuple[tuple[int, int, int], ...]]] = {
    "cracks": (_crack, (_LIGHT, _LIGHT, _DARK)),
    "scratches": (_scratches, (_LIGHT, _DARK)),
    "dust": (_dust, (_LIGHT, _DARK)),
    "hairs": (_hairs, (_LIGHT, _DARK)),
    "flakes": (_flakes, (_LIGHT, _LIGHT, _DARK)),
    "torn": (_torn, (_LIGHT, _DARK)),
    "stains": (_stains, (_BROWN, _DARK)),
    "writing": (_writing, (_INK, _DARK)),
}


def _fractal(begin: Floats, end: Floats, rng: Rng, rough: float) -> Floats:
    """A ragged line by midpoint displacement: points (N, 2)."""
    points, reach = np.stack([begin, end]), rough * float(np.linalg.norm(end - begin))
    while reach > 0.5:
        between = (points[:-1] + points[1:]) / 2 + rng.normal(0, reach / 2, (len(points) - 1, 2))
        points = np.insert(points, range(1, len(points)), between, axis=0)
        reach /= 2
    return points


def _profile(shape: Shape, points: Floats, radius: float, hard: bool = False) -> Floats:
    """Opacity by the distance from a line, with a hard or a soft edge."""
    line = np.ones(shape, dtype=np.uint8)
    cv2.polylines(line, [np.round(points).astype(np.int32)], False, 0)
    away = cv2.distanceTransform(line, cv2.DIST_L2, 5).astype(np.float64)
    return np.clip(radius + 0.5 - away, 0, 1) if hard else np.exp(-np.square(away / (radius + 0.3)))


@dataclass(frozen=True)
class Damaged:
    """A photo with damage.

    Attributes:
        kind: a name in KINDS, MIXED for four of them, or CLEAN.
        truth: uint8 (H, W, 3), the photo without it.
        pixels: uint8 (H, W, 3), with it.
        hole: bool (H, W), where it is.
    """

    kind: str
    truth: Pixels
    pixels: Pixels
    hole: Hole


def damage_photo(photo: Pixels, kind: str, number: int, seed: int) -> Damaged:
    """Give a photo (H, W, 3) a tone, grain, and damage of a kind; `number` is that of the photo."""
    rng = np.random.default_rng([seed, number, [*KINDS, MIXED, CLEAN].index(kind)])
    truth = toned(photo, _TONES[number % len(_TONES)]) + rng.normal(0, _GRAIN, (*photo.shape[:2], 1))
    truth, total = np.clip(truth, 0, 255), np.zeros(photo.shape[:2])
    names = {MIXED: list(rng.choice(list(KINDS), 4, replace=False)), CLEAN: []}.get(kind, [kind])
    values, unit = truth.copy(), max(1.0, min(photo.shape[:2]) / _UNIT_PX)
    for name in names:
        draw, materials = KINDS[name]
        opacity = draw(photo.shape[:2], unit, rng)
        values += opacity[..., None] * (np.array(materials[rng.integers(len(materials))]) - values)
        total = np.maximum(total, opacity)
    hole = (total > 0.3) & (cv2.blur(np.abs(values - truth).max(axis=2), (5, 5)) > 6)
    return Damaged(kind, truth.round().astype(np.uint8), values.round().astype(np.uint8), hole)


def tophat_damage(pixels: Pixels) -> Hole:
    """Find damage by morphology, the usual recipe: what is thin and much lighter or darker than its surroundings."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_TOPHAT_PX, _TOPHAT_PX))
    change = np.maximum(*(cv2.morphologyEx(grey, how, kernel) for how in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)))
    _, marked = cv2.threshold(cv2.medianBlur(change, 3), 0, 255, cv2.THRESH_OTSU)
    return cv2.dilate(marked, np.ones((3, 3), np.uint8)) > 0


FINDERS: dict[str, Callable[[Pixels], Hole]] = {"network": find_damage, "top-hat": tophat_damage}


@dataclass(frozen=True)
class DamageRow:
    """Means over all photos.

    Attributes:
        method: what was compared: a finder, or a mask and a fill.
        kind: a name in KINDS, MIXED or CLEAN.
        n: number of photos.
        figures: those of `dcgan.damage.score`; or hole_psnr, ssim and detail of restored photos in the damaged area.
    """

    method: str
    kind: str
    n: int
    figures: dict[str, float]


def compare_damage(photos: Sequence[Pixels], seed: int, completer: FaceCompleter) -> Iterator[DamageRow]:
    """Find damage of each kind in all photos, by each finder; then restore those with mixed damage in several ways."""
    for kind in (*KINDS, MIXED, CLEAN):
        drawn = [damage_photo(photo, kind, number, seed) for number, photo in enumerate(photos)]
        for name, find in FINDERS.items():
            yield DamageRow(name, kind, len(drawn), score((find(each.pixels), each.hole) for each in drawn))
    drawn = [damage_photo(photo, MIXED, number, seed) for number, photo in enumerate(photos)]
    masks = {name: [find(each.pixels) for each in drawn] for name, find in FINDERS.items()}
    masks["true mask"] = [each.hole for each in drawn]
    yield _restored("as it is", drawn, [each.pixels for each in drawn])
    for name, holes in masks.items():
        pairs = list(zip(drawn, holes, strict=True))
        ours = [restore(each.pixels, hole, completer) for each, hole in pairs]
        yield _restored(f"{name}, ours", drawn, ours)
        yield _restored(
            f"{name}, Telea", drawn, [classical("telea", each.pixels[None], hole[None])[0] for each, hole in pairs]
        )


def restore(pixels: Pixels, hole: Hole, completer: FaceCompleter) -> Pixels:
    """Fill the damage of a photo, if there is any."""
    return completer(pixels, Marked(hole, damage=True)).pixels


def _restored(method: str, drawn: Sequence[Damaged], results: Sequence[Pixels]) -> DamageRow:
    from skimage.metrics import structural_similarity

    rows = []
    for each, restored in zip(drawn, results, strict=True):
        _, similar = structural_similarity(each.truth, restored, channel_axis=2, data_range=255, full=True)
        sharp, true = detail(restored, each.hole), detail(each.truth, each.hole)
        rows.append((psnr(each.truth, restored, each.hole), float(similar[each.hole].mean()), sharp / max(true, 1e-6)))
    means = np.array(rows).mean(axis=0).tolist()
    return DamageRow(method, MIXED, len(drawn), dict(zip(("hole_psnr", "ssim", "detail"), means, strict=True)))


def read_clean(folders: Sequence[Path], options: BenchmarkOptions) -> list[Pixels]:
    """Read up to `options.limit` photos without damage, the large ones at a reduced size.

    Raises:
        BenchmarkError: there are no photos.
        PhotoError: a photo cannot be read.
    """
    paths = [path for folder in folders for path in list_photos(folder)]
    if not paths:
        raise BenchmarkError(f"found no photos in {', '.join(map(str, folders))}; give folders of photos")
    photos = [read_photo(paths[position]).pixels for position in subsample(len(paths), options)]
    return [reduced(photo, scale_to(photo.shape, _LARGEST_PX)) for photo in photos]


def tables(rows: Sequence[DamageRow]) -> str:
    """Format the rows as Markdown: what was found, and what was restored."""
    parts = []
    for title, first in (("Found", "iou"), ("Restored", "hole_psnr")):
        those = [row for row in rows if first in row.figures]
        body = [
            [row.method, row.kind, str(row.n), *(f"{value:.4g}" for value in row.figures.values())] for row in those
        ]
        parts += [f"## {title}\n\n{markdown([['method', 'damage', 'n', *those[0].figures], *body])}"] if those else []
    return "\n\n".join(parts)


def sheet(photos: Sequence[Pixels], seed: int, completer: FaceCompleter) -> Pixels:
    """Pictures of the first photos: damaged, what was found, restored."""
    cells = []
    for number, photo in enumerate(photos[:_SHOWN]):
        pixels = damage_photo(photo, MIXED, number, seed).pixels
        hole = find_damage(pixels)
        for each in (pixels, overlay_mask(pixels, hole), restore(pixels, hole, completer)):
            cells.append(cv2.resize(each, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_AREA).astype(np.uint8))
    return grid(np.stack(cells), 3)

"""Draw the damage of old prints on photos, and things that only look like it, to train the finder."""

from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]  # floating point
_FINE = 2  # strokes are drawn this many times as large, so that they can be thinner than a pixel
_VISIBLE = 6  # grey levels by which damage must differ from the photo to count
_SOLID = 0.35  # share of a mark's greatest opacity from which a pixel counts as damaged
_CLEAN = 0.4  # share of the crops without damage
_FREE_PX = 2  # by how much the edge of a mark may be off


class Layer:
    """What lies on a photo.

    Args:
        opacity: (S, S) in [0, 1].
        colour: (S, S, 3) or (3,), grey levels.
        shade: (S, S), factor on the light of the photo beneath, which is no damage by itself; None for no change.
    """

    def __init__(self, opacity: Pixels, colour: Pixels, shade: Pixels | None = None) -> None:
        self.opacity = np.clip(opacity, 0, 1).astype(np.float32)
        self.colour = np.clip(colour, 0, 255).astype(np.float32)
        self.shade = shade

    def over(self, pixels: Pixels) -> Pixels:
        """The photo (S, S, 3) beneath the layer, without its shade."""
        return pixels + self.opacity[..., None] * (self.colour - pixels)


def damaged(crop: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Age a photo, and damage most of them.

    Args:
        crop: uint8 (S, S, 3), a part of a photo without damage.
        rng: source of everything random.
    Returns:
        The aged and damaged crop, uint8 (S, S, 3), and where it is damaged, bool (S, S).
    """
    pixels = _toned(crop.astype(np.float32), rng)
    for draw in rng.choice(np.array(_LOOK_ALIKES), size=rng.choice(3, p=[0.5, 0.3, 0.2])):
        pixels = draw(len(crop), rng).over(pixels)
    before, solid = pixels, np.zeros(crop.shape[:2], dtype=bool)
    if rng.random() > _CLEAN:
        shares = np.array(list(KINDS.values())) / sum(KINDS.values())
        for draw in rng.choice(np.array(list(KINDS)), size=rng.integers(1, 4), p=shares):
            layer = draw(len(crop), rng)
            if layer.shade is not None:
                pixels, before = pixels * layer.shade[..., None], before * layer.shade[..., None]
            pixels = layer.over(pixels)
            solid |= layer.opacity > _SOLID * layer.opacity.max()
    # A crack across an area of its own colour goes on there, but a mark that shows nowhere is none.
    change = cv2.blur(np.abs(pixels - before).max(axis=2), (5, 5))
    hole = solid & (change > _VISIBLE)
    return _scanned(pixels, rng), hole


def score(marks: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> dict[str, float]:
    """Compare what was found with the truth, each with a free border of 2 px.

    Args:
        marks: what the finder marks and what is damaged, bool (H, W) each, of one photo after the other.
    Returns:
        iou, precision and recall over the pixels of all photos, and clean: the share of the pixels that is marked in
        photos without damage.
    """
    kernel = np.ones((2 * _FREE_PX + 1,) * 2, dtype=np.uint8)
    right = excess = missed = damage = false = clean = 0
    for found, hole in marks:
        near_hole, near_found = (cv2.dilate(each.astype(np.uint8), kernel) > 0 for each in (hole, found))
        right += int((found & near_hole).sum())
        excess += int((found & ~near_hole).sum())
        missed += int((hole & ~near_found).sum())
        damage += int(hole.sum())
        if not hole.any():
            false, clean = false + int(found.sum()), clean + hole.size
    return {
        "iou": right / max(1, right + excess + missed),
        "precision": right / max(1, right + excess),
        "recall": 1 - missed / max(1, damage),
        "clean": false / max(1, clean),
    }


# Damage. Each kind is a function of the side of the crop and the random generator.


def crack(size: int, rng: np.random.Generator) -> Layer:
    """A jagged line with branches, light as paper or dark, often with a shadow along it."""
    width = _log_uniform(rng, 0.7, 6)
    lines = [(_walk(size, rng, wiggle=rng.uniform(0.2, 0.7)), width)]
    for _ in range(rng.integers(0, 4)):
        points = lines[rng.integers(len(lines))][0]
        lines.append((_walk(size, rng, wiggle=0.5, begin=points[rng.integers(len(points))], reach=0.5), width * 0.7))
    opacity = np.maximum.reduce([_stroke(points, part, size, rng, ragged=0.5) for points, part in lines])
    shade = None
    if rng.random() < 0.4:
        beside = cv2.GaussianBlur(opacity, (0, 0), width)
        shade = 1 - rng.uniform(0.1, 0.5) * np.roll(beside, rng.integers(-3, 4, 2), (0, 1))
    return Layer(opacity * rng.uniform(0.25, 1), _material(size, rng), shade)


def scratch(size: int, rng: np.random.Generator) -> Layer:
    """One or several nearly straight, thin lines, often broken off."""
    angle, count = rng.uniform(0, 2 * np.pi), int(rng.choice([1, 2, 3, 6, 12]))
    spread = rng.choice([0.05, 1.0])
    opacity = np.zeros((size, size), dtype=np.float32)
    for _ in range(count):
        turn = angle + spread * rng.normal()
        points = _walk(size, rng, wiggle=rng.uniform(0, 0.08), reach=rng.uniform(0.2, 2), angle=turn)
        line = _stroke(points, _log_uniform(rng, 0.5, 2.2), size, rng, ragged=0.3)
        if rng.random() < 0.4:
            line *= np.clip(3 * _noise(size, rng, 10) - 0.8, 0, 1)
        opacity = np.maximum(opacity, line)
    return Layer(opacity * rng.uniform(0.25, 1), _material(size, rng))


def dust(size: int, rng: np.random.Generator) -> Layer:
    """Specks."""
    canvas = _canvas(size)
    largest = _log_uniform(rng, 1, 4)
    for _ in range(int(_log_uniform(rng, 2, 50))):
        axes = rng.uniform(0.4, largest, 2) * _FINE
        centre = rng.uniform(0, size * _FINE, 2)
        box = (centre.tolist(), (2 * axes).tolist(), rng.uniform(0, 180))
        cv2.ellipse(canvas, box, 255, -1, cv2.LINE_AA)
    return Layer(_reduced(canvas, size) * rng.uniform(0.6, 1), _material(size, rng))


def hair(size: int, rng: np.random.Generator) -> Layer:
    """Fibres that lay on the scanner: thin, smooth, curled lines."""
    width = _log_uniform(rng, 0.5, 1.6)
    opacity = np.zeros((size, size), dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        points = _walk(size, rng, wiggle=0.02, reach=rng.uniform(0.2, 1), bend=rng.normal(0, 0.12))
        opacity = np.maximum(opacity, _stroke(points, width, size, rng))
    return Layer(opacity * rng.uniform(0.5, 1), _material(size, rng))


def flake(size: int, rng: np.random.Generator) -> Layer:
    """Places where the emulsion came off: patches with sharp, irregular edges."""
    patches = [_blob(size, rng, _log_uniform(rng, 2, 20), softness=0.04) for _ in range(rng.integers(1, 5))]
    return Layer(np.maximum.reduce(patches) * rng.uniform(0.8, 1), _material(size, rng))


def tear(size: int, rng: np.random.Generator) -> Layer:
    """A torn edge or corner: nothing of the photo is left on one side of a ragged line, which has a rim of paper."""
    along = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    # Much of the photo is left: else a plain area would be all one sees.
    away = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None] - rng.uniform(0.3, 1.2)
    if rng.random() < 0.4:  # a corner
        turned = angle + rng.uniform(0.8, 1.6)
        away = np.minimum(away, np.cos(turned) * along[None, :] + np.sin(turned) * along[:, None])
    away = away + rng.uniform(0.05, 0.25) * (_noise(size, rng, 3) - 0.5) + 0.06 * (_noise(size, rng, 24) - 0.5)
    pixel = 2 / size
    ground = rng.choice([0, 30, 128, 255]) + rng.normal(0, 8, 3)
    rim = (away < rng.uniform(0, 12) * pixel)[..., None]
    return Layer(away / pixel + 0.5, np.where(rim, _paper(size, rng, light=True), ground))


def fold(size: int, rng: np.random.Generator) -> Layer:
    """A crease: a straight line where the emulsion broke in places, with light on one side and shadow on the other."""
    points = _walk(size, rng, wiggle=0.02, reach=3, begin=rng.uniform(0.2, 0.8, 2) * size, both=True)
    width = _log_uniform(rng, 0.8, 5)
    core = _stroke(points, width, size, rng, ragged=0.6)
    broken = np.clip(4 * _noise(size, rng, rng.uniform(3, 16)) - rng.uniform(0, 1.6), 0, 1)
    blurred = cv2.GaussianBlur(core, (0, 0), _log_uniform(rng, 2, 12))
    beside = blurred / max(float(blurred.max()), 1e-3)
    shift = np.roll(beside, rng.integers(-6, 7, 2), (0, 1)) - np.roll(beside, rng.integers(-6, 7, 2), (0, 1))
    shade = 1 + rng.uniform(0.05, 0.3) * shift + rng.uniform(-0.2, 0.2) * beside
    return Layer(core * broken * rng.uniform(0.6, 1), _material(size, rng, light=0.8), shade.astype(np.float32))


def stain(size: int, rng: np.random.Generator) -> Layer:
    """A spot of water, ink or mould, through which the photo shows more or less, often with a darker rim."""
    radius = _log_uniform(rng, 5, 35)
    softness = _log_uniform(rng, 0.05, 0.6)
    inside = _blob(size, rng, radius, softness)
    rim = np.clip(4 * inside * (1 - inside), 0, 1) if rng.random() < 0.5 else 0.0
    tone = np.array([[90, 60, 30], [30, 30, 35], [200, 190, 160], [150, 110, 60], [70, 80, 60]])[rng.integers(5)]
    colour = tone + rng.normal(0, 15, 3)
    return Layer(inside * rng.uniform(0.35, 0.95) * (0.7 + 0.3 * _noise(size, rng, 12)) + 0.4 * rim, colour)


def fingerprint(size: int, rng: np.random.Generator) -> Layer:
    """Ridges within an ellipse."""
    v, u = np.mgrid[:size, :size].astype(np.float32)
    x, y = rng.uniform(0, size, 2)
    squeeze, turn, radius = rng.uniform(0.5, 0.8), rng.uniform(0, np.pi), _log_uniform(rng, 15, 45)
    along, across = (u - x) * np.cos(turn) + (v - y) * np.sin(turn), (v - y) * np.cos(turn) - (u - x) * np.sin(turn)
    away = np.hypot(along * squeeze, across)
    phase = away / _log_uniform(rng, 1.2, 2.5) + 6 * _noise(size, rng, 3)
    ridges = np.clip(0.5 + np.sin(phase), 0, 1) * np.clip((radius - away) / 4, 0, 1)
    ridges *= 0.4 + 0.6 * _noise(size, rng, 8)
    return Layer(ridges * rng.uniform(0.4, 0.9), _material(size, rng))


def pen(size: int, rng: np.random.Generator) -> Layer:
    """Strokes of a pen or marker in one colour: lines, loops, writing."""
    width = _log_uniform(rng, 1.2, 8)
    colours = [[20, 20, 25], [25, 40, 140], [170, 25, 30], [20, 110, 50], [245, 245, 240], [230, 200, 30]]
    opacity = np.zeros((size, size), dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        bend = rng.normal(0, 0.25)
        points = _walk(size, rng, wiggle=rng.uniform(0.02, 0.3), reach=rng.uniform(0.3, 2), bend=bend)
        opacity = np.maximum(opacity, _stroke(points, width, size, rng))
    colour = colours[rng.integers(len(colours))] + rng.normal(0, 10, 3)
    return Layer(opacity * rng.uniform(0.75, 1), colour)


# How often each kind is drawn.
KINDS: dict[Callable[[int, np.random.Generator], Layer], float] = {
    crack: 4,
    scratch: 3,
    dust: 2,
    hair: 1,
    flake: 1.5,
    tear: 2,
    fold: 1.5,
    stain: 1.5,
    fingerprint: 0.2,
    pen: 1,
}


# What looks like damage, and is none


def _letters(size: int, rng: np.random.Generator) -> Layer:
    """Print on clothes, signs and pages."""
    canvas, text = _canvas(size), "".join(chr(rng.integers(48, 91)) for _ in range(rng.integers(2, 9)))
    scale, at = _log_uniform(rng, 0.5, 4), (rng.uniform(-0.3, 0.7, 2) * size * _FINE).astype(int)
    begin = (int(at[0]), int(at[1] + 40 * scale))
    cv2.putText(canvas, text, begin, int(rng.integers(0, 4)), scale, 255, int(np.ceil(scale * 2)), cv2.LINE_AA)
    return Layer(_reduced(canvas, size), _material(size, rng, light=0.5))


def _bars(size: int, rng: np.random.Generator) -> Layer:
    """Window bars, fences, stripes: parallel lines at equal distances."""
    canvas, angle = _canvas(size), rng.uniform(0, np.pi)
    along, gap = np.array([np.cos(angle), np.sin(angle)]), _log_uniform(rng, 8, 60) * _FINE
    width, middle = max(1, round(gap * rng.uniform(0.05, 0.5))), np.full(2, size * _FINE / 2)
    for number in range(-12, 13):
        centre = middle + number * gap * np.array([-along[1], along[0]])
        ends = [tuple(int(value) for value in centre + side * 4 * size * along) for side in (-1, 1)]
        cv2.line(canvas, ends[0], ends[1], 255, width, cv2.LINE_AA)
    return Layer(_reduced(canvas, size), _material(size, rng, light=0.5))


def _beads(size: int, rng: np.random.Generator) -> Layer:
    """A necklace, buttons: round things at equal distances on a smooth line."""
    canvas, radius = _canvas(size), _log_uniform(rng, 1.5, 6)
    points = _walk(size, rng, wiggle=0, reach=1, bend=rng.normal(0, 0.05), step=2.3 * radius)
    for x, y in points * _FINE:
        cv2.circle(canvas, (int(x), int(y)), round(radius * _FINE), 255, -1, cv2.LINE_AA)
    opacity = _reduced(canvas, size)
    light = cv2.GaussianBlur(opacity, (0, 0), radius / 2)[..., None]
    return Layer(opacity, _material(size, rng, light=0.7) * (0.4 + 0.6 * light))


def _frame(size: int, rng: np.random.Generator) -> Layer:
    """The straight white or black border of a print."""
    opacity = np.zeros((size, size), dtype=np.float32)
    width = int(_log_uniform(rng, 3, 60))
    for side in (opacity, opacity[::-1], opacity.T, opacity.T[::-1])[: rng.integers(1, 5)]:
        side[:width] = 1
    tone = rng.choice([5, 235, 250]) + rng.normal(0, 5, 3)
    return Layer(np.rot90(opacity, int(rng.integers(4))), tone)


def _cloth(size: int, rng: np.random.Generator) -> Layer:
    """A white collar, a dark jacket, a patch of light: a polygon with a clean edge, in soft light."""
    centre, count = rng.uniform(0, size, 2), int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = _log_uniform(rng, 8, 60) * rng.uniform(0.5, 1.2, count)
    corners = centre + reach[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    canvas = _canvas(size)
    cv2.fillPoly(canvas, [np.round(corners * _FINE).astype(np.int32)], 255, cv2.LINE_AA)
    return _in_soft_light(_reduced(canvas, size), rng)


def _blossoms(size: int, rng: np.random.Generator) -> Layer:
    """Flowers, bows, lights out of focus: smooth, round patches in soft light."""
    v, u = np.mgrid[:size, :size].astype(np.float32)
    opacity, radius = np.zeros((size, size), dtype=np.float32), _log_uniform(rng, 3, 25)
    petals, depth, softness = rng.integers(1, 8), rng.uniform(0, 0.4), rng.uniform(1, 4)
    for _ in range(rng.integers(1, 6)):
        x, y, turn = rng.uniform(0, size, 2).tolist() + [rng.uniform(0, 7)]
        edge = radius * (1 + depth * np.cos(petals * np.arctan2(v - y, u - x) + turn))
        opacity = np.maximum(opacity, np.clip((edge - np.hypot(u - x, v - y)) / softness, 0, 1))
    return _in_soft_light(opacity, rng)


def _in_soft_light(opacity: Pixels, rng: np.random.Generator) -> Layer:
    size = len(opacity)
    light = (0.75 + rng.uniform(0, 1) * (_noise(size, rng, rng.uniform(2, 8)) - 0.5))[..., None]
    return Layer(opacity, _material(size, rng, light=0.75) * light)


_LOOK_ALIKES = [_letters, _bars, _beads, _frame, _cloth, _blossoms]


# Ageing, of the print before its damage and of the scan after it


def _toned(pixels: NDArray[Any], rng: np.random.Generator) -> Pixels:
    """A photo in colour, grey or a tone, some of them faded or dark."""
    if rng.random() < 0.6:
        grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        tint = np.zeros(3)
        if rng.random() < 0.5:
            warm = rng.uniform(0, 30)
            tint = np.array([warm, 0.2 * warm, -warm]) if rng.random() < 0.85 else rng.normal(0, 10, 3)
        middle = (1 - np.square(2 * grey / 255 - 1))[..., None]  # black and white keep less of a tint
        pixels = grey[..., None] + tint * (0.4 + 0.6 * middle)
    if rng.random() < 0.5:
        low, high = rng.uniform(0, 90), rng.uniform(150, 255)
        pixels = low + pixels * (high - low) / 255
    return pixels.astype(np.float32)


def _scanned(pixels: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A scan, with blur, grain and JPEG artefacts."""
    size = len(pixels)
    if rng.random() < 0.35:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.4)))
    if rng.random() < 0.6:
        side = max(8, round(size / rng.choice([1, 1, 1.5, 2.5])))
        grain = rng.normal(0, 1, (side, side, 1 if rng.random() < 0.7 else 3)).astype(np.float32)
        enlarged = cv2.resize(grain, (size, size), interpolation=cv2.INTER_CUBIC).reshape(size, size, -1)
        pixels = pixels + _log_uniform(rng, 1, 12) * enlarged
    scan = np.clip(pixels, 0, 255).round().astype(np.uint8)
    if rng.random() < 0.4:
        _, file = cv2.imencode(".jpg", scan, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])
        scan = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), dtype=np.uint8)
    return scan


# Shapes and colours


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _canvas(size: int) -> NDArray[np.uint8]:
    return np.zeros((size * _FINE, size * _FINE), dtype=np.uint8)


def _reduced(canvas: NDArray[np.uint8], size: int) -> Pixels:
    """A canvas as opacity: float32 (S, S) in [0, 1]."""
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _noise(size: int, rng: np.random.Generator, cells: float) -> Pixels:
    """Smooth noise with about so many bumps a side: float32 (S, S), mostly in [0, 1]."""
    side = max(2, round(cells))
    return cv2.resize(rng.random((side, side), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _blob(size: int, rng: np.random.Generator, radius: float, softness: float) -> Pixels:
    """An irregular patch of about this radius, its edge `softness` times the radius wide, at least a pixel."""
    v, u = np.mgrid[:size, :size].astype(np.float32)
    x, y = rng.uniform(-0.1 * size, 1.1 * size, 2)
    away = np.hypot(u - x, (v - y) * rng.uniform(0.6, 1.7)) / radius
    rough = _noise(size, rng, 2.5 * size / radius) - 0.5
    fine = _noise(size, rng, min(size / 2, 10 * size / radius)) - 0.5
    inside = 1 - away + 1.1 * rough + 0.35 * fine
    return np.clip(inside / max(softness, 1 / radius) + 0.5, 0, 1).astype(np.float32)


def _walk(
    size: int,
    rng: np.random.Generator,
    wiggle: float,
    reach: float = 1.5,
    begin: NDArray[np.float64] | None = None,
    angle: float | None = None,
    bend: float = 0.0,
    step: float = 4.0,
    both: bool = False,
) -> NDArray[np.float64]:
    """Points (N, 2) of a path, `step` pixels apart, from `begin` in one or both directions.

    Its length is `reach` times the side; each step turns by `bend` on the mean, with the standard deviation `wiggle`,
    in radians. By default, the beginning (x, y) and the first angle are drawn.
    """
    count = max(2, round(reach * size / step))
    begin = rng.uniform(-0.1, 1.1, 2) * size if begin is None else begin
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    angles = angle + np.cumsum(rng.normal(bend, wiggle, count)) if wiggle or bend else np.full(count, angle)
    points = begin + step * np.cumsum(np.column_stack([np.cos(angles), np.sin(angles)]), axis=0)
    return np.concatenate([2 * begin - points[::-1], points]) if both else points


def _stroke(
    points: NDArray[np.float64], width: float, size: int, rng: np.random.Generator, ragged: float = 0.0
) -> Pixels:
    """Opacity of a line along points; `ragged` is by how much its width varies, relative to it."""
    canvas = _canvas(size)
    fixed = np.round(points * _FINE * 16).astype(np.int32)  # in sixteenths
    uneven = np.interp(np.arange(len(points)) / 3, np.arange(len(points)), rng.normal(size=len(points)))
    widths = width * _FINE * np.exp(ragged * uneven)
    for first, second, each in zip(fixed[:-1].tolist(), fixed[1:].tolist(), widths, strict=False):
        cv2.line(canvas, first, second, 255, max(1, round(each)), cv2.LINE_AA, 4)
    opacity = _reduced(canvas, size)
    # No line of a canvas is thinner than one of its pixels.
    return opacity * min(1.0, width * _FINE)


def _material(size: int, rng: np.random.Generator, light: float = 0.65) -> Pixels:
    """Light paper, with the probability `light`, or something dark: (S, S, 3)."""
    return _paper(size, rng, light=rng.random() < light)


def _paper(size: int, rng: np.random.Generator, light: bool) -> Pixels:
    """A material with a little texture: float32 (S, S, 3)."""
    level = rng.uniform(195, 255) if light else rng.uniform(0, 70)
    tint = np.array([1, 0.5, -1]) * abs(rng.normal(0, 8)) if rng.random() < 0.6 else rng.normal(0, 4, 3)
    texture = rng.uniform(0, 12) * (_noise(size, rng, rng.uniform(6, 40)) - 0.5)
    return np.clip(level + tint + texture[..., None], 0, 255).astype(np.float32)

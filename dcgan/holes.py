"""Random holes of every kind to train the encoder with, and the fixed ones that it is measured on."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_UNION = 0.15  # share of holes that are two kinds at once
_LATTICE = 4  # of a grid, the pixels from one known one to the next
_TOUCHES = 24  # of the brush in one stroke
# Eyes, nose and mouth in the template "face": x and y of the centre, half the width and height, as shares of the side.
_PARTS = ((0.345, 0.41, 0.11, 0.08), (0.655, 0.41, 0.11, 0.08), (0.5, 0.58, 0.1, 0.1), (0.5, 0.75, 0.17, 0.09))


def draw_holes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw a kind for each hole, sometimes two, and then the holes.

    Args:
        count: how many, N.
        size: side of the images in pixels, S.
        generator: of the randomness, on the CPU.
    Returns:
        bool (N, 1, S, S), True = fill this; none is empty, a union may cover everything.
    """
    holes = torch.zeros(count, size, size, dtype=torch.bool)
    kinds = torch.randint(len(KINDS), (2, count), generator=generator)
    second = torch.rand(count, generator=generator) < _UNION
    for index, draw in enumerate(KINDS.values()):
        wanted = (kinds[0] == index) | second & (kinds[1] == index)
        holes[wanted] |= draw(int(wanted.sum()), size, generator)
    holes[~holes.flatten(1).any(dim=1)] = _boxes(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), size)
    return holes[:, None]


def measuring_holes(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The holes of `completion` that figures are given for, by name: bool (1 or N, 1, S, S)."""
    holes = {
        "center": _boxes(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), size),
        "left": _boxes(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), size),
        "pattern": _lowest(_noise(count, size, generator), torch.full((count,), 0.25)),
        "random80": torch.rand(count, size, size, generator=generator) < 0.8,
    }
    return {name: hole[:, None] for name, hole in holes.items()}


def _centre(count: int, size: int, generator: torch.Generator) -> Tensor:
    margin = _between(0.1, 0.4, generator, count)
    return _boxes(torch.stack([margin, margin, 1 - margin, 1 - margin], dim=1), size)


def _rectangle(count: int, size: int, generator: torch.Generator) -> Tensor:
    sides = _between(0.15, 0.7, generator, count, 2)
    first = _between(-0.1, 1.1, generator, count, 2) * (1 - sides)  # some reach beyond the border
    return _boxes(torch.cat([first, first + sides], dim=1), size)


def _half(count: int, size: int, generator: torch.Generator) -> Tensor:
    sides = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1)
    side = torch.randint(4, (count,), generator=generator)  # which of the borders moves to the middle
    sides[torch.arange(count), side] = _between(0.4, 0.6, generator, count)
    return _boxes(sides, size)


def _pixels(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, size, size, generator=generator) < _between(0.2, 0.95, generator, count, 1, 1)


def _grid(count: int, size: int, generator: torch.Generator) -> Tensor:
    phase = torch.randint(_LATTICE, (2, count, 1), generator=generator)
    rows, columns = (torch.arange(size) + phase) % _LATTICE == 0
    return ~(rows[:, :, None] & columns[:, None, :])


def _blobs(count: int, size: int, generator: torch.Generator) -> Tensor:
    return _lowest(_noise(count, size, generator), _between(0.1, 0.5, generator, count))


def _strokes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """The path of a round brush that turns as it goes."""
    turns = 0.6 * torch.randn(count, _TOUCHES, generator=generator)
    turns[:, 0] = _between(0, 2 * math.pi, generator, count)
    angles = turns.cumsum(dim=1)
    steps = 0.05 * torch.stack([angles.cos(), angles.sin()], dim=2)
    path = _between(0.2, 0.8, generator, count, 1, 2) + steps.cumsum(dim=1)  # (N, touches, 2)
    radius = _between(0.04, 0.1, generator, count, 1, 1)
    x, y = ((_centres(size) - path[..., axis, None]).square() for axis in (0, 1))  # (N, touches, S)
    return ((y[..., :, None] + x[..., None, :]).amin(dim=1).sqrt()) < radius


def _features(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Eyes, nose and mouth, each with even chances."""
    parts = torch.tensor(_PARTS) + _between(-0.03, 0.03, generator, count, len(_PARTS), 4)
    boxes = torch.cat([parts[..., :2] - parts[..., 2:], parts[..., :2] + parts[..., 2:]], dim=2)
    chosen = torch.rand(count, len(_PARTS), 1, 1, generator=generator) < 0.5
    return (_boxes(boxes.flatten(0, 1), size).unflatten(0, (count, len(_PARTS))) & chosen).any(dim=1)


KINDS: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "centre": _centre,
    "rectangle": _rectangle,
    "half": _half,
    "pixels": _pixels,
    "grid": _grid,
    "blobs": _blobs,
    "strokes": _strokes,
    "features": _features,
}


def _between(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _centres(size: int) -> Tensor:
    """Of the pixels, as shares of the side."""
    return (torch.arange(size) + 0.5) / size


def _boxes(sides: Tensor, size: int) -> Tensor:
    """Rectangles from float (N, 4), left, top, right and bottom as shares of the side: bool (N, S, S)."""
    left, top, right, bottom = sides[..., None].unbind(dim=1)
    at = _centres(size)
    return ((at > top) & (at < bottom))[:, :, None] & ((at > left) & (at < right))[:, None, :]


def _noise(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth noise (N, S, S), its hills an eighth of the side or so."""
    coarse = torch.randn(count, 1, 8, 8, generator=generator)
    return interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)[:, 0]


def _lowest(noise: Tensor, share: Tensor) -> Tensor:
    """The given share (N,) of the pixels of each image, where the noise is lowest."""
    ranked = noise.flatten(1).sort(dim=1).values
    edge = ranked.gather(1, (share * ranked.shape[1]).long()[:, None])
    return noise < edge[:, :, None]

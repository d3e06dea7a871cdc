"""Random holes for the encoder: every kind, never empty, the same again for the same seed."""

import pytest
import torch

from completion.holes import KINDS, draw_holes, measuring_holes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [16, 64])
def test_holes_are_never_empty_and_of_every_extent(size: int) -> None:
    holes = draw_holes(2000, size, seeded())
    assert holes.shape == (2000, 1, size, size) and holes.dtype == torch.bool
    shares = holes.float().mean(dim=(1, 2, 3))
    assert shares.min() > 0
    assert shares.min() < 0.1 and shares.max() > 0.9
    assert 0.2 < shares.mean() < 0.5
    frequency = holes.float().mean(dim=(0, 1))
    assert frequency.min() > 0.15  # there is no pixel that is always known


def test_the_seed_repeats_holes() -> None:
    one, again, other = (draw_holes(50, 32, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("centre", 0.03, 0.67),
        ("rectangle", 0.01, 0.5),
        ("half", 0.38, 0.62),
        ("pixels", 0.17, 0.98),
        ("grid", 1 - 1 / 16, 1 - 1 / 16),
        ("blobs", 0.09, 0.5),
        ("strokes", 0.003, 0.5),
        ("features", 0.0, 0.4),
    ],
)
def test_each_kind_covers_a_share_within_its_bounds(kind: str, low: float, high: float) -> None:
    shares = KINDS[kind](500, 64, seeded()).float().mean(dim=(1, 2))
    assert low <= shares.min() and shares.max() <= high
    assert kind == "grid" or shares.std() > 0.03


def test_every_kind_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(KINDS, 0)
    for kind, draw in list(KINDS.items()):

        def count(number: int, size: int, generator: torch.Generator, kind: str = kind, draw: object = draw) -> object:
            counts[kind] += number
            return draw(number, size, generator)  # type: ignore[operator]

        monkeypatch.setitem(KINDS, kind, count)
    draw_holes(1000, 16, seeded())
    assert min(counts.values()) > 100
    assert 1100 < sum(counts.values()) < 1250  # some holes are of two kinds


def test_a_kind_that_draws_nothing_gives_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        monkeypatch.setitem(
            KINDS, kind, lambda count, size, generator: torch.zeros(count, size, size, dtype=torch.bool)
        )
    assert torch.equal(draw_holes(3, 32, seeded()), measuring_holes(1, 32, seeded())["center"].expand(3, -1, -1, -1))


def test_holes_lie_where_their_names_say() -> None:
    halves = KINDS["half"](200, 64, seeded())
    corners = halves[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert {tuple(corner) for corner in corners.int().tolist()} == {
        (1, 0, 1, 0),
        (0, 1, 0, 1),
        (1, 1, 0, 0),
        (0, 0, 1, 1),
    }
    rectangles = KINDS["rectangle"](300, 64, seeded())
    assert (
        rectangles[:, 0].any() and rectangles[:, -1].any() and rectangles[:, :, 0].any() and rectangles[:, :, -1].any()
    )
    features = KINDS["features"](400, 64, seeded()).float().mean(dim=0)
    for x, y in ((0.345, 0.41), (0.655, 0.41), (0.5, 0.75)):
        assert 0.4 < features[round(64 * y), round(64 * x)] < 0.65
    assert features[:12].max() == features[:, :8].max() == 0


def test_the_holes_to_measure_on_are_those_of_completion() -> None:
    import numpy as np

    from completion.holes import named_hole

    holes = measuring_holes(20, 64, seeded())
    for name in ("center", "left"):
        assert np.array_equal(holes[name][0, 0].numpy(), named_hole(name, 64, np.random.default_rng(0)))
    assert holes["pattern"].float().mean(dim=(1, 2, 3)) == pytest.approx(0.25)
    assert holes["random80"].float().mean() == pytest.approx(0.8, abs=0.01)

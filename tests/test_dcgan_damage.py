"""Drawn damage: the mask says what was changed, and the score says how much of it was found."""

import numpy as np
import pytest

from dcgan import damage
from dcgan.damage import KINDS, Layer, damaged, score

PLAIN = np.full((64, 64, 3), 128, dtype=np.uint8)


@pytest.fixture
def unaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out everything but the damage."""
    monkeypatch.setattr(damage, "_LOOK_ALIKES", [lambda size, rng: Layer(np.zeros((size, size)), np.zeros(3))])
    monkeypatch.setattr(damage, "_toned", lambda pixels, rng: pixels)
    monkeypatch.setattr(damage, "_scanned", lambda pixels, rng: pixels)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_mask_of_each_kind_marks_what_it_changes(
    kind: object, unaged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "KINDS", {kind: 1})
    monkeypatch.setattr(damage, "_CLEAN", 0)
    marked = right = 0
    for seed in range(30):
        pixels, hole = damaged(PLAIN, np.random.default_rng(seed))
        change = np.abs(pixels - 128).max(axis=2)
        marked += int(hole.sum())
        right += int((hole & (change > 4)).sum())
    assert marked > 0 and right > 0.9 * marked


def test_some_crops_stay_without_damage_and_none_is_covered_by_it() -> None:
    shares = [damaged(PLAIN, np.random.default_rng(seed))[1].mean() for seed in range(200)]
    assert 0.2 < np.mean(np.array(shares) == 0) < 0.5 and np.mean(shares) < 0.3


def test_the_same_seed_draws_the_same() -> None:
    first, second = (damaged(PLAIN, np.random.default_rng(7)) for _ in range(2))
    assert all(map(np.array_equal, first, second))


def test_the_score_has_a_free_border_of_two_pixels() -> None:
    hole, clean = np.zeros((40, 40), dtype=bool), np.zeros((40, 40), dtype=bool)
    hole[10:20, 10:20] = True
    assert score([(hole, hole)]) == {"iou": 1, "precision": 1, "recall": 1, "clean": 0}
    assert score([(np.roll(hole, 2, axis=1), hole)])["iou"] == 1
    moved = score([(np.roll(hole, 5, axis=1), hole)])  # 3 of 10 columns are too far off on either side
    assert moved == {"iou": 70 / (70 + 30 + 30), "precision": 0.7, "recall": 0.7, "clean": 0}
    speck = clean.copy()
    speck[0, :4] = True
    assert score([(hole, hole), (speck, clean)]) == {
        "iou": 100 / 104,
        "precision": 100 / 104,
        "recall": 1,
        "clean": 0.0025,
    }
    assert score([(clean, hole)]) == {"iou": 0, "precision": 0, "recall": 0, "clean": 0}

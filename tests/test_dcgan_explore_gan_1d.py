"""python -m dcgan explore gan-1d: what the theory says, and that a game comes near it."""

import math
from pathlib import Path

import numpy as np
import pytest
from runs import explore, returned

from align.photo import read_photo
from dcgan.explore import gan_1d as module
from dcgan.explore.gan_1d import confident_d, least_d_loss, mixture_density, optimal_d, train_1d

X = module.GRID
WIDTH = X[1] - X[0]


def test_the_optimal_d_for_equal_densities_is_a_half_with_loss_log_4() -> None:
    p = mixture_density(X)
    assert p.sum() * WIDTH == pytest.approx(1, abs=1e-6)
    assert np.array_equal(optimal_d(p, p), np.full(len(p), 0.5))
    assert least_d_loss(p, p, WIDTH) == pytest.approx(math.log(4), abs=1e-5)


def test_the_optimal_d_for_disjoint_densities_has_no_loss() -> None:
    p, q = (np.where(side, 1 / (100 * WIDTH), 0.0) for side in (X < 0, X > 0))
    assert np.array_equal(optimal_d(p, q), np.where(X < 0, 1, 0))
    assert least_d_loss(p, q, WIDTH) == 0
    half = (p + q) / 2  # JSD of p and the mean of p and q, by hand
    divergence = 0.5 * (math.log(4 / 3) + (0.5 * math.log(2 / 3) + 0.5 * math.log(2)))
    assert least_d_loss(p, half, WIDTH) == pytest.approx(math.log(4) - 2 * divergence)


def test_no_d_has_less_loss_than_the_optimal_one() -> None:
    p, q = mixture_density(X), mixture_density(X - 1)
    d = optimal_d(p, q)
    for other in (d.clip(0.1, 0.9), d**1.1, np.full_like(d, 0.5)):
        loss = -(p * np.log(other) + q * np.log(1 - other)).sum() * WIDTH
        assert least_d_loss(p, q, WIDTH) < loss


def test_data_follow_the_density() -> None:
    import torch

    data = module.sample_data(100_000, torch.Generator().manual_seed(0)).numpy()
    found = np.histogram(data, module.BINS, density=True)[0]
    assert np.abs(found - mixture_density(X)).max() < 0.04


def test_samples_approach_the_data_and_d_its_optimum() -> None:
    _, (measured, snapshots) = returned(train_1d("non-saturating", 200, 3, 0, evaluations=5))
    assert measured["steps"] == list(snapshots) == [0, 50, 100, 150, 200]
    assert measured["least_loss_d"][0] + 0.3 < measured["least_loss_d"][-1] < math.log(4) + 0.01
    assert measured["loss_d"][-1] == pytest.approx(math.log(4), abs=0.25)
    gap = measured["mean_distance_of_d_from_its_optimum"]
    assert gap[-1] < 0.2 < 0.4 < gap[0]


def test_only_the_minimax_gradient_vanishes_for_a_confident_d() -> None:
    (begin, *_, end) = confident_d(120, 0)
    assert end[0] < begin[0] / 3
    assert end[1] / end[2] < 0.3 < begin[1] / begin[2]


def test_the_command_writes_picture_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY", 2000)
    monkeypatch.setattr(module, "_EARLY", 30)
    found = explore("gan-1d", tmp_path, "--steps", 8, "--d-steps", 1)
    assert found["settings"] == {"experiment": "gan-1d", "seed": 0, "steps": 8, "d_steps": 1}
    assert list(found["objectives"]) == ["minimax", "non-saturating"]
    assert len(found["objectives"]["minimax"]["loss_d"]) == 9 and len(found["confident_d"]) == 30
    assert read_photo(tmp_path / "gan-1d.png").pixels.std() > 10

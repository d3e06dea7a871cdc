"""Tests of the benchmark's methods without a GAN against known solutions."""

from functools import partial

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from completion.benchmark.methods import Linear, MeanFace, Method, biharmonic, classical, fit_linear

SIDE = 16
RNG = np.random.default_rng(0)


def faces_of_rank(rank: int, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Normally distributed faces of low rank, up to rounding: uint8 (count, SIDE, SIDE, 3)."""
    mixing = np.random.default_rng(7).standard_normal((rank, SIDE * SIDE * 3)) * 8
    values = 128 + np.random.default_rng(seed).standard_normal((count, rank)) @ mixing
    return np.clip(np.round(values), 0, 255).astype(np.uint8).reshape(count, SIDE, SIDE, 3)


def holes_of(count: int, share: float = 0.4) -> NDArray[np.bool_]:
    return np.random.default_rng(3).random((count, SIDE, SIDE)) < share


FACES = faces_of_rank(3, 60)
METHODS: dict[str, Method] = {
    "telea": partial(classical, "telea"),
    "ns": partial(classical, "ns"),
    "biharmonic": biharmonic,
    "mean": MeanFace(FACES.mean(axis=0)),
    "linear": fit_linear(FACES, components=5),
}


@pytest.mark.parametrize("name", METHODS)
def test_visible_pixels_do_not_change_and_the_hole_is_never_read(name: str) -> None:
    faces, holes = faces_of_rank(3, 3, seed=1), holes_of(3)
    holes[0] = False
    holes[0, 4:12, 4:12] = True
    poisoned = np.where(holes[..., None], RNG.integers(0, 256, faces.shape, dtype=np.uint8), faces)
    filled = METHODS[name](faces, holes)
    assert filled.dtype == np.uint8 and filled.shape == faces.shape
    assert np.array_equal(filled[~holes], faces[~holes])
    assert not np.array_equal(poisoned, faces)
    assert np.array_equal(filled, METHODS[name](poisoned, holes))


@pytest.mark.parametrize("name", ["telea", "ns", "biharmonic"])
def test_a_hole_in_a_flat_colour_gets_that_colour(name: str) -> None:
    flat = np.full((1, SIDE, SIDE, 3), (200, 120, 40), dtype=np.uint8)
    hole = np.zeros((1, SIDE, SIDE), dtype=bool)
    hole[0, 5:11, 3:9] = True
    given = np.where(hole[..., None], 0, flat).astype(np.uint8)
    assert np.abs(METHODS[name](given, hole).astype(int) - flat).max() <= 2  # OpenCV accumulates rounding errors


def test_biharmonic_continues_a_curved_surface() -> None:
    """x^2 + 3xy is biharmonic; a wave is not."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    hole = np.zeros((1, SIDE, SIDE), dtype=bool)
    hole[0, 5:11, 5:11] = True
    error = {}
    for name, surface in {"biharmonic": x**2 + 3 * x * y, "not": 2 + np.sin(20 * x)}.items():
        face = np.repeat(np.round(surface / 4 * 255).astype(np.uint8)[None, ..., None], 3, axis=3)
        given = np.where(hole[..., None], 0, face).astype(np.uint8)
        error[name] = np.abs(biharmonic(given, hole).astype(int) - face).max()
    assert error["biharmonic"] <= 1 < error["not"]


def test_telea_and_navier_stokes_match_opencv() -> None:
    holes = holes_of(2)
    faces = np.where(holes[..., None], 0, faces_of_rank(3, 2, seed=1)).astype(np.uint8)
    for name, how in (("telea", cv2.INPAINT_TELEA), ("ns", cv2.INPAINT_NS)):
        expected = [cv2.inpaint(face, hole.astype(np.uint8), 3, how) for face, hole in zip(faces, holes, strict=True)]
        assert np.array_equal(METHODS[name](faces, holes), expected)


def test_the_mean_face_fills_every_hole() -> None:
    everything = np.ones((2, SIDE, SIDE), dtype=bool)
    filled = METHODS["mean"](FACES[:2], everything)
    assert np.array_equal(filled, np.broadcast_to(np.round(FACES.mean(axis=0)), filled.shape))


def test_linear_recovers_low_dimensional_faces() -> None:
    faces, holes = faces_of_rank(3, 8, seed=1), holes_of(8, 0.7)
    guess = np.abs(METHODS["mean"](faces, holes).astype(int) - faces)[holes].mean()
    error = np.abs(METHODS["linear"](faces, holes).astype(int) - faces)[holes]
    assert guess > 5
    assert error.max() <= 2 and error.mean() < 0.5  # rounding


@pytest.mark.parametrize("share", [0.2, 0.8])  # both ways of computing the Gram matrix
def test_linear_matches_the_conditional_mean_of_a_normal_distribution(share: float) -> None:
    """Compare with mean_h + C_hk C_kk^-1 (known - mean_k)."""
    size, noise = 4, 2.5
    basis, _ = np.linalg.qr(RNG.standard_normal((size * size * 3, 6)))
    loadings = basis * np.array([40, 30, 20, 9, 4, 1])
    mean, crops = RNG.uniform(0, 255, (size, size, 3)), RNG.uniform(0, 255, (3, size, size, 3))
    holes = RNG.random((3, size, size)) < share
    [expected] = Linear(mean, loadings, 1.0, np.empty((0, size, size, 3), dtype=np.uint8)).expect(crops, holes, [noise])
    covariance = loadings @ loadings.T + noise * np.eye(len(loadings))
    for crop, hole, found in zip(crops, holes, expected, strict=True):
        h = np.repeat(hole.ravel(), 3)
        gap = (crop - mean).ravel()[~h]
        conditional = mean.ravel()[h] + covariance[np.ix_(h, ~h)] @ np.linalg.solve(covariance[np.ix_(~h, ~h)], gap)
        assert found.ravel()[h] == pytest.approx(conditional)


def test_a_full_hole_gives_the_mean_and_faces_do_not_affect_each_other() -> None:
    linear = METHODS["linear"]
    holes = holes_of(4)
    holes[1] = True
    holes[3] = holes[0]  # solved together with face 0
    faces = faces_of_rank(3, 4, seed=2)
    together = linear(faces, holes)
    assert np.array_equal(together[1], np.round(FACES.mean(axis=0)))
    for index in range(4):
        alone = linear(faces[index : index + 1], holes[index : index + 1])
        assert np.abs(together[index].astype(int) - alone[0]).max() <= 1


def test_the_fit_matches_the_covariance() -> None:
    noisy = np.clip(FACES + RNG.normal(0, 4, FACES.shape), 0, 255).astype(np.uint8)
    fitted = fit_linear(noisy, components=3)
    values = noisy.reshape(len(noisy), -1).astype(float)
    eigenvalues = np.linalg.eigvalsh(np.cov(values.T, bias=True))[::-1]
    assert np.square(fitted.loadings).sum(axis=0) == pytest.approx(eigenvalues[:3], rel=1e-3)
    assert fitted.mean.ravel() == pytest.approx(values.mean(axis=0), rel=1e-5)
    assert fitted.noise == pytest.approx(eigenvalues[3:].sum() / values.shape[1], rel=1e-2)


def test_the_fit_depends_on_its_seed_and_not_on_torchs() -> None:
    import torch

    state = torch.get_rng_state()
    first, again = (fit_linear(FACES, components=5, seed=4).loadings for _ in range(2))
    assert np.array_equal(first, again)
    assert torch.equal(state, torch.get_rng_state())


def test_identical_faces_can_be_fitted() -> None:
    alike = np.repeat(FACES[:1], 4, axis=0)
    holes = holes_of(4)
    given = np.where(holes[..., None], 0, alike).astype(np.uint8)
    assert np.array_equal(fit_linear(alike)(given, holes), alike)


def test_tuning_chooses_the_noise_with_the_lowest_error() -> None:
    """With noisy faces, more noise is best; without, the least."""
    clean, holes = faces_of_rank(3, 20, seed=5), holes_of(20, 0.95)
    noisy = np.clip(clean + RNG.normal(0, 40, clean.shape), 0, 255).astype(np.uint8)
    fitted = fit_linear(FACES, noisy, components=5)
    tuned = fitted.tuned(holes)
    assert fit_linear(FACES, clean, components=5).tuned(holes).noise < tuned.noise
    errors = {
        noise: np.square(fitted.expect(noisy, holes, [noise])[0] - noisy)[holes].mean()
        for noise in (fitted.noise, tuned.noise)
    }
    assert errors[tuned.noise] < errors[fitted.noise]

"""Tests of ranking and averaging the encoder's images, with a generator whose images are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from completion.config import SOLVERS, blur_radius
from completion.loss import context_loss, context_weight
from completion.one_pass import OnePass
from completion.step import Step
from dcgan.config import NetworkConfig
from dcgan.tensors import to_tensor
from dcgan.weights import WeightsError

ENCODER = replace(SOLVERS["encoder"], flip_sigma_px=None)


class Painter:
    """Paints the visible pixels, brighter to the right and by the mean of the noise; keeps what it was given."""

    gpu = False

    def __init__(self) -> None:
        self.noise: list[NDArray[np.float32]] = []

    def __call__(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        self.noise += [z for _ in crops[:1] for z in noise]
        assert len(crops) * len(noise) <= 8
        visible = np.where(holes[..., None], 128, crops) * 0.7 + np.arange(32)[:, None]
        images = visible[:, None] + 40 * noise.mean(axis=1)[:, None, None, None]
        return images.round().clip(0, 255).astype(np.uint8).reshape(-1, *crops.shape[1:])


def faces_and_holes(count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(3)
    crops, holes = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8), rng.random((3, 32, 32)) < 0.3
    return crops[:count], holes[:count]


def solve(*arguments: object, z_prior: str = "normal", seed: int = 0, count: int = 3, **changes: object) -> Step:
    painter, config = Painter(), NetworkConfig(size=32, nz=8, z_prior=z_prior)  # type: ignore[arg-type]
    [step] = OnePass(painter, config).solve(*faces_and_holes(count), replace(ENCODER, **changes), seed)  # type: ignore[arg-type]
    return step


@pytest.mark.parametrize("flip_sigma_px", [None, 0.0])
def test_the_first_candidate_is_the_single_completion_and_the_noise_grows(flip_sigma_px: float | None) -> None:
    one, many = (solve(samples=n, candidates=n, flip_sigma_px=flip_sigma_px) for n in (1, 20))
    assert many.images.shape == (3, 20, 32, 32, 3) and np.array_equal(many.images[:, :1], one.images)
    assert len(np.unique(many.images[0], axis=0)) > 10
    distance = (many.total - many.context) / ENCODER.z_weight  # mean square of the noise
    assert not distance[:, 0].any() and distance[0] == pytest.approx(distance[2], abs=1e-4)
    assert distance[0, 1:7].mean() < 0.2 * distance[0, 14:].mean() and 0.3 < distance[0, 19] < 3
    assert (many.number, many.steps, many.z) == (0, 0, None) and not many.prior.any()


def test_the_seed_determines_the_candidates_and_faces_do_not_affect_each_other() -> None:
    one, again, other = (solve(seed=seed, samples=20, candidates=20).images for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.array_equal(solve(seed=1, count=1, samples=20, candidates=20).images[0], one[0])


def test_the_candidates_with_the_lowest_context_loss_are_kept() -> None:
    everything, best = (solve(samples=30, candidates=candidates) for candidates in (30, 4))
    assert np.array_equal(best.context, np.sort(everything.context, axis=1)[:, :4])
    order = everything.context.argsort(axis=1, kind="stable")[:, :4]
    assert np.array_equal(best.images, everything.images[np.arange(3)[:, None], order])


@pytest.mark.parametrize("weighted", [True, False])
def test_the_context_loss_is_that_of_the_search(weighted: bool) -> None:
    (crops, holes), step = faces_and_holes(3), solve(weighted=weighted)
    known = torch.from_numpy(~holes)[:, None]
    weight = context_weight(known) if weighted else known.float()
    expected = context_loss(to_tensor(step.images[:, 0].copy()), to_tensor(crops), weight)
    assert step.context[:, 0] == pytest.approx(expected.numpy(), rel=1e-4)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0])
def test_both_orientations_are_averaged_in_all_that_is_coarse(sigma: float) -> None:
    crops, holes = faces_and_holes(3)
    paint, noise = Painter(), np.zeros((1, 8), dtype=np.float32)
    one = paint(crops, holes, noise).astype(np.float64)
    other = paint(crops[:, :, ::-1], holes[:, :, ::-1], noise)[:, :, ::-1]
    change = (other - one) / 2
    if sigma:  # coarse as the mean, fine as the face itself
        blurred = (0, sigma, sigma, 0)
        change = gaussian_filter(change, blurred, mode="mirror", truncate=blur_radius(sigma) / sigma)
    images = solve(flip_sigma_px=sigma).images[:, 0]
    assert np.abs(images - (one + change)).max() < 0.51 and np.abs(images - one).max() > 10


@pytest.mark.parametrize(("z_prior", "within"), [("uniform", True), ("normal", False)])
def test_the_noise_has_the_distribution_of_the_prior(z_prior: str, within: bool) -> None:
    painter = Painter()
    runner = OnePass(painter, NetworkConfig(size=32, nz=8, z_prior=z_prior))  # type: ignore[arg-type]
    list(runner.solve(*faces_and_holes(1), replace(ENCODER, samples=100, candidates=1)))
    assert len(painter.noise) == 100 and (np.abs(painter.noise).max() <= 1) == within
    assert np.square(painter.noise[90:]).mean() == pytest.approx(0.9 * (1 / 3 if within else 1), rel=0.25)


def test_an_encoder_cannot_use_means_of_blocks() -> None:
    with pytest.raises(WeightsError, match="cannot use the means of blocks; choose another solver, such as fast"):
        list(OnePass(Painter(), NetworkConfig()).solve(*faces_and_holes(1), ENCODER, block=4))

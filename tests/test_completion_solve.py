"""Tests of the search for z, with images of untrained networks as targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from completion.engine import Networks
from completion.solve import solve
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from completion import solve as solve_module
from completion.config import SOLVERS, Solver, blur_radius
from completion.loss import context_loss, context_weight, log_prior, saturating_prior
from dcgan.adam import Adam
from dcgan.config import NetworkConfig
from dcgan.networks import Discriminator, Encoder, Generator, Skip
from dcgan.sampling import sample_z
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights, WeightsError

HOLE = np.zeros((32, 32), dtype=bool)
HOLE[8:24, 8:24] = True
QUICK = replace(SOLVERS["search"], steps=3, draws=6, restarts=2)
FROM_E = replace(QUICK, start="encoder")
# Only the context loss, so that the z of the target is optimal.
FINDER = Solver(
    steps=150,
    restarts=4,
    start="random",
    draws=64,
    lr=0.05,
    cosine=True,
    weighted=True,
    prior="log",
    prior_weight=0.0,
    z_weight=0.0,
    clip=None,
)


@pytest.fixture(scope="module")
def target(small_weights: Weights) -> NDArray[np.uint8]:
    """G(z0) as a read-only photo."""
    z0 = sample_z(1, small_weights.generator.config, torch.Generator().manual_seed(99))
    pixels = to_image(small_weights.generator(z0))[0]
    pixels.flags.writeable = False
    return pixels


@dataclass(frozen=True)
class Single:
    """A search step for a single face."""

    z: Tensor
    context: Tensor
    prior: Tensor
    total: Tensor
    images: Tensor
    best: int
    preview: NDArray[np.uint8]


def search(
    weights: Weights, crop: NDArray[np.uint8], hole: NDArray[np.bool_], *args: Any, **kwargs: Any
) -> Iterator[Single]:
    for number, step in enumerate(solve(weights, crop[None], hole[None], *args, **kwargs)):
        assert step.number == number
        z, context, prior, total, images = (
            value[0] for value in (step.z, step.context, step.prior, step.total, step.images)
        )
        best = int(total.argmin())
        yield Single(z, context, prior, total, images, best, to_image(images)[best])


def last(*args: Any, **kwargs: Any) -> Single:
    *_, step = search(*args, **kwargs)
    return step


def same(one: Single, other: Single) -> bool:
    return torch.equal(one.z, other.z) and torch.equal(one.context, other.context) and one.best == other.best


def test_a_generated_image_is_recovered_around_and_inside_the_hole(
    small_weights: Weights, target: NDArray[np.uint8]
) -> None:
    steps = list(search(small_weights, target, HOLE, FINDER))
    first, final = steps[0], steps[-1]
    assert final.context[final.best] < 0.1 * first.context[first.best]
    assert np.abs(final.preview[HOLE].astype(int) - target[HOLE]).max() <= 4
    assert np.abs(final.preview.astype(int) - target).max() <= 4
    assert np.abs(first.preview.astype(int) - target).max() > 10  # no draw matches the target


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_lowers_the_context_loss_and_yields_the_initial_state_and_each_step(
    encoder_weights: Weights, target: NDArray[np.uint8], name: str
) -> None:
    solver = replace(SOLVERS[name], steps=15, lr=SOLVERS[name].lr or 0.1)
    steps = list(search(encoder_weights, target, HOLE, replace(solver, prior_weight=0, z_weight=0)))
    assert len(steps) == 16
    assert steps[-1].context.min() < steps[0].context.min()
    for step in steps:
        assert step.z.shape == (solver.restarts, 8) and step.images.shape == (solver.restarts, 3, 32, 32)
        assert step.context.shape == step.prior.shape == (solver.restarts,)
        assert not step.z.requires_grad and not step.context.requires_grad
        assert step.preview.shape == (32, 32, 3) and step.preview.dtype == np.uint8


def test_a_step_has_the_losses_of_its_z_and_previews_the_best(
    small_weights: Weights, target: NDArray[np.uint8]
) -> None:
    weights = Weights.of(small_weights.generator, small_weights.discriminator, metadata={"logit_offset": 3.0})
    solver = replace(QUICK, draws=12, restarts=12, prior="saturating", prior_weight=5.0, z_weight=7.0)
    for step in search(weights, target, HOLE, solver):
        fake = weights.generator(step.z)
        weight = context_weight(torch.from_numpy(~HOLE)[None, None])
        context = context_loss(fake, to_tensor(target[None].copy()), weight)
        prior = saturating_prior(weights.discriminator(fake) - 3.0)
        torch.testing.assert_close(step.context, context)
        torch.testing.assert_close(step.prior, prior)
        total = context + 5 * prior + 7 * step.z.square().mean(dim=1)
        assert step.best == int(total.argmin())
        torch.testing.assert_close(step.total, total)
        torch.testing.assert_close(step.images, fake)
        assert np.array_equal(step.preview, to_image(fake)[step.best])


def test_the_log_prior_differs_from_the_saturating_one(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, HOLE, replace(QUICK, prior="log"))
    logits = small_weights.discriminator(small_weights.generator(step.z))
    torch.testing.assert_close(step.prior, log_prior(logits))


def test_without_weighting_all_visible_pixels_count_equally(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, HOLE, replace(QUICK, weighted=False))
    difference = (small_weights.generator(step.z) - to_tensor(target[None].copy())).abs()
    torch.testing.assert_close(step.context, difference[..., torch.from_numpy(~HOLE)].sum(dim=(1, 2)))


def test_the_draws_with_the_lowest_context_loss_become_candidates(
    small_weights: Weights, target: NDArray[np.uint8]
) -> None:
    all_of_them = next(search(small_weights, target, HOLE, replace(QUICK, draws=100, restarts=100), seed=4))
    best = next(search(small_weights, target, HOLE, replace(QUICK, draws=100, restarts=3), seed=4))
    torch.testing.assert_close(best.context, all_of_them.context.sort().values[:3])


def test_the_seed_determines_every_bit(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    one, again, other = (last(small_weights, target, HOLE, QUICK, seed=seed) for seed in (1, 1, 2))
    assert same(one, again) and not same(one, other)


def guess(weights: Weights, pixels: NDArray[np.uint8]) -> tuple[Tensor, list[Skip]]:
    assert weights.encoder is not None
    return weights.encoder(to_tensor(pixels[None].copy()), torch.from_numpy(HOLE)[None, None])


def test_the_encoder_solver_is_one_pass_of_e(encoder_weights: Weights, target: NDArray[np.uint8]) -> None:
    [step] = search(encoder_weights, target, HOLE, replace(SOLVERS["encoder"], mirrored=None), seed=3)
    z, skips = guess(encoder_weights, target)
    assert torch.equal(step.z, z)
    torch.testing.assert_close(step.images, encoder_weights.generator(z, skips))
    assert not torch.allclose(step.images, encoder_weights.generator(z), atol=1e-3)  # skips affect the image


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0])
def test_both_orientations_are_averaged_in_all_that_is_coarse(
    encoder_weights: Weights, target: NDArray[np.uint8], sigma: float
) -> None:
    hole = HOLE.copy()
    hole[:, 20:] = False  # asymmetric, so that the orientation matters

    def image(pixels: NDArray[np.uint8], hole: NDArray[np.bool_], sigma: float | None) -> NDArray[np.float32]:
        [step] = search(encoder_weights, pixels, hole, replace(SOLVERS["encoder"], mirrored=sigma))
        return step.images[0].permute(1, 2, 0).numpy()

    one = image(target, hole, None)
    other = image(target[:, ::-1].copy(), hole[:, ::-1].copy(), None)[:, ::-1]
    assert np.abs(one - other).max() > 0.01
    mean, found = (one + other) / 2, image(target, hole, sigma)
    if sigma == 0:
        assert found == pytest.approx(mean, abs=1e-6)
    else:  # coarse as the mean, fine as the face itself
        expected = gaussian_filter(mean - one, (sigma, sigma, 0), mode="mirror", truncate=blur_radius(sigma) / sigma)
        assert found - one == pytest.approx(expected, abs=2e-4)


def test_the_search_starts_around_the_estimate_of_e(encoder_weights: Weights, target: NDArray[np.uint8]) -> None:
    z, _ = guess(encoder_weights, target)
    first = next(search(encoder_weights, target, HOLE, replace(FROM_E, draws=101, restarts=101)))
    distance = (first.z - z).square().mean(dim=1).sqrt()
    assert distance[0] == 0 and distance[:20].mean() < 0.5 * distance[40:60].mean() < distance[80:].mean()
    assert distance[80:].mean() == pytest.approx(0.9, abs=0.15)


def test_faces_of_a_batch_do_not_affect_each_other(encoder_weights: Weights) -> None:
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    holes = generator.random((3, 32, 32)) < 0.4
    for solver in (FROM_E, QUICK, SOLVERS["encoder"], SOLVERS["thorough"]):
        *_, together = solve(encoder_weights, crops, holes, solver)
        for index in range(3):
            alone = last(encoder_weights, crops[index], holes[index], solver)
            torch.testing.assert_close(together.z[index], alone.z, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(together.total[index], alone.total, rtol=1e-4, atol=1e-4)
            best = to_image(together.images[index])[int(together.total[index].argmin())]
            assert np.abs(best.astype(int) - alone.preview).max() <= 1


def test_fast_falls_back_to_search_without_a_usable_encoder(
    small_weights: Weights, encoder_weights: Weights, target: NDArray[np.uint8]
) -> None:
    without, networks = Networks(small_weights), Networks(encoder_weights)
    assert networks.resolve("fast") is networks.resolve("encoder") is SOLVERS["encoder"]
    assert without.resolve("fast") is networks.resolve("fast", block=4) is SOLVERS["search"]
    assert {name for name, solver in SOLVERS.items() if solver.start == "encoder"} == {"encoder", "thorough"}
    one, other = (last(weights, target, HOLE, QUICK) for weights in (small_weights, encoder_weights))
    assert same(one, other)
    assert not same(one, last(encoder_weights, target, HOLE, FROM_E))


def test_the_encoder_solver_needs_an_encoder_and_visible_pixels(
    small_weights: Weights, encoder_weights: Weights, target: NDArray[np.uint8]
) -> None:
    with pytest.raises(WeightsError, match="no encoder.*dcgan encode"):
        last(small_weights, target, HOLE, SOLVERS["encoder"])
    with pytest.raises(WeightsError, match="means of blocks"):
        last(encoder_weights, target, HOLE, SOLVERS["encoder"], block=4)


def test_candidates_near_an_estimate_stay_within_a_uniform_prior(tmp_path: Path) -> None:
    config = NetworkConfig(size=16, nz=4, ngf=4, ndf=4, z_prior="uniform")
    E = Encoder(config, 4)
    with torch.no_grad():
        for weight in E.parameters():
            weight.mul_(10)
    Weights.of(Generator(config), Discriminator(config), "face", {}, E).save(tmp_path / "w.safetensors")
    crop, hole = np.full((16, 16, 3), 255, dtype=np.uint8), np.zeros((16, 16), dtype=bool)
    hole[4:8] = True
    first = next(
        search(Weights.open(tmp_path / "w.safetensors", "cpu"), crop, hole, replace(FROM_E, draws=20, restarts=20))
    )
    assert 0.9 < first.z.abs().max() <= 1


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", ["small_weights", "encoder_weights"])
def test_pixels_under_the_hole_have_no_effect(
    request: pytest.FixtureRequest, target: NDArray[np.uint8], weighted: bool, name: str
) -> None:
    weights = request.getfixturevalue(name)
    solver = replace(FROM_E if weights.encoder else QUICK, weighted=weighted)
    other = np.where(HOLE[..., None], 255 - target, target)
    assert same(last(weights, target, HOLE, solver), last(weights, other, HOLE, solver))
    elsewhere = np.where(HOLE[..., None], target, 255 - target)
    assert not same(last(weights, target, HOLE, solver), last(weights, elsewhere, HOLE, solver))


def test_read_only_arrays_are_accepted(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    hole = HOLE.copy()
    hole.flags.writeable = False
    assert not target.flags.writeable
    last(small_weights, target, hole, QUICK)  # raises no error and no torch warning


def test_candidates_do_not_affect_each_other(
    small_weights: Weights, target: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = sample_z(4, small_weights.generator.config, torch.Generator().manual_seed(0))

    def draw(count: int, *_: object) -> Tensor:
        return drawn[:count]

    monkeypatch.setattr(solve_module, "sample_z", draw)
    together = last(small_weights, target, HOLE, replace(QUICK, draws=4, restarts=4))
    alone = last(small_weights, target, HOLE, replace(QUICK, draws=1, restarts=1))
    torch.testing.assert_close(together.z[:1], alone.z)
    torch.testing.assert_close(together.context[:1], alone.context)


def test_without_visible_pixels_the_result_is_a_random_face(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, np.ones((32, 32), dtype=bool), QUICK)
    assert not step.context.any() and torch.isfinite(step.z).all()


def test_with_blocks_only_the_means_are_read(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    full = np.ones((32, 32), dtype=bool)
    flipped = target.reshape(8, 4, 8, 4, 3)[:, ::-1, :, ::-1].reshape(32, 32, 3)  # flips each block
    assert not np.array_equal(flipped, target)
    one, other = (last(small_weights, pixels, full, QUICK, block=4) for pixels in (target, flipped))
    torch.testing.assert_close(one.z, other.z)
    found = small_weights.generator(one.z).reshape(2, 3, 8, 4, 8, 4).mean(dim=(3, 5))
    wanted = to_tensor(target[None].copy()).reshape(1, 3, 8, 4, 8, 4).mean(dim=(3, 5))
    torch.testing.assert_close(one.context, (found - wanted).abs().sum(dim=(1, 2, 3)))


def test_block_means_recover_a_generated_image(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, np.ones((32, 32), dtype=bool), FINDER, block=4)
    assert np.abs(step.preview.astype(int) - target).max() <= 4


@pytest.mark.parametrize(("z_prior", "bound"), [("uniform", 1.0), ("normal", 3.0)])
def test_clip_keeps_z_within_the_prior(tmp_path: Path, z_prior: str, bound: float) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(size=16, nz=4, ngf=4, ndf=4, z_prior=z_prior)
    Weights.of(Generator(config), Discriminator(config), "face", {}).save(tmp_path / "tiny.safetensors")
    weights = Weights.open(tmp_path / "tiny.safetensors", "cpu")
    crop, hole = np.full((16, 16, 3), 255, dtype=np.uint8), np.zeros((16, 16), dtype=bool)
    hole[4:8] = True
    fierce = replace(SOLVERS["paper"], steps=3, lr=20.0)
    assert last(weights, crop, hole, fierce).z.abs().max() == bound
    assert last(weights, crop, hole, replace(fierce, clip=None)).z.abs().max() > bound


def test_a_cosine_schedule_ends_at_zero(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    def strides(cosine: bool) -> list[float]:
        steps = search(small_weights, target, HOLE, replace(QUICK, steps=10, cosine=cosine))
        return [float((after.z - before.z).norm()) for before, after in pairwise(steps)]

    assert strides(True)[0] == strides(False)[0] and strides(True)[-1] < 0.1 * strides(False)[-1]


def test_adam_matches_torch() -> None:
    ours = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    theirs = ours.detach().clone().requires_grad_(True)
    adam, reference = Adam(ours), torch.optim.Adam([theirs])
    for number in range(20):
        for group in reference.param_groups:
            group["lr"] = lr = 0.2 / (number + 1)
        adam.step(*torch.autograd.grad((ours - 1).pow(4).sum(), ours), lr)
        reference.zero_grad()
        (theirs - 1).pow(4).sum().backward()
        reference.step()
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)

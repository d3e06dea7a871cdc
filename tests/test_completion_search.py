"""Tests of the search for z, with images of untrained networks as targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import box
from torch import Tensor

from completion import search as search_module
from completion.config import SOLVERS, Solver
from completion.loss import context_loss, context_weight, log_prior, saturating_prior
from completion.search import Search
from dcgan.adam import Adam
from dcgan.config import NetworkConfig
from dcgan.networks import Discriminator, Generator
from dcgan.sampling import sample_z
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights

HOLE = box((32, 32), 8, 24, 8, 24)
FULL = np.ones((32, 32), dtype=bool)
SHORT = replace(SOLVERS["search"], steps=3, samples=6, candidates=2)
# Only the context loss, so that the z of the target is optimal.
FINDER = replace(SOLVERS["search"], steps=150, samples=64, candidates=4, lr=0.05, prior_weight=0.0, z_weight=0.0)


@pytest.fixture(scope="module")
def target(small_weights: Weights) -> NDArray[np.uint8]:
    """G(z0) as a read-only photo."""
    z0 = sample_z(1, small_weights.generator.config, torch.Generator().manual_seed(99))
    pixels = to_image(small_weights.generator(z0))[0]
    pixels.flags.writeable = False
    return pixels


@dataclass(frozen=True)
class Single:
    """A step for a single face, its numbers as tensors."""

    z: Tensor
    context: Tensor
    prior: Tensor
    total: Tensor
    images: NDArray[np.uint8]
    best: int
    best_image: NDArray[np.uint8]


def search(
    weights: Weights, crop: NDArray[np.uint8], hole: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
) -> Iterator[Single]:
    for number, step in enumerate(Search(weights).solve(crop[None], hole[None], solver, seed, block)):
        assert (step.number, step.steps, step.face, step.faces) == (number, solver.steps, 0, 1)
        assert step.z is not None and step.images.dtype == step.previews.dtype == np.uint8
        assert np.array_equal(step.previews[0], np.where(hole[..., None], step.best_images[0], crop))
        values = [torch.from_numpy(value[0]) for value in (step.z, step.context, step.prior, step.total)]
        yield Single(*values, step.images[0], int(step.best[0]), step.best_images[0])


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
    assert np.abs(final.best_image.astype(int) - target).max() <= 4
    assert np.abs(first.best_image.astype(int) - target).max() > 10  # no sample matches the target


@pytest.mark.parametrize("name", ["search", "paper", "bamos"])
def test_every_solver_lowers_the_context_loss_and_yields_the_initial_state_and_each_step(
    small_weights: Weights, target: NDArray[np.uint8], name: str
) -> None:
    solver = replace(SOLVERS[name], steps=15, prior_weight=0, z_weight=0)
    steps = list(search(small_weights, target, HOLE, solver))
    assert len(steps) == 16 and steps[-1].context.min() < steps[0].context.min()
    for step in steps:
        assert step.z.shape == (solver.candidates, 8) and step.images.shape == (solver.candidates, 32, 32, 3)
        assert step.context.shape == step.prior.shape == (solver.candidates,)


@pytest.mark.parametrize(("prior", "offset"), [("saturating", 3.0), ("log", 0.0)])
def test_a_step_has_the_losses_of_its_z_and_the_image_of_the_best(
    small_weights: Weights, target: NDArray[np.uint8], prior: str, offset: float
) -> None:
    G, D = small_weights.generator, small_weights.discriminator
    weights = Weights.of(G, D, metadata={"logit_offset": offset})
    changes: dict[str, Any] = {"samples": 12, "candidates": 12, "prior": prior, "prior_weight": 5.0, "z_weight": 7.0}
    for step in search(weights, target, HOLE, replace(SHORT, **changes)):
        fake = G(step.z)
        context = context_loss(
            fake, to_tensor(target[None].copy()), context_weight(torch.from_numpy(~HOLE)[None, None])
        )
        expected = (saturating_prior if prior == "saturating" else log_prior)(D(fake) - offset)
        total = context + 5 * expected + 7 * step.z.square().mean(dim=1)
        for found, value in ((step.context, context), (step.prior, expected), (step.total, total)):
            torch.testing.assert_close(found, value)
        assert step.best == int(total.argmin()) and np.array_equal(step.images, to_image(fake))
        assert np.array_equal(step.best_image, to_image(fake)[step.best])


def test_without_weighting_all_visible_pixels_count_equally(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, HOLE, replace(SHORT, weighted=False))
    difference = (small_weights.generator(step.z) - to_tensor(target[None].copy())).abs()
    torch.testing.assert_close(step.context, difference[..., torch.from_numpy(~HOLE)].sum(dim=(1, 2)))


def test_the_samples_with_the_lowest_context_loss_become_candidates(
    small_weights: Weights, target: NDArray[np.uint8]
) -> None:
    everything, best = (
        next(search(small_weights, target, HOLE, replace(SHORT, samples=100, candidates=candidates), seed=4))
        for candidates in (100, 3)
    )
    torch.testing.assert_close(best.context, everything.context.sort().values[:3])


def test_the_seed_determines_every_bit(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    one, again, other = (last(small_weights, target, HOLE, SHORT, seed=seed) for seed in (1, 1, 2))
    assert same(one, again) and not same(one, other)


def test_neither_faces_nor_candidates_affect_each_other(
    small_weights: Weights, target: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    crops, holes = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8), rng.random((3, 32, 32)) < 0.4
    *_, together = Search(small_weights).solve(crops, holes, SHORT)
    for index in range(3):
        alone = last(small_weights, crops[index], holes[index], SHORT)
        assert together.z is not None and together.z[index] == pytest.approx(alone.z.numpy(), rel=1e-4, abs=1e-4)
        assert together.total[index] == pytest.approx(alone.total.numpy(), rel=1e-4, abs=1e-4)
        assert np.abs(together.best_images[index].astype(int) - alone.best_image).max() <= 1
    drawn = sample_z(4, small_weights.generator.config, torch.Generator().manual_seed(0))
    monkeypatch.setattr(search_module, "sample_z", lambda count, *_: drawn[:count])
    four, one = (last(small_weights, target, HOLE, replace(SHORT, samples=n, candidates=n)) for n in (4, 1))
    torch.testing.assert_close(four.z[:1], one.z)
    torch.testing.assert_close(four.context[:1], one.context)


def test_an_encoder_does_not_change_the_search(
    small_weights: Weights, encoder_weights: Weights, target: NDArray[np.uint8]
) -> None:
    assert same(*(last(weights, target, HOLE, SHORT) for weights in (small_weights, encoder_weights)))


@pytest.mark.parametrize("weighted", [True, False])
def test_pixels_under_the_hole_have_no_effect(
    small_weights: Weights, target: NDArray[np.uint8], weighted: bool
) -> None:
    solver, hole = replace(SHORT, weighted=weighted), HOLE.copy()
    hole.flags.writeable = False  # read-only arrays give no error and no warning of torch
    original = last(small_weights, target, hole, solver)
    under, elsewhere = (np.where(hole[..., None] == hidden, 255 - target, target) for hidden in (True, False))
    assert same(original, last(small_weights, under, HOLE, solver))
    assert not same(original, last(small_weights, elsewhere, HOLE, solver))


def test_without_visible_pixels_the_result_is_a_random_face(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, FULL, SHORT)
    assert not step.context.any() and torch.isfinite(step.z).all()


def test_with_blocks_only_the_means_are_read(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    flipped = target.reshape(8, 4, 8, 4, 3)[:, ::-1, :, ::-1].reshape(32, 32, 3)  # flips each block
    assert not np.array_equal(flipped, target)
    one, other = (last(small_weights, pixels, FULL, SHORT, block=4) for pixels in (target, flipped))
    torch.testing.assert_close(one.z, other.z)
    found = small_weights.generator(one.z).reshape(2, 3, 8, 4, 8, 4).mean(dim=(3, 5))
    wanted = to_tensor(target[None].copy()).reshape(1, 3, 8, 4, 8, 4).mean(dim=(3, 5))
    torch.testing.assert_close(one.context, (found - wanted).abs().sum(dim=(1, 2, 3)))


def test_block_means_recover_a_generated_image(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    step = last(small_weights, target, FULL, FINDER, block=4)
    assert np.abs(step.best_image.astype(int) - target).max() <= 4


@pytest.mark.parametrize(("z_prior", "bound"), [("uniform", 1.0), ("normal", 3.0)])
def test_clip_keeps_z_within_the_prior(z_prior: Any, bound: float) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(size=16, nz=4, ngf=4, ndf=4, z_prior=z_prior)
    weights = Weights.of(Generator(config).eval(), Discriminator(config).eval())
    crop, hole = np.full((16, 16, 3), 255, dtype=np.uint8), np.zeros((16, 16), dtype=bool)
    hole[4:8] = True
    fierce = replace(SOLVERS["paper"], steps=3, lr=20.0)
    assert last(weights, crop, hole, fierce).z.abs().max() == bound
    assert last(weights, crop, hole, replace(fierce, clip=None)).z.abs().max() > bound


def test_a_cosine_schedule_ends_at_zero(small_weights: Weights, target: NDArray[np.uint8]) -> None:
    def strides(cosine: bool) -> list[float]:
        steps = search(small_weights, target, HOLE, replace(SHORT, steps=10, cosine=cosine))
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

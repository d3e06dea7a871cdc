"""Measures against closed forms, brute force and scikit-image."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from dcgan import metrics, similarity

RNG = np.random.default_rng(0)


def noise(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def images(count: int, size: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_one_scale_of_ms_ssim_is_scikit_images_ssim() -> None:
    a = noise(1, 16)
    b = (a + 0.5 * noise(1, 16, 1)).clamp(-1, 1)
    halves = [((image[0].permute(1, 2, 0) + 1) / 2).numpy() for image in (a, b)]
    expected = structural_similarity(
        *halves, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert similarity.ms_ssim(a, b).item() == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_multiplies_the_scales_by_their_weights() -> None:
    # Flat pictures differ in brightness alone, which counts at the coarsest scale alone.
    bright = similarity.ms_ssim(torch.full((1, 3, 64, 64), -0.5), torch.full((1, 3, 64, 64), 0.5)).item()
    coarsest = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert bright == pytest.approx(coarsest ** (0.3001 / (0.0448 + 0.2856 + 0.3001)), rel=1e-3)


@pytest.mark.parametrize(("size", "scales"), [(11, 1), (16, 1), (32, 2), (64, 3), (128, 4), (176, 5), (512, 5)])
def test_small_images_have_fewer_scales(size: int, scales: int) -> None:
    weights = similarity.ms_ssim_weights(size)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1)


def test_ms_ssim_of_equal_images_is_1_and_falls_with_noise() -> None:
    x = noise(2, 64)
    assert torch.allclose(similarity.ms_ssim(x, x), torch.ones(2))
    worse = [similarity.ms_ssim(x, (x + s * noise(2, 64, 1)).clamp(-1, 1)).mean().item() for s in (0.1, 0.3, 1.0)]
    assert 1 > worse[0] > worse[1] > worse[2]
    assert similarity.ms_ssim(x, -x).max() < 0.05  # correlated negatively counts as 0


def test_ms_ssim_has_finite_gradients_at_its_minimum() -> None:
    x = noise(2, 32).requires_grad_()
    similarity.ms_ssim(x, -x.detach()).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize(("a", "b"), [((1, 3, 64, 64), (1, 3, 32, 32)), ((1, 3, 8, 8), (1, 3, 8, 8))])
def test_ms_ssim_refuses_other_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected equal shapes"):
        similarity.ms_ssim(torch.zeros(a), torch.zeros(b))


def test_frechet_distance_has_its_closed_forms() -> None:
    a = RNG.standard_normal((500, 6))
    shift = np.array([3.0, 0, 0, 4, 0, 0])
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(a, a + shift) == pytest.approx(25)
    # Whitened, so that scaling the axes leaves diagonal covariances: sum of (s - 1)^2.
    white = (a - a.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(a, rowvar=False))).T
    scales = np.arange(1, 7)
    assert metrics.frechet_distance(white, white * scales) == pytest.approx(np.square(scales - 1).sum())


def test_frechet_distance_stays_real_with_few_rows() -> None:
    a, b = RNG.standard_normal((2, 5, 20))
    assert math.isfinite(metrics.frechet_distance(a, b))
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_equals_brute_force() -> None:
    a, b = RNG.standard_normal((2, 5, 3))
    scale = np.mean([x @ x for x in a])

    def k(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return float((x @ y / scale + 1) ** 3)

    within = sum(k(s[i], s[j]) for s in (a, b) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(x, y) for x in a for y in b) / 25
    assert metrics.kernel_distance(a, b) == pytest.approx(within - 2 * across)


def test_kernel_distance_is_unbiased() -> None:
    draws = [metrics.kernel_distance(*RNG.standard_normal((2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / 20
    assert min(draws) < 0
    # Subsets of 20 have the mean of the whole; the biased estimate would add about the kernel's diagonal / 10.
    a, b = RNG.standard_normal((2, 400, 4)) + np.array([[[0.0]], [[1.0]]])
    whole = metrics.kernel_distance(a, b, subset=400)
    assert metrics.kernel_distance(a, b, subset=20, subsets=300) == pytest.approx(whole, rel=0.1)


def test_precision_and_recall_of_modes() -> None:
    left, right = RNG.standard_normal((2, 100, 8)) * 0.1 + np.array([[[0.0]], [[9.0]]])
    both = np.concatenate([left, right])
    assert metrics.precision_recall(both, both) == (1, 1)
    assert metrics.precision_recall(left, right) == (0, 0)
    assert metrics.precision_recall(both, left) == (1, 0.5)
    assert metrics.precision_recall(left, both) == (0.5, 1)


def test_precision_reaches_to_the_kth_neighbour() -> None:
    real = np.array([[0.0], [1.0], [3.0], [6.0]])  # third neighbours at 6, 5, 3, 6
    fake = np.array([[-6.5], [-5.5], [11.5], [12.5]])
    assert metrics.precision_recall(real, fake, k=3)[0] == 0.5
    assert metrics.precision_recall(real, fake, k=1)[0] == 0


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection() -> None:
    a = RNG.standard_normal((200, 147), dtype=np.float32)
    shift = np.full(147, 0.5, dtype=np.float32)
    # The mean of |u . v| over unit vectors u of F dimensions is |v| Gamma(F/2) / (sqrt(pi) Gamma((F + 1) / 2)).
    mean = math.exp(math.lgamma(147 / 2) - math.lgamma(148 / 2)) / math.sqrt(math.pi) * np.linalg.norm(shift)
    assert metrics.sliced_wasserstein(a, a) == 0
    assert metrics.sliced_wasserstein(a, a[::-1] + shift) == pytest.approx(mean, rel=0.1)


def test_swd_finds_the_level_where_texture_is_missing() -> None:
    sharp = images(16, 64, 0)
    assert metrics.swd(sharp, sharp) == {64: 0, 32: 0, 16: 0}
    assert list(metrics.swd(sharp[:, :16, :16], sharp[:, :16, :16])) == [16]
    dull = sharp.copy()
    dull[:, 32:] = sharp.reshape(16, 32, 2, 32, 2, 3).mean(axis=(2, 4)).repeat(2, 1).repeat(2, 2)[:, 32:].round()
    found, baseline = metrics.swd(sharp, dull), metrics.swd(sharp, images(16, 64, 1))
    assert found[64] > 2 * baseline[64]
    assert found[16] < baseline[16]


def test_swd_ignores_a_tint() -> None:
    dark = images(4, 16, 0) // 2
    assert metrics.swd(dark, dark + 100)[16] == pytest.approx(0, abs=1e-5)
    flat = np.full((4, 16, 16, 3), 7, dtype=np.uint8)
    assert metrics.swd(flat, flat + 1) == {16: 0}


def test_swd_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        metrics.swd(images(4, 16, 0), images(5, 16, 0))


def test_the_pyramid_sums_to_the_image() -> None:
    import cv2

    faces = images(2, 64, 0)
    *fine, total = metrics.laplacian_pyramid(faces)
    for level in reversed(fine):
        total = level + np.stack([cv2.pyrUp(image) for image in total])
    assert np.allclose(total, faces, atol=1e-3)

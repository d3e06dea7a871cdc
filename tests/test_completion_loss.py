"""Tests of the search losses against the equations of the papers."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from completion.loss import context_loss, context_weight, log_prior, saturating_prior


def weight_by_loops(known: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    """Yeh et al. 2017, eq. 3: W_i = sum over j in N(i) of (1 - M_j) / |N(i)| if M_i, else 0."""
    size, reach = len(known), window // 2
    weight = np.zeros(known.shape)
    for y in range(size):
        for x in range(size):
            if known[y, x]:
                near = known[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                weight[y, x] = (~near).sum() / near.size
    return weight


@pytest.mark.parametrize("window", [7, 3])
def test_context_weights_match_equation_3(window: int) -> None:
    holes = np.zeros((4, 16, 16), dtype=bool)  # centre, corner, random, none
    holes[0, 4:12, 4:12] = True
    holes[1, :3, :5] = True
    holes[2] = np.random.default_rng(0).random((16, 16)) < 0.5
    weights = context_weight(torch.from_numpy(~holes)[:, None], window)[:, 0].numpy()
    np.testing.assert_allclose(weights, [weight_by_loops(~hole, window) for hole in holes], atol=1e-6)
    assert not weights[holes].any() and not weights[3].any()


def test_context_loss_is_the_weighted_sum_of_absolute_differences() -> None:
    real = torch.tensor([[0.5, -1.0], [0.0, 1.0]]).expand(1, 3, 2, 2)
    fake = torch.stack([real[0], real[0] + 0.25, real[0] * 0])
    weight = torch.tensor([[[[1.0, 0.5], [2.0, 0.0]]]])
    # Three channels times the sum of weight * |difference|; the difference of 1 has weight 0.
    assert context_loss(fake, real, weight).tolist() == [0.0, 3 * 0.25 * 3.5, 3 * (0.5 + 0.5)]


def test_priors_match_the_papers_and_stay_finite() -> None:
    logits = torch.tensor([-2.0, 0.0, 3.0])
    judged = [1 / (1 + math.exp(-logit)) for logit in logits.tolist()]  # D(G(z)) as a probability
    assert log_prior(logits).tolist() == pytest.approx([-math.log(d) for d in judged], rel=1e-5)
    assert saturating_prior(logits).tolist() == pytest.approx([math.log(1 - d) for d in judged], rel=1e-5)
    extreme = torch.tensor([-200.0, 200.0])
    assert log_prior(extreme).tolist() == [200.0, 0.0] and saturating_prior(extreme).tolist() == [0.0, -200.0]

"""Rewards as probabilities of a comparison: hand values, extremes, where training begins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from fivefold.models.pairs import Outcomes
from fivefold.models.pooled.comparison import Comparison, rao_kupper

TIES = Outcomes(first=1, second=2, tie=0)


def test_hand_values_of_rao_and_kupper() -> None:
    # σ(1 - ½), σ(-1 - ½), and the rest.
    first, second = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.5))
    found = rao_kupper(torch.tensor([1.0]), torch.tensor([0.5]))
    np.testing.assert_allclose([each.exp().item() for each in found], [first, second, 1 - first - second], rtol=1e-6)
    # Their own form: π₁ / (π₁ + θπ₂) with π = exp(r) and θ = exp(η).
    strong, weak, theta = math.exp(1.3), math.exp(0.3), math.exp(0.5)
    assert found[0].exp().item() == pytest.approx(strong / (strong + theta * weak))


def test_without_ties_it_is_bradley_and_terry() -> None:
    comparison = Comparison(Outcomes(first=1, second=0, tie=None))
    assert not list(comparison.parameters())
    logs = comparison(torch.tensor([[2.0], [0.5], [0.0], [0.0]]))
    np.testing.assert_allclose(logs[0].exp().numpy(), [1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(-1.5))], rtol=1e-6)
    np.testing.assert_allclose(logs[1].exp().numpy(), [0.5, 0.5])


@pytest.mark.parametrize("band", [-200.0, -50.0, -3.0, 0.0, 3.0, 50.0])
def test_extremes_are_finite_and_sum_to_one(band: float) -> None:
    gaps = torch.tensor([-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4], requires_grad=True)
    width = torch.tensor([band], requires_grad=True)
    logs = torch.stack(rao_kupper(gaps, softplus(width)))
    assert logs.isfinite().all()
    assert (logs <= 1e-6).all()
    torch.testing.assert_close(logs.exp().sum(dim=0), torch.ones(7))
    logs.clamp(min=-60).sum().backward()
    assert gaps.grad is not None
    assert width.grad is not None
    assert gaps.grad.isfinite().all()
    assert width.grad.isfinite().all()


def test_swapping_the_sides_swaps_the_outcomes_exactly() -> None:
    comparison = Comparison(TIES)
    comparison.start(np.log(np.array([0.3, 0.4, 0.3], dtype=np.float32)))
    rewards = torch.randn(40, 1, generator=torch.Generator().manual_seed(0)) * 20
    turned = rewards.reshape(-1, 2).flip(1).reshape(-1, 1)
    with torch.no_grad():
        there, back = comparison(rewards), comparison(turned)
    assert torch.equal(there, back[:, [0, 2, 1]])


@pytest.mark.parametrize("ties", [1e-4, 0.2, 0.9])
def test_equal_rewards_tie_as_often_as_the_labels(ties: float) -> None:
    comparison = Comparison(TIES)
    comparison.start(np.log(np.array([ties, 0.7 * (1 - ties), 0.3 * (1 - ties)], dtype=np.float32)))
    with torch.no_grad():
        probabilities = comparison(torch.zeros(2, 1)).exp()[0]
    np.testing.assert_allclose(probabilities, [ties, (1 - ties) / 2, (1 - ties) / 2], rtol=1e-4)

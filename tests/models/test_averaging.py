from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fivefold.errors import RunError
from fivefold.models.backbones.adapters import Adapter
from fivefold.models.backbones.averaging import (
    average_at_rank,
    average_exactly,
    average_factors,
    product_norm,
    truncated,
)

RANK, FOLDS = 3, 4
MODULES = {"q_proj": (10, 14), "down_proj": (40, 12)}


def folds(seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for _ in range(FOLDS):
        own = {"score.weight": torch.randn(5, 10, generator=generator)}
        for name, (inputs, outputs) in MODULES.items():
            own[f"{name}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator)
            own[f"{name}.lora_B.weight"] = torch.randn(outputs, RANK, generator=generator)
        tensors.append(own)
    return tensors


def added(adapter: Adapter, tensors: dict[str, Tensor], name: str) -> Tensor:
    """What an adapter adds to a weight."""
    scale = adapter.alpha / (math.sqrt(adapter.rank) if adapter.rslora else adapter.rank)
    return scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]


def mean_added(adapter: Adapter, name: str) -> Tensor:
    return torch.stack([added(adapter, fold, name) for fold in folds()]).mean(dim=0)


@pytest.mark.parametrize("rslora", [False, True])
def test_stacked_factors_add_the_mean(rslora: bool) -> None:
    adapter = Adapter(rank=RANK, alpha=5, rslora=rslora)
    average = average_exactly(adapter, folds())
    assert average.adapter.rank == RANK * FOLDS
    for name in MODULES:
        torch.testing.assert_close(
            added(average.adapter, average.tensors, name), mean_added(adapter, name), atol=1e-5, rtol=0
        )
    assert average.error < 1e-5
    torch.testing.assert_close(
        average.tensors["score.weight"], torch.stack([f["score.weight"] for f in folds()]).mean(0)
    )


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("rank", [1, 4, 10])
def test_a_lower_rank_is_the_closest_there_is(rank: int, rslora: bool) -> None:
    adapter = Adapter(rank=RANK, alpha=5, rslora=rslora)
    average = average_at_rank(adapter, folds(), rank)
    apart = size = 0.0
    for name in MODULES:
        exact = mean_added(adapter, name)
        u, sizes, v = torch.linalg.svd(exact, full_matrices=False)
        best = u[:, :rank] * sizes[:rank] @ v[:rank]
        torch.testing.assert_close(added(average.adapter, average.tensors, name), best, atol=1e-4, rtol=0)
        assert average.tensors[f"{name}.lora_A.weight"].shape[0] == rank
        apart, size = apart + float((exact - best).square().sum()), size + float(exact.square().sum())
    assert average.error == pytest.approx(math.sqrt(apart / size), abs=1e-4)


def test_the_full_rank_is_exact() -> None:
    assert average_at_rank(Adapter(rank=RANK), folds(), RANK * FOLDS).error < 1e-5


def test_the_mean_of_factors_is_another_thing() -> None:
    adapter = Adapter(rank=RANK, alpha=5)
    average = average_factors(adapter, folds())
    apart = size = 0.0
    for name in MODULES:
        exact = mean_added(adapter, name)
        apart += float((added(average.adapter, average.tensors, name) - exact).square().sum())
        size += float(exact.square().sum())
    assert average.adapter == adapter
    assert average.error == pytest.approx(math.sqrt(apart / size), rel=1e-4)
    assert average.error > 0.3


def test_alike_adapters_are_averaged_to_themselves() -> None:
    same = [folds()[0]] * FOLDS
    assert average_factors(Adapter(rank=RANK), same).error < 1e-5


def test_what_can_not_be_averaged() -> None:
    with pytest.raises(RunError, match="DoRA"):
        average_exactly(Adapter(rank=RANK, dora=True), folds())
    assert math.isnan(average_factors(Adapter(rank=RANK, dora=True), folds()).error)
    with pytest.raises(RunError, match="several ranks"):
        average_exactly(Adapter(rank=RANK, options={"rank_pattern": {"q_proj": 8}}), folds())
    for rank in (0, RANK * FOLDS + 1):
        with pytest.raises(RunError, match="1 to 12"):
            average_at_rank(Adapter(rank=RANK), folds(), rank)


def test_norms_of_products() -> None:
    a, b = torch.randn(4, 9), torch.randn(7, 4)
    assert product_norm(a, b) == pytest.approx(float((b @ a).norm()), rel=1e-6)
    again_a, again_b = truncated(a, b, 4)
    torch.testing.assert_close(again_b @ again_a, b @ a, atol=1e-5, rtol=0)

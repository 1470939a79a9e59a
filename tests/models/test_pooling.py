from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from fivefold.models.pooled.pooling import (
    AttentionPool,
    cls_pool,
    max_pool,
    mean_pool,
    segment_max,
    segment_mean,
    segment_sum,
)

HIDDEN = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [9.0, 9.0]], [[5.0, 6.0], [9.0, 9.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def test_hand_values() -> None:
    assert cls_pool(HIDDEN, MASK).tolist() == [[1, -2], [5, 6]]
    assert mean_pool(HIDDEN, MASK).tolist() == [[2, -3], [5, 6]]
    assert max_pool(HIDDEN, MASK).tolist() == [[3, -2], [5, 6]]


def test_attention_starts_as_the_mean_and_learns() -> None:
    pool = AttentionPool(2)
    assert torch.allclose(pool(HIDDEN, MASK), mean_pool(HIDDEN, MASK))
    pool(HIDDEN, MASK)[:, 0].sum().backward()
    assert pool.scores.weight.grad is not None
    assert pool.scores.weight.grad.abs().sum() > 0
    with torch.no_grad():
        pool.scores.weight.copy_(torch.tensor([[1.0, 0.0]]))
    share = torch.tensor([1.0, 3.0]).softmax(dim=0)
    assert torch.allclose(pool(HIDDEN, MASK)[0], share @ HIDDEN[0, :2])


@pytest.mark.parametrize("pool", [cls_pool, mean_pool, max_pool, AttentionPool(2)])
@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e30])
def test_padding_may_hold_anything(pool: object, rubbish: float) -> None:
    assert callable(pool)
    dirty = HIDDEN.clone()
    dirty[MASK == 0] = rubbish
    dirty.requires_grad_()
    clean = pool(HIDDEN, MASK)
    pooled = pool(dirty, MASK)
    assert torch.equal(pooled, clean)
    pooled.sum().backward()
    assert dirty.grad is not None
    assert dirty.grad[MASK == 0].abs().sum() == 0
    assert dirty.grad.isfinite().all()


def test_segments() -> None:
    vectors = torch.tensor([[1.0, -1.0], [3.0, -3.0], [5.0, 7.0]])
    group = torch.tensor([0, 0, 1])
    assert segment_sum(vectors, group, 2).tolist() == [[4, -4], [5, 7]]
    assert segment_mean(vectors, group, 2).tolist() == [[2, -2], [5, 7]]
    assert segment_max(vectors, group, 2).tolist() == [[3, -1], [5, 7]]


def test_merging_by_attention_is_a_softmax_a_group() -> None:
    pool = AttentionPool(4).double()
    torch.nn.init.normal_(pool.scores.weight, generator=torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    group = torch.tensor([0, 0, 0, 1, 1])
    for place, rows in ((0, slice(0, 3)), (1, slice(3, 5))):
        alone = pool(vectors[None, rows], torch.ones(1, rows.stop - rows.start))
        assert torch.allclose(pool.merge(vectors, group, 2)[place], alone[0])
    assert gradcheck(lambda v: pool.merge(v, group, 2), vectors.clone().requires_grad_())
    assert pool.merge(vectors * 1e4, group, 2).isfinite().all()

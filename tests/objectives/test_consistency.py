import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as Distribution
from torch.distributions import kl_divergence
from torch.nn.functional import mse_loss

from fivefold.objectives.consistency import rdrop, symmetric_kl
from fivefold.task import Binary, Categorical, Task

TASK = Task((Binary("x"), Categorical("c", ("a", "b", "d")), Binary("y"), Categorical("e", ("f", "g"))))
BINARIES, C, E = [0, 4], slice(1, 4), slice(5, 7)


def passes() -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, 6, TASK.width, generator=torch.Generator().manual_seed(0)))


def test_by_hand() -> None:
    task = Task((Binary("x"), Binary("y"), Categorical("c", ("a", "b"))))
    first = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    second = torch.tensor([[3.0, 2.0, 0.0, math.log(3)]])  # ½, ½ against ¼, ¾
    divergence = 0.5 * (0.25 * math.log(2) + 0.25 * math.log(1.5))
    torch.testing.assert_close(rdrop(task, first, second, 0.5), torch.tensor([2 + 0.5 * divergence]))


def test_equals_torch() -> None:
    first, second = passes()
    expected = mse_loss(first[:, BINARIES], second[:, BINARIES], reduction="none").mean(1)
    for block in (C, E):
        p, q = Distribution(logits=first[:, block]), Distribution(logits=second[:, block])
        expected = expected + 2.0 * (kl_divergence(p, q) + kl_divergence(q, p)) / 2
    torch.testing.assert_close(rdrop(TASK, first, second, 2.0), expected)


def test_equal_passes_disagree_by_nothing() -> None:
    first, second = passes()
    assert not rdrop(TASK, first, first.clone(), 1.0).any()
    torch.testing.assert_close(rdrop(TASK, first, second, 1.0), rdrop(TASK, second, first, 1.0))
    assert (rdrop(TASK, first, second, 1.0) > 0).all()


def test_categoricals_do_not_see_a_shift_of_their_logits() -> None:
    first, second = passes()
    shifted = second.clone()
    shifted[:, C] += 5
    torch.testing.assert_close(rdrop(TASK, first, second, 1.0), rdrop(TASK, first, shifted, 1.0))


def test_without_categoricals_it_is_the_squared_difference() -> None:
    first, second = passes()
    expected = (first[:, BINARIES] - second[:, BINARIES]).square().mean(1)
    torch.testing.assert_close(rdrop(TASK, first, second, 0.0), expected)


def test_a_task_without_binaries() -> None:
    first, second = passes()
    alone = Task((Categorical("c", ("a", "b", "d")),))
    torch.testing.assert_close(rdrop(alone, first[:, C], second[:, C], 1.0), symmetric_kl(first[:, C], second[:, C]))


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_gradients_reach_both_passes_and_are_finite(size: float) -> None:
    first, second = (size * logits for logits in passes())
    first.requires_grad_(), second.requires_grad_()
    rdrop(TASK, first, second, 1.0).sum().backward()
    assert first.grad is not None
    assert second.grad is not None
    assert torch.cat([first.grad, second.grad]).isfinite().all()
    assert first.grad[:, BINARIES].all()
    assert second.grad[:, BINARIES].all()


def test_half_precision_is_measured_in_full() -> None:
    task = Task((Binary("x"),))
    first, second = torch.tensor([[300.0]]).half(), torch.tensor([[-300.0]]).half()
    assert rdrop(task, first, second, 1.0) == 360_000.0  # float16 ends at 65,504

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fivefold.training import timing
from fivefold.training.timing import growing, middle, seconds_a_token, unchanged, update_seconds

CPU = torch.device("cpu")


class Clock:
    """Each pass takes as many seconds as it has rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.passes = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def work(self, rows: np.ndarray[Any, Any]) -> None:
        self.passes.append(len(rows))
        self.now += len(rows)


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (4, [1, 4]), (20, [1, 4, 16, 20])])
def test_passes_grow(rows: int, sizes: list[int]) -> None:
    assert growing(rows) == sizes


@pytest.mark.parametrize(("enough", "passes"), [(1e9, [1, 1, 4, 16, 20, 20]), (6.0, [1, 1, 4]), (0.0, [1])])
def test_what_takes_long_is_timed_less(enough: float, passes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", enough)
    rate = seconds_a_token(clock.work, np.arange(20), lambda rows: 5 * len(rows), CPU)
    assert clock.passes == passes
    assert rate == pytest.approx(1 / 5)


def test_the_middle_is_that_of_tokens_not_of_passes() -> None:
    assert middle(np.array([10, 1, 1, 1, 10, 1, 12])) in (0, 4)
    assert middle(np.array([7])) == 0


def test_an_update_takes_as_long_as_its_share_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_seconds", lambda *_: 2.0)
    assert update_seconds(timing.STAND_IN // 2, CPU) == 2
    assert update_seconds(timing.STAND_IN * 3, CPU) == 6


def test_nothing_is_left_behind() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    weights = [parameter.clone() for parameter in module.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    with unchanged(module, CPU):
        module.train()(torch.rand(2, 3)).sum().backward()
    assert torch.equal(torch.rand(5), expected)
    assert not any(each.training for each in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))

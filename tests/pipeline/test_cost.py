from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fivefold.errors import RunError
from fivefold.models.base import Cost
from fivefold.pipeline.folds import expected, total_cost

ONE = Cost(seconds=60.0, bytes=3e9, shared_seconds=30.0, parameters=135_000_000, trained=4_880_000, room=8e9)
CORPUS: Any = SimpleNamespace(rows=lambda index: index)


def total(one: Cost, folds: int, at_once: int) -> Cost:
    told: Any = SimpleNamespace(evaluated=tuple(range(folds)), training=lambda fold: np.arange(3))
    asked: Any = SimpleNamespace(cost=lambda rows: one)
    return total_cost(CORPUS, told, asked, at_once)


def test_folds_at_once_take_memory_as_often() -> None:
    assert (total(ONE, 5, 1).seconds, total(ONE, 5, 1).bytes) == (330, 3e9)
    assert total(ONE, 5, 2).bytes == 6e9
    assert total(ONE, 1, 4).bytes == 3e9
    assert total(replace(ONE, room=None), 5, 4).bytes == 12e9


def test_more_folds_at_once_than_there_is_memory_for_are_refused() -> None:
    with pytest.raises(RunError, match=r"(?s)3 folds at once.*8\.0 GB.*3 times 3\.0 GB.*fit 2 at a time"):
        total(ONE, 5, 3)


def test_a_cost_in_words() -> None:
    assert expected(total(ONE, 12, 1)) == "about 12 min and 3.0 GB; 135 million weights, 4.88 million of them trained"
    assert expected(Cost(0.2, 4e8)) == "about 1 s and 0.4 GB"

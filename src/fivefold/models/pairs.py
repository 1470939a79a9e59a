"""Pairs that are compared: which class says that a side wins, and which pairs tell a model nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fivefold.data.compose import Rows
from fivefold.data.duplicates import folded
from fivefold.errors import RecipeError
from fivefold.task import Swap, Task

Places: TypeAlias = npt.NDArray[np.int64]

TIE, FIRST, SECOND = 0, 1, 2
"""Who wins by a class."""

TELLING, ALIKE, FIRST_EMPTY, SECOND_EMPTY = 0, 1, 2, 3
"""Kinds of pairs: two texts that differ, two that are the same (both empty, too), and one empty side."""


@dataclass(frozen=True)
class Outcomes:
    """Positions among a categorical's classes: either side wins, or neither does."""

    first: int
    second: int
    tie: int | None


def winners(task: Task) -> Places:
    """Who wins by each class of the swapped target, (classes,): TIE for a class that stays itself; of two that trade
    places FIRST for the one that the swap's class map names first."""
    swap = swap_of(task)
    moved = [label for label, other in swap.classes.items() if label != other]
    sides: dict[str, int] = {}
    for label in moved:
        sides[label] = SECOND if swap.classes[label] in sides else FIRST
    return np.array([sides.get(label, TIE) for label in task.target(swap.target).classes], dtype=np.int64)


def outcomes_of(task: Task) -> Outcomes:
    """What a comparison of two rewards has to tell apart.

    Raises
    ------
    RecipeError
        If the task is more than one comparison: another target, no swap, or more than two winners and a tie.
    """
    sides = winners(task) if task.swap is not None else np.zeros(0, dtype=np.int64)
    counts = np.bincount(sides, minlength=3).tolist()
    if len(task.targets) > 1 or counts[FIRST] != 1 or counts[SECOND] != 1 or counts[TIE] > 1:
        raise RecipeError(
            "model.head 'reward' compares two answers, and this task asks for something else.",
            allowed="one categorical with task.swap: two classes that trade places, and at most one that stays (a tie)",
            got=", ".join(task.columns[:8]) + ("" if task.swap else ", without task.swap"),
            next_step="write task.swap, or take head: linear",
        )
    tie = int(np.argmax(sides == TIE)) if counts[TIE] else None
    return Outcomes(int(np.argmax(sides == FIRST)), int(np.argmax(sides == SECOND)), tie)


def class_order(task: Task) -> Places:
    """The swapped target's classes of a swapped row, in the order of its own, (classes,)."""
    block = task.slices[swap_of(task).target]
    order: Places = task.swap_order[block] - block.start
    return order


def kinds_of(rows: Rows, swap: Swap) -> npt.NDArray[np.int8]:
    """The kind of each pair, (rows,), by the fields that trade places alone, letter case and white space aside."""
    kinds = rows.corpus.once(f"kinds of pairs:{swap.fields}", partial(_kinds, swap=swap))
    return kinds[rows.index]


def swap_of(task: Task) -> Swap:
    """The task's swap, which a caller knows to be there."""
    if task.swap is None:
        raise ValueError("a task without a swap has no pairs")
    return task.swap


def _kinds(fields: Mapping[str, Sequence[str]], swap: Swap) -> npt.NDArray[np.int8]:
    firsts, seconds = (
        zip(*([folded(t) for t in fields[pair[i]]] for pair in swap.fields), strict=True) for i in (0, 1)
    )
    kinds = [_kind(first, second) for first, second in zip(firsts, seconds, strict=True)]
    return np.array(kinds, dtype=np.int8)


def _kind(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    if first == second:
        return ALIKE
    if not any(first):
        return FIRST_EMPTY
    return TELLING if any(second) else SECOND_EMPTY

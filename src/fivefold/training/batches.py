"""Which rows pass through a network together: alike in length, and no more tokens at once than fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.training.tokens import IndexArray

POOL_STEPS = 50
"""Steps that are sorted by length together: long enough to pad little, short enough to stay random."""


@dataclass(frozen=True)
class Batches:
    """The optimiser steps of every epoch, a pure function of the seed and the epoch's number.

    Parameters
    ----------
    lengths
        Tokens of each row's longest sequence, (rows,).
    counts
        Sequences of each row, (rows,).
    batch_size
        Rows of a step; the last one of an epoch may have fewer.
    tokens_per_pass
        Tokens of a micro-batch at most, padding included; a single row may exceed it.
    """

    lengths: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    batch_size: int
    tokens_per_pass: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def tokens(self, rows: IndexArray) -> int:
        """Tokens of a pass over these rows, padding included."""
        return int(self.counts[rows].sum()) * int(self.lengths[rows].max(initial=0))

    def epoch(self, number: int) -> list[list[IndexArray]]:
        """The steps of an epoch, each a list of micro-batches of row positions; every row once."""
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(len(self.lengths))
        steps = [step for pool in _cut(order, POOL_STEPS * self.batch_size) for step in self._steps(pool)]
        return [self._micro_batches(steps[position]) for position in random.permutation(len(steps))]

    def _steps(self, pool: IndexArray) -> list[IndexArray]:
        return _cut(pool[np.argsort(self.lengths[pool], kind="stable")], self.batch_size)

    def _micro_batches(self, step: IndexArray) -> list[IndexArray]:
        return [step[part] for part in in_order(self.lengths[step], self.counts[step], self.tokens_per_pass)]


def in_order(lengths: npt.NDArray[Any], counts: npt.NDArray[Any], tokens_per_pass: int) -> list[IndexArray]:
    """All rows once, longest first, in batches of at most so many tokens, padding included.

    The first batch needs the most memory, so what doesn't fit fails at once. A row that exceeds the budget is alone.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    ends = np.cumsum(np.asarray(counts, dtype=np.int64)[order])
    batches, start, before = [], 0, 0
    while start < len(order):
        room = tokens_per_pass // max(int(lengths[order[start]]), 1)
        stop = max(int(np.searchsorted(ends, before + room, side="right")), start + 1)
        batches.append(order[start:stop])
        start, before = stop, int(ends[stop - 1])
    return batches


def padding_share(lengths: npt.NDArray[Any], counts: npt.NDArray[Any], batches: Iterable[npt.NDArray[Any]]) -> float:
    """Share of the tokens of these batches that is padding, taking a row's sequences to be as long as its longest."""
    padded, real = 0, 0
    for batch in batches:
        padded += int(counts[batch].sum()) * int(lengths[batch].max(initial=0))
        real += int((counts[batch] * lengths[batch]).sum())
    return 1 - real / padded if padded else 0.0


def shard(step: list[IndexArray], rank: int, world: int) -> list[IndexArray]:
    """The part of a step that one of `world` processes computes, as smaller micro-batches.

    Rows are dealt in turn, so shares differ by a row at most and are alike in length.
    """
    ends = np.cumsum([len(part) for part in step])
    dealt = [part[(rank - (end - len(part))) % world :: world] for part, end in zip(step, ends, strict=True)]
    return [part for part in dealt if len(part)]


def _cut(rows: IndexArray, size: int) -> list[IndexArray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.training.batches import POOL_STEPS, Batches, in_order, padding_share, shard


@st.composite
def schedules(draw: st.DrawFn) -> Batches:
    rows = draw(st.integers(0, 200))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return Batches(
        lengths=random.integers(1, 60, rows),
        counts=random.integers(1, draw(st.integers(2, 5)), rows),
        batch_size=draw(st.integers(1, 20)),
        tokens_per_pass=draw(st.integers(1, 600)),
        seed=draw(st.integers(0, 2**31 - 1)),
    )


def flat(steps: list[list[npt.NDArray[np.int64]]]) -> list[int]:
    return [row for step in steps for part in step for row in part.tolist()]


def padded(batches: Batches, part: npt.NDArray[np.int64]) -> int:
    return int(batches.counts[part].sum() * batches.lengths[part].max())


@settings(deadline=None)
@given(schedules(), st.integers(0, 5))
def test_an_epoch_has_every_row_once_and_keeps_its_budgets(batches: Batches, number: int):
    steps = batches.epoch(number)
    assert sorted(flat(steps)) == list(range(len(batches.lengths)))
    assert len(steps) == batches.steps_per_epoch
    sizes = [sum(map(len, step)) for step in steps]
    assert sorted(sizes)[1:] == [batches.batch_size] * (len(sizes) - 1)
    assert all(size <= batches.batch_size for size in sizes)
    for step in steps:
        for part in step:
            assert len(part) == 1 or padded(batches, part) <= batches.tokens_per_pass


@settings(deadline=None)
@given(schedules())
def test_micro_batches_are_as_large_as_the_budget_allows(batches: Batches):
    for step in batches.epoch(0):
        for part, following in pairwise(step):
            assert padded(batches, np.append(part, following[0])) > batches.tokens_per_pass


@settings(deadline=None)
@given(schedules(), st.integers(0, 5))
def test_an_epoch_is_a_function_of_seed_and_number(batches: Batches, number: int):
    assert flat(batches.epoch(number)) == flat(replace(batches).epoch(number))


def test_epochs_and_seeds_differ():
    batches = Batches(np.ones(100, dtype=np.int64), np.ones(100, dtype=np.int64), 10, 1000, seed=3)
    orders = [flat(batches.epoch(0)), flat(batches.epoch(1)), flat(replace(batches, seed=4).epoch(0))]
    assert len({tuple(order) for order in orders}) == 3


def test_steps_hold_rows_of_like_length_in_an_order_that_says_nothing_of_it():
    lengths = np.random.default_rng(0).integers(5, 500, 5000)
    ones = np.ones_like(lengths)
    batches = Batches(lengths, ones, 16, 10**6, seed=0)
    steps = [part for step in batches.epoch(0) for part in step]
    assert padding_share(lengths, ones, steps) < 0.05
    assert padding_share(lengths, ones, np.split(np.arange(4992), 312)) > 0.3
    means = [lengths[part].mean() for part in steps]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_pools_stay_random():
    lengths = np.arange(POOL_STEPS * 8)
    batches = Batches(lengths, np.ones_like(lengths), 4, 10**6, seed=0)
    together = [{tuple(sorted(flat([step]))) for step in batches.epoch(number)} for number in range(2)]
    assert len(together[0] & together[1]) < len(together[0]) / 4


@settings(deadline=None)
@given(schedules())
def test_scoring_has_every_row_once_longest_first(batches: Batches):
    found = in_order(batches.lengths, batches.counts, batches.tokens_per_pass)
    order = [row for part in found for row in part.tolist()]
    assert sorted(order) == list(range(len(batches.lengths)))
    assert np.all(np.diff(batches.lengths[order]) <= 0)
    assert all(len(part) == 1 or padded(batches, part) <= batches.tokens_per_pass for part in found)


def test_padding_share_by_hand():
    lengths, counts = np.array([4, 2, 3]), np.array([1, 2, 1])
    assert padding_share(lengths, counts, [np.array([0, 1]), np.array([2])]) == 1 - (4 + 4 + 3) / (12 + 3)
    assert padding_share(lengths, counts, []) == 0


@settings(deadline=None)
@given(schedules(), st.integers(1, 5))
def test_processes_share_a_step(batches: Batches, world: int):
    for step in batches.epoch(0):
        shares = [shard(step, rank, world) for rank in range(world)]
        assert sorted(flat(shares)) == sorted(flat([step]))
        sizes = [len(flat([share])) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert all(len(part) for share in shares for part in share)
        assert all(len(part) == 1 or padded(batches, part) <= batches.tokens_per_pass for s in shares for part in s)

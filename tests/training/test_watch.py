from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest

from fivefold.training.watch import LASTING, Watch

STEPS = 2000
TIME = np.arange(STEPS) / STEPS

Series = Callable[[np.random.Generator], npt.NDArray[np.float64]]

QUIET: dict[str, Series] = {
    "hardly learns": lambda r: 0.65 + 0.04 * np.exp(-3 * TIME) + r.normal(0, 0.04, STEPS),
    "doesn't learn": lambda r: 0.69 + r.normal(0, 0.1, STEPS),
    "heavy tails": lambda r: (0.05 + 0.6 * np.exp(-8 * TIME)) * r.lognormal(0, 1, STEPS),
    "overfits, with outliers": lambda r: 0.69 * np.exp(-20 * TIME) + (r.random(STEPS) < 0.03) * r.exponential(9, STEPS),
    "length buckets": lambda r: (0.5 + 0.5 * np.exp(-6 * TIME)) * r.choice([0.5, 0.8, 1, 1.3, 1.8], STEPS),
    "already learned": lambda r: 0.02 * r.lognormal(0, 1.2, STEPS),
    "language model": lambda r: 2.2 + 0.5 * np.exp(-4 * TIME) + r.normal(0, 0.1, STEPS),
    "single rows": lambda r: r.exponential(0.5 + 0.2 * np.exp(-5 * TIME)),
}


def steps_until_alarm(losses: npt.NDArray[np.float64]) -> int | None:
    watch = Watch()
    for step, loss in enumerate(np.maximum(losses, 0).tolist(), start=1):
        watch.see(loss)
        if watch.diverged:
            return step
    return None


@pytest.mark.parametrize("name", QUIET)
def test_no_false_alarm(name: str) -> None:
    random = np.random.default_rng(0)
    assert [steps_until_alarm(QUIET[name](random)) for _ in range(8)] == [None] * 8


@pytest.mark.parametrize("name", ["language model", "overfits, with outliers"])
@pytest.mark.parametrize("height", [1.0, 3.0, 1e6])
def test_a_jump_is_seen_soon(name: str, height: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(8):
        losses = QUIET[name](random)
        losses[1000:] = losses[:10].mean() * height * random.uniform(0.9, 1.1, STEPS - 1000)
        assert 1000 < (steps_until_alarm(losses) or 0) <= 1000 + 2 * LASTING


def test_a_slow_return_is_seen() -> None:
    losses = np.concatenate([np.linspace(0.7, 0.2, 300), np.linspace(0.2, 0.7, 500), np.full(50, 0.7)])
    assert 650 < (steps_until_alarm(losses) or 0) < 850


def test_an_explosion_is_seen_though_nothing_was_learned() -> None:
    assert steps_until_alarm(np.array([0.7] * 30 + [50.0] * 40)) in range(31, 60)


def test_lasting_steps_without_a_finite_loss() -> None:
    watch = Watch()
    for _ in range(LASTING - 1):
        watch.skip()
    assert not watch.diverged
    assert not watch.well
    watch.skip()
    assert watch.diverged
    watch.see(0.7)
    assert not watch.diverged
    assert watch.well


def test_well_ends_with_the_first_loss_that_is_back() -> None:
    watch = Watch()
    assert watch.well
    for loss in np.linspace(0.7, 0.1, 100).tolist():
        watch.see(loss)
        assert watch.well
    assert watch.learned
    watch.see(0.7)
    assert not watch.well


def test_it_survives_json() -> None:
    watch = Watch()
    for loss in np.linspace(0.7, 0.1, 100).tolist():
        watch.see(loss)
    assert Watch(**asdict(watch)) == watch
    assert len(watch.recent) == LASTING

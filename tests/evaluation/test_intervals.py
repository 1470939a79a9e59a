import json
from functools import partial

import numpy as np
import pytest

from fivefold.errors import DataError
from fivefold.evaluation.intervals import Predictions, bootstrap, interval, paired_difference, resample
from fivefold.evaluation.metrics import METRICS, applicable
from fivefold.evaluation.summary import Evaluation, evaluate
from fivefold.scores import Scores, id_array
from fivefold.task import Binary, Categorical, Labels, Task, Tree

TASK = Task(
    (
        Binary("a"),
        Binary("b"),
        Categorical("animal", ("cat", "dog")),
        Categorical("breed", ("siam", "persian", "poodle")),
    ),
    tree=Tree(("animal", "breed"), ((0, 0), (0, 1), (1, 2))),
)


def draw(rows: int, noise: float, seed: int = 0) -> tuple[Labels, Predictions]:
    generator = np.random.default_rng(0)
    codes = np.stack([generator.integers(len(t.classes), size=rows) for t in TASK.targets], axis=1).astype(np.int32)
    labels, generator = Labels(TASK, codes), np.random.default_rng(seed + 1)
    truth = np.concatenate([labels.probabilities(name) for name in TASK.names], axis=1)
    logits = (4 * truth - 2 + noise * generator.normal(size=truth.shape)).astype(np.float32)
    scores = Scores(TASK, id_array(range(rows)), logits)
    decisions = [scores.block("a")[:, 0] > 0, scores.block("b")[:, 0] > 0]
    decisions += [scores.block(name).argmax(axis=1) for name in ("animal", "breed")]
    return labels, Predictions(np.stack(decisions, axis=1).astype(np.int32), scores)


@pytest.mark.parametrize("name", [metric.name for metric in applicable(TASK)])
def test_a_replicate_is_the_metric_of_the_resampled_rows(name: str) -> None:
    labels, system = draw(80, noise=2)
    metric = METRICS[name]
    weights = next(resample(80, seed=3, resamples=3))
    replicates = metric.prepare(labels, system.decisions, system.scores)(weights)
    for replicate, line in zip(replicates, weights, strict=True):
        rows = np.repeat(np.arange(80), line.astype(int))
        expected = metric.function(labels.take(rows), system.decisions[rows], system.scores.take(rows))
        assert replicate == pytest.approx(expected)


def test_resamples_draw_as_many_rows_and_follow_the_seed() -> None:
    weights = np.concatenate(list(resample(50, seed=1, resamples=20)))
    assert weights.shape == (20, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert np.array_equal(weights, np.concatenate(list(resample(50, seed=1, resamples=20))))
    assert not np.array_equal(weights, np.concatenate(list(resample(50, seed=2, resamples=20))))


def test_rows_of_a_group_move_together() -> None:
    groups = np.array(["x", "y", "x", "z", "y", "y"])
    weights = np.concatenate(list(resample(6, seed=0, groups=groups, resamples=50)))
    for group in "xyz":
        inside = weights[:, groups == group]
        assert (inside == inside[:, :1]).all()


def test_grouped_intervals_are_wider_when_groups_agree() -> None:
    codes = np.repeat(np.random.default_rng(0).integers(2, size=(60, 1)), 20, axis=0).astype(np.int32)
    labels = Labels(Task((Binary("a"),)), codes)
    decisions = np.zeros_like(codes)
    scores = Scores(labels.task, id_array(range(1200)), np.zeros((1200, 1), dtype=np.float32))
    figure = {"accuracy": METRICS["accuracy"].prepare(labels, decisions, scores)}
    low, high = interval(bootstrap(figure, 1200, seed=0)["accuracy"])
    groups = np.repeat(np.arange(60), 20)
    low_of_groups, high_of_groups = interval(bootstrap(figure, 1200, seed=0, groups=groups)["accuracy"])
    assert high_of_groups - low_of_groups > 3 * (high - low)


def test_interval_of_an_accuracy_is_near_the_normal_one() -> None:
    codes = (np.arange(1000)[:, None] < 300).astype(np.int32)
    labels = Labels(Task((Binary("a"),)), codes)
    scores = Scores(labels.task, id_array(range(1000)), np.zeros((1000, 1), dtype=np.float32))
    found = evaluate(labels, np.zeros_like(codes), scores, "accuracy", seed=0).headline
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.7 - half, 0.7 + half), abs=0.004)


def test_an_unknown_figure_has_an_unknown_interval() -> None:
    assert np.isnan(interval(np.full(10, np.nan))).all()


def test_a_better_system_is_found_better() -> None:
    labels, good = draw(300, noise=1)
    _, poor = draw(300, noise=3, seed=1)
    compare = partial(paired_difference, labels, seed=0)
    for name in ("mixed_mean", "log_loss"):
        better, worse = compare(good, poor, METRICS[name]), compare(poor, good, METRICS[name])
        assert better.share_better == 1 - worse.share_better == 1
        assert better.p_value == worse.p_value < 0.01
        assert (better.difference, better.low, better.high) == pytest.approx(
            (-worse.difference, -worse.high, -worse.low)
        )
        assert better.low <= better.difference <= better.high
        assert (better.difference > 0) == METRICS[name].greater_is_better


def test_a_system_does_not_differ_from_itself() -> None:
    labels, system = draw(100, noise=2)
    same = paired_difference(labels, system, system, METRICS["item_accuracy"], seed=0)
    assert (same.difference, same.low, same.high, same.share_better, same.p_value) == (0, 0, 0, 0.5, 1)


def test_systems_of_other_rows_are_refused() -> None:
    labels, a = draw(20, noise=2)
    b = Predictions(a.decisions[::-1], a.scores.take(np.arange(20)[::-1]))
    with pytest.raises(DataError, match="align"):
        paired_difference(labels, a, b, METRICS["accuracy"], seed=0)


def test_an_evaluation_survives_json() -> None:
    labels, system = draw(60, noise=2)
    found = evaluate(
        labels, system.decisions, system.scores, "mixed_mean", seed=0, tuned={"f1_macro": 0.5}, resamples=50
    )
    assert set(found.estimates) == {metric.name for metric in applicable(TASK)}
    assert all(each.low <= each.value <= each.high for each in found.estimates.values() if each.value not in (0, 1))
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_figures_unknown_on_these_rows_are_left_out() -> None:
    labels = Labels(Task((Binary("a"),)), np.zeros((5, 1), dtype=np.int32))
    scores = Scores(labels.task, id_array(range(5)), np.zeros((5, 1), dtype=np.float32))
    found = evaluate(labels, labels.codes, scores, "f1_macro", seed=0, resamples=10)
    assert set(found.estimates) == {"f1_macro", "f1_micro", "accuracy", "log_loss", "ece"}
    json.dumps(found.to_json(), allow_nan=False)

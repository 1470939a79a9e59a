import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.decisions.calibration import Curve, Isotonic, Temperature, Uncalibrated
from fivefold.decisions.rule import DecisionRule, cross_fitted, fit_rule, halves
from fivefold.evaluation.metrics import METRICS
from fivefold.scores import Scores, id_array
from fivefold.task import Binary, Categorical, Labels, Task, Tree

TASK = Task(
    (Binary("a"), Categorical("top", ("x", "y")), Binary("b"), Categorical("leaf", ("p", "q", "r"))),
    tree=Tree(("top", "leaf"), ((0, 0), (1, 1), (1, 2))),
)
PROBABILITIES = st.floats(0, 1)
POINTS = st.lists(st.tuples(st.floats(-20, 20), PROBABILITIES), min_size=1, max_size=3)


def draw(rows: int, seed: int) -> tuple[Scores, Labels]:
    generator = np.random.default_rng(seed)
    leaf = generator.integers(3, size=rows)
    codes = [generator.random(rows) < 0.3, leaf > 0, generator.random(rows) < 0.1, leaf]
    labels = Labels(TASK, np.stack(codes, axis=1).astype(np.int32))
    truth = np.concatenate([labels.probabilities(name) for name in TASK.names], axis=1)
    logits = 3 * truth - 2 + generator.normal(size=truth.shape)
    return Scores(TASK, id_array(range(rows)), logits.astype(np.float32)), labels


@st.composite
def rules(draw: st.DrawFn) -> DecisionRule:
    curves = [Curve(tuple(x for x, _ in points), tuple(y for _, y in points)) for points in draw(st.lists(POINTS))]
    temperatures = draw(st.dictionaries(st.text(), st.floats(0.05, 20)))
    calibration = draw(st.sampled_from([Uncalibrated(), Temperature(temperatures), Isotonic(tuple(curves))]))
    thresholds = draw(st.dictionaries(st.text(), PROBABILITIES))
    return DecisionRule(calibration, thresholds, draw(st.sampled_from(["consistent", "free"])))


@given(rule=rules())
def test_json_gives_the_same_rule_to_the_last_bit(rule: DecisionRule) -> None:
    assert DecisionRule.from_json(json.loads(json.dumps(rule.to_json(), allow_nan=False))) == rule


@pytest.mark.parametrize("calibration", ["none", "temperature", "isotonic"])
@pytest.mark.parametrize("thresholds", ["sweep", "grid", "common", 0.4])
def test_a_rule_read_back_decides_alike(thresholds: object, calibration: object) -> None:
    scores, labels = draw(200, 0)
    rule = fit_rule(scores, labels, metric="mixed_mean", thresholds=thresholds, calibration=calibration)
    again = DecisionRule.from_json(json.loads(json.dumps(rule.to_json())))
    assert list(rule.thresholds) == ["a", "b"]
    assert np.array_equal(again.decide(scores), rule.decide(scores))
    assert np.array_equal(rule.decide_calibrated(rule.calibrate(scores)), rule.decide(scores))


def test_a_fitted_rule_beats_a_half() -> None:
    scores, labels = draw(400, 1)
    figures = [
        METRICS["mixed_mean"].function(labels, rule.decide(scores), scores)
        for rule in (
            fit_rule(scores, labels, metric="mixed_mean", thresholds=t, shrinkage=0) for t in ("sweep", "common", 0.5)
        )
    ]
    assert figures == sorted(figures, reverse=True)


def test_log_loss_leaves_thresholds_at_a_half_but_not_a_number_given() -> None:
    scores, labels = draw(50, 2)
    assert dict(fit_rule(scores, labels, metric="log_loss").thresholds) == {"a": 0.5, "b": 0.5}
    assert dict(fit_rule(scores, labels, metric="log_loss", thresholds=0.3).thresholds) == {"a": 0.3, "b": 0.3}


def test_consistent_rules_decide_valid_paths_only() -> None:
    scores, labels = draw(300, 3)
    valid = set(TASK.tree.paths) if TASK.tree else set()
    consistent, free = (
        {tuple(pair) for pair in fit_rule(scores, labels, metric="item_accuracy", tree=tree).decide(scores)[:, [1, 3]]}
        for tree in ("consistent", "free")
    )
    assert consistent <= valid
    assert not free <= valid


@pytest.mark.parametrize("folds", [np.arange(120) % 3, np.zeros(120, dtype=int)])
def test_no_row_chooses_the_rule_that_decides_it(folds: np.ndarray) -> None:
    scores, labels = draw(120, 4)
    fit = partial(fit_rule, metric="mixed_mean", calibration="temperature")
    honest = cross_fitted(scores, labels, folds, fit, seed=5)
    parts = folds if folds.any() else halves(120, 5)
    for part in np.unique(parts):
        inside = parts == part
        rule = fit(scores.take(~inside), labels.take(~inside))
        assert np.array_equal(honest.decisions[inside], rule.decide(scores.take(inside)))
        assert np.array_equal(honest.scores.logits[inside], rule.calibrate(scores.take(inside)).logits)
    flipped = Labels(TASK, labels.codes.copy())
    flipped.codes[0] = [1 - flipped.codes[0, 0], 0, 1, 0]
    again = cross_fitted(scores, flipped, folds, fit, seed=5)
    own = parts == parts[0]
    assert np.array_equal(again.decisions[own], honest.decisions[own])
    assert np.array_equal(again.scores.logits[own], honest.scores.logits[own])


def test_cross_fitting_is_less_optimistic() -> None:
    generator = np.random.default_rng(6)
    task = Task((Binary("a"),))
    labels = Labels(task, (generator.random((200, 1)) < 0.1).astype(np.int32))
    scores = Scores(task, id_array(range(200)), generator.normal(size=(200, 1)).astype(np.float32))
    fit = partial(fit_rule, metric="f1_macro", shrinkage=0)
    figure = partial(METRICS["f1_macro"].function, labels, scores=scores)
    honest = cross_fitted(scores, labels, np.arange(200) % 5, fit)
    assert figure(decisions=honest.decisions) < figure(decisions=fit(scores, labels).decide(scores))


@settings(deadline=None)
@given(rows=st.integers(2, 50), seed=st.integers(0, 5))
def test_halves_are_halves_and_follow_the_seed(rows: int, seed: int) -> None:
    assert abs(int((halves(rows, seed) == 0).sum()) * 2 - rows) <= 1
    assert np.array_equal(halves(rows, seed), halves(rows, seed))

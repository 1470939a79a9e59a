from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit

from fivefold.decisions.curves import logistic_curve
from fivefold.decisions.cuts import binary_probabilities, exact_cuts
from fivefold.decisions.decode import decide_freely
from fivefold.decisions.thresholds import GRID, SHRINKAGE, common, fixed, grid, shrink, sweep
from fivefold.evaluation.metrics import METRICS
from fivefold.scores import Scores, id_array
from fivefold.task import MISSING, Binary, Categorical, Labels, Task

DECIDED = ["f1_macro", "f1_micro", "f1_samples", "jaccard", "accuracy"]


def problem(codes: np.ndarray, logits: np.ndarray) -> tuple[Scores, Labels]:
    task = Task(tuple(Binary(f"label {i}") for i in range(codes.shape[1])))
    return Scores(task, id_array(range(len(codes))), logits.astype(np.float32)), Labels(task, codes.astype(np.int32))


@st.composite
def problems(draw: st.DrawFn, labels: int = 2) -> tuple[Scores, Labels]:
    """Small problems full of ties and missing cells."""
    shape = (draw(st.integers(2, 9)), labels)
    codes = draw(hnp.arrays(np.int32, shape, elements=st.integers(MISSING, 1)))
    return problem(codes, draw(hnp.arrays(np.int32, shape, elements=st.integers(-3, 3))) / 2)


def figure(metric: str, scores: Scores, labels: Labels, thresholds: np.ndarray) -> float:
    return METRICS[metric].function(labels, decide_freely(scores, thresholds), scores)


def candidates(scores: Scores) -> np.ndarray:
    """A threshold in every gap between two scores, and outside them."""
    known = np.unique(np.concatenate([[0.0, 1.0], binary_probabilities(scores).ravel()]))
    return (known[:-1] + known[1:]) / 2


def draw_emotions(rows: int, seed: int) -> tuple[Scores, Labels]:
    generator = np.random.default_rng(seed)
    codes = generator.random((rows, 4)) < [0.4, 0.2, 0.1, 0.02]
    return problem(codes, 2 * codes - 2 + generator.normal(size=codes.shape))


@pytest.mark.parametrize("metric", ["f1_macro", "f1_micro"])
@settings(deadline=None, max_examples=40)
@given(case=problems())
def test_no_pair_of_thresholds_beats_the_sweep(metric: str, case: tuple[Scores, Labels]) -> None:
    scores, labels = case
    best = max(figure(metric, scores, labels, np.array(pair)) for pair in product(candidates(scores), repeat=2))
    assert figure(metric, scores, labels, sweep(scores, labels, metric, 0)) == pytest.approx(best)


@pytest.mark.parametrize("metric", DECIDED)
@settings(deadline=None, max_examples=25)
@given(case=problems())
def test_no_common_threshold_beats_the_common_one(metric: str, case: tuple[Scores, Labels]) -> None:
    scores, labels = case
    found = figure(metric, scores, labels, common(scores, labels, metric))
    rivals = [figure(metric, scores, labels, fixed(labels, t)) for t in candidates(scores)]
    assert np.isnan(found) or found == pytest.approx(max(rivals))


@pytest.mark.parametrize("metric", ["f1_samples", "jaccard", "accuracy"])
@settings(deadline=None, max_examples=40)
@given(case=problems(labels=3))
def test_moving_one_threshold_never_beats_the_ascent(metric: str, case: tuple[Scores, Labels]) -> None:
    scores, labels = case
    found = sweep(scores, labels, metric, 0)
    best = figure(metric, scores, labels, found)
    for label, threshold in product(range(3), candidates(scores)):
        moved = found.copy()
        moved[label] = threshold
        assert np.isnan(best) or figure(metric, scores, labels, moved) <= best + 1e-9


@settings(deadline=None, max_examples=40)
@given(case=problems(labels=1))
def test_one_labels_accuracy_is_the_best_there_is(case: tuple[Scores, Labels]) -> None:
    scores, labels = case
    found = figure("accuracy", scores, labels, sweep(scores, labels, "accuracy", 0))
    assert np.isnan(found) or found == pytest.approx(
        max(figure("accuracy", scores, labels, np.array([t])) for t in candidates(scores))
    )


@pytest.mark.parametrize("metric", DECIDED)
def test_the_sweep_beats_the_grid_and_the_grid_beats_a_half(metric: str) -> None:
    scores, labels = draw_emotions(400, 0)
    swept, gridded, half = (
        figure(metric, scores, labels, thresholds)
        for thresholds in (sweep(scores, labels, metric, 0), grid(scores, labels, metric, 0), fixed(labels, 0.5))
    )
    assert swept >= gridded >= half


def test_the_grid_is_the_published_search() -> None:
    scores, labels = draw_emotions(300, 1)
    found = grid(scores, labels, "f1_macro", 0)
    for label, threshold in enumerate(found):
        alone = problem(labels.codes[:, [label]], scores.logits[:, [label]])
        figures = [figure("f1_macro", *alone, np.array([t])) for t in GRID]
        assert threshold == GRID[int(np.argmax(figures))]


def test_midpoints_part_the_neighbours() -> None:
    scores, labels = problem(np.array([[0], [0], [1], [1]]), np.array([[-2], [-1], [1], [2]]))
    low, high = binary_probabilities(scores)[[1, 2], 0]
    assert sweep(scores, labels, "f1_macro", 0) == pytest.approx((low + high) / 2, rel=1e-12)


def test_thresholds_part_adjacent_float32_scores() -> None:
    logits = np.array([[16.0], [np.nextafter(np.float32(16), np.float32(17))]])
    scores, labels = problem(np.array([[0], [1]]), logits)
    decisions = decide_freely(scores, sweep(scores, labels, "f1_macro", 0))
    assert decisions.ravel().tolist() == [0, 1]


def test_missing_cells_choose_nothing() -> None:
    scores, labels = draw_emotions(200, 2)
    hidden = Labels(labels.task, labels.codes.copy())
    hidden.codes[150:] = MISSING
    for metric in DECIDED:
        expected = sweep(scores.take(np.arange(150)), labels.take(np.arange(150)), metric)
        assert sweep(scores, hidden, metric) == pytest.approx(expected)


def test_shrinkage_pulls_rare_labels_more() -> None:
    own, positives = np.array([0.1, 0.1, 0.1]), np.array([0, 5, 5000])
    pulled = shrink(own, np.full(3, 0.4), positives, 5)
    log_odds = [np.log(p / (1 - p)) for p in (0.1, 0.4)]
    assert pulled[0] == pytest.approx(0.4)
    assert np.log(pulled[1] / (1 - pulled[1])) == pytest.approx(np.mean(log_odds))
    assert pulled[2] == pytest.approx(0.1, rel=2e-3)


def test_a_label_that_never_occurs_gets_the_common_threshold() -> None:
    scores, labels = draw_emotions(200, 3)
    labels.codes[:, 3] = 0
    assert sweep(scores, labels, "f1_macro")[3] == pytest.approx(common(scores, labels, "f1_macro")[3])
    assert figure("f1_macro", scores, labels, sweep(scores, labels, "f1_macro", 0)) > 0
    assert (decide_freely(scores, sweep(scores, labels, "f1_macro", 0))[:, 3] == 0).all()


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "item_accuracy"])
def test_other_metrics_cut_at_a_half(metric: str) -> None:
    scores, labels = draw_emotions(50, 4)
    assert [f(scores, labels, metric).tolist() for f in (sweep, grid, common)] == [[0.5] * 4] * 3


def test_a_task_without_binaries_has_no_thresholds() -> None:
    task = Task((Categorical("c", ("x", "y")),))
    scores = Scores(task, id_array(range(2)), np.zeros((2, 2), dtype=np.float32))
    labels = Labels(task, np.zeros((2, 1), dtype=np.int32))
    assert [len(f(scores, labels, "f1_macro")) for f in (sweep, grid, common)] == [0, 0, 0]


def test_a_curve_is_the_one_the_labels_were_drawn_from() -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(-1, 2, size=40_000)
    drawn = generator.random(40_000) < expit(0.7 * logits - 0.4)
    probabilities = expit(logits)
    curve = logistic_curve(exact_cuts(probabilities, np.ones(40_000, dtype=bool)), logits, drawn)
    assert np.abs(curve - expit(0.7 * logits - 0.4)).max() < 0.02
    falling = logistic_curve(exact_cuts(probabilities, np.ones(40_000, dtype=bool)), -logits, drawn)
    assert np.ptp(falling) < 1e-6


def test_parted_rows_promise_no_certainty() -> None:
    logits = np.array([2.0, 1.0, -1.0, -2.0])
    curve = logistic_curve(exact_cuts(expit(logits), np.ones(4, dtype=bool)), logits, logits > 0)
    assert 0.6 < curve[0] < 0.9
    assert 0.1 < curve[3] < 0.4


@pytest.mark.parametrize("metric", DECIDED)
def test_curves_choose_better_for_new_rows(metric: str) -> None:
    scores, labels = draw_emotions(30_000, 6)
    new = np.arange(9_000, 30_000)
    gains = []
    for start in range(0, 9_000, 300):
        few = np.arange(start, start + 300)
        smooth, own = (
            figure(metric, scores.take(new), labels.take(new), sweep(scores.take(few), labels.take(few), metric, s))
            for s in (SHRINKAGE, 0)
        )
        gains.append(smooth - own)
    assert np.mean(gains) > 1.5 * np.std(gains) / np.sqrt(len(gains))

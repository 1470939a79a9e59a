from typing import get_args

import numpy as np
import pytest
from sklearn import metrics as reference

from fivefold.evaluation.metrics import METRICS, applicable, default_metric
from fivefold.evaluation.summary import evaluate, label_reports
from fivefold.recipe.settings import Metric as MetricName
from fivefold.scores import Scores, id_array
from fivefold.task import MISSING, Binary, Categorical, Labels, Swap, Task, Tree

BINARIES = Task(tuple(Binary(name) for name in "abcd"))
COLOURS = Task((Categorical("colour", ("red", "green", "blue", "never")),))
MIXED = Task((Binary("a"), Categorical("colour", ("red", "green")), Binary("b")))
LEVELS = Task(
    (Categorical("animal", ("cat", "dog")), Categorical("breed", ("siam", "persian", "poodle"))),
    tree=Tree(("animal", "breed"), ((0, 0), (0, 1), (1, 2))),
)
PREFERENCE = Task(
    (Categorical("winner", ("a", "b", "tie")),), swap=Swap((("answer_a", "answer_b"),), "winner", {"a": "b", "b": "a"})
)


def scores_of(task: Task, logits: object) -> Scores:
    block = np.asarray(logits, dtype=np.float32)
    return Scores(task, id_array(range(len(block))), block)


def draw(task: Task, rows: int, seed: int) -> tuple[Labels, np.ndarray, Scores]:
    generator = np.random.default_rng(seed)
    codes = [generator.integers(len(t.classes), size=rows) for t in task.targets]
    decisions = [generator.integers(len(t.classes), size=rows) for t in task.targets]
    labels = Labels(task, np.stack(codes, axis=1).astype(np.int32))
    # Rounded, so that scores tie.
    logits = generator.normal(size=(rows, task.width)).round(1)
    return labels, np.stack(decisions, axis=1).astype(np.int32), scores_of(task, logits)


def value(name: str, labels: Labels, decisions: np.ndarray, scores: Scores | None = None) -> float:
    blank = scores or scores_of(labels.task, np.zeros((len(labels), labels.task.width)))
    return METRICS[name].function(labels, np.asarray(decisions, dtype=np.int32), blank)


@pytest.mark.parametrize("average", ["macro", "micro", "samples"])
def test_f1_of_binaries_is_scikit_learns(average: str) -> None:
    labels, decisions, scores = draw(BINARIES, 200, 0)
    labels.codes[:20], decisions[:10] = 0, 0
    expected = reference.f1_score(labels.codes, decisions, average=average, zero_division=0)
    assert value(f"f1_{average}", labels, decisions, scores) == pytest.approx(expected)


def test_jaccard_and_subset_accuracy_are_scikit_learns() -> None:
    labels, decisions, _ = draw(BINARIES, 200, 1)
    labels.codes[:20], decisions[:10] = 0, 0
    expected = reference.jaccard_score(labels.codes, decisions, average="samples", zero_division=0)
    assert value("jaccard", labels, decisions) == pytest.approx(expected)
    assert value("accuracy", labels, decisions) == pytest.approx(reference.accuracy_score(labels.codes, decisions))


def test_a_single_binary_has_plain_accuracy_and_f1() -> None:
    labels, decisions, _ = draw(Task((Binary("a"),)), 100, 2)
    truth, decided = labels.codes[:, 0], decisions[:, 0]
    assert value("accuracy", labels, decisions) == pytest.approx(reference.accuracy_score(truth, decided))
    assert value("f1_macro", labels, decisions) == pytest.approx(reference.f1_score(truth, decided))


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_f1_of_a_categorical_is_scikit_learns_over_the_classes_seen(average: str) -> None:
    labels, decisions, _ = draw(COLOURS, 150, 3)
    labels.codes[labels.codes == 3], decisions[decisions == 3] = 0, 1
    expected = reference.f1_score(labels.codes[:, 0], decisions[:, 0], average=average, zero_division=0)
    assert value(f"f1_{average}", labels, decisions) == pytest.approx(expected)


def test_ranking_metrics_are_scikit_learns_with_ties() -> None:
    labels, decisions, scores = draw(BINARIES, 200, 4)
    labels.codes[:, 3] = 1
    both = [0, 1, 2]
    truth, logits = labels.codes[:, both], scores.logits[:, both]
    assert value("roc_auc", labels, decisions, scores) == pytest.approx(reference.roc_auc_score(truth, logits))
    expected = reference.average_precision_score(truth, logits)
    assert value("average_precision", labels, decisions, scores) == pytest.approx(expected)


def test_ranking_metrics_of_one_outcome_are_unknown() -> None:
    labels, decisions, scores = draw(BINARIES, 20, 4)
    labels.codes[:] = 0
    assert np.isnan(value("roc_auc", labels, decisions, scores))
    assert np.isnan(value("average_precision", labels, decisions, scores))


def test_log_loss_is_scikit_learns_mean_over_targets() -> None:
    labels, decisions, scores = draw(MIXED, 300, 5)
    probabilities = scores.probabilities().astype(np.float64)
    probabilities[:, 1:3] /= probabilities[:, 1:3].sum(axis=1, keepdims=True)
    expected = np.mean(
        [
            reference.log_loss(labels.codes[:, 0], probabilities[:, 0]),
            reference.log_loss(labels.codes[:, 1], probabilities[:, 1:3]),
            reference.log_loss(labels.codes[:, 2], probabilities[:, 3]),
        ]
    )
    assert value("log_loss", labels, decisions, scores) == pytest.approx(expected, rel=1e-5)


def test_log_loss_honours_soft_labels() -> None:
    soft = {"colour": np.array([[0.25, 0.75, 0, 0]], dtype=np.float32)}
    labels = Labels(COLOURS, np.array([[1]], dtype=np.int32), soft)
    scores = scores_of(COLOURS, np.log([[0.5, 0.25, 0.125, 0.125]]))
    expected = 0.25 * np.log(2) + 0.75 * np.log(4)
    assert value("log_loss", labels, labels.codes, scores) == pytest.approx(expected, rel=1e-6)


def test_log_loss_of_huge_logits_is_finite() -> None:
    task = Task((Binary("a"), Categorical("c", ("x", "y"))))
    labels = Labels(task, np.array([[0, 1]], dtype=np.int32))
    scores = scores_of(task, [[1e4, 1e4, -1e4]])
    assert value("log_loss", labels, labels.codes, scores) == pytest.approx((1e4 + 2e4) / 2)


def test_calibration_error_by_hand() -> None:
    labels = Labels(Task((Binary("a"),)), np.array([[1], [0], [1], [1]], dtype=np.int32))
    scores = scores_of(labels.task, np.log([[0.7 / 0.3], [0.7 / 0.3], [0.1 / 0.9], [0.1 / 0.9]]))
    assert value("ece", labels, labels.codes, scores) == pytest.approx((2 * 0.2 + 2 * 0.9) / 4, rel=1e-5)
    colours = Labels(COLOURS, np.array([[0], [1]], dtype=np.int32))
    scores = scores_of(COLOURS, np.log([[0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]]))
    assert value("ece", colours, colours.codes, scores) == pytest.approx(0.2, rel=1e-5)


def test_accuracies_and_mixed_mean_by_hand() -> None:
    labels = Labels(MIXED, np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=np.int32))
    decisions = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.int32)
    assert value("f1_macro", labels, decisions) == pytest.approx((0.8 + 2 / 3) / 2)
    assert value("accuracy", labels, decisions) == pytest.approx(0.75)
    assert value("mixed_mean", labels, decisions) == pytest.approx((0.8 + 2 / 3 + 0.75) / 3)


def test_item_accuracy_needs_every_level() -> None:
    labels = Labels(LEVELS, np.array([[0, 0], [1, 2], [0, 1], [1, 2]], dtype=np.int32))
    decisions = np.array([[0, 0], [1, 1], [1, 1], [1, 2]], dtype=np.int32)
    assert value("item_accuracy", labels, decisions) == pytest.approx(0.5)
    assert value("accuracy", labels, decisions) == pytest.approx((0.75 + 0.75) / 2)


def test_hierarchical_f1_adds_ancestors() -> None:
    labels = Labels(LEVELS, np.array([[0, 0], [0, 0]], dtype=np.int32))
    # A wrong breed of the right animal; then a dog's breed called a cat, which brings the dog in.
    decisions = np.array([[0, 1], [0, 2]], dtype=np.int32)
    assert value("hierarchical_f1", labels, decisions) == pytest.approx(2 * 2 / (5 + 4))


def test_missing_cells_count_nowhere() -> None:
    labels, decisions, scores = draw(MIXED, 120, 6)
    whole = np.arange(80)
    padded = Labels(MIXED, labels.codes.copy())
    padded.codes[80:] = MISSING
    for metric in applicable(MIXED):
        expected = metric.function(labels.take(whole), decisions[:80], scores.take(whole))
        assert metric.function(padded, decisions, scores) == pytest.approx(expected), metric.name


def test_a_metric_uses_each_labels_own_observed_rows() -> None:
    labels, decisions, scores = draw(BINARIES, 90, 7)
    labels.codes[:30, 0] = MISSING
    columns = [reference.f1_score(labels.codes[30:, 0], decisions[30:, 0])]
    columns += [reference.f1_score(labels.codes[:, i], decisions[:, i]) for i in (1, 2, 3)]
    assert value("f1_macro", labels, decisions) == pytest.approx(np.mean(columns))
    areas = [reference.roc_auc_score(labels.codes[30:, 0], scores.logits[30:, 0])]
    areas += [reference.roc_auc_score(labels.codes[:, i], scores.logits[:, i]) for i in (1, 2, 3)]
    assert value("roc_auc", labels, decisions, scores) == pytest.approx(np.mean(areas))


def test_hierarchical_f1_needs_a_tree() -> None:
    labels, decisions, _ = draw(COLOURS, 5, 0)
    with pytest.raises(ValueError, match="tree"):
        value("hierarchical_f1", labels, decisions)


def test_missing_levels_leave_the_other_levels() -> None:
    labels = Labels(LEVELS, np.array([[0, MISSING], [1, 2], [MISSING, MISSING]], dtype=np.int32))
    decisions = np.array([[0, 2], [1, 2], [0, 0]], dtype=np.int32)
    assert value("item_accuracy", labels, decisions) == 1
    assert value("hierarchical_f1", labels, decisions) == 1


def test_every_task_has_its_default() -> None:
    defaults = [(BINARIES, "f1_macro"), (COLOURS, "accuracy"), (MIXED, "mixed_mean")]
    defaults += [(LEVELS, "item_accuracy"), (PREFERENCE, "log_loss")]
    for task, name in defaults:
        assert default_metric(task).name == name
        assert default_metric(task) in applicable(task)


def test_the_recipe_names_these_metrics() -> None:
    assert set(get_args(MetricName)) == set(METRICS)


@pytest.mark.parametrize("task", [BINARIES, COLOURS, MIXED, LEVELS, PREFERENCE])
def test_metrics_declare_whether_decisions_matter(task: Task) -> None:
    labels, decisions, scores = draw(task, 60, 8)
    for metric in applicable(task):
        figures = {metric.function(labels, np.roll(decisions, step, axis=0), scores) for step in range(5)}
        assert (len(figures) > 1) == metric.uses_decisions, metric.name


@pytest.mark.parametrize("task", [BINARIES, COLOURS, MIXED, LEVELS, PREFERENCE])
def test_perfect_predictions_are_perfect(task: Task) -> None:
    labels, _, _ = draw(task, 60, 9)
    # A row without a true label has nothing to be right about: its F1 and Jaccard are 0.
    labels = labels.take(labels.binary_codes.any(axis=1) | (not task.binaries))
    sure = np.concatenate([np.where(labels.probabilities(name) > 0.5, 20, -20) for name in task.names], axis=1)
    for metric in applicable(task):
        figure = metric.function(labels, labels.codes, scores_of(task, sure))
        assert figure == pytest.approx(1 if metric.greater_is_better else 0, abs=1e-6), metric.name


def test_label_reports_are_scikit_learns() -> None:
    labels, decisions, _ = draw(MIXED, 100, 10)
    lines = {(line.target, line.label): line for line in label_reports(labels, decisions, {"a": 0.25})}
    assert list(lines)[:2] == [("a", "1"), ("b", "1")]
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels.codes[:, 1], decisions[:, 1], zero_division=0
    )
    green = lines["colour", "green"]
    assert (green.precision, green.recall, green.f1) == pytest.approx((precision[1], recall[1], f1[1]))
    assert green.support == support[1]
    assert green.predicted == (decisions[:, 1] == 1).sum()
    assert (lines["a", "1"].threshold, lines["b", "1"].threshold, green.threshold) == (0.25, None, None)


def test_label_reports_keep_the_frequent_classes_of_a_wide_categorical() -> None:
    task = Task((Categorical("brand", tuple(map(str, range(500)))),))
    codes = np.repeat(np.arange(500), np.arange(500))[:, None].astype(np.int32)
    lines = label_reports(Labels(task, codes), codes, {})
    assert [line.label for line in lines] == [str(code) for code in range(499, 299, -1)]


def test_evaluate_refuses_a_metric_of_another_task() -> None:
    labels, decisions, scores = draw(BINARIES, 10, 11)
    with pytest.raises(ValueError, match="item_accuracy"):
        evaluate(labels, decisions, scores, "item_accuracy", seed=0)

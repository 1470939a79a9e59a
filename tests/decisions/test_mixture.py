from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fivefold.decisions import mixture
from fivefold.decisions.mixture import fit_mixture, gather_evidence, mix, mix_parts, parts
from fivefold.scores import Scores, id_array, to_logits
from fivefold.task import MISSING, Binary, Categorical, Labels, Task

BINARY = Task((Binary("a"),))
MIXED = Task((Binary("a"), Categorical("c", ("x", "y", "z")), Binary("b")))


def scores(task: Task, probabilities: np.ndarray) -> Scores:
    return Scores(task, id_array(range(len(probabilities))), to_logits(task, probabilities.astype(np.float32)))


def drawn(task: Task, rows: int, seed: int) -> tuple[list[Scores], Labels]:
    """A model that knows a lot, one that knows a little, and one that knows nothing."""
    generator = np.random.default_rng(seed)
    codes = np.stack([generator.integers(0, len(t.classes), rows) for t in task.targets], axis=1).astype(np.int32)
    labels = Labels(task, codes)
    truth = np.concatenate([labels.probabilities(t.name) for t in task.targets], axis=1)
    logits = [truth * strength * 2 + generator.normal(0, 1.5, truth.shape) for strength in (2.0, 0.7, 0.0)]
    shift = np.zeros(task.width)
    shift[task.binary_columns] = 1
    return [Scores(task, id_array(range(rows)), (z - shift * 1.5).astype(np.float32)) for z in logits], labels


def fit_weights(models: list[Scores], labels: Labels) -> np.ndarray:
    return fit_mixture(models, labels, np.arange(len(labels)) % 2, seed=0).weights


def log_loss(model: Scores, labels: Labels) -> float:
    """Mean over targets of the mean over rows, by its definition."""
    losses, probabilities = [], model.probabilities().astype(np.float64)
    for target in labels.task.targets:
        block, truth = probabilities[:, labels.task.slices[target.name]], labels.probabilities(target.name)
        if isinstance(target, Binary):
            block, truth = np.hstack([1 - block, block]), np.hstack([1 - truth, truth])
        losses.append(float(-np.nanmean((truth * np.log(block)).sum(axis=1))))
    return float(np.mean(losses))


def test_two_models_by_hand() -> None:
    # One model gives .9 to a truth that holds in 8 of 10 rows, the other .1: w .9 + (1 - w) .1 = .8 at w = 7/8.
    labels = Labels(BINARY, np.array([[1]] * 8 + [[0]] * 2, dtype=np.int32))
    models = [scores(BINARY, np.full((10, 1), p)) for p in (0.9, 0.1)]
    np.testing.assert_allclose(fit_weights(models, labels), [7 / 8, 1 / 8], atol=1e-4)


@pytest.mark.parametrize("task", [BINARY, MIXED])
def test_no_other_weights_have_less_log_loss(task: Task) -> None:
    models, labels = drawn(task, 400, seed=1)
    labels.codes[:40, 0] = MISSING
    best = fit_weights(models, labels)
    assert best.min() >= 0
    assert best.sum() == pytest.approx(1)
    least = log_loss(mix(models, best), labels)
    for other in np.random.default_rng(0).dirichlet(np.ones(3), size=60):
        assert log_loss(mix(models, other), labels) >= least - 1e-6


def test_a_model_that_says_nothing_new_weighs_nothing() -> None:
    models, labels = drawn(MIXED, 600, seed=2)
    weights = fit_weights([models[0], scores(MIXED, np.full((600, MIXED.width), 0.02))], labels)
    assert weights.tolist() == [1, 0]


def test_weights_follow_the_order_of_the_models() -> None:
    models, labels = drawn(MIXED, 300, seed=3)
    np.testing.assert_allclose(fit_weights(models[::-1], labels), fit_weights(models, labels)[::-1], atol=1e-3)


def test_soft_labels_count_by_their_share() -> None:
    soft = Labels(BINARY, np.ones((5, 1), dtype=np.int32), {"a": np.full((5, 1), 0.7, dtype=np.float32)})
    models = [scores(BINARY, np.full((5, 1), p)) for p in (0.9, 0.1)]
    np.testing.assert_allclose(fit_weights(models, soft), [0.75, 0.25], atol=1e-4)


def test_rows_without_labels_leave_the_weights_equal() -> None:
    models, labels = drawn(BINARY, 20, seed=4)
    labels.codes[:] = MISSING
    np.testing.assert_allclose(fit_weights(models, labels), 1 / 3)


def test_no_row_chooses_the_weights_that_mix_it(tmp_path: Path) -> None:
    models, labels = drawn(MIXED, 300, seed=5)
    folds = np.arange(300, dtype=np.int32) % 3
    weights = fit_mixture(models, labels, folds, seed=0).cross_fitted
    mixed = mix_parts(models, folds, weights, tmp_path / "oof.parquet")
    for fold in range(3):
        others, own = folds != fold, folds == fold
        expected = fit_weights([model.take(others) for model in models], labels.take(others))
        np.testing.assert_allclose(weights[fold], expected, atol=1e-5)
        alone = mix([model.take(own) for model in models], weights[fold])
        np.testing.assert_array_equal(mixed.logits[own], alone.logits)
    changed = Labels(MIXED, labels.codes.copy())
    changed.codes[folds == 1] = 0
    np.testing.assert_array_equal(fit_mixture(models, changed, folds, seed=0).cross_fitted[1], weights[1])


def test_a_single_hold_out_is_mixed_by_halves() -> None:
    models, labels = drawn(BINARY, 50, seed=6)
    folds = np.full(50, 2, dtype=np.int32)
    assert sorted(fit_mixture(models, labels, folds, seed=0).cross_fitted) == [0, 1]
    assert sorted(np.bincount(parts(folds, seed=0))) == [25, 25]


def test_mixing_needs_the_same_rows() -> None:
    models, _ = drawn(BINARY, 10, seed=7)
    with pytest.raises(ValueError, match="same rows"):
        mix([models[0], models[1].take(np.arange(10)[::-1])], np.array([0.5, 0.5]))


def test_one_model_mixed_with_itself_is_itself() -> None:
    models, _ = drawn(MIXED, 30, seed=8)
    mixed = mix([models[0], models[0]], np.array([0.3, 0.7]))
    np.testing.assert_allclose(mixed.probabilities(), models[0].probabilities(), atol=1e-6)


def test_very_many_cells_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    models, labels = drawn(MIXED, 200, seed=9)
    monkeypatch.setattr(mixture, "MOST_CELLS", 90)
    assert np.unique(gather_evidence(models, labels).row).tolist()[:3] == [0, 6, 13]
    assert len(np.unique(gather_evidence(models, labels).row)) == 30

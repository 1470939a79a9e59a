from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from fivefold.models.linear import head as linear_head
from fivefold.models.linear.boosting import BoostedHead
from fivefold.models.linear.examples import Examples
from fivefold.models.linear.head import LinearHead
from fivefold.models.linear.platt import FALLBACK, fit_scales
from fivefold.task import MISSING, Binary, Categorical, FloatArray, Labels, Task

TASK = Task((Binary("x"), Categorical("c", ("a", "b", "d")), Binary("y")))
HEAD = LinearHead(TASK, "logistic", C=2.0, max_epochs=300, tolerance=1e-4, prune=0.0, seed=0, threads=2)


def problem(rows: int = 120) -> tuple[csr_array, Labels]:
    random = np.random.default_rng(0)
    dense = random.normal(size=(rows, 12)).astype(np.float32) * (random.random((rows, 12)) < 0.5)
    logits = dense @ random.normal(size=(12, 5)) * 2
    codes = np.stack([logits[:, 0] > 0, logits[:, 1:4].argmax(1), logits[:, 4] > 1], axis=1).astype(np.int32)
    return csr_array(dense.astype(np.float32)), Labels(TASK, codes)


def fitted(head: LinearHead | BoostedHead, features: csr_array, labels: Labels) -> LinearHead | BoostedHead:
    head.fit(examples_of(features, labels), np.ones((TASK.width, 2), np.float32))
    return head


def examples_of(features: csr_array, labels: Labels) -> Examples:
    """Rows that count alike, each a group of its own."""
    return Examples(features, labels, np.ones(len(labels), np.float32), np.arange(len(labels), dtype=np.int32))


def test_equals_scikit_learn() -> None:
    features, labels = problem()
    ours = fitted(replace(HEAD, fitted={}), features, labels).logits(features)
    for column, name in ((0, "x"), (4, "y")):
        reference = LogisticRegression(C=2.0, solver="liblinear", tol=1e-8).fit(features, labels.column(name))
        np.testing.assert_allclose(ours[:, column], reference.decision_function(features), atol=0.02)
    # Liblinear's penalised intercept is a constant feature of the softmax.
    constant = np.hstack([features.toarray(), np.ones((features.shape[0], 1))])
    softmax = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-8, max_iter=2000).fit(constant, labels.column("c"))
    np.testing.assert_allclose(np.exp(ours[:, 1:4]), softmax.predict_proba(constant), atol=0.01)


@pytest.mark.parametrize("solver", ["logistic", "svm"])
@pytest.mark.parametrize("wide", [2, 128])
def test_save_and_load(solver: str, wide: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_head, "WIDE", wide)
    monkeypatch.setattr(linear_head, "BLOCK", 2)
    features, labels = problem()
    head = fitted(replace(HEAD, solver=solver, prune=0.05, fitted={}), features, labels)
    head.save(tmp_path)
    loaded = replace(HEAD, solver=solver, prune=0.05, fitted={})
    loaded.load(tmp_path)
    np.testing.assert_array_equal(loaded.logits(features), head.logits(features))
    for column in range(TASK.width):
        np.testing.assert_array_equal(loaded.weights_of(column), head.weights_of(column))
    np.testing.assert_allclose(np.exp(head.logits(features)[:, 1:4]).sum(axis=1), 1, rtol=1e-5)
    assert (head.logits(features)[:, 1:4].argmax(1) == labels.column("c")).mean() > 0.8


def test_groups_are_calibrated_on_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = problem()
    numbers = csr_array(np.arange(1, 121, dtype=np.float32)[:, None])
    groups, trained = np.arange(120, dtype=np.int32) % 40, []
    fit_groups = LinearHead._fit_groups

    def recorded(head: LinearHead, parts: Any, examples: Examples, sides: FloatArray) -> int:
        trained.append(examples.features.toarray()[:, 0].astype(int) - 1)
        return fit_groups(head, parts, examples, sides)

    monkeypatch.setattr(LinearHead, "_fit_groups", recorded)
    examples = replace(examples_of(numbers, labels), groups=groups)
    replace(HEAD, solver="svm", fitted={}).fit(examples, np.ones((TASK.width, 2), np.float32))
    first, last = trained
    assert (len(first), len(last)) == (96, 120)
    assert not set(groups[first]) & set(np.delete(groups, first))


def test_missing_cells_teach_nothing() -> None:
    features, labels = problem()
    codes = labels.codes.copy()
    codes[100:, 0] = MISSING
    holes = fitted(replace(HEAD, fitted={}), features, Labels(TASK, codes))
    short = fitted(replace(HEAD, fitted={}), features[:100], labels.take(np.arange(100)))
    np.testing.assert_allclose(holes.weights_of(0), short.weights_of(0), atol=5e-3)


def test_platt_recovers_a_known_sigmoid() -> None:
    random = np.random.default_rng(1)
    margins = random.normal(size=(20_000, TASK.width)).astype(np.float32)
    x = random.random(20_000) < expit(3 * margins[:, 0] - 1)
    shares = np.exp(2 * margins[:, 1:4])
    shares /= shares.sum(axis=1, keepdims=True)
    c = (random.random((20_000, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    codes = np.stack([x, c, np.zeros_like(c)], axis=1).astype(np.int32)
    scales: FloatArray = fit_scales(margins, Labels(TASK, codes), TASK.names)
    np.testing.assert_allclose(scales[:, 0], [3, -1], atol=0.15)
    np.testing.assert_allclose(scales[0, 1:4], 2, atol=0.1)
    assert scales[:, 4].tolist() == [FALLBACK, 0]
    assert fit_scales(margins, Labels(TASK, codes), {"x"})[0, 1:4].tolist() == [FALLBACK] * 3


def test_boosting_learns_saves_and_explains(tmp_path: Path) -> None:
    features, labels = problem(300)
    head = fitted(BoostedHead(TASK, 20, 7, 0.2, seed=0, threads=1), features, labels)
    head.save(tmp_path)
    loaded = BoostedHead(TASK, 20, 7, 0.2, seed=0, threads=1)
    loaded.load(tmp_path)
    np.testing.assert_array_equal(loaded.logits(features), head.logits(features))
    assert ((head.logits(features)[:, 0] > 0) == labels.column("x")).mean() > 0.9
    assert head.weights_of(2).sum() > 0

"""Dual coordinate descent against scikit-learn's solvers, hand values and invariances."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from fivefold.errors import DataError
from fivefold.models.linear.coordinate_descent import LinearSettings, fit_linear
from fivefold.models.linear.scoring import prune_weights, score_rows, score_rows_pruned
from fivefold.objectives.weights import balanced_weights
from fivefold.task import Binary, Labels, Task

ROWS, FEATURES, LABELS = 120, 40, 19
EXACT = LinearSettings(tolerance=1e-5, max_epochs=2000)


@pytest.fixture(scope="module")
def features() -> csr_array:
    random = np.random.default_rng(0)
    dense = random.random((ROWS, FEATURES)) * (random.random((ROWS, FEATURES)) < 0.3)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    return csr_array(dense.astype(np.float32))


@pytest.fixture(scope="module")
def targets(features) -> np.ndarray:
    random = np.random.default_rng(1)
    logits = 4 * (features @ random.normal(size=(FEATURES, LABELS))) - np.linspace(0, 2, LABELS)
    return (logits + random.normal(size=logits.shape) > 0).astype(np.float32)


def logistic_objective(features, y, weights, bias, C, *, penalty_of_bias):
    z = features @ weights.astype(float) + bias
    return 0.5 * (weights.astype(float) @ weights + penalty_of_bias * bias**2) + C * (np.logaddexp(0, z) - y * z).sum()


@pytest.mark.parametrize("C", [0.3, 4.0])
@pytest.mark.parametrize(("intercept", "solver"), [("penalised", "liblinear"), ("free", "lbfgs")])
def test_logistic_reaches_scikit_learns_objective(features, targets, C, intercept, solver):
    ours = fit_linear(features, targets, replace(EXACT, C=C, intercept=intercept))
    for label in (0, 7, 18):
        y = targets[:, label]
        peer = LogisticRegression(C=C, solver=solver, tol=1e-8, max_iter=5000).fit(csr_matrix(features), y)
        score = {"C": C, "penalty_of_bias": intercept == "penalised"}
        best = logistic_objective(features, y, peer.coef_[0], peer.intercept_[0], **score)
        found = logistic_objective(features, y, ours.weights[:, label], ours.bias[label], **score)
        assert found == pytest.approx(best, rel=1e-5)
        np.testing.assert_allclose(ours.weights[:, label], peer.coef_[0], atol=5e-3)


@pytest.mark.parametrize("C", [0.3, 4.0])
def test_squared_hinge_finds_scikit_learns_weights(features, targets, C):
    ours = fit_linear(features, targets, replace(EXACT, loss="squared_hinge", C=C))
    for label in (0, 18):
        peer = LinearSVC(C=C, tol=1e-8, max_iter=100_000).fit(csr_matrix(features), targets[:, label])
        np.testing.assert_allclose(ours.weights[:, label], peer.coef_[0], atol=5e-3)
        assert ours.bias[label] == pytest.approx(peer.intercept_[0], abs=5e-3)


@pytest.mark.parametrize("C", [0.3, 4.0, 50.0])
@pytest.mark.parametrize("classes", [3, 18])
def test_softmax_reaches_scikit_learns_objective(features, targets, classes, C):
    one_hot = np.eye(classes, dtype=np.float32)[targets[:, :classes].argmax(1)]
    present = one_hot.any(0)
    one_hot = one_hot[:, present]
    ours = fit_linear(features, one_hot, replace(EXACT, loss="softmax", C=C, intercept="none"))
    peer = LogisticRegression(C=C, tol=1e-8, max_iter=5000, fit_intercept=False)
    peer.fit(csr_matrix(features), one_hot.argmax(1))

    def objective(weights):
        return 0.5 * (weights**2).sum() - C * (log_softmax(features @ weights, axis=1) * one_hot).sum()

    assert objective(ours.weights.astype(float)) == pytest.approx(objective(peer.coef_.T), rel=1e-4)


def test_one_feature_by_hand():
    # One row x = 1, y = 1, C = 1, no bias: w solves w = 1 - sigmoid(w).
    fitted = fit_linear(csr_array(np.ones((1, 1), np.float32)), [[1.0]], replace(EXACT, intercept="none"))
    assert fitted.weights[0, 0] == pytest.approx(0.4010581, abs=1e-5)


def test_soft_labels_equal_weighted_hard_ones(features):
    soft = np.random.default_rng(2).random((ROWS, 1)).astype(np.float32)
    twice = csr_array(csr_matrix(features)[np.repeat(np.arange(ROWS), 2)])
    hard = np.tile([[1.0], [0.0]], (ROWS, 1))
    shares = np.stack([soft[:, 0], 1 - soft[:, 0]], 1).reshape(-1)
    left = fit_linear(features, soft, EXACT)
    right = fit_linear(twice, hard, EXACT, row_weights=shares)
    np.testing.assert_allclose(left.weights, right.weights, atol=2e-3)


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
def test_unknown_labels_teach_nothing(features, targets, loss):
    missing = targets.copy()
    missing[60:, 3] = np.nan
    choice = replace(EXACT, loss=loss)
    alone = fit_linear(csr_array(csr_matrix(features)[:60]), targets[:60, 3:4], choice)
    np.testing.assert_allclose(fit_linear(features, missing, choice).weights[:, [3]], alone.weights, atol=2e-3)


def test_unknown_rows_teach_softmax_nothing(features, targets):
    one_hot = np.eye(2, dtype=np.float32)[targets[:, 0].astype(int)]
    missing = one_hot.copy()
    missing[60:] = np.nan
    choice = replace(EXACT, loss="softmax")
    alone = fit_linear(csr_array(csr_matrix(features)[:60]), one_hot[:60], choice)
    np.testing.assert_allclose(fit_linear(features, missing, choice).weights, alone.weights, atol=2e-3)


def test_balanced_class_weights_equal_scikit_learns(features, targets):
    task = Task(tuple(Binary(str(label)) for label in range(LABELS)))
    weights = balanced_weights(Labels(task, targets.astype(np.int32)))
    ours = fit_linear(features, targets, EXACT, class_weights=weights)
    peer = LogisticRegression(solver="liblinear", tol=1e-8, max_iter=5000, class_weight="balanced")
    peer.fit(csr_matrix(features), targets[:, 18])
    np.testing.assert_allclose(ours.weights[:, 18], peer.coef_[0], atol=5e-3)


@settings(max_examples=15, deadline=None)
@given(threads=st.integers(2, 4), loss=st.sampled_from(["logistic", "squared_hinge", "softmax"]))
def test_threads_change_nothing(features, targets, threads, loss):
    share = targets / np.maximum(targets.sum(1, keepdims=True), 1) if loss == "softmax" else targets
    one = fit_linear(features, share, LinearSettings(loss=loss, seed=3))
    many = fit_linear(features, share, LinearSettings(loss=loss, seed=3), threads=threads)
    np.testing.assert_array_equal(one.weights, many.weights)


def test_the_seed_reaches_the_order_of_rows(features, targets):
    fits = [fit_linear(features, targets, LinearSettings(seed=seed, max_epochs=1)).weights for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert np.abs(fits[0] - fits[2]).max() > 0


@settings(max_examples=25, deadline=None)
@given(C=st.floats(0.01, 1000), positive=st.floats(0, 1), seed=st.integers(0, 100))
def test_duals_stay_finite_for_any_cost(features, C, positive, seed):
    y = (np.random.default_rng(seed).random((ROWS, 1)) < positive).astype(np.float32)
    for loss in ("logistic", "squared_hinge"):
        fitted = fit_linear(features, y, LinearSettings(loss=loss, C=C, max_epochs=5))
        assert np.isfinite(fitted.weights).all()


def test_probabilities_are_calibrated_in_the_mean(features, targets):
    fitted = fit_linear(features, targets, replace(EXACT, intercept="free"))
    probabilities = expit(score_rows(features, fitted.weights, fitted.bias))
    np.testing.assert_allclose(probabilities.mean(0), targets.mean(0), atol=1e-3)


def test_scores_of_whole_and_pruned_weights(features, targets):
    fitted = fit_linear(features, targets, LinearSettings())
    pruned = prune_weights(fitted.weights, 0.2)
    small = np.where(np.abs(fitted.weights) >= 0.2, fitted.weights, 0)
    assert 0 < pruned.nnz < fitted.weights.size
    expected = features @ fitted.weights + fitted.bias
    np.testing.assert_allclose(score_rows(features, fitted.weights, fitted.bias, threads=2), expected, atol=1e-5)
    ours = score_rows_pruned(features, pruned, fitted.bias, threads=2)
    np.testing.assert_allclose(ours, features @ small + fitted.bias, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.full((ROWS, 1), 2.0), np.full((ROWS, 1), -1.0), np.zeros((3, 1)), np.zeros(ROWS)])
def test_wrong_targets_are_refused(features, wrong):
    with pytest.raises(DataError):
        fit_linear(features, wrong, LinearSettings())


@pytest.mark.parametrize("wrong", [{"loss": "hinge"}, {"C": 0}, {"C": float("nan")}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(DataError):
        LinearSettings(**wrong)

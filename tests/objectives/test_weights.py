from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.utils.class_weight import compute_class_weight

from fivefold.objectives.weights import balanced_weights, label_biases, loss_weights, positive_weights, side_weights
from fivefold.task import MISSING, Binary, Categorical, Labels, Task

TASK = Task((Binary("x"), Categorical("c", ("a", "b", "d"))))
SMALL = Labels(TASK, np.array([[1, 0], [0, 0], [0, 1], [-1, -1]], dtype=np.int32))


def of_binary(*codes: int) -> Labels:
    return Labels(Task((Binary("x"),)), np.array(codes, dtype=np.int32)[:, None])


def test_hand_values() -> None:
    expected = [[3 / 4, 3 / 2], [3 / 2, 3 / 4], [3 / 4, 3 / 2], [1 / 2, 1]]
    np.testing.assert_allclose(balanced_weights(SMALL), expected)
    assert balanced_weights(SMALL, cap=1.2).max() == np.float32(1.2)


def test_both_sides_weigh_the_same_in_total() -> None:
    codes = np.random.default_rng(0).integers(0, 2, (50, 1)).astype(np.int32)
    weights = balanced_weights(Labels(Task((Binary("x"),)), codes))
    sides = np.bincount(codes[:, 0]) * weights[0]
    np.testing.assert_allclose(sides[0], sides[1], rtol=1e-6)


def test_positive_hand_values() -> None:
    np.testing.assert_allclose(positive_weights(SMALL), [[1, 2], [1, 1], [1, 1], [1, 1]])
    np.testing.assert_allclose(positive_weights(of_binary(1, 1, 1, 0)), [[1, 1 / 3]])
    np.testing.assert_allclose(positive_weights(of_binary(0, 0, 0, 0)), [[1, 4]])
    np.testing.assert_allclose(positive_weights(of_binary(0, 0, 0, 0), cap=2.5), [[1, 2.5]])


def test_a_label_that_every_row_has_still_counts() -> None:
    np.testing.assert_allclose(positive_weights(of_binary(1, 1, MISSING)), [[1, 1]])


def test_chosen_by_name() -> None:
    assert side_weights(SMALL, "none") is None
    assert loss_weights(SMALL, "none", 2.0) is None
    np.testing.assert_array_equal(side_weights(SMALL, "balanced", 1.2), balanced_weights(SMALL, 1.2))
    for weights in (side_weights, loss_weights):
        np.testing.assert_array_equal(weights(SMALL, "positive", 1.2), positive_weights(SMALL, 1.2))


def test_a_softmax_is_balanced_as_in_scikit_learn() -> None:
    codes = np.random.default_rng(0).choice(4, p=[0.6, 0.2, 0.15, 0.05], size=200).astype(np.int32)
    codes[::9] = MISSING
    labels = Labels(Task((Categorical("c", ("a", "b", "d", "e", "never")),)), codes[:, None])
    weights, seen = loss_weights(labels, "balanced"), codes[codes != MISSING]
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(4), y=seen)
    np.testing.assert_allclose(weights[:4, 1], expected, rtol=1e-6)
    assert weights[4, 1] == 1
    np.testing.assert_allclose(weights[seen, 1].mean(), 1, rtol=1e-6)
    capped = loss_weights(labels, "balanced", 2.0)
    assert capped is not None
    np.testing.assert_array_equal(capped, np.minimum(weights, 2))


def test_binaries_are_balanced_alike_in_both_readings() -> None:
    sides, loss = side_weights(SMALL, "balanced"), loss_weights(SMALL, "balanced")
    assert sides is not None
    assert loss is not None
    np.testing.assert_array_equal(sides[0], loss[0])


def test_biases_by_hand() -> None:
    expected = np.log([1.5 / 2.5, 2.5 / 4.5, 1.5 / 4.5, 0.5 / 4.5])
    np.testing.assert_allclose(label_biases(SMALL), expected, rtol=1e-6)
    assert label_biases(SMALL).dtype == np.float32


def test_biases_are_the_logits_of_frequencies() -> None:
    random = np.random.default_rng(0)
    codes = np.stack([random.random(4000) < 0.2, random.choice(3, p=[0.7, 0.2, 0.1], size=4000)], axis=1)
    biases = label_biases(Labels(TASK, codes.astype(np.int32)))
    np.testing.assert_allclose(expit(biases[0]), codes[:, 0].mean(), atol=1e-3)
    np.testing.assert_allclose(softmax(biases[1:]), np.bincount(codes[:, 1]) / 4000, atol=1e-3)


@pytest.mark.parametrize("code", [0, 1, MISSING])
def test_biases_are_finite_where_a_side_is_empty(code: int) -> None:
    biases = label_biases(Labels(TASK, np.full((3, 2), code, dtype=np.int32)))
    assert np.isfinite(biases).all()
    if code == MISSING:
        np.testing.assert_allclose(biases, [0, *np.log([1 / 3] * 3)], rtol=1e-6)


def test_biases_read_soft_labels() -> None:
    soft = replace(SMALL, soft={"x": np.array([[0.5], [0.25], [0.25], [np.nan]], dtype=np.float32)})
    np.testing.assert_allclose(label_biases(soft)[0], np.log(1.5 / 2.5), rtol=1e-6)

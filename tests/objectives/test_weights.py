import numpy as np

from fivefold.objectives.weights import balanced_weights
from fivefold.task import Binary, Categorical, Labels, Task

TASK = Task((Binary("x"), Categorical("c", ("a", "b", "d"))))


def test_hand_values() -> None:
    labels = Labels(TASK, np.array([[1, 0], [0, 0], [0, 1], [-1, -1]], dtype=np.int32))
    expected = [[3 / 4, 3 / 2], [3 / 2, 3 / 4], [3 / 4, 3 / 2], [1 / 2, 1]]
    np.testing.assert_allclose(balanced_weights(labels), expected)
    assert balanced_weights(labels, cap=1.2).max() == np.float32(1.2)


def test_both_sides_weigh_the_same_in_total() -> None:
    codes = np.random.default_rng(0).integers(0, 2, (50, 1)).astype(np.int32)
    weights = balanced_weights(Labels(Task((Binary("x"),)), codes))
    sides = np.bincount(codes[:, 0]) * weights[0]
    np.testing.assert_allclose(sides[0], sides[1], rtol=1e-6)

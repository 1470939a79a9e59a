import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import LabelError
from fivefold.task import MISSING, Binary, Categorical, Labels, Swap, Task, Tree, concatenate, learn_tree

MIXED = Task((Binary("fall"), Categorical("place", ("home", "street")), Binary("burn")))
PAIR = Task(
    (Categorical("winner", ("a", "b", "tie")),),
    swap=Swap((("response_a", "response_b"),), "winner", {"a": "b", "b": "a"}),
)


def test_columns_follow_the_order_of_the_targets() -> None:
    assert MIXED.columns == ("fall", "place=home", "place=street", "burn")
    assert MIXED.slices == {"fall": slice(0, 1), "place": slice(1, 3), "burn": slice(3, 4)}
    assert MIXED.binary_columns.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("targets", "further", "message"),
    [
        ((), {}, "no target"),
        ((Binary("x"), Binary("x")), {}, "named twice"),
        ((Binary("id"), Binary("x")), {}, "named 'id', as a column that Fivefold writes"),
        ((Binary("c=a"), Categorical("c", ("a", "b"))), {}, "two logits are named 'c=a'"),
        ((Categorical("c", ("a",)),), {}, "fewer than two"),
        ((Categorical("c", ("a", "a")),), {}, "names a class twice"),
        ((Binary("x"),), {"tree": Tree(("c",), ())}, "no categorical"),
        ((Categorical("c", ("a", "b")),), {"swap": Swap((), "d", {"a": "b"})}, "no categorical"),
        ((Categorical("c", ("a", "b")),), {"swap": Swap((), "c", {"a": "z", "z": "a"})}, "no class of 'c'"),
        ((Categorical("c", ("a", "b", "d")),), {"swap": Swap((), "c", {"a": "b", "b": "d"})}, "own inverse"),
    ],
)
def test_a_malformed_task_says_what_is_wrong(targets, further, message) -> None:
    with pytest.raises(LabelError, match=message):
        Task(targets, **further)


def test_json_round_trip() -> None:
    tree = Task((Categorical("a", ("x", "y")), Categorical("b", ("u", "v"))), tree=Tree(("a", "b"), ((0, 0), (1, 1))))
    for task in (MIXED, PAIR, tree):
        assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_soft_and_missing_cells() -> None:
    labels = Labels(MIXED, np.array([[1, 0, MISSING], [0, MISSING, 1]], dtype=np.int32))
    np.testing.assert_array_equal(labels.probabilities("fall"), [[1], [0]])
    np.testing.assert_array_equal(labels.probabilities("place"), [[1, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(labels.probabilities("burn"), [[np.nan], [1]])
    np.testing.assert_array_equal(labels.binary_codes, [[1, MISSING], [0, 1]])


def test_concatenated_labels_keep_soft_cells() -> None:
    hard = Labels(PAIR, np.array([[2]], dtype=np.int32))
    soft = Labels(PAIR, np.array([[0]], dtype=np.int32), {"winner": np.array([[0.7, 0.2, 0.1]], dtype=np.float32)})
    both = concatenate([hard, soft])
    np.testing.assert_allclose(both.probabilities("winner"), [[0, 0, 1], [0.7, 0.2, 0.1]])
    assert both.take(np.array([1])).soft["winner"].shape == (1, 3)


@given(st.lists(st.sampled_from([MISSING, 0, 1, 2]), min_size=1, max_size=8))
def test_swapping_twice_changes_nothing(codes: list[int]) -> None:
    labels = Labels(PAIR, np.array(codes, dtype=np.int32)[:, None])
    np.testing.assert_array_equal(labels.swapped().swapped().codes, labels.codes)
    once = labels.swapped().column("winner")
    assert [{0: 1, 1: 0}.get(code, code) for code in codes] == once.tolist()


def test_swap_order_maps_logits_as_labels() -> None:
    assert PAIR.swap_order.tolist() == [1, 0, 2]
    assert MIXED.swap_order.tolist() == [0, 1, 2, 3]


def test_tree_is_learnt_from_complete_rows() -> None:
    task = Task((Categorical("a", ("x", "y")), Categorical("b", ("u", "v", "w"))))
    labels = Labels(task, np.array([[0, 0], [0, 0], [1, 2], [1, MISSING]], dtype=np.int32))
    assert learn_tree(("a", "b"), labels) == Tree(("a", "b"), ((0, 0), (1, 2)))
    with pytest.raises(LabelError, match="a > b can't be learnt: no row has a class at every level"):
        learn_tree(("a", "b"), labels.take(np.array([3])))

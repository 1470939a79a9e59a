from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fivefold.decisions.decode import decide_consistently, decide_freely, never_predicted, path_of
from fivefold.scores import CHUNK, Scores, id_array
from fivefold.task import MISSING, Binary, Categorical, Labels, Task, Tree

LEVELS = (Categorical("top", ("a", "b")), Categorical("middle", ("c", "d", "e")), Categorical("leaf", ("f", "g", "h")))
NAMES = tuple(level.name for level in LEVELS)
EVERY_PATH = list(product(range(2), range(3), range(3)))


def scores_of(task: Task, logits: np.ndarray) -> Scores:
    return Scores(task, id_array(range(len(logits))), logits.astype(np.float32))


@settings(deadline=None, max_examples=100)
@given(
    logits=hnp.arrays(np.float32, (3, 8), elements=st.floats(-9, 9, width=16)),
    paths=st.lists(st.sampled_from(EVERY_PATH), min_size=1, unique=True),
)
def test_the_decoded_path_is_the_most_probable(logits: np.ndarray, paths: list[tuple[int, ...]]) -> None:
    scores = scores_of(Task(LEVELS, tree=Tree(NAMES, tuple(paths))), logits)
    probabilities = scores.probabilities().astype(np.float64)
    for row, decided in enumerate(decide_consistently(scores, np.zeros(0))):
        blocks = np.split(probabilities[row], [2, 5])
        products = {path: np.prod([block[c] for block, c in zip(blocks, path, strict=True)]) for path in paths}
        assert tuple(decided) in products
        assert np.isclose(products[tuple(decided)], max(products.values()), rtol=1e-4)


def test_levels_may_stand_in_any_order_among_other_targets() -> None:
    tree = Tree(("top", "leaf"), ((0, 0), (1, 1), (1, 2)))
    task = Task((LEVELS[2], Binary("x"), LEVELS[1], LEVELS[0]), tree=tree)
    #                       f  g  h   x  c  d  e  a  b
    logits = np.array([[3, 0, 0, -1, 0, 0, 1, 0, 1], [0, 1, 2, 1, 1, 0, 0, 1, 0]])
    scores = scores_of(task, logits)
    assert decide_consistently(scores, np.array([0.5])).tolist() == [[0, 0, 2, 0], [2, 1, 0, 1]]
    assert decide_freely(scores, np.array([0.5])).tolist() == [[0, 0, 2, 1], [2, 1, 0, 0]]
    assert path_of(scores, tree).tolist() == [0, 2]


def test_thresholds_are_probabilities_and_must_be_passed() -> None:
    task = Task((Binary("x"), Binary("y")))
    scores = scores_of(task, np.array([[0, 0], [-1, 1]]))
    assert decide_freely(scores, np.array([0.5, 0.499])).tolist() == [[0, 1], [0, 1]]
    assert decide_freely(scores, np.array([0.0, 1.0])).tolist() == [[1, 0], [1, 0]]


def test_chunks_change_nothing() -> None:
    task = Task((*LEVELS, Binary("x")), tree=Tree(NAMES, ((0, 0, 1), (1, 2, 0), (1, 1, 2))))
    scores = scores_of(task, np.random.default_rng(0).normal(size=(CHUNK + 5, 9)))
    whole, last = decide_consistently(scores, np.array([0.3])), np.arange(CHUNK - 5, CHUNK + 5)
    assert whole.dtype == np.int32
    assert np.array_equal(whole[last], decide_consistently(scores.take(last), np.array([0.3])))


def test_no_rows_give_no_decisions() -> None:
    task = Task((*LEVELS, Binary("x")), tree=Tree(NAMES, ((0, 0, 1),)))
    assert decide_consistently(scores_of(task, np.zeros((0, 9))), np.array([0.3])).shape == (0, 4)


def test_labels_that_are_never_predicted_are_named() -> None:
    task = Task((Binary("joy"), Binary("fear"), Categorical("c", ("x", "y", "z"))))
    labels = Labels(task, np.array([[1, 1, 0], [0, 1, 1], [0, 0, MISSING]], dtype=np.int32))
    decisions = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.int32)
    assert never_predicted(decisions, labels) == ("fear", "c=x")
    assert never_predicted(np.maximum(labels.codes, 0), labels) == ()

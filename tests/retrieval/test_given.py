from __future__ import annotations

import numpy as np

from fivefold.retrieval.entries import NOBODY, entries_of
from fivefold.retrieval.given import texts_given, votes_given
from fivefold.retrieval.neighbours import Neighbours
from fivefold.task import MISSING, Binary, Categorical, Labels, Task

TASK = Task((Binary("new"), Categorical("kind", ("tea", "rice", "oil"))))
ENTRIES = entries_of(["green tea", "Green Tea", "rice", "olive oil", ""])
CODES = np.array([[1, 0], [0, 1], [MISSING, 1], [0, 2], [1, 2]], dtype=np.int32)
ALL = np.ones(5, dtype=bool)


def found(*rows: list[tuple[int, float]]) -> Neighbours:
    entries = np.full((len(rows), 3), NOBODY, dtype=np.int32)
    similarity = np.zeros((len(rows), 3), dtype=np.float32)
    for place, row in enumerate(rows):
        for rank, (entry, cosine) in enumerate(row):
            entries[place, rank], similarity[place, rank] = entry, cosine
    return Neighbours(entries, similarity)


def test_votes_are_weighted_by_similarity() -> None:
    votes = votes_given(ENTRIES, Labels(TASK, CODES), ALL)
    # new, tea, rice, oil of the three entries; the first has two rows.
    np.testing.assert_allclose(votes.shares.toarray(), [[0.5, 0.5, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    figures = votes.figures(found([(0, 0.9), (1, 0.6)], [], [(2, 0.7)])).toarray()
    np.testing.assert_allclose(figures, [[0.3, 0.3, 0.7, 0, 0.9], [0] * 5, [0, 0, 0, 1, 0.7]], atol=1e-6)


def test_votes_in_words() -> None:
    votes = votes_given(ENTRIES, Labels(TASK, CODES), ALL)
    told = votes.texts(found([(0, 0.9), (1, 0.6)], [], [(2, 0.7)]))
    assert told == ["new 30%; kind: rice 70%, tea 30%", "", "kind: oil 100%"]


def test_only_the_rows_that_may_be_seen_vote() -> None:
    votes = votes_given(ENTRIES, Labels(TASK, CODES), np.array([True, False, False, True, True]))
    np.testing.assert_allclose(votes.shares.toarray(), [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_soft_labels_vote_as_they_are() -> None:
    soft = np.array([[0.2], [0.6], [np.nan], [0.0], [1.0]], dtype=np.float32)
    votes = votes_given(ENTRIES, Labels(TASK, CODES, {"new": soft}), ALL)
    np.testing.assert_allclose(votes.shares.toarray()[:, 0], [0.4, 0, 0], atol=1e-6)


def test_texts_come_nearest_first_and_once() -> None:
    texts = ["", "cup", "bag", "bag", "nothing"]
    given = texts_given(ENTRIES, texts, ALL)
    assert given.of_entry == ["cup", "bag", "bag"]
    assert given.texts(found([(1, 0.9), (0, 0.8)], [(1, 0.9), (2, 0.5)], [])) == ["bag\ncup", "bag", ""]
    assert given.figures(found([(1, 0.9)])) is None
    assert texts_given(ENTRIES, texts, np.zeros(5, dtype=bool)).of_entry == ["", "", ""]

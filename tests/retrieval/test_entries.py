from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fivefold.data.duplicates import folded
from fivefold.retrieval.entries import NOBODY, entries_of

TEXTS = st.lists(st.sampled_from(["tea", "Tea", " tea ", "black  tea", "black tea", "rice", "", "  "]), max_size=12)


@given(TEXTS, st.data())
def test_every_row_has_the_entry_of_its_text(texts: list[str], data: st.DataObject) -> None:
    size = len(texts)
    groups = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    entries = entries_of(texts, np.array(groups, dtype=np.int32))
    assert len({folded(text) for text in entries.texts}) == len(entries)
    for row, text in enumerate(texts):
        if not text.strip():
            assert entries.of_row[row] == NOBODY
            continue
        assert folded(entries.texts[entries.of_row[row]]) == folded(text)
    for a in range(size):
        for b in range(size):
            if texts[a].strip() and texts[b].strip() and groups[a] == groups[b]:
                own = entries.groups[entries.of_row]
                assert own[a] == own[b]


@given(TEXTS)
def test_a_text_is_barred_from_its_own_entry(texts: list[str]) -> None:
    entries = entries_of(texts)
    for text, barred in zip(["TEA", "other", ""], entries.barred_for(["TEA", "other", ""]), strict=True):
        own = entries.places.get(folded(text))
        assert barred == (NOBODY if own is None else entries.groups[own])


def test_entries_are_held_by_the_rows_that_have_them() -> None:
    entries = entries_of(["a", "b", "A", "", "c"])
    assert entries.held_by(np.array([False, True, True, True, False])).tolist() == [True, True, False]
    assert entries.held_by(np.zeros(5, dtype=bool)).tolist() == [False] * 3


def test_no_text_at_all() -> None:
    entries = entries_of(["", " "])
    assert len(entries) == 0
    assert entries.barred_for(["x"]).tolist() == [NOBODY]

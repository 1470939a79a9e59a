from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.retrieval.test_index import unit_vectors

from fivefold.retrieval.entries import NOBODY
from fivefold.retrieval.index import build_index
from fivefold.retrieval.neighbours import neighbours


@settings(deadline=None)
@given(
    count=st.integers(1, 90),
    most=st.integers(1, 6),
    least=st.floats(0.05, 0.9),
    share=st.floats(0, 1),
    kinds=st.integers(1, 20),
    seed=st.integers(0, 2**16),
)
def test_neighbours_are_the_nearest_of_those_allowed(
    count: int, most: int, least: float, share: float, kinds: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors, queries = unit_vectors(count, 3, seed), unit_vectors(11, 3, seed + 1)
    allowed, groups = random.random(count) < share, random.integers(0, kinds, count).astype(np.int32)
    barred = random.integers(NOBODY, kinds, 11).astype(np.int32)
    found = neighbours(build_index(vectors), queries, most, least, allowed=allowed, groups=groups, barred=barred)
    similarity = np.einsum("qd,ed->qe", queries.astype(np.float32), vectors.astype(np.float32))
    for query in range(11):
        fits = [e for e in range(count) if allowed[e] and groups[e] != barred[query] and similarity[query, e] >= least]
        best = sorted(similarity[query, fits].tolist(), reverse=True)[:most]
        own = found.entries[query][found.entries[query] != NOBODY]
        assert set(own.tolist()) <= set(fits)
        np.testing.assert_allclose(found.similarity[query, : len(own)], best, atol=1e-6)
        assert (found.similarity[query, len(own) :] == 0).all()


def test_more_is_asked_for_until_enough_are_allowed() -> None:
    vectors = unit_vectors(400, 3)
    order = build_index(vectors).search(vectors[:1], 400).entries[0]
    allowed = np.zeros(400, dtype=bool)
    allowed[order[[150, 390]]] = True
    nobody, groups = np.array([NOBODY], dtype=np.int32), np.zeros(400, dtype=np.int32)
    found = neighbours(build_index(vectors), vectors[:1], 2, -1.0, allowed=allowed, groups=groups, barred=nobody)
    assert found.entries[0].tolist() == order[[150, 390]].tolist()


def test_a_query_without_text_finds_nothing() -> None:
    nobody, groups = np.array([NOBODY], dtype=np.int32), np.zeros(20, dtype=np.int32)
    blank = np.zeros((1, 16), dtype=np.float16)
    found = neighbours(
        build_index(unit_vectors(20)), blank, 3, 0.1, allowed=np.ones(20, dtype=bool), groups=groups, barred=nobody
    )
    assert found.entries.tolist() == [[NOBODY] * 3]
    assert found.best.tolist() == [0]

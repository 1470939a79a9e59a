from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fivefold.errors import ArtefactError, DataError, MissingExtraError
from fivefold.retrieval import index as index_module
from fivefold.retrieval.index import FLAT_UP_TO, HNSW_UP_TO, Index, build_index, kind_for


def unit_vectors(count: int, hidden: int = 16, seed: int = 0) -> npt.NDArray[np.float16]:
    vectors = np.random.default_rng(seed).normal(size=(count, hidden))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


class Graph:
    """Stands for faiss's index: finds the nearest, and nothing for the last candidate."""

    class hnsw:  # noqa: N801
        efSearch = 0

    nlist, nprobe, ntotal = 640, 0, 30

    def __init__(self, vectors: npt.NDArray[np.float16]) -> None:
        self.vectors = vectors.astype(np.float32)

    def search(self, queries: npt.NDArray[np.float32], most: int) -> tuple[None, npt.NDArray[np.int64]]:
        found = np.argsort(-(queries @ self.vectors.T), axis=1)[:, :most].astype(np.int64)
        found[:, -1] = -1
        return None, found


def test_a_flat_index_finds_the_nearest_in_order() -> None:
    vectors, queries = unit_vectors(200), unit_vectors(30, seed=1)
    found = build_index(vectors).search(queries, 7)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_array_equal(found.entries, np.argsort(-exact, axis=1)[:, :7])
    np.testing.assert_allclose(found.similarity, -np.sort(-exact, axis=1)[:, :7], atol=1e-6)


def test_entries_alike_come_by_number() -> None:
    vectors = np.repeat(unit_vectors(3), 4, axis=0)
    found = build_index(vectors).search(vectors[:1], 12)
    assert found.entries[0, :4].tolist() == [0, 1, 2, 3]


def test_more_than_there_is_gives_all_of_it() -> None:
    found = build_index(unit_vectors(5)).search(unit_vectors(2, seed=1), 50)
    assert np.sort(found.entries, axis=1).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_what_is_found_does_not_depend_on_batch_mates(monkeypatch: pytest.MonkeyPatch) -> None:
    index, queries = build_index(unit_vectors(300)), unit_vectors(40, seed=1)
    together = index.search(queries, 9)
    monkeypatch.setattr(index_module, "COMPARED", 1)
    alone = index.search(queries, 9)
    np.testing.assert_array_equal(alone.entries, together.entries)
    np.testing.assert_array_equal(alone.similarity, together.similarity)


def test_few_entries_take_no_more_memory_than_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "COMPARED", 2000)
    vectors, sizes, nearest = unit_vectors(8), [], Index._nearest

    def measured(index: Index, queries: npt.NDArray[np.float32], most: int) -> index_module.Found:
        sizes.append(len(queries))
        return nearest(index, queries, most)

    monkeypatch.setattr(Index, "_nearest", measured)
    assert len(build_index(vectors).search(unit_vectors(500, seed=1), 5).entries) == 500
    assert max(sizes) * 5 * vectors.shape[1] <= 2000


def test_no_query_finds_nothing() -> None:
    found = build_index(unit_vectors(9)).search(unit_vectors(0), 4)
    assert found.entries.shape == found.similarity.shape == (0, 4)


def test_a_saved_index_gives_the_same_answers(tmp_path: Path) -> None:
    index, queries = build_index(unit_vectors(100)), unit_vectors(20, seed=1)
    index.save(tmp_path)
    first, again = index.search(queries, 5), Index.load(tmp_path).search(queries, 5)
    np.testing.assert_array_equal(first.entries, again.entries)
    np.testing.assert_array_equal(first.similarity, again.similarity)


def test_an_index_that_lost_vectors_is_refused(tmp_path: Path) -> None:
    build_index(unit_vectors(10)).save(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"kind": "flat", "entries": 11}))
    with pytest.raises(ArtefactError, match="isn't whole"):
        Index.load(tmp_path)


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_candidates_of_a_graph_are_ordered_by_their_vectors(kind: index_module.Kind) -> None:
    vectors, queries = unit_vectors(30), unit_vectors(6, seed=1)
    index = Index(vectors, kind, Graph(vectors))
    exact = build_index(vectors).search(queries, 4)
    found = index.search(queries, 4)
    np.testing.assert_array_equal(found.entries[:, :3], exact.entries[:, :3])
    if kind == "hnsw":
        assert (found.entries[:, 3] == -1).all()
        assert np.isneginf(found.similarity[:, 3]).all()
        assert index.graph.hnsw.efSearch >= 4
    else:
        np.testing.assert_array_equal(found.entries, exact.entries)
        assert index.graph.nprobe == 10


def test_kinds_go_by_size() -> None:
    kinds = [kind_for(size) for size in (1, FLAT_UP_TO, FLAT_UP_TO + 1, HNSW_UP_TO, HNSW_UP_TO + 1)]
    assert kinds == ["flat", "flat", "hnsw", "hnsw", "ivfpq"]


def test_without_faiss_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"enrichment.index: flat[\s\S]*fivefold\[enrich\]"):
        build_index(unit_vectors(10), "hnsw")


def test_too_few_entries_for_lists() -> None:
    with pytest.raises(DataError, match=r"10,000 entries or more[\s\S]*got: 10"):
        build_index(unit_vectors(10), "ivfpq")


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_faiss_finds_nearly_all_and_is_saved(
    kind: index_module.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(index_module, "LEAST_FOR_LISTS", 2000)
    vectors = unit_vectors(3000)
    queries = (vectors[::30].astype(np.float32) + 0.1 * unit_vectors(100, seed=1)).astype(np.float16)
    index, exact = build_index(vectors, kind), build_index(vectors, "flat").search(queries, 1)
    found = index.search(queries, 1)
    assert (found.entries == exact.entries).mean() >= 0.95
    index.save(tmp_path)
    loaded = Index.load(tmp_path)
    np.testing.assert_array_equal(loaded.search(queries, 5).entries, index.search(queries, 5).entries)
    assert len(replace(loaded, graph=None)) == 3000

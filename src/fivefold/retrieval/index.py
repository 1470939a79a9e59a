"""An index over vectors: exact for few, a graph (HNSW) for many, compressed lists (IVF-PQ) for very many.

Whatever finds the candidates, their similarities are computed from the vectors themselves, pair by pair, so that they
don't depend on who is asked for in the same batch.
"""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fivefold.errors import ArtefactError, DataError, MissingExtraError
from fivefold.task import FloatArray, IntArray

HalfArray: TypeAlias = npt.NDArray[np.float16]
Kind: TypeAlias = Literal["flat", "hnsw", "ivfpq"]

FLAT_UP_TO = 50_000
"""Entries up to which every one is compared: a batch of queries takes about a millisecond each."""

HNSW_UP_TO = 5_000_000
"""Entries up to which a graph with its vectors is held in memory: about 1 kB an entry of 384 dimensions."""

LINKS, BUILD_WIDTH, SEARCH_WIDTH = 32, 200, 96
"""Of the graph: neighbours of a node, and candidates kept while it is built and searched (Malkov and Yashunin 2018)."""

PROBED = 1 / 64
"""Share of the lists of an IVF that a query looks into (Jégou, Douze and Schmid 2011)."""

LEAST_FOR_LISTS = 10_000
"""Entries below which lists and codes can't be learnt."""

TRAINED_ON = 64
"""Entries a list that lists and codes are learnt from."""

SPARE = 8
"""Times as many candidates as asked for come from compressed vectors, which order them only roughly."""

COMPARED = 2**25
"""Similarities held at once, 128 MB."""

VECTORS, GRAPH, ABOUT = "vectors.npy", "index.faiss", "index.json"


@dataclass(frozen=True)
class Found:
    """Entries by falling similarity, int32 and float32 (queries, most); -1 where there is none."""

    entries: IntArray
    similarity: FloatArray


@dataclass(frozen=True)
class Index:
    """Unit vectors, float16 (entries, hidden), and what finds the nearest among them; `graph` is faiss's, if any."""

    vectors: HalfArray
    kind: Kind
    graph: Any = None

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: HalfArray, most: int) -> Found:
        """The nearest entries of each query, `most` at most."""
        most = min(most, len(self))
        candidates = most if self.kind == "flat" else most * SPARE
        width = max(len(self) if self.kind == "flat" else 0, candidates * self.vectors.shape[1])
        step = max(1, COMPARED // max(width, 1))
        parts = [self._nearest(queries[i : i + step].astype(np.float32), most) for i in range(0, len(queries), step)]
        entries = [np.zeros((0, most), dtype=np.int32), *(part.entries for part in parts)]
        return Found(
            np.concatenate(entries), np.concatenate([np.zeros((0, most), np.float32), *(p.similarity for p in parts)])
        )

    def save(self, folder: Path) -> None:
        """Write the vectors, and faiss's index if there is one."""
        (folder / ABOUT).write_text(json.dumps({"kind": self.kind, "entries": len(self)}), "utf-8")
        np.save(folder / VECTORS, self.vectors)
        if self.graph is not None:
            _faiss(self.kind).write_index(self.graph, str(folder / GRAPH))

    @staticmethod
    def load(folder: Path) -> Index:
        """What `save` wrote; the vectors stay on disk, memory-mapped.

        Raises
        ------
        ArtefactError
            If they aren't those of the index.
        """
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        graph = None if about["kind"] == "flat" else _faiss(about["kind"]).read_index(str(folder / GRAPH))
        if len(vectors) != about["entries"] or (graph is not None and graph.ntotal != len(vectors)):
            raise ArtefactError(f"The index at {folder} isn't whole.", next_step="build it again")
        return Index(vectors, about["kind"], graph)

    @cached_property
    def _compared(self) -> FloatArray:
        return np.ascontiguousarray(self.vectors.T, dtype=np.float32)

    def _nearest(self, queries: FloatArray, most: int) -> Found:
        candidates = self._flat(queries, most) if self.kind == "flat" else self._approximate(queries, most)
        similarity = np.einsum("qd,qcd->qc", queries, self.vectors[candidates].astype(np.float32))
        similarity[candidates < 0] = -np.inf
        order = np.lexsort((candidates, -similarity))[:, :most]
        return Found(
            np.take_along_axis(candidates, order, axis=1).astype(np.int32),
            np.take_along_axis(similarity, order, axis=1),
        )

    def _flat(self, queries: FloatArray, most: int) -> IntArray:
        similarity = queries @ self._compared
        if most == len(self):
            return np.tile(np.arange(most, dtype=np.int32), (len(queries), 1))
        return np.argpartition(similarity, -most, axis=1)[:, -most:].astype(np.int32)

    def _approximate(self, queries: FloatArray, most: int) -> IntArray:
        wanted = most
        if self.kind == "hnsw":
            self.graph.hnsw.efSearch = max(SEARCH_WIDTH, most)
        else:
            self.graph.nprobe = max(8, math.ceil(self.graph.nlist * PROBED))
            wanted = min(most * SPARE, len(self))
        found: IntArray = self.graph.search(queries, wanted)[1].astype(np.int32)
        return found


def build_index(vectors: HalfArray, kind: Literal["auto", "flat", "hnsw", "ivfpq"] = "auto") -> Index:
    """An index over unit vectors (entries, hidden), of a kind that suits their number unless one is named.

    Raises
    ------
    MissingExtraError
        If the kind needs faiss, which isn't installed.
    DataError
        If there are too few entries for the kind.
    """
    chosen = kind_for(len(vectors)) if kind == "auto" else kind
    if chosen == "flat":
        return Index(vectors, chosen)
    if chosen == "ivfpq" and len(vectors) < LEAST_FOR_LISTS:
        raise DataError(
            "enrichment.index 'ivfpq' learns its lists from the entries, and there are too few.",
            allowed=f"{LEAST_FOR_LISTS:,} entries or more",
            got=f"{len(vectors):,}",
            next_step="set enrichment.index to auto",
        )
    return Index(vectors, chosen, _graph(vectors, chosen))


def kind_for(entries: int) -> Kind:
    """The kind of index for so many entries."""
    if entries <= FLAT_UP_TO:
        return "flat"
    return "hnsw" if entries <= HNSW_UP_TO else "ivfpq"


def _graph(vectors: HalfArray, kind: Kind) -> Any:
    faiss, (entries, hidden) = _faiss(kind), vectors.shape
    if kind == "hnsw":
        graph = faiss.IndexHNSWSQ(hidden, faiss.ScalarQuantizer.QT_fp16, LINKS)
        graph.hnsw.efConstruction = BUILD_WIDTH
    else:
        lists = 2 ** round(math.log2(4 * math.sqrt(entries)))
        graph = faiss.index_factory(hidden, f"IVF{lists},PQ{_codes(hidden)}")
    sample = np.random.default_rng(0).permutation(entries)[: TRAINED_ON * 4 * math.isqrt(entries)]
    graph.train(vectors[np.sort(sample)].astype(np.float32))
    for start in range(0, entries, FLAT_UP_TO):
        graph.add(vectors[start : start + FLAT_UP_TO].astype(np.float32))
    return graph


def _codes(hidden: int) -> int:
    """Bytes of a compressed vector: one for four dimensions or, where these don't divide, as near as can be."""
    return max(size for size in range(1, hidden // 4 + 2) if hidden % size == 0)


def _faiss(kind: Kind) -> Any:
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        purpose = f"An index of the kind '{kind}' (enrichment.index: flat needs none, and compares every entry)"
        raise MissingExtraError("faiss-cpu", "enrich", purpose) from error

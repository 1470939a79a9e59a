"""Texts that are the same, or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from fivefold.task import IntArray

Hashes: TypeAlias = npt.NDArray[np.uint64]

SHINGLE = 5
"""Characters a shingle: short product texts still have dozens, and one changed word of many costs little."""

PERMUTATIONS = 128
RECALL = 0.99
"""Bands are chosen so that a pair right at the threshold becomes a candidate this likely."""

MARGIN = 0.15
"""Four standard errors of a Jaccard similarity estimated from 128 permutations."""

NEIGHBOURS = 10
"""Candidates tried for a row in each bucket, so that work grows linearly even where thousands are alike."""

BUFFER = 2_000_000
"""Shingles hashed at once: 16 MB."""


def folded(text: str) -> str:
    """The text without letter case and with single spaces: what must differ for texts to count as different."""
    return " ".join(text.lower().split())


def duplicate_groups(texts: Sequence[str]) -> IntArray:
    """A group number for each text, the same for texts equal after folding; int32 (rows,).

    Groups are numbered as they first appear. A text without any character is alone in its group.
    """
    numbers: dict[str, int] = {}
    keys = (folded(text) or f"\0{row}" for row, text in enumerate(texts))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int32)


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.8, *, seed: int = 0) -> IntArray:
    """A group number for each text; near duplicates, and near duplicates of those, share it; int32 (rows,).

    Texts are near duplicates when the Jaccard similarity of their sets of 5-character shingles is at
    least `threshold`. Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and
    Ullman, Mining of Massive Datasets, 3.4) and each is verified exactly. Memory is 0.5 kB a distinct text.

    Raises
    ------
    ValueError
        If `threshold` isn't in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1]. Got {threshold} instead.")
    exact = duplicate_groups(texts)
    first = np.unique(exact, return_index=True)[1]
    distinct = [folded(texts[row]) for row in first]
    signatures = _signatures(distinct, seed)
    pairs = _candidates(signatures, threshold)
    alike = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) if len(pairs) else np.zeros(0)
    filled = np.array([bool(text) for text in distinct], dtype=bool)
    likely = (alike >= threshold - MARGIN) & filled[pairs[:, 0]]
    return _connected(distinct, pairs[likely], threshold)[exact]


def jaccard(first: Hashes, second: Hashes) -> float:
    """Shared elements of two sorted sets over all of them."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / max(len(first) + len(second) - shared, 1)


def _shingles(text: str) -> Hashes:
    """A hash for every run of five characters, uint64 (characters - 4,), with repeats."""
    codes = np.frombuffer(text.ljust(SHINGLE).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    mixed = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        mixed = mixed * np.uint64(0x100000001B3) + codes[offset : len(codes) - SHINGLE + 1 + offset]
    # The finaliser of splitmix64: without it, hashes of similar shingles stay close and MinHash is biased.
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _batches(texts: Sequence[str]) -> Iterator[list[Hashes]]:
    """Shingles of the texts in order, a bounded number at once."""
    batch: list[Hashes] = []
    size = 0
    for text in texts:
        batch.append(_shingles(text))
        size += len(batch[-1])
        if size >= BUFFER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _signatures(texts: Sequence[str], seed: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures, (texts, permutations)."""
    blocks = [np.zeros((0, PERMUTATIONS), dtype=np.uint32)]
    for batch in _batches(texts):
        offsets = np.concatenate([[0], np.cumsum([len(hashes) for hashes in batch])]).astype(np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(batch), offsets, PERMUTATIONS, seed)
        blocks.append(np.array(digests.to_rows(), dtype=np.uint32))
    return np.concatenate(blocks)


def _rows_a_band(threshold: float) -> int:
    """The most rows a band that still find pairs at the threshold with the recall wanted."""
    sizes = range(16, 0, -1)
    return next((r for r in sizes if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL), 1)


def _candidates(signatures: npt.NDArray[np.uint32], threshold: float) -> npt.NDArray[np.int64]:
    """Pairs that agree in a whole band, (pairs, 2), the smaller row first, sorted."""
    size = _rows_a_band(threshold)
    found = [np.zeros(0, dtype=np.int64)]
    total = len(signatures)
    for start in range(0, PERMUTATIONS - size + 1, size):
        band = np.ascontiguousarray(signatures[:, start : start + size]).view(f"V{4 * size}").ravel()
        bucket = np.unique(band, return_inverse=True)[1]
        order = np.argsort(bucket, kind="stable")
        for step in range(1, min(NEIGHBOURS, total - 1) + 1):
            same = bucket[order[step:]] == bucket[order[:-step]]
            if not same.any():
                break
            found.append(order[:-step][same] * total + order[step:][same])
    keys = np.unique(np.concatenate(found))
    return np.stack([keys // max(total, 1), keys % max(total, 1)], axis=1)


def _connected(texts: Sequence[str], pairs: npt.NDArray[np.int64], threshold: float) -> IntArray:
    """Connected components of the pairs that are similar indeed, numbered as they first appear; (texts,)."""
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    @lru_cache(maxsize=64)
    def shingle_set(row: int) -> Hashes:
        return np.unique(_shingles(texts[row]))

    for a, b in pairs.tolist():
        if root(a) != root(b) and jaccard(shingle_set(a), shingle_set(b)) >= threshold:
            parent[max(root(a), root(b))] = min(root(a), root(b))
    # The smallest row is always the root, so roots in order are groups in order of appearance.
    return np.unique([root(row) for row in range(len(texts))], return_inverse=True)[1].astype(np.int32)

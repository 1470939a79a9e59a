"""Count the n-grams of many texts once, as a sparse matrix whose vocabulary is hashes instead of strings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from fivefold.errors import DataError
from fivefold.models.linear import ngram_kernels as kernels
from fivefold.models.linear import ngram_table as table
from fivefold.models.linear.sparse_rows import build_rows

Analyzer = Literal["words", "social", "char_wb", "char"]

CHUNK_CHARACTERS = 1 << 20
"""Characters that are held as code points at a time (4 MiB), unless one text alone is longer."""

_CODES = {name: code for code, name in enumerate(get_args(Analyzer))}


@dataclass(frozen=True)
class NGrams:
    """Which n-grams are counted.

    Parameters
    ----------
    analyzer
        ``words`` and both ``char`` kinds are scikit-learn's ``word``, ``char_wb`` and ``char``. ``social`` are words of
        any length, hashtags, mentions, single symbols such as emoji, and runs of punctuation.
    low, high
        Shortest and longest n-gram, in tokens or characters.
    """

    analyzer: Analyzer
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.analyzer not in _CODES:
            raise DataError("unknown n-gram analyzer", allowed=", ".join(_CODES), got=repr(self.analyzer))
        if not 1 <= self.low <= self.high:
            raise DataError(
                "n-gram lengths are out of order", allowed="1 <= low <= high", got=f"{self.low}, {self.high}"
            )


@dataclass(frozen=True)
class Counts:
    """How often each n-gram stands in each text.

    Attributes
    ----------
    matrix : csr_array of int32, shape (texts, features)
        Blocks side by side, one for each `NGrams`.
    vocabularies : tuple of arrays of uint64
        The hash of each column, block by block: falling document frequency, then rising hash. Frequent features stand
        together so that a solver finds their weights in the cache.
    """

    matrix: csr_array
    vocabularies: tuple[npt.NDArray[np.uint64], ...]


@dataclass(frozen=True)
class _Rows:
    """Counted rows of one block and one stretch of texts, in chunks, with the ids of the stretch's own table."""

    chunks: list[tuple[npt.NDArray[Any], ...]]
    hashes: npt.NDArray[np.uint64]
    frequencies: npt.NDArray[np.int64]


def count_ngrams(texts: Sequence[str], blocks: Sequence[NGrams], *, min_df: int = 1, threads: int = 1) -> Counts:
    """Count the n-grams of ``texts`` that at least ``min_df`` of them hold.

    Parameters
    ----------
    texts
        Lower-cased here, by `str.lower`.
    blocks
        Kinds of n-grams; the same string in two blocks is two features.
    min_df
        A fold of these texts holds an n-gram in no more texts than all do, so what falls here would fall in each fold.
    threads
        Parts of the work done at the same time; the result does not depend on it.
    """
    stretches = _stretches(texts, threads)
    jobs = [(texts[start:stop], block, None) for block in blocks for start, stop in stretches]
    parts = _run(jobs, len(stretches), threads)
    vocabularies = tuple(_common_vocabulary(part, min_df) for part in parts)
    return Counts(_assemble(parts, vocabularies, stretches), vocabularies)


def count_known_ngrams(
    texts: Sequence[str], blocks: Sequence[NGrams], vocabularies: Sequence[npt.NDArray[np.uint64]], *, threads: int = 1
) -> Counts:
    """Count only the n-grams of given vocabularies, one for each block; columns stand in their order."""
    stretches = _stretches(texts, threads)
    jobs = [
        (texts[start:stop], block, vocabulary)
        for block, vocabulary in zip(blocks, vocabularies, strict=True)
        for start, stop in stretches
    ]
    parts = _run(jobs, len(stretches), threads)
    return Counts(_assemble(parts, vocabularies, stretches), tuple(vocabularies))


def hash_ngram(ngram: str) -> int:
    """The hash under which an n-gram stands in a vocabulary; n-grams of words are joined by one blank."""
    value = kernels.SEED
    for point in _code_points(ngram):
        value = np.uint64(kernels.extend_hash(value, point))
    return max(int(value), 1)


def read_ngrams(texts: Sequence[str], block: NGrams, hashes: npt.ArrayLike) -> dict[int, str]:
    """Find the strings behind hashes by reading ``texts`` until each is found; what stands nowhere is left out."""
    missing = {int(value) for value in np.asarray(hashes, np.uint64)}
    found: dict[int, str] = {}
    for points, offsets in _chunks(texts):
        if not missing:
            break
        rooms = kernels.scratch(offsets, block.low, block.high)
        for start, stop in pairwise(offsets):
            here = _strings_in(points[start:stop], block, missing, rooms)
            found |= here
            missing -= here.keys()
    return found


def _strings_in(
    points: npt.NDArray[np.uint32], block: NGrams, wanted: set[int], rooms: tuple[Any, ...]
) -> dict[int, str]:
    stream, _, hashes, spans = rooms
    filled = kernels.hash_document(points, _kinds(points), _CODES[block.analyzer], block.low, block.high, *rooms)
    places = np.flatnonzero(np.isin(hashes[:filled], np.fromiter(wanted, np.uint64, len(wanted))))
    return {int(hashes[place]): _string(stream[slice(*spans[place])]) for place in places}


def _string(points: npt.NDArray[np.uint32]) -> str:
    return points.tobytes().decode("utf-32-le", "surrogatepass")


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _stretches(texts: Sequence[str], threads: int) -> list[tuple[int, int]]:
    """Cut the rows into one stretch a thread, or fewer where the texts are not worth a table each."""
    worthwhile = min(threads, 1 + sum(map(len, texts)) // CHUNK_CHARACTERS, max(1, len(texts)))
    return list(pairwise(np.linspace(0, len(texts), worthwhile + 1).astype(int).tolist()))


def _chunks(texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
    """Code points and offsets of the lower-cased texts, a bounded number of characters at a time."""
    chunk: list[str] = []
    held = 0
    for text in texts:
        chunk.append(text.lower())
        held += len(text)
        if held >= CHUNK_CHARACTERS:
            yield _encode(chunk)
            chunk, held = [], 0
    if chunk:
        yield _encode(chunk)


def _encode(texts: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return _code_points("".join(texts)), offsets


_KINDS: npt.NDArray[np.uint8] = np.full(0x110000, 255, np.uint8)


def _kinds(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """The kind of every code point, filled in for those in ``points``; asking for all 1.1 million takes 0.5 s."""
    for point in np.flatnonzero((np.bincount(points, minlength=1) > 0)[: len(_KINDS)]):
        if _KINDS[point] == 255:
            _KINDS[point] = _kind(chr(point))
    return _KINDS


def _kind(character: str) -> int:
    if re.match(r"\w", character):
        return kernels.WORD
    if character.isspace():
        return kernels.SPACE
    if character in "#@":
        return kernels.MARK
    return kernels.SYMBOL if unicodedata.category(character) == "So" else kernels.OTHER


def _run(jobs: list[tuple[Any, ...]], stretches: int, threads: int) -> list[list[_Rows]]:
    """Count all stretches of all blocks; one list a block."""
    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(lambda job: _count_stretch(*job), jobs))
    return [rows[at : at + stretches] for at in range(0, len(rows), stretches)]


def _count_stretch(texts: Sequence[str], block: NGrams, vocabulary: npt.NDArray[np.uint64] | None) -> _Rows:
    """Count consecutive texts into a table of their own, which starts empty and learns unless there is a vocabulary."""
    learn = vocabulary is None
    known = np.empty(0, np.uint64) if vocabulary is None else vocabulary
    keys, integers = table.fill_table(known)
    size = len(known)
    chunks, document = [], 1
    for points, offsets in _chunks(texts):
        keys, integers, size, *rows = table.count_documents(
            points, offsets, _kinds(points), _CODES[block.analyzer], block.low, block.high,
            keys, integers, size, learn, document,
        )  # fmt: skip
        chunks.append(tuple(rows))
        document += len(offsets) - 1
    hashes, frequencies = table.list_table(keys, integers, size)
    return _Rows(chunks, hashes, frequencies)


def _common_vocabulary(parts: list[_Rows], min_df: int) -> npt.NDArray[np.uint64]:
    hashes, inverse = np.unique(np.concatenate([part.hashes for part in parts]), return_inverse=True)
    frequencies = np.bincount(inverse, np.concatenate([part.frequencies for part in parts]), len(hashes))
    kept = frequencies >= min_df
    return hashes[kept][np.argsort(-frequencies[kept], kind="stable")]


def _assemble(
    parts: list[list[_Rows]], vocabularies: Sequence[npt.NDArray[np.uint64]], stretches: list[tuple[int, int]]
) -> csr_array:
    """Lay the blocks side by side and the stretches one below the other."""
    columns, start = [], 0
    for block, vocabulary in zip(parts, vocabularies, strict=True):
        keys, integers = table.fill_table(vocabulary)
        columns.append([table.columns_of(part.hashes, keys, integers, start) for part in block])
        start += len(vocabulary)
    starts = np.zeros(stretches[-1][1] + 1, np.int64)
    pieces = list(_pieces(parts, columns, stretches))
    for (lengths, ids, _), column_of_id, rows in pieces:
        table.count_kept(lengths, ids, column_of_id, starts[1:][rows])
    np.cumsum(starts, out=starts)
    cursors = starts[:-1].copy()
    indices, data = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    pieces.reverse()
    while pieces:  # each chunk is given back once it is placed
        (lengths, ids, counts), column_of_id, rows = pieces.pop()
        table.place_kept(lengths, ids, counts, column_of_id, cursors[rows], indices, data)
    return build_rows(data, indices, starts, start)


def _pieces(
    parts: list[list[_Rows]], columns: list[list[npt.NDArray[np.int32]]], stretches: list[tuple[int, int]]
) -> Iterator[tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[np.int32], slice]]:
    """Every chunk with the column of each of its ids and the rows it stands for, block after block."""
    for block, block_columns in zip(parts, columns, strict=True):
        for part, column_of_id, (row, _) in zip(block, block_columns, stretches, strict=True):
            for chunk in part.chunks:
                yield chunk, column_of_id, slice(row, row + len(chunk[0]))
                row += len(chunk[0])

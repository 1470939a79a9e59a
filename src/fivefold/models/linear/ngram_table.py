"""Compiled kernels that count hashed n-grams in an open-addressing table, filled while documents stream past."""

import numpy as np
from numba import njit

from fivefold.models.linear.ngram_kernels import hash_document, scratch

EMPTY = np.uint64(0)
# Columns of the table's integers, side by side because each n-gram needs them all: id, number of documents that hold
# it, the last of these, and where that document's row holds it.
ID, FREQUENCY, LAST, PLACE = range(4)


@njit(nogil=True, cache=True)
def _shift_of(keys):
    """How far a hash is shifted to leave as many high bits as number the slots."""
    shift = 64
    slots = len(keys)
    while slots > 1:
        slots >>= 1
        shift -= 1
    return np.uint64(shift)


@njit(nogil=True, cache=True)
def _slot(keys, key, shift):
    """The slot that holds ``key``, or the empty one where it belongs (linear probing)."""
    slot = np.int64(key >> shift)
    while keys[slot] != key and keys[slot] != EMPTY:
        slot = (slot + 1) & (len(keys) - 1)
    return slot


@njit(nogil=True, cache=True)
def _grow(keys, integers):
    """The same table with twice the slots."""
    larger_keys = np.zeros(2 * len(keys), np.uint64)
    larger_integers = np.zeros((2 * len(keys), 4), np.int32)
    shift = _shift_of(larger_keys)
    for old in range(len(keys)):
        if keys[old] != EMPTY:
            slot = _slot(larger_keys, keys[old], shift)
            larger_keys[slot] = keys[old]
            larger_integers[slot] = integers[old]
    return larger_keys, larger_integers


@njit(nogil=True, cache=True)
def _longer(values, needed):
    if needed <= len(values):
        return values
    longer = np.empty(max(needed, 2 * len(values)), values.dtype)
    longer[: len(values)] = values
    return longer


@njit(nogil=True, cache=True)
def _count_row(hashes, keys, integers, size, learn, document, ids, counts, start):
    """Count one text's n-grams to ``ids[start:]`` and ``counts[start:]``; the table's size and the row's end."""
    shift = _shift_of(keys)
    end = start
    for key in hashes:
        slot = _slot(keys, key, shift)
        if keys[slot] == EMPTY:
            if not learn:
                continue
            keys[slot] = key
            integers[slot, ID] = size
            size += 1
        if integers[slot, LAST] == document:
            counts[start + integers[slot, PLACE]] += 1
            continue
        integers[slot, LAST] = document
        integers[slot, FREQUENCY] += 1
        integers[slot, PLACE] = end - start
        ids[end] = integers[slot, ID]
        counts[end] = 1
        end += 1
    return size, end


@njit(nogil=True, cache=True)
def count_documents(points, offsets, kinds, analyzer, low, high, keys, integers, size, learn, first_document):
    """Count the n-grams of consecutive texts.

    Parameters
    ----------
    points : array of uint32, shape (characters,)
        The lower-cased texts, one after another.
    offsets : array of int64, shape (documents + 1,)
        Where each text starts in ``points``.
    kinds : array of uint8, shape (0x110000,)
        The kind of every code point.
    keys, integers, size
        The table so far, and how many n-grams it holds.
    learn : bool
        Whether n-grams that the table does not hold enter it, or are passed over.
    first_document : int
        Number of the first text, from 1; no number may come twice in the life of a table.

    Returns
    -------
    tuple
        The table (keys, integers, size), then lengths of rows int64 ``(documents,)``, and the rows' ids and counts,
        int32 ``(entries,)``; within a row in the order of first appearance.
    """
    stream, bounds, hashes, spans = scratch(offsets, low, high)
    documents = len(offsets) - 1
    lengths = np.empty(documents, np.int64)
    ids = np.empty(len(points), np.int32)
    counts = np.empty(len(points), np.int32)
    end = 0
    for document in range(documents):
        text = points[offsets[document] : offsets[document + 1]]
        found = hash_document(text, kinds, analyzer, low, high, stream, bounds, hashes, spans)
        while learn and 4 * (size + found) > 3 * len(keys):
            keys, integers = _grow(keys, integers)
        ids = _longer(ids, end + found)
        counts = _longer(counts, end + found)
        start = end
        size, end = _count_row(
            hashes[:found], keys, integers, size, learn, first_document + document, ids, counts, start
        )
        lengths[document] = end - start
    return keys, integers, size, lengths, ids[:end].copy(), counts[:end].copy()


@njit(nogil=True, cache=True)
def list_table(keys, integers, size):
    """The table in the order of ids: hashes uint64 ``(size,)`` and document frequencies int64 ``(size,)``."""
    hashes = np.empty(size, np.uint64)
    frequencies = np.empty(size, np.int64)
    for slot in range(len(keys)):
        if keys[slot] != EMPTY:
            hashes[integers[slot, ID]] = keys[slot]
            frequencies[integers[slot, ID]] = integers[slot, FREQUENCY]
    return hashes, frequencies


@njit(nogil=True, cache=True)
def fill_table(hashes):
    """A table in which the id of ``hashes[k]`` is ``k``."""
    slots = 2
    while slots < 2 * len(hashes):
        slots *= 2
    keys = np.zeros(slots, np.uint64)
    integers = np.zeros((slots, 4), np.int32)
    shift = _shift_of(keys)
    for k in range(len(hashes)):
        slot = _slot(keys, hashes[k], shift)
        keys[slot] = hashes[k]
        integers[slot, ID] = k
    return keys, integers


@njit(nogil=True, cache=True)
def columns_of(hashes, keys, integers, start):
    """For each hash ``start`` plus its id in a table, or -1 where the table does not hold it; int32."""
    columns = np.empty(len(hashes), np.int32)
    shift = _shift_of(keys)
    for k in range(len(hashes)):
        slot = _slot(keys, hashes[k], shift)
        columns[k] = -1 if keys[slot] == EMPTY else start + integers[slot, ID]
    return columns


@njit(nogil=True, cache=True)
def count_kept(lengths, ids, column_of_id, row_sizes):
    """Add to ``row_sizes`` how many entries of each row have a column (not -1)."""
    entry = 0
    for row in range(len(lengths)):
        for _ in range(lengths[row]):
            row_sizes[row] += column_of_id[ids[entry]] >= 0
            entry += 1


@njit(nogil=True, cache=True)
def place_kept(lengths, ids, counts, column_of_id, cursors, indices, data):
    """Write the entries that have a column to their rows of a CSR matrix; ``cursors`` says where each row goes on."""
    entry = 0
    for row in range(len(lengths)):
        for _ in range(lengths[row]):
            column = column_of_id[ids[entry]]
            if column >= 0:
                indices[cursors[row]] = column
                data[cursors[row]] = counts[entry]
                cursors[row] += 1
            entry += 1

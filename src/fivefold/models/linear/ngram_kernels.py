"""Compiled kernels that cut code points into n-grams and hash them.

A text becomes a *stream* of code points and *bounds* of its segments (tokens, padded words or the whole text), so that
every n-gram is a slice of the stream. The hash of an n-gram is therefore the hash of its string, whatever the analyzer.
"""

import numpy as np
from numba import njit

OTHER, WORD, SPACE, MARK, SYMBOL = range(5)
"""Kinds of code points; ``MARK`` opens a hashtag or a mention, ``SYMBOL`` is a token by itself (emoji)."""

WORDS, SOCIAL, CHAR_WB, CHAR = range(4)
"""Analyzers."""

BLANK = np.uint32(32)
SEED = np.uint64(0xCBF29CE484222325)
# The golden ratio as an odd number: no small multiple of it is small, so two changed characters cannot cancel out.
FACTOR = np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True, cache=True)
def extend_hash(value, point):
    """Add one code point to a hash (Fowler-Noll-Vo 1a with 64-bit words)."""
    return (value ^ np.uint64(point)) * FACTOR


@njit(nogil=True, cache=True)
def _write(points, start, stop, stream, at):
    for position in range(start, stop):
        stream[at] = points[position]
        at += 1
    return at


@njit(nogil=True, cache=True)
def _run_end(points, start, kinds, kind):
    stop = start + 1
    while stop < len(points) and kinds[points[stop]] == kind:
        stop += 1
    return stop


@njit(nogil=True, cache=True)
def _social_end(points, start, kinds):
    """End of the token that starts here: a word, a #tag or @mention, one symbol, or a run of punctuation."""
    kind = kinds[points[start]]
    if kind == WORD:
        return _run_end(points, start, kinds, WORD)
    if kind == MARK and start + 1 < len(points) and kinds[points[start + 1]] == WORD:
        return _run_end(points, start + 1, kinds, WORD)
    stop = start + 1
    if kind != SYMBOL:
        while stop < len(points) and kinds[points[stop]] == OTHER:
            stop += 1
    return stop


@njit(nogil=True, cache=True)
def _segment_tokens(points, kinds, analyzer, stream, bounds):
    """Tokens joined by one blank, as an n-gram of words is written."""
    count = at = start = 0
    while start < len(points):
        kind = kinds[points[start]]
        if kind == SPACE or (analyzer == WORDS and kind != WORD):
            start += 1
            continue
        stop = _run_end(points, start, kinds, WORD) if analyzer == WORDS else _social_end(points, start, kinds)
        if analyzer == SOCIAL or stop - start >= 2:
            if count:
                stream[at] = BLANK
                at += 1
            bounds[count, 0] = at
            at = _write(points, start, stop, stream, at)
            bounds[count, 1] = at
            count += 1
        start = stop
    return count


@njit(nogil=True, cache=True)
def _segment_padded_words(points, kinds, stream, bounds):
    """Words between white space, each with a blank before and after."""
    count = at = start = 0
    while start < len(points):
        if kinds[points[start]] == SPACE:
            start += 1
            continue
        stop = start + 1
        while stop < len(points) and kinds[points[stop]] != SPACE:
            stop += 1
        bounds[count, 0] = at
        stream[at] = BLANK
        at = _write(points, start, stop, stream, at + 1)
        stream[at] = BLANK
        at += 1
        bounds[count, 1] = at
        count += 1
        start = stop
    return count


@njit(nogil=True, cache=True)
def _segment_text(points, kinds, low, stream, bounds):
    """The whole text, each run of two or more white spaces as one blank; nothing where it is shorter than ``low``."""
    at = start = 0
    while start < len(points):
        stop = _run_end(points, start, kinds, SPACE) if kinds[points[start]] == SPACE else start + 1
        stream[at] = BLANK if stop - start > 1 else points[start]
        at += 1
        start = stop
    bounds[0, 0] = 0
    bounds[0, 1] = at
    return 1 if at >= low else 0


@njit(nogil=True, cache=True)
def _slide_over_tokens(stream, bounds, count, low, high, hashes, spans):
    filled = 0
    for first in range(count):
        value = SEED
        position = bounds[first, 0]
        for last in range(first, min(first + high, count)):
            while position < bounds[last, 1]:
                value = extend_hash(value, stream[position])
                position += 1
            if last - first + 1 >= low:
                hashes[filled] = max(value, np.uint64(1))  # 0 is the table's empty slot
                spans[filled, 0] = bounds[first, 0]
                spans[filled, 1] = position
                filled += 1
    return filled


@njit(nogil=True, cache=True)
def _slide_over_characters(stream, bounds, count, low, high, hashes, spans):
    """Windows within each segment; a segment shorter than ``low`` is one n-gram."""
    filled = 0
    for segment in range(count):
        end = bounds[segment, 1]
        shortest = min(low, end - bounds[segment, 0])
        for start in range(bounds[segment, 0], end - shortest + 1):
            value = SEED
            for position in range(start, min(start + high, end)):
                value = extend_hash(value, stream[position])
                if position - start + 1 >= shortest:
                    hashes[filled] = max(value, np.uint64(1))
                    spans[filled, 0] = start
                    spans[filled, 1] = position + 1
                    filled += 1
    return filled


@njit(nogil=True, cache=True)
def hash_document(points, kinds, analyzer, low, high, stream, bounds, hashes, spans):
    """Hash every n-gram of one text.

    Parameters
    ----------
    points : array of uint32, shape (length,)
        The lower-cased text.
    stream, bounds, hashes, spans : arrays
        Room to write, see `scratch`; ``spans`` says which slice of ``stream`` is the n-gram.

    Returns
    -------
    int
        How many n-grams were written to ``hashes`` and ``spans``.
    """
    if analyzer in (WORDS, SOCIAL):
        count = _segment_tokens(points, kinds, analyzer, stream, bounds)
        return _slide_over_tokens(stream, bounds, count, low, high, hashes, spans)
    if analyzer == CHAR_WB:
        count = _segment_padded_words(points, kinds, stream, bounds)
    else:
        count = _segment_text(points, kinds, low, stream, bounds)
    return _slide_over_characters(stream, bounds, count, low, high, hashes, spans)


@njit(nogil=True, cache=True)
def scratch(offsets, low, high):
    """Room for the longest text, whose stream is longest where one-letter words get a blank on each side."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    room = 2 * longest + 2
    grams = room * (high - low + 1)
    return (
        np.empty(room, np.uint32),
        np.empty((longest + 1, 2), np.int32),
        np.empty(grams, np.uint64),
        np.empty((grams, 2), np.int32),
    )

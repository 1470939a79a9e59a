"""Sequences put together out of spans of ids, without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fivefold.task import IntArray
from fivefold.training.tokens import IndexArray, Tokens, spans, starts_of

TypeArray = npt.NDArray[np.uint8]

SEQUENCES_AT_ONCE = 65_536
"""Sequences whose positions, eight bytes a token, are held at a time."""


@dataclass(frozen=True)
class Piece:
    """What stands at one place of every sequence: a span of `source`, any ids end to end.

    Parameters
    ----------
    source
        int32 (any,).
    kinds
        Token type of each id of the source, or of all.
    starts, lengths
        int64 (sequences,), the span of each sequence.
    """

    source: IntArray
    kinds: TypeArray | int
    starts: IndexArray
    lengths: IndexArray


def whole(ids: Sequence[int] | IntArray, kind: int, sequences: int) -> Piece:
    """The same ids in every sequence."""
    starts = np.zeros(sequences, dtype=np.int64)
    return Piece(np.asarray(ids, dtype=np.int32), kind, starts, starts + len(ids))


def assembled(pieces: Sequence[Piece]) -> tuple[Tokens, TypeArray]:
    """Sequences with one span of each piece after the other, and the type of every token, uint8 (total,)."""
    lengths = np.stack([piece.lengths for piece in pieces], axis=1)  # (sequences, pieces)
    starts = starts_of(lengths.ravel())
    ids, types = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.uint8)
    for number, piece in enumerate(pieces):
        places = starts[number : -1 : len(pieces)]
        for first in range(0, len(lengths), SEQUENCES_AT_ONCE):
            block = slice(first, first + SEQUENCES_AT_ONCE)
            to = spans(places[block], piece.lengths[block])
            source = spans(piece.starts[block], piece.lengths[block])
            ids[to] = piece.source[source]
            types[to] = piece.kinds if isinstance(piece.kinds, int) else piece.kinds[source]
    return Tokens(ids, starts[:: len(pieces)]), types

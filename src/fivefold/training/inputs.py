"""Sequences ready for a backbone, and the tensors of a batch of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fivefold.task import IntArray
from fivefold.training.assembly import Piece, TypeArray, assembled, whole
from fivefold.training.templates import Template, Truncation, fields_named, learn_template, room_of, written_template
from fivefold.training.tokens import IndexArray, Tokens, spans, starts_of

__all__ = [
    "Coverage",
    "Inputs",
    "Template",
    "Truncation",
    "fields_named",
    "joined",
    "learn_template",
    "merged",
    "separate",
    "separately_windowed",
    "windowed",
    "written_template",
]

NO_LEAD: IntArray = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class Coverage:
    """How much of some texts is read.

    Parameters
    ----------
    content, kept
        int64 (rows,): tokens that each text has, and those that are read.
    """

    content: IndexArray
    kept: IndexArray

    @property
    def truncated(self) -> int:
        """Texts that lost tokens."""
        return int((self.kept < self.content).sum())

    @property
    def lost(self) -> float:
        """Share of all tokens that is not read."""
        return float(1 - self.kept.sum() / max(int(self.content.sum()), 1)) if self.truncated else 0.0

    def first(self, rows: int) -> Coverage:
        """That of the first rows."""
        return Coverage(self.content[:rows], self.kept[:rows])


@dataclass(frozen=True)
class Inputs:
    """What a backbone reads of many rows: a row has parts (its fields), a part has sequences (its windows).

    Parameters
    ----------
    tokens
        Ids of the sequences, the template's included.
    types
        uint8 (total,), token type of each id.
    part
        int64 (sequences,), sorted: the part of each sequence.
    owner
        int64 (parts,), sorted: the row of each part.
    fields
        Field name to how much of it the sequences hold, what is read twice counted twice.
    """

    tokens: Tokens
    types: TypeArray
    part: IndexArray
    owner: IndexArray
    fields: Mapping[str, Coverage]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.fields.values())).content)

    @cached_property
    def coverage(self) -> Coverage:
        """How much the sequences hold of all fields together."""
        return _together(list(self.fields.values()))

    @cached_property
    def counts(self) -> IndexArray:
        """Sequences of each row, (rows,)."""
        return np.bincount(self.owner[self.part], minlength=self.rows)

    @cached_property
    def lengths(self) -> IndexArray:
        """Tokens of each row's longest sequence, (rows,); an empty one still takes a place."""
        longest = np.ones(self.rows, dtype=np.int64)
        np.maximum.at(longest, self.owner[self.part], self.tokens.lengths)
        return longest

    @cached_property
    def _sequence_starts(self) -> IndexArray:
        return starts_of(self.counts)

    @cached_property
    def _part_starts(self) -> IndexArray:
        return starts_of(np.bincount(self.owner, minlength=self.rows))

    def batch(self, rows: npt.NDArray[Any], pad: int, side: Literal["left", "right"] = "right") -> dict[str, Tensor]:
        """Tensors of the sequences of these rows.

        Parameters
        ----------
        rows
            Row positions, (B,).
        pad
            Id on the places without a token.
        side
            Where the padding goes.

        Returns
        -------
        int64 tensors: `input_ids`, `attention_mask` and `token_type_ids` (S, T), `part` (S,) and `owner` (parts,)
        counted from 0 within the batch and, when padded on the left, `position_ids` (S, T), 0 at the first token.
        An empty sequence attends to one padding token, so that no softmax is over nothing.
        """
        sequences = spans(self._sequence_starts[rows], self.counts[rows])
        starts = self.tokens.starts[sequences]
        lengths = self.tokens.starts[sequences + 1] - starts
        width = max(int(lengths.max(initial=1)), 1)
        places = np.arange(width)
        if side == "left":
            places = places[::-1]
        filled = places < lengths[:, None]
        index = spans(starts, lengths)
        ids = np.full(filled.shape, pad, dtype=np.int64)
        ids[filled] = self.tokens.ids[index]
        types = np.zeros(filled.shape, dtype=np.int64)
        types[filled] = self.types[index]
        attended = (places < np.maximum(lengths, 1)[:, None]).astype(np.int64)
        arrays = {"input_ids": ids, "attention_mask": attended, "token_type_ids": types}
        arrays |= self._places(rows, sequences)
        if side == "left":
            arrays["position_ids"] = np.maximum(np.cumsum(attended, axis=1) - 1, 0)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _places(self, rows: npt.NDArray[Any], sequences: IndexArray) -> dict[str, IndexArray]:
        """The part of each sequence and the row of each part, counted within the batch."""
        first = self._part_starts[rows]
        parts = self._part_starts[rows + 1] - first
        shift = starts_of(parts)[:-1] - first
        return {
            "part": self.part[sequences] + np.repeat(shift, self.counts[rows]),
            "owner": np.repeat(np.arange(len(rows)), parts),
        }


def joined(
    fields: Mapping[str, Tokens], template: Template, truncation: Truncation, lead: IntArray = NO_LEAD
) -> Inputs:
    """All fields of a row in one sequence: prefix, lead, field, middle, field, …, suffix.

    Parameters
    ----------
    fields
        Field name to its content ids, in the order in which they are read.
    lead
        Ids after the prefix of every sequence, such as a prompt.

    Raises
    ------
    RecipeError
        If the truncation leaves no room for content.
    """
    lengths = {name: tokens.lengths for name, tokens in fields.items()}
    kept = truncation.kept(lengths, template.overhead(len(fields)) + len(lead))
    rows = _rows(fields)
    gaps = template.between(len(fields))
    pieces = [whole(template.prefix, 0, rows), whole(lead, 0, rows)]
    for position, (name, tokens) in enumerate(fields.items()):
        heads = truncation.heads(kept[name])
        tails = kept[name] - heads
        pieces += [whole(gaps[position - 1], _kind(position - 1, template), rows)] if position else []
        pieces += [Piece(tokens.ids, _kind(position, template), tokens.starts[:-1], heads)]
        pieces += [Piece(tokens.ids, _kind(position, template), tokens.starts[1:] - tails, tails)]
    pieces.append(whole(template.suffix, _kind(len(fields) - 1, template), rows))
    ids, types = assembled(pieces)
    fields_read = {name: Coverage(lengths[name], kept[name]) for name in fields}
    return Inputs(ids, types, np.arange(rows), np.arange(rows), fields_read)


def separate(
    fields: Mapping[str, Tokens], template: Template, truncation: Truncation, lead: IntArray = NO_LEAD
) -> Inputs:
    """Each field of a row in a sequence of its own, a part each; otherwise as `joined`."""
    return merged([joined({name: tokens}, template, truncation, lead) for name, tokens in fields.items()])


def windowed(
    fields: Mapping[str, Tokens],
    template: Template,
    window_tokens: int,
    overlap: int,
    max_windows: int | None = None,
    lead: IntArray = NO_LEAD,
) -> Inputs:
    """All fields of a row, a middle between them, cut into windows that are the sequences of one part.

    Parameters
    ----------
    window_tokens
        Tokens of a sequence at most, those of the template and the lead included.
    overlap
        Content tokens that neighbouring windows share.
    max_windows
        Windows of a row at most, its first ones; None: as many as it takes.

    Raises
    ------
    RecipeError
        If a window leaves no room for content besides its overlap.
    """
    stride = room_of(window_tokens, template.overhead(1) + len(lead) + overlap)
    stream, kinds = assembled(_stream(fields, template))
    wanted = 1 + -(-np.maximum(stream.lengths - stride - overlap, 0) // stride)
    counts = wanted if max_windows is None else np.minimum(wanted, max_windows)
    part = np.repeat(np.arange(len(stream)), counts)
    begins = stream.starts[part] + stride * spans(np.zeros_like(counts), counts)
    ends = np.minimum(begins + stride + overlap, stream.starts[part + 1])
    ids, types = assembled(
        [
            whole(template.prefix, 0, len(part)),
            whole(lead, 0, len(part)),
            Piece(stream.ids, kinds, begins, ends - begins),
            _suffix(template, kinds, begins, ends),
        ]
    )
    lengths = {name: tokens.lengths for name, tokens in fields.items()}
    gaps = [len(gap) for gap in template.between(len(fields))]
    return Inputs(ids, types, part, np.arange(len(stream)), _covered(lengths, gaps, counts * stride + overlap))


def separately_windowed(
    fields: Mapping[str, Tokens],
    template: Template,
    window_tokens: int,
    overlap: int,
    max_windows: int | None = None,
    lead: IntArray = NO_LEAD,
) -> Inputs:
    """Each field of a row cut into windows, a part each; otherwise as `windowed`."""
    alone = [{name: tokens} for name, tokens in fields.items()]
    return merged([windowed(field, template, window_tokens, overlap, max_windows, lead) for field in alone])


def merged(several: Sequence[Inputs]) -> Inputs:
    """One row's parts in each of several inputs as the parts of one row, in that order."""
    names = dict.fromkeys(name for inputs in several for name in inputs.fields)
    owner = np.concatenate([inputs.owner for inputs in several])
    parts = starts_of(np.array([len(inputs.owner) for inputs in several]))
    part = np.concatenate([inputs.part + first for inputs, first in zip(several, parts[:-1], strict=True)])
    lengths = np.concatenate([inputs.tokens.lengths for inputs in several])
    order, part_order = np.argsort(owner[part], kind="stable"), np.argsort(owner, kind="stable")
    rank = np.empty_like(part_order)
    rank[part_order] = np.arange(len(rank))
    index = spans(starts_of(lengths)[:-1][order], lengths[order])
    return Inputs(
        Tokens(np.concatenate([inputs.tokens.ids for inputs in several])[index], starts_of(lengths[order])),
        np.concatenate([inputs.types for inputs in several])[index],
        rank[part[order]],
        owner[part_order],
        {name: _together([inputs.fields[name] for inputs in several if name in inputs.fields]) for name in names},
    )


def _stream(fields: Mapping[str, Tokens], template: Template) -> list[Piece]:
    """Fields with a middle between them, and nothing around."""
    rows, pieces, gaps = _rows(fields), [], template.between(len(fields))
    for position, tokens in enumerate(fields.values()):
        pieces += [whole(gaps[position - 1], _kind(position - 1, template), rows)] if position else []
        pieces += [Piece(tokens.ids, _kind(position, template), tokens.starts[:-1], tokens.lengths)]
    return pieces


def _suffix(template: Template, kinds: TypeArray, begins: IndexArray, ends: IndexArray) -> Piece:
    """The suffix of each window, of the type of the window's last token."""
    width = len(template.suffix)
    source = np.array([*template.suffix, *template.suffix], dtype=np.int32)
    types = np.repeat(np.array([0, template.second_type], dtype=np.uint8), width)
    second = np.zeros(len(begins), dtype=np.int64)
    second[begins < ends] = kinds[ends[begins < ends] - 1] > 0
    return Piece(source, types, second * width, np.full(len(begins), width))


def _covered(lengths: Mapping[str, IndexArray], gaps: Sequence[int], end: IndexArray) -> dict[str, Coverage]:
    """How much of each field stands before the place `end` of each row's stream, (rows,)."""
    covered, begin = {}, np.zeros_like(end)
    for (name, count), gap in zip(lengths.items(), [*gaps, 0], strict=True):
        covered[name] = Coverage(count, np.clip(end - begin, 0, count))
        begin += count + gap
    return covered


def _kind(position: int, template: Template) -> int:
    return template.second_type if position else 0


def _rows(fields: Mapping[str, Tokens]) -> int:
    return len(next(iter(fields.values())))


def _together(several: Sequence[Coverage]) -> Coverage:
    """That of several texts a row."""
    content, kept = (np.stack([getattr(each, name) for each in several]).sum(axis=0) for name in ("content", "kept"))
    return Coverage(content, kept)

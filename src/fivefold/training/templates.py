"""What stands around the content of an input, and how much content it may hold."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import tokenizers

from fivefold.errors import RecipeError
from fivefold.training.tokens import IndexArray, backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Template:
    """Ids around the fields of an input: prefix, field, middle, field, …, suffix.

    Parameters
    ----------
    prefix, middle, suffix
        Ids before the first field, between two fields and after the last; any may be empty.
    second_type
        Token type of the second field and all after it. A middle has the type of the field before it.
    gaps
        Ids between each field and the next, where they aren't the middle everywhere.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    second_type: int
    gaps: tuple[tuple[int, ...], ...] = ()

    def between(self, fields: int) -> tuple[tuple[int, ...], ...]:
        """The ids in each of the places between so many fields."""
        return self.gaps[: fields - 1] if self.gaps else (self.middle,) * (fields - 1)

    def overhead(self, fields: int) -> int:
        """How many ids an input of so many fields has besides its content."""
        return len(self.prefix) + sum(map(len, self.between(fields))) + len(self.suffix)


@dataclass(frozen=True)
class Truncation:
    """Which tokens of a long input are kept.

    Parameters
    ----------
    max_tokens
        Tokens of an input at most, those of the template and the lead included.
    method
        Which end of a field is kept.
    head_share
        head_tail: share of what is kept that is the head.
    field_tokens
        Field name to its content tokens at most; fields left out share what remains.
    """

    max_tokens: int
    method: Literal["head", "tail", "head_tail"] = "head"
    head_share: float = 0.5
    field_tokens: Mapping[str, int] = field(default_factory=dict)

    def kept(self, lengths: Mapping[str, IndexArray], overhead: int) -> dict[str, IndexArray]:
        """How many tokens each field keeps, (rows,) each, where the longest field is trimmed first.

        Raises
        ------
        RecipeError
            If max_tokens leaves no room for content.
        """
        room = room_of(self.max_tokens, overhead)
        capped = [name for name in lengths if name in self.field_tokens]
        free = [name for name in lengths if name not in self.field_tokens]
        wanted = {name: np.minimum(lengths[name], self.field_tokens[name]) for name in capped}
        given = _trimmed(wanted, np.full(_rows(lengths), room))
        left = room - sum(given.values(), start=np.zeros(_rows(lengths), dtype=np.int64))
        given |= _trimmed({name: lengths[name] for name in free}, left)
        return {name: given[name] for name in lengths}

    def heads(self, kept: IndexArray) -> IndexArray:
        """How many of the kept tokens are a field's first ones, (rows,); the others are its last ones."""
        if self.method == "head":
            return kept
        if self.method == "tail":
            return np.zeros_like(kept)
        share = np.rint(kept * self.head_share).astype(np.int64)
        return np.where(kept > 1, np.clip(share, 1, np.maximum(kept - 1, 1)), kept)


def room_of(tokens: int, overhead: int) -> int:
    """Tokens of content that an input of `tokens` holds.

    Raises
    ------
    RecipeError
        If there is none.
    """
    if tokens <= overhead:
        raise RecipeError(
            "An input leaves no room for text.",
            allowed=f"more than the {overhead} tokens of its separators, prompt and overlap",
            got=f"{tokens} tokens an input",
            next_step="raise model.max_tokens or model.window_tokens, or set model.fields to mean",
        )
    return tokens - overhead


def learn_template(tokenizer: PreTrainedTokenizerBase) -> Template:
    """What a tokenizer puts around one text and between two, read off what it makes of letters.

    A tokenizer that puts nothing between two texts gets a line break there, if it has one.

    Raises
    ------
    RecipeError
        If the tokenizer runs in Python only, or can't read a letter.
    """
    typed = "token_type_ids" in tokenizer.model_input_names
    return _learnt(backend(tokenizer).to_str(), tokenizer.name_or_path, typed)


@lru_cache(maxsize=4)
def _learnt(serialised: str, name: str, typed: bool) -> Template:
    probe = tokenizers.Tokenizer.from_str(serialised)
    probe.no_truncation()
    probe.no_padding()
    single, pair = probe.encode("a"), probe.encode("a", "b")
    if 0 not in single.sequence_ids or 1 not in pair.sequence_ids:
        raise RecipeError(
            f"The tokenizer of '{name}' makes no tokens of letters.",
            next_step="name a tokenizer with an unknown token or a whole alphabet",
        )
    first, last = _bounds(single, 0)
    middle = pair.ids[_bounds(pair, 0)[1] : _bounds(pair, 1)[0]]
    return Template(
        tuple(single.ids[:first]),
        tuple(middle or probe.encode("\n", add_special_tokens=False).ids),
        tuple(single.ids[last:]),
        pair.type_ids[_bounds(pair, 1)[0]] if typed else 0,
    )


def written_template(
    text: str, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> tuple[Template, tuple[str, ...]]:
    """A template in words, such as "Question: {question} Answer: {answer}", in the tokenizer's ids; and its fields.

    Special tokens that it spells, such as "<|im_end|>", are those tokens: who writes a template is trusted, as texts
    aren't. What the tokenizer itself puts around a text stays around it.

    Raises
    ------
    RecipeError
        If it can't be read, or doesn't name each of the fields `names` once.
    """
    parsed = _parsed(text)
    order = fields_named(text)
    if sorted(order) != sorted(names):
        raise RecipeError(
            "model.template must name each text column once.",
            allowed=" ".join(f"{{{name}}}" for name in names),
            got=" ".join(f"{{{name}}}" for name in order) or "none",
        )
    plain = learn_template(tokenizer)
    probe = tokenizers.Tokenizer.from_str(backend(tokenizer).to_str())
    probe.no_truncation()
    probe.no_padding()
    literals = _literals(parsed)
    first, *gaps, last = (tuple(probe.encode(each, add_special_tokens=False).ids) for each in literals)
    template = Template(plain.prefix + first, plain.middle, last + plain.suffix, plain.second_type, tuple(gaps))
    return template, order


def fields_named(text: str) -> tuple[str, ...]:
    """The fields of a template in words, in its order.

    Raises
    ------
    RecipeError
        If it can't be read.
    """
    return tuple(name for _, name, _, _ in _parsed(text) if name is not None)


def _parsed(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """Words, and the field after them, of which the last ones have none."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise RecipeError(
            "model.template can't be read.", got=str(error), next_step="write a brace that is no column as {{ or }}"
        ) from error
    if strange := [name for _, name, spec, conversion in parsed if spec or conversion]:
        raise RecipeError(
            f"model.template formats {strange[0]}, and columns are read as they are.",
            allowed=f"{{{strange[0]}}}",
            next_step="write a brace that is no column as {{ or }}",
        )
    return parsed


def _literals(parsed: Sequence[tuple[str, str | None, str | None, str | None]]) -> list[str]:
    """The words before each field and after the last, from what `string.Formatter` found."""
    literals = [""]
    for literal, name, _, _ in parsed:
        literals[-1] += literal
        if name is not None:
            literals.append("")
    return literals


def _bounds(encoding: tokenizers.Encoding, sequence: int) -> tuple[int, int]:
    """Where a sequence's tokens start and stop."""
    positions = [position for position, found in enumerate(encoding.sequence_ids) if found == sequence]
    return positions[0], positions[-1] + 1


def _rows(lengths: Mapping[str, IndexArray]) -> int:
    return len(next(iter(lengths.values())))


def _trimmed(wanted: Mapping[str, IndexArray], room: IndexArray) -> dict[str, IndexArray]:
    """The lengths closest to `wanted` that fit into `room` together, (rows,) each.

    All fields of a row are cut down to one common level, so the longest loses first; what doesn't divide evenly goes
    to the first of the fields that were cut.
    """
    if not wanted:
        return {}
    lengths = np.stack(list(wanted.values()), axis=1)  # (rows, fields)
    over = np.flatnonzero(lengths.sum(axis=1) > room)
    if len(over):
        lengths[over] = _levelled(lengths[over], room[over])
    return dict(zip(wanted, lengths.T, strict=True))


def _levelled(lengths: IndexArray, room: IndexArray) -> IndexArray:
    """Rows that are over their room, (rows, fields), cut to it."""
    fields = lengths.shape[1]
    ascending = np.sort(lengths, axis=1)
    below = np.cumsum(ascending, axis=1) - ascending
    levels = (room[:, None] - below) // np.arange(fields, 0, -1)
    # A level holds if the shortest field that it cuts is longer than it; the first such one cuts the most fields.
    first = np.argmax(levels < ascending, axis=1)[:, None]
    level = np.take_along_axis(levels, first, axis=1)
    kept = np.minimum(lengths, level)
    cut = lengths > level
    rest = room[:, None] - kept.sum(axis=1, keepdims=True)
    topped_up: IndexArray = kept + (cut & (np.cumsum(cut, axis=1) <= rest))
    return topped_up

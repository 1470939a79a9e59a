"""How a backbone reads the fields of a row: joined, alone or in windows, and which tokens it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fivefold.errors import RecipeError
from fivefold.models.backbones.architectures import PositionLimit
from fivefold.task import IntArray, Swap
from fivefold.training.cache import cache_folder
from fivefold.training.inputs import (
    NO_LEAD,
    Coverage,
    Inputs,
    Template,
    Truncation,
    fields_named,
    joined,
    learn_template,
    separate,
    separately_windowed,
    windowed,
    written_template,
)
from fivefold.training.tokens import Tokens, replaced, spans, starts_of, tokenise
from fivefold.training.words import shortened

Columns = Mapping[str, Sequence[str]]
"""Texts of rows by field."""

WORTH_KEEPING = 200_000
"""Characters of text from which on their ids are kept in the cache: below, they are read in a tenth of a second."""

Fields = Literal["joined", "max", "mean"]
Ends = Literal["head", "tail", "head_tail"]


@dataclass(frozen=True)
class Windows:
    """A long text in overlapping windows.

    Parameters
    ----------
    tokens, overlap
        Tokens of a window with its special ones, and content tokens that neighbours share.
    most
        Windows of a text at most; None: all.
    """

    tokens: int
    overlap: int
    most: int | None


@dataclass(frozen=True)
class Reading:
    """From the fields of rows to sequences; the parameters are keys of the recipe's section `model`.

    Parameters
    ----------
    max_tokens
        Tokens of a sequence at most; None: the backbone's limit.
    template
        Words around the fields, see `written_template`; None: the tokenizer's separators.
    field_words
        Field name to its words at most, which are cut before anything else.
    """

    fields: Fields
    max_tokens: int | None
    truncation: Ends
    head_share: float
    field_tokens: Mapping[str, int] = field(default_factory=dict)
    windows: Windows | None = None
    template: str | None = None
    field_words: Mapping[str, int] = field(default_factory=dict)

    def inputs(
        self, texts: Mapping[str, Sequence[str]], tokenizer: Any, limit: PositionLimit, lead: IntArray = NO_LEAD
    ) -> Inputs:
        """Sequences of all rows, each with the ids `lead` at its front: the slots of a prompt.

        Raises
        ------
        RecipeError
            If a key names a field that isn't there, has nothing to merge, or asks for more than the backbone reads.
        """
        self.check(list(texts), limit)
        template, order = self._template(tokenizer, tuple(texts))
        whole = {name: _tokenised(texts[name], tokenizer) for name in order}
        ends = Truncation(self.max_tokens or limit.tokens, self.truncation, self.head_share, self.field_tokens)
        tokens = {name: self._bounded(name, texts[name], whole[name], ends, tokenizer) for name in order}
        read = self._read(tokens, template, ends, lead)
        covered = {name: replace(each, content=whole[name].lengths) for name, each in read.fields.items()}
        return replace(read, fields=covered)

    def _bounded(self, name: str, texts: Sequence[str], whole: Tokens, ends: Truncation, tokenizer: Any) -> Tokens:
        """The ids of a field, without those of the words beyond its budget."""
        if name not in self.field_words:
            return whole
        most = self.field_words[name]
        first = int(ends.heads(np.array([most]))[0])
        short = {row: shortened(text, first, most - first) for row, text in enumerate(texts)}
        cut = {row: text for row, text in short.items() if text != texts[row]}
        if not cut:
            return whole
        return replaced(whole, np.array(list(cut), dtype=np.int64), _tokenised(list(cut.values()), tokenizer))

    def _read(self, tokens: Mapping[str, Tokens], template: Template, ends: Truncation, lead: IntArray) -> Inputs:
        """In windows, or cut to one sequence."""
        if self.windows is None:
            return (joined if self.fields == "joined" else separate)(tokens, template, ends, lead)
        read = windowed if self.fields == "joined" else separately_windowed
        cut = {name: trimmed(column, self.field_tokens.get(name)) for name, column in tokens.items()}
        return read(cut, template, self.windows.tokens, self.windows.overlap, self.windows.most, lead)

    def prefix(self, tokenizer: Any, lead: IntArray = NO_LEAD) -> tuple[int, ...]:
        """Ids that every sequence begins with, short of the last: with empty texts there may be nothing behind it."""
        names = () if self.template is None else fields_named(self.template)
        template, _ = self._template(tokenizer, names)
        return (*template.prefix, *lead.tolist())[:-1]

    def _template(self, tokenizer: Any, names: tuple[str, ...]) -> tuple[Template, tuple[str, ...]]:
        if self.template is None:
            return learn_template(tokenizer), names
        return written_template(self.template, tokenizer, names)

    def check(self, names: Sequence[str], limit: PositionLimit) -> None:
        """Refuse keys that these fields or the backbone's limit don't allow.

        Raises
        ------
        RecipeError
            As `inputs`.
        """
        if self.fields != "joined" and len(names) < 2:
            raise RecipeError(
                f"model.fields '{self.fields}' merges text columns, and there is one: {names[0]}.",
                next_step="leave model.fields out, or name several columns in data.text",
            )
        for key, budgets in (("field_tokens", self.field_tokens), ("field_words", self.field_words)):
            if strange := sorted(set(budgets) - set(names)):
                raise RecipeError(f"model.{key} names {strange}, which are no text columns.", allowed=", ".join(names))
        asked = self.windows.tokens if self.windows else self.max_tokens
        if asked is not None and limit.hard and asked > limit.tokens:
            key = "window_tokens" if self.windows else "max_tokens"
            raise RecipeError(
                f"model.{key} is {asked}, but the backbone reads {limit.tokens} tokens at most.",
                next_step="lower it, read in windows (model.windows: mean), or take a backbone for long texts",
            )


def cache_for(texts: Sequence[str]) -> Path | None:
    """Where the ids of these texts are kept; nowhere if reading them again takes no time."""
    return cache_folder() if sum(map(len, texts)) >= WORTH_KEEPING else None


def _tokenised(texts: Sequence[str], tokenizer: Any) -> Tokens:
    return tokenise(texts, tokenizer, cache_for(texts))


def trimmed(tokens: Tokens, most: int | None) -> Tokens:
    """The first `most` ids of each text; None: all."""
    if most is None:
        return tokens
    lengths = np.minimum(tokens.lengths, most)
    return Tokens(tokens.ids[spans(tokens.starts[:-1], lengths)], starts_of(lengths))


def read_both_ways(fields: Columns, swap: Swap | None) -> dict[str, list[str]]:
    """The fields as they are; with a swap every row a second time, after all others, with its fields exchanged."""
    if swap is None:
        return {name: list(texts) for name, texts in fields.items()}
    partner = {a: b for pair in swap.fields for a, b in (pair, pair[::-1])}
    return {name: [*texts, *fields[partner.get(name, name)]] for name, texts in fields.items()}


def truncation_remarks(inputs: Inputs, rows: int) -> tuple[str, ...]:
    """The share of text that no sequence holds, if any; of the first `rows`, as others are the same texts swapped."""
    whole = inputs.coverage.first(rows)
    if not whole.truncated:
        return ()
    shares = {name: each for name, each in _shortened(inputs, rows).items() if len(inputs.fields) > 1}
    by_field = "; ".join(f"{n}: {c.truncated / rows:.1%} of rows, {c.lost:.1%} of tokens" for n, c in shares.items())
    return (
        f"Truncated: {whole.truncated / rows:.1%} of the rows are longer than the model reads; "
        f"{whole.lost:.1%} of all tokens are left out{f' ({by_field})' if by_field else ''}.",
    )


def truncation_figures(inputs: Inputs, rows: int) -> dict[str, float]:
    """What `truncation_remarks` says, as shares by name; none where all is read."""
    several = _shortened(inputs, rows) if len(inputs.fields) > 1 else {}
    covered = {f" of {name}": each for name, each in several.items()}
    whole = inputs.coverage.first(rows)
    covered |= {"": whole} if whole.truncated else {}
    shares = {f"truncated_rows{name}": each.truncated / rows for name, each in covered.items()}
    return shares | {f"truncated_tokens{name}": each.lost for name, each in covered.items()}


def _shortened(inputs: Inputs, rows: int) -> dict[str, Coverage]:
    """The fields that lost tokens in the first rows."""
    covered = {name: each.first(rows) for name, each in inputs.fields.items()}
    return {name: each for name, each in covered.items() if each.truncated}

"""How an encoder reads the fields of a row: joined, alone or in windows, and which tokens it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fivefold.errors import RecipeError
from fivefold.models.backbones.architectures import PositionLimit
from fivefold.task import IntArray
from fivefold.training.cache import cache_folder
from fivefold.training.inputs import (
    NO_LEAD,
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
from fivefold.training.tokens import Tokens, spans, starts_of, tokenise

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
    """

    fields: Fields
    max_tokens: int | None
    truncation: Ends
    head_share: float
    field_tokens: Mapping[str, int] = field(default_factory=dict)
    windows: Windows | None = None
    template: str | None = None

    def inputs(
        self, texts: Mapping[str, Sequence[str]], tokenizer: Any, limit: PositionLimit, lead: IntArray = NO_LEAD
    ) -> Inputs:
        """Sequences of all rows, each with the ids `lead` at its front: the slots of a prompt.

        Raises
        ------
        RecipeError
            If a key names a field that isn't there, has nothing to merge, or asks for more than the backbone reads.
        """
        self._check(list(texts), limit)
        template, order = self._template(tokenizer, tuple(texts))
        tokens = {name: tokenise(texts[name], tokenizer, cache_for(texts[name])) for name in order}
        if self.windows is not None:
            read = windowed if self.fields == "joined" else separately_windowed
            cut = {name: trimmed(column, self.field_tokens.get(name)) for name, column in tokens.items()}
            return read(cut, template, self.windows.tokens, self.windows.overlap, self.windows.most, lead)
        kept = Truncation(self.max_tokens or limit.tokens, self.truncation, self.head_share, self.field_tokens)
        return (joined if self.fields == "joined" else separate)(tokens, template, kept, lead)

    def prefix(self, tokenizer: Any, lead: IntArray = NO_LEAD) -> tuple[int, ...]:
        """Ids that every sequence begins with, short of the last: with empty texts there may be nothing behind it."""
        names = () if self.template is None else fields_named(self.template)
        template, _ = self._template(tokenizer, names)
        return (*template.prefix, *lead.tolist())[:-1]

    def _template(self, tokenizer: Any, names: tuple[str, ...]) -> tuple[Template, tuple[str, ...]]:
        if self.template is None:
            return learn_template(tokenizer), names
        return written_template(self.template, tokenizer, names)

    def _check(self, names: Sequence[str], limit: PositionLimit) -> None:
        if self.fields != "joined" and len(names) < 2:
            raise RecipeError(
                f"model.fields '{self.fields}' merges text columns, and there is one: {names[0]}.",
                next_step="leave model.fields out, or name several columns in data.text",
            )
        if strange := sorted(set(self.field_tokens) - set(names)):
            raise RecipeError(
                f"model.field_tokens names {strange}, which are no text columns.", allowed=", ".join(names)
            )
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


def trimmed(tokens: Tokens, most: int | None) -> Tokens:
    """The first `most` ids of each text; None: all."""
    if most is None:
        return tokens
    lengths = np.minimum(tokens.lengths, most)
    return Tokens(tokens.ids[spans(tokens.starts[:-1], lengths)], starts_of(lengths))

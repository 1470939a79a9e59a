"""The two sides of a pair, each read alone: what both share, and the side's own fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fivefold.errors import RecipeError
from fivefold.models.backbones.architectures import PositionLimit
from fivefold.models.networks.reading import Reading
from fivefold.task import IntArray, Swap
from fivefold.training.inputs import Inputs, merged


def read_sides(
    reading: Reading,
    texts: Mapping[str, Sequence[str]],
    swap: Swap,
    tokenizer: Any,
    limit: PositionLimit,
    lead: IntArray,
) -> Inputs:
    """Two parts a row, the first side and the second; a template names the first side's fields for both.

    Raises
    ------
    RecipeError
        As `Reading.inputs`, or if the sides have other budgets, as swapping them would then change what is read.
    """
    reading.check(list(texts), limit)
    partner = dict(swap.fields)
    for key, budgets in (("field_tokens", reading.field_tokens), ("field_words", reading.field_words)):
        _check_alike(key, budgets, partner)
    seconds = set(partner.values())
    own = {name: name for name in texts if name not in seconds}
    others = {name: partner.get(name, name) for name in own}
    return merged([_read_side(reading, side, texts, tokenizer, limit, lead) for side in (own, others)])


def _read_side(
    reading: Reading,
    columns: Mapping[str, str],
    texts: Mapping[str, Sequence[str]],
    tokenizer: Any,
    limit: PositionLimit,
    lead: IntArray,
) -> Inputs:
    """One side; `columns` says which text column stands in the place of each field."""
    side = replace(
        reading,
        field_tokens={name: most for name, most in reading.field_tokens.items() if name in columns},
        field_words={name: most for name, most in reading.field_words.items() if name in columns},
    )
    inputs = side.inputs({name: texts[column] for name, column in columns.items()}, tokenizer, limit, lead)
    return replace(inputs, fields={columns[name]: covered for name, covered in inputs.fields.items()})


def _check_alike(key: str, budgets: Mapping[str, int], partner: Mapping[str, str]) -> None:
    uneven = [pair for pair in partner.items() if budgets.get(pair[0]) != budgets.get(pair[1])]
    if uneven:
        raise RecipeError(
            f"model.head 'reward' reads both sides alike, and model.{key} doesn't cut {' and '.join(uneven[0])} alike.",
            got=", ".join(f"{name}: {budgets.get(name, 'none')}" for name in uneven[0]),
            next_step="give both the same",
        )

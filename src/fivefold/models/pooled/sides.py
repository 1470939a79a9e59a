"""The two sides of a pair, each read alone: what both share, and the side's own fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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
        As `Reading.inputs`.
    """
    reading.check(list(texts), limit)
    partner = dict(swap.fields)
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

    def budgets(whole: Mapping[str, int]) -> dict[str, int]:
        return {name: whole[column] for name, column in columns.items() if column in whole}

    side = replace(reading, field_tokens=budgets(reading.field_tokens), field_words=budgets(reading.field_words))
    inputs = side.inputs({name: texts[column] for name, column in columns.items()}, tokenizer, limit, lead)
    return replace(inputs, fields={columns[name]: covered for name, covered in inputs.fields.items()})

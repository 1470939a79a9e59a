"""What every section of a recipe is: unknown keys are mistakes, values don't change once read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

LONGEST = 100
"""No n-gram is longer."""


class Settings(BaseModel):
    """A section of the recipe: unknown keys are mistakes, values don't change once read, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Choices(Settings):
    """A section where some keys decide whether others are read: a changed key that nothing reads is a mistake."""

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """What was chosen, to the keys that it doesn't read."""
        return {}

    @property
    def idle_keys(self) -> set[str]:
        """Keys that nothing reads as things are."""
        return {key for keys in self.idle.values() for key in keys}

    @model_validator(mode="after")
    def _nothing_idle(self) -> Choices:
        fields = type(self).model_fields
        for chosen, keys in self.idle.items():
            changed = [key for key in keys if getattr(self, key) != fields[key].default]
            if changed:
                raise ValueError(f"{chosen} doesn't use {', '.join(changed)}")
        return self


def _ordered(span: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= span[0] <= span[1] <= LONGEST:
        raise ValueError(f"must be [low, high] with 1 <= low <= high <= {LONGEST}")
    return span


Span = Annotated[tuple[int, int], AfterValidator(_ordered)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed)]
"""Columns; a single one needs no brackets."""

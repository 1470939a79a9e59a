"""Keys of the section `ensemble`: models of their own whose probabilities are mixed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from fivefold.recipe.models import ModelSettings
from fivefold.recipe.section import Settings
from fivefold.recipe.training import ObjectiveSettings, PretrainingSettings, TrainingSettings

READERS = {"training": ("feedforward", "encoder", "decoder", "generator"), "pretraining": ("encoder", "decoder")}
"""Families that read a section; those that aren't named here are read by all."""


class MemberSettings(Settings):
    """One model of an ensemble: sections that stand instead of the recipe's."""

    model: ModelSettings | None = Field(None, description="none: the recipe's")
    objective: ObjectiveSettings | None = Field(None, description="none: the recipe's")
    training: TrainingSettings | None = Field(None, description="none: the recipe's, if the family has one")
    pretraining: PretrainingSettings | None = Field(None, description="none: the recipe's, if the family has one")

    @model_validator(mode="before")
    @classmethod
    def _family(cls, value: object) -> object:
        """A section `model` that names no family is a linear one."""
        if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
            return value
        return {**value, "model": {"family": "linear"} | value["model"]}


class EnsembleSettings(Settings):
    """Which models are fitted and mixed."""

    members: dict[str, MemberSettings] = Field(
        description="name: sections model, objective, training, pretraining that stand instead of the recipe's"
    )

    @field_validator("members")
    @classmethod
    def _mixable(cls, members: dict[str, MemberSettings]) -> dict[str, MemberSettings]:
        if len(members) < 2:
            raise ValueError("an ensemble needs at least two members")
        strange = [name for name in members if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,63}", name, re.ASCII)]
        if strange:
            raise ValueError(f"names become folders: letters, digits, '_', '-' and '.' only, unlike {strange}")
        if len({name.lower() for name in members}) < len(members):
            raise ValueError("names must differ in more than capitals, as some file systems see none")
        return members


def member_sections(plain: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The plain recipe of a member: the ensemble's, with the member's `own` sections instead."""
    sections = {name: section for name, section in plain.items() if name != "ensemble"}
    sections |= {name: section for name, section in own.items() if section is not None}
    family = sections.get("model", {}).get("family", "linear")
    idle = [name for name, readers in READERS.items() if own.get(name) is None and family not in readers]
    return {name: section for name, section in sections.items() if name not in idle}


def reads(member: MemberSettings, section: str, family: str) -> bool:
    """Whether a member reads the recipe's own section; `family` is that of the recipe's own model."""
    if getattr(member, section) is not None:
        return False
    chosen = family if member.model is None else member.model.family
    return section not in READERS or chosen in READERS[section]

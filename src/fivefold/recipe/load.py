"""Read, check and write recipes: every mistake of a file and its overrides is reported together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from fivefold.errors import RecipeError
from fivefold.recipe.files import with_templates
from fivefold.recipe.presets import on_preset
from fivefold.recipe.settings import Recipe

INTERNAL_PARTS = ("function-", "constrained-", "literal[", "list[", "str", "float", "is-instance")
"""Parts of an error's location that name a Python type instead of a key."""

PLAIN_WORDS = {
    "dict_type": "should be a section with a line a name, such as {name: value}",
    "list_type": "should be a list",
    "missing": "is required",
    "string_type": "should be text",
}


def load_recipe(path: Path, overrides: Sequence[str] = (), *, preset: str | None = None) -> Recipe:
    """The recipe at `path` with `overrides`, each "key.of.recipe=value", the value read as YAML.

    A `preset`, one of `PRESETS`, lies under the recipe: see `build_recipe`.

    Raises
    ------
    RecipeError
        If the file can't be read as YAML, or with every problem it and the overrides have.
    """
    try:
        plain = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"There is no recipe at {path}.", next_step="fivefold init DATA writes one") from None
    except OSError as error:
        raise RecipeError(
            f"{path} can't be read.", allowed="a YAML file", got=error.strerror, next_step="check the path"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(
            f"{path} is not valid YAML.",
            got=" ".join(str(error).split()),
            next_step="mend that place; text with a colon, a bracket or a # needs quotes",
        ) from None
    if not isinstance(plain, dict):
        raise RecipeError(
            f"{path} is no recipe.",
            allowed="sections data, task, folds, model, …",
            got=repr(plain)[:60],
            next_step="fivefold init DATA writes one",
        )
    return build_recipe(plain, overrides, str(path), preset=preset, folder=path.parent)


def build_recipe(
    plain: Mapping[str, Any],
    overrides: Sequence[str] = (),
    origin: str = "the recipe",
    *,
    preset: str | None = None,
    folder: Path = Path(),
) -> Recipe:
    """The recipe that a plain mapping describes, on top of a preset if one is named, with `overrides` on top of both.

    Templates that it names by a file are read from `folder`, and stand in the recipe from then on.

    Raises
    ------
    RecipeError
        With every problem found, each naming its key.
    """
    merged, problems = _merge(plain if preset is None else on_preset(plain, preset), overrides)
    problems += with_templates(merged, folder)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        problems += _sentences(error.errors())
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise RecipeError(f"{count[0].upper()}{count[1:]} in {origin}:\n{lines}", next_step="mend and run again")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with every default written out that is read."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json", exclude=set(recipe.unread)), sort_keys=False, allow_unicode=True, width=120
    )


def _merge(plain: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    merged: dict[str, Any] = deepcopy(dict(plain))
    problems: list[str] = []
    for key, values in _grouped(overrides, problems).items():
        *sections, last = key.split(".")
        place: Any = merged
        for section in sections:
            if isinstance(place, dict) and place.get(section) is None:
                place[section] = {}
            place = place[section] if isinstance(place, dict) else None
        if not isinstance(place, dict):
            problems.append(f"--set {key}: '{'.'.join(sections)}' has no keys of its own")
        else:
            place[last] = values[0] if len(values) == 1 else values
    return merged, problems


def _grouped(overrides: Sequence[str], problems: list[str]) -> dict[str, list[Any]]:
    """Values by key; a key set several times collects a list, so that files can be named one by one."""
    grouped: dict[str, list[Any]] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problems.append(f"--set takes key=value, got '{override}'")
            continue
        try:
            grouped.setdefault(key.strip(), []).append(yaml.safe_load(value))
        except yaml.YAMLError:
            grouped.setdefault(key.strip(), []).append(value)
    return grouped


def _sentences(problems: Sequence[Any]) -> list[str]:
    """A sentence a key; what a key's alternatives each want is joined by "or"."""
    wants: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for problem in problems:
        place = _place(problem["loc"])
        if problem["type"] == "union_tag_invalid":
            place = _Place((*place.keys, problem["ctx"]["discriminator"].strip("'")), place.known)
        key = ".".join(place.keys)
        if problem["type"] == "extra_forbidden":
            wants[key] = [f"no such key{_suggestion(place)}"]
            continue
        wants.setdefault(key, []).append(_want(problem, place))
        got[key] = _got(problem)
    return [f"{key}{': ' if key else ''}{', or '.join(want)}{got.get(key, '')}" for key, want in wants.items()]


def _want(problem: Any, place: _Place) -> str:
    """What a key wants, in the house's words where pydantic speaks of Python."""
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"should be a section, with keys such as {' and '.join(place.known[:2])}"
    if problem["type"] == "union_tag_invalid":
        return f"should be one of {problem['ctx']['expected_tags']}"
    if problem["type"] in PLAIN_WORDS:
        return PLAIN_WORDS[problem["type"]]
    message: str = problem["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _got(problem: Any) -> str:
    value = problem["input"]
    if problem["type"] == "union_tag_invalid":
        return f". Got {problem['ctx']['tag']!r}"
    if isinstance(value, BaseModel) or (isinstance(value, dict) and problem["type"] != "string_type"):
        return ""
    if problem["type"] != "string_type" or isinstance(value, list | dict | None):
        return f". Got {value!r}"
    why = " (YAML takes yes, no, on and off for true and false)" if isinstance(value, bool) else ""
    return f". Got {value!r}{why}: write it in quotes"


def _suggestion(place: _Place) -> str:
    near = difflib.get_close_matches(place.keys[-1], place.known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; allowed: {', '.join(place.known)}"


@dataclass(frozen=True)
class _Place:
    """Where an error is, in keys as a user writes them, and the keys that the innermost section knows."""

    keys: tuple[str, ...]
    known: tuple[str, ...]


def _place(location: Sequence[str | int]) -> _Place:
    """A location without the names of Python types and without the family that stands for a section's class."""
    keys: list[str] = []
    sections: list[type[BaseModel]] = [Recipe]
    named = False
    for part in map(str, location):
        if named:  # below a mapping stands a name of the user's; then what the mapping holds
            keys.append(part)
            named = False
        elif len(sections) > 1:
            sections = [section for section in sections if _tag(section) == part]
        elif not part.startswith(INTERNAL_PARTS):
            keys.append(part)
            field = sections[0].model_fields.get(part) if sections else None
            if field is not None:
                sections, named = sections_of(field.annotation), get_origin(field.annotation) is dict
    known = dict.fromkeys(name for section in sections for name in section.model_fields)
    return _Place(tuple(keys), tuple(known))


def _tag(section: type[BaseModel]) -> str | None:
    """The family that a class of a section is chosen by."""
    family = section.model_fields.get("family")
    return None if family is None else str(get_args(family.annotation)[0])


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The settings that a key of this type may hold: several where a family chooses, none where it is a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_of(part)]

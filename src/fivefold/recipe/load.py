"""Read, check and write recipes: every mistake of a file and its overrides is reported together."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fivefold.errors import RecipeError
from fivefold.recipe.settings import Recipe

INTERNAL_PARTS = ("function-", "constrained-", "literal[", "list[", "str", "float", "is-instance")
"""Parts of an error's location that name a Python type instead of a key."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` with `overrides`, each "key.of.recipe=value", the value read as YAML.

    Raises
    ------
    RecipeError
        If the file can't be read as YAML, or with every problem it and the overrides have.
    """
    try:
        plain = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"There is no recipe at {path}.", next_step="fivefold init DATA writes one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML.", got=str(error).replace("\n", " ")) from None
    if not isinstance(plain, dict):
        raise RecipeError(f"{path} is no recipe.", allowed="sections data, task, folds, model, …", got=repr(plain)[:60])
    return build_recipe(plain, overrides, str(path))


def build_recipe(plain: Mapping[str, Any], overrides: Sequence[str] = (), origin: str = "the recipe") -> Recipe:
    """The recipe that a plain mapping describes, with `overrides`.

    Raises
    ------
    RecipeError
        With every problem found, each naming its key.
    """
    merged, problems = _merge(plain, overrides)
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
    """The recipe as YAML, with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _merge(plain: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    merged: dict[str, Any] = {key: dict(v) if isinstance(v, Mapping) else v for key, v in plain.items()}
    problems: list[str] = []
    for key, values in _grouped(overrides, problems).items():
        *sections, last = key.split(".")
        place: Any = merged
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
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
        location = [part for part in map(str, problem["loc"]) if not part.startswith(INTERNAL_PARTS)]
        key = ".".join(location) or "recipe"
        if problem["type"] == "extra_forbidden":
            wants[key] = [f"no such key{_suggestion(location)}"]
            continue
        message = problem["msg"].removeprefix("Value error, ")
        wants.setdefault(key, []).append(message[0].lower() + message[1:])
        got[key] = "" if isinstance(problem["input"], dict) else f". Got {problem['input']!r}"
    return [f"{key}: {', or '.join(want)}{got.get(key, '')}" for key, want in wants.items()]


def _suggestion(location: Sequence[str]) -> str:
    known = list(_keys_at(location[:-1]))
    near = difflib.get_close_matches(location[-1], known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; allowed: {', '.join(known)}"


def _keys_at(location: Sequence[str]) -> Iterator[str]:
    section: type[BaseModel] = Recipe
    for part in location:
        inner = section.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return
        section = inner
    yield from section.model_fields

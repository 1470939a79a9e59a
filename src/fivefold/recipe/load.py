"""Read, check and write recipes: every mistake of a file and its overrides is reported together."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fivefold.errors import RecipeError
from fivefold.recipe.settings import Recipe

INTERNAL_PARTS = ("function-", "constrained-", "literal[", "list[", "str", "float", "is-instance")
"""Parts of an error's location that name a Python type instead of a key."""

PLAIN_WORDS = {
    "dict_type": "should be a section with a line a name, such as {name: value}",
    "list_type": "should be a list",
    "missing": "is required",
    "string_type": "should be text",
}


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
    merged: dict[str, Any] = deepcopy(dict(plain))
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
        key = ".".join(location)
        if problem["type"] == "extra_forbidden":
            wants[key] = [f"no such key{_suggestion(location)}"]
            continue
        wants.setdefault(key, []).append(_want(problem, location))
        got[key] = _got(problem)
    return [f"{key}{': ' if key else ''}{', or '.join(want)}{got.get(key, '')}" for key, want in wants.items()]


def _want(problem: Any, location: Sequence[str]) -> str:
    """What a key wants, in the house's words where pydantic speaks of Python."""
    if problem["type"] == "model_type":
        return f"should be a section, with keys such as {' and '.join(list(_keys_at(location))[:2])}"
    if problem["type"] in PLAIN_WORDS:
        return PLAIN_WORDS[problem["type"]]
    message: str = problem["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _got(problem: Any) -> str:
    value = problem["input"]
    if isinstance(value, BaseModel) or (isinstance(value, dict) and problem["type"] != "string_type"):
        return ""
    if problem["type"] != "string_type" or isinstance(value, list | dict | None):
        return f". Got {value!r}"
    why = " (YAML takes yes, no, on and off for true and false)" if isinstance(value, bool) else ""
    return f". Got {value!r}{why}: write it in quotes"


def _suggestion(location: Sequence[str]) -> str:
    known = list(_keys_at(location[:-1]))
    near = difflib.get_close_matches(location[-1], known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; allowed: {', '.join(known)}"


def _keys_at(location: Sequence[str]) -> Iterator[str]:
    section: type[BaseModel] = Recipe
    for part in location:
        annotation = section.model_fields[part].annotation
        kinds = (annotation, *get_args(annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            return
        section = inner
    yield from section.model_fields

"""Templates that a recipe names by a file: read once, so that the recipe of a run is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def with_templates(plain: dict[str, Any], folder: Path) -> list[str]:
    """Put the files that `model.prompts` names into a plain recipe; what can't be read is told, a sentence each."""
    problems = []
    for key, prompts in _prompts(plain):
        for place, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or "{" in prompt:
                continue
            try:
                prompts[place] = (folder / prompt).read_text("utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else "it isn't text in UTF-8"
                problems.append(
                    f"{key}: {folder / prompt} can't be read ({why}); a template is a file beside the recipe, or words "
                    "that name the text columns in braces"
                )
    return problems


def _prompts(plain: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The lists of prompts of a plain recipe and of the members of its ensemble, and the keys that name them."""
    ensemble = plain.get("ensemble")
    members = ensemble.get("members") if isinstance(ensemble, dict) else None
    sections = (
        {f"ensemble.members.{name}.": each for name, each in members.items()} if isinstance(members, dict) else {}
    )
    for prefix, section in {"": plain, **sections}.items():
        model = section.get("model") if isinstance(section, dict) else None
        prompts = model.get("prompts") if isinstance(model, dict) else None
        if isinstance(prompts, list):
            yield f"{prefix}model.prompts", prompts

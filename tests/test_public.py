"""What others may rely on, and the order of the house."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import fivefold
from tests.conftest import ROOT

SOURCE = ROOT / "src/fivefold"
README = (ROOT / "README.md").read_text("utf-8")
FILES = sorted(path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
ROOMS = sorted({str(path.parent.relative_to(SOURCE)) for path in SOURCE.rglob("*/__init__.py")} - {"."})
ENTRANCES = sorted(path.name for path in SOURCE.glob("*.py") if path.name != "__init__.py")

FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc"}


def test_public_names_are_sorted_and_resolve() -> None:
    assert fivefold.__all__ == sorted(fivefold.__all__)
    assert all(getattr(fivefold, name) is not None for name in fivefold.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fivefold.nothing


def house_map() -> str:
    """The README's map of the house."""
    return README.split("## Map of the house")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", [*(f"{room}/" for room in ROOMS), *ENTRANCES])
def test_the_map_names_every_room(name: str) -> None:
    assert f"`{name}`" in house_map()


@pytest.mark.parametrize("room", ROOMS)
def test_the_map_names_every_file_of_a_room(room: str) -> None:
    line = next(line for line in house_map().splitlines() if f"`{room}/`" in line)
    files = [path.stem for path in (SOURCE / room).iterdir() if path.suffix in (".py", "") and path.stem[0] != "_"]
    files = [name for name in files if f"{room}/{name}" not in ROOMS]
    assert [name for name in files if not re.search(rf"\b{name}\b", line)] == []


def test_the_map_follows_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [
        layer.removeprefix("fivefold.") for layer in next(c for c in contracts if c["type"] == "layers")["layers"]
    ]
    named = re.findall(r"^\| `(\w+)(?:\.py|/)`", house_map(), re.MULTILINE)
    assert named == layers[::-1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_a_room_with_one_job(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    assert path.stem not in FORBIDDEN_NAMES
    assert not re.search(r"\bTODO\b|\bFIXME\b|NotImplementedError", text)


def test_recipes_that_are_named_exist_and_load() -> None:
    from fivefold.recipe import load_recipe

    pages = "\n".join(page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = set(re.findall(r"\brecipes/[\w/-]+\.yaml", pages))
    assert {"recipes/demo.yaml", "recipes/emotions/linear.yaml", "recipes/products/linear.yaml"} <= named
    for name in named:
        load_recipe(ROOT / name)


def test_every_recipe_is_named_in_the_readme() -> None:
    for path in (ROOT / "recipes").rglob("*.yaml"):
        assert str(path.relative_to(ROOT)) in README, path

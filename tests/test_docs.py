"""Everything that README.md and docs/ tell a reader to type is typed here.

A page is run from top to bottom in an empty folder: ```bash commands, ```console commands whose answer must
be the one shown ("..." stands for anything, decimals may differ by .02), ```python, and ```yaml recipes, which
are kept as a file where their first line is a comment with its name. `python -m tests.test_docs` writes the
generated parts again: docs/cli.md and the tables of docs/recipes.md.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import shlex
import shutil
import subprocess
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import fivefold
from fivefold.cli import _parser, main
from fivefold.recipe import Recipe, build_recipe
from fivefold.recipe.load import sections_of
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

DECIMALS = 0.02
"""How far a figure may be from the one shown: other processors round otherwise."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it starts on."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)


def makefile_targets() -> dict[str, list[str]]:
    """Target to the commands of its recipe."""
    targets: dict[str, list[str]] = {}
    for line in (ROOT / "Makefile").read_text("utf-8").splitlines():
        if match := re.match(r"([\w.-]+):(?!=)", line):
            current = targets.setdefault(match[1], [])
        elif line.startswith("\t"):
            current.append(line.strip())
    return targets


def run_fivefold(command: str) -> tuple[int, str]:
    """Exit code, and what is printed on both channels."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = main(shlex.split(command, comments=True)[1:])
        except SystemExit as end:  # argparse, after --help
            code = int(end.code or 0)
    return code, printed.getvalue()


def run_command(command: str) -> tuple[int, str]:
    program, *_ = shlex.split(command, comments=True)
    if program == "make":
        return 0, ""
    if program == "fivefold":
        return run_fivefold(command)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def commands(block: Block) -> list[tuple[str, str]]:
    """Each command with the answer shown, "" where none is."""
    if block.language == "bash":
        lines = block.text.replace("\\\n", " ").splitlines()
        return [(line, "") for line in lines if line.strip() and not line.startswith(("#", "pip ", "git "))]
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def differs(shown: str, printed: str) -> bool:
    """Whether an answer is not the one shown, "..." and small differences of figures aside."""
    words = [re.escape(part).replace(r"\.\.\.", ".*?") for part in NUMBER.split(shown.strip())]
    match = re.fullmatch(f"({NUMBER.pattern})".join(words), printed.strip(), re.DOTALL)
    if match is None:
        return True
    pairs = zip(NUMBER.findall(shown), match.groups(), strict=True)
    return any(abs(figure(a) - figure(b)) > DECIMALS for a, b in pairs)


def figure(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        place = f"{page.name}, line {block.line}"
        if block.language in ("bash", "console"):
            for command, shown in commands(block):
                code, printed = run_command(command)
                assert code == (2 if "fivefold: " in shown else 0), f"{place}: {command}\n{printed}"
                assert not (shown and differs(shown, printed)), f"{place}: {command}\n{printed}"
        elif block.language == "python":
            exec(compile(block.text, place, "exec"), names)
        elif block.language == "yaml":
            build_recipe(yaml.safe_load(block.text), origin=place)
            if name := re.match(r"# (\S+\.yaml)\n", block.text):
                (tmp_path / name[1]).write_text(block.text, "utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    named = set(re.findall(r"`make (\w+)`", page.read_text("utf-8")))
    named |= {name for block in blocks(page) for name in re.findall(r"^make (\w+)", block.text, re.MULTILINE)}
    assert named <= makefile_targets().keys()


def test_make_demo_is_the_command_whose_transcript_is_shown() -> None:
    step = next(step for step in makefile_targets()["demo"] if step.startswith("$(BIN)/fivefold "))
    assert f"$ {step.removeprefix('$(BIN)/')}\n" in (ROOT / "README.md").read_text("utf-8")


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text("utf-8")
    assert {page.name for page in PAGES[1:] if page.name != "index.md"} <= set(re.findall(r"\((\S+\.md)\)", index))


def test_the_command_line_is_described() -> None:
    assert cli_page() == (ROOT / "docs/cli.md").read_text("utf-8"), "run python -m tests.test_docs"


def test_every_key_of_a_recipe_is_described() -> None:
    page = (ROOT / "docs/recipes.md").read_text("utf-8")
    assert recipes_page(page) == page, "run python -m tests.test_docs"
    assert set(re.findall(r"^<!-- keys: ([^>]+) -->$", page, re.MULTILINE)) == {"recipe", *tables()}
    meanings = [line.split(" | ")[-1].strip(" |") for line in page.splitlines() if line.startswith("| `")]
    assert all(meanings), "a key without a meaning"


@pytest.mark.parametrize("module", [found.name for found in pkgutil.walk_packages(fivefold.__path__, "fivefold.")])
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


COMMANDS_START, COMMANDS_END = "<!-- commands -->\n", "<!-- end -->\n"


def cli_page() -> str:
    """docs/cli.md with its middle part drawn from the parser."""
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    before, rest = page.split(COMMANDS_START)
    after = rest.split(COMMANDS_END)[1]
    verbs = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help for choice in verbs._choices_actions}
    parts = [verb_section(name, str(helps[name]), parser) for name, parser in verbs.choices.items()]
    return before + COMMANDS_START + "\n".join(parts) + COMMANDS_END + after


def verb_section(name: str, meaning: str, parser: argparse.ArgumentParser) -> str:
    """Heading, meaning and a line an argument."""
    actions = [action for action in parser._actions if action.dest != "help"]
    lines = [f"| {argument_name(a)} | {argument_meaning(a)} |" for a in actions]
    heading = [f"## fivefold {name}", "", meaning[0].upper() + meaning[1:] + ".", ""]
    return "\n".join([*heading, "| argument | meaning |", "|---|---|", *lines, ""])


def argument_name(action: argparse.Action) -> str:
    named = str(action.metavar or (action.dest if action.choices else action.dest.upper()))
    if not action.option_strings:
        return f"`[{named}]`" if action.nargs == "?" else f"`{named}`"
    return f"`{action.option_strings[-1]}`" if action.nargs == 0 else f"`{action.option_strings[-1]} {named}`"


def argument_meaning(action: argparse.Action) -> str:
    default = action.default not in (None, False, [])
    parts = [
        str(action.help or ""),
        "one of " + ", ".join(f"`{choice}`" for choice in action.choices) if action.choices else "",
        f"default `{action.default}`" if default else "",
        "required" if action.required and action.option_strings else "",
    ]
    return "; ".join(part for part in parts if part)


def recipes_page(page: str) -> str:
    """docs/recipes.md with tables drawn from the settings."""
    return re.sub(
        r"<!-- keys: ([^>]+) -->\n.*?<!-- end -->",
        lambda match: f"<!-- keys: {match[1]} -->\n{key_table(match[1])}<!-- end -->",
        page,
        flags=re.DOTALL,
    )


def key_table(name: str) -> str:
    """One section's keys, those of its own sections below it."""
    if name == "recipe":
        lines = list(key_lines("", {n: f for n, f in Recipe.model_fields.items() if not sections_of(f.annotation)}))
    else:
        section = name.partition(" ")[0]
        lines = list(key_lines(f"{section}.", tables()[name].model_fields))
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *lines, ""])


def tables() -> dict[str, type[BaseModel]]:
    """What has a table of its own: a section, or "section (family)" where a family says what it holds."""
    found: dict[str, type[BaseModel]] = {}
    for name, info in Recipe.model_fields.items():
        sections = sections_of(info.annotation)
        for section in sections:
            found[name if len(sections) == 1 else f"{name} ({family_of(section)})"] = section
    return found


def family_of(section: type[BaseModel]) -> str:
    """The family whose keys a class holds."""
    return str(typing.get_args(section.model_fields["family"].annotation)[0])


def key_lines(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[str]:
    for name, info in fields.items():
        key = prefix + name
        meaning = (info.description or "").replace("|", "\\|")
        yield f"| `{key}` | {type_name(info.annotation)} | {default_of(info)} | {meaning} |"
        for inner in sections_of(info.annotation):
            if not any(issubclass(table, inner) for table in tables().values()):
                yield from key_lines(f"{key}.", inner.model_fields)


def type_name(annotation: Any) -> str:
    """A type as a user of YAML says it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (list, tuple):
        inner = " and ".join(dict.fromkeys(type_name(part) for part in arguments if part is not Ellipsis))
        return f"{'list' if origin is list else 'pair'} of {inner}"
    if origin is dict:
        return f"{type_name(arguments[0])}: {type_name(arguments[1])}"
    if arguments:
        return " or ".join(type_name(part) for part in arguments)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any"}
    return names.get(annotation, "section")


def default_of(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if isinstance(info.default, BaseModel):
        return "its defaults"
    return f"`{yaml.safe_dump(info.default, default_flow_style=True).splitlines()[0]}`"


def test_answers_are_compared_up_to_figures() -> None:
    assert not differs("a 0.5010 ...\nend, 3 rows", "a 0.5123 and more\nend, 3 rows\n")
    assert differs("3 rows", "4 rows")
    assert differs("a 0.5", "a 0.6")
    assert differs("one", "two")


if __name__ == "__main__":
    (ROOT / "docs/cli.md").write_text(cli_page(), "utf-8")
    recipes = ROOT / "docs/recipes.md"
    recipes.write_text(recipes_page(recipes.read_text("utf-8")), "utf-8")

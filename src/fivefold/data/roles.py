"""Columns whose role is told by name or by how they read: id, group, weight, fold and text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import polars as pl

from fivefold.data.columns import as_number, listing
from fivefold.data.implications import parents
from fivefold.data.profile import Profile

ALWAYS_TEXT = ("text", "text_a", "text_b", "prompt", "response_a", "response_b", "context", "description", "sentence")
LABEL_NAMES = ("winner", "label", "labels")
OFTEN_TEXT = ("title", "question", "answer", "body", "content", "document", "review", "comment", "message", "summary")

UNUSED = {
    "empty": "no cell is filled",
    "constant": "the same in every row",
    "flag": "0/1; could be a label: name it in task.binary if so",
    "number": "numbers; name it in data.text to show it to the model, or in task.categorical if they are classes",
    "list": "lists of labels, {}; name it in task.label_list to use it instead",
    "names": "{}; could be a label: name it in task.categorical if so",
    "prose": "free text, {}; name it in data.text to use it",
    "other": "neither text nor label",
}


@dataclass
class Roles:
    """Columns that are still free, and a sentence for every decision so far.

    Parameters
    ----------
    columns
        What every column looks like, in the order of the file.
    test_columns
        Columns of the table to predict, if one is known.
    """

    columns: dict[str, Profile]
    test_columns: frozenset[str] = frozenset()
    free: dict[str, Profile] = field(init=False)
    sentences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = dict(self.columns)

    def named(self, convention: str) -> str | None:
        """The free column of this name, letter case aside; the exact one first."""
        alike = [name for name in self.free if name.lower() == convention]
        return convention if convention in alike else next(iter(alike), None)

    def where(self, condition: Callable[[Profile], bool]) -> list[str]:
        """The free columns that look so."""
        return [name for name, column in self.free.items() if condition(column)]

    def take(self, names: Iterable[str], *sentences: str) -> None:
        """Give columns a role, and say why."""
        for name in names:
            self.free.pop(name, None)
        self.sentences.extend(sentences)

    def say_unused(self) -> None:
        """A sentence for every column that is still free."""
        for name, column in self.free.items():
            self.sentences.append(f"Not used: '{name}' ({UNUSED[column.kind].format(column.describe())}).")


def take_role(role: str, roles: Roles, frame: pl.DataFrame) -> str | None:
    """The column that is named as its role (id, group, weight or fold), if its cells allow it."""
    name = roles.named(role) or (_id_like(roles) if role == "id" else None)
    if name is None:
        return None
    if role == "group" and _is_level(name, roles, frame):
        roles.sentences.append(f"The column '{name}' is a level between others, so it is a label; folds ignore it.")
        return None
    values = as_number(frame[name])
    if role == "weight" and (values.has_nulls() or bool((values < 0).any())):
        roles.sentences.append(
            f"The column '{name}' is named as the weight but isn't all numbers from 0; it isn't used."
        )
        return None
    if role == "fold" and roles.columns[name].kind == "prose":
        return None
    roles.take([name], f"{role.capitalize()}: the column '{name}'.")
    return name


def take_named_text(roles: Roles) -> list[str]:
    """Text columns by their conventional names, in the order of the file."""
    sure = roles.where(lambda c: c.name.lower() in ALWAYS_TEXT and c.kind not in ("number", "flag", "empty"))
    likely = roles.where(lambda c: c.name.lower() in OFTEN_TEXT and c.kind == "prose")
    found = [name for name in roles.free if name in {*sure, *likely}]
    if found:
        roles.take(found, f"Text: {listing(found)}, by name.")
    return found


def take_prose(roles: Roles) -> list[str]:
    """Columns that read like free text; those of single words only if there are no others."""
    found = roles.where(lambda c: c.kind == "prose" and c.words >= 3) or roles.where(lambda c: c.kind == "prose")
    if found:
        figures = "; ".join(roles.columns[name].describe() for name in found)
        roles.take(found, f"Text: {listing(found)}, as they read like free text ({figures}).")
    return found


def _is_level(name: str, roles: Roles, frame: pl.DataFrame) -> bool:
    """Whether a column lies within a hierarchy: it decides another column, and a third one decides it."""
    if any(roles.named(convention) for convention in LABEL_NAMES):
        return False
    links = [link for link in parents(frame, roles.where(lambda c: c.kind == "names")) if link.holds]
    return any(link.child == name for link in links) and any(link.parent == name for link in links)


def _id_like(roles: Roles) -> str | None:
    unique = roles.where(lambda c: c.filled == c.distinct > 1 and c.kind in ("prose", "number") and c.words <= 1)
    return next((name for name in unique if re.search(r"(^|_)(id|uuid|guid)$", name.lower())), None)

"""Label columns found by name, or by how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from fivefold.data.columns import as_number, listing
from fivefold.data.labels import improbable
from fivefold.data.profile import Profile
from fivefold.data.roles import LABEL_NAMES, Roles
from fivefold.errors import DataError, LabelError

RATING_NAMES = ("rating", "score", "stars")
GRADES = 10
"""A rating of at most so many values is a class; more are a measurement."""

WINNER_FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")


@dataclass
class LabelColumns:
    """Label columns by kind; `winner` holds the three columns that say who won."""

    binaries: list[str] = field(default_factory=list)
    categoricals: list[str] = field(default_factory=list)
    label_list: str | None = None
    winner: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there is a label at all."""
        return bool(self.binaries or self.categoricals or self.label_list)


def find_labels(roles: Roles, frame: pl.DataFrame) -> LabelColumns:
    """Columns named as labels; without any, all free columns that look like labels."""
    flags = [name for name in map(roles.named, WINNER_FLAGS) if name]
    if len(flags) == len(WINNER_FLAGS) and not roles.named("winner"):
        return given_labels(flags, roles, frame)
    named = [name for name in map(roles.named, LABEL_NAMES) if name]
    if named:
        return given_labels(named, roles, frame)
    names = _candidates(roles, frame)
    kinds = {name: roles.columns[name].kind for name in names}
    found = LabelColumns()
    soft = _by_target([name for name in names if "=" in name and _is_numeric(roles.columns[name], frame)])
    for parts in soft.values():
        _refuse_improbable(parts, frame)
    _take_soft(soft, roles, frame, found)
    _take_flags([name for name in names if kinds[name] == "flag" and name in roles.free], roles, found)
    _take_lists([name for name in names if kinds[name] == "list"], roles, found)
    for name in names:
        if kinds[name] == "names" or _is_rating(roles.columns[name], frame):
            _take_categorical(name, roles, frame, found)
    return found


def _candidates(roles: Roles, frame: pl.DataFrame) -> list[str]:
    """Columns that could be labels; of these, what a table to predict has too is given and not asked for."""
    names = roles.where(lambda c: c.kind in ("flag", "list", "names") or "=" in c.name or _is_rating(c, frame))
    asked = [name for name in names if name not in roles.test_columns]
    given = [name for name in names if name in roles.test_columns]
    if asked and given:
        why = "as the table to predict has them too; name them in data.text to show them to the model"
        roles.sentences.append(f"No labels: {listing(given)}, {why}.")
    return asked or names


def given_labels(names: Sequence[str], roles: Roles, frame: pl.DataFrame) -> LabelColumns:
    """Labels whose columns are known; their cells say what kind each is.

    Raises
    ------
    DataError
        If a column can't be a target.
    """
    found = LabelColumns()
    flags = [name for name in names if name.lower() in WINNER_FLAGS]
    if len(flags) == len(WINNER_FLAGS):
        found.winner, found.categoricals = flags, ["winner"]
        roles.take(flags, f"Labels: {listing(flags)} say who won; they become one target 'winner' of a, b, tie.")
    by_target = _by_target([name for name in names if "=" in name])
    for parts in by_target.values():
        if not all(_is_binary(roles.columns[name], frame) or _is_whole(frame[name]) for name in parts):
            _refuse_improbable(parts, frame)
    soft = _take_soft(by_target, roles, frame, found)
    rest = [name for name in names if name not in {*found.winner, *soft}]
    binaries = [name for name in rest if _is_binary(roles.columns[name], frame)]
    _take_flags(binaries, roles, found)
    lists = [name for name in rest if roles.columns[name].kind == "list"]
    _take_lists(lists, roles, found)
    taken = {*binaries, *lists}
    for name in rest:
        if name not in taken:
            _take_categorical(name, roles, frame, found)
    return found


def _is_binary(column: Profile, frame: pl.DataFrame) -> bool:
    """0/1, or probabilities of it."""
    if column.kind == "number" and column.distinct > 1:
        return bool(as_number(frame[column.name]).is_between(0, 1).all())
    return column.kind == "flag"


def _take_categorical(name: str, roles: Roles, frame: pl.DataFrame, found: LabelColumns) -> None:
    column = roles.columns[name]
    problem = _unfit(column, frame)
    if problem:
        raise DataError(
            f"The label column '{name}' can't be a target.",
            allowed="0/1, names of classes, or lists of labels",
            got=problem,
            next_step="name other columns in the recipe's task section",
        )
    doubt = "; so many distinct values are odd for classes" if column.share > 0.5 and column.filled > 20 else ""
    roles.take([name], f"Label: '{name}', a categorical ({column.describe()}{doubt}).")
    found.categoricals.append(name)


def _unfit(column: Profile, frame: pl.DataFrame) -> str | None:
    """Why a column can't hold classes."""
    if column.kind == "number":
        return None if _is_whole(frame[column.name]) else "numbers that aren't whole"
    return {"empty": "no filled cell", "constant": "one class only", "other": "objects or dates"}.get(column.kind)


def _is_numeric(column: Profile, frame: pl.DataFrame) -> bool:
    """Whether every filled cell is a number, be it the same in all rows."""
    constant = column.kind == "constant" and not as_number(frame[column.name].drop_nulls()).has_nulls()
    return constant or column.kind in ("number", "flag")


def _is_whole(column: pl.Series) -> bool:
    return bool((as_number(column) % 1 == 0).all())


def _is_rating(column: Profile, frame: pl.DataFrame) -> bool:
    """Few whole numbers under a name that says they are a grade."""
    named = column.name.lower() in RATING_NAMES and column.kind == "number"
    return named and 1 < column.distinct <= GRADES and _is_whole(frame[column.name])


def _take_flags(names: list[str], roles: Roles, found: LabelColumns) -> None:
    if names:
        roles.take(names, f"Labels: {len(names)} binary ({listing(names)}), as their cells are 0/1 or yes/no.")
        found.binaries.extend(names)


def _by_target(names: list[str]) -> dict[str, list[str]]:
    """Target to its columns `target=class`, where there are several."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.split("=")[0], []).append(name)
    return {target: columns for target, columns in parts.items() if len(columns) > 1}


def _refuse_improbable(columns: list[str], frame: pl.DataFrame) -> None:
    problem = improbable(frame, columns)
    if problem:
        raise LabelError(
            f"The columns {listing(columns)} are named as the probabilities of classes but hold none.",
            allowed="numbers from 0, and a sum of 1 in each row that isn't empty",
            got=problem,
            next_step="mend these rows (counted from 0), or name other columns in the recipe's task section",
        )


def _take_soft(soft: dict[str, list[str]], roles: Roles, frame: pl.DataFrame, found: LabelColumns) -> list[str]:
    """Columns `name=class` that hold probabilities are one categorical; those taken."""
    taken: list[str] = []
    for target, parts in soft.items():
        if all(bool(as_number(frame[name]).is_between(0, 1).all()) for name in parts):
            roles.take(parts, f"Label: '{target}', a categorical given as probabilities ({listing(parts)}).")
            found.categoricals.append(target)
            taken += parts
    return taken


def _take_lists(names: list[str], roles: Roles, found: LabelColumns) -> None:
    if not names:
        return
    best = min(names, key=lambda name: roles.columns[name].distinct)
    column = roles.columns[best]
    how = {"list": "lists", "json": "JSON lists"}.get(column.spelling, f"joined by '{column.spelling}'")
    empty = " An empty cell means no label." if how.startswith("joined") else ""
    doubt = f" Chosen among {listing(names)} for the fewest labels." if len(names) > 1 else ""
    roles.take([best], f"Labels: '{best}' lists the labels of a row ({column.distinct} labels, {how}).{empty}{doubt}")
    found.label_list = best

"""What the columns of a table are for, told from their names and cells, with a sentence for every decision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import polars as pl

from fivefold.data.columns import as_class_names, listing, require_columns
from fivefold.data.implications import longest_chain, parents
from fivefold.data.label_columns import LabelColumns, find_labels, given_labels
from fivefold.data.layout import OUTCOMES
from fivefold.data.profile import profile
from fivefold.data.roles import Roles, take_named_text, take_prose, take_role
from fivefold.errors import DataError
from fivefold.task import Swap


@dataclass(frozen=True)
class Inferred:
    """What the columns of a table are for.

    Parameters
    ----------
    text
        Text columns, in the order of the file.
    id, group, weight, fold
        Columns with these roles, or None.
    binaries
        0/1 columns, one label each.
    categoricals
        Columns of classes; "winner" stands here also where it is written as three 0/1 columns.
    label_list
        A column that lists the labels present, or None.
    winner
        The three 0/1 columns that say who won, or ().
    tree
        Categoricals that decide one another, root first, or ().
    swap
        The text fields that trade places with the classes of `winner`, or None.
    unused
        Columns without a role.
    sentences
        Every decision and doubt, to be printed.
    """

    text: tuple[str, ...]
    id: str | None
    group: str | None
    weight: str | None
    fold: str | None
    binaries: tuple[str, ...]
    categoricals: tuple[str, ...]
    label_list: str | None
    winner: tuple[str, ...]
    tree: tuple[str, ...]
    swap: Swap | None
    unused: tuple[str, ...]
    sentences: tuple[str, ...]


def infer(
    frame: pl.DataFrame,
    *,
    text: Sequence[str] = (),
    id: str | None = None,  # noqa: A002
    group: str | None = None,
    weight: str | None = None,
    fold: str | None = None,
    labels: Sequence[str] | None = None,
    test_columns: Sequence[str] = (),
) -> Inferred:
    """The role of every column; what is given is taken as it is, without a sentence.

    Parameters
    ----------
    labels
        Columns that are labels; None: find them, (): there are none (unlabelled text).
    test_columns
        Columns of the table to predict, if there is one: what it holds is not taken for a label,
        unless it holds all of them.

    Raises
    ------
    DataError
        If a given column doesn't exist or can't be a label, nothing can be text or label, or columns
        `name=class` hold no probabilities.
    """
    given = {"id": id, "group": group, "weight": weight, "fold": fold}
    named = {role: [name] for role, name in given.items() if name is not None}
    for role, names in {**named, "text": text, "a label": labels or ()}.items():
        require_columns(frame, names, role)
    roles = Roles({name: profile(frame[name]) for name in frame.columns}, frozenset(test_columns))
    roles.take([*text, *(labels or ()), *(name for names in named.values() for name in names)])
    taken = {role: name or take_role(role, roles, frame) for role, name in given.items()}
    texts = text or take_named_text(roles)
    found = find_labels(roles, frame) if labels is None else given_labels(labels, roles, frame)
    texts = texts or take_prose(roles)
    if (labels is None and not found.any) or not texts:
        raise _nothing(roles, "label" if texts else "text")
    tree, swap = _tree(found.categoricals, frame, roles), _swap(texts, found, frame, roles)
    roles.say_unused()
    return Inferred(
        text=tuple(texts),
        **taken,
        binaries=tuple(found.binaries),
        categoricals=tuple(found.categoricals),
        label_list=found.label_list,
        winner=tuple(found.winner),
        tree=tree,
        swap=swap,
        unused=tuple(roles.free),
        sentences=tuple(roles.sentences),
    )


def _tree(names: Sequence[str], frame: pl.DataFrame, roles: Roles) -> tuple[str, ...]:
    present = frozenset(frame.columns)
    links = parents(frame, [name for name in names if name in present])
    tree = longest_chain(links)
    steps = [link for link in links if (link.parent, link.child) in pairwise(tree)]
    if tree:
        figures = "; ".join(
            f"'{s.child}' decides '{s.parent}' in {s.share:.1%} of rows, {s.straying} of {s.classes} classes stray"
            for s in steps
        )
        roles.sentences.append(f"Tree: {' > '.join(tree)} ({figures}).")
    return tree


def _swap(text: Sequence[str], found: LabelColumns, frame: pl.DataFrame, roles: Roles) -> Swap | None:
    target = next((name for name in found.categoricals if name.lower() == "winner"), None)
    partners = {
        name: re.sub("[aA]$", lambda end: OTHER_SIDE[end[0]], name) for name in text if name[-2:] in ("_a", "_A")
    }
    pairs = tuple((name, partner) for name, partner in partners.items() if partner in text)
    if target is None or not pairs:
        return None
    classes = (
        as_class_names(frame[target]).drop_nulls().unique().sort().to_list() if target in frame.columns else OUTCOMES
    )
    moves = {name: _mirrored(name) for name in classes if _mirrored(name) in classes and _mirrored(name) != name}
    fields = ", ".join(f"'{first}' and '{second}'" for first, second in pairs)
    if not moves:
        why = f"but the classes {listing(classes)} don't say how; write task.swap if they do"
        roles.sentences.append(f"Swap: {fields} could trade places, {why}.")
        return None
    roles.sentences.append(f"Swap: {fields} trade places, and with them {' and '.join(map(repr, sorted(moves)))}.")
    return Swap(pairs, target, moves)


OTHER_SIDE = {"a": "b", "b": "a", "A": "B", "B": "A"}


def _mirrored(name: str) -> str:
    """The class with a and b exchanged where they stand alone: model_a gives model_b."""
    return re.sub(r"(?<![A-Za-z])[abAB](?![A-Za-z])", lambda match: OTHER_SIDE[match[0]], name)


def _nothing(roles: Roles, what: str) -> DataError:
    keys = {
        "text": "data.text: [COLUMN]",
        "label": "task.binary: [COLUMN], task.categorical: [COLUMN] or task.label_list: COLUMN",
    }
    looks = [f"'{name}': {column.kind}, {column.describe()}" for name, column in list(roles.columns.items())[:30]]
    return DataError(
        f"No column can be taken as {what}.", got="; ".join(looks), next_step=f"write in the recipe: {keys[what]}"
    )

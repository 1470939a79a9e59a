"""Rows into folds: plain, stratified, multi-label stratified or grouped, the same for the same seed.

Folds depend on the seed, the labels, the groups and the order of the rows; not on the type that ids,
labels or groups are held in. Reordered rows get other folds: save folds and reuse them by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.data.dealing import BoolArray, deal_groups, deal_strata
from fivefold.data.fold_sentences import ALWAYS_TRAINING, fold_sentences, listed
from fivefold.data.folds import Folds, given_folds, load_folds, save_folds
from fivefold.data.groups import merge_groups, number_groups
from fivefold.errors import DataError
from fivefold.task import Binary, IntArray, Labels, Target

__all__ = [
    "ALWAYS_TRAINING",
    "METHODS",
    "Folds",
    "given_folds",
    "load_folds",
    "merge_groups",
    "number_groups",
    "save_folds",
    "split",
]

METHODS = ("auto", "plain", "stratified", "multilabel", "grouped", "stratified_grouped")

FEW_CLASSES = 50
"""A categorical of at most so many classes is balanced class by class beside other labels."""

CELLS = 30_000_000
"""Most rows x columns to balance; 28,000 x 500 take a second on one Zen 4 core."""


@dataclass(frozen=True)
class Indicators:
    """What folds are balanced on: bool (rows, columns), and what was left out, a sentence each."""

    columns: BoolArray
    sentences: tuple[str, ...] = ()


def split(
    labels: Labels | None,
    rows: int,
    *,
    count: int = 5,
    method: str = "auto",
    seed: int = 0,
    groups: Sequence[Any] | npt.NDArray[Any] | None = None,
    always_training: npt.NDArray[Any] | None = None,
    only: int | None = None,
) -> Folds:
    """Give every row the fold that holds it out.

    Parameters
    ----------
    labels
        Labels of the rows, or None to balance nothing but sizes.
    rows
        How many rows there are.
    count
        How many folds.
    method
        - plain: sizes only, which differ by one row at most.
        - stratified: the only target, the tree level by level, or else the categorical of the
          fewest classes; each class differs by one row at most.
        - multilabel: every binary and every categorical of few classes.
        - grouped: groups whole, sizes as even as they allow.
        - stratified_grouped: groups whole, labels balanced as well as they allow.
        - auto: stratified_grouped with groups; else stratified for one target or no binary, and
          multilabel for more; without labels, grouped or plain.

        Groups are never cut: with them, plain means grouped, and stratified and multilabel mean
        stratified_grouped.
    seed
        Seed of every draw.
    groups
        Values, (rows,): rows of one value stay together, rows without one (null, "", negative) are
        on their own. See `merge_groups` for several reasons to stay together.
    always_training
        bool (rows,): extra rows that no fold holds out.
    only
        Evaluate this fold alone (hold-out).

    Raises
    ------
    DataError
        If there are fewer than two folds, fewer rows or groups than folds, lengths that differ, or
        a method that needs labels, groups or a categorical that aren't there.
    """
    extra = np.zeros(rows, dtype=bool) if always_training is None else np.asarray(always_training, dtype=bool)
    numbers = None if groups is None else number_groups(groups)
    _check_lengths(rows, labels, numbers, extra)
    free = np.flatnonzero(~extra)
    used = _method_used(method, labels, numbers)
    _check_count(count, len(free), None if numbers is None else len(np.unique(numbers[free])))
    part = None if labels is None else labels.take(free)
    generator = np.random.default_rng(seed)
    dealt, sentences = _deal(used, part, None if numbers is None else numbers[free], len(free), count, generator)
    fold = np.full(rows, ALWAYS_TRAINING, dtype=np.int32)
    fold[free] = dealt
    return Folds(fold, count, used, seed, (*sentences, *fold_sentences(fold, count, labels, numbers)), only)


def _deal(
    method: str,
    labels: Labels | None,
    groups: IntArray | None,
    rows: int,
    count: int,
    generator: np.random.Generator,
) -> tuple[IntArray, tuple[str, ...]]:
    """Folds of the rows that take part, (rows,), and what to say about them."""
    if groups is None and method == "plain":
        return deal_strata(np.zeros((rows, 1), dtype=np.int32), count, generator), ()
    if labels is not None and method == "stratified":
        return deal_strata(_strata(labels), count, generator), ()
    alone = np.arange(rows, dtype=np.int32)
    numbers = alone if groups is None else number_groups(groups)
    if labels is None or method == "grouped":
        balance = Indicators(np.zeros((rows, 0), dtype=bool))
    else:
        balance = _indicators(labels)
    said = (*balance.sentences, *_large_group_sentences(numbers, count))
    return deal_groups(numbers, balance.columns, count, generator), said


def _indicators(labels: Labels) -> Indicators:
    """The columns to balance: binaries and categoricals of few classes, the most frequent if there are too many."""
    wide = [t for t in labels.task.categoricals if t.width > FEW_CLASSES]
    kept = [t for t in labels.task.targets if t not in wide] or [_coarsest(labels)]
    columns = np.concatenate([_one_hot(labels, target) for target in kept], axis=1)
    left_out = [target.name for target in wide if target not in kept]
    said = [f"Folds aren't balanced on categoricals of many classes: {listed(left_out)}."] if left_out else []
    most = CELLS // max(len(labels), 1)
    if columns.shape[1] > most:
        said.append(f"Folds are balanced on the {most} most frequent of {columns.shape[1]} labels, for memory's sake.")
        columns = columns[:, np.sort(np.argsort(-columns.sum(axis=0), kind="stable")[:most])]
    return Indicators(columns, tuple(said))


def _one_hot(labels: Labels, target: Target) -> BoolArray:
    codes = labels.column(target.name)[:, None]
    hot: BoolArray = codes == (np.array([1]) if isinstance(target, Binary) else np.arange(target.width))
    return hot


def _strata(labels: Labels) -> IntArray:
    """Codes of the levels of the tree, or of the coarsest target; (rows, levels)."""
    tree = labels.task.tree
    names = (_coarsest(labels).name,) if tree is None else tree.levels
    return np.stack([labels.column(name) for name in names], axis=1)


def _coarsest(labels: Labels) -> Target:
    """The only target, the root of the tree, or the categorical of the fewest classes."""
    task = labels.task
    if len(task.targets) == 1:
        return task.targets[0]
    if task.tree is not None:
        return task.target(task.tree.levels[0])
    if not task.categoricals:
        raise DataError(
            "Stratified folds need one label column.",
            allowed="a task with a categorical, or with a single binary",
            got=f"{len(task.binaries)} binaries",
            next_step="set folds.method to multilabel or auto",
        )
    return min(task.categoricals, key=lambda target: target.width)


def _method_used(method: str, labels: Labels | None, groups: IntArray | None) -> str:
    """The method that is meant, never "auto"."""
    if method not in METHODS:
        raise DataError(
            "The method of the folds isn't known.",
            allowed=", ".join(METHODS),
            got=method,
            next_step="set folds.method to one of them",
        )
    if labels is None and method in ("stratified", "multilabel", "stratified_grouped"):
        raise DataError(f"The method {method} needs labels.", next_step="use plain, grouped or auto")
    if groups is None and method in ("grouped", "stratified_grouped"):
        raise DataError(f"The method {method} needs groups.", next_step="name a group column, or use auto")
    if groups is not None:
        return "grouped" if labels is None or method in ("plain", "grouped") else "stratified_grouped"
    if method != "auto":
        return method
    if labels is None:
        return "plain"
    return "multilabel" if labels.task.binaries and len(labels.task.targets) > 1 else "stratified"


def _check_lengths(rows: int, labels: Labels | None, groups: IntArray | None, extra: BoolArray) -> None:
    sizes = {"labels": labels, "groups": groups, "always_training": extra}
    wrong = [f"{name} of {len(part)} rows" for name, part in sizes.items() if part is not None and len(part) != rows]
    if wrong:
        raise DataError(
            "What folds are made from must be of the same rows.",
            allowed=f"{rows}",
            got="; ".join(wrong),
            next_step="give one value a row",
        )


def _check_count(count: int, rows: int, groups: int | None) -> None:
    if count < 2:
        raise DataError(
            "There must be at least two folds.",
            allowed="2 or more",
            got=str(count),
            next_step="set folds.count, such as 5",
        )
    units, size = ("rows", rows) if groups is None else ("groups", groups)
    if size < count:
        raise DataError(
            f"There are fewer {units} to hold out than folds.",
            allowed=f"at least {count} {units}, or at most {size} folds",
            got=f"{size} {units} and {count} folds",
            next_step="lower folds.count, or bring more data",
        )


def _large_group_sentences(groups: IntArray, count: int) -> tuple[str, ...]:
    largest = int(np.bincount(groups).max())
    if largest * count <= 1.2 * len(groups):
        return ()
    share = f"{largest / len(groups):.0%}"
    return (f"The largest group has {share} of the rows, more than a fold should, so folds are uneven.",)

"""What the user should hear about folds: rare labels, one-class training rows, groups that leak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fivefold.task import MISSING, IntArray, Labels

ALWAYS_TRAINING = -1

NAMED = 5
"""A sentence names so many labels and counts the rest."""


def fold_sentences(fold: IntArray, count: int, labels: Labels | None, groups: IntArray | None) -> tuple[str, ...]:
    """What to say aloud about folds: labels too rare for them, one-class training rows, groups that leak.

    Parameters
    ----------
    fold
        int32 (rows,), -1 for always in training.
    groups
        Group numbers, (rows,), or None.
    """
    said = [] if groups is None else _group_sentences(fold, groups)
    if labels is not None:
        tables = {t.name: _table(fold, labels.codes[:, i], count) for i, t in enumerate(labels.task.targets)}
        said += _rare_sentences(tables, labels, count)
        said += [sentence for name, table in tables.items() for sentence in _one_class_sentences(name, table, labels)]
    return tuple(said)


def listed(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _table(fold: IntArray, codes: IntArray, count: int) -> npt.NDArray[np.int64]:
    """Rows by fold and class, (count + 1, classes); the last line is the rows always in training."""
    seen = codes != MISSING
    width = max(int(codes.max(initial=0)) + 1, 2)
    place = np.where(fold == ALWAYS_TRAINING, count, fold)[seen].astype(np.int64) * width + codes[seen]
    return np.bincount(place, minlength=(count + 1) * width).reshape(count + 1, width)


def _rare_sentences(tables: dict[str, npt.NDArray[np.int64]], labels: Labels, count: int) -> list[str]:
    rare = []
    for target in labels.task.targets:
        rows = tables[target.name][:-1].sum(axis=0).tolist()
        rows += [0] * (len(target.classes) - len(rows))
        # A binary owns one column, its positives; a categorical one a class.
        sizes = zip(target.columns, rows[-target.width :], strict=True)
        rare += [f"{column} ({size})" for column, size in sizes if size < count]
    if not rare:
        return []
    return [f"Fewer rows than the {count} folds, so some folds can't be evaluated on them: {listed(rare)}."]


def _one_class_sentences(name: str, table: npt.NDArray[np.int64], labels: Labels) -> list[str]:
    classes = labels.task.target(name).classes
    training = table.sum(axis=0) - table[:-1]
    alone = np.flatnonzero((training > 0).sum(axis=1) == 1)
    return [
        f"In the training rows of fold {fold}, '{name}' is always '{classes[int(training[fold].argmax())]}': "
        "nothing can be learned about it there."
        for fold in alone.tolist()
    ]


def _group_sentences(fold: IntArray, groups: IntArray) -> list[str]:
    held = fold != ALWAYS_TRAINING
    leaking = int(np.isin(groups[~held], groups[held]).sum())
    pairs = np.unique(np.stack([groups[held], fold[held]]), axis=1)
    cut = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    said = [f"Groups that lie in more than one fold: {cut}; scores are too good."] if cut else []
    if leaking:
        said.append(
            f"Rows always in training that share a group with rows held out: {leaking}; "
            "scores are too good: leave them out of the extra rows."
        )
    return said

"""Findings on labels: missing, rare, constant, implied by others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import polars as pl

from fivefold.data.columns import as_class_names, counted, listing
from fivefold.data.findings import Finding, Severity, shown
from fivefold.data.implications import implications, parents
from fivefold.task import MISSING, Binary, Categorical, Labels, Target, Task

IMBALANCE = 100
"""From so many rows of the most frequent class for one of the rarest, the imbalance is said."""


def label_findings(frame: pl.DataFrame, labels: Labels, folds: int) -> Iterator[Finding]:
    """What the labels of a table show.

    Parameters
    ----------
    folds
        Classes with fewer rows can't be in every fold.
    """
    for target in labels.task.targets:
        yield from _target_findings(target, labels, folds)
    yield from _binary_findings(labels, folds)
    yield from _implied(labels)
    yield from _parents(frame, labels.task)


def unknown_findings(test_frame: pl.DataFrame, task: Task) -> Iterator[Finding]:
    """Classes of a test table that the task doesn't have."""
    for target in task.categoricals:
        if target.name not in test_frame.columns or test_frame[target.name].dtype.is_nested():
            continue
        names = as_class_names(test_frame[target.name]).drop_nulls()
        counts = names.filter(~names.is_in(list(target.classes))).value_counts(sort=True)
        if counts.height:
            rows = int(counts["count"].sum())
            classes = f"{counted(counts.height, 'class')} ({counted(rows, 'row')})"
            message = f"'{target.name}': {classes} of the test table not in training; they can't be predicted."
            examples = shown([f"{name} ({counted(count, 'row')})" for name, count in counts.head(5).rows()])
            yield Finding("warning", "unknown_test_labels", message, rows, examples)


def _target_findings(target: Target, labels: Labels, folds: int) -> Iterator[Finding]:
    codes = labels.column(target.name)
    known = codes[codes != MISSING]
    missing = len(codes) - len(known)
    if missing:
        severity: Severity = "warning" if len(known) else "error"
        message = f"'{target.name}' is missing in {missing} of {len(codes)} rows; these don't count for it."
        yield Finding(severity, "missing_labels", message, missing)
    if len(np.unique(known)) == 1:
        value = target.classes[known[0]]
        message = f"'{target.name}' is {value!r} in every row, so nothing can be learnt; take it out of the task."
        yield Finding("warning", "constant_label", message, len(known))
    elif isinstance(target, Categorical) and len(known):
        yield from _class_findings(target, np.bincount(known, minlength=target.width), folds)


def _class_findings(
    target: Categorical, counts: np.ndarray[tuple[int], np.dtype[np.intp]], folds: int
) -> Iterator[Finding]:
    """Rare classes, imbalance, and names that differ only in case or spaces."""
    rare = np.flatnonzero(counts < folds)
    if len(rare):
        message = f"'{target.name}': {len(rare)} of {target.width} classes have fewer than {folds} rows, one a fold."
        rarest = sorted(rare.tolist(), key=lambda i: counts[i])
        examples = shown([f"{target.classes[i]} ({counted(int(counts[i]), 'row')})" for i in rarest])
        yield Finding("warning", "rare_classes", message, len(rare), examples)
    seen = counts[counts > 0]
    figures = {"classes": float(target.width), "most": float(seen.max()), "fewest": float(seen.min())}
    top = target.classes[int(counts.argmax())]
    message = f"'{target.name}': {target.width} classes, {seen.min()} to {seen.max()} rows; most frequent {top!r}."
    severity: Severity = "warning" if seen.max() >= IMBALANCE * seen.min() else "note"
    yield Finding(severity, "balance", message, target.width, figures=figures)
    plain = Counter(" ".join(name.lower().split()) for name in target.classes)
    twins = [name for name in target.classes if plain[" ".join(name.lower().split())] > 1]
    if twins:
        message = f"'{target.name}': {len(twins)} class names differ only in letter case or spaces; make them one."
        yield Finding("warning", "similar_classes", message, len(twins), shown([repr(name) for name in sorted(twins)]))


def _binary_findings(labels: Labels, folds: int) -> Iterator[Finding]:
    """Balance of all binaries together, and those with fewer rows than folds."""
    if not labels.task.binaries:
        return
    positive, known = (labels.binary_codes == 1).sum(axis=0), (labels.binary_codes != MISSING).sum(axis=0)
    names = [target.name for target in labels.task.binaries]
    fewer = np.minimum(positive, known - positive)
    rare = [i for i in np.argsort(fewer, kind="stable").tolist() if 0 < fewer[i] < folds]
    if rare:
        message = f"{len(rare)} of {len(names)} binaries have fewer than {folds} rows on one side, one a fold."
        examples = shown([f"{names[i]} ({positive[i]} of {known[i]})" for i in rare])
        yield Finding("warning", "rare_classes", message, len(rare), examples)
    rates = positive / np.maximum(known, 1)
    low, high = int(rates.argmin()), int(rates.argmax())
    per_row = float((labels.binary_codes == 1).sum(axis=1).mean())
    none = int((labels.binary_codes == 0).all(axis=1).sum())
    message = (
        f"{len(names)} binaries: {per_row:.2f} labels a row, none in {none} rows; "
        f"'{names[low]}' in {rates[low]:.1%} to '{names[high]}' in {rates[high]:.1%}."
    )
    figures = {"labels_a_row": per_row, "rows_without": float(none), "rarest": float(rates[low])}
    yield Finding("note", "balance", message, len(names), figures=figures)


def _implied(labels: Labels) -> Iterator[Finding]:
    names = [target.name for target in labels.task.targets if isinstance(target, Binary)]
    found = implications(labels.binary_codes, names) if len(names) > 1 else []
    if found:
        message = f"{counted(len(found), 'pair')} of binaries where rows with the first have the second too."
        examples = shown([f"{pair.first} -> {pair.second} ({pair.share:.1%} of {pair.rows} rows)" for pair in found])
        yield Finding("note", "implied_labels", message, len(found), examples)


def _parents(frame: pl.DataFrame, task: Task) -> Iterator[Finding]:
    names = [target.name for target in task.categoricals if target.name in frame.columns]
    held = [link for link in parents(frame, names) if link.holds]
    told = [
        f"{link.child} -> {link.parent}: {link.share:.1%} of rows, {link.straying} of {link.classes} classes "
        "under several parents"
        for link in held
    ]
    if told and task.tree is None:
        message = f"Categoricals decide one another; task.tree would make predictions consistent: {listing(names)}."
        yield Finding("note", "tree", message, len(told), shown(told, 160))
    elif any(link.straying for link in held):
        strays = sum(link.straying for link in held)
        yield Finding(
            "note", "tree", f"The tree has {counted(strays, 'class')} under several parents.", strays, shown(told, 160)
        )

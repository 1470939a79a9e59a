"""A check of the data before anything is trained: all findings in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from fivefold.data.columns import as_text, counted, require_columns
from fivefold.data.corpus import field_texts
from fivefold.data.findings import CheckReport, Finding, report, shown
from fivefold.data.groups import number_groups
from fivefold.data.label_findings import label_findings, unknown_findings
from fivefold.data.labels import read_labels
from fivefold.data.text_findings import duplicate_findings, leak_findings, text_findings
from fivefold.errors import LabelError
from fivefold.task import Labels, Task


def check(
    frame: pl.DataFrame,
    *,
    text: Sequence[str],
    task: Task | None = None,
    id: str | None = None,  # noqa: A002
    group: str | None = None,
    test_frame: pl.DataFrame | None = None,
    folds: int = 5,
    threshold: float = 0.8,
    seed: int = 0,
) -> CheckReport:
    """Everything worth knowing of a table before training on it; findings are told, never raised.

    Parameters
    ----------
    frame
        A training table with one column a target (`normalise` makes it so).
    text, id, group
        Its text columns, and those that name a row and what must stay together.
    test_frame
        A table to predict, checked for texts and classes in common with the training table.
    folds
        Classes with fewer rows are told.
    threshold, seed
        Jaccard similarity of near duplicates, and the seed of the search for them.

    Raises
    ------
    DataError
        If a named column doesn't exist, or can't be read as text or groups.
    """
    require_columns(frame, text, "text")
    fields = {name: field_texts(frame[name]) for name in text}
    joined = _joined(fields)
    labels, findings = _labels(frame, task)
    for name, texts in fields.items():
        findings.extend(text_findings(name, texts))
    findings.extend(_id_findings(frame, id))
    groups = None if group is None else _groups(frame, group)
    codes = None if labels is None else labels.codes
    findings.extend(duplicate_findings(joined, codes, threshold, seed, groups))
    if labels is not None:
        findings.extend(label_findings(frame, labels, folds))
    if test_frame is not None:
        findings.extend(_test_findings(joined, text, test_frame, task, threshold, seed))
    return report(frame.height, findings)


def _joined(fields: dict[str, list[str]]) -> list[str]:
    """All text of each row, (rows,)."""
    columns = list(fields.values())
    return columns[0] if len(columns) == 1 else ["\n".join(parts) for parts in zip(*columns, strict=True)]


def _labels(frame: pl.DataFrame, task: Task | None) -> tuple[Labels | None, list[Finding]]:
    if task is None:
        return None, []
    try:
        return read_labels(frame, task), []
    except LabelError as error:
        return None, [Finding("error", "labels", str(error))]


def _id_findings(frame: pl.DataFrame, column: str | None) -> Iterator[Finding]:
    if column is None:
        return
    require_columns(frame, [column], "id")
    ids = as_text(frame[column])
    if ids.null_count():
        yield Finding(
            "error", "missing_ids", f"'{column}' is empty in {counted(ids.null_count(), 'row')}.", ids.null_count()
        )
    repeated = ids.drop_nulls().filter(ids.drop_nulls().is_duplicated())
    if repeated.len():
        message = (
            f"'{column}' repeats {counted(repeated.n_unique(), 'id')}, in {repeated.len()} rows; make them unique."
        )
        examples = shown(repeated.unique(maintain_order=True).head(5).to_list())
        yield Finding("error", "duplicate_ids", message, repeated.len(), examples)


def _groups(frame: pl.DataFrame, column: str) -> list[int]:
    """Group numbers, (rows,)."""
    require_columns(frame, [column], "group")
    return list(number_groups(frame[column]))


def _test_findings(
    joined: Sequence[str], text: Sequence[str], test_frame: pl.DataFrame, task: Task | None, threshold: float, seed: int
) -> Iterator[Finding]:
    require_columns(test_frame, text, "text (in the test table)")
    others = _joined({name: field_texts(test_frame[name]) for name in text})
    yield from leak_findings(joined, others, threshold, seed)
    if task is not None:
        yield from unknown_findings(test_frame, task)

"""Label columns of a table to `Labels`, and back: one column a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.columns import as_class_names, as_flag, as_number, counted, listing, nearest, require_columns
from fivefold.errors import LabelError
from fivefold.task import MISSING, Binary, Categorical, FloatArray, IntArray, Labels, Swap, Target, Task, learn_tree

TOLERANCE = 1e-3
"""Probabilities of a soft row may miss 1 by this much."""

EXAMPLES = 5


@overload
def read_labels(frame: pl.DataFrame, task: Task) -> Labels: ...
@overload
def read_labels(frame: pl.DataFrame, task: Task, *, required: Literal[True]) -> Labels: ...
@overload
def read_labels(frame: pl.DataFrame, task: Task, *, required: bool) -> Labels | None: ...
def read_labels(frame: pl.DataFrame, task: Task, *, required: bool = True) -> Labels | None:
    """The labels of a table whose columns are the task's targets.

    A binary's cell is 0/1, true/false, yes/no, a probability, or missing. A categorical's is the name of
    a class or missing; columns `name=class` give probabilities, and where they are filled they go
    before the column `name`.

    Returns
    -------
    Labels of the rows; None where no label cell is filled and none is required.

    Raises
    ------
    LabelError
        If label columns are absent, or cells don't fit: every conflict of every target in one message.
    """
    names = frozenset(frame.columns)
    found = {target.name: _columns_of(names, target) for target in task.targets}
    if not required and not any(_filled(frame[name]).any() for columns in found.values() for name in columns):
        return None
    absent = [name for name, columns in found.items() if not columns]
    if absent:
        raise _absent(absent, frame)
    plain = _plain_flags(frame, [target.name for target in task.binaries])
    read = [plain.get(target.name) or _read_target(frame, names, target) for target in task.targets]
    problems = [problem for column in read for problem in column.problems]
    if problems:
        raise LabelError(
            "Labels don't fit the task:\n" + "\n".join(f"  - {problem}" for problem in problems),
            next_step="mend these cells (rows are counted from 0), or change the classes in the recipe's task section",
        )
    soft = {t.name: column.soft for t, column in zip(task.targets, read, strict=True) if column.soft is not None}
    return Labels(task, np.stack([column.codes for column in read], axis=1), soft)


def learn_classes(frame: pl.DataFrame, column: str) -> tuple[str, ...]:
    """Classes of a categorical, sorted: by number if all are whole numbers, else as text.

    Raises
    ------
    LabelError
        If fewer than two are found.
    """
    soft = [name.split("=", 1)[1] for name in frame.columns if name.startswith(f"{column}=")]
    if column not in frame.columns and soft:
        classes = soft
    else:
        require_columns(frame, [column], "a categorical")
        classes = as_class_names(frame[column]).drop_nulls().unique().to_list()
    if len(set(classes)) < 2:
        raise LabelError(
            f"The column '{column}' has fewer than two classes.",
            got=listing(classes) or "no filled cell",
            next_step="leave it out of the task, or list its classes in the recipe",
        )
    whole = all(_is_whole(name) for name in classes)
    return tuple(sorted(classes, key=(lambda name: (int(name), name)) if whole else (lambda name: (0, name))))


def learn_task(
    frame: pl.DataFrame,
    *,
    binary: Sequence[str] = (),
    categorical: Mapping[str, Sequence[str]] | None = None,
    tree: Sequence[str] = (),
    swap: Swap | None = None,
) -> Task:
    """The task of a training table: binaries first, then categoricals with their classes.

    Parameters
    ----------
    categorical
        Column to its classes; empty classes are learnt.
    tree
        Categoricals from root to leaf; its paths are those of the rows.
    """
    known = {name: tuple(classes) or learn_classes(frame, name) for name, classes in (categorical or {}).items()}
    targets: tuple[Target, ...] = tuple(Binary(name) for name in binary)
    targets += tuple(Categorical(name, classes) for name, classes in known.items())
    task = Task(targets, swap=swap)
    return Task(targets, learn_tree(tree, read_labels(frame, task)), swap) if tree else task


def labels_frame(task: Task, codes: IntArray) -> pl.DataFrame:
    """One column a target: 0/1 for a binary, names of classes for a categorical, missing where the code is -1.

    Parameters
    ----------
    codes
        int32 (rows, targets), as in `Labels.codes`.
    """
    return pl.DataFrame([_target_column(target, codes[:, i]) for i, target in enumerate(task.targets)])


def _target_column(target: Target, codes: IntArray) -> pl.Series:
    plain = pl.Series(target.name, codes, dtype=pl.Int32)
    plain = plain.set(plain == MISSING, None)
    if isinstance(target, Binary):
        return plain.cast(pl.Int8)
    return pl.Series(target.name, target.classes, dtype=pl.String).gather(plain.cast(pl.UInt32))


@dataclass(frozen=True)
class _Column:
    """One target read: codes (rows,), probabilities (rows, width) if any cell is soft, and what doesn't fit."""

    codes: IntArray
    soft: FloatArray | None
    problems: tuple[str, ...]


def _columns_of(names: Set[str], target: Target) -> tuple[str, ...]:
    """The columns, of all `names`, that hold a target, () if none does."""
    if target.name in names:
        return (target.name,)
    present = tuple(name for name in target.columns if name in names)
    return present if isinstance(target, Categorical) else ()


def _absent(names: Sequence[str], frame: pl.DataFrame) -> LabelError:
    near = [f"'{other}' instead of '{name}'" for name in names if (other := nearest(name, frame.columns))]
    return LabelError(
        f"The table has no column for {counted(len(names), 'target')}: {listing(names)}.",
        allowed="one column a target (or 'name=class' columns with probabilities)",
        got=listing(frame.columns),
        next_step=f"did you mean {', '.join(near[:EXAMPLES])}?" if near else "add them, or take them out of the task",
    )


def _plain_flags(frame: pl.DataFrame, names: Sequence[str]) -> dict[str, _Column]:
    """The binaries whose cells are 0, 1 or missing and nothing else, read at once: most are, and there may be many."""
    kinds = frame.schema
    text = [name for name in names if kinds[name] == pl.String]
    whole = [name for name in names if kinds[name].is_integer()]
    truth = [name for name in names if kinds[name] == pl.Boolean]
    codes = frame.select(
        pl.col(truth).cast(pl.Int32).fill_null(MISSING),
        pl.col(text).replace_strict(["0", "1", None], [0, 1, MISSING], default=None, return_dtype=pl.Int32),
        pl.col(whole).replace_strict([0, 1, None], [0, 1, MISSING], default=None, return_dtype=pl.Int32),
    )
    return {
        column.name: _Column(column.to_numpy().astype(np.int32), None, ())
        for column in codes
        if not column.null_count()
    }


def _read_target(frame: pl.DataFrame, names: Set[str], target: Target) -> _Column:
    if isinstance(target, Binary):
        return _read_binary(frame[target.name])
    hard = _read_classes(frame, target)
    soft_columns = [name for name in target.columns if name in names]
    if not soft_columns:
        return hard
    if len(soft_columns) < target.width:
        lost = sorted(set(target.columns) - set(soft_columns))
        return _Column(hard.codes, None, (f"'{target.name}': probabilities lack the columns {listing(lost)}",))
    return _read_soft(frame, target, hard)


def _read_binary(column: pl.Series) -> _Column:
    if column.dtype.is_nested():
        return _Column(_missing(len(column)), None, (f"'{column.name}': cells are lists or objects, not 0/1",))
    values = as_flag(column)
    values = values.zip_with(values.is_not_null(), as_number(column))
    wrong = (values.is_null() & _filled(column)) | ~values.is_between(0, 1).fill_null(True)
    problems = _unknown(column, wrong, "not 0/1, true/false, yes/no or a probability")
    known = values.fill_null(np.nan).to_numpy().astype(np.float32)
    codes = np.where(np.isnan(known), MISSING, known >= 0.5).astype(np.int32)
    is_soft = bool(((known > 0) & (known < 1)).any())
    return _Column(codes, known[:, None] if is_soft else None, problems)


def _read_classes(frame: pl.DataFrame, target: Categorical) -> _Column:
    if target.name not in frame.columns:
        return _Column(_missing(frame.height), None, ())
    column = frame[target.name]
    if column.dtype.is_nested():
        return _Column(_missing(len(column)), None, (f"'{target.name}': cells are lists or objects, not classes",))
    names = as_class_names(column)
    codes = names.replace_strict(list(target.classes), range(target.width), default=None, return_dtype=pl.Int32)
    problems = _unknown(names, codes.is_null() & names.is_not_null(), f"no class of {listing(target.classes[:8])}")
    return _Column(codes.fill_null(MISSING).to_numpy().astype(np.int32), None, problems)


def _read_soft(frame: pl.DataFrame, target: Categorical, hard: _Column) -> _Column:
    """Probabilities over the classes; a row without any falls back on its class."""
    values = np.stack([as_number(frame[name]).to_numpy().astype(np.float64) for name in target.columns], axis=1)
    filled = np.stack([_filled(frame[name]).to_numpy() for name in target.columns], axis=1)
    given: npt.NDArray[np.bool_] = np.asarray(filled.any(axis=1))
    problem = improbable(frame, target.columns)
    if problem:
        return _Column(hard.codes, None, (*hard.problems, f"'{target.name}': {problem}"))
    known = np.nan_to_num(values)
    codes = np.where(given, known.argmax(axis=1), hard.codes).astype(np.int32)
    blank = Labels(Task((target,)), codes[:, None]).probabilities(target.name)
    soft = np.where(given.reshape(-1, 1), known, blank).astype(np.float32)
    return _Column(codes, soft, hard.problems)


def improbable(frame: pl.DataFrame, columns: Sequence[str]) -> str | None:
    """What is wrong with columns of probabilities, naming rows; None if every row sums to 1 or is empty."""
    values = np.stack([as_number(frame[name]).to_numpy().astype(np.float64) for name in columns], axis=1)
    filled = np.stack([_filled(frame[name]).to_numpy() for name in columns], axis=1)
    wrong = np.flatnonzero(filled.any(axis=1) & ~_sum_to_one(values))
    if not len(wrong):
        return None
    examples = "; ".join(f"row {i}: {', '.join(f'{v:g}' for v in values[i][:8])}" for i in wrong[:EXAMPLES])
    return f"{counted(len(wrong), 'row')} of probabilities not >= 0 with sum 1 ({examples})"


def _sum_to_one(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    totals: npt.NDArray[np.float64] = values.sum(axis=1)
    return np.logical_and((values >= 0).all(axis=1), np.isclose(totals, 1, rtol=0, atol=TOLERANCE))


def _unknown(column: pl.Series, wrong: pl.Series, why: str) -> tuple[str, ...]:
    """A sentence on the cells where `wrong`, with values, counts and rows."""
    rows = wrong.arg_true()
    if rows.is_empty():
        return ()
    values = column.gather(rows).cast(pl.String).value_counts(sort=True).head(EXAMPLES).rows()
    counts = ", ".join(
        f"{value!r} ({counted(count, 'time')})" for value, count in sorted(values, key=lambda v: (-v[1], v[0]))
    )
    return (f"'{column.name}': {counted(rows.len(), 'cell')} {why}: {counts}; rows {rows.head(EXAMPLES).to_list()}",)


def _filled(column: pl.Series) -> pl.Series:
    return column.is_not_null() & ~column.is_nan() if column.dtype.is_float() else column.is_not_null()


def _missing(rows: int) -> IntArray:
    return np.full(rows, MISSING, dtype=np.int32)


def _is_whole(name: str) -> bool:
    return name.isascii() and name.removeprefix("-").isdigit()


def same_labels(first: Labels, second: Labels) -> bool:
    """Whether two tables of the same rows have the same labels; soft ones to 1e-6."""
    names = [target.name for target in first.task.targets]
    cells = ((first.probabilities(name), second.probabilities(name)) for name in names)
    return all(np.allclose(one, other, atol=1e-6, equal_nan=True) for one, other in cells)

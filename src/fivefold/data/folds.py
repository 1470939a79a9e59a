"""Which fold holds each row out, and folds on disk, so that another run reuses them and scores align."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.fold_sentences import ALWAYS_TRAINING, fold_sentences, listed
from fivefold.errors import DataError
from fivefold.task import IntArray, Labels

ANY_FOLD = -1
"""The fold of an extra row that all models train on."""

METADATA = "fivefold"
"""Key of the Parquet metadata that says how the folds were made."""


@dataclass(frozen=True)
class Folds:
    """The fold that holds each row out.

    Parameters
    ----------
    fold
        int32 (rows,): 0 to count - 1, or -1 for a row that is always in training.
    count
        How many folds there are.
    method
        The method that made them: "auto" never, "given" for a column or file of the user.
    seed
        The seed they were drawn with, None where nothing was drawn.
    sentences
        What the user should know about them, a sentence each.
    only
        The one fold to evaluate (hold-out), or None for all.
    trains
        int32 (rows,): the one fold whose model trains on an extra row, -1 where all do; None: all rows are so.
    """

    fold: IntArray
    count: int
    method: str
    seed: int | None = None
    sentences: tuple[str, ...] = ()
    only: int | None = None
    trains: IntArray | None = None

    def __post_init__(self) -> None:
        if self.only is not None and not 0 <= self.only < self.count:
            raise DataError(
                "The fold to hold out isn't there.",
                allowed=f"0 to {self.count - 1}",
                got=str(self.only),
                next_step="set folds.only to one of them",
            )

    def __len__(self) -> int:
        return len(self.fold)

    @property
    def evaluated(self) -> tuple[int, ...]:
        """The folds to fit and score."""
        return tuple(range(self.count)) if self.only is None else (self.only,)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Rows held out by each fold, (count,)."""
        return np.bincount(self.fold[self.fold != ALWAYS_TRAINING], minlength=self.count)

    def held_out(self, fold: int) -> npt.NDArray[np.int64]:
        """Positions of the rows that `fold` holds out."""
        return np.flatnonzero(self.fold == fold)

    def training(self, fold: int) -> npt.NDArray[np.int64]:
        """Positions of the rows that `fold` trains on."""
        trains = self.fold != fold
        if self.trains is not None:
            trains &= (self.trains == ANY_FOLD) | (self.trains == fold)
        return np.flatnonzero(trains)


def given_folds(
    column: Sequence[Any] | npt.NDArray[Any],
    *,
    labels: Labels | None = None,
    groups: IntArray | None = None,
    only: int | None = None,
) -> Folds:
    """The folds that a column of the data names.

    Parameters
    ----------
    column
        Whole numbers or strings, (rows,); null, "" and -1 mean always in training. Folds are
        numbered from 0 in the order of the numbers or, if any isn't one, of the strings.
    labels, groups
        Only looked at for what to say aloud; `groups` as `number_groups` gives them.

    Raises
    ------
    DataError
        If the column names fewer than two folds, or `only` isn't one of them.
    """
    cells = [_fold_name(value) for value in column]
    names = sorted({name for name in cells if name is not None}, key=_numbers_first)
    if len(names) < 2:
        raise DataError(
            "The fold column must name at least two folds.",
            allowed="whole numbers or strings; null or -1 for rows that are always in training",
            got=f"{len(names)}: {', '.join(names)}" if names else "none",
            next_step="fill in the column, or leave it out of the recipe and let Fivefold split",
        )
    number = {name: position for position, name in enumerate(names)}
    fold = np.array([ALWAYS_TRAINING if name is None else number[name] for name in cells], dtype=np.int32)
    sentences = fold_sentences(fold, len(names), labels, groups)
    if names != [str(position) for position in range(len(names))]:
        sentences = (f"The folds are numbered in this order: {listed(names)}.", *sentences)
    return Folds(fold, len(names), "given", None, sentences, only)


def training_folds(column: Sequence[Any], extra: npt.NDArray[np.bool_], count: int) -> IntArray:
    """The one fold whose model trains on each row, -1 for all: int32 (rows,).

    Parameters
    ----------
    column
        Whole numbers from 0, (rows,); null, "" and -1 mean all.
    extra
        bool (rows,): the rows that may have one.

    Raises
    ------
    DataError
        If a cell is no fold, or belongs to a row that isn't extra.
    """
    cells = [_fold_name(value) for value in column]
    known = {str(fold) for fold in range(count)}
    strange = sorted({cell for cell in cells if cell is not None} - known)
    if strange:
        raise DataError(
            "data.extra_fold names folds that aren't there.", allowed=f"0 to {count - 1}", got=listed(strange)
        )
    if any(cell is not None and not more for cell, more in zip(cells, extra, strict=True)):
        raise DataError(
            "data.extra_fold names a fold for rows of data.train.",
            allowed="rows of data.extra",
            next_step="leave the column empty there: a fold trains on all rows of the others",
        )
    return np.array([ANY_FOLD if cell is None else int(cell) for cell in cells], dtype=np.int32)


def save_folds(path: Path, ids: Sequence[str] | npt.NDArray[Any], folds: Folds) -> None:
    """Write `path`: Parquet with the columns id and fold, (rows,), and how they were made as metadata."""
    made = {"count": folds.count, "method": folds.method, "seed": folds.seed, "only": folds.only}
    frame = pl.DataFrame({"id": [str(name) for name in ids], "fold": folds.fold})
    frame.write_parquet(path, metadata={METADATA: json.dumps(made | {"sentences": folds.sentences})})


def load_folds(
    path: Path, ids: Sequence[str] | npt.NDArray[Any], always_training: npt.NDArray[np.bool_] | None = None
) -> Folds:
    """The folds in `path` in the order of `ids`.

    Parameters
    ----------
    path
        What `save_folds` wrote, or any Parquet file with the columns id and fold.
    ids
        Ids of the rows, (rows,).
    always_training
        bool (rows,): extra rows, which need not be in the file and are never held out.

    Raises
    ------
    DataError
        If the file is missing, has other columns, or its held-out ids and `ids` differ or repeat.
    """
    if not path.is_file():
        raise DataError(f"There is no file of folds at {path}.", next_step="name the folds.parquet of a finished run")
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} can't be read as Parquet.", got=str(error), next_step="copy it again, or split anew"
        ) from error
    if not {"id", "fold"} <= set(frame.columns):
        raise DataError(
            f"{path} is no file of folds.",
            allowed="columns id, fold",
            got=", ".join(frame.columns[:8]),
            next_step="name the folds.parquet of a finished run, or rename the columns",
        )
    extra = np.zeros(len(ids), dtype=bool) if always_training is None else np.asarray(always_training, dtype=bool)
    names = [str(name) for name in ids]
    known = dict(zip(frame["id"].cast(pl.String).to_list(), frame["fold"].to_list(), strict=True))
    _refuse_other_ids(path, names, extra, known, repeated=len(known) < len(frame))
    column = [None if alone else known[name] for name, alone in zip(names, extra, strict=True)]
    made = json.loads(pl.read_parquet_metadata(path).get(METADATA, "null"))
    if made is None:
        return given_folds(column)
    fold = np.array([ALWAYS_TRAINING if cell is None else cell for cell in column], dtype=np.int32)
    return Folds(fold, made["count"], made["method"], made["seed"], tuple(made["sentences"]), made["only"])


def _refuse_other_ids(
    path: Path, names: Sequence[str], extra: npt.NDArray[np.bool_], known: dict[str, int | None], *, repeated: bool
) -> None:
    wanted = {name for name, alone in zip(names, extra, strict=True) if not alone}
    held = {name for name, fold in known.items() if fold not in (None, ALWAYS_TRAINING)}
    lost, strange = sorted(wanted - known.keys()), sorted(held - wanted)
    got = [f"{len(lost)} rows without a fold: {listed(lost)}"] if lost else []
    got += [f"{len(strange)} folds without a row: {listed(strange)}"] if strange else []
    if repeated or len(set(names)) < len(names):
        got.append("ids that occur twice")
    if got:
        raise DataError(
            f"The folds of {path} and the rows don't match by id.",
            got="; ".join(got),
            next_step="reuse folds only with the rows that they were made for, or split anew",
        )


def _fold_name(value: Any) -> str | None:
    if value is None or value != value:
        return None
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    name = str(int(value)) if whole else str(value).strip()
    return None if name in ("", str(ALWAYS_TRAINING)) else name


def _numbers_first(name: str) -> tuple[bool, int, str]:
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)

"""Predictions of a finished run as a table, and on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from fivefold.data.labels import labels_frame
from fivefold.data.layout import join_lists, probability_frame, submission_frame
from fivefold.errors import DataError
from fivefold.pipeline.run import Run, with_ids
from fivefold.pipeline.store import writing
from fivefold.scores import Scores

Form: TypeAlias = Callable[[Run, Scores], pl.DataFrame]


def decided(run: Run, scores: Scores) -> pl.DataFrame:
    """A column a target with the decided label."""
    return labels_frame(run.task, run.rule.decide_calibrated(scores))


def with_probabilities(run: Run, scores: Scores) -> pl.DataFrame:
    """The decided class of each categorical, and a probability a binary (in its own column) and a class."""
    probabilities = scores.probabilities()
    columns = [pl.Series(name, probabilities[:, i]) for i, name in enumerate(run.task.columns)]
    classes = decided(run, scores).select(target.name for target in run.task.categoricals)
    return pl.DataFrame([*classes.get_columns(), *columns])


def as_submission(run: Run, scores: Scores) -> pl.DataFrame:
    """The label columns of the training file; a winner spread over columns gets its probabilities."""
    if run.layout.winner and run.task.swap is not None:
        return probability_frame(run.layout, run.task, scores.probabilities())
    return join_lists(submission_frame(run.layout, run.task, run.rule.decide_calibrated(scores)))


FORMS: Mapping[str, Form] = {
    "labels": decided,
    "probabilities": with_probabilities,
    "submission": as_submission,
}
"""What a table of predictions holds beside the id."""


def predict_frame(run: Run, scores: Scores, form: Form) -> pl.DataFrame:
    """Id and what `form` says of each row."""
    frame = with_ids(scores, form(run, scores))
    return frame.rename({"id": run.recipe.data.id or "id"}) if form is as_submission else frame


def predict_file(run: Path, data: Any, out: Path, form: Form) -> int:
    """Predict `data` and write it at `out` by its ending; how many rows.

    Raises
    ------
    DataError
        If the ending isn't known, or the data lacks a column.
    """
    writer(out)
    if isinstance(data, str | Path) and Path(data).resolve() == out.resolve():
        raise DataError(f"{out} is the file to predict.", next_step="write the predictions elsewhere")
    loaded = Run.load(run)
    frame = loaded.read(data)
    parts = [predict_frame(loaded, scores, form) for scores in loaded.batches(frame)]
    if not parts:
        raise DataError(f"{data} has no rows to predict.")
    write_table(pl.concat(parts), out)
    return frame.height


def write_table(frame: pl.DataFrame, out: Path) -> None:
    """Write a table by the ending of `out`, beside it first, so that a reader sees the old file or the new one.

    Raises
    ------
    DataError
        If the ending isn't known.
    RunError
        If the file system refuses.
    """
    write = writer(out)
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial")
        try:
            write(frame, partial)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)


def writer(path: Path) -> Callable[[pl.DataFrame, Path], None]:
    """The function that writes the format of the path's ending.

    Raises
    ------
    DataError
        If the ending isn't known.
    """
    if path.suffix.lower() not in WRITERS:
        raise DataError(
            f"A table can't be written as '{path.suffix}'.",
            allowed=", ".join(WRITERS),
            got=str(path),
            next_step="choose one of these endings for --out",
        )
    return WRITERS[path.suffix.lower()]


WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: join_lists(frame).write_csv(path),
    ".tsv": lambda frame, path: join_lists(frame).write_csv(path, separator="\t"),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
    ".parquet": lambda frame, path: frame.write_parquet(path),
}

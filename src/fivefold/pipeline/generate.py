"""Labelled rows that nobody wrote: texts by a language model, labels by the models of a run, fold by fold.

The example texts of a record all come from one fold. The model of another fold may train on it, with the labels that
the run's model of that fold gives it, as that model never saw the rows which the fold holds out. So neither a text nor
a label of a held-out row reaches the model that is scored on it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from tqdm import tqdm

from fivefold.data.columns import counted
from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.data.duplicates import folded
from fivefold.data.folds import Folds
from fivefold.data.layout import probability_frame
from fivefold.errors import DataError, RunError
from fivefold.pipeline.prepare import read_optional
from fivefold.pipeline.run import Run
from fivefold.pipeline.store import write_text, writing
from fivefold.pipeline.trained import trained_rows
from fivefold.scores import Scores

log = logging.getLogger("fivefold")

FOR_FOLD = "for_fold"
"""Column that names the fold whose model trains on a row."""

ID = "__id__"
"""Column of the records' names."""

TRIES = 4
"""Texts written for each that is wanted, at most: copies and empty ones don't count."""

ROWS, PARENTS, ABOUT = "rows.parquet", "parents.parquet", "about.json"

DRAFT = "draft.jsonl"
"""What was written so far, until all is."""

Writer = Callable[[Sequence[Sequence[str]], int], Sequence[str]]
"""Sets of examples and a seed to a text each."""


@dataclass(frozen=True)
class Generated:
    """What was written.

    Parameters
    ----------
    folder
        With the table of rows, the ids of each record's parents, and how they were made.
    records, rows
        Texts, and rows: each text once for every fold that may train on it.
    dropped
        Texts that were empty, copies, or not in the fields' form.
    """

    folder: Path
    records: int
    rows: int
    dropped: int


class Draft:
    """Texts that were written so far, kept so that a command that was killed goes on.

    Parameters
    ----------
    path
        The file: a line that says what they are written for, then one for every call of the writer.
    about
        What they are written for.
    write
        The writer, called for what the file doesn't hold yet.

    Raises
    ------
    DataError
        If the file is about something else.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], write: Writer) -> None:
        self.path, self.writer = path, write
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        if lines and json.loads(lines[0]) != about:
            raise DataError(
                f"{path} holds what another command began to write.", next_step="delete it, or name another folder"
            )
        self.kept: list[list[str]] = [json.loads(line) for line in lines[1:]]
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(f"{line}\n" for line in lines or [json.dumps(about)]))

    def write(self, examples: Sequence[Sequence[str]], seed: int) -> Sequence[str]:
        """A text for each set of examples; calls are to be repeated in their order."""
        if self.kept:
            return self.kept.pop(0)
        texts = list(self.writer(examples, seed))
        with writing(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(texts) + "\n")
        return texts


def generate(
    teachers: Path,
    out: Path,
    write: Writer,
    *,
    count: int,
    shots: int,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Generated:
    """Write records after examples of a run's training rows, labelled by its models.

    A call that was killed goes on in its folder.

    Parameters
    ----------
    teachers
        A finished run of at least two folds.
    out
        The folder to write: rows.parquet is for `data.extra`, with `data.extra_fold: for_fold` and `folds.reuse: RUN`.
    count
        Records wanted.
    shots
        Rows of one fold that each record follows.
    settings
        What else the writer was told, for about.json.

    Raises
    ------
    FivefoldError
        If the run has no folds to keep apart, its data changed, or nothing usable was written.
    """
    run = Run.load(teachers)
    corpus = trained_corpus(run)
    if out.exists() and any(out.iterdir()) and not (out / DRAFT).exists():
        raise DataError(f"{out} isn't empty.", next_step="name another folder, or delete it")
    about = {"teachers": str(teachers), "fingerprint": run.store.description["fingerprint"]}
    about |= {"count": count, "shots": shots, "seed": seed, **(settings or {})}
    draft = Draft(out / DRAFT, about, write)
    records = written(run, corpus, draft.write, count=count, shots=shots, seed=seed)
    rows = labelled(run, records)
    with writing(out):
        rows.write_parquet(out / ROWS)
        pl.DataFrame(
            {
                "id": [record.id for record in records.kept],
                "fold": [record.fold for record in records.kept],
                "parents": [list(record.parents) for record in records.kept],
            }
        ).write_parquet(out / PARENTS)
        write_text(out / ABOUT, json.dumps(about, indent=1))
        draft.path.unlink()
    return Generated(out, len(records.kept), rows.height, records.dropped)


@dataclass(frozen=True)
class Record:
    """A text in its fields, the fold that all its parents are of, and their ids."""

    id: str
    fields: tuple[str, ...]
    fold: int
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Records:
    """The records that are kept, and how many were not."""

    kept: tuple[Record, ...]
    dropped: int


def trained_corpus(run: Run) -> Corpus:
    """The texts that a run trained on, in the order of its folds.

    Raises
    ------
    RunError
        If it has fewer than two folds, a column of lists of labels, or files that hold other rows by now.
    """
    if run.averaged or len(run.folds.evaluated) < 2:
        raise RunError(
            f"{run.folder} has no two folds that know nothing of each other.",
            next_step="name a run whose folds were all fitted",
        )
    if run.layout.label_list is not None:
        raise RunError(
            f"The training file of {run.folder} lists its labels in one column, which can't hold probabilities.",
            next_step="train on a file with a column a label",
        )
    data = run.recipe.data
    return build_corpus(trained_rows(run), text=data.text, id=data.id, replace=data.replace)


def written(run: Run, corpus: Corpus, write: Writer, *, count: int, shots: int, seed: int) -> Records:
    """Records in the form of the corpus, none of which it or data.test has word for word."""
    names = list(corpus.fields)
    random = np.random.default_rng(seed)
    known = {_key(row) for row in zip(*corpus.fields.values(), strict=True)} | _test_keys(run, names)
    kept: list[Record] = []
    tried = 0
    with tqdm(total=count, desc="records", unit="record", disable=None) as bar:
        while len(kept) < count and tried < TRIES * count:
            drawn = [_parents(run.folds, shots, tried + n, random) for n in range(min(count - len(kept), 64))]
            texts = write([[_shown(corpus, names, row) for row in rows] for _, rows in drawn], seed + tried)
            tried += len(drawn)
            for (fold, rows), text in zip(drawn, texts, strict=True):
                fields = _fields(text, names)
                if fields is None or _key(fields) in known:
                    continue
                known.add(_key(fields))
                parents = tuple(str(each) for each in corpus.ids[rows])
                kept.append(Record(f"generated-{len(kept)}", fields, fold, parents))
                bar.update()
    if not kept:
        raise DataError(
            "Nothing usable was written.",
            got=f"{counted(tried, 'text')}, all empty, copies, or not in the form of the examples",
            next_step="try another backbone, instruction or temperature",
        )
    return Records(tuple(kept), tried - len(kept))


def labelled(run: Run, records: Records) -> pl.DataFrame:
    """A row for each record and fold that may train on it, with that fold's model's probabilities as labels."""
    names = run.recipe.data.text
    texts = pl.DataFrame([record.fields for record in records.kept], schema=names, orient="row")
    texts = texts.with_columns(pl.Series(ID, [record.id for record in records.kept]))
    corpus = build_corpus(texts, text=names, id=ID, replace=run.recipe.data.replace)
    from_fold = np.array([record.fold for record in records.kept])
    parts = []
    for fold, scores in zip(run.folds.evaluated, run.by_fold(corpus.rows()), strict=True):
        allowed = np.flatnonzero(from_fold != fold)
        parts.append(_rows_for(run, fold, texts[allowed], scores.take(allowed)))
    return pl.concat(parts)


def _rows_for(run: Run, fold: int, texts: pl.DataFrame, scores: Scores) -> pl.DataFrame:
    labels = probability_frame(run.layout, run.task, scores.probabilities())
    rows = pl.concat([texts.drop(ID), labels, pl.DataFrame({FOR_FOLD: [fold] * len(texts)})], how="horizontal")
    column = run.recipe.data.id
    return rows if column is None else rows.with_columns((texts[ID] + f"-{fold}").alias(column))


def _parents(folds: Folds, shots: int, number: int, random: np.random.Generator) -> tuple[int, npt.NDArray[np.int64]]:
    """The fold of a record, each in turn, and some of the rows it holds out."""
    fold = folds.evaluated[number % len(folds.evaluated)]
    rows = folds.held_out(fold)
    return fold, random.choice(rows, min(shots, len(rows)), replace=False)


def _shown(corpus: Corpus, names: Sequence[str], row: int) -> str:
    if len(names) == 1:
        return corpus.fields[names[0]][row].strip()
    return "\n".join(f"{name}: {corpus.fields[name][row].strip()}" for name in names)


def _fields(text: str, names: Sequence[str]) -> tuple[str, ...] | None:
    """The fields of what was written; None where one is missing."""
    if len(names) == 1:
        return (text,) if text.strip() else None
    starts = [(f"\n{text}").find(f"\n{name}: ") for name in names]
    if min(starts) < 0 or starts != sorted(starts):
        return None
    ends = [*starts[1:], len(text) + 1]
    pieces = tuple(
        text[start + len(name) + 2 : end].strip() for name, start, end in zip(names, starts, ends, strict=True)
    )
    return pieces if all(pieces) else None


def _test_keys(run: Run, names: Sequence[str]) -> set[tuple[str, ...]]:
    test = read_optional(run.recipe.data.test)
    if test is None:
        return set()
    fields = build_corpus(test, text=names, replace=run.recipe.data.replace).fields
    return {_key(row) for row in zip(*fields.values(), strict=True)}


def _key(fields: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(folded, fields))

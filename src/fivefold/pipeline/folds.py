"""Fit every fold and gather what it says of the rows it did not see."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fivefold.data.compose import Corpus, Rows
from fivefold.data.folds import Folds
from fivefold.errors import ArtefactError, RunError
from fivefold.models.base import PARITY_ROWS, Classifier, Cost
from fivefold.pipeline.executor import each
from fivefold.pipeline.store import Store
from fivefold.scores import CHUNK, Scores, empty
from fivefold.task import Task
from fivefold.training.curve import CURVE, TRACKED

log = logging.getLogger("fivefold")

PARITY_TOLERANCE = 1e-4
"""Largest difference of a logit that saving and loading may make."""

STRONGEST = 12
"""Features that explain a label."""


def total_cost(corpus: Corpus, folds: Folds, first: Classifier, at_once: int = 1) -> Cost:
    """What fitting all folds is expected to take, seconds in all, as a classifier of the first fold says.

    Raises
    ------
    RunError
        If one fold, or so many at once, don't fit into memory.
    """
    one, count = first.cost(corpus.rows(folds.training(folds.evaluated[0]))), len(folds.evaluated)
    at_once = min(at_once, count)
    if at_once > 1 and one.room is not None and one.bytes * at_once > one.room:
        raise RunError(
            f"{at_once} folds at once don't fit into memory.",
            allowed=f"{one.room / 1e9:.1f} GB are free",
            got=f"{at_once} times {one.bytes / 1e9:.1f} GB",
            next_step=f"fit {max(1, int(one.room // one.bytes))} at a time (--folds-at-once)",
        )
    return replace(one, seconds=one.shared_seconds + one.seconds * count, bytes=one.bytes * at_once)


def expected(cost: Cost) -> str:
    """A cost in words."""
    said = f"about {duration(cost.seconds)} and {cost.bytes / 1e9:.1f} GB"
    if not cost.parameters:
        return said
    return f"{said}; {millions(cost.parameters)} weights, {millions(cost.trained)} of them trained"


def millions(count: int) -> str:
    """A number of weights as a person says it."""
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.3g} million"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def fit_folds(
    store: Store,
    read: Callable[[int], Corpus],
    folds: Folds,
    make: Callable[[], Classifier],
    begun: Callable[[int], Classifier] | None = None,
    at_once: int = 1,
    shared: bool = False,
) -> None:
    """Fit the folds that the store doesn't hold yet.

    Parameters
    ----------
    read
        All rows as the model of a fold reads them.
    begun
        Makes the classifier of a fold that is to be trained on; None: every fold starts afresh.
    at_once
        Folds that are fitted at the same time, each in a process of its own.
    shared
        Whether what takes long is computed once for all folds: then the first of them goes alone.
    """
    left = [fold for fold in folds.evaluated if not store.has(f"folds/{fold}")]
    fit_fold = partial(_fit_fold, store, read, folds, make, begun)
    said: set[str] = set()
    done = len(folds.evaluated) - len(left)
    with tqdm(total=len(folds.evaluated), initial=done, desc="folds", unit="fold", disable=None) as bar:
        alone = left[:1] if shared else []
        for remarks in chain(map(fit_fold, alone), each(fit_fold, left[len(alone) :], at_once)):
            for remark in remarks:
                if remark not in said:
                    log.warning("  %s", remark)
            said.update(remarks)
            bar.update()


def _fit_fold(
    store: Store,
    read: Callable[[int], Corpus],
    folds: Folds,
    make: Callable[[], Classifier],
    begun: Callable[[int], Classifier] | None,
    fold: int,
) -> tuple[str, ...]:
    """The stage of one fold; returns what there is to say of it."""
    corpus = read(fold)
    train, held_out = corpus.rows(folds.training(fold)), corpus.rows(folds.held_out(fold))
    with store.scratch(f"folds/{fold}") as scratch, store.stage(f"folds/{fold}") as folder:
        return fit_one(make() if begun is None else begun(fold), folder, train, held_out, make, scratch)


def fit_one(
    classifier: Classifier,
    folder: Path,
    train: Rows,
    held_out: Rows,
    make: Callable[[], Classifier],
    scratch: Path,
) -> tuple[str, ...]:
    """Fit, score and save one fold; its saved model must say what the fitted one says. Returns remarks."""
    history = classifier.fit(train, held_out, scratch)
    score_into(classifier, held_out, folder / "held_out.parquet")
    (folder / "model").mkdir()
    classifier.save(folder / "model")
    check_parity(classifier, folder / "model", held_out.take(np.arange(min(PARITY_ROWS, len(held_out)))), make)
    write_json(folder / "history.json", dict(history.figures))
    write_json(folder / "explanation.json", classifier.explain(train, STRONGEST))
    keep_curves(scratch, folder)
    return history.remarks


def keep_curves(scratch: Path, folder: Path) -> None:
    """Copy the learning curve, and what trackers wrote, from a scratch folder into the stage, where there are any."""
    if (scratch / CURVE).exists():
        shutil.copy(scratch / CURVE, folder / CURVE)
    if (scratch / TRACKED).exists():
        shutil.copytree(scratch / TRACKED, folder / TRACKED)


def score_into(classifier: Classifier, rows: Rows, path: Path) -> None:
    """Score `rows` some at a time and save the scores at `path`."""
    parts = (rows.take(np.arange(s, min(s + CHUNK, len(rows)))) for s in range(0, len(rows), CHUNK))
    first = classifier.score(next(parts))
    scores = empty(first.task, rows.ids, path)
    scores.logits[: len(first)] = first.logits
    filled = len(first)
    for part in parts:
        scores.logits[filled : filled + len(part)] = classifier.score(part).logits
        filled += len(part)
    scores.save(path)


def check_parity(classifier: Classifier, folder: Path, rows: Rows, make: Callable[[], Classifier]) -> None:
    """Load what was saved and compare its logits.

    Raises
    ------
    ArtefactError
        If a logit differs by more than `PARITY_TOLERANCE`.
    """
    loaded = make()
    loaded.load(folder)
    gap = float(np.abs(loaded.score(rows).logits - classifier.score(rows).logits).max(initial=0))
    if not gap <= PARITY_TOLERANCE:
        raise ArtefactError(
            f"The model saved at {folder} doesn't score as the fitted one did.",
            allowed=f"logits within {PARITY_TOLERANCE}",
            got=f"a difference of {gap:.3g}",
            next_step="this is a bug of Fivefold: report it with the recipe",
        )


def gather(store: Store, task: Task, ids: npt.NDArray[Any], folds: Folds) -> None:
    """Write the stage "scores": out-of-fold scores of all evaluated rows, in the order of `ids`."""
    with store.stage("scores") as folder:
        scored = np.flatnonzero(np.isin(folds.fold, folds.evaluated))
        out_of_fold = empty(task, ids[scored], folder / "oof.parquet")
        for fold in folds.evaluated:
            held_out = Scores.load(store.path(f"folds/{fold}") / "held_out.parquet", task)
            out_of_fold.logits[folds.fold[scored] == fold] = held_out.align(ids[folds.fold == fold]).logits
        out_of_fold.save(folder / "oof.parquet")


def write_json(path: Path, value: object) -> None:
    """Write a small JSON file."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")

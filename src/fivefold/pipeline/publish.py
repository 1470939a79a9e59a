"""Gather what the report needs from a run, and put report, model card and pictures in its folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.decisions.decode import never_predicted
from fivefold.errors import FivefoldError
from fivefold.pipeline.decide import figure, load_predictions
from fivefold.pipeline.prepare import read_labelled, source_name
from fivefold.pipeline.run import Run
from fivefold.pipeline.store import read_json, writing
from fivefold.recipe import Recipe
from fivefold.report.content import ReportContent
from fivefold.report.write import write_report
from fivefold.task import IntArray, Task

log = logging.getLogger("fivefold")

EXCERPT = 400
"""Characters of each text field that the report may quote."""

PUBLISHED = ("pictures", "README.md", "report.html")
"""What a report consists of; the page comes last, so that its presence says the rest is there."""


def publish(folder: Path, texts: Mapping[str, str] | None = None) -> Path:
    """Write report.html, README.md and pictures/ into the run; the page's path.

    Parameters
    ----------
    texts
        Excerpt of each row by id, of which the page quotes the worst errors; None reads the training data
        again if it is still where it was, and quotes nothing otherwise.

    Raises
    ------
    RunError
        If the run isn't decided yet.
    """
    run = Run.open(folder)
    quoted = training_texts(run) if texts is None else texts
    partial = folder / ".report.partial"
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_report(report_content(run, quoted), partial)
        for name in PUBLISHED:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            (partial / name).replace(folder / name)
        partial.rmdir()
    return folder / "report.html"


def report_content(run: Run, texts: Mapping[str, str]) -> ReportContent:
    """Everything the report says of a run."""
    rows = run.out_of_fold
    predictions = load_predictions(run.store, rows, run.recipe.decision, run.recipe.seed)
    evaluation = run.evaluation
    folds = [figure(evaluation.metric, rows, predictions, rows.folds == fold) for fold in np.unique(rows.folds)]
    explanations = read_json(run.store.path(f"folds/{rows.folds.min()}") / "explanation.json")
    return ReportContent(
        title=run.recipe.name,
        labels=rows.labels,
        scores=predictions.scores,
        decisions=predictions.decisions,
        evaluation=evaluation,
        thresholds=run.rule.thresholds,
        folds=tuple(folds),
        texts=[texts[name] for name in rows.scores.ids] if texts else (),
        learnt=facts(run, len(rows.labels)),
        warnings=remarks(run, predictions.decisions),
        explanations=explanations,
        dataset=source_name(run.recipe.data.train),
        run=run.folder.name,
    )


def facts(run: Run, rows: int) -> dict[str, str]:
    """What was learnt from what, in the order a reader asks."""
    recipe, described = run.recipe, run.store.description
    folds = run.folds
    return {
        "Training data": source_name(recipe.data.train),
        "Rows evaluated out of fold": f"{rows:,}",
        "Text": ", ".join(recipe.data.text),
        "Targets": f"{len(run.task.targets):,} ({run.task.width:,} logits)",
        "Folds": f"{folds.count} ({folds.method}), seed {recipe.seed}",
        "Model": model_fact(recipe),
        "Class weights": recipe.objective.class_weights,
        "Decision": decision_fact(recipe, run.task),
        "Versions": ", ".join(f"{name} {version}" for name, version in described["versions"].items()),
    }


def model_fact(recipe: Recipe) -> str:
    """The family and the settings that its solver reads."""
    settings = recipe.model.model_dump(exclude=set(recipe.model.idle_keys))
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)


def decision_fact(recipe: Recipe, task: Task) -> str:
    """How scores become labels, as far as the task needs it."""
    said = [f"thresholds {recipe.decision.thresholds}"] if task.binaries else []
    said += [f"{recipe.decision.tree} tree"] if task.tree else []
    return ", ".join([*said, f"calibration {recipe.decision.calibration}"])


def remarks(run: Run, decisions: IntArray) -> tuple[str, ...]:
    """What a reader must know before trusting the figures: of the folds, the data, and labels never predicted."""
    found = read_json(run.store.path("data") / "check.json")["findings"]
    of_data = [finding["message"] for finding in found if finding["severity"] == "warning"]
    silent = never_predicted(decisions, run.out_of_fold.labels)
    named = ", ".join(silent[:8]) + (f" and {len(silent) - 8} more" if len(silent) > 8 else "")
    of_labels = [f"Labels that occur but were never predicted: {named}."] if silent else []
    return (*run.folds.sentences, *of_data, *of_labels)


def training_texts(run: Run) -> dict[str, str]:
    """Excerpt of each training row by id, where the training data is still to be had."""
    try:
        frame = read_labelled(run.recipe)
        return excerpts(build_corpus(frame, text=run.recipe.data.text, id=run.recipe.data.id))
    except FivefoldError as error:
        log.warning("The report quotes no texts, as the training data can't be read again: %s", error)
        return {}


def excerpts(corpus: Corpus) -> dict[str, str]:
    """The start of each row's texts by id."""
    parts = zip(*corpus.fields.values(), strict=True)
    return {name: " ⏎ ".join(part[:EXCERPT] for part in row) for name, row in zip(corpus.ids, parts, strict=True)}

"""Gather what the report needs from a run, and put report, model card and pictures in its folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.decisions.decode import never_predicted
from fivefold.errors import FivefoldError
from fivefold.pipeline.decide import figure, load_predictions
from fivefold.pipeline.prepare import source_name
from fivefold.pipeline.run import Run
from fivefold.pipeline.store import read_json, reading, writing
from fivefold.pipeline.trained import trained_rows
from fivefold.recipe import Recipe
from fivefold.recipe.section import Settings
from fivefold.report.content import LearningCurve, Member, ReportContent
from fivefold.report.write import write_report
from fivefold.task import IntArray, Task
from fivefold.training.curve import CURVE

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
        explanations=explanations(run),
        members=members(run),
        learning=learning(run),
        dataset=source_name(run.recipe.data.train),
        run=run.folder.name,
    )


def explanations(run: Run) -> Mapping[str, list[tuple[str, float]]]:
    """The strongest features of the first fold's model; of an ensemble, those of the first member that can tell."""
    if run.members:
        return next(filter(None, map(explanations, run.members.values())), {})
    path = run.store.path(f"folds/{run.folds.evaluated[0]}") / "explanation.json"
    return dict(read_json(path))


def members(run: Run) -> tuple[Member, ...]:
    """The models of an ensemble with their weights and their own figures; none for a single model."""
    return tuple(
        Member(name, "; ".join(said(model_facts(member.recipe))), run.weights[name], member.evaluation.headline)
        for name, member in run.members.items()
    )


def learning(run: Run) -> dict[str, list[LearningCurve]]:
    """Member, or "", to the learning curves of its folds; without those that didn't learn by steps."""
    runs = run.members or {"": run}
    found = {name: learning_of(each) for name, each in runs.items()}
    return {name: curves for name, curves in found.items() if curves}


def learning_of(run: Run) -> list[LearningCurve]:
    """The learning curves of a single model's folds, as far as they have any."""
    paths = (run.store.path(f"folds/{fold}") / CURVE for fold in run.folds.evaluated)
    return [read_curve(path, run.evaluation.metric) for path in paths if path.exists()]


def read_curve(path: Path, metric: str) -> LearningCurve:
    """The curve in a learning.jsonl.

    Raises
    ------
    ArtefactError
        If it can't be read.
    """
    with reading(path):
        return LearningCurve.from_lines(map(json.loads, path.read_text("utf-8").splitlines()), metric)


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
        **(ensemble_facts(recipe) if recipe.ensemble else model_facts(recipe)),
        "Decision": decision_fact(recipe, run.task),
        "Versions": ", ".join(f"{name} {version}" for name, version in described["versions"].items()),
    }


def ensemble_facts(recipe: Recipe) -> dict[str, str]:
    """Which models were mixed."""
    names = list(recipe.ensemble.members) if recipe.ensemble else []
    return {"Model": f"an ensemble of {', '.join(names)}, their probabilities mixed by weights fitted out of fold"}


def model_facts(recipe: Recipe) -> dict[str, str]:
    """The model, and what it was trained by where that was chosen."""
    sections = {"Objective": recipe.objective, "Training": recipe.training, "Pretraining": recipe.pretraining}
    told = {name: chosen(section) for name, section in sections.items() if section is not None}
    return {"Model": model_fact(recipe)} | {name: fact for name, fact in told.items() if fact}


def said(facts: Mapping[str, str]) -> Iterator[str]:
    """Facts in a row: what is told of the model itself needs no name before it."""
    return (fact if name == "Model" else f"{name.lower()}: {fact}" for name, fact in facts.items())


def model_fact(recipe: Recipe) -> str:
    """The family and its settings: all that a linear solver reads, and what a network's recipe chose."""
    model = recipe.model
    if model.family != "linear":
        return ", ".join(filter(None, [model.family, chosen(model, {"family"})]))
    settings = model.model_dump(exclude=set(model.idle_keys))
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)


def chosen(section: Settings, known: Collection[str] = ()) -> str:
    """The settings of a section that aren't defaults, but for those in `known`."""
    settings = section.model_dump(mode="json", exclude_defaults=True, exclude=set(known))
    return ", ".join(f"{key} {value}" for key, value in settings.items())


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
        data = run.recipe.data
        return excerpts(build_corpus(trained_rows(run), text=data.text, id=data.id, replace=data.replace))
    except FivefoldError as error:
        log.warning("The report quotes no texts, as the training data can't be read again: %s", error)
        return {}


def excerpts(corpus: Corpus) -> dict[str, str]:
    """The start of each row's texts by id."""
    parts = zip(*corpus.fields.values(), strict=True)
    return {name: " ⏎ ".join(part[:EXCERPT] for part in row) for name, row in zip(corpus.ids, parts, strict=True)}

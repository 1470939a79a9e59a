"""A whole fit, stage by stage: prepare, split, fold by fold, decide, predict, report."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from fivefold.data.columns import counted, require_columns
from fivefold.data.compose import Corpus
from fivefold.data.fold_sentences import fold_sentences
from fivefold.data.folds import Folds, given_folds, load_folds, save_folds, training_folds
from fivefold.data.labels import labels_frame
from fivefold.data.split import split
from fivefold.errors import RecipeError
from fivefold.models.base import Cost
from fivefold.models.families import family_class
from fivefold.pipeline.continuation import beginning
from fivefold.pipeline.decide import decide
from fivefold.pipeline.enrichment import corpora, kept_together, write_stage
from fivefold.pipeline.ensemble import fit_ensemble
from fivefold.pipeline.folds import expected, fit_folds, gather, total_cost, write_json
from fivefold.pipeline.inspect import check_frame
from fivefold.pipeline.nearest import with_examples
from fivefold.pipeline.origins import single_recipes
from fivefold.pipeline.predict import FORMS, predict_frame
from fivefold.pipeline.prepare import Prepared, prepare, source_name
from fivefold.pipeline.pretrain import fit_backbone, pretraining_texts
from fivefold.pipeline.publish import excerpts, publish
from fivefold.pipeline.run import GROUP, Run, classifier_maker
from fivefold.pipeline.store import Store
from fivefold.recipe import Recipe, build_recipe, dump_recipe, load_recipe
from fivefold.task import Binary, Labels

log = logging.getLogger("fivefold")

EVALUATION_SECONDS = 6
EVALUATION_SECONDS_PER_LOGIT = 1.5e-6
"""What deciding, the bootstrap and the report add to the fit itself, measured on two Zen 4 cores."""


def fit(
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    data: Any = None,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    test: Any = None,
    overwrite: bool = False,
    folds_at_once: int = 1,
) -> Run:
    """Fit every fold of a recipe and write a run: scores, decision rule, honest figures, report.

    `fit_unpublished` does the same but for the report.

    Parameters
    ----------
    recipe
        A recipe, a mapping like one, or the path of one; None infers everything from the data.
    data, test
        A path, a polars, pandas, Arrow or datasets table, used instead of the recipe's data.train and data.test.
    out
        The run's folder; None: runs/ and the recipe's name. A run that was killed continues there; a finished one
        is returned as it is.
    preset
        "fast", "balanced" or "best": the models to fit, where the recipe names none.
    overwrite
        Delete the run in `out` first.
    folds_at_once
        Folds to fit at the same time, each in a process with its share of the cores. Scores differ by float rounding
        alone; memory is taken as often.

    Raises
    ------
    FivefoldError
        If recipe, data or folder can't be used; the message says what to do.
    """
    asked = as_recipe(recipe, preset)
    run, prepared = _fit(
        asked, data, default_folder(asked) if out is None else Path(out), test, overwrite, folds_at_once
    )
    if not (run.folder / "report.html").exists():
        publish(run.folder, excerpts(prepared.corpus))
    return run


def fit_unpublished(
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    data: Any = None,
    *,
    out: str | Path,
    preset: str | None = None,
    test: Any = None,
    overwrite: bool = False,
    folds_at_once: int = 1,
) -> Run:
    """`fit` without drawing a report, which takes longer than a small fit."""
    return _fit(as_recipe(recipe, preset), data, Path(out), test, overwrite, folds_at_once)[0]


def default_folder(recipe: Recipe) -> Path:
    """Where a run goes that no folder was named for."""
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", recipe.name).strip(".-") or "fivefold")


def _fit(recipe: Recipe, data: Any, out: Path, test: Any, overwrite: bool, at_once: int) -> tuple[Run, Prepared]:
    if at_once < 1:
        raise RecipeError("No fold can be fitted.", allowed="folds at once: 1 or more", got=str(at_once))
    for single in single_recipes(recipe):
        family_class(single.model.family)
    store = Store(out)
    source = recipe.data.train if data is None else data
    if source is not None:
        log.info("Reading %s", source_name(source))
    prepared = prepare(recipe, data, test)
    with store.held():
        if overwrite:
            store.clear()
        store.begin(prepared.fingerprint, dump_recipe(prepared.recipe), prepared.recipe.seed)
        run_stages(store, prepared, at_once)
    return Run.load(out), prepared


def as_recipe(recipe: Recipe | Mapping[str, Any] | str | Path | None, preset: str | None = None) -> Recipe:
    """A recipe from whatever names one, on top of a preset if one is named."""
    if isinstance(recipe, Recipe):
        return recipe if preset is None else build_recipe(recipe.model_dump(exclude_unset=True), preset=preset)
    if isinstance(recipe, str | Path):
        return load_recipe(Path(recipe), preset=preset)
    return build_recipe(recipe or {}, preset=preset)


def run_stages(store: Store, prepared: Prepared, at_once: int = 1) -> None:
    """Every stage that the store doesn't hold yet, so many folds at a time."""
    folds = describe_data(store, prepared)
    if prepared.recipe.ensemble is None:
        fit_model(store, prepared, folds, at_once)
    else:
        write_stage(store, prepared, folds)
        fit_ensemble(store, prepared, partial(run_stages, at_once=at_once))
    if not store.has("decision"):
        log.info("Deciding on out-of-fold scores")
        decide(store, Run.open(store.folder).out_of_fold, prepared.recipe.decision, prepared.recipe.seed)
    if prepared.test is not None and not store.has("predictions"):
        predict_test(store, prepared.test)


def fit_model(store: Store, prepared: Prepared, folds: Folds, at_once: int) -> None:
    """The stages "backbone", "folds" and "scores" of a single model."""
    if any(not store.has(f"folds/{fold}") for fold in folds.evaluated):
        begin = beginning(prepared, folds)
        read = with_examples(store, prepared, folds, corpora(store, prepared, folds))
        backbone = fit_backbone(store, prepared.recipe, pretraining_texts(prepared))
        make = classifier_maker(prepared.recipe, prepared.task, backbone)
        begun = None if begin is None else partial(begin, make)
        first = make()
        cost = total_cost(read(folds.evaluated[0]), folds, first, at_once)
        if at_once > 1:
            del first  # else it is held until all folds are fitted: a backbone that they share stays in memory
        announce(prepared, folds, cost)
        fit_folds(store, read, folds, make, begun, at_once, cost.shared_seconds > 0)
    if not store.has("scores"):
        gather(store, prepared.task, prepared.corpus.ids, folds)


def describe_data(store: Store, prepared: Prepared) -> Folds:
    """The stage "data": task, columns, labels and folds; returns the folds, new or as stored."""
    ids = prepared.corpus.ids
    if store.has("data"):
        return with_training_folds(
            load_folds(store.path("data") / "folds.parquet", ids, prepared.always_training), prepared
        )
    folds = with_training_folds(make_folds(prepared), prepared)
    for sentence in folds.sentences:
        log.warning("  %s", sentence)
    with store.stage("data") as folder:
        write_json(folder / "task.json", prepared.task.to_json())
        write_json(folder / "layout.json", prepared.layout.to_json())
        save_folds(folder / "folds.parquet", ids, folds)
        found = check_frame(prepared.recipe, prepared.task, prepared.frame, prepared.test)
        write_json(folder / "check.json", found.to_json())
        rows = label_cells(labels_of(prepared.corpus)).insert_column(0, pl.Series("id", ids.tolist(), dtype=pl.String))
        if prepared.groups is not None:
            rows = rows.with_columns(pl.Series(GROUP, prepared.groups))
        rows.write_parquet(folder / "rows.parquet")
    return folds


def labels_of(corpus: Corpus) -> Labels:
    """The labels that a training corpus has."""
    return corpus.rows().labels


def label_cells(labels: Labels) -> pl.DataFrame:
    """Labels in the columns that `read_labels` reads back exactly, soft cells included."""
    frame = labels_frame(labels.task, labels.codes)
    for name, block in labels.soft.items():
        target = labels.task.target(name)
        names = [name] if isinstance(target, Binary) else target.columns
        frame = frame.with_columns(pl.Series(column, block[:, i]).fill_nan(None) for i, column in enumerate(names))
    return frame


def make_folds(prepared: Prepared) -> Folds:
    """Folds as the recipe asks: reused, given by a column, or drawn."""
    settings, corpus = prepared.recipe.folds, prepared.corpus
    if settings.reuse is not None:
        source = Run.open(settings.reuse).store.path("data") / "folds.parquet"
        found = load_folds(source, corpus.ids, prepared.always_training)
        said = [*found.sentences, *fold_sentences(found.fold, found.count, None, kept_together(prepared))]
        return replace(found, only=settings.only, sentences=tuple(dict.fromkeys(said)))
    if prepared.recipe.data.fold is not None:
        column = prepared.frame[prepared.recipe.data.fold].to_list()
        given = [None if extra else fold for fold, extra in zip(column, prepared.always_training, strict=True)]
        return given_folds(given, labels=corpus.labels, groups=kept_together(prepared), only=settings.only)
    return split(
        corpus.labels,
        len(corpus),
        count=settings.count,
        method=settings.method,
        seed=prepared.recipe.seed,
        groups=kept_together(prepared),
        always_training=prepared.always_training,
        only=settings.only,
    )


def with_training_folds(folds: Folds, prepared: Prepared) -> Folds:
    """The folds, and which one alone trains on an extra row."""
    column = prepared.recipe.data.extra_fold
    if column is None:
        return folds
    require_columns(prepared.frame, [column], "data.extra_fold")
    cells = prepared.frame[column].to_list()
    return replace(folds, trains=training_folds(cells, prepared.always_training, folds.count))


def announce(prepared: Prepared, folds: Folds, cost: Cost) -> None:
    """Say what is about to be fitted and what it will take."""
    task = prepared.task
    after = EVALUATION_SECONDS + len(prepared.corpus) * task.width * EVALUATION_SECONDS_PER_LOGIT
    log.info(
        "%s, %s (%s), %s (%s): %s",
        counted(len(prepared.corpus), "row"),
        counted(len(task.targets), "target"),
        counted(task.width, "logit"),
        counted(len(folds.evaluated), "fold"),
        folds.method,
        expected(replace(cost, seconds=cost.seconds + after)),
    )


def predict_test(store: Store, test: pl.DataFrame) -> None:
    """The stage "predictions": decided labels, probabilities and a submission for data.test."""
    run = Run.load(store.folder)
    with store.stage("predictions") as folder:
        scores = run.scores(test)
        scores.save(folder / "scores.parquet")
        predict_frame(run, scores, FORMS["labels"]).write_csv(folder / "test.csv")
        predict_frame(run, scores, FORMS["submission"]).write_csv(folder / "submission.csv")
    log.info("Predicted %s test rows", f"{len(scores):,}")

"""Training on what a finished run learnt: on its models fold by fold, or on its one adapter under a fresh head."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from fivefold.data.columns import counted
from fivefold.data.folds import Folds
from fivefold.errors import FivefoldError, RecipeError, RunError
from fivefold.models.base import Classifier
from fivefold.models.rules import RuledClassifier
from fivefold.pipeline.origins import begun_runs
from fivefold.pipeline.overlap import overlap
from fivefold.pipeline.prepare import Prepared
from fivefold.pipeline.run import AVERAGE, MODEL, Run
from fivefold.pipeline.trained import trained_rows
from fivefold.recipe import Recipe
from fivefold.recipe.backbones import AdapterSettings, DecoderSettings, WeightSettings

log = logging.getLogger("fivefold")


def continued(prepared: Prepared, folds: Folds) -> Run | None:
    """The run that training.continue_from names; None where it names none.

    Raises
    ------
    RecipeError
        If its task, family or folds are others, or pretraining says where weights come from as well.
    RunError
        If it isn't a finished run of one model.
    """
    training = prepared.recipe.training
    if training is None or training.continue_from is None:
        return None
    source = Run.open(Path(training.continue_from))
    if not source.store.has("decision"):
        raise RunError(
            f"training.continue_from names {source.folder}, which isn't finished.",
            next_step="run its fivefold fit again: it resumes",
        )
    if source.averaged:
        raise RunError(
            f"training.continue_from names {source.folder}, which is an average and has no folds.",
            next_step="name the run that it was made of, or name it in training.adapter_from",
        )
    if source.members:
        raise RunError(
            f"training.continue_from names {source.folder}, which is an ensemble.",
            allowed=", ".join(str(member.folder) for member in source.members.values()),
            next_step="name one of its members",
        )
    _check_alike(source, prepared)
    _check_folds(source, prepared, folds)
    return source


Beginning: TypeAlias = Callable[[Callable[[], Classifier], int], Classifier]
"""From what makes an unfitted classifier, and a fold, to one that begins with weights of another run."""


def beginning(prepared: Prepared, folds: Folds) -> Beginning | None:
    """What the recipe says to begin with; None: every fold begins afresh.

    Raises
    ------
    FivefoldError
        If the run that it names can't be trained on.
    """
    source = continued(prepared, folds)
    if source is not None:
        return partial(begun_from, source)
    training = prepared.recipe.training
    if training is None or training.adapter_from is None:
        return None
    return partial(with_adapter, adapter_folder(Run.open(Path(training.adapter_from)), prepared, folds))


def adapter_folder(source: Run, prepared: Prepared, folds: Folds) -> Path:
    """The folder of the one adapter of a run.

    Raises
    ------
    RecipeError, RunError
        If it has none or several, or another kind, or knows rows that are held out here.
    """
    key = "training.adapter_from"
    if not source.store.has("decision"):
        raise RunError(f"{key} names {source.folder}, which isn't finished.", next_step="run its fivefold fit again")
    _check_pretraining(prepared.recipe, key)
    asked, trained = _adapter(prepared.recipe), _adapter(source.recipe)
    if source.members or trained is None or asked != trained:
        raise RecipeError(
            f"{key} names a run without such an adapter.",
            allowed="the same rank, alpha, targets and kind of adapter",
            got=f"{source.folder / 'recipe.yaml'}: {trained}",
        )
    _check_backbone(source, prepared.recipe, key)
    _check_unseen(source, prepared, folds, key)
    if source.averaged:
        return source.store.path(AVERAGE) / MODEL
    if len(source.folds.evaluated) > 1:
        raise RecipeError(
            f"{key} names a run with an adapter a fold.",
            got=f"{len(source.folds.evaluated)} in {source.folder}",
            next_step=f"fivefold average {source.folder} makes one of them, or fit it with folds.only",
        )
    return source.store.path(f"folds/{source.folds.evaluated[0]}") / MODEL


def with_adapter(folder: Path, make: Callable[[], Classifier], fold: int) -> Classifier:
    """An unfitted classifier that will begin with the adapter at `folder`, whatever the fold."""
    classifier = make()
    decoder: Any = classifier.inner if isinstance(classifier, RuledClassifier) else classifier
    decoder.begins_from = folder
    return classifier


def begun_from(source: Run, make: Callable[[], Classifier], fold: int) -> Classifier:
    """The source's model of a fold, ready to be trained on.

    Raises
    ------
    RecipeError
        If the recipe's model has other weights.
    ArtefactError
        If it was changed.
    """
    folder = source.store.path(f"folds/{fold}") / MODEL
    classifier = make()
    try:
        classifier.load(folder)
    except (FivefoldError, KeyError, RuntimeError, ValueError) as error:
        raise RecipeError(
            f"The model of {source.folder} doesn't fit the recipe's section model.",
            got=(str(error).splitlines() or [type(error).__name__])[0][:200],
            next_step=f"write the section model as {source.folder / 'recipe.yaml'} does",
        ) from error
    return classifier


def _check_pretraining(recipe: Recipe, key: str) -> None:
    if recipe.pretraining is not None:
        raise RecipeError(
            f"pretraining and {key} both say which weights to start from.", next_step="leave one of them out"
        )


def _check_alike(source: Run, prepared: Prepared) -> None:
    recipe = prepared.recipe
    _check_pretraining(recipe, "training.continue_from")
    if source.recipe.model.family != recipe.model.family:
        raise RecipeError(
            "training.continue_from names a run of another family.",
            allowed=f"a run of model.family '{recipe.model.family}'",
            got=f"'{source.recipe.model.family}' in {source.folder}",
        )
    _check_backbone(source, recipe, "training.continue_from")
    if source.task != prepared.task:
        raise RecipeError(
            "training.continue_from names a run with another task.",
            allowed=f"targets {', '.join(target.name for target in prepared.task.targets)}, classes in the same order",
            got=f"{', '.join(target.name for target in source.task.targets)} in {source.folder}",
            next_step="continue on the same targets, or start afresh",
        )


def _adapter(recipe: Recipe) -> AdapterSettings | None:
    """The settings of a recipe's adapter that its weights depend on."""
    model = recipe.model
    if not isinstance(model, DecoderSettings) or model.adapter is None:
        return None
    return model.adapter.model_copy(update={"dropout": 0.0})


def _check_unseen(source: Run, prepared: Prepared, folds: Folds, key: str) -> None:
    """Refuse a run that was trained on rows that are held out here, as far as its file can still be read."""
    try:
        known = trained_on(source)
    except FivefoldError:
        log.warning(
            "  The data of %s can't be read again, so nobody checked that it lacks the rows here.", source.folder
        )
        return
    held_out = np.isin(folds.fold, folds.evaluated)
    seen = np.zeros(len(folds.fold), dtype=bool)
    for recipe, frame in known:
        seen |= overlap(prepared.frame, frame, prepared.recipe, str(source.folder), recipe) & held_out
    if seen.any():
        raise RecipeError(
            f"{key} names a run that was trained on rows that are held out here.",
            got=f"{counted(int(seen.sum()), 'row')} of {int(held_out.sum())} by their texts",
            next_step="fit that run again with data.exclude naming this training file",
        )


def trained_on(run: Run) -> list[tuple[Recipe, pl.DataFrame]]:
    """The rows that a run's models learnt from, and those of the runs that they began with, each with its recipe.

    Raises
    ------
    FivefoldError
        If their files aren't there any more.
    """
    own = trained_rows(run)
    if len(run.folds.evaluated) == 1 and own.height == len(run.folds.fold):
        own = own.filter(pl.Series(run.folds.fold != run.folds.evaluated[0]))
    earlier = [found for folder in begun_runs(run.recipe) for found in trained_on(Run.open(folder))]
    return [(run.recipe, own), *earlier]


def _check_backbone(source: Run, recipe: Recipe, key: str) -> None:
    """An adapter may only be continued on the backbone that it was trained on, which no fold's folder holds."""
    trained, asked = source.recipe.model, recipe.model
    if not (isinstance(asked, WeightSettings) and isinstance(trained, WeightSettings)) or asked.adapter is None:
        return
    own = str(source.backbone or trained.backbone)
    if asked.backbone != own:
        raise RecipeError(
            f"{key} names adapters of another backbone.",
            allowed=f"model.backbone: {own}",
            got=str(asked.backbone),
        )


def _check_folds(source: Run, prepared: Prepared, folds: Folds) -> None:
    """A model may only be continued where it held out what is held out now: all else has been trained on."""
    known = dict(zip(source.rows["id"].to_list(), source.folds.fold.tolist(), strict=True))
    here = dict(zip(prepared.corpus.ids.tolist(), folds.fold.tolist(), strict=True))
    held = {name: fold for name, fold in here.items() if fold in folds.evaluated}
    seen = [name for name, fold in held.items() if known.get(name) != fold]
    if seen or not set(folds.evaluated) <= set(source.folds.evaluated):
        raise RecipeError(
            "training.continue_from names a run with other folds, whose models have seen rows that are held out here.",
            got=f"{counted(len(seen), 'row')} of {len(held)} in another fold, or in none",
            next_step=f"set folds.reuse to {source.folder} as well, and use its training file",
        )

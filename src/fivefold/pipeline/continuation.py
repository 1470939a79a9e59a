"""Training on the models of a finished run, fold by fold, where its folds are these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fivefold.data.columns import counted
from fivefold.data.folds import Folds
from fivefold.errors import FivefoldError, RecipeError, RunError
from fivefold.models.base import Classifier
from fivefold.pipeline.prepare import Prepared
from fivefold.pipeline.run import Run
from fivefold.recipe import Recipe
from fivefold.recipe.backbones import DecoderSettings


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
    if source.members:
        raise RunError(
            f"training.continue_from names {source.folder}, which is an ensemble.",
            allowed=", ".join(str(member.folder) for member in source.members.values()),
            next_step="name one of its members",
        )
    _check_alike(source, prepared)
    _check_folds(source, prepared, folds)
    return source


def begun_from(source: Run, make: Callable[[], Classifier], fold: int) -> Classifier:
    """The source's model of a fold, ready to be trained on.

    Raises
    ------
    RecipeError
        If the recipe's model has other weights.
    ArtefactError
        If it was changed.
    """
    folder = source.store.path(f"folds/{fold}") / "model"
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


def _check_alike(source: Run, prepared: Prepared) -> None:
    recipe = prepared.recipe
    if recipe.pretraining is not None:
        raise RecipeError(
            "pretraining and training.continue_from both say which weights to start from.",
            next_step="leave one of them out",
        )
    if source.recipe.model.family != recipe.model.family:
        raise RecipeError(
            "training.continue_from names a run of another family.",
            allowed=f"a run of model.family '{recipe.model.family}'",
            got=f"'{source.recipe.model.family}' in {source.folder}",
        )
    _check_backbone(source, recipe)
    if source.task != prepared.task:
        raise RecipeError(
            "training.continue_from names a run with another task.",
            allowed=f"targets {', '.join(target.name for target in prepared.task.targets)}, classes in the same order",
            got=f"{', '.join(target.name for target in source.task.targets)} in {source.folder}",
            next_step="continue on the same targets, or start afresh",
        )


def _check_backbone(source: Run, recipe: Recipe) -> None:
    """An adapter may only be continued on the backbone that it was trained on, which no fold's folder holds."""
    trained, asked = source.recipe.model, recipe.model
    if not (isinstance(asked, DecoderSettings) and isinstance(trained, DecoderSettings)) or asked.adapter is None:
        return
    own = str(source.backbone or trained.backbone)
    if asked.backbone != own:
        raise RecipeError(
            "training.continue_from names adapters of another backbone.",
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

"""Averages of a run's folds on disk, before anybody knows how good they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fivefold.errors import RunError
from fivefold.models.base import Classifier
from fivefold.models.rules import FILE, PairRules
from fivefold.pipeline.run import MODEL, Run, classifier_maker
from fivefold.recipe import Recipe
from fivefold.recipe.backbones import AdapterSettings, DecoderSettings

log = logging.getLogger("fivefold")

WAYS = ("factors", "exact", "rank")
"""The mean of the factors, the mean of what they add at K times the rank, and the closest to that of a given rank."""


@dataclass(frozen=True)
class Candidate:
    """An average on disk, not judged yet."""

    name: str
    folder: Path
    recipe: Recipe
    rank: int
    error: float

    def load(self, run: Run) -> Classifier:
        """The classifier, on the run's backbone."""
        model = classifier_maker(self.recipe, run.task)()
        model.load(self.folder)
        return model


def adapters_of(run: Run) -> list[Path]:
    """The model folder of every fold.

    Raises
    ------
    RunError
        If the run has no adapters of its own.
    """
    model = run.recipe.model
    if run.members or run.averaged or not isinstance(model, DecoderSettings) or model.adapter is None:
        said = "an ensemble" if run.members else "an average" if run.averaged else f"of family '{model.family}'"
        raise RunError(
            f"{run.folder} has no adapters of folds to average.",
            allowed="a finished run of the decoder family with model.adapter",
            got=said,
        )
    if len(run.folds.evaluated) < 2:
        raise RunError(f"{run.folder} has one fold, and so nothing to average.", next_step="fit it without folds.only")
    return [run.store.path(f"folds/{fold}") / MODEL for fold in run.folds.evaluated]


def make_ways(
    run: Run, folds: Sequence[Path], scratch: Path, way: str | None, rank: int | None
) -> Mapping[str, Candidate]:
    """The averages that were asked for, on disk below `scratch`.

    Raises
    ------
    RunError
        If none of them can be made.
    """
    from fivefold.models.backbones.adapters import Adapter, read_tensors, write_tensors
    from fivefold.models.backbones.averaging import average_at_rank, average_exactly, average_factors

    settings = adapter_settings(run.recipe)
    adapter = Adapter(**settings.model_dump())
    tensors = [read_tensors(folder) for folder in folds]
    ways: Mapping[str, Callable[[], Any]] = {
        "factors": partial(average_factors, adapter, tensors),
        "exact": partial(average_exactly, adapter, tensors),
        "rank": partial(average_at_rank, adapter, tensors, rank or adapter.rank),
    }
    made = {}
    for name in WAYS if way is None else (way,):
        try:
            average = ways[name]()
        except RunError as error:
            if way is not None or rank is not None:
                raise
            log.warning("  Without the way '%s': %s", name, error)
            continue
        (folder := scratch / name).mkdir()
        write_tensors(average.adapter, average.tensors, folds[0], folder)
        if run.task.swap is not None:
            PairRules.mean([PairRules.load(run.task, each / FILE) for each in folds]).save(folder / FILE)
        recipe = averaged_recipe(run, settings, average.adapter.rank, average.adapter.alpha)
        made[name] = Candidate(name, folder, recipe, average.adapter.rank, average.error)
    return made


def adapter_settings(recipe: Recipe) -> AdapterSettings:
    """The recipe's section model.adapter, which is there."""
    assert isinstance(recipe.model, DecoderSettings)
    assert recipe.model.adapter is not None
    return recipe.model.adapter


def averaged_recipe(run: Run, settings: AdapterSettings, rank: int, alpha: float) -> Recipe:
    """The run's recipe with the adapter that an average has, on the backbone that the run pretrained, if any."""
    adapter = settings.model_copy(update={"rank": rank, "alpha": alpha})
    changes: dict[str, Any] = {"adapter": adapter}
    if run.backbone is not None:
        changes |= {"backbone": str(run.backbone.resolve()), "tokenizer": None}
    return run.recipe.model_copy(update={"model": run.recipe.model.model_copy(update=changes), "pretraining": None})


def merged_recipe(recipe: Recipe, weights: str) -> Recipe:
    """The recipe of a whole backbone that nothing is trained of."""
    plain = recipe.model_dump()
    plain["model"] |= {"adapter": None, "weights": weights, "unfrozen_layers": 0, "kernels": "none"}
    plain["training"] |= {"adapter_from": None, "gradient_checkpointing": False, "layer_decay": 1.0}
    return Recipe.model_validate(plain)

"""Domain pretraining before the folds: which texts it reads, and the stage "backbone" that all folds start from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fivefold.data.columns import counted
from fivefold.data.infer import infer
from fivefold.errors import DataError, RecipeError
from fivefold.models.base import Cost
from fivefold.models.families import family_class
from fivefold.pipeline.folds import expected, keep_curves, write_json
from fivefold.pipeline.origins import fingerprint
from fivefold.pipeline.prepare import (
    MARK,
    Prepared,
    complete,
    not_excluded,
    read_labelled,
    read_optional,
    texts_in,
    texts_of_test,
    unlabelled_texts,
)
from fivefold.pipeline.run import BACKBONE, MODEL
from fivefold.pipeline.store import Store
from fivefold.recipe import Recipe, dump_recipe
from fivefold.recipe.backbones import BackboneSettings
from fivefold.recipe.training import PretrainingSettings

log = logging.getLogger("fivefold")

PERPLEXITY = "perplexity.json"
"""What pretraining did for the backbone."""


def pretrain(recipe: Recipe, data: Any = None, *, out: str | Path, overwrite: bool = False) -> Path:
    """Pretrain a recipe's backbone on its texts and write nothing but that; no label is read.

    Parameters
    ----------
    recipe
        Its section `pretraining` says how; one without it gets the defaults.
    data
        A path or table to use instead of the recipe's data.train.
    out
        The folder; a killed pretraining continues there, a finished one is left as it is.
    overwrite
        Delete what is in `out` first.

    Returns
    -------
    The backbone's folder, for model.backbone of other recipes.

    Raises
    ------
    FivefoldError
        If recipe, data or folder can't be used; the message says what to do.
    """
    whole, texts = gather(recipe, data)
    dumped = dump_recipe(whole)
    store = Store(Path(out))
    with store.held():
        if overwrite:
            store.clear()
        store.begin(fingerprint(whole, texts=texts, beside=BACKBONE), dumped, whole.seed)
        found = fit_backbone(store, whole, texts)
    assert found is not None
    return found


def replaced_keys(recipe: Recipe) -> tuple[str, ...]:
    """Keys of a recipe that a pretrained backbone stands instead of."""
    model = backbone_of(recipe)
    set_ = {
        "model.architecture": model.architecture,
        "model.tokenizer": model.tokenizer,
        "pretraining": recipe.pretraining,
    }
    return tuple(key for key, value in set_.items() if value is not None)


def gather(recipe: Recipe, data: Any = None) -> tuple[Recipe, list[str]]:
    """The recipe with its text columns and section `pretraining`, and all texts it may read.

    Raises
    ------
    RecipeError
        If the recipe has no backbone to pretrain.
    """
    family_class(backbone_of(recipe).family)
    settings = recipe.pretraining or PretrainingSettings()
    train = None if data is None and recipe.data.train is None else read_labelled(recipe, data)
    test = read_optional(recipe.data.test)
    text = text_columns(recipe, train, test)
    recipe = recipe.model_copy(
        update={"pretraining": settings, "data": recipe.data.model_copy(update={"text": list(text)})}
    )
    own = [] if train is None else not_excluded(texts_in(train, recipe.data, "data.train"), recipe)
    return recipe, [*own, *unlabelled_texts(recipe), *texts_of_test(recipe, test)]


def text_columns(recipe: Recipe, train: pl.DataFrame | None, test: pl.DataFrame | None) -> Sequence[str]:
    """The columns that data.text names, or those that a fit would take; labels needn't be there."""
    if recipe.data.text:
        return recipe.data.text
    table = read_optional(recipe.data.unlabelled) if train is None else train
    if table is None:
        raise RecipeError(
            "The recipe names no texts.", next_step="add --set data.train=FILE or --set data.unlabelled=FILE"
        )
    try:
        found = complete(recipe, table, test)[0].data.text
    except DataError:
        found = list(infer(table.drop(MARK, strict=False), labels=()).text)
    log.info("  Text: %s", ", ".join(found))
    return found


def pretraining_texts(prepared: Prepared) -> list[str]:
    """What a prepared recipe pretrains on: texts of train, extra and unlabelled, and of test where it says so."""
    settings = prepared.recipe.pretraining
    if settings is None:
        return []
    own = [text for column in prepared.corpus.fields.values() for text in column]
    return [*own, *prepared.unlabelled, *(prepared.test_texts if settings.test_texts else ())]


def fit_backbone(store: Store, recipe: Recipe, texts: Sequence[str]) -> Path | None:
    """The folder of the stage "backbone", fitted if the store doesn't hold it; None for a recipe without pretraining.

    Raises
    ------
    FivefoldError
        If the backbone can't be pretrained on these texts.
    """
    if recipe.pretraining is None:
        return None
    if not store.has(BACKBONE):
        with store.scratch(BACKBONE) as scratch, store.stage(BACKBONE) as folder:
            figures = write_backbone(folder, scratch, recipe, texts)
        log.info(
            "  Perplexity %.4g → %.4g (guessing by frequency: %.4g)",
            *(figures[name] for name in ("before", "after", "baseline")),
        )
    return store.path(BACKBONE) / MODEL


def write_backbone(folder: Path, scratch: Path, recipe: Recipe, texts: Sequence[str]) -> Mapping[str, float]:
    """Pretrain, and write the backbone, its figures and its learning curve into `folder`."""
    # Imported here: linear models run without torch.
    from fivefold.models.backbones.backbone import Origin
    from fivefold.models.pretraining.pretrainer import Beginning, Pretraining, pretrain

    model, settings = backbone_of(recipe), recipe.pretraining
    assert settings is not None
    origin = Origin(
        model.backbone,
        model.architecture,
        model.trust_remote_code,
        model.dropout,
        model.attention_dropout,
        getattr(model, "attention", "auto"),
    )
    beginning = Beginning(origin, model.tokenizer)
    plain = settings.model_dump(exclude={"test_texts"})

    def announce(cost: Cost) -> None:
        log.info("Pretraining the backbone on %s: %s", counted(len(texts), "text"), expected(cost))

    found = pretrain(texts, beginning, Pretraining(**plain, seed=recipe.seed), scratch, announce)
    for remark in found.remarks:
        log.warning("  %s", remark)
    found.save(folder / MODEL)
    write_json(folder / PERPLEXITY, dict(found.figures))
    keep_curves(scratch, folder)
    return found.figures


def backbone_of(recipe: Recipe) -> BackboneSettings:
    """The section `model` of a recipe whose model has a backbone.

    Raises
    ------
    RecipeError
        If it is another family, or an ensemble.
    """
    if recipe.ensemble is not None:
        raise RecipeError(
            "An ensemble has no backbone of its own.",
            next_step="write a recipe with the sections model and pretraining of one member",
        )
    if not isinstance(recipe.model, BackboneSettings):
        raise RecipeError(
            f"model.family '{recipe.model.family}' has no backbone to pretrain.",
            allowed="model.family: encoder or decoder",
            next_step="add --set model.family=encoder",
        )
    return recipe.model

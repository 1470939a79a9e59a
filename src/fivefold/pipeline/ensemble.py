"""An ensemble: every member a run of its own below members/, weighed on out-of-fold scores and mixed."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fivefold.decisions.mixture import fit_mixture, mix_parts, parts
from fivefold.pipeline.enrichment import ENRICHMENT
from fivefold.pipeline.folds import write_json
from fivefold.pipeline.prepare import Prepared
from fivefold.pipeline.run import MEMBERS, WEIGHTS, Run
from fivefold.pipeline.store import Store, read_json, reading
from fivefold.recipe import dump_recipe

log = logging.getLogger("fivefold")

SHARED = ("data", ENRICHMENT)
"""Stages of the ensemble that its members have too: with the same folds scores align."""


def fit_ensemble(store: Store, prepared: Prepared, fit_member: Callable[[Store, Prepared], None]) -> None:
    """The stages "ensemble" and "scores" that the store doesn't hold yet, and before them the members.

    Parameters
    ----------
    store
        Of the ensemble, with its stage "data".
    fit_member
        Adds to a member's store every stage it doesn't hold yet.
    """
    fit_members(store, prepared, fit_member)
    if not store.has("ensemble"):
        weigh(store, prepared.recipe.seed)
    if not store.has("scores"):
        mix_out_of_fold(store, prepared.recipe.seed)


def fit_members(store: Store, prepared: Prepared, fit_member: Callable[[Store, Prepared], None]) -> None:
    """Fit each member on the rows and folds of the ensemble; those that are finished stay as they are."""
    names = list(prepared.recipe.ensemble.members) if prepared.recipe.ensemble else []
    for number, name in enumerate(names, start=1):
        log.info("Member %s (%d of %d)", name, number, len(names))
        own, member = Store(store.folder / MEMBERS / name), member_of(prepared, name)
        with own.held():
            own.begin(member.fingerprint, dump_recipe(member.recipe), member.recipe.seed)
            share_data(store, own)
            fit_member(own, member)
        evaluation = Run.open(own.folder).evaluation
        log.info("  %s: %s %.4f", name, evaluation.metric, evaluation.headline.value)


def member_of(prepared: Prepared, name: str) -> Prepared:
    """The same rows under the recipe of a member; what is to be predicted is left to the ensemble."""
    recipe = prepared.recipe.member(name)
    digest = hashlib.sha256("\n".join([dump_recipe(recipe), prepared.fingerprint]).encode())
    return replace(prepared, recipe=recipe, test=None, fingerprint=digest.hexdigest())


def share_data(store: Store, member: Store) -> None:
    """Give a member the ensemble's stages `SHARED` that it doesn't hold yet."""
    for stage in SHARED:
        if store.has(stage) and not member.has(stage):
            with member.stage(stage) as folder:
                shutil.copytree(store.path(stage), folder, dirs_exist_ok=True)


def weigh(store: Store, seed: int) -> None:
    """The stage "ensemble": a weight a member, and those that mix the rows of each fold."""
    members = Run.open(store.folder).members
    rows = [member.out_of_fold for member in members.values()]
    found = fit_mixture([each.scores for each in rows], rows[0].labels, rows[0].folds, seed)
    weights = dict(zip(members, found.weights.tolist(), strict=True))
    with store.stage("ensemble") as folder:
        across = {str(part): each.tolist() for part, each in found.cross_fitted.items()}
        write_json(folder / WEIGHTS, {"weights": weights, "cross_fitted": across})
    log.info("Weights: %s", ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()))


def mix_out_of_fold(store: Store, seed: int) -> None:
    """The stage "scores": every row mixed by weights that the rows of its fold didn't choose."""
    rows = [member.out_of_fold for member in Run.open(store.folder).members.values()]
    path = store.path("ensemble") / WEIGHTS
    with reading(path):
        weights = {int(part): np.array(each) for part, each in read_json(path)["cross_fitted"].items()}
    with store.stage("scores") as folder:
        mixed = mix_parts([each.scores for each in rows], parts(rows[0].folds, seed), weights, folder / "oof.parquet")
        mixed.save(folder / "oof.parquet")

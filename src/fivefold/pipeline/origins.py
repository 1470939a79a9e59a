"""What a run is made from: the recipes of its models, the runs and weights that these begin with, all as one digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from fivefold.data.load import content_hash
from fivefold.models.backbones import contents
from fivefold.pipeline.store import Store
from fivefold.recipe import Recipe, dump_recipe


def single_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of every model: of each member, or the recipe itself."""
    return [recipe.member(name) for name in recipe.ensemble.members] if recipe.ensemble else [recipe]


def begun_runs(recipe: Recipe) -> list[Path]:
    """The runs whose weights are trained on."""
    named = []
    for single in single_recipes(recipe):
        named += [single.training.continue_from, single.training.adapter_from] if single.training else []
    return [Path(name) for name in named if name]


def local_weights(recipe: Recipe) -> list[Path]:
    """The folders and files of this machine that the recipe names as backbone, decoder or tokenizer."""
    named = [recipe.enrichment.backbone] if recipe.enrichment else []
    for single in single_recipes(recipe):
        shots = getattr(single.model, "shots", None)
        named += [getattr(single.model, key, None) for key in ("backbone", "decoder", "tokenizer")]
        named += [shots.backbone] if shots else []
    paths = {contents.local(name) for name in named}
    return sorted(path for path in paths if path is not None)


def fingerprint(
    recipe: Recipe, frames: Iterable[pl.DataFrame | None] = (), texts: Sequence[str] = (), beside: str = ""
) -> str:
    """SHA-256, in hex, of a whole recipe, of tables and texts, and of what the recipe begins with.

    Runs and folders of weights count by what they hold, hub ids by their name.
    """
    digests = [beside, dump_recipe(recipe), *(None if frame is None else content_hash(frame) for frame in frames)]
    digests += [digest_of(texts)]
    digests += [Store(run).description["fingerprint"] for run in begun_runs(recipe)]
    digests += [contents.digest(path) for path in local_weights(recipe)]
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def digest_of(texts: Sequence[str]) -> str:
    """SHA-256 of texts and their order, in hex."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()

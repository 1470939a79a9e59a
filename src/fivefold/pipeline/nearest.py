"""The stage "examples": the training rows that are most like each row, which a model may show before it.

The barriers are those of enrichment: the model of a fold sees rows that it trains on, and no row sees itself, a row
with its text, or a row of its group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import save_file

from fivefold.data.compose import Corpus, Near, Rows
from fivefold.data.folds import Folds
from fivefold.pipeline.enrichment import (
    NEIGHBOURS,
    Retriever,
    among_training_rows,
    arrays_of,
    load_neighbours,
    load_retriever,
    load_shelf,
    query_texts,
    save_retriever,
)
from fivefold.pipeline.prepare import Prepared
from fivefold.pipeline.store import Store, reading
from fivefold.recipe import Recipe
from fivefold.recipe.enrichment import EnrichmentSettings
from fivefold.recipe.generators import GeneratorSettings
from fivefold.retrieval.entries import NOBODY
from fivefold.retrieval.neighbours import Neighbours
from fivefold.retrieval.shelf import Shelf
from fivefold.scores import id_array
from fivefold.task import Labels

EXAMPLES, TEXTS = "examples", "texts.parquet"
"""The stage, and the file in it that holds the texts of all training rows."""

ANY = 1e-6
"""Cosine from which on a row may be an example: the most similar ones are taken, however far."""


def settings_of(recipe: Recipe) -> EnrichmentSettings | None:
    """How examples are searched for; None where none are."""
    shots = recipe.model.shots if isinstance(recipe.model, GeneratorSettings) and recipe.ensemble is None else None
    if shots is None or shots.take != "nearest":
        return None
    return EnrichmentSettings(query=shots.query, neighbours=shots.count, similarity=ANY, backbone=shots.backbone)


def rows_found(shelf: Shelf, found: Neighbours, view: int | None) -> npt.NDArray[np.int64]:
    """Of each neighbour the first row that may be seen and has its text, -1 for none; int64 (rows, most)."""
    seen = np.flatnonzero(shelf.rows(view) & (shelf.entries.of_row != NOBODY))
    entries, first = np.unique(shelf.entries.of_row[seen], return_index=True)
    row_of = np.full(len(shelf.entries) + 1, NOBODY, dtype=np.int64)
    row_of[entries] = seen[first]
    return row_of[found.entries]


@dataclass(frozen=True)
class NearCorpora:
    """The training rows with what the model of each fold may show before them."""

    corpus: Corpus
    shelf: Shelf
    folder: Path

    def __call__(self, fold: int) -> Corpus:
        """All rows, and of each the nearest that the fold trains on."""
        view = self.shelf.view(fold)
        found = load_neighbours(self.folder, view)
        return replace(self.corpus, near=Near(rows_found(self.shelf, found, view), self.corpus))


@dataclass(frozen=True)
class Nearest:
    """Finds the training rows that are most like new rows."""

    retriever: Retriever
    pool: Corpus

    def readings(self, rows: Rows, folds: Sequence[int]) -> list[Rows]:
        """New rows with the examples that the models of these folds show before them, one a fold."""
        shelf, settings = self.retriever.shelf, self.retriever.settings
        views = list(dict.fromkeys(shelf.view(fold) for fold in folds))
        found = self.retriever.find(query_texts({n: rows.texts(n) for n in rows.corpus.fields}, settings), views)
        plain = Corpus(rows.ids, {name: rows.texts(name) for name in rows.corpus.fields})
        return [replace(plain, near=Near(rows_found(shelf, found[view], view), self.pool)).rows() for view in views]


def with_examples(
    store: Store, prepared: Prepared, folds: Folds, read: Callable[[int], Corpus]
) -> Callable[[int], Corpus]:
    """The rows as each fold's model reads them, with examples where it shows the nearest; writes the stage if need be.

    Raises
    ------
    FivefoldError
        If they can't be found as the recipe says.
    """
    settings = settings_of(prepared.recipe)
    if settings is None:
        return read
    if not store.has(EXAMPLES):
        retriever, found = among_training_rows(prepared, settings, folds)
        with store.stage(EXAMPLES) as folder:
            save_retriever(retriever, folder)
            save_file(dict(arrays_of(found)), folder / NEIGHBOURS)
            pl.DataFrame({name: list(texts) for name, texts in prepared.corpus.fields.items()}).write_parquet(
                folder / TEXTS
            )
    folder = store.path(EXAMPLES)
    return NearCorpora(prepared.corpus, load_shelf(folder, settings, prepared.corpus.labels, folds), folder)


def load_nearest(
    store: Store, settings: EnrichmentSettings, ids: Sequence[str], labels: Labels, folds: Folds
) -> Nearest:
    """What finds examples for new rows; ids and labels are those of the training rows.

    Raises
    ------
    ArtefactError
        If it can't be read.
    """
    folder = store.path(EXAMPLES)
    with reading(folder):
        pool = Corpus(id_array(ids), pl.read_parquet(folder / TEXTS).to_dict(as_series=False), labels)
    return Nearest(load_retriever(folder, settings, labels, folds), pool)

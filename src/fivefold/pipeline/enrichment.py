"""The stage "enrichment": what can be found, the neighbours of every row, and rows with what these give.

Where neighbours come from the training rows, the model of a fold finds rows that it trains on, in training and ever
after; and no row finds itself, a row with its text, or a row of its group.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import load_file, save_file

from fivefold.data.columns import counted, require_columns
from fivefold.data.compose import Corpus, Rows
from fivefold.data.corpus import Replacements, field_texts
from fivefold.data.duplicates import near_duplicate_groups
from fivefold.data.folds import Folds
from fivefold.data.groups import merge_groups
from fivefold.errors import DataError, MissingExtraError
from fivefold.pipeline.prepare import Prepared
from fivefold.pipeline.store import MANIFEST, Store, file_digest, reading
from fivefold.recipe.enrichment import LABELS, EnrichmentSettings
from fivefold.retrieval.entries import NOBODY, Entries, entries_of
from fivefold.retrieval.index import HalfArray, Index, build_index
from fivefold.retrieval.neighbours import Neighbours, candidates, neighbours
from fivefold.retrieval.shelf import Shelf
from fivefold.task import IntArray, Labels

if TYPE_CHECKING:
    from fivefold.retrieval.embeddings import Embedder

log = logging.getLogger("fivefold")

ENRICHMENT = "enrichment"
"""The stage, and the recipe's section."""

ENTRIES, OFFERED, NEIGHBOURS, FOUND = "entries.parquet", "offered.parquet", "neighbours.safetensors", "found.json"

CATALOGUE = "catalogue"
"""What the neighbours of all folds are called, where they are the same."""


@dataclass(frozen=True)
class Retriever:
    """A shelf and the index over its entries: finds neighbours of any texts."""

    settings: EnrichmentSettings
    shelf: Shelf
    index: Index
    name: str = ""

    @cached_property
    def embed(self) -> Embedder:
        """Texts to vectors."""
        return embedder(self.settings)

    def find(self, texts: Sequence[str], views: Sequence[int | None]) -> dict[int | None, Neighbours]:
        """The neighbours of each text in each view of the shelf; texts that are the same are asked for once."""
        asked = entries_of(texts)
        barred = np.full(len(asked), NOBODY, dtype=np.int32)
        if self.shelf.folds is not None:
            barred = self.shelf.entries.barred_for(asked.texts)
        found = chosen(self, self.embed(asked.texts), barred, views)
        return {view: spread(each, asked.of_row) for view, each in found.items()}

    def readings(self, rows: Rows, folds: Sequence[int]) -> list[Rows]:
        """New rows as the models of these folds read them: one view that is all folds', or one a fold."""
        views = list(dict.fromkeys(self.shelf.view(fold) for fold in folds))
        found = rows.corpus.once(
            f"neighbours: {self.name}", lambda fields: self.find(query_texts(fields, self.settings), views)
        )
        plain = Corpus(rows.ids, {name: rows.texts(name) for name in rows.corpus.fields})
        extend, name = self.shelf.extended, self.settings.field
        return [extend(plain, name, found[view].take(rows.index), view).rows() for view in views]


@dataclass(frozen=True)
class Corpora:
    """The training rows as the model of each fold reads them, from the stage; one is held at a time."""

    corpus: Corpus
    settings: EnrichmentSettings
    shelf: Shelf
    folder: Path
    made: dict[int | None, Corpus] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, fold: int) -> Corpus:
        """All rows, with what those give that the fold trains on."""
        view = self.shelf.view(fold)
        if view not in self.made:
            self.made.clear()
            found = load_neighbours(self.folder, view)
            self.made[view] = self.shelf.extended(self.corpus, self.settings.field, found, view)
        return self.made[view]


@dataclass(frozen=True)
class Found:
    """How many rows have a neighbour, and quartiles of the nearest one's similarity."""

    rows: int
    found: int
    quartiles: tuple[float, float, float] | None

    def __str__(self) -> str:
        told = f"{self.found:,} of {counted(self.rows, 'row')} have a neighbour"
        if self.quartiles is None:
            return told
        return f"{told}; similarity of the nearest {' / '.join(f'{value:.2f}' for value in self.quartiles)} (quartiles)"


def corpora(store: Store, prepared: Prepared, folds: Folds) -> Callable[[int], Corpus]:
    """The rows as each fold's model reads them; writes the stage if the store doesn't hold it.

    Raises
    ------
    FivefoldError
        If neighbours can't be found as the recipe says.
    """
    settings = prepared.recipe.enrichment
    if settings is None:
        return lambda _: prepared.corpus
    write_stage(store, prepared, folds)
    shelf = load_shelf(store.path(ENRICHMENT), settings, prepared.corpus.labels, folds)
    return Corpora(prepared.corpus, settings, shelf, store.path(ENRICHMENT))


def write_stage(store: Store, prepared: Prepared, folds: Folds) -> None:
    """The stage "enrichment", where the recipe has such a section and the store doesn't hold it."""
    settings = prepared.recipe.enrichment
    if settings is None or store.has(ENRICHMENT):
        return
    if prepared.catalogue is None:
        retriever, found = among_training_rows(prepared, settings, folds)
    else:
        retriever = in_catalogue(prepared.catalogue, settings, prepared.recipe.data.replace)
        found = retriever.find(query_texts(prepared.corpus.fields, settings), [None])
        say_shared(retriever, prepared.corpus)
    first = next(iter(found.values()))
    log.info("  Neighbours among %s: %s", counted(len(retriever.index), "text"), told := coverage(first))
    with store.stage(ENRICHMENT) as folder:
        save_retriever(retriever, folder)
        save_file(dict(arrays_of(found)), folder / NEIGHBOURS)
        (folder / FOUND).write_text(json.dumps(asdict(told)), "utf-8")


def among_training_rows(
    prepared: Prepared, settings: EnrichmentSettings, folds: Folds
) -> tuple[Retriever, dict[int | None, Neighbours]]:
    """What finds neighbours among the training rows, and those of every row in each fold."""
    texts = query_texts(prepared.corpus.fields, settings)
    entries = filled(entries_of(texts, kept_together(prepared)), "data.train has no text in the columns to compare")
    offered = prepared.corpus.rows().labels if settings.take == LABELS else column(prepared.frame, settings, prepared)
    vectors = embedder(settings)(entries.texts)
    retriever = Retriever(settings, Shelf(entries, offered, folds.fold), build_index(vectors, settings.index))
    found = chosen(retriever, vectors, entries.groups, folds.evaluated)
    return retriever, {fold: spread(each, entries.of_row) for fold, each in found.items()}


def in_catalogue(catalogue: pl.DataFrame, settings: EnrichmentSettings, replace: Replacements) -> Retriever:
    """What finds neighbours in a catalogue.

    Raises
    ------
    DataError
        If it lacks a column, or has no text to compare with.
    """
    require_columns(catalogue, settings.match, "match (in the catalogue)")
    require_columns(catalogue, [settings.take], "take (in the catalogue)")
    texts = joined([field_texts(catalogue[name], replace) for name in settings.match])
    entries = filled(entries_of(texts), f"The catalogue has no text in {', '.join(settings.match)}")
    shelf = Shelf(entries, field_texts(catalogue[settings.take], replace))
    return Retriever(settings, shelf, build_index(embedder(settings)(entries.texts), settings.index))


def kept_together(prepared: Prepared) -> IntArray | None:
    """Groups of rows that stay in one fold and don't find each other: those of data.group, and near duplicates."""
    threshold, groups = prepared.recipe.folds.near_duplicates, prepared.groups
    if threshold is None:
        return groups
    alike = prepared.corpus.once(
        f"near duplicates of {threshold}",
        lambda fields: near_duplicate_groups(joined(list(fields.values())), threshold),
    )
    return alike if groups is None else merge_groups(groups, alike)


def chosen(
    retriever: Retriever, queries: HalfArray, barred: IntArray, views: Sequence[int | None]
) -> dict[int | None, Neighbours]:
    """The neighbours of each query in each view; what all views choose from is searched once."""
    settings, shelf, index = retriever.settings, retriever.shelf, retriever.index
    first = candidates(index, queries, settings.neighbours)
    return {
        view: neighbours(
            index,
            queries,
            settings.neighbours,
            settings.similarity,
            allowed=shelf.entries.held_by(shelf.rows(view)),
            groups=shelf.entries.groups,
            barred=barred,
            first=first,
        )
        for view in views
    }


def spread(found: Neighbours, of_row: IntArray) -> Neighbours:
    """Neighbours of distinct texts as those of the rows that have them; none for a row without text."""
    none = np.full((1, found.entries.shape[1]), NOBODY, dtype=np.int32)
    entries, similarity = np.concatenate([found.entries, none]), found.similarity
    return Neighbours(entries[of_row], np.concatenate([similarity, np.zeros_like(none, dtype=np.float32)])[of_row])


def embedder(settings: EnrichmentSettings) -> Embedder:
    """What makes vectors of texts.

    Raises
    ------
    MissingExtraError
        If a package that it needs isn't installed.
    """
    try:
        from fivefold.retrieval.embeddings import Embedder
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fivefold"):
            raise
        raise MissingExtraError(error.name, "enrich", "The section enrichment") from error
    return Embedder(settings.backbone)


def query_texts(fields: Mapping[str, Sequence[str]], settings: EnrichmentSettings) -> list[str]:
    """The text of each row that is compared, (rows,)."""
    return joined([fields[name] for name in settings.query or fields])


def joined(columns: Sequence[Sequence[str]]) -> list[str]:
    """Several columns as one text a row, (rows,); "" where none has any."""
    return ["\n".join(parts) if any(parts) else "" for parts in zip(*columns, strict=True)]


def column(frame: pl.DataFrame, settings: EnrichmentSettings, prepared: Prepared) -> list[str]:
    """The texts that training rows give, (rows,)."""
    require_columns(frame, [settings.take], "enrichment.take (in the training data)")
    return field_texts(frame[settings.take], prepared.recipe.data.replace)


def filled(entries: Entries, complaint: str) -> Entries:
    """The entries, if there are any."""
    if not len(entries):
        raise DataError(f"{complaint}, so no row can be found.", next_step="name other columns in enrichment")
    return entries


def say_shared(retriever: Retriever, corpus: Corpus) -> None:
    """Warn of rows that find themselves: what a catalogue says of them may have been written from their labels."""
    texts = query_texts(corpus.fields, retriever.settings)
    shared = int((retriever.shelf.entries.barred_for(texts) != NOBODY).sum())
    if shared:
        log.warning(
            "  %s have their own text in the catalogue: its column '%s' must not come from their labels.",
            counted(shared, "row"),
            retriever.settings.take,
        )


def coverage(found: Neighbours) -> Found:
    """How many rows have a neighbour, and how near."""
    best = found.best[found.entries[:, 0] != NOBODY]
    quartiles = tuple(round(float(value), 4) for value in np.quantile(best, (0.25, 0.5, 0.75))) if len(best) else None
    return Found(len(found), len(best), quartiles)  # type: ignore[arg-type]


def save_retriever(retriever: Retriever, folder: Path) -> None:
    """Write the index, the entries, and what rows give unless it is their labels, which the stage "data" has."""
    entries, offered = retriever.shelf.entries, retriever.shelf.offered
    retriever.index.save(folder)
    pl.DataFrame({"text": list(entries.texts), "group": entries.groups}).write_parquet(folder / ENTRIES)
    rows = pl.DataFrame({"entry": entries.of_row})
    if not isinstance(offered, Labels):
        rows = rows.with_columns(pl.Series("text", list(offered), dtype=pl.String))
    rows.write_parquet(folder / OFFERED)


def load_shelf(folder: Path, settings: EnrichmentSettings, labels: Labels | None, folds: Folds) -> Shelf:
    """What `save_retriever` wrote but for the index; `labels` and `folds` are those of the training rows.

    Raises
    ------
    ArtefactError
        If it can't be read.
    """
    with reading(folder):
        texts, rows = pl.read_parquet(folder / ENTRIES), pl.read_parquet(folder / OFFERED)
        entries = Entries(texts["text"].to_list(), rows["entry"].to_numpy(), texts["group"].to_numpy())
        offered: Any = labels if settings.take == LABELS else rows["text"].to_list()
        return Shelf(entries, offered, folds.fold if settings.catalogue is None else None)


def load_retriever(folder: Path, settings: EnrichmentSettings, labels: Labels, folds: Folds) -> Retriever:
    """What `save_retriever` wrote.

    Raises
    ------
    ArtefactError
        If it can't be read.
    """
    with reading(folder):
        index = Index.load(folder)
    return Retriever(settings, load_shelf(folder, settings, labels, folds), index, file_digest(folder / MANIFEST))


def arrays_of(found: Mapping[int | None, Neighbours]) -> Mapping[str, npt.NDArray[Any]]:
    """Neighbours by view as named arrays."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for view, each in found.items():
        arrays |= {f"entries.{name_of(view)}": each.entries, f"similarity.{name_of(view)}": each.similarity}
    return arrays


def load_neighbours(folder: Path, view: int | None) -> Neighbours:
    """The neighbours of all training rows in one view."""
    path = folder / NEIGHBOURS
    with reading(path):
        arrays = load_file(path)
        return Neighbours(arrays[f"entries.{name_of(view)}"], arrays[f"similarity.{name_of(view)}"])


def name_of(view: int | None) -> str:
    """What a view is called in files."""
    return CATALOGUE if view is None else str(view)

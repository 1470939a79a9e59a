"""A table with what its rows' neighbours in a catalogue give, without fitting anything."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fivefold.data.corpus import build_corpus
from fivefold.data.infer import infer
from fivefold.errors import DataError
from fivefold.pipeline.enrichment import Found, Retriever, coverage, in_catalogue, query_texts
from fivefold.pipeline.predict import write_table, writer
from fivefold.pipeline.prepare import read_source
from fivefold.recipe import build_recipe
from fivefold.recipe.enrichment import EnrichmentSettings
from fivefold.retrieval.neighbours import Neighbours

log = logging.getLogger("fivefold")

SHOWN = (0.9, 0.5, 0.1)
"""Examples are the rows whose nearest neighbour is more similar than this share of the others'."""

EXCERPT = 60


@dataclass(frozen=True)
class Enriched:
    """A table with the neighbours' field, how many rows have one, and (similarity, row, neighbour) of some of them."""

    frame: pl.DataFrame
    found: Found
    examples: tuple[tuple[float, str, str], ...]


def enrich_file(data: Any, out: Path, keys: Mapping[str, Any]) -> Enriched:
    """`enrich`, written at `out` by its ending.

    Raises
    ------
    FivefoldError
        As `enrich`, or if the ending isn't known.
    """
    writer(out)
    enriched = enrich(data, keys)
    write_table(enriched.frame, out)
    return enriched


def enrich(data: Any, keys: Mapping[str, Any]) -> Enriched:
    """The table with a field of its rows' neighbours in a catalogue, and the nearest one's similarity.

    Parameters
    ----------
    data
        A path or table.
    keys
        Of the recipe's section enrichment.

    Raises
    ------
    FivefoldError
        If a key is wrong, or a column isn't there.
    """
    frame = read_source(data)
    settings = checked(keys, infer(frame, labels=()).text if not keys.get("query") else keys["query"])
    added = [settings.field, f"{settings.field}_similarity"]
    if taken := [name for name in added if name in frame.columns]:
        raise DataError(f"The table has a column '{taken[0]}' already.", next_step="name another with --field")
    corpus = build_corpus(frame, text=settings.query)
    retriever = in_catalogue(read_source(settings.catalogue), settings, ())
    queries = query_texts(corpus.fields, settings)
    found = retriever.find(queries, [None])[None]
    texts, best = retriever.shelf.given(None).texts(found), pl.Series(found.best)
    columns = [pl.Series(texts, dtype=pl.String), best.set(best == 0, None)]
    frame = frame.with_columns(series.alias(name) for name, series in zip(added, columns, strict=True))
    return Enriched(frame, coverage(found), examples(retriever, queries, found))


def checked(keys: Mapping[str, Any], query: Sequence[str]) -> EnrichmentSettings:
    """The section, with the columns that are compared.

    Raises
    ------
    RecipeError
        With every problem.
    """
    section = {**keys, "query": list(query)}
    recipe = build_recipe({"data": {"text": list(query)}, "enrichment": section}, origin="the command")
    assert recipe.enrichment is not None
    log.info("  Compared: %s with %s", ", ".join(query), ", ".join(recipe.enrichment.match))
    return recipe.enrichment


def examples(retriever: Retriever, queries: Sequence[str], found: Neighbours) -> tuple[tuple[float, str, str], ...]:
    """Rows with a near, a middling and a far neighbour."""
    filled = np.flatnonzero(found.entries[:, 0] >= 0)
    order = filled[np.argsort(found.best[filled], kind="stable")]
    rows = dict.fromkeys(int(order[int(share * (len(order) - 1))]) for share in SHOWN if len(order))
    texts = retriever.shelf.entries.texts
    return tuple((float(found.best[row]), queries[row], texts[found.entries[row, 0]]) for row in rows)


def render(enriched: Enriched) -> str:
    """What was found, as lines for a terminal."""
    lines = [f"  {similarity:.2f}  {excerpt(row)} → {excerpt(near)}" for similarity, row, near in enriched.examples]
    return "\n".join([str(enriched.found), *lines])


def excerpt(text: str) -> str:
    """The start of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"

"""Look-alike data for the five shapes, drawn from a seed: for trying out, for tests and for the guide.

A linear TF-IDF model does clearly better than chance on each and clearly worse than perfect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fivefold.data.demo import narratives, preferences, products, topics, tweets
from fivefold.errors import DataError

__all__ = ["SHAPES", "demo", "write_demo"]

PARTS = ("train", "test", "unlabelled")


@dataclass(frozen=True)
class Shape:
    """How one shape is drawn, the columns that are its labels, and whether unlabelled rows are of use."""

    draw: Callable[[int, np.random.Generator], dict[str, list[Any]]]
    labels: tuple[str, ...]
    unlabelled: bool = True


SHAPES = {
    "narratives": Shape(narratives.narratives, narratives.LABELS),
    "preferences": Shape(preferences.preferences, preferences.LABELS, unlabelled=False),
    "products": Shape(products.products, products.LABELS),
    "topics": Shape(topics.topics, ("label",)),
    "tweets": Shape(tweets.tweets, tweets.LABELS),
}


def demo(shape: str, rows: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Labelled rows of one shape: id (String), texts (String), labels (0/1 as Int64, classes as String).

    - narratives: text_le, text_me, 21 findings (0/1), place (6 classes), cause (12 classes)
    - preferences: group, prompt, response_a, response_b, winner (a, b, tie); see `demo.preferences` for turns
    - products: title, price, retailer, supergroup > group > module (8, 25, 62 classes), brand (80 classes)
    - topics: text, label (8 classes)
    - tweets: text, eleven emotions (0/1)

    Raises
    ------
    DataError
        If there is no such shape, fewer than one row is asked for, or the seed is negative.
    """
    return _part(shape, rows, seed, "train")


def write_demo(shape: str, folder: Path, rows: int = 2000, seed: int = 0) -> dict[str, Path]:
    """Write train.csv, test.csv (a quarter as many, unlabelled) and, where models can use it, unlabelled.csv.

    Parameters
    ----------
    folder
        Where to write; made if it isn't there.
    rows
        Rows of train.csv and of unlabelled.csv.

    Returns
    -------
    The name of each part (train, test, unlabelled) to its path.

    Raises
    ------
    DataError
        As `demo`.
    """
    sizes = {"train": rows, "test": -(-rows // 4), "unlabelled": rows}
    tables = {part: _part(shape, sizes[part], seed, part) for part in PARTS}
    if not SHAPES[shape].unlabelled:
        del tables["unlabelled"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = {part: folder / f"{part}.csv" for part in tables}
    for part, table in tables.items():
        (table if part == "train" else table.drop(SHAPES[shape].labels)).write_csv(paths[part])
    return paths


def _part(shape: str, rows: int, seed: int, part: str) -> pl.DataFrame:
    """Rows of one part; no two parts share an id, a group or a draw."""
    if shape not in SHAPES:
        raise DataError(
            "There is no such demo data.", allowed=", ".join(SHAPES), got=shape, next_step="name one of these"
        )
    if rows < 1 or seed < 0:
        raise DataError(
            "Demo data needs at least one row, and a seed that isn't negative.",
            allowed="rows 1 or more, seed 0 or more",
            got=f"rows {rows}, seed {seed}",
            next_step="give other numbers",
        )
    generator = np.random.default_rng([seed, PARTS.index(part)])
    table = pl.DataFrame(SHAPES[shape].draw(rows, generator))
    return table.insert_column(0, pl.Series("id", [f"{part}-{row}" for row in range(rows)]))

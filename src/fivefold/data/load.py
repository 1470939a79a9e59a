"""Tables from files, the hub and other libraries, as one polars frame."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from fivefold.data.columns import as_text, listing
from fivefold.data.files import read_file
from fivefold.data.hub import download, from_dataset
from fivefold.errors import DataError

Source: TypeAlias = Any
"""A path, an `hf://` id, a polars, pandas or pyarrow table, a `datasets.Dataset`, or a list of these."""


def read_table(source: Source) -> pl.DataFrame:
    """The table that `source` names.

    Tables of a list are put one below the other. A column that some of them lack is missing there;
    a column that is text in one and numbers in another becomes text.

    Raises
    ------
    DataError
        If a source can't be read, or a column is a list in one table and a plain value in another.
    MissingExtraError
        If an `hf://` id is given and `datasets` isn't installed.
    """
    if isinstance(source, (list, tuple)):
        return _concatenated([read_table(part) for part in source], [_label_of(part) for part in source])
    if isinstance(source, str) and source.startswith("hf://"):
        source = download(source)
    if isinstance(source, (str, Path)):
        return _plain(read_file(Path(source).expanduser()))
    return _plain(_from_object(source))


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 of the cells as text, in hexadecimal; neither column order nor file format counts."""
    digest = hashlib.sha256()
    for name in sorted(frame.columns):
        texts = _cells_as_text(frame[name])
        lengths = texts.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy()
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(lengths).tobytes())
        digest.update("".join(texts.drop_nulls().to_list()).encode())
    return digest.hexdigest()


def _from_object(table: Any) -> pl.DataFrame:
    """A table of another library, told by its module so that none is imported needlessly."""
    library = type(table).__module__.split(".")[0]
    if library == "polars" and isinstance(table, (pl.DataFrame, pl.LazyFrame)):
        return table.lazy().collect()
    if library == "datasets":
        return from_dataset(table)
    if library == "pyarrow" and hasattr(table, "schema"):
        return pl.DataFrame(table)
    if library == "pandas" and hasattr(table, "columns"):
        return pl.DataFrame(pl.from_pandas(table.rename(columns=str)))
    raise DataError(
        "The source is no table.",
        allowed="a path, an hf:// id, a polars, pandas or pyarrow table, a datasets.Dataset, or a list of these",
        got=f"{type(table).__module__}.{type(table).__qualname__}",
        next_step="turn it into one of these",
    )


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Dictionary-coded columns as text."""
    if frame.height == 0:
        raise DataError(
            "The table has no rows.",
            got=f"columns {listing(frame.columns)}",
            next_step="add rows, or name another table",
        )
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def _label_of(source: Source) -> str:
    return str(source) if isinstance(source, (str, Path)) else f"a {type(source).__name__}"


def _concatenated(frames: Sequence[pl.DataFrame], labels: Sequence[str]) -> pl.DataFrame:
    if not frames:
        raise DataError("The list of sources is empty.", next_step="name at least one file")
    conflicts = [
        f"'{name}' ({_nesting(frames, labels, name)})"
        for name in dict.fromkeys(name for frame in frames for name in frame.columns)
        if len({frame[name].dtype.is_nested() for frame in frames if _filled(frame, name)}) > 1
    ]
    if conflicts:
        raise DataError(
            "Columns hold lists in one table and plain values in another: " + "; ".join(conflicts) + ".",
            next_step="write them alike in all files",
        )
    return pl.concat(frames, how="diagonal_relaxed")


def _filled(frame: pl.DataFrame, name: str) -> bool:
    return name in frame.columns and frame[name].dtype != pl.Null


def _nesting(frames: Sequence[pl.DataFrame], labels: Sequence[str], name: str) -> str:
    return ", ".join(
        f"{frame[name].dtype} in {label}" for frame, label in zip(frames, labels, strict=True) if _filled(frame, name)
    )


def _cells_as_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_nested():
        cells = [None if cell is None else repr(cell) for cell in column.to_list()]
        return pl.Series(column.name, cells, dtype=pl.String)
    return as_text(column)

"""Datasets of the Hugging Face hub, and the `datasets` library's objects."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl

from fivefold.errors import DataError, MissingExtraError

FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".gz")
CHATTY = ("httpx", "huggingface_hub")
PATTERN = "hf://owner/name/SPLIT, hf://owner/name/CONFIGURATION/SPLIT or hf://owner/name/path/to/file.csv"


def download(address: str) -> Any:
    """What an `hf://` address names: a `datasets.Dataset`, or the local path of a file.

    Raises
    ------
    MissingExtraError
        If `datasets` isn't installed.
    DataError
        If the address is malformed, the hub can't be reached, or it has no such dataset, split or file.
    """
    parts = address.removeprefix("hf://").strip("/").split("/")
    is_file = parts[-1].endswith(FILE_ENDINGS)
    if len(parts) < 3 or (not is_file and len(parts) > 4):
        raise DataError(
            f"'{address}' names no dataset's split or file.", allowed=PATTERN, next_step="add the split, such as /train"
        )
    repository, rest = "/".join(parts[:2]), parts[2:]
    try:
        # The library comes first: it sets its loggers' levels when it is imported.
        library = _library("huggingface_hub" if is_file else "datasets")
        with _quiet():
            if is_file:
                return library.hf_hub_download(repository, "/".join(rest), repo_type="dataset")
            return library.load_dataset(repository, *rest[:-1], split=rest[-1])
    except (OSError, ValueError, RuntimeError) as error:
        raise _unavailable(address, error) from error


def from_dataset(dataset: Any) -> pl.DataFrame:
    """The table of a `datasets.Dataset`; integer classes that have names take them.

    Raises
    ------
    DataError
        If it is a dictionary of splits or a stream.
    """
    if isinstance(dataset, dict):
        raise DataError(
            "A dictionary of splits was given instead of one table.",
            allowed=", ".join(f"dataset['{split}']" for split in dataset),
            next_step="give one of these, or a list of them",
        )
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"A {type(dataset).__name__} is a stream, not a table.", next_step="load the dataset without streaming=True"
        )
    frame = pl.DataFrame(dataset.with_format("arrow")[:])
    return frame.with_columns(_named(frame[name], feature) for name, feature in dataset.features.items())


def _named(column: pl.Series, feature: Any) -> pl.Series:
    names = getattr(feature, "names", None)
    inner = getattr(getattr(feature, "feature", None), "names", None)
    if names is not None:
        return _names_of(column, names)
    if inner is not None and isinstance(column.dtype, pl.List):
        cells = [None if cell is None else [inner[code] for code in cell] for cell in column.to_list()]
        return pl.Series(column.name, cells, dtype=pl.List(pl.String))
    return column


def _names_of(column: pl.Series, names: list[str]) -> pl.Series:
    """The hub writes -1 where the class is unknown."""
    return column.replace_strict(range(len(names)), names, default=None, return_dtype=pl.String)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that libraries write at each retry; our own message says it once."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError("datasets", "hub", "Reading an hf:// address") from None


def _unavailable(address: str, error: Exception) -> DataError:
    if isinstance(error, ConnectionError) or type(error).__name__ == "LocalEntryNotFoundError":
        return DataError(
            f"The hub can't be reached for '{address}', and there is no copy on this machine.",
            got=str(error).splitlines()[0],
            next_step="download it where there is a network and give the recipe the file's path; "
            "or copy that machine's hub cache here and point HF_HOME to it",
        )
    return DataError(
        f"'{address}' can't be loaded from the hub.",
        allowed=PATTERN,
        got=str(error),
        next_step="check the address on the dataset's page",
    )

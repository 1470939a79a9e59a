"""What every model says: logits with row ids, and nothing of torch.

A binary's logit is its log-odds, a categorical's are log-probabilities, so that thresholds,
calibration, ensembles, distillation and metrics need not know which model spoke.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.errors import ArtefactError, DataError
from fivefold.task import FloatArray, Task

WIDE = 1000
"""From so many logits a row on, they are kept as one memory-mapped array instead of Parquet columns."""

CHUNK = 4096
"""Rows worked on at once where logits are wide."""

EDGE = 1e-7
"""Probabilities are kept this far from 0 and 1, so that logits are finite in float32."""


@dataclass(frozen=True)
class Scores:
    """Logits of many rows.

    Parameters
    ----------
    task
        What the columns mean.
    ids
        Row ids as strings, (rows,).
    logits
        float32 (rows, task.width); may be memory-mapped. Log-odds for a binary,
        log-probabilities for a categorical.
    """

    task: Task
    ids: npt.NDArray[Any]
    logits: FloatArray

    def __post_init__(self) -> None:
        expected = (len(self.ids), self.task.width)
        if self.logits.shape != expected:
            raise ValueError(f"logits must have shape {expected}. Got {self.logits.shape} instead.")

    def __len__(self) -> int:
        return len(self.ids)

    def block(self, name: str) -> FloatArray:
        """Logits of one target, a view of (rows, width)."""
        return self.logits[:, self.task.slices[name]]

    @property
    def binary(self) -> FloatArray:
        """Log-odds of the binaries, (rows, binaries)."""
        return self.logits[:, self.task.binary_columns]

    def chunks(self, rows: int = CHUNK) -> Iterator[Scores]:
        """The same scores, `rows` at a time."""
        for start in range(0, len(self), rows):
            part = slice(start, start + rows)
            yield Scores(self.task, self.ids[part], self.logits[part])

    def take(self, index: npt.NDArray[Any]) -> Scores:
        """The rows at `index` (positions or a boolean mask)."""
        return Scores(self.task, self.ids[index], self.logits[index])

    def probabilities(self) -> FloatArray:
        """float32 (rows, width): sigmoid of a binary's log-odds, softmax within a categorical."""
        return to_probabilities(self.task, self.logits)

    def align(self, ids: Sequence[str] | npt.NDArray[Any]) -> Scores:
        """The same scores in the order of `ids`.

        Raises
        ------
        DataError
            If an id isn't here, or is here more than once.
        """
        position = {name: row for row, name in enumerate(self.ids)}
        lost = [str(name) for name in ids if name not in position]
        if lost or len(position) < len(self.ids):
            raise DataError(
                "Scores and rows don't match by id.",
                got=f"{len(lost)} ids without a score, such as {lost[:3]}" if lost else "ids that occur twice",
                next_step="score the same rows, with ids that are unique",
            )
        return self.take(np.array([position[name] for name in ids], dtype=np.int64))

    def save(self, path: Path) -> None:
        """Write `path` (Parquet: id and a column a logit), or ids there and logits in `path`.npy if wide."""
        frame = pl.DataFrame({"id": pl.Series(self.ids.tolist(), dtype=pl.String)})
        if self.task.width < WIDE:
            columns = (pl.Series(name, self.logits[:, i]) for i, name in enumerate(self.task.columns))
            frame = frame.with_columns(columns)
        elif not self._lies_at(block_path(path)):
            np.save(block_path(path), np.asarray(self.logits, dtype=np.float32))
        frame.write_parquet(path)

    def _lies_at(self, path: Path) -> bool:
        """Whether the logits are memory-mapped from `path` itself; then what was filled in is flushed."""
        mapped: Any = self.logits
        if not (isinstance(mapped, np.memmap) and str(mapped.filename) == str(path.resolve())):
            return False
        mapped.flush()
        return True

    @staticmethod
    def load(path: Path, task: Task) -> Scores:
        """Read what `save` wrote; wide logits stay on disk, memory-mapped.

        Raises
        ------
        ArtefactError
            If the file doesn't hold this task's columns.
        """
        if task.width < WIDE:
            frame = pl.read_parquet(path)
            if frame.columns != ["id", *task.columns]:
                raise ArtefactError(f"{path} holds the scores of another task.", got=", ".join(frame.columns[:8]))
            logits = np.ascontiguousarray(frame.select(task.columns).to_numpy().astype(np.float32))
        else:
            frame = pl.read_parquet(path, columns=["id"])
            logits = np.load(block_path(path), mmap_mode="r", allow_pickle=False)
        return Scores(task, id_array(frame["id"].to_list()), logits)


def block_path(path: Path) -> Path:
    """Where the wide logits of the scores at `path` lie."""
    return path.with_suffix(".npy")


def empty(task: Task, ids: npt.NDArray[Any], path: Path) -> Scores:
    """Zeroed scores to be filled in; memory-mapped at `path` where wide, else in memory."""
    shape = (len(ids), task.width)
    if task.width < WIDE:
        return Scores(task, ids, np.zeros(shape, dtype=np.float32))
    logits = np.lib.format.open_memmap(block_path(path), mode="w+", dtype=np.float32, shape=shape)
    reserve(block_path(path))
    return Scores(task, ids, logits)


def reserve(path: Path) -> None:
    """Take the file's space on disk now: a full disk is then an error here, not a crash when memory is written back."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def id_array(ids: Sequence[Any]) -> npt.NDArray[Any]:
    """Ids as an array of strings, (rows,)."""
    array = np.empty(len(ids), dtype=object)
    array[:] = [str(name) for name in ids]
    return array


def to_probabilities(task: Task, logits: FloatArray) -> FloatArray:
    """Logits (rows, width) to probabilities (rows, width)."""
    result = np.empty(logits.shape, dtype=np.float32)
    result[:, task.binary_columns] = sigmoid(logits[:, task.binary_columns])
    for target in task.categoricals:
        columns = task.slices[target.name]
        result[:, columns] = np.exp(log_softmax(logits[:, columns]))
    return result


def to_logits(task: Task, probabilities: FloatArray) -> FloatArray:
    """Probabilities (rows, width) to logits (rows, width); clipped to stay finite."""
    clipped = np.clip(probabilities, EDGE, 1 - EDGE).astype(np.float32)
    result = np.log(clipped)
    binary = clipped[:, task.binary_columns]
    result[:, task.binary_columns] = np.log(binary) - np.log1p(-binary)
    return normalised(task, result)


def normalised(task: Task, logits: FloatArray) -> FloatArray:
    """The same array, each categorical's logits (rows, classes) made log-probabilities in place."""
    for target in task.categoricals:
        columns = task.slices[target.name]
        logits[:, columns] = log_softmax(logits[:, columns])
    return logits


def both_orders(task: Task, logits: FloatArray, swapped: FloatArray) -> FloatArray:
    """Mean logits (rows, width) of rows and of the same rows with fields exchanged: swapping a row swaps its scores."""
    return normalised(task, (logits + swapped[:, task.swap_order]) * np.float32(0.5))


def mean(parts: Sequence[Scores]) -> Scores:
    """Mean of several models' probabilities for the same rows, as logits."""
    total = sum((part.probabilities() for part in parts[1:]), parts[0].probabilities())
    return Scores(parts[0].task, parts[0].ids, to_logits(parts[0].task, total / np.float32(len(parts))))


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-logits)) without overflow; the shape of `logits`."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities of each row of (rows, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float32)

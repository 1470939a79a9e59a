"""What every family of classifiers can do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fivefold.data.compose import Rows
from fivefold.scores import Scores

PARITY_ROWS = 256
"""Held-out rows whose logits are compared after the model is saved and loaded again."""


@dataclass(frozen=True)
class Cost:
    """What a fit is expected to take.

    Parameters
    ----------
    seconds
        Of one fold.
    bytes
        At its peak.
    shared_seconds
        What is done once for all folds.
    parameters, trained
        Weights of a network, and those of them that learn; 0 for other models.
    room
        Bytes that are free for folds; None where nobody says.
    """

    seconds: float
    bytes: float
    shared_seconds: float = 0.0
    parameters: int = 0
    trained: int = 0
    room: float | None = None


@dataclass(frozen=True)
class History:
    """What training did: figures by name, and remarks worth saying aloud."""

    figures: Mapping[str, float]
    remarks: tuple[str, ...] = ()


class Classifier(Protocol):
    """A model of one fold; TF-IDF and a 70B decoder look alike from here."""

    def cost(self, train: Rows) -> Cost:
        """What `fit` on these rows is expected to take, without starting it."""
        ...

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        """Learn from `train`; `valid` may steer when to stop, never what is learnt.

        `scratch` survives a kill: with what is there the same call goes on where it was. After `load` a family that
        learns by steps goes on from the weights that were loaded.
        """
        ...

    def score(self, rows: Rows) -> Scores:
        """Logits of `rows`; a row's logits depend on that row alone."""
        ...

    def explain(self, rows: Rows, most: int) -> Mapping[str, list[tuple[str, float]]]:
        """Label to its `most` strongest features and their weights; empty where a family has none."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything `load` needs: safetensors, JSON and text only."""
        ...

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote."""
        ...


def threads(variable: str = "OMP_NUM_THREADS") -> int:
    """Threads that this environment variable allows, or as many as there are cores for this process."""
    named = os.environ.get(variable, "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

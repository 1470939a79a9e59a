"""The families by name. A new family is a file that satisfies `Classifier` and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fivefold.models.base import Classifier
from fivefold.task import Task

FAMILIES = {
    "linear": "fivefold.models.linear:LinearClassifier",
    "feedforward": "fivefold.models.feedforward:FeedForwardClassifier",
    "encoder": "fivefold.models.encoder:EncoderClassifier",
}
"""Family to the class that implements it, imported when asked for."""


def maker(task: Task, family: str, seed: int, settings: Mapping[str, Any]) -> Callable[[], Classifier]:
    """A function that makes an unfitted classifier of `family` with plain settings."""
    module, name = FAMILIES[family].split(":")
    made: Callable[[], Classifier] = partial(
        getattr(importlib.import_module(module), name), task=task, seed=seed, **settings
    )
    return made

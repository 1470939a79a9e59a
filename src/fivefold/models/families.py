"""The families by name. A new family is a file that satisfies `Classifier` and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fivefold.data.compose import Rows
from fivefold.errors import MissingExtraError
from fivefold.models.base import Classifier
from fivefold.scores import Scores
from fivefold.task import Task

FAMILIES = {
    "linear": "fivefold.models.linear.classifier:LinearClassifier",
    "feedforward": "fivefold.models.networks.feedforward:FeedForwardClassifier",
    "encoder": "fivefold.models.encoder.classifier:EncoderClassifier",
    "decoder": "fivefold.models.decoder.classifier:DecoderClassifier",
    "generator": "fivefold.models.generator.remote:generator",
}
"""Family to the class that implements it, or a function that chooses one, imported when asked for."""

EXTRAS = {"feedforward": "neural", "encoder": "neural", "decoder": "llm", "generator": "llm"}
"""What installs the packages that a family imports."""


def family_class(family: str) -> Callable[..., Classifier]:
    """The class that implements a family.

    Raises
    ------
    MissingExtraError
        If a package that it needs isn't installed.
    """
    module, name = FAMILIES[family].split(":")
    try:
        found: Callable[..., Classifier] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fivefold"):
            raise
        raise MissingExtraError(error.name, EXTRAS.get(family), f"The family '{family}'") from error
    return found


def scores_of(models: Sequence[Classifier], rows: Rows) -> list[Scores]:
    """What each model of a run says of `rows`; a family may let its models say it together where that is faster."""
    together = getattr(type(models[0]), "score_together", None)
    found: list[Scores] | None = together(models, rows) if together else None
    return found or [model.score(rows) for model in models]


def maker(task: Task, family: str, seed: int, settings: Mapping[str, Any]) -> Callable[[], Classifier]:
    """A function that makes an unfitted classifier of `family` with plain settings."""
    return partial(family_class(family), task=task, seed=seed, **settings)

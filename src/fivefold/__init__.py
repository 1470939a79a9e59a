"""Fivefold: labelled text in, the best classifier you can deploy out.

>>> import fivefold
>>> run = fivefold.fit(data="tweets.csv", out="runs/tweets")   # doctest: +SKIP
>>> run.predict(["what a day!"])                               # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fivefold.errors import FivefoldError
    from fivefold.estimator import FivefoldClassifier
    from fivefold.pipeline.compare import compare_runs as compare
    from fivefold.pipeline.compare import evaluate_run as evaluate
    from fivefold.pipeline.fit import fit
    from fivefold.pipeline.pretrain import pretrain
    from fivefold.pipeline.run import Run, load
    from fivefold.recipe import Recipe
    from fivefold.scores import Scores
    from fivefold.task import Task

__version__ = "0.1.0"

__all__ = [
    "FivefoldClassifier",
    "FivefoldError",
    "Recipe",
    "Run",
    "Scores",
    "Task",
    "compare",
    "evaluate",
    "fit",
    "load",
    "pretrain",
]

_HOMES = {
    "FivefoldClassifier": "fivefold.estimator:FivefoldClassifier",
    "FivefoldError": "fivefold.errors:FivefoldError",
    "Recipe": "fivefold.recipe:Recipe",
    "Run": "fivefold.pipeline.run:Run",
    "Scores": "fivefold.scores:Scores",
    "Task": "fivefold.task:Task",
    "compare": "fivefold.pipeline.compare:compare_runs",
    "evaluate": "fivefold.pipeline.compare:evaluate_run",
    "fit": "fivefold.pipeline.fit:fit",
    "load": "fivefold.pipeline.run:load",
    "pretrain": "fivefold.pipeline.pretrain:pretrain",
}


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `fivefold --help` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fivefold' has no attribute '{name}'")
    module, attribute = _HOMES[name].split(":")
    return getattr(importlib.import_module(module), attribute)

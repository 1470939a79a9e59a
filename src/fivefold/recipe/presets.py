"""Presets: which models to fit, said in a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fivefold.errors import RecipeError

CHOOSING = ("model", "ensemble")
"""Sections that choose models; a recipe that has one leaves nothing to choose for a preset."""


@dataclass(frozen=True)
class Preset:
    """Sections of a recipe under a name.

    Parameters
    ----------
    meaning
        What is fitted.
    needs
        What must be there for it.
    sections
        Laid under the recipe's own.
    """

    meaning: str
    needs: str
    sections: Mapping[str, Any]


def _encoder(backbone: str | None, learning_rate: float, head_learning_rate: float) -> dict[str, Any]:
    named = {} if backbone is None else {"backbone": backbone}
    return {
        "model": {"family": "encoder", **named},
        "training": {"epochs": 3, "learning_rate": learning_rate, "head_learning_rate": head_learning_rate},
    }


LINEAR = {"model": {"family": "linear"}}
MINILM = _encoder(None, 2e-4, 1e-3)
MPNET = _encoder("sentence-transformers/all-mpnet-base-v2", 5e-5, 5e-4)
DEBERTA = _encoder("microsoft/deberta-v3-base", 2e-5, 2e-4)

PRESETS: Mapping[str, Preset] = {
    "fast": Preset("a linear model", "a CPU", LINEAR),
    "balanced": Preset(
        "a linear model and MiniLM, fine-tuned",
        "the extra neural; a CPU does for a few thousand short texts",
        {"ensemble": {"members": {"linear": LINEAR, "minilm": MINILM}}},
    ),
    "best": Preset(
        "a linear model, MiniLM, all-mpnet-base-v2 and deberta-v3-base, each fine-tuned",
        "the extra neural, a GPU, and the Hub for the last two (440 MB and 370 MB), once",
        {"ensemble": {"members": {"linear": LINEAR, "minilm": MINILM, "mpnet": MPNET, "deberta": DEBERTA}}},
    ),
}
"""Presets by name, the quickest first."""


def on_preset(plain: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The sections of a recipe on top of those of a preset.

    Raises
    ------
    RecipeError
        If there is no such preset, or the recipe chooses its models itself.
    """
    if name not in PRESETS:
        raise RecipeError(f"There is no preset '{name}'.", allowed=", ".join(PRESETS))
    chosen = [section for section in CHOOSING if plain.get(section)]
    if chosen:
        raise RecipeError(
            f"The preset '{name}' chooses the models, and so does the recipe's section '{chosen[0]}'.",
            next_step="leave out one of them",
        )
    own = {key: value for key, value in plain.items() if key not in CHOOSING}
    return {**PRESETS[name].sections, **own}

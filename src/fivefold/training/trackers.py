"""Experiment trackers through Accelerate: curves also go where a team looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from fivefold.errors import MissingExtraError

PROJECT = "fivefold"
"""What trackers call the project."""

SHIPPED = "trackio"
"""The one that the extra `track` installs."""

PACKAGES = {"comet_ml": "comet-ml"}
"""Trackers whose package has another name."""


def require_trackers(names: tuple[str, ...]) -> None:
    """Refuse trackers whose package isn't there, before anything is trained.

    Raises
    ------
    MissingExtraError
        Naming the package.
    """
    there = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in there:
            extra = "track" if name == SHIPPED else None
            raise MissingExtraError(PACKAGES.get(name, name), extra, f"The tracker '{name}'")


def started(accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
    """Begin a tracked run; settings that trackers can't hold become text."""
    plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()}
    accelerator.init_trackers(PROJECT, config=plain)

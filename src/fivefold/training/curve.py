"""The learning curve as JSON lines, readable while training runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CURVE = "learning.jsonl"
"""File of one training's curve: lines with a loss and a rate, and lines with a validation score."""

TRACKED = "trackers"
"""Folder beside it that trackers write into."""


class Curve:
    """Lines with at least "step" and "epoch", in the order of the steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one more line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep(self, lines: int) -> None:
        """Drop all but so many lines: those of later steps, which will be taken again."""
        if not self.path.exists():
            return
        kept = self.path.read_text("utf-8").splitlines(keepends=True)[:lines]
        beside = self.path.with_name(f".{self.path.name}.partial")
        beside.write_text("".join(kept), encoding="utf-8")
        beside.replace(self.path)

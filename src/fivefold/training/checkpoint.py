"""Checkpoints from which a killed training goes on as if nothing had happened: safetensors and JSON only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS, OPTIMISER, AVERAGE = "weights", "optimiser", "average"
PLAIN = "plain.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was read: tensors by kind and name, and plain values."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    plain: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps taken before it was written."""
        return int(self.plain["progress"]["step"])


class Checkpoints:
    """The checkpoints of one training: the newest, and the one before it that was written while all was well.

    Their names count up, so that going back to an earlier step never writes over what it goes back to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, tensors: Mapping[str, Mapping[str, Tensor]], plain: Mapping[str, Any]) -> None:
        """Write beside and rename, then delete what nothing needs any more.

        `plain` says under "well" whether this is a place to come back to, and under "progress" at which "step" it is.
        """
        written = self._written()
        number = int(written[0].name) + 1 if written else 0
        partial = self.folder / f".{number:08d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for kind, named in tensors.items():
            on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
            save_file(on_cpu, partial / f"{kind}.safetensors")
        (partial / PLAIN).write_text(json.dumps({**plain, "kinds": sorted(tensors)}), encoding="utf-8")
        partial.rename(self.folder / f"{number:08d}")
        self._tidy()

    def newest(self) -> Checkpoint | None:
        """The newest that can be read, or None."""
        return _first(self._written())

    def good(self) -> Checkpoint | None:
        """The newest that was written while all was well, or None."""
        return _first(self._well())

    def furthest(self) -> Checkpoint | None:
        """Of those that were written while all was well the one with the most steps, or None."""
        return _first(sorted(self._well(), key=lambda path: -_plain(path)["progress"]["step"]))

    def _written(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("[0-9]*"), reverse=True)

    def _well(self) -> list[Path]:
        return [path for path in self._written() if _plain(path).get("well")]

    def _tidy(self) -> None:
        newest, *older = self._written()
        kept = {newest, *[path for path in self._well() if path != newest][:1]}
        for path in set(older) - kept:
            shutil.rmtree(path)


def _first(folders: Iterable[Path]) -> Checkpoint | None:
    return next(filter(None, map(_read, folders)), None)


def _read(folder: Path) -> Checkpoint | None:
    plain = _plain(folder)
    try:
        return Checkpoint({kind: load_file(folder / f"{kind}.safetensors") for kind in plain["kinds"]}, plain)
    except (OSError, KeyError, SafetensorError):
        return None


def _plain(folder: Path) -> dict[str, Any]:
    """The plain values; none if the file is damaged."""
    try:
        return dict(json.loads((folder / PLAIN).read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors named "position.key"."""
    state = optimiser.state_dict()["state"]
    return {
        f"{position}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for position, entries in state.items()
        for key, value in entries.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took; rates aren't part of it."""
    plain = optimiser.state_dict()
    plain["state"] = {}
    for name, value in tensors.items():
        position, key = name.split(".", 1)
        plain["state"].setdefault(int(position), {})[key] = value
    optimiser.load_state_dict(plain)


@torch.no_grad()
def restore_weights(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy weights by name into parameters of the same names."""
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])

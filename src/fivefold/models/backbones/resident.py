"""Backbones held once in memory, however many adapters of folds stand on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from peft.tuners.lora import LoraLayer

from fivefold.models.backbones.adapters import Adapter, attach
from fivefold.models.backbones.backbone import Backbone, Origin, load_decoder
from fivefold.models.backbones.places import resolve

TRAINED = "default"
"""Name of the adapter that is trained. Checkpoints hold it, so it must be the same in every process."""


class Resident:
    """A backbone and the names of the adapters on it, of which one is active at a time."""

    def __init__(self, loaded: Backbone) -> None:
        self.loaded = loaded
        self.names: set[str] = set()
        self.active: str | None = None

    @property
    def layers(self) -> list[Any]:
        """Its modules with adapters."""
        return [module for module in self.loaded.model.modules() if isinstance(module, LoraLayer)]

    def attach(self, adapter: Adapter, name: str, seed: int) -> None:
        """Put a fresh adapter beside those that are there, and make it the active one."""
        attach(self.loaded.model, adapter, seed, name)
        self.names.add(name)
        self.activate(name)

    def activate(self, name: str) -> None:
        """Have this adapter alone add to the backbone, and learn."""
        if self.active != name:
            for layer in self.layers:
                layer.set_adapter([name])
            self.active = name

    def drop(self, name: str) -> None:
        """Take an adapter off."""
        for layer in self.layers:
            if name in layer.active_adapters:
                layer.set_adapter([])  # else PEFT takes another, and warns
            layer.delete_adapter(name)
        self.loaded.model.peft_config.pop(name, None)
        self.names.discard(name)
        self.active = None

    def free_name(self) -> str:
        """A name that no adapter has, other than that of the trained one."""
        return next(name for number in itertools.count() if (name := f"other{number}") not in self.names)


Key = tuple[Origin, str, tuple[tuple[str, int, int], ...]]

_residents: WeakValueDictionary[tuple[str, *Key], Resident] = WeakValueDictionary()


def resident(
    origin: Origin, tokenizer: Any, *, seed: int, trained: bool, load: Callable[..., Backbone] = load_decoder
) -> Resident:
    """The backbone at `origin`, from memory if it is there.

    Parameters
    ----------
    trained
        Whether its adapter will be trained: a backbone that holds a trained one already is then loaded again.
    load
        What loads it: without its head for the next token, or with it.

    Raises
    ------
    FivefoldError
        If it can't be had.
    """
    key = (load.__name__, *key_of(origin))
    found = _residents.get(key)
    if found is None or (trained and TRAINED in found.names):
        found = Resident(load(origin, tokenizer, seed=seed))
        _residents[key] = found
    return found


def key_of(origin: Origin) -> Key:
    """What tells backbones apart: where one lies, how it is held, and whether its files are still the same."""
    place = resolve(origin.name)
    folder = Path(place.name)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    about = [(path.name, path.stat()) for path in files]
    where = str(folder.resolve()) if folder.is_dir() else place.name
    return origin, where, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in about)

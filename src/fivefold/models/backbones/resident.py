"""Backbones held once in memory, however many adapters of folds stand on them."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

from peft.tuners.lora import LoraLayer

from fivefold.models.backbones.adapters import Adapter, attach
from fivefold.models.backbones.backbone import Backbone, Origin, load_decoder

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
            layer.delete_adapter(name)
        self.loaded.model.peft_config.pop(name, None)
        self.names.discard(name)
        self.active = None

    def free_name(self) -> str:
        """A name that no adapter has, other than that of the trained one."""
        return next(name for number in itertools.count() if (name := f"other{number}") not in self.names)


_residents: WeakValueDictionary[Origin, Resident] = WeakValueDictionary()


def resident(origin: Origin, tokenizer: Any, *, seed: int, trained: bool) -> Resident:
    """The backbone at `origin`, from memory if it is there.

    Parameters
    ----------
    trained
        Whether its adapter will be trained: a backbone that holds a trained one already is then loaded again.

    Raises
    ------
    FivefoldError
        If it can't be had.
    """
    found = _residents.get(origin)
    if found is None or (trained and TRAINED in found.names):
        found = Resident(load_decoder(origin, tokenizer, seed=seed))
        _residents[origin] = found
    return found

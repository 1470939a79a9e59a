"""Several adapters on one backbone in a single pass, which then reads the backbone's weights once for all of them.

After PEFT's "Inference with different LoRA adapters in the same batch", which picks rows by index in every layer and so
gains little; here each adapter has a share of the batch, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor

from fivefold.models.backbones.passes import real_first
from fivefold.models.backbones.resident import Resident
from fivefold.models.decoder.net import AdaptedNet

PLAIN = frozenset({"LeanLinear", "Linear", "Linear4bit"})
"""PEFT's layers that add an adapter's product to the backbone's and look at no other row."""


def stand_together(nets: Sequence[Any]) -> bool:
    """Whether these nets are plain adapters on one backbone, and none of them keeps a prefix of its own."""
    if len(nets) < 2 or not all(isinstance(net, AdaptedNet) and not len(net.prefix) for net in nets):
        return False
    homes = {id(net.resident) for net in nets}
    return len(homes) == 1 and all(_plain(layer, nets) for layer in nets[0].resident.layers)


def logits_together(nets: Sequence[AdaptedNet], batch: dict[str, Tensor]) -> list[Tensor]:
    """What each net says of a batch, fp32 (rows, width) each; the batch as in `PooledNet.forward`."""
    sequences = real_first(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    (each,) = nets[0].passes(sequences)
    repeated = {name: block.repeat(len(nets), 1) for name, block in each.inputs.items()}
    with shared(nets[0].resident, [net.name for net in nets]):
        hidden = nets[0].backbone(**repeated).last_hidden_state.float()
    return [
        net.classify(net.pool(share, each.mask), batch["part"], batch["owner"])
        for net, share in zip(nets, hidden.chunk(len(nets)), strict=True)
    ]


@contextmanager
def shared(resident: Resident, names: Sequence[str]) -> Iterator[None]:
    """Within, each of these adapters adds to its own share of a batch's rows, in this order."""

    def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shares = zip(names, inputs[0].chunk(len(names)), output.chunk(len(names)), strict=True)
        return torch.cat([own + _added(layer, name, share).to(own.dtype) for name, share, own in shares])

    layers = resident.layers
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for hook, layer in zip(hooks, layers, strict=True):
            hook.remove()
            layer.enable_adapters(True)


def _added(layer: Any, name: str, inputs: Tensor) -> Tensor:
    first, second = layer.lora_A[name], layer.lora_B[name]
    product: Tensor = second(first(inputs.to(first.weight.dtype))) * layer.scaling[name]
    return product


def _plain(layer: Any, nets: Sequence[AdaptedNet]) -> bool:
    named = all(net.name in layer.lora_A and net.name not in layer.lora_variant for net in nets)
    return isinstance(layer, lora.LoraLayer) and type(layer).__name__ in PLAIN and named

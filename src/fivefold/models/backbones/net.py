"""What nets over a backbone share: which weights train, and how deep they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from torch import nn

from fivefold.errors import FivefoldError
from fivefold.models.backbones.architectures import layer_count, modules_up_to, parameters_by_depth
from fivefold.models.backbones.backbone import Attention
from fivefold.models.backbones.passes import Passes


class Net(nn.Module):
    """What nets over a backbone share: which weights train, and how deep they lie.

    Parameters
    ----------
    backbone
        A transformers model.
    attention
        BigBird's attention, see `Passes`.
    unfrozen_layers
        Train only so many top layers and what is above them; None: everything.

    Raises
    ------
    FivefoldError
        If more layers are to be trained than there are.
    """

    def __init__(self, backbone: Any, *, attention: Attention, unfrozen_layers: int | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.passes = Passes(backbone, attention)
        self.frozen_depth = -1
        if unfrozen_layers is not None:
            self._freeze(unfrozen_layers)

    @property
    def trunk(self) -> Any:
        """The backbone without a head of its own."""
        return self.backbone.base_model

    def layers(self) -> list[dict[str, nn.Parameter]]:
        """All weights by name and depth: embeddings, each layer from the bottom up, head; frozen ones don't ask for
        gradients."""
        trunk = parameters_by_depth(self.trunk)
        depths = {id(parameter): depth for depth, group in enumerate(trunk) for parameter in group.values()}
        groups: list[dict[str, nn.Parameter]] = [{} for _ in range(len(trunk) + 1)]
        for name, parameter in self.named_parameters():
            groups[depths.get(id(parameter), len(trunk))][name] = parameter
        return groups

    def gradient_checkpointing_enable(self) -> None:
        """Compute activations of each layer again in the backward pass instead of holding them.

        Raises
        ------
        FivefoldError
            If the architecture can't.
        """
        if not self.backbone.supports_gradient_checkpointing:
            raise FivefoldError(
                f"A '{self.backbone.config.model_type}' backbone can't be trained with gradient checkpointing.",
                next_step="leave training.gradient_checkpointing out of the recipe and lower training.tokens_per_pass",
            )
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def gradient_checkpointing_disable(self) -> None:
        """Hold activations again: the backbone may have been another net's before."""
        if getattr(self.backbone, "is_gradient_checkpointing", False):
            self.backbone.gradient_checkpointing_disable()

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; frozen modules stay as in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.train(False)
        return self

    def _freeze(self, unfrozen_layers: int) -> None:
        layers = layer_count(self.trunk)
        if unfrozen_layers > layers:
            raise FivefoldError(
                f"model.unfrozen_layers is {unfrozen_layers}, but the backbone has {layers} layers.",
                next_step=f"take 0 to {layers}, or leave it out of the recipe to train everything",
            )
        self.frozen_depth = layers - unfrozen_layers
        for group in parameters_by_depth(self.trunk)[: self.frozen_depth + 1]:
            for parameter in group.values():
                parameter.requires_grad_(False)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        if self.frozen_depth >= 0:
            yield from modules_up_to(self.trunk, self.frozen_depth)

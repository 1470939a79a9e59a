"""A language model as the loop's trainee: the head on guessed places only, the loss, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fivefold.models.backbones.backbone import Attention
from fivefold.models.backbones.net import Net
from fivefold.models.backbones.passes import Pass, Sequences
from fivefold.models.pretraining.passages import IGNORED, KEPT_FIXED, Passages, Positions
from fivefold.training.batches import Batches, in_order
from fivefold.training.optim import Group

LARGEST_LOSS = 700.0
"""Its perplexity is still a float."""


class LanguageNet(Net):
    """A backbone whose language-model head sees only the places that are guessed.

    The head, with its product by the whole vocabulary, costs a small backbone more than all its layers; it works place
    by place, so that leaving out places changes no other.
    """

    def __init__(self, backbone: Any, attention: Attention = "auto") -> None:
        super().__init__(backbone, attention=attention, unfrozen_layers=None)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, targets: Tensor) -> Tensor:
        """The loss of every target, fp32 (targets,), in no certain order.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids
            int64 (S, T), padded on the right.
        targets
            int64 (S, T), `IGNORED` where nothing is guessed.
        """
        passes = self.passes(Sequences(input_ids, attention_mask, token_type_ids))
        return torch.cat([self._losses(each, _targets_of(each, targets)) for each in passes])

    def _losses(self, each: Pass, targets: Tensor) -> Tensor:
        chosen = targets != IGNORED

        def keep_chosen(module: nn.Module, args: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[chosen][None]
            return output

        hook = self.trunk.register_forward_hook(keep_chosen)
        try:
            logits = self.backbone(**each.inputs).logits[0]
        finally:
            hook.remove()
        return functional.cross_entropy(logits.float(), targets[chosen], reduction="none")


def _targets_of(each: Pass, targets: Tensor) -> Tensor:
    """Targets of the sequences of a pass, cut or padded as these are."""
    own = targets if each.index is None else targets[each.index]
    tokens = each.mask.shape[1]
    return functional.pad(own[:, :tokens], (0, max(0, tokens - own.shape[1])), value=IGNORED)


class LanguageModelling:
    """What the loop trains: a language model on passages.

    Parameters
    ----------
    fresh
        The weights to begin with, for a seed.
    """

    def __init__(
        self,
        module: LanguageNet,
        passages: Passages,
        watched: Passages,
        batches: Batches,
        *,
        learning_rate: float,
        fresh: Callable[[int], nn.Module],
    ) -> None:
        self.module: nn.Module = module
        self.turning_step = 0
        self.passages, self.watched, self.batches = passages, watched, batches
        self.learning_rate, self.fresh = learning_rate, fresh

    def steps(self, epoch: int) -> list[list[Positions]]:
        """An epoch's optimiser steps, each its micro-batches of row positions."""
        return self.batches.epoch(epoch)

    def groups(self) -> Sequence[Group]:
        """All weights at one rate."""
        return [Group(dict(self.module.named_parameters()), self.learning_rate)]

    def losses(self, module: nn.Module, rows: Positions, step: int) -> tuple[Tensor, Tensor]:
        """The loss of every target of these rows, each of weight 1, (targets,) both."""
        epoch = step // self.batches.steps_per_epoch + 1
        losses = module(**self._batch(self.passages, rows, epoch))
        return losses, torch.ones_like(losses)

    @torch.no_grad()
    def evaluate(self, module: nn.Module) -> Mapping[str, float]:
        """The watched passages' perplexity, exp of the mean loss of a target; "score" is that loss turned round."""
        total, count = 0.0, 0
        inputs = self.watched.inputs
        for rows in in_order(inputs.lengths, inputs.counts, self.batches.tokens_per_pass):
            losses = module(**self._batch(self.watched, rows, KEPT_FIXED))
            total, count = total + float(losses.double().sum()), count + len(losses)
        loss = total / max(count, 1)
        return {"score": -loss, "perplexity": perplexity(loss)}

    @torch.no_grad()
    def restart(self, seed: int) -> None:
        """Begin again, with what was drawn drawn from another seed."""
        fresh = dict(self.fresh(seed).named_parameters())
        for name, parameter in self.module.named_parameters():
            parameter.copy_(fresh[name])

    def _batch(self, passages: Passages, rows: Positions, epoch: int) -> dict[str, Tensor]:
        device = next(self.module.parameters()).device
        batch = passages.batch(rows, epoch)
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats: among how many equally likely tokens the model is left to guess."""
    return math.exp(min(loss, LARGEST_LOSS))

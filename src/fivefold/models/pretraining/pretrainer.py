"""Domain pretraining: a backbone learns to guess tokens of texts that need no labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as keys_of
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from fivefold.errors import DataError, RecipeError
from fivefold.models.backbones.architectures import position_limit
from fivefold.models.backbones.backbone import (
    Backbone,
    Origin,
    load_causal_lm,
    load_config,
    load_masked_lm,
    load_tokenizer,
    save_backbone,
)
from fivefold.models.base import Cost
from fivefold.models.networks.expense import activation_bytes, check_room, measured, peak_bytes, size_of
from fivefold.models.pretraining.language_model import LanguageModelling, LanguageNet, perplexity
from fivefold.models.pretraining.passages import (
    Layout,
    Passages,
    Positions,
    Puzzle,
    Vocabulary,
    causal_puzzle,
    frequency_loss,
    lay_out,
    masked_puzzle,
)
from fivefold.training.batches import Batches
from fivefold.training.cache import cache_folder
from fivefold.training.inputs import learn_template
from fivefold.training.loop import train
from fivefold.training.plan import Optimisation, Outcome
from fivefold.training.precision import TRAINING_TOKENS, choose_precision, default_device
from fivefold.training.timing import epoch_seconds
from fivefold.training.tokens import Tokens, tokenise
from fivefold.training.trackers import require_trackers

Objective = Literal["masked", "causal"]

FEWEST = 2
"""Texts: one to learn from, one to measure by."""


@dataclass(frozen=True)
class Beginning:
    """The backbone to pretrain; keys of the recipe's section `model`."""

    origin: Origin
    tokenizer_name: str | None = None

    @cached_property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer, or the one that was named."""
        return load_tokenizer(self.tokenizer_name or self.origin.name, trust_remote_code=self.origin.trust_remote_code)

    @cached_property
    def config(self) -> Any:
        """The backbone's configuration."""
        return load_config(self.origin, self.tokenizer)

    def load(self, objective: Objective, seed: int) -> Backbone:
        """The backbone under the head of an objective.

        Raises
        ------
        RecipeError
            If it has none, or its tokenizer has no mask.
        """
        self._check(objective)
        load = load_masked_lm if objective == "masked" else load_causal_lm
        return load(self.origin, self.tokenizer, seed=seed)

    def _check(self, objective: Objective) -> None:
        kind, own = self.config.model_type, getattr(self.config, "auto_map", None) or {}
        masked = type(self.config) in MODEL_FOR_MASKED_LM_MAPPING or "AutoModelForMaskedLM" in own
        causal = type(self.config) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in own
        if objective == "masked" and not masked:
            raise RecipeError(
                f"pretraining.objective 'masked' needs a masked language model, and a '{kind}' backbone is none.",
                next_step="set pretraining.objective to causal" if causal else "leave pretraining out of the recipe",
            )
        if objective == "causal" and (masked or not causal):
            raise RecipeError(
                f"pretraining.objective 'causal' needs a decoder, and a '{kind}' backbone sees both sides of a token.",
                next_step="set pretraining.objective to masked" if masked else "leave pretraining out of the recipe",
            )
        if objective == "masked" and self.tokenizer.mask_token_id is None:
            raise RecipeError(
                "pretraining.objective 'masked' needs a tokenizer with a mask token.",
                got=f"the tokenizer of '{self.tokenizer.name_or_path}', which has none",
                next_step="take a backbone and tokenizer that were made for masked language modelling",
            )


@dataclass(frozen=True)
class Pretraining:
    """How to pretrain; the recipe's section `pretraining`, `training` as a plain mapping."""

    objective: Objective
    layout: Layout
    block_tokens: int
    masked_share: float
    validation_share: float
    training: Mapping[str, Any]
    seed: int

    def batches(self, passages: Passages) -> Batches:
        """Passages in training order."""
        inputs, t = passages.inputs, self.training
        budget = t["tokens_per_pass"] or TRAINING_TOKENS[default_device().type]
        return Batches(inputs.lengths, inputs.counts, t["batch_size"], budget, self.seed)

    def optimisation(self) -> Optimisation:
        """How the loop trains; the best weights are kept."""
        chosen = {
            "precision": choose_precision(self.training["precision"], default_device()),
            "trackers": tuple(self.training["trackers"]),
            "keep": "best",
        }
        plain = {key.name: self.training[key.name] for key in keys_of(Optimisation) if key.name in self.training}
        return Optimisation(**plain | chosen)

    def puzzle(self, vocabulary: Vocabulary) -> Puzzle:
        """What is guessed in a passage."""
        if self.objective == "masked":
            return masked_puzzle(vocabulary, self.masked_share)
        return causal_puzzle(vocabulary)

    def divide(self, tokens: Tokens, vocabulary: Vocabulary) -> tuple[Tokens, Tokens]:
        """Texts to learn from and texts to measure by, none in both, each once.

        Raises
        ------
        DataError
            If there are fewer than two that hold anything to guess.
        """
        found = distinct(tokens, vocabulary)
        if len(found) < FEWEST:
            raise DataError(
                "There are no texts to pretrain on.",
                allowed=f"at least {FEWEST} texts that differ",
                got=f"{len(found)} in {len(tokens)}",
                next_step="name text columns with text in data.text, more of it in data.unlabelled, "
                "or leave pretraining out",
            )
        watched = min(max(1, round(self.validation_share * len(found))), len(found) - 1)
        order = np.random.default_rng(self.seed).permutation(found)
        return tokens.take(np.sort(order[watched:])), tokens.take(np.sort(order[:watched]))


@dataclass(frozen=True)
class Pretrained:
    """A pretrained backbone.

    Parameters
    ----------
    figures
        `before`, `after`: perplexity on the validation texts; `baseline`: that of guessing by frequency; and counts.
    remarks
        What is worth saying aloud.
    """

    net: LanguageNet
    tokenizer: Any
    figures: Mapping[str, float]
    remarks: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Write safetensors, config and tokenizer; `Origin(str(folder))` then names the backbone."""
        save_backbone(self.net.backbone, self.tokenizer, folder)


def pretrain(
    texts: Sequence[str],
    beginning: Beginning,
    how: Pretraining,
    scratch: Path | None = None,
    announce: Callable[[Cost], None] | None = None,
) -> Pretrained:
    """Language modelling on `texts`; the weights of the evaluation with the lowest perplexity remain.

    Parameters
    ----------
    texts
        Any texts; those that are the same to the tokenizer count as one.
    scratch
        A folder that survives a kill: with what is there the same call goes on where it was.
    announce
        Told before training begins what it is expected to take.

    Raises
    ------
    FivefoldError
        If the backbone, its tokenizer, the objective and the texts don't go together.
    """
    require_trackers(tuple(how.training["trackers"]))
    backbone = beginning.load(how.objective, how.seed)
    net = LanguageNet(backbone.model, beginning.origin.attention)
    if how.training["gradient_checkpointing"]:
        net.gradient_checkpointing_enable()
    vocabulary = Vocabulary.of(beginning.tokenizer)
    learnt, watched = passages_of(texts, beginning, how, vocabulary)
    trainee = LanguageModelling(
        net,
        learnt,
        watched,
        how.batches(learnt),
        learning_rate=how.training["learning_rate"],
        fresh=lambda seed: LanguageNet(beginning.load(how.objective, seed).model, beginning.origin.attention),
    )
    if announce is not None:
        announce(cost_of(trainee, how))
    before = trainee.evaluate(net.to(default_device()).eval())["perplexity"]
    outcome = train(trainee, how.optimisation(), seed=how.seed, scratch=scratch)
    after = trainee.evaluate(net.eval())["perplexity"]
    baseline = perplexity(frequency_loss(learnt, watched, vocabulary.plain))
    figures = {"before": before, "after": after, "baseline": baseline, **counts_of(learnt, watched, outcome)}
    said = limit_remarks(beginning, how), harm_remarks(before, after)
    return Pretrained(net, beginning.tokenizer, figures, (*backbone.remarks, *said[0], *said[1], *outcome.remarks))


def cost_of(trainee: LanguageModelling, how: Pretraining) -> Cost:
    """What pretraining is expected to take, from some timed passes that leave nothing behind.

    Raises
    ------
    RunError
        If there isn't memory enough.
    """
    device, plan = default_device(), how.optimisation()
    size, batches = size_of(trainee.module), trainee.batches
    room = check_room(size, device)
    with measured(size, device):
        epoch = epoch_seconds(trainee, batches, plan.precision, device)
        checkpointed = how.training["gradient_checkpointing"]
        activations = activation_bytes(trainee, batches, plan.precision, checkpointed=checkpointed)
        peak = peak_bytes(size, activations, device)
    # A pass without gradients has a third of the operations.
    share = float(trainee.watched.inputs.coverage.kept.sum()) / max(
        1.0, 3 * float(trainee.passages.inputs.coverage.kept.sum())
    )
    epochs = plan.epochs + share * (2 + plan.epochs * plan.evaluations_per_epoch)
    return Cost(epoch * epochs, peak, 0.0, size.parameters, size.trained, room)


def passages_of(
    texts: Sequence[str], beginning: Beginning, how: Pretraining, vocabulary: Vocabulary
) -> tuple[Passages, Passages]:
    """Passages to learn from and passages to measure by, of different texts."""
    tokens = tokenise(texts, beginning.tokenizer, cache_folder())
    template, puzzle, most = learn_template(beginning.tokenizer), how.puzzle(vocabulary), longest(beginning, how)
    learnt, watched = (
        Passages(lay_out(own, template, how.layout, most, vocabulary.plain), vocabulary.pad, puzzle, how.seed)
        for own in how.divide(tokens, vocabulary)
    )
    return learnt, watched


def longest(beginning: Beginning, how: Pretraining) -> int:
    """Tokens of a passage at most: block_tokens, unless the backbone reads fewer."""
    limit = position_limit(beginning.config)
    return min(how.block_tokens, limit.tokens) if limit.hard else how.block_tokens


def limit_remarks(beginning: Beginning, how: Pretraining) -> tuple[str, ...]:
    """That passages are shorter than asked for, if they are."""
    most = longest(beginning, how)
    return () if most == how.block_tokens else (f"Passages have {most} tokens at most: the backbone reads no more.",)


def harm_remarks(before: float, after: float) -> tuple[str, ...]:
    """That pretraining did harm, if it did."""
    if after <= before:
        return ()
    return (
        f"Pretraining raised perplexity from {before:.4g} to {after:.4g}: lower pretraining.training.learning_rate.",
    )


def counts_of(learnt: Passages, watched: Passages, outcome: Outcome) -> dict[str, float]:
    """How much there was to read, and what training did."""
    return {
        "inputs": float(learnt.inputs.rows),
        "validation_inputs": float(watched.inputs.rows),
        "tokens": float(learnt.inputs.coverage.kept.sum()),
        "steps": float(outcome.steps),
        "skipped_steps": float(outcome.skipped),
        "restarts": float(outcome.restarts),
        "training_seconds": outcome.seconds,
    }


def distinct(tokens: Tokens, vocabulary: Vocabulary) -> Positions:
    """Positions of the first of all rows that are alike, without those that hold no plain token; sorted."""
    first: dict[bytes, int] = {}
    for position in range(len(tokens)):
        ids = tokens.row(position)
        if vocabulary.plain[ids].any():
            first.setdefault(ids.tobytes(), position)
    return np.array(list(first.values()), dtype=np.int64)

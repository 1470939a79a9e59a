"""What families of networks share: rows to material, one fit, scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields as keys_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fivefold.data.compose import Corpus, Rows
from fivefold.data.split import split
from fivefold.errors import RecipeError
from fivefold.models.backbones.vocabulary import Shrink
from fivefold.models.base import PARITY_ROWS, Cost, History
from fivefold.models.networks.expense import activation_bytes, check_room, measured, peak_bytes, size_of
from fivefold.models.networks.material import Material, Positions, Sequences
from fivefold.models.networks.reading import truncation_figures
from fivefold.models.networks.supervised import Agreement, Examples, Supervised, Watched, logits_of
from fivefold.objectives.objective import Objective
from fivefold.objectives.weights import loss_weights
from fivefold.scores import Scores, both_orders
from fivefold.task import Labels, Task, concatenate
from fivefold.training import loop
from fivefold.training.batches import padding_share
from fivefold.training.optim import Group, layer_groups
from fivefold.training.plan import Optimisation
from fivefold.training.precision import SCORING_TOKENS, TRAINING_TOKENS, choose_precision, default_device
from fivefold.training.timing import epoch_seconds, seconds_a_token, unchanged
from fivefold.training.trackers import require_trackers

INNER = 10
"""One row in so many is taken from a fold's training rows to choose weights by."""

SCORED_PASSES = 4
"""Passes of each core whose scoring is timed."""


class Network(ABC):
    """A classifier that is a torch module, of one fold.

    A family says how texts become material, how the module is built, and what its layers are. With a swap the
    material holds every row twice, the second half with its fields exchanged.

    Parameters
    ----------
    metric
        What validation rows are scored by, a key of `METRICS`.
    objective, training
        The recipe's sections, as plain mappings.
    """

    def __init__(
        self, task: Task, *, seed: int, metric: str, objective: Mapping[str, Any], training: Mapping[str, Any]
    ) -> None:
        self.task, self.seed, self.metric = task, seed, metric
        self.objective, self.training = dict(objective), dict(training)
        self.net: nn.Module | None = None
        self.resumed = False
        require_trackers(tuple(training["trackers"]))
        self._check_swap()

    @abstractmethod
    def learn_vocabulary(self, train: Rows) -> None:
        """What has to be known of the training rows before material is made; nothing for most families."""

    @property
    def frozen(self) -> bool:
        """Whether what is trained reads what the rest computed once for all folds."""
        return False

    @abstractmethod
    def sequences(self, corpus: Corpus) -> Sequences:
        """Token sequences of all rows of a corpus, made once for all folds."""

    def material(self, corpus: Corpus) -> Material:
        """All rows of a corpus as the trained part reads them."""
        return self.sequences(corpus)

    def unread(self, net: nn.Module, sequences: Sequences) -> Material:
        """Material as `material` makes it of these sequences, but for its values, which take time."""
        return sequences

    @abstractmethod
    def build(self, labels: Labels | None, seed: int) -> nn.Module:
        """An untrained module, its head at the rates of `labels`."""

    @abstractmethod
    def trained(self, net: nn.Module) -> nn.Module:
        """The part of the module that reads the material."""

    @abstractmethod
    def depths(self, net: nn.Module) -> list[Mapping[str, nn.Parameter]]:
        """Parameters of the trained part by depth, the head last."""

    @abstractmethod
    def remarks(self, corpus: Corpus) -> tuple[str, ...]:
        """What is worth saying of how these texts are read, such as how much was truncated."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything `load` needs: safetensors, JSON and text only."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote."""

    def learning(self, net: nn.Module, *corpora: Corpus) -> AbstractContextManager[Shrink]:
        """The state of a net while it learns from texts of these corpora; how to cut weights of other nets like it."""
        return nullcontext(dict)

    def begin(self, labels: Labels) -> nn.Module:
        """The module to train: the one that was loaded, or a fresh one with its head at the label rates."""
        if self.net is None:
            self.net = self.build(labels, self.seed)
        return self.net

    def explain(self, rows: Rows, most: int) -> Mapping[str, list[tuple[str, float]]]:
        """Nothing: a network's weights name no words."""
        return {}

    def cost(self, train: Rows) -> Cost:
        """From some timed passes of an untrained net, which leave nothing behind.

        Raises
        ------
        RunError
            If weights, gradients and moments alone, or on a GPU a step, are more than there is memory for.
        """
        self.learn_vocabulary(train)
        corpus, t, device = train.corpus, self.training, default_device()
        net = self.net or self.build(None, self.seed)
        held_out = corpus.rows(np.setdiff1d(np.arange(len(corpus)), train.index))
        learnt, watched = self._divided(train, held_out)
        material, whole = self.sequences(corpus), size_of(net)
        with self.learning(net, corpus) as shrink:
            size = replace(whole, trained=size_of(net).trained)
            room = check_room(size, device)
            trainee = self._trainee(net, self._examples(learnt, self.unread(net, material)), None, None, shrink)
            with measured(size, device):
                epoch, token = self._timed(net, trainee, material)
                peak = peak_bytes(size, self._activations(trainee), device)
        scored = self._scored_tokens(material, held_out, watched)
        return Cost(
            epoch * t["epochs"] + (0.0 if self.frozen else token * scored),
            peak,
            token * tokens_of(material, np.arange(material.rows)) if self.frozen else 0.0,
            size.parameters,
            size.trained,
            room,
        )

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        """Train on `train`; after `load`, go on from the weights that were loaded.

        `valid` is followed as learning goes. It decides nothing unless training.validation is "held_out"; with
        "inner" a tenth of the training rows decides which weights remain and when to stop.
        """
        train, valid = self._divided(train, valid)
        self.learn_vocabulary(train)
        watched = Watched(self.material(valid.corpus), valid, self.metric) if valid is not None and len(valid) else None
        net = self.begin(train.labels)
        begun = weights_of(self.trained(net)) if self.resumed else None
        checkpoint_gradients(net, self.training["gradient_checkpointing"])
        examples = self._examples(train, self.material(train.corpus))
        with self.learning(net, *(rows.corpus for rows in (train, valid) if rows is not None)) as shrink:
            trainee = self._trainee(net, examples, watched, begun, shrink)
            outcome = loop.train(trainee, self._optimisation(), seed=self.seed, scratch=scratch)
        net.eval()
        passed = tokens_of(examples.material, examples.index) * outcome.steps / max(1, len(trainee.steps(0)))
        figures = {
            "rows": float(len(train)),
            "steps": float(outcome.steps),
            "skipped_steps": float(outcome.skipped),
            "restarts": float(outcome.restarts),
            "training_seconds": outcome.seconds,
            "tokens_per_second": passed / max(outcome.seconds, 1e-9),
            "padding_share": padding_of(trainee),
            **truncation_figures(self.sequences(train.corpus).inputs, len(train.corpus)),
        }
        return History(figures, (*self.remarks(train.corpus), *self._choice_remarks(), *outcome.remarks))

    def score(self, rows: Rows) -> Scores:
        """Logits of `rows` in fp32; with a swap the mean over both orders, so that swapping a row swaps its scores,
        unless training.swapped_scoring is false."""
        assert self.net is not None
        material = self.material(rows.corpus)
        module = self.trained(self.net).to(default_device()).eval()
        budget = self.scoring_tokens
        logits = logits_of(module, material, rows.index, self.task, budget)
        if self._swapped("scoring"):
            turned = logits_of(module, material, rows.index + len(rows.corpus), self.task, budget)
            logits = both_orders(self.task, logits, turned)
        return Scores(self.task, rows.ids, logits)

    def _swapped(self, where: str) -> bool:
        """Whether rows are read in both orders in "training" or "scoring"."""
        return self.task.swap is not None and bool(self.training[f"swapped_{where}"])

    def _check_swap(self) -> None:
        changed = [key for key in ("swapped_training", "swapped_scoring") if not self.training[key]]
        if self.task.swap is None and changed:
            raise RecipeError(
                f"training.{changed[0]} says how pairs are read, and the task has none.",
                next_step="add task.swap, or leave it out",
            )

    @property
    def scoring_tokens(self) -> int:
        """Tokens of a pass without gradients."""
        return SCORING_TOKENS[default_device().type]

    @property
    def training_tokens(self) -> int:
        """Tokens of a pass in training."""
        return int(self.training["tokens_per_pass"] or TRAINING_TOKENS[default_device().type])

    def _precision(self, device: torch.device) -> Any:
        return choose_precision(self.training["precision"], device)

    def _optimisation(self) -> Optimisation:
        plain = {key.name: self.training[key.name] for key in keys_of(Optimisation)}
        chosen = {"precision": self._precision(default_device()), "trackers": tuple(plain["trackers"])}
        return Optimisation(**plain | chosen)

    @property
    def _chooses(self) -> bool:
        t = self.training
        return bool(t["keep"] == "best" or t["patience"] is not None or t["schedule"] == "plateau")

    def _divided(self, train: Rows, valid: Rows | None) -> tuple[Rows, Rows | None]:
        """The rows that train, and those that are watched."""
        if self._chooses and (self.training["validation"] == "inner" or valid is None or not len(valid)):
            inner = watched_rows(train, self.seed)
            rest = np.setdiff1d(np.arange(len(train)), inner)
            return train.take(rest), train.take(inner)
        return train, valid

    def _examples(self, train: Rows, material: Material) -> Examples:
        labels, weights, index = train.labels, train.weights, train.index
        if self._swapped("training"):
            index = np.concatenate([index, index + len(train.corpus)])
            labels, weights = concatenate([labels, labels.swapped()]), np.concatenate([weights, weights])
        return Examples(material, index, labels, weights)

    def _trainee(
        self,
        net: nn.Module,
        examples: Examples,
        watched: Watched | None,
        begun: Mapping[str, Tensor] | None,
        shrink: Shrink,
    ) -> Supervised:
        plain, t = dict(self.objective), self.training
        alpha, categorical, start = (plain.pop(f"rdrop_{key}") for key in ("alpha", "categorical", "start_step"))
        sides = loss_weights(examples.labels, plain.pop("class_weights"), plain.pop("weight_cap"))
        agreement = Agreement(alpha, categorical, start) if alpha else None
        budget = self.training_tokens
        return self.supervised(
            self.trained(net),
            self._groups(net),
            examples,
            examples.batches(t["batch_size"], budget // 2 if agreement else budget, self.seed),
            Objective(self.task, side_weights=sides, **plain),
            agreement=agreement,
            watched=watched,
            tokens_per_pass=self.scoring_tokens,
            fresh=lambda seed: shrink(begun or self.fresh_weights(examples.labels, seed)),
        )

    def supervised(self, *common: Any, **named: Any) -> Supervised:
        """What the loop trains; a family may learn from labels otherwise than by its scores."""
        return Supervised(*common, **named)

    def _timed(self, net: nn.Module, trainee: Supervised, material: Sequences) -> tuple[float, float]:
        """Seconds of an epoch, and those of a token in scoring, where passes run side by side."""
        device = default_device()
        checkpoint_gradients(net, self.training["gradient_checkpointing"])
        learns = bool(self.training["epochs"])
        epoch = epoch_seconds(trainee, trainee.batches, self._precision(device), device) if learns else 0.0
        tokens = material.lengths * material.counts
        rows = np.random.default_rng(self.seed).permutation(material.rows)
        enough = SCORED_PASSES * torch.get_num_threads() * self.scoring_tokens
        some = rows[: int(np.searchsorted(np.cumsum(tokens[rows]), enough)) + 1]

        def score(index: Positions) -> None:
            logits_of(net.eval(), material, index, self.task, self.scoring_tokens)

        with unchanged(net, device):
            return epoch, seconds_a_token(score, some, lambda index: int(tokens[index].sum()), device)

    def _scored_tokens(self, material: Material, held_out: Rows, watched: Rows | None) -> float:
        """Tokens that a fold scores: of held-out rows once, of some twice more to compare the model with what was saved
        of it, and of watched rows at every evaluation."""
        scored = tokens_of(material, held_out.index) + 2 * tokens_of(material, held_out.index[:PARITY_ROWS])
        if watched is not None:
            evaluations = self.training["epochs"] * self.training["evaluations_per_epoch"]
            scored += tokens_of(material, watched.index) * evaluations
        return scored * (2 if self._swapped("scoring") else 1)

    def _activations(self, trainee: Supervised) -> float:
        """Bytes that the longest pass holds for its way back; 0 where nothing of the trunk learns."""
        if self.frozen or not self.training["epochs"]:
            return 0.0
        precision, checkpointed = self._precision(default_device()), self.training["gradient_checkpointing"]
        return activation_bytes(trainee, trainee.batches, precision, checkpointed=checkpointed)

    def fresh_weights(self, labels: Labels, seed: int) -> Mapping[str, Tensor]:
        """Weights by name to begin again with after divergence, drawn from another seed."""
        return weights_of(self.trained(self.build(labels, seed)))

    def _groups(self, net: nn.Module) -> list[Group]:
        t = self.training
        return layer_groups(self.depths(net), t["learning_rate"], t["head_learning_rate"], t["layer_decay"])

    def _choice_remarks(self) -> tuple[str, ...]:
        if self._chooses and self.training["validation"] == "held_out":
            return (
                "Held-out rows chose the weights (training.validation: held_out), so out-of-fold figures are "
                "a little too good.",
            )
        return ()


def watched_rows(train: Rows, seed: int) -> Positions:
    """Positions of one row in `INNER`, groups whole, which choose the weights that the others train."""
    groups, count = train.groups, INNER
    if groups is not None:
        count = min(INNER, len(np.unique(groups)))
        groups, count = (groups, count) if count > 1 else (None, INNER)
    return split(train.labels, len(train), count=count, seed=seed, groups=groups, only=0).held_out(0)


def tokens_of(material: Material, index: Positions) -> float:
    """Tokens of the rows at `index`, padding not included where a row is one sequence."""
    return float((material.lengths * material.counts)[index].sum())


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of what a module trains, by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def checkpoint_gradients(net: Any, wanted: bool) -> None:
    """Have the module compute activations twice, or not; the family refuses where it can't."""
    if wanted:
        net.gradient_checkpointing_enable()
    elif hasattr(net, "gradient_checkpointing_disable"):
        net.gradient_checkpointing_disable()


def padding_of(trainee: Supervised) -> float:
    """Share of padding in the first epoch's batches."""
    batches = [rows for step in trainee.steps(0) for rows in step]
    return padding_share(trainee.batches.lengths, trainee.batches.counts, batches)

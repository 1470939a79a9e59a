"""The generator family: a language model that writes its labels, prompted as it is or fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fivefold.data.compose import Corpus, Rows
from fivefold.errors import RecipeError
from fivefold.models.backbones.adapters import Adapter
from fivefold.models.backbones.architectures import PositionLimit, position_limit
from fivefold.models.backbones.backbone import (
    Origin,
    Weights,
    load_tokenizer,
    load_writer,
    load_writer_config,
    save_backbone,
)
from fivefold.models.backbones.encoder_decoders import check_room, is_encoder_decoder
from fivefold.models.backbones.resident import TRAINED, resident
from fivefold.models.base import History
from fivefold.models.generator.asking import Asking, Normalise
from fivefold.models.generator.choices import moved
from fivefold.models.generator.listing import Listing
from fivefold.models.generator.net import AdaptedWriter, Script, WriterNet
from fivefold.models.generator.prompts import Chat, Format, encoded_format, format_of
from fivefold.models.generator.writing import Writing, closed
from fivefold.models.networks.material import Positions, Sequences
from fivefold.models.networks.network import Columns, Network, read_both_ways, truncation_remarks, weights_of
from fivefold.models.networks.reading import Reading
from fivefold.models.networks.supervised import Supervised, on_device
from fivefold.scores import Scores, id_array, normalised
from fivefold.task import Labels, Task
from fivefold.training.inputs import Inputs
from fivefold.training.precision import choose_precision, default_device
from fivefold.training.tokens import tokenise, tokenizer_digest

SOURCE = "source.json"
"""Names the backbone of a model of which nothing was trained."""


@dataclass(frozen=True)
class Prompts(Sequences):
    """Prompts, each with so many tokens of questions and answers `behind` it."""

    behind: int = 0

    @property
    def lengths(self) -> Positions:
        """Tokens of each row, (rows,)."""
        return self.inputs.lengths + self.behind


class Dictated(Supervised):
    """Labelled rows of which a model learns the right answers token by token."""

    def __init__(self, script: Script, *common: Any, **named: Any) -> None:
        super().__init__(*common, **named)
        self.script = script

    def losses(self, module: nn.Module, rows: Positions, step: int) -> tuple[Tensor, Tensor]:
        """The loss of every token that these rows write, and its row's weight, (tokens,) both."""
        device = next(module.parameters()).device
        written = moved(self.script.dictated(self.examples.labels.take(rows)), device)
        weights = torch.from_numpy(self.examples.weights[rows]).to(device)
        batch = on_device(self.examples.material.batch(self.examples.index[rows]), module)
        return module(**batch, written=written), weights[written.rows]


def end_of(tokenizer: Any) -> int:
    """The id that ends what is written.

    Raises
    ------
    RecipeError
        If the tokenizer has none.
    """
    for known in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if known is not None:
            return int(known)
    raise RecipeError(
        f"The tokenizer of '{tokenizer.name_or_path}' has no token that ends a text.",
        next_step="name a model in model.tokenizer whose tokenizer has an end or a separator token",
    )


class GeneratorClassifier(Network):
    """One fold of the generator family; settings as in the recipe's section `model`."""

    def __init__(
        self,
        task: Task,
        *,
        backbone: str | None,
        decoder: str | None,
        architecture: Mapping[str, Any] | None,
        tokenizer: str | None,
        trust_remote_code: bool,
        dropout: float | None,
        attention_dropout: float | None,
        template: str | None,
        chat: Chat,
        system: str | None,
        max_tokens: int | None,
        truncation: Any,
        head_share: float,
        field_tokens: Mapping[str, int],
        field_words: Mapping[str, int],
        unfrozen_layers: int | None,
        weights: str,
        adapter: Mapping[str, Any] | None,
        normalise: Normalise,
        beams: int | None,
        contextual: bool,
        loss: str,
        write: Any,
        question: str,
        questions: Mapping[str, str],
        yes: str,
        no: str,
        choices: Any,
        answers: Mapping[str, str],
        **common: Any,
    ) -> None:
        super().__init__(task, **common)
        self.adapter = None if adapter is None else Adapter(**adapter)
        self.origin = Origin(backbone, architecture, trust_remote_code, dropout, attention_dropout, decoder=decoder)
        self.origin = replace(self.origin, weights=self._held(weights))
        self.tokenizer_name = tokenizer or backbone
        self.template, self.chat, self.system = template, chat, system
        self.reading = Reading(
            "joined", max_tokens, truncation, head_share, dict(field_tokens), None, template, dict(field_words)
        )
        self.unfrozen_layers, self.normalise, self.loss = unfrozen_layers, normalise, loss
        self.contextual, self.beams = contextual, beams
        self.writing = Writing(write, question, dict(questions), yes, no, choices, dict(answers))
        self.writing.check(task)
        self.net: Any = None
        self.backbone_remarks: tuple[str, ...] = ()

    def _held(self, weights: str) -> Weights:
        """How the backbone is held: in full where it is trained itself, else as the device computes."""
        if weights != "auto":
            return weights  # type: ignore[return-value]
        if self.adapter is None and self.training["epochs"]:
            return "fp32"
        return choose_precision(self.training["precision"], default_device())

    @cached_property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer, or the one that was named."""
        return load_tokenizer(self.tokenizer_name, trust_remote_code=self.origin.trust_remote_code)

    @cached_property
    def config(self) -> Any:
        """The backbone's transformers config."""
        return load_writer_config(self.origin, self.tokenizer)

    @cached_property
    def script(self) -> Script:
        """What is written behind a prompt; the words around texts and answers don't depend on the columns' names."""
        shown = self._format(["text"])
        header = tuple(self.tokenizer.encode(shown.header, add_special_tokens=False))
        end = end_of(self.tokenizer)
        if self.writing.write == "list":
            begun = header + (closed(self._plain) if shown.lead else ())
            return Listing(self.writing.listed(self.task, self._plain, header=begun, end=end))
        asked = self.writing.about(self.task, self._plain, lead=shown.lead, header=header, end=end)
        return Asking(asked, self.normalise, self.beams)

    def _format(self, names: Sequence[str]) -> Format:
        if is_encoder_decoder(self.config):
            return encoded_format(names, self.template, self.chat, self.system)
        return format_of(self.tokenizer, names, self.template, self.chat, self.system)

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(tokenise([text], self.tokenizer, None).ids.tolist())

    def learn_vocabulary(self, train: Rows) -> None:
        """Nothing: the tokenizer comes with the backbone."""

    def sequences(self, corpus: Corpus) -> Sequences:
        """The prompts of all rows."""
        shown = self._format(list(corpus.fields))
        reading = replace(self.reading, template=shown.template)
        inputs = corpus.once(
            f"generator:{tokenizer_digest(self.tokenizer)}:{reading}", lambda fields: self._inputs(fields, reading)
        )
        return Prompts(inputs, self.tokenizer.pad_token_id, self.script.tokens)

    def _inputs(self, fields: Columns, reading: Reading) -> Inputs:
        limit = position_limit(self.config)
        if is_encoder_decoder(self.config):
            check_room(self.config, 1 + self.script.deepest)
            room = limit
        else:
            room = PositionLimit(limit.tokens - self.script.deepest, limit.hard)
        return reading.inputs(read_both_ways(fields, self.task.swap), self.tokenizer, room)

    def build(self, labels: Labels | None, seed: int) -> nn.Module:
        """The backbone, with an adapter that adds nothing yet where one is trained."""
        return self._made(seed, trained=True)

    def _made(self, seed: int, *, trained: bool) -> WriterNet:
        if self.adapter is None:
            loaded = load_writer(self.origin, self.tokenizer, seed=seed)
            self.backbone_remarks = loaded.remarks
            net = WriterNet(loaded, self.script, self.unfrozen_layers)
            return net if self._trains else net.requires_grad_(False)
        home = resident(self.origin, self.tokenizer, seed=seed, trained=trained, load=load_writer)
        self.backbone_remarks = home.loaded.remarks
        name = TRAINED if trained else home.free_name()
        return AdaptedWriter(home, name, self.adapter, self.script, seed=seed)

    def begin(self, labels: Labels) -> nn.Module:
        """The net to train; a loaded adapter moves to the name of those that are trained."""
        net = super().begin(labels)
        if isinstance(net, AdaptedWriter) and net.name != TRAINED:
            self.net = self._made(self.seed, trained=True)
            net.copy_to(self.net)
            net = self.net
        return net

    def fresh_weights(self, labels: Labels, seed: int) -> Mapping[str, Tensor]:
        """Weights by name to begin again with; an adapter is drawn anew where it is."""
        if not isinstance(self.net, AdaptedWriter):
            return super().fresh_weights(labels, seed)
        self.net.redraw(seed)
        return weights_of(self.net)

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        """Train on `train`; without epochs the model answers as it is."""
        if self.training["epochs"]:
            return super().fit(train, valid, scratch)
        self.begin(train.labels).eval()
        return History({"rows": float(len(train)), "steps": 0.0}, self.remarks(train.corpus))

    def score(self, rows: Rows) -> Scores:
        """Logits of `rows`, less those of an empty text where that is asked for.

        Contextual calibration is Zhao et al. 2021 (arXiv 2102.09690), section 5, with an empty text for the input.
        """
        found = super().score(rows)
        if not self.contextual:
            return found
        silence = Corpus(id_array(["silence"]), {name: [""] for name in rows.corpus.fields})
        biases = super().score(silence.rows()).logits
        return Scores(self.task, found.ids, normalised(self.task, found.logits - biases))

    @staticmethod
    def score_together(models: Sequence[Any], rows: Rows) -> list[Scores] | None:
        """Models of which nothing was trained are one and the same, and are asked once; None for others."""
        if any(model._trains for model in models):
            return None
        return [models[0].score(rows)] * len(models)

    def supervised(self, *common: Any, **named: Any) -> Supervised:
        """Rows whose right answers are dictated, or whose scores have the recipe's objective."""
        if self.loss == "scores":
            return super().supervised(*common, **named)
        return Dictated(self.script, *common, **named)

    def trained(self, net: nn.Module) -> nn.Module:
        """All of it."""
        return net

    def depths(self, net: Any) -> list[Mapping[str, nn.Parameter]]:
        """Embeddings, layers from the bottom up, what is above them."""
        return list(net.layers())

    def remarks(self, corpus: Corpus) -> tuple[str, ...]:
        """How much was truncated, and what the checkpoint lacked."""
        return (*truncation_remarks(self.sequences(corpus).inputs, len(corpus)), *self.backbone_remarks)

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's layout, or the whole model; nothing of one that wasn't trained but its name."""
        if isinstance(self.net, AdaptedWriter):
            self.net.save_adapter(folder, self.origin.name)
        elif self._trains:
            save_backbone(self.net.loaded.whole, self.tokenizer, folder)
        else:
            (folder / SOURCE).write_text(json.dumps({"backbone": self.origin.name}), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; the backbone of an adapter is found by its name."""
        if self.adapter is None and self._trains:
            self.origin = replace(self.origin, name=str(folder), architecture=None, decoder=None)
            self.tokenizer_name = str(folder)
            for name in ("tokenizer", "config", "script"):
                self.__dict__.pop(name, None)
        self.net = self._made(self.seed, trained=False)
        if isinstance(self.net, AdaptedWriter):
            self.net.load_adapter(folder)
        self.resumed = True
        self.net.eval()

    @property
    def _trains(self) -> bool:
        return bool(self.training["epochs"])

"""The generator family: a language model that writes its labels, prompted as it is or fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fivefold.data.compose import Corpus, Near, Rows
from fivefold.errors import RecipeError
from fivefold.models.backbones.adapters import Adapter
from fivefold.models.backbones.architectures import PositionLimit, position_limit
from fivefold.models.backbones.backbone import (
    Backbone,
    Origin,
    Weights,
    load_tokenizer,
    load_writer,
    load_writer_config,
    save_backbone,
)
from fivefold.models.backbones.contents import check_source, keep_source
from fivefold.models.backbones.encoder_decoders import check_room, is_encoder_decoder
from fivefold.models.backbones.resident import TRAINED, Resident, resident
from fivefold.models.base import History
from fivefold.models.generator.asking import Asking, Normalise
from fivefold.models.generator.choices import moved
from fivefold.models.generator.listing import Listing
from fivefold.models.generator.net import AdaptedWriter, Script, WriterNet
from fivefold.models.generator.prompts import PLAIN_HEADER, Chat, Format, encoded_format, format_of
from fivefold.models.generator.shared import SharedWriter
from fivefold.models.generator.writing import Writing, closed
from fivefold.models.networks.material import Positions, Sequences
from fivefold.models.networks.network import Network, weights_of
from fivefold.models.networks.reading import Columns, Reading, read_both_ways, truncation_remarks
from fivefold.models.networks.supervised import Supervised, on_device
from fivefold.scores import Scores, id_array, normalised
from fivefold.task import Labels, Task
from fivefold.training.inputs import Inputs
from fivefold.training.precision import choose_precision, default_device
from fivefold.training.tokens import tokenise, tokenizer_digest


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


def load_untrained(origin: Origin, tokenizer: Any, *, seed: int) -> Backbone:
    """A backbone that all folds ask as it is; no adapter ever stands on it."""
    return load_writer(origin, tokenizer, seed=seed)


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


def silent(rows: Rows) -> Rows:
    """An empty text; one for each of `rows` where these have examples of their own, which it then has too."""
    near = rows.corpus.near
    own = None if near is None else Near(near.places[rows.index], near.pool)
    ids = id_array(["silence"]) if own is None else rows.ids
    return Corpus(ids, {name: [""] * len(ids) for name in rows.corpus.fields}, near=own).rows()


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
        self.home: Resident | None = None
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

    @property
    def two_stacks(self) -> bool:
        """Whether texts and answers are read by stacks of their own."""
        return is_encoder_decoder(self.config)

    @cached_property
    def script(self) -> Script:
        """What is written behind a prompt."""
        return self.script_of(self.task, self.writing)

    def script_of(self, task: Task, writing: Writing) -> Script:
        """What is written of a task; the words around texts and answers don't depend on the columns' names."""
        shown = self._format(["text"], self.template)
        header, end = self.header_ids(shown.header), end_of(self.tokenizer)
        if writing.write == "list":
            return Listing(writing.listed(task, self.plain, header=header, end=end))
        asked = writing.about(task, self.plain, lead=shown.lead, header=header, end=end)
        return Asking(asked, self.normalise, self.beams)

    def _format(self, names: Sequence[str], template: str | None) -> Format:
        if self.two_stacks:
            return encoded_format(names, template, self.chat, self.system)
        return format_of(self.tokenizer, names, template, self.chat, self.system)

    def header_ids(self, words: str) -> tuple[int, ...]:
        """What stands between a question and its answer in ids; a list begins on a line of its own."""
        header = tuple(self.tokenizer.encode(words, add_special_tokens=False))
        return header + closed(self.plain) if self.writing.write == "list" and words in (PLAIN_HEADER, "") else header

    def plain(self, text: str) -> tuple[int, ...]:
        """Words as ids, of which none are special tokens."""
        return tuple(tokenise([text], self.tokenizer, None).ids.tolist())

    def learn_vocabulary(self, train: Rows) -> None:
        """Nothing: the tokenizer comes with the backbone."""

    def sequences(self, corpus: Corpus) -> Sequences:
        """The prompts of all rows."""
        return Prompts(self.records(corpus, self.template), self.tokenizer.pad_token_id, self.script.tokens)

    def records(self, corpus: Corpus, template: str | None) -> Inputs:
        """All rows in a template's words."""
        shown = self._format(list(corpus.fields), template)
        reading = replace(self.reading, template=shown.template)
        key = f"generator:{tokenizer_digest(self.tokenizer)}:{reading}"
        return corpus.once(key, lambda fields: self._inputs(fields, reading))

    def _inputs(self, fields: Columns, reading: Reading) -> Inputs:
        return reading.inputs(read_both_ways(fields, self.task.swap), self.tokenizer, self.limit)

    @cached_property
    def limit(self) -> PositionLimit:
        """Tokens of a prompt, without questions and answers, which an encoder-decoder reads apart from it."""
        limit = position_limit(self.config)
        if self.two_stacks:
            check_room(self.config, 1 + self.script.deepest)
            return limit
        return PositionLimit(limit.tokens - self.script.deepest, limit.hard)

    def build(self, labels: Labels | None, seed: int) -> nn.Module:
        """The backbone, with an adapter that adds nothing yet where one is trained."""
        return self._made(seed, trained=True)

    def _made(self, seed: int, *, trained: bool) -> WriterNet:
        if not self._trains:
            self.home = resident(self.origin, self.tokenizer, seed=seed, trained=False, load=load_untrained)
            self.backbone_remarks = self.home.loaded.remarks
            return SharedWriter(self.home.loaded, self.script)
        if self.adapter is None:
            loaded = load_writer(self.origin, self.tokenizer, seed=seed)
            self.backbone_remarks = loaded.remarks
            return WriterNet(loaded, self.script, self.unfrozen_layers)
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
        found = self.said(rows)
        if not self.contextual:
            return found
        biases = self.said(silent(rows)).logits
        return Scores(self.task, found.ids, normalised(self.task, found.logits - biases))

    def said(self, rows: Rows) -> Scores:
        """Logits of `rows` as they are."""
        return super().score(rows)

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
        if self._trains and self.adapter is None:
            save_backbone(self.net.loaded.whole, self.tokenizer, folder)
            return
        keep_source(folder, self.origin.name)
        if isinstance(self.net, AdaptedWriter):
            self.net.save_adapter(folder, self.origin.name)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; the backbone of an adapter is found by its name."""
        if self.adapter is None and self._trains:
            self.origin = replace(self.origin, name=str(folder), architecture=None, decoder=None)
            self.tokenizer_name = str(folder)
            for name in ("tokenizer", "config", "script"):
                self.__dict__.pop(name, None)
        check_source(folder, self.origin.name)
        self.net = self._made(self.seed, trained=False)
        if isinstance(self.net, AdaptedWriter):
            self.net.load_adapter(folder)
        self.resumed = True
        self.net.eval()

    @property
    def _trains(self) -> bool:
        return bool(self.training["epochs"])

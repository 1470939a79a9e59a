"""The generator family with all that may stand around a record: examples, and several wordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.data.compose import Corpus, Rows
from fivefold.errors import RecipeError
from fivefold.models.base import Cost, History
from fivefold.models.generator.answers import Positions
from fivefold.models.generator.classifier import GeneratorClassifier, Prompts, end_of
from fivefold.models.generator.net import Script
from fivefold.models.generator.prompts import Format, Turn, format_of, turn_of
from fivefold.models.generator.shots import Drawn, Shots, draw
from fivefold.models.networks.supervised import logits_of
from fivefold.scores import Scores, both_orders, normalised
from fivefold.task import FloatArray, IntArray, Task
from fivefold.training.assembly import Piece, assembled
from fivefold.training.inputs import NO_LEAD, Coverage, Inputs, Template, learn_template, written_template
from fivefold.training.precision import default_device
from fivefold.training.tokens import IndexArray, Tokens, spans, starts_of, tokenizer_digest

SAMPLE = 1000
"""Rows whose prompts are counted before a fit, and for its remarks."""

LEAST = 8
"""Tokens of an example's text, however small its share of the context."""


@dataclass(frozen=True, eq=False)
class Part:
    """What is asked for behind one prompt.

    Parameters
    ----------
    task
        The targets that it answers.
    columns
        Their logits among those of the whole task, (width,).
    script
        What is written.
    """

    task: Task
    columns: Positions
    script: Script


@dataclass(frozen=True)
class Behind:
    """Prompts with examples.

    Parameters
    ----------
    inputs
        The prompts.
    kept, known
        Examples of each that are shown, and that there are, (rows,).
    alike
        Ids that all of them begin with that show every example there is.
    """

    inputs: Inputs
    kept: IndexArray
    known: IndexArray
    alike: IntArray

    @property
    def computed(self) -> int:
        """Tokens of all prompts, those that they begin with counted once."""
        again = len(self.alike) * (max(1, int((self.kept == self.known).sum())) - 1)
        return int(self.inputs.tokens.lengths.sum()) - again

    @property
    def groups(self) -> list[tuple[Positions, IntArray]]:
        """Rows of which several may begin alike, and how: those with all examples, and the others."""
        whole = np.flatnonzero(self.kept == self.known)
        rest = np.setdiff1d(np.arange(len(self.kept)), whole)
        return [(whole, self.alike if len(whole) > 1 else NO_LEAD), (rest, NO_LEAD)]


class PromptedClassifier(GeneratorClassifier):
    """One fold of the generator family; settings as in the recipe's section `model`."""

    def __init__(
        self,
        task: Task,
        *,
        template: str | None,
        prompts: Sequence[str],
        shots: Mapping[str, Any] | None,
        **common: Any,
    ) -> None:
        self.templates: tuple[str | None, ...] = tuple(prompts) or (template,)
        super().__init__(task, template=self.templates[0], **common)
        self.shots = None if shots is None else Shots(**shots)
        self.drawn: Drawn | None = None

    @property
    def alone(self) -> bool:
        """Whether a record is all there is before the questions."""
        return self.shots is None and len(self.templates) == 1

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All questions behind one prompt, or each behind one of its own, as its examples are."""
        tasks = (self.task,) if self.shots is None else self.writing.apart(self.task)
        return tuple(self._part(task) for task in tasks)

    def _part(self, task: Task) -> Part:
        columns = np.concatenate([np.arange(self.task.width)[self.task.slices[name]] for name in task.names])
        return Part(task, columns, self.script_of(task, self.writing.only(task)))

    def cost(self, train: Rows) -> Cost:
        """As of a network that reads every record alone, times what is read around it and how often."""
        self._draw(train)
        cost = super().cost(train)
        if self.alone:
            return cost
        some = sample(train.index)
        alone = self.sequences(train.corpus).lengths[some].sum()
        around = sum(
            self.prompts(train.corpus, some, part, template).computed + len(some) * part.script.tokens
            for template in self.templates
            for part in self.parts
        )
        return replace(cost, seconds=cost.seconds * float(around / alone))

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        """Draw examples from `train`, and train on it if there are epochs."""
        self._draw(train)
        history = super().fit(train, valid, scratch)
        return replace(history, remarks=(*history.remarks, *self._left_out(train)))

    def _draw(self, train: Rows) -> None:
        if self.shots is not None and self.shots.take == "balanced":
            kinds = [part.script.kinds(train.labels) for part in self.parts]
            self.drawn = draw(train, kinds, self.shots.count, self.seed if self.shots.seed is None else self.shots.seed)

    def said(self, rows: Rows) -> Scores:
        """Logits of `rows`, the mean over all wordings."""
        if self.alone:
            return super().said(rows)
        logits = self._logits(rows.corpus, rows.index)
        if self._swapped("scoring"):
            logits = both_orders(self.task, logits, self._logits(rows.corpus, rows.index + len(rows.corpus)))
        return Scores(self.task, rows.ids, logits)

    def _logits(self, corpus: Corpus, index: Positions) -> FloatArray:
        """Those of some records, the mean over all wordings, float32 (rows, width)."""
        total = np.zeros((len(index), self.task.width), dtype=np.float32)
        for template in self.templates:
            for part in self.parts:
                total[:, part.columns] += self.answered(part, self.prompts(corpus, index, part, template))
        return normalised(self.task, total / np.float32(len(self.templates)))

    def answered(self, part: Part, behind: Behind) -> FloatArray:
        """What the model says of a part of the task behind each prompt, float32 (rows, part's width)."""
        net = self.net.to(default_device()).eval()
        net.script = part.script
        material = Prompts(behind.inputs, self.tokenizer.pad_token_id, part.script.tokens)
        logits = np.empty((behind.inputs.rows, part.task.width), dtype=np.float32)
        for rows, alike in behind.groups:
            net.begin(alike.tolist())
            logits[rows] = logits_of(net, material, rows, part.task, self.scoring_tokens)
        net.begin(())
        return logits

    @staticmethod
    def score_together(models: Sequence[Any], rows: Rows) -> list[Scores] | None:
        """As of models without examples; those that have some don't say the same."""
        if any(model.shots is not None for model in models):
            return None
        return GeneratorClassifier.score_together(models, rows)

    def prompts(self, corpus: Corpus, index: Positions, part: Part, template: str | None) -> Behind:
        """Some records, each behind its examples.

        Examples are left out, those that stand first before others, where the context is too short for all.
        """
        records = _taken(self.records(corpus, template), index)
        none = np.zeros(len(index), dtype=np.int64)
        if self.shots is None:
            return Behind(records, none, none, NO_LEAD)
        pool, places = self._shown(corpus, index, part)
        used, slots = np.unique(places, return_inverse=True)
        slots = slots.reshape(places.shape) - (len(used) and used[0] < 0)
        first, examples = self._shown_tokens(pool, used[used >= 0], part, template)
        lengths = np.where(slots < 0, 0, np.append(examples.lengths, 0)[slots])
        room = (self.reading.max_tokens or self.limit.tokens) - records.tokens.lengths
        needed = np.cumsum(lengths[:, ::-1], axis=1)[:, ::-1]
        kept = np.where(needed <= room[:, None], lengths, 0)
        starts = np.append(examples.starts[:-1], 0)[slots]
        begins, ends = records.tokens.starts[:-1], records.tokens.lengths
        front = np.full(len(index), first)
        tokens, types = assembled(
            [
                Piece(records.tokens.ids, records.types, begins, front),
                *(Piece(examples.ids, 0, starts[:, slot], kept[:, slot]) for slot in range(places.shape[1])),
                Piece(records.tokens.ids, records.types, begins + front, ends - front),
            ]
        )
        shown, known = ((each > 0).sum(axis=1) for each in (kept, lengths))
        inputs = replace(records, tokens=tokens, types=types)
        full = np.flatnonzero(shown == known)
        whole = first + int(lengths[0].sum()) if self.drawn is not None and len(full) else 0
        return Behind(inputs, shown, known, tokens.row(full[0])[:whole] if whole else NO_LEAD)

    def _shown(self, corpus: Corpus, index: Positions, part: Part) -> tuple[Corpus, Positions]:
        """Examples, and which of them stand before each record, in that order: (rows, most), -1 for none."""
        if self.drawn is not None:
            return self.drawn.pool, np.tile(self.drawn.places[self.parts.index(part)], (len(index), 1))
        assert corpus.near is not None
        return corpus.near.pool, corpus.near.places[index % len(corpus)][:, ::-1]

    def _shown_tokens(self, pool: Corpus, used: Positions, part: Part, template: str | None) -> tuple[int, Tokens]:
        """Tokens that stand before the first example's text, and each example behind them up to the next text."""
        names = list(pool.fields)
        shown, turn = self._words(names, template)
        opening = self._read(shown.template, names)
        following = self._read(turn.template, names).prefix[len(learn_template(self.tokenizer).prefix) :]
        bodies, first = self._bodies(pool, shown, opening), len(opening.prefix)
        asked = self.plain(part.script.words) + self.header_ids(turn.header)
        rows = pool.rows(used)
        answers = part.script.answers(rows.labels)
        end = end_of(self.tokenizer)
        tails = [(*answer[: -1 if answer[-1:] == following[:1] == (end,) else None], *following) for answer in answers]
        known = np.array([bool(answer) for answer in answers], dtype=bool)
        lengths = np.array([len(tail) for tail in tails], dtype=np.int64)
        begins = bodies.tokens.starts[:-1][used] + first
        ids, _ = assembled(
            [
                Piece(bodies.tokens.ids, 0, begins, np.where(known, bodies.tokens.lengths[used] - first, 0)),
                Piece(np.array(asked, dtype=np.int32), 0, np.zeros_like(used), np.where(known, len(asked), 0)),
                Piece(
                    np.array([token for tail in tails for token in tail], dtype=np.int32),
                    0,
                    starts_of(lengths)[:-1],
                    np.where(known, lengths, 0),
                ),
            ]
        )
        return first, ids

    def _words(self, names: Sequence[str], template: str | None) -> tuple[Format, Turn]:
        if self.two_stacks:
            raise RecipeError(
                "An encoder-decoder was never shown examples before a record.",
                next_step="leave model.shots out, or name a causal model",
            )
        how = (self.tokenizer, names, template, self.chat, self.system)
        return format_of(*how), turn_of(*how)

    def _read(self, words: str, names: Sequence[str]) -> Template:
        return written_template(words, self.tokenizer, names)[0]

    def _bodies(self, pool: Corpus, shown: Format, opening: Template) -> Inputs:
        """The texts of all examples as records are read, cut to their budget."""
        assert self.shots is not None
        share = (self.reading.max_tokens or self.limit.tokens) // (self.shots.count + 1)
        budget = opening.overhead(len(pool.fields)) + (self.shots.tokens or max(LEAST, share))
        reading = replace(self.reading, template=shown.template, max_tokens=budget)
        limit = replace(self.limit, hard=False)
        return pool.once(
            f"generator:{tokenizer_digest(self.tokenizer)}:example:{reading}",
            lambda fields: reading.inputs(fields, self.tokenizer, limit),
        )

    def _left_out(self, train: Rows) -> tuple[str, ...]:
        """How many examples were cut or left out, as the context is short."""
        if self.shots is None:
            return ()
        some, said = sample(train.index), []
        asked = [self.prompts(train.corpus, some, part, t) for t in self.templates for part in self.parts]
        kept, known = (np.concatenate([getattr(each, name) for each in asked]) for name in ("kept", "known"))
        if (kept < known).any():
            said.append(
                f"Examples: {(kept < known).mean():.1%} of the prompts have no room for all; on average they show "
                f"{kept.mean():.1f} of {known.mean():.1f}, {(kept == 0).mean():.1%} show none."
            )
        pool, _ = self._shown(train.corpus, some, self.parts[0])
        names = list(pool.fields)
        for template in self.templates:
            shown, _ = self._words(names, template)
            coverage = self._bodies(pool, shown, self._read(shown.template, names)).coverage
            if coverage.truncated:
                said.append(
                    f"Examples: {coverage.truncated / len(pool):.1%} of their texts are cut; "
                    f"{coverage.lost:.1%} of their tokens are left out (model.shots.tokens)."
                )
        return tuple(dict.fromkeys(said))

    def save(self, folder: Path) -> None:
        """Write the model, and the examples that were drawn for it."""
        super().save(folder)
        if self.drawn is not None:
            self.drawn.save(folder)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote."""
        super().load(folder)
        if self.shots is not None and self.shots.take == "balanced":
            self.drawn = Drawn.load(folder, self.task)


def sample(index: Positions) -> Positions:
    """At most so many of the rows, evenly."""
    some: Positions = index[np.unique(np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(np.int64))]
    return some


def _taken(inputs: Inputs, index: npt.NDArray[np.int64]) -> Inputs:
    """Some rows of one sequence each."""
    at = spans(inputs.tokens.starts[:-1][index], inputs.tokens.lengths[index])
    fields = {name: Coverage(each.content[index], each.kept[index]) for name, each in inputs.fields.items()}
    rows = np.arange(len(index))
    return Inputs(inputs.tokens.take(index), inputs.types[at], rows, rows, fields)

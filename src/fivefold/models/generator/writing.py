"""What a model is asked about a task, in words: a question a target, or the path of labels to write."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from fivefold.errors import RecipeError
from fivefold.models.generator.answers import Answers, Positions, Question, grow
from fivefold.models.generator.choices import Columns
from fivefold.models.generator.listing import Items
from fivefold.task import MISSING, Binary, IntArray, Labels, Target, Task

Words = Callable[[str], tuple[int, ...]]
"""Words as ids; none of them are special tokens."""

LETTERS = string.ascii_uppercase

LISTED, CLOSED = "labels", ("\n", ";")
"""What a list is asked for by, and what closes each of its labels: the first that a tokenizer has tokens for."""

BEYOND = " > "
"""Between the levels of a path."""


@dataclass(frozen=True)
class Asked:
    """One question in words, and what its candidates stand for.

    Parameters
    ----------
    words
        The question.
    candidates
        Ids of each candidate.
    names
        The targets that are asked for: one, or the levels of a path.
    codes
        int32 (candidates, targets): the class of each candidate.
    """

    words: str
    candidates: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    codes: IntArray

    @cached_property
    def _numbers(self) -> dict[tuple[int, ...], int]:
        """Codes to the candidate that stands for them."""
        return {tuple(codes): number for number, codes in enumerate(self.codes.tolist())}

    def chosen(self, labels: Labels) -> Positions:
        """The candidate that rows' labels are, -1 where a label is missing or no candidate: int64 (rows,)."""
        rows = np.stack([labels.column(name) for name in self.names], axis=1)
        return np.array([self._numbers.get(tuple(codes), MISSING) for codes in rows.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class Questionnaire:
    """All questions about a task as one tree, and which candidates speak for which logits."""

    asked: tuple[Asked, ...]
    answers: Answers
    columns: Columns


@dataclass(frozen=True)
class Writing:
    """Words of questions and answers; the parameters are keys of the recipe's section `model`.

    Parameters
    ----------
    write
        "questions": every target is asked for alone; "path": the levels of the task's tree are written one after the
        other, and every other target is asked for alone; "list": the labels that are present are written, a line each.
    question
        Words that ask for a target, in which {name} is its name.
    questions
        Target to the words that ask for it instead; a path is asked for by its root's.
    yes, no
        Answers to a binary.
    choices
        "names": a class is answered by its name; "letters": by a letter that the question lists it with.
    answers
        Class (target=class), or label of a list, to words that stand for its name.
    """

    write: Literal["questions", "path", "list"] = "questions"
    question: str = "{name}?"
    questions: Mapping[str, str] = field(default_factory=dict)
    yes: str = "Yes"
    no: str = "No"
    choices: Literal["names", "letters"] = "names"
    answers: Mapping[str, str] = field(default_factory=dict)

    def check(self, task: Task) -> None:
        """Refuse words for what the task hasn't.

        Raises
        ------
        RecipeError
            Naming what there is.
        """
        worded = task.binaries if self.write == "list" else task.categoricals
        named_so = tuple(column for target in worded for column in target.columns)
        named = (("questions", self.questions, task.names), ("answers", self.answers, named_so))
        for key, words, known in named:
            if strange := sorted(set(words) - set(known)):
                raise RecipeError(f"model.{key} names {strange}, which the task hasn't.", allowed=", ".join(known[:20]))
        if self.write == "path" and task.tree is None:
            raise RecipeError(
                "model.write 'path' writes the levels of a tree, and the task has none.",
                next_step="add task.tree, or take model.write: questions",
            )
        if self.write == "list" and task.categoricals:
            raise RecipeError(
                "model.write 'list' writes labels that are present or not.",
                allowed="binaries only",
                got=f"the categoricals {', '.join(target.name for target in task.categoricals[:10])}",
                next_step="take model.write: questions",
            )
        most = max((target.width for target in task.categoricals), default=0)
        if self.choices == "letters" and most > len(LETTERS):
            raise RecipeError(
                "model.choices 'letters' answers with one letter a class.",
                allowed=f"{len(LETTERS)} classes at most",
                got=f"{most} classes",
                next_step="take model.choices: names",
            )

    def only(self, task: Task) -> Writing:
        """The words for a part of a task that was checked as a whole."""
        columns = {column for target in task.targets for column in target.columns}
        questions = {name: words for name, words in self.questions.items() if name in task.names}
        answers = {column: words for column, words in self.answers.items() if column in columns}
        write = "questions" if self.write == "path" and task.tree is None else self.write
        return replace(self, write=write, questions=questions, answers=answers)

    def apart(self, task: Task) -> tuple[Task, ...]:
        """The task in parts that are asked for by themselves."""
        if self.write == "list":
            return (task,)
        levels = task.tree.levels if self.write == "path" and task.tree else ()
        path = [Task(tuple(task.target(name) for name in levels), task.tree)] if levels else []
        return (*path, *(Task((target,)) for target in task.targets if target.name not in levels))

    def about(self, task: Task, plain: Words, *, lead: str, header: tuple[int, ...], end: int) -> Questionnaire:
        """The questions about a task behind a prompt.

        Parameters
        ----------
        lead
            What stands before an answer's words.
        header, end
            Ids between a question and its answer, and the one that ends an answer where it might go on.

        Raises
        ------
        RecipeError
            As `check`, and if two answers to a question are the same tokens.
        """
        self.check(task)
        levels = task.tree.levels if self.write == "path" and task.tree else ()
        asked = [self._path(task, plain, lead)] if levels else []
        asked += [self._alone(target, plain, lead) for target in task.targets if target.name not in levels]
        for each in asked:
            _check_apart(task, each)
        open_ended = _grown(asked, plain, header).ambiguous
        for number in open_ended:
            closed = tuple((*candidate, end) for candidate in asked[number].candidates)
            asked[number] = replace(asked[number], candidates=closed)
        return Questionnaire(tuple(asked), _grown(asked, plain, header), _columns(task, asked))

    def listed(self, task: Task, plain: Words, *, header: tuple[int, ...], end: int) -> Items:
        """What a list of labels is made of; arguments as those of `about`.

        Raises
        ------
        RecipeError
            If a target is no binary.
        """
        self.check(task)
        names = [self.answers.get(target.name, target.name) for target in task.binaries]
        words = self.question.replace("{name}", LISTED)
        return Items(words, plain(words) + header, tuple(plain(name) + closed(plain) for name in names), end)

    def _alone(self, target: Target, plain: Words, lead: str) -> Asked:
        """A target by itself, its candidates in the order of its codes."""
        words = self.questions.get(target.name, self.question.replace("{name}", target.name))
        names = [self.no, self.yes] if isinstance(target, Binary) else self._names(target)
        if self.choices == "letters" and not isinstance(target, Binary):
            words += "".join(f"\n{letter}. {name}" for letter, name in zip(LETTERS, names, strict=False))
            names = list(LETTERS[: len(names)])
        codes = np.arange(len(names), dtype=np.int32)[:, None]
        return Asked(words, tuple(plain(lead + name) for name in names), (target.name,), codes)

    def _path(self, task: Task, plain: Words, lead: str) -> Asked:
        """The valid paths of the tree, root first."""
        assert task.tree is not None
        levels = task.tree.levels
        leads = [lead, *[BEYOND] * (len(levels) - 1)]
        pieces = [
            [plain(before + name) for name in self._names(task.target(level))]
            for level, before in zip(levels, leads, strict=True)
        ]
        paths = task.tree.paths
        candidates = tuple(sum((pieces[level][code] for level, code in enumerate(path)), start=()) for path in paths)
        words = self.questions.get(levels[0], self.question.replace("{name}", BEYOND.join(levels)))
        return Asked(words, candidates, levels, np.array(paths, dtype=np.int32))

    def _names(self, target: Target) -> list[str]:
        return [self.answers.get(column, name) for column, name in zip(target.columns, target.classes, strict=True)]


def _check_apart(task: Task, asked: Asked) -> None:
    """Refuse classes whose words a tokenizer reads alike, as BERT's does capitals."""
    named: dict[tuple[int, ...], list[str]] = {}
    targets = [task.target(name) for name in asked.names]
    if any(isinstance(target, Binary) for target in targets):
        return
    for candidate, codes in zip(asked.candidates, asked.codes.tolist(), strict=True):
        words = (target.classes[code] for target, code in zip(targets, codes, strict=True))
        named.setdefault(candidate, []).append(BEYOND.join(words))
    if alike := [names for ids, names in named.items() if len(names) > 1 or not ids]:
        raise RecipeError(
            f"Answers to '{asked.words}' are the same tokens, or have none, so that they can't be told apart.",
            got=", ".join(" = ".join(names) for names in alike[:10]),
            next_step="give them other words in model.answers",
        )


def closed(plain: Words) -> tuple[int, ...]:
    """Ids that close a label of a list; tokenizers like BERT's have none for a line break."""
    return next((ids for each in CLOSED if (ids := plain(each))), ())


def _grown(asked: Sequence[Asked], plain: Words, header: tuple[int, ...]) -> Answers:
    return grow([Question(plain(each.words) + header, each.candidates) for each in asked])


def _columns(task: Task, asked: Sequence[Asked]) -> Columns:
    """Every candidate's votes: of a binary, yes for its logit and no against it; of others, for each class it names."""
    against = np.full(task.width, MISSING, dtype=np.int64)
    against[task.binary_columns] = task.width + np.arange(len(task.binaries))
    votes, first = [], 0
    for each in asked:
        for position, name in enumerate(each.names):
            start = task.slices[name].start
            codes = each.codes[:, position]
            binary = isinstance(task.target(name), Binary)
            slots = np.where(codes == 1, start, against[start]) if binary else start + codes
            votes.append(np.stack([slots, first + np.arange(len(codes))]))
        first += len(each.codes)
    joined = np.concatenate(votes, axis=1)
    slots, candidates = joined[:, np.argsort(joined[0], kind="stable")].astype(np.int64)
    questions = np.repeat(np.arange(len(asked)), [len(each.codes) for each in asked])
    return Columns(*(torch.from_numpy(each) for each in (questions, candidates, slots, against)))

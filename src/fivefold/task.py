"""What is predicted: an ordered list of targets, and labels as arrays.

Multi-label, multi-class, mixed heads, preferences with ties and hierarchies are all a `Task`.
Other rooms ask it for columns instead of asking what kind of problem it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fivefold.errors import LabelError

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int32]

MISSING = -1

RESERVED = ("id", "fold")
"""Columns of our own in every table of scores and folds; no target may be called so."""


@dataclass(frozen=True)
class Binary:
    """A yes/no label that owns one logit, its log-odds."""

    name: str

    @property
    def classes(self) -> tuple[str, ...]:
        """What the codes 0 and 1 are called."""
        return ("0", "1")

    @property
    def columns(self) -> tuple[str, ...]:
        """Name of the only logit."""
        return (self.name,)

    @property
    def width(self) -> int:
        """How many logits it owns."""
        return 1


@dataclass(frozen=True)
class Categorical:
    """One class out of several; owns a softmax group of log-probabilities, one a class."""

    name: str
    classes: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the logits, in the order of the classes."""
        return tuple(f"{self.name}={label}" for label in self.classes)

    @property
    def width(self) -> int:
        """How many logits it owns."""
        return len(self.classes)


Target: TypeAlias = Binary | Categorical


@dataclass(frozen=True)
class Tree:
    """Which classes of several categoricals go together.

    Parameters
    ----------
    levels
        Names of the categoricals, root first.
    paths
        The valid combinations: one class index a level, in the order of `levels`.
    """

    levels: tuple[str, ...]
    paths: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Swap:
    """Fields that trade places, and the classes of one categorical that follow.

    Parameters
    ----------
    fields
        Pairs of text fields that trade places.
    target
        The categorical whose classes follow.
    classes
        Class to class, its own inverse; classes left out stay themselves (a tie).
    """

    fields: tuple[tuple[str, str], ...]
    target: str
    classes: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """An ordered list of targets, with an optional tree over its categoricals and an optional swap.

    Raises
    ------
    LabelError
        If names repeat or are our own, a categorical has fewer than two classes, or tree or swap name what isn't there.
    """

    targets: tuple[Target, ...]
    tree: Tree | None = None
    swap: Swap | None = None

    def __post_init__(self) -> None:
        problems = _task_problems(self)
        if problems:
            raise LabelError(
                "The task is not well formed: " + "; ".join(problems) + ".",
                next_step="mend the task section of the recipe, or rename these columns or labels in the data",
            )

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the logits, in order: `name` of a binary, `name=class` of a categorical."""
        return tuple(column for target in self.targets for column in target.columns)

    @property
    def width(self) -> int:
        """How many logits a row has."""
        return len(self.columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(target.name for target in self.targets)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Target name to its position among the targets."""
        return {name: position for position, name in enumerate(self.names)}

    @cached_property
    def binaries(self) -> tuple[Binary, ...]:
        """The binaries, in order."""
        return tuple(target for target in self.targets if isinstance(target, Binary))

    @cached_property
    def categoricals(self) -> tuple[Categorical, ...]:
        """The categoricals, in order."""
        return tuple(target for target in self.targets if isinstance(target, Categorical))

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """Target name to its columns among the logits."""
        ends = np.cumsum([target.width for target in self.targets]).tolist()
        return {t.name: slice(end - t.width, end) for t, end in zip(self.targets, ends, strict=True)}

    @cached_property
    def binary_columns(self) -> npt.NDArray[np.int64]:
        """Indices of the binaries' logits, (binaries,)."""
        return np.array([self.slices[target.name].start for target in self.binaries], dtype=np.int64)

    @cached_property
    def swap_order(self) -> npt.NDArray[np.int64]:
        """Logits of a swapped row, `logits[:, task.swap_order]`, are those of the row itself; (width,)."""
        order = np.arange(self.width)
        if self.swap is not None:
            target = self.target(self.swap.target)
            start = self.slices[target.name].start
            for index, label in enumerate(target.classes):
                order[start + index] = start + target.classes.index(self.swap.classes.get(label, label))
        return order

    def target(self, name: str) -> Target:
        """The target called `name`."""
        return self.targets[self.positions[name]]

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        return {
            "targets": [
                {"name": t.name} | ({"classes": list(t.classes)} if isinstance(t, Categorical) else {})
                for t in self.targets
            ],
            "tree": self.tree and {"levels": list(self.tree.levels), "paths": [list(p) for p in self.tree.paths]},
            "swap": self.swap
            and {
                "fields": [list(pair) for pair in self.swap.fields],
                "target": self.swap.target,
                "classes": dict(self.swap.classes),
            },
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Task:
        """The task that `to_json` described."""
        targets = tuple(
            Categorical(t["name"], tuple(t["classes"])) if "classes" in t else Binary(t["name"])
            for t in plain["targets"]
        )
        tree, swap = plain.get("tree"), plain.get("swap")
        return Task(
            targets,
            tree and Tree(tuple(tree["levels"]), tuple(tuple(path) for path in tree["paths"])),
            swap and Swap(tuple((a, b) for a, b in swap["fields"]), swap["target"], swap["classes"]),
        )


@dataclass(frozen=True)
class Labels:
    """Labels of many rows as arrays.

    Parameters
    ----------
    codes
        int32 (rows, targets): 0/1 for a binary, class index for a categorical, -1 where missing.
        A soft cell holds its most probable class.
    soft
        Target name to float32 probabilities (rows, width), for the targets that have soft cells
        (one-hot where a row is hard, NaN where it is missing).
    """

    task: Task
    codes: IntArray
    soft: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.codes)

    def column(self, name: str) -> IntArray:
        """Codes of one target, (rows,)."""
        return self.codes[:, self.task.positions[name]]

    @cached_property
    def binary_codes(self) -> IntArray:
        """Codes of the binaries, (rows, binaries)."""
        return self.codes[:, [self.task.positions[t.name] for t in self.task.binaries]]

    def probabilities(self, name: str) -> FloatArray:
        """What a model should say of one target: float32 (rows, width), NaN where missing."""
        if name in self.soft:
            return self.soft[name]
        codes, target = self.column(name), self.task.target(name)
        if isinstance(target, Binary):
            return np.where(codes == MISSING, np.nan, codes).astype(np.float32)[:, None]
        one_hot = np.zeros((len(codes), target.width), dtype=np.float32)
        one_hot[np.arange(len(codes)), np.maximum(codes, 0)] = 1
        one_hot[codes == MISSING] = np.nan
        return one_hot

    def take(self, index: npt.NDArray[Any]) -> Labels:
        """The rows at `index` (positions or a boolean mask)."""
        return Labels(self.task, self.codes[index], {name: block[index] for name, block in self.soft.items()})

    def swapped(self) -> Labels:
        """The labels of the rows with their swapped fields exchanged."""
        swap = self.task.swap
        if swap is None:
            return self
        target = self.task.target(swap.target)
        moved = np.array([target.classes.index(swap.classes.get(c, c)) for c in target.classes], dtype=np.int32)
        position = self.task.positions[swap.target]
        codes = self.codes.copy()
        codes[:, position] = np.where(codes[:, position] == MISSING, MISSING, moved[codes[:, position]])
        soft = {n: block[:, moved] if n == swap.target else block for n, block in self.soft.items()}
        return Labels(self.task, codes, soft)


def concatenate(parts: Sequence[Labels]) -> Labels:
    """Labels of several tables of one task, one after the other."""
    task = parts[0].task
    names = {name for part in parts for name in part.soft}
    soft = {name: np.concatenate([part.probabilities(name) for part in parts]) for name in sorted(names)}
    return Labels(task, np.concatenate([part.codes for part in parts]), soft)


def learn_tree(levels: Sequence[str], labels: Labels) -> Tree:
    """The tree whose paths are the combinations seen in complete rows of `labels`.

    Raises
    ------
    LabelError
        If no row has all levels.
    """
    codes = np.stack([labels.column(name) for name in levels], axis=1)
    complete = codes[(codes != MISSING).all(axis=1)]
    if not len(complete):
        raise LabelError(
            f"The tree {' > '.join(levels)} can't be learnt: no row has a class at every level.",
            next_step="fill the levels of some rows, list task.tree_paths, or leave task.tree out of the recipe",
        )
    return Tree(tuple(levels), tuple(tuple(path) for path in np.unique(complete, axis=0).tolist()))


def _task_problems(task: Task) -> list[str]:
    problems = []
    names = [target.name for target in task.targets]
    if not names:
        problems.append("it has no target")
    problems += [f"the target '{name}' is named twice" for name in _repeated(names)]
    problems += [f"a target is named '{name}', as a column that Fivefold writes" for name in RESERVED if name in names]
    sizes = {target.name: len(target.classes) for target in task.targets if isinstance(target, Categorical)}
    problems += [f"the categorical '{name}' has fewer than two classes" for name, size in sizes.items() if size < 2]
    problems += [
        f"the categorical '{t.name}' names a class twice" for t in task.targets if len(set(t.classes)) < len(t.classes)
    ]
    if not problems:
        problems += [f"two logits are named '{column}'" for column in _repeated(task.columns)]
    if task.tree is not None:
        problems += [f"the tree names '{n}', which is no categorical" for n in task.tree.levels if n not in sizes]
    if task.swap is not None:
        problems += _swap_problems(task.swap, task)
    return problems


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _swap_problems(swap: Swap, task: Task) -> list[str]:
    target = next((t for t in task.targets if t.name == swap.target), None)
    if not isinstance(target, Categorical):
        return [f"the swap names '{swap.target}', which is no categorical"]
    strange = sorted({*swap.classes, *swap.classes.values()} - set(target.classes))
    problems = [f"the swap maps '{label}', which is no class of '{target.name}'" for label in strange]
    if any(swap.classes.get(other, other) != label for label, other in swap.classes.items()):
        problems.append("the swap's class map is not its own inverse")
    return problems

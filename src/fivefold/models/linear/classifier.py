"""The linear family: TF-IDF features under logistic regression, a linear SVM, or boosted trees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from fivefold.data.compose import Rows
from fivefold.models.base import Cost, History, threads
from fivefold.models.linear.examples import Examples
from fivefold.models.linear.features import Features, documents, stacked
from fivefold.models.linear.ngrams import Analyzer, NGrams, read_ngrams
from fivefold.models.linear.tfidf import TfidfSettings
from fivefold.objectives.weights import side_weights
from fivefold.scores import Scores, both_orders
from fivefold.task import FloatArray, Labels, Task

Span = tuple[int, int]

ENTRIES_PER_CHARACTER = 2.5
ENTRIES_PER_FEATURE = 18
SECONDS_PER_CHARACTER = 1e-7
SECONDS_PER_ENTRY = 1e-7
WIDEST_BLOCK = 256
BASE_BYTES = 0.35e9
"""Measured on tweets, news and product titles with the default n-grams, on two Zen 4 cores; `cost` says no more than
the order of magnitude elsewhere."""

EXPLAINED = 60
"""Labels that are explained, the most frequent ones."""


class Head(Protocol):
    """From sparse features to logits, for all targets of a task."""

    def fit(self, examples: Examples, sides: FloatArray) -> dict[str, float]:
        """Learn; figures for the history. `sides` weighs the negative and positive side of each logit, (width, 2)."""
        ...

    def logits(self, features: csr_array) -> FloatArray:
        """float32 (rows, width)."""
        ...

    def weights_of(self, column: int) -> FloatArray:
        """How much each feature speaks for a logit, (features,)."""
        ...

    def save(self, folder: Path) -> None:
        """Write files into `folder`."""
        ...

    def load(self, folder: Path) -> None:
        """Read them."""
        ...


class LinearClassifier:
    """One fold of the linear family; settings as in the recipe's section `model`."""

    def __init__(
        self,
        task: Task,
        *,
        seed: int,
        solver: Literal["logistic", "svm", "boosting"],
        tokens: Analyzer,
        word_ngrams: Span | None,
        char_ngrams: Span | None,
        min_df: int,
        max_features: int | None,
        sublinear_tf: bool,
        C: float,
        max_epochs: int,
        tolerance: float,
        prune: float,
        trees: int,
        leaves: int,
        learning_rate: float,
        both_orders: bool,
        class_weights: Literal["none", "balanced"],
        weight_cap: float | None,
    ) -> None:
        self.task = task
        self.both_orders = both_orders and task.swap is not None
        self.class_weights, self.weight_cap = class_weights, weight_cap
        blocks = [NGrams(tokens, *word_ngrams)] if word_ngrams else []
        blocks += [NGrams("char_wb", *char_ngrams)] if char_ngrams else []
        settings = TfidfSettings(min_df=min_df, max_features=max_features, sublinear=sublinear_tf)
        self.features = Features(tuple(blocks), settings, task.swap)
        self.head: Head
        if solver == "boosting":
            from fivefold.models.linear.boosting import BoostedHead

            self.head = BoostedHead(task, trees, leaves, learning_rate, seed, threads())
        else:
            from fivefold.models.linear.head import LinearHead

            self.head = LinearHead(task, solver, C, max_epochs, tolerance, prune, seed, threads())

    def cost(self, train: Rows) -> Cost:
        """From the length of the texts: n-grams are counted once, each pass visits them for 16 logits at a time."""
        corpus = train.corpus
        characters = sum(len(text) for name in corpus.worded for text in corpus.fields[name])
        entries = characters * ENTRIES_PER_CHARACTER * len(train) / len(corpus)
        if self.task.swap is not None:  # the features of both sides and their difference
            entries *= 4 if self.both_orders else 2
        seconds = characters * SECONDS_PER_CHARACTER + entries * -(-self.task.width // 16) * SECONDS_PER_ENTRY
        dense = entries / ENTRIES_PER_FEATURE * min(self.task.width, WIDEST_BLOCK) * 8
        return Cost(seconds, BASE_BYTES + characters * 8 + entries * 16 + dense)

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        """Fit vocabulary, frequencies and head on `train`; nothing else is looked at."""
        self.features.fit(train)
        alone = np.arange(len(train), dtype=np.int32)
        groups = alone if train.groups is None else train.groups
        examples = Examples(self.features.transform(train), train.labels, train.weights, groups)
        sides = self._sides(train.labels)
        if self.both_orders:
            examples = examples.and_swapped(self.features.transform_swapped(train))
        figures = self.head.fit(examples, sides)
        return History({"rows": float(len(train)), "features": float(examples.features.shape[1]), **figures})

    def score(self, rows: Rows) -> Scores:
        """Logits of `rows`; of pairs the mean over both orders, so that swapping a row swaps its scores."""
        logits = self.head.logits(self.features.transform(rows))
        if self.both_orders:
            swapped = self.head.logits(self.features.transform_swapped(rows))
            logits = both_orders(self.task, logits, swapped)
        return Scores(self.task, rows.ids, logits)

    def explain(self, rows: Rows, most: int) -> Mapping[str, list[tuple[str, float]]]:
        """The n-grams that speak most for each label; not for pairs, whose features have sides."""
        if self.task.swap is not None or self.features.tfidf is None:
            return {}
        strongest = {column: self._strongest(i, most) for i, column in self._explained(rows)}
        names = self._ngram_names(rows, {i for pairs in strongest.values() for i, _ in pairs})
        return {
            column: [(names[i], weight) for i, weight in pairs if i in names] for column, pairs in strongest.items()
        }

    def save(self, folder: Path) -> None:
        """Write the vocabulary as safetensors and the head's files."""
        save_file(self.features.state(), folder / "tfidf.safetensors")
        self.head.save(folder)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote."""
        self.features.restore(load_file(folder / "tfidf.safetensors"))
        self.head.load(folder)

    def _sides(self, labels: Labels) -> FloatArray:
        sides = side_weights(labels, self.class_weights, self.weight_cap)
        return np.ones((self.task.width, 2), dtype=np.float32) if sides is None else sides

    def _explained(self, rows: Rows) -> list[tuple[int, str]]:
        """Logits of the most frequent labels, in the order of the task."""
        labels = rows.labels
        counts = np.concatenate([np.nansum(labels.probabilities(name), axis=0) for name in self.task.names])
        chosen = np.sort(np.argsort(-counts, kind="stable")[:EXPLAINED])
        return [(int(i), self.task.columns[i]) for i in chosen]

    def _strongest(self, column: int, most: int) -> list[tuple[int, float]]:
        weights = self.head.weights_of(column)
        top = np.argsort(-weights, kind="stable")[:most]
        return [(int(i), float(weights[i])) for i in top if weights[i] > 0]

    def _ngram_names(self, rows: Rows, columns: set[int]) -> dict[int, str]:
        """The string of each feature, read back from the training texts."""
        assert self.features.tfidf is not None
        fields = {name: rows.texts(name) for name in rows.corpus.worded}
        texts = stacked(documents(fields, self.task.swap))
        names: dict[int, str] = {}
        start = 0
        for block, vocabulary in zip(self.features.blocks, self.features.tfidf.vocabularies, strict=True):
            places = {int(vocabulary[i - start]): i for i in columns if start <= i < start + len(vocabulary)}
            found: dict[int, str] = read_ngrams(texts, block, np.fromiter(places, np.uint64, len(places)))
            names |= {places[value]: text for value, text in found.items()}
            start += len(vocabulary)
        return names

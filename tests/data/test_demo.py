"""Look-alike data has the columns, the rates and the difficulty that it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.svm import LinearSVC

from fivefold.data.demo import SHAPES, demo, write_demo
from fivefold.errors import DataError

TRAIN, ROWS = 1200, 1600


def features(texts: list[str], ngrams: tuple[int, int] = (1, 1)) -> csr_matrix:
    vectoriser = TfidfVectorizer(ngram_range=ngrams, sublinear_tf=True, token_pattern=r"\S+").fit(texts[:TRAIN])
    return csr_matrix(vectoriser.transform(texts))


def predicted(matrix: csr_matrix, labels: np.ndarray, weight: str | None = None) -> np.ndarray:
    model = LinearSVC(C=0.3, class_weight=weight).fit(matrix[:TRAIN], labels[:TRAIN])
    return np.asarray(model.predict(matrix[TRAIN:]))


def accuracy(table: pl.DataFrame, matrix: csr_matrix, column: str) -> float:
    labels = table[column].to_numpy()
    return float(accuracy_score(labels[TRAIN:], predicted(matrix, labels)))


def macro_f1(table: pl.DataFrame, matrix: csr_matrix, columns: tuple[str, ...]) -> float:
    truth = table.select(columns).to_numpy()
    guesses = np.column_stack([predicted(matrix, truth[:, i], "balanced") for i in range(len(columns))])
    return float(f1_score(truth[TRAIN:], guesses, average="macro", zero_division=0))


def test_topics_are_harder_than_chance_and_not_solved() -> None:
    table = demo("topics", ROWS)
    assert table["label"].n_unique() == 8
    assert 0.7 < accuracy(table, features(table["text"].to_list()), "label") < 0.93


def test_tweets_have_the_rates_and_the_difficulty_of_the_shared_task() -> None:
    table = demo("tweets", ROWS)
    labels = SHAPES["tweets"].labels
    rates = table.select(labels).mean().row(0)
    assert 0.03 < min(rates) < 0.08
    assert 0.32 < max(rates) < 0.42
    correlation = np.corrcoef(table["anger"].to_numpy(), table["disgust"].to_numpy())[0, 1]
    assert correlation > 0.4
    assert 0.45 < macro_f1(table, features(table["text"].to_list()), labels) < 0.85


def test_narratives_are_long_and_only_partly_solved() -> None:
    table = demo("narratives", ROWS)
    *findings, place, cause = SHAPES["narratives"].labels
    assert (len(findings), table[place].n_unique(), table[cause].n_unique()) == (21, 6, 12)
    for field in ("text_le", "text_me"):
        words = table[field].str.split(" ").list.len()
        assert words.min() >= 55
        assert words.max() <= 250
    matrix = features((table["text_le"] + " " + table["text_me"]).to_list(), (1, 2))
    accuracies = [accuracy(table, matrix, column) for column in (place, cause)]
    mixed = (21 * macro_f1(table, matrix, tuple(findings)) + sum(accuracies)) / 23
    assert 0.5 < mixed < 0.9


def test_preferences_beat_the_prior_and_stay_uncertain() -> None:
    table = demo("preferences", ROWS)
    winner = table["winner"].to_numpy()
    assert 0.12 < (winner == "tie").mean() < 0.19
    assert (table["response_a"] == "").sum() > 5
    assert table["prompt"].str.contains("\n\n").mean() > 0.08
    assert table["group"].n_unique() < ROWS / 2
    assert table.group_by("group").agg(pl.col("prompt").n_unique())["prompt"].max() == 1
    both = table["response_a"].to_list() + table["response_b"].to_list()
    vectoriser = TfidfVectorizer().fit(both)
    matrix = csr_matrix(hstack([vectoriser.transform(table[f"response_{side}"].to_list()) for side in "ab"]))
    model = LogisticRegression(max_iter=300).fit(matrix[:TRAIN], winner[:TRAIN])
    prior = np.tile([(winner[:TRAIN] == label).mean() for label in model.classes_], (ROWS - TRAIN, 1))
    loss = log_loss(winner[TRAIN:], model.predict_proba(matrix[TRAIN:]), labels=model.classes_)
    assert loss < log_loss(winner[TRAIN:], prior, labels=model.classes_) - 0.05
    assert model.score(matrix[TRAIN:], winner[TRAIN:]) < 0.8


def test_products_form_a_tree_with_an_independent_brand() -> None:
    table = demo("products", ROWS)
    assert [table[level].n_unique() for level in ("supergroup", "group", "module")] == [8, 25, 62]
    for lower, upper in (("module", "group"), ("group", "supergroup")):
        assert table.group_by(lower).agg(pl.col(upper).n_unique())[upper].max() == 1
    named = [brand.lower() in title.lower() for brand, title in table.select("brand", "title").iter_rows()]
    assert 0.4 < np.mean(named) < 0.8
    counts = table["brand"].value_counts()["count"].sort(descending=True)
    assert counts[0] > 10 * counts[min(60, len(counts) - 1)]
    matrix = features((table["title"] + " " + table["retailer"]).str.to_lowercase().to_list())
    right = [
        predicted(matrix, table[column].to_numpy()) == table[column].to_numpy()[TRAIN:]
        for column in SHAPES["products"].labels
    ]
    assert 0.3 < np.all(right, axis=0).mean() < 0.85


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_seed_decides_every_draw(shape: str) -> None:
    table = demo(shape, 60, seed=3)
    assert table.equals(demo(shape, 60, seed=3))
    assert not table.equals(demo(shape, 60, seed=4))
    assert len(table) == table["id"].n_unique() == 60
    assert demo(shape, 1).height == 1


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_files_are_written_without_the_labels_of_the_test(shape: str, tmp_path: Path) -> None:
    paths = write_demo(shape, tmp_path / "made", rows=80, seed=1)
    assert sorted(paths) == (["test", "train", *(["unlabelled"] if SHAPES[shape].unlabelled else [])])
    train, test = (pl.read_csv(paths[part]) for part in ("train", "test"))
    assert (len(train), len(test)) == (80, 20)
    assert set(train.columns) - set(test.columns) == set(SHAPES[shape].labels)
    assert not set(train["id"]) & set(test["id"])
    if shape == "preferences":
        assert not set(train["group"]) & set(test["group"])


def test_mistakes_are_refused() -> None:
    with pytest.raises(DataError, match="no such demo data"):
        demo("poems")
    with pytest.raises(DataError, match="at least one row"):
        demo("topics", 0)
    with pytest.raises(DataError, match="isn't negative"):
        demo("topics", 9, seed=-1)

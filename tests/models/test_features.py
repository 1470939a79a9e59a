import numpy as np
import pytest

from fivefold.data.compose import Corpus
from fivefold.models.linear.features import Features, documents
from fivefold.models.linear.ngrams import NGrams
from fivefold.models.linear.pair_statistics import pair_statistics
from fivefold.models.linear.tfidf import TfidfSettings
from fivefold.scores import id_array
from fivefold.task import Swap

SWAP = Swap((("left", "right"),), "winner", {"a": "b", "b": "a"})
FIELDS = {
    "question": ["what is red", "what is a fish", "who sings", "who runs far"],
    "left": ["red is a colour", "a fish swims in water", "the bird sings", ""],
    "right": ["blue is a colour too", "water", "the bird sings", "a horse runs far away"],
}


def fitted(swap: Swap | None, rows: list[int]) -> tuple[Features, Corpus]:
    corpus = Corpus(id_array(range(4)), FIELDS)
    features = Features((NGrams("words", 1, 1), NGrams("char_wb", 2, 3)), TfidfSettings(min_df=1), swap)
    features.fit(corpus.rows(np.array(rows)))
    return features, corpus


def test_documents_of_a_row() -> None:
    assert documents(FIELDS, None)[0][0] == "what is red\nred is a colour\nblue is a colour too"
    left, right, shared = documents(FIELDS, SWAP)
    assert (left[1], right[1], shared[1]) == ("a fish swims in water", "water", "what is a fish")
    assert len(documents({"left": ["x"], "right": ["y"]}, SWAP)) == 2


@pytest.mark.parametrize("swap", [None, SWAP])
def test_shared_counts_and_new_texts_give_the_same_features(swap: Swap | None) -> None:
    features, corpus = fitted(swap, [0, 1, 2])
    again = Corpus(corpus.ids, FIELDS)
    known = features.transform(corpus.rows(np.array([3, 1])))
    new = features.transform(again.rows(np.array([3, 1])))
    np.testing.assert_allclose(known.toarray(), new.toarray(), atol=1e-6)


def test_words_of_held_out_rows_are_not_learnt() -> None:
    features, corpus = fitted(None, [0, 1])
    with_all, _ = fitted(None, [0, 1, 2, 3])
    assert features.transform(corpus.rows()).shape[1] < with_all.transform(corpus.rows()).shape[1]


def test_folds_count_once() -> None:
    corpus = Corpus(id_array(range(4)), FIELDS)
    for rows in ([0, 1], [2, 3]):
        features = Features((NGrams("words", 1, 1),), TfidfSettings(min_df=1), None)
        features.fit(corpus.rows(np.array(rows)))
    assert len(corpus.built) == 1


def test_swapped_features_are_those_of_the_swapped_row() -> None:
    features, corpus = fitted(SWAP, [0, 1, 2, 3])
    exchanged = {"question": FIELDS["question"], "left": FIELDS["right"], "right": FIELDS["left"]}
    other = Corpus(corpus.ids, exchanged)
    np.testing.assert_allclose(
        features.transform_swapped(corpus.rows()).toarray(), features.transform(other.rows()).toarray(), atol=1e-6
    )


def test_pair_statistics_by_hand() -> None:
    texts = [["red fish swims"], ["red bird"], ["what swims"]]
    found, turned = pair_statistics(texts, threads=1)
    longer = np.log(4) - np.log(3)
    lengths = [longer, longer, np.log(3), np.log(3)]
    apart = 1 / 3 - 1 / 2
    nearer = 1 / np.sqrt(6)
    words = [1 / np.sqrt(6), apart, -apart, nearer, nearer, 1 / 3, 1 / 3, 1 / 2, 1 / 2]
    np.testing.assert_allclose(found[0], [*lengths, *words, *[0] * 9], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.abs(turned), np.abs(found))
    np.testing.assert_array_equal(turned[0, [0, 5, 7]], -found[0, [0, 5, 7]])


def test_pair_statistics_know_words_that_training_rows_lack() -> None:
    features, corpus = fitted(SWAP, [0, 1])
    assert features.standard is not None
    known = features.transform(corpus.rows(np.array([3]))).toarray()[0, -features.standard.mean.size :]
    alike = features.transform(corpus.rows(np.array([2]))).toarray()[0, -features.standard.mean.size :]
    assert np.abs(known - alike).max() > 1


def test_empty_pairs_have_finite_statistics() -> None:
    assert np.isfinite(pair_statistics([[""], [""]], threads=1)[0]).all()

import numpy as np
import pytest
from scipy.sparse import csr_array

from fivefold.data.compose import Corpus
from fivefold.models.linear.features import STATISTIC_SCALE, Features, documents, pair_statistics
from fivefold.models.linear.ngrams import NGrams
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
    first = csr_array(np.array([[0.6, 0.8, 0]], dtype=np.float32))
    second = csr_array(np.array([[0, 1, 0]], dtype=np.float32))
    longer = np.log1p(2) - np.log1p(1)
    found = pair_statistics(first, second, second).toarray()[0] / STATISTIC_SCALE
    np.testing.assert_allclose(found, [longer, longer, np.log(2), 0.8, -0.2, 0.2], rtol=1e-6)
    assert pair_statistics(first, second).shape == (1, 4)

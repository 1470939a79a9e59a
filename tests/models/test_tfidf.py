"""TF-IDF of folds against scikit-learn fitted on the fold's rows alone."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion

from fivefold.errors import DataError
from fivefold.models.linear.ngrams import NGrams, count_known_ngrams, count_ngrams, hash_ngram
from fivefold.models.linear.tfidf import Tfidf, TfidfSettings, fit_tfidf, transform

BLOCKS = (NGrams("words", 1, 2), NGrams("char_wb", 2, 4))
TEXTS = [
    "The bank refused my card at the café.",
    "My card was refused, again and again and again!",
    "Straße closed; the card is fine 👍",
    "",
    "the the the BANK",
    "a café near the bank, a card, a 👍",
]


def reference(settings: TfidfSettings) -> FeatureUnion:
    plain = {"min_df": settings.min_df, "sublinear_tf": settings.sublinear}
    words = TfidfVectorizer(ngram_range=(1, 2), **plain)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **plain)
    return FeatureUnion([("words", words), ("characters", characters)])


def in_reference_order(union: FeatureUnion, tfidf: Tfidf) -> list[int]:
    """Our column of each of scikit-learn's."""
    order, start = [], 0
    for (_, vectorizer), hashes in zip(union.transformer_list, tfidf.vocabularies, strict=True):
        columns = {int(value): start + column for column, value in enumerate(hashes)}
        order += [columns.pop(hash_ngram(ngram)) for ngram in vectorizer.get_feature_names_out()]
        assert not columns
        start += len(hashes)
    return order


def assert_equals_reference(texts, rows, settings):
    union = reference(settings)
    try:
        union.fit([texts[row] for row in rows])
    except ValueError:  # scikit-learn asks for a feature in each block, ours for one in any
        assume(False)
    counts = count_ngrams(texts, BLOCKS)
    tfidf = fit_tfidf([counts], rows, settings)
    ours = transform(tfidf, counts, np.arange(len(texts)))
    np.testing.assert_allclose(
        ours[:, in_reference_order(union, tfidf)].toarray(), union.transform(texts).toarray(), atol=1e-6
    )


@pytest.mark.parametrize(
    "choice", [TfidfSettings(), TfidfSettings(min_df=1, sublinear=False), TfidfSettings(min_df=3)], ids=str
)
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [0, 1, 4, 5]])
def test_equals_scikit_learn_fitted_on_the_rows(rows, choice):
    assert_equals_reference(TEXTS, rows, choice)


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="ab cÉß!日\n", min_size=1, max_size=15), min_size=3, max_size=8),
    sublinear=st.booleans(),
)
def test_equals_scikit_learn_on_any_text(texts, sublinear):
    assert_equals_reference(texts, range(2), TfidfSettings(min_df=1, sublinear=sublinear))


def test_held_out_texts_change_nothing():
    rows = [0, 1, 2]
    one = fit_tfidf([count_ngrams(TEXTS, BLOCKS)], rows, TfidfSettings())
    other = fit_tfidf([count_ngrams([*TEXTS[:3], "else", "the card"], BLOCKS)], rows, TfidfSettings())
    for left, right in zip(one.vocabularies, other.vocabularies, strict=True):
        assert set(left.tolist()) == set(right.tolist())
    np.testing.assert_array_equal(np.sort(one.idf), np.sort(other.idf))


def test_min_df_one_below_leaves_the_counts_smaller_and_the_folds_equal():
    whole = fit_tfidf([count_ngrams(TEXTS, BLOCKS)], range(4), TfidfSettings(min_df=2))
    fewer = fit_tfidf([count_ngrams(TEXTS, BLOCKS, min_df=2)], range(4), TfidfSettings(min_df=2))
    np.testing.assert_array_equal(whole.idf, fewer.idf)


def test_max_features_keeps_the_most_frequent_of_each_block():
    counts = count_ngrams(["red red red blue", "blue red", "green"], [NGrams("words", 1, 1)])
    tfidf = fit_tfidf([counts], range(3), TfidfSettings(min_df=1, max_features=2))
    assert set(tfidf.vocabularies[0].tolist()) == {hash_ngram("red"), hash_ngram("blue")}


def test_new_texts_get_the_numbers_of_known_ones_also_after_storing():
    counts = count_ngrams(TEXTS, BLOCKS)
    tfidf = fit_tfidf([counts], range(4), TfidfSettings())
    stored = Tfidf.from_state(tfidf.state())
    known = transform(tfidf, counts, [4, 5])
    counted = count_known_ngrams(TEXTS[4:], BLOCKS, stored.vocabularies, threads=2)
    np.testing.assert_array_equal(transform(stored, counted, [0, 1]).toarray(), known.toarray())


def test_several_fields_are_several_documents():
    counts = count_ngrams(TEXTS, BLOCKS)
    fields = [count_ngrams(TEXTS, BLOCKS), counts]
    both = fit_tfidf(fields, range(4), TfidfSettings(min_df=2))
    twice = fit_tfidf([count_ngrams([*TEXTS, *TEXTS], BLOCKS)], [0, 1, 2, 3, 6, 7, 8, 9], TfidfSettings(min_df=2))
    np.testing.assert_allclose(np.sort(both.idf), np.sort(twice.idf))


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match="No n-gram is left"):
        fit_tfidf([count_ngrams(["one", "two"], BLOCKS)], [0, 1], TfidfSettings(min_df=3))

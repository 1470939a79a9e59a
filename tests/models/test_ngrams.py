"""N-gram counts against scikit-learn's analyzers and hand values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from fivefold.errors import DataError
from fivefold.models.linear import ngrams
from fivefold.models.linear.ngrams import NGrams, count_known_ngrams, count_ngrams, hash_ngram, read_ngrams

REFERENCE = {"words": "word", "char_wb": "char_wb", "char": "char"}
BLOCKS = [
    NGrams("words", 1, 2),
    NGrams("words", 2, 3),
    NGrams("char_wb", 1, 3),
    NGrams("char_wb", 3, 5),
    NGrams("char", 1, 2),
    NGrams("char", 3, 4),
]
TEXTS = [
    "Hello World, hello!",
    "",
    "  \n\t ",
    "a I x",
    "naïve Straße ΑΣ ΑΣ. İstanbul",
    "日本語 テスト 👍🏽 don't",
    "x\u0085y  z\n\nw\x1cv",
]


def strings_of(text: str, block: NGrams) -> dict[str, int]:
    """Counted n-grams of one text, read back as strings."""
    counts = count_ngrams([text], [block])
    readable = read_ngrams([text], block, counts.vocabularies[0])
    row = counts.matrix.toarray()[0] if counts.matrix.shape[1] else []
    return {readable[int(value)]: count for value, count in zip(counts.vocabularies[0], row, strict=True)}


def reference_strings(text: str, block: NGrams) -> dict[str, int]:
    analyze = CountVectorizer(analyzer=REFERENCE[block.analyzer], ngram_range=(block.low, block.high)).build_analyzer()
    found = analyze(text)
    return {ngram: found.count(ngram) for ngram in set(found)}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_counts_equal_scikit_learns(text, block):
    assert strings_of(text, block) == reference_strings(text, block)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30), block=st.sampled_from(BLOCKS))
def test_counts_equal_scikit_learns_on_any_unicode(text, block):
    assert strings_of(text, block) == reference_strings(text, block)


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(alphabet="ab É#!\n", max_size=12), min_size=1, max_size=9), threads=st.integers(2, 4))
def test_threads_and_chunks_change_nothing(texts, threads):
    blocks = [NGrams("social", 1, 2), NGrams("char_wb", 2, 4)]
    one = count_ngrams(texts, blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "CHUNK_CHARACTERS", 5)
        many = count_ngrams(texts, blocks, threads=threads)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.matrix, name), getattr(many.matrix, name))
    for left, right in zip(one.vocabularies, many.vocabularies, strict=True):
        np.testing.assert_array_equal(left, right)


def test_social_tokens():
    tokens = strings_of("@Bob i'm #SoHappy!!! 👍👍 :)", NGrams("social", 1, 1))
    assert tokens == {"@bob": 1, "i": 1, "'": 1, "m": 1, "#sohappy": 1, "!!!": 1, "👍": 2, ":)": 1}


def test_ngrams_of_words_are_joined_by_one_blank():
    assert strings_of("credit\n - CARD", NGrams("words", 2, 2)) == {"credit card": 1}


def test_vocabulary_holds_the_hash_of_the_string_most_frequent_first():
    counts = count_ngrams(["red red", "red blue"], [NGrams("words", 1, 1)])
    assert counts.vocabularies[0].tolist() == [hash_ngram("red"), hash_ngram("blue")]
    assert counts.matrix.toarray().tolist() == [[2, 0], [1, 1]]


def test_min_df_drops_rare_ngrams_of_each_block():
    counts = count_ngrams(["ab cd", "ab ef"], [NGrams("words", 1, 1), NGrams("char", 2, 2)], min_df=2)
    assert [len(hashes) for hashes in counts.vocabularies] == [1, 2]  # "ab"; "ab" and "b "


def test_known_vocabulary_counts_the_same_and_passes_over_the_rest():
    texts, blocks = ["one two", "two three three"], [NGrams("words", 1, 2), NGrams("char_wb", 2, 3)]
    learned = count_ngrams(texts, blocks, min_df=2)
    again = count_known_ngrams(["two unseen", *texts], blocks, learned.vocabularies, threads=2)
    assert (again.matrix[1:] != learned.matrix).nnz == 0
    assert again.matrix[0, 0] == 1  # "two"


def test_one_very_long_text_between_empty_ones():
    texts = ["", "lorem ipsum " * 90_000, ""]
    counts = count_ngrams(texts, [NGrams("words", 1, 2), NGrams("char_wb", 2, 5)])
    assert np.diff(counts.matrix.indptr)[[0, 2]].tolist() == [0, 0]
    assert counts.matrix.data.max() == 180_000  # "m " ends both words


def test_no_texts_of_a_known_vocabulary():
    counts = count_known_ngrams([], [NGrams("words", 1, 1)], [np.array([1, 2], np.uint64)])
    assert counts.matrix.shape == (0, 2)


@pytest.mark.parametrize("values", [("letters", 1, 2), ("words", 0, 2), ("words", 3, 2)])
def test_wrong_settings_are_refused(values):
    with pytest.raises(DataError):
        NGrams(*values)

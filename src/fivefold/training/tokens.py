"""Texts as token ids: tokenised once, in parallel, and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tokenizers

from fivefold.errors import RecipeError
from fivefold.task import IntArray
from fivefold.training.cache import keep

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IndexArray = npt.NDArray[np.int64]

CHARACTERS_AT_ONCE = 2_000_000
"""An encoding holds some 150 bytes a token until its ids are taken out, so this bounds it to about 100 MB."""

UNTYPEABLE = "\U0010fffe\U0010ffff"
"""Two code points that Unicode reserves as no characters."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of many rows, end to end.

    Parameters
    ----------
    ids
        int32 (total,).
    starts
        int64 (rows + 1,); row i is `ids[starts[i]:starts[i + 1]]`.
    """

    ids: IntArray
    starts: IndexArray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> IndexArray:
        """Tokens of each row, (rows,)."""
        return np.diff(self.starts)

    def row(self, position: int) -> IntArray:
        """Ids of one row."""
        return self.ids[self.starts[position] : self.starts[position + 1]]

    def take(self, index: npt.NDArray[Any]) -> Tokens:
        """The rows at `index` (positions or a boolean mask)."""
        starts, lengths = self.starts[:-1][index], self.lengths[index]
        return Tokens(self.ids[spans(starts, lengths)], starts_of(lengths))


def replaced(tokens: Tokens, index: npt.NDArray[Any], others: Tokens) -> Tokens:
    """The rows at the positions `index`, (others,), exchanged for others."""
    pool = Tokens(np.concatenate([tokens.ids, others.ids]), starts_of(np.concatenate([tokens.lengths, others.lengths])))
    order = np.arange(len(tokens))
    order[index] = len(tokens) + np.arange(len(others))
    return pool.take(order)


def starts_of(lengths: npt.NDArray[Any]) -> IndexArray:
    """Where each of the rows of these lengths starts, and where the last one ends: int64 (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def spans(starts: IndexArray, lengths: IndexArray) -> IndexArray:
    """The positions start, …, start + length - 1 of each span, end to end: int64 (sum of lengths,)."""
    before = np.cumsum(lengths) - lengths
    positions: IndexArray = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return positions


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, cache: Path | None) -> Tokens:
    """Content ids of texts: nothing added, nothing cut, and no text can spell a special token.

    Parameters
    ----------
    texts
        Any strings.
    tokenizer
        One that the `tokenizers` library runs.
    cache
        Folder where ids are kept, under a name made of the texts and the tokenizer; None: nowhere.

    Raises
    ------
    RecipeError
        If the tokenizer runs in Python only.
    """
    plain = plain_tokenizer(tokenizer)
    if cache is None:
        return _encoded(texts, plain)
    path = cache / f"tokens-{_key(texts, plain)}.npz"
    found = _read(path, len(texts))
    if found is None:
        found = _encoded(texts, plain)
        ids, starts = found.ids, found.starts
        keep(path, lambda file: np.savez(file, ids=ids, starts=starts))
    return found


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenizer's serialised form that reads every text as text.

    Special tokens lose their spelling: those that a model's vocabulary holds are renamed there, as a unigram model
    would still find "</s>" among its pieces; the rest are told to be split. Ids don't change.

    Raises
    ------
    RecipeError
        If the tokenizer runs in Python only.
    """
    return _plain(backend(tokenizer).to_str(), tuple(tokenizer.all_special_tokens))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """What tells tokenizers apart wherever they lie, in hex."""
    return hashlib.sha256(plain_tokenizer(tokenizer).encode()).hexdigest()


@lru_cache(maxsize=4)
def _plain(serialised: str, special_tokens: tuple[str, ...]) -> str:
    """`plain_tokenizer`, kept: for a single text it takes several times as long as all the rest."""
    plain = json.loads(serialised)
    marked = {token["content"] for token in plain["added_tokens"] if token["special"]}
    # A single character stays: where "!" serves as padding, texts still need it.
    special = {name for name in marked | set(special_tokens) if len(name) > 1}
    held = special & _pieces(plain["model"])
    _rename(plain["model"], {name: f"{UNTYPEABLE}{name}" for name in held})
    plain["added_tokens"] = [
        token | {"special": token["special"] or token["content"] in special}
        for token in plain["added_tokens"]
        if token["content"] not in held
    ]
    plain |= {"truncation": None, "padding": None, "post_processor": None}
    return json.dumps(plain, ensure_ascii=False)


def backend(tokenizer: PreTrainedTokenizerBase) -> tokenizers.Tokenizer:
    """The `tokenizers` object under a tokenizer.

    Raises
    ------
    RecipeError
        If it has none.
    """
    found = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(found, tokenizers.Tokenizer):
        raise RecipeError(
            f"The tokenizer of '{tokenizer.name_or_path}' runs in Python only.",
            allowed="a tokenizer that the library 'tokenizers' runs, with a file tokenizer.json",
            got=type(tokenizer).__name__,
            next_step="name a model that has one, or convert it with transformers",
        )
    return found


def _pieces(model: Mapping[str, Any]) -> set[str]:
    """The vocabulary of a model: a dict of ids, or pairs of piece and score in a unigram model."""
    vocabulary = model["vocab"]
    return set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give pieces of a model's vocabulary other spellings under the same ids."""
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if model.get("merges"):
        model["merges"] = [pair for pair in model["merges"] if not {*pair, "".join(pair)} & names.keys()]


def _encoded(texts: Sequence[str], plain: str) -> Tokens:
    runner = _runner(plain)
    ids: list[IntArray] = [np.zeros(0, dtype=np.int32)]
    lengths: list[int] = []
    for block in _blocks(texts):
        rows = [encoding.ids for encoding in runner.encode_batch_fast(block, add_special_tokens=False)]
        lengths += map(len, rows)
        ids.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
    return Tokens(np.concatenate(ids), starts_of(np.array(lengths, dtype=np.int64)))


@lru_cache(maxsize=4)
def _runner(plain: str) -> tokenizers.Tokenizer:
    runner = tokenizers.Tokenizer.from_str(plain)
    runner.encode_special_tokens = True
    return runner


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= CHARACTERS_AT_ONCE:
            yield block
            block, size = [], 0
    if block:
        yield block


def _key(texts: Sequence[str], plain: str) -> str:
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f"{tokenizers.__version__} {len(plain)} {plain}".encode())
    digest.update(np.fromiter(map(len, texts), dtype="<i8", count=len(texts)).tobytes())
    digest.update("".join(texts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _read(path: Path, rows: int) -> Tokens | None:
    """What a whole file holds; None if it isn't there or isn't whole."""
    try:
        with np.load(path, allow_pickle=False) as archive:  # an archive carries a checksum of each array
            tokens = Tokens(archive["ids"], archive["starts"])
    except Exception:  # a changed byte can raise nearly anything, of zip, of struct, of numpy
        return None
    whole = len(tokens) == rows and tokens.starts[0] == 0 and tokens.starts[-1] == len(tokens.ids)
    return tokens if whole else None

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models.tiny import word_pieces
from tests.models.tiny_decoders import DECODERS, save_decoder
from tests.models.tiny_encoder_decoders import ENCODER_DECODERS, save_encoder_decoder


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without activations of other tests; for modules that ask for it by `pytestmark`."""
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenizer of `word_pieces`."""
    folder = tmp_path_factory.mktemp("tokenizer")
    word_pieces().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random decoder of every architecture, each in a folder of its own."""
    return {name: save_decoder(name, tmp_path_factory.mktemp(name)) for name in DECODERS}


@pytest.fixture(scope="session")
def encoder_decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random encoder-decoder of every architecture, each in a folder of its own."""
    return {name: save_encoder_decoder(name, tmp_path_factory.mktemp(name)) for name in ENCODER_DECODERS}

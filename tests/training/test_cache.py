import os
from pathlib import Path

import numpy as np
import pytest

from fivefold.training import cache
from fivefold.training.cache import keep


def kept(folder: Path, name: str, numbers: int, read_at: int) -> Path:
    path = folder / name
    keep(path, lambda file: np.save(file, np.zeros(numbers)))
    os.utime(path, (read_at, 0))
    return path


def test_what_nobody_has_read_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 3000)
    old, read_since = kept(tmp_path, "old.npy", 100, read_at=10), kept(tmp_path, "read.npy", 100, read_at=99)
    foreign = tmp_path / "notes.txt"
    foreign.write_bytes(b"x" * 9000)
    middle = kept(tmp_path, "middle.npy", 100, read_at=50)
    assert {old, read_since, middle} <= set(tmp_path.iterdir())
    newest = kept(tmp_path, "newest.npy", 100, read_at=0)
    assert set(tmp_path.iterdir()) == {read_since, middle, newest, foreign}


def test_the_newest_stays_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 3000)
    kept(tmp_path, "old.npy", 100, read_at=10)
    newest = kept(tmp_path, "newest.npy", 1000, read_at=20)
    assert list(tmp_path.iterdir()) == [newest]

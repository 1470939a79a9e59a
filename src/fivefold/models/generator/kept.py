"""What an endpoint said, kept on disk by model and prompt, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fivefold.task import FloatArray

Key = bytes

AT_ONCE = 500
"""Keys that are looked up together: SQLite takes at most 999 parameters in old versions."""


def key_of(model: str, ids: Sequence[int], first: int) -> Key:
    """What tells answers apart: the model, all tokens, and from which one on they are scored."""
    about = f"{len(model)} {model} {first} ".encode()
    return hashlib.sha256(about + np.asarray(ids, dtype="<i8").tobytes()).digest()


@dataclass(frozen=True)
class Kept:
    """Log-probabilities by key, in a file of SQLite that several processes may share.

    Parameters
    ----------
    path
        The file; None: in memory, for as long as this lives.
    """

    path: Path | None
    held: dict[Key, FloatArray] = field(default_factory=dict, compare=False, repr=False)

    def find(self, keys: Sequence[Key]) -> dict[Key, FloatArray]:
        """Those of these answers that are known."""
        if self.path is None:
            return {key: self.held[key] for key in keys if key in self.held}
        found: dict[Key, FloatArray] = {}
        with self._open(self.path) as base:
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = base.execute(f"SELECT key, said FROM answers WHERE key IN ({marks})", some)
                found |= {key: np.frombuffer(said, dtype="<f4") for key, said in rows}
        return found

    def keep(self, answers: Mapping[Key, FloatArray]) -> None:
        """Remember answers."""
        if self.path is None:
            self.held.update(answers)
            return
        rows = [(key, said.astype("<f4").tobytes()) for key, said in answers.items()]
        with self._open(self.path) as base, base:
            base.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    @contextmanager
    def _open(self, path: Path) -> Iterator[sqlite3.Connection]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as base:
            base.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, said BLOB) WITHOUT ROWID")
            yield base

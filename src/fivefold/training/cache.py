"""The folder where what takes long to compute is kept between fits, by content."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LARGEST = 20 * 10**9
"""Bytes that the folder may hold; beyond them, what nobody has read for longest goes first."""


def cache_folder() -> Path | None:
    """Where tokens are kept: FIVEFOLD_CACHE, or ~/.cache/fivefold; None where that says "off"."""
    named = os.environ.get("FIVEFOLD_CACHE") or "~/.cache/fivefold"
    return None if named == "off" else Path(named).expanduser()


def keep(path: Path, save: Callable[[Any], None]) -> None:
    """Have `save` write into an open file beside `path`, then rename it, so that a reader sees a whole file or none.

    A full or read-only disk costs the next fit its time, not this one its life.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as beside:
            try:
                save(beside)
                beside.close()
                os.replace(beside.name, path)
            except BaseException:
                beside.close()
                os.unlink(beside.name)
                raise
        _prune(path)


def _prune(newest: Path) -> None:
    """Delete files of the newest one's folder until they are small enough together; it stays, whatever its size.

    Who has a deleted file mapped into memory keeps it.
    """
    files = {path: path.stat() for path in newest.parent.iterdir() if path.suffix in (".npz", ".npy")}
    total = sum(about.st_size for about in files.values())
    for path, about in sorted(files.items(), key=lambda item: max(item[1].st_atime, item[1].st_mtime)):
        if total <= LARGEST:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= about.st_size

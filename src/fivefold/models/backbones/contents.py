"""What lies in a folder of weights, so that a run or a model that stands on it knows it again; needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fivefold.errors import ArtefactError

SOURCE = "source.json"
"""Beside an adapter, or instead of a model of which nothing was trained: the backbone that it stands on."""

ENDS = 1 << 20
"""Bytes that are read at either end of a file of weights: training changes all of them."""


def digest(path: Path) -> str:
    """SHA-256, in hex, of the names, lengths and ends of a folder's files, or of a file; notes don't count."""
    found = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if not file.is_file() or file.suffix == ".md" or file.name.startswith("."):
            continue
        size = file.stat().st_size
        found.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            found.update(content.read(ENDS))
            content.seek(max(size - ENDS, 0))
            found.update(content.read(ENDS))
    return found.hexdigest()


def local(name: str | None) -> Path | None:
    """The folder or file of this machine that a name leads to; None for a hub id."""
    path = None if name is None else Path(name).expanduser()
    return path if path is not None and path.exists() else None


def keep_source(folder: Path, backbone: str | None) -> None:
    """Write what the model in `folder` stands on."""
    path = local(backbone)
    said = {"backbone": backbone, "digest": None if path is None else digest(path)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCE).write_text(json.dumps(said), encoding="utf-8")


def check_source(folder: Path, backbone: str | None) -> None:
    """Compare a backbone on this machine with the one that the model in `folder` stands on, wherever it lay.

    Raises
    ------
    ArtefactError
        If it isn't the same.
    """
    path = local(backbone)
    if path is None or not (folder / SOURCE).is_file():
        return
    known = json.loads((folder / SOURCE).read_text("utf-8")).get("digest")
    if known is not None and known != digest(path):
        raise ArtefactError(
            f"The backbone {path} isn't the one that the model at {folder} was trained on.",
            next_step="put its weights back, or fit again",
        )

"""The run folder: stages written beside and renamed, so that a killed run continues where it stopped.

    RUN/run.json            format, versions, seed, what it was made from
    RUN/recipe.yaml         the recipe with every default written out
    RUN/data/               task, labels and folds of the rows, data check
    RUN/enrichment/         with enrichment: index of what can be found, what it gives, neighbours of every row
    RUN/examples/           with nearest examples: texts, and the rows that each row may be shown
    RUN/backbone/           with pretraining: the backbone that every fold starts from, and its perplexity
    RUN/folds/K/            model of fold K and its scores of the held-out rows
    RUN/members/NAME/       of an ensemble, instead of folds: the run of each member
    RUN/ensemble/           the members' weights
    RUN/average/            of an average, instead of folds: its model, and how it was judged
    RUN/scores/             out-of-fold scores of all rows
    RUN/decision/           decision rule and metrics
    RUN/predictions/        predictions of data.test
    RUN/report.html, README.md, pictures/

Each stage folder has a manifest with the SHA-256 of its files. Nothing in a run executes on load.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from polars.exceptions import PolarsError
from safetensors import SafetensorError

from fivefold import __version__
from fivefold.errors import ArtefactError, FivefoldError, RunError

FORMAT = 1
"""Version of the folder's layout; a reader refuses newer ones."""

MANIFEST = "manifest.json"

GIVES_WAY = ("data", "enrichment", "examples")
"""Stages before anything is fitted, which a run of something else replaces."""

STAGES = (*GIVES_WAY, "backbone", "folds", "members", "ensemble", "average", "scores", "decision", "predictions")
"""Folders that belong to one fingerprint; even one of them left over is never continued by another."""

PARTIAL, SCRATCH = ".partial", ".scratch"
"""How the names of unfinished stages and of their checkpoints end."""

LOCK = ".lock"

FULL = {errno.ENOSPC, errno.EDQUOT}

REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""What a file system answers to a folder that can't be used."""

PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "polars",
    "numba",
    "lightgbm",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "faiss-cpu",
)


class Store:
    """Stages of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def description(self) -> dict[str, Any]:
        """What run.json says.

        Raises
        ------
        RunError
            If the folder is no run.
        ArtefactError
            If it can't be read, or a newer version wrote it.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            raise RunError(f"{self.folder} is no run folder.", next_step="fivefold fit DATA --out RUN makes one")
        damaged = ArtefactError(f"{path} is damaged.", next_step="fit again into a new folder")
        try:
            description = dict(json.loads(path.read_text("utf-8")))
            written_as = int(description["format"])
        except (OSError, ValueError, KeyError, TypeError):
            raise damaged from None
        if written_as > FORMAT:
            raise ArtefactError(
                f"{self.folder} was written by a newer Fivefold.",
                allowed=f"format up to {FORMAT}",
                got=f"format {written_as}",
                next_step="pip install --upgrade fivefold",
            )
        if not (isinstance(description.get("fingerprint"), str) and isinstance(description.get("versions"), dict)):
            raise damaged
        return description

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, made if it isn't there, so that no other process writes it.

        Raises
        ------
        RunError
            If another process holds it, or the file system refuses.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunError(
                    f"Another process is writing {self.folder}.", next_step="wait for it, or choose another --out"
                ) from None
            try:
                yield
            finally:
                lock.release()

    def begin(self, fingerprint: str, recipe: str, seed: int) -> None:
        """Start a run in the held folder, or continue the one that has this fingerprint.

        A run that got no further than `GIVES_WAY`, as when its backbone couldn't be loaded, gives way to another one,
        and to itself under other versions.

        Raises
        ------
        RunError
            If the folder holds something else.
        """
        if not self.vacant(fingerprint):
            return
        description = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "recipe": hashlib.sha256(recipe.encode("utf-8")).hexdigest(),
            "seed": seed,
            "versions": dict(versions()),
        }
        write_text(self.folder / "run.json", json.dumps(description, indent=2))
        write_text(self.folder / "recipe.yaml", recipe)

    def vacant(self, fingerprint: str) -> bool:
        """Whether a run is yet to be started in the held folder; False where this one was.

        Raises
        ------
        RunError
            If the folder holds something else.
        """
        left = {stage for stage in STAGES if (self.folder / stage).exists()}
        if left - set(GIVES_WAY):
            self._check_same(fingerprint)
            return False
        if not (self.folder / "run.json").exists():
            if self._contents():
                raise RunError(f"{self.folder} is not empty and is no run folder.", next_step="choose another --out")
            return True
        begun = self.description
        if (begun["fingerprint"], begun["versions"]) == (fingerprint, versions()):
            return not left
        for path in self._contents():
            if path.name in left or path.name.endswith((SCRATCH, PARTIAL)):
                shutil.rmtree(path)
        return True

    def clear(self) -> None:
        """Delete the run in the held folder.

        Raises
        ------
        RunError
            If it is no run: only runs are deleted.
        """
        contents = self._contents()
        if contents and not (self.folder / "run.json").is_file():
            raise RunError(f"{self.folder} is no run folder and won't be deleted.", next_step="choose another --out")
        for path in contents:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _contents(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name != LOCK]

    def _check_same(self, fingerprint: str) -> None:
        """Refuse to continue what was begun from something else, or half done by other versions."""
        begun = self.description
        if begun["fingerprint"] != fingerprint:
            raise RunError(
                f"{self.folder} holds a run of another recipe, data or backbone.",
                next_step="choose another --out, or add --overwrite to replace it",
            )
        now = versions()
        changed = [
            f"{name} {begun['versions'].get(name)} → {now[name]}"
            for name in now
            if begun["versions"].get(name) != now[name]
        ]
        if changed and not self.has("decision"):
            raise RunError(
                f"{self.folder} was begun with other versions, so its folds would not be alike.",
                got=", ".join(changed),
                next_step="go back to those versions, or add --overwrite to start again",
            )

    @property
    def recipe_path(self) -> Path:
        """The recipe that the run was made with.

        Raises
        ------
        ArtefactError
            If it was changed afterwards.
        """
        path = self.folder / "recipe.yaml"
        if not path.is_file() or file_digest(path) != self.description.get("recipe"):
            raise ArtefactError(
                f"{path} was changed after the run was made.",
                next_step="put it back; to fit with other settings, copy it elsewhere and fit into a new folder",
            )
        return path

    def has(self, stage: str) -> bool:
        """Whether the stage is complete."""
        return (self.folder / stage / MANIFEST).is_file()

    @contextmanager
    def stage(self, stage: str) -> Iterator[Path]:
        """A folder to write the stage into; it takes its place, whole, when the block ends well."""
        final = self.folder / stage
        partial = final.with_name(f".{final.name}{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        write_text(partial / MANIFEST, json.dumps(digests(partial), indent=2))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)

    @contextmanager
    def scratch(self, stage: str) -> Iterator[Path]:
        """A folder beside the stage that survives a kill, for checkpoints; deleted when the block ends well."""
        final = self.folder / stage
        folder = final.with_name(f".{final.name}{SCRATCH}")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)

    def path(self, stage: str) -> Path:
        """The folder of a complete stage, its files checked against their digests.

        Raises
        ------
        RunError
            If the stage isn't complete.
        ArtefactError
            If a file is missing, new or changed.
        """
        final = self.folder / stage
        if not self.has(stage):
            raise RunError(
                f"{self.folder} has no complete '{stage}'.", next_step="run the same fivefold fit again: it resumes"
            )
        try:
            expected = dict(json.loads((final / MANIFEST).read_text("utf-8")))
        except (ValueError, TypeError):
            expected = {}
        found = digests(final)
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        if wrong:
            raise ArtefactError(
                f"{final} was changed after it was written.",
                got=f"missing, new or altered: {', '.join(wrong[:5])}",
                next_step=f"delete {final} and run the same fivefold fit again, or take the run from its source",
            )
        return final


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into a message that says how to go on."""
    try:
        yield
    except FivefoldError:
        raise
    except Exception as error:
        number = error_number(error)
        if number in FULL:
            raise RunError(
                f"The disk that holds {folder} is full.",
                next_step="free space and run the same command again: it continues from the last finished stage",
            ) from error
        if number in REFUSALS:
            reason = os.strerror(number)
            raise RunError(f"{folder} can't be written: {reason}.", next_step="choose another --out") from error
        raise


def error_number(error: Exception) -> int | None:
    """What the file system answered; polars and safetensors only write it into their message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"os error (\d+)", str(error))
    return int(told.group(1)) if told else None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader say into one message.

    Raises
    ------
    ArtefactError
        If `path` can't be read as what it should be.
    """
    try:
        yield
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        OSError,
        PolarsError,
        SafetensorError,
    ) as error:
        raise ArtefactError(
            f"{path} can't be read.",
            got=str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
            next_step=f"delete {path.parent} and run the same fivefold fit again, or take the run from its source",
        ) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run.

    Raises
    ------
    ArtefactError
        If it can't be read.
    """
    with reading(path):
        return json.loads(path.read_text("utf-8"))


def write_text(path: Path, text: str) -> None:
    """Write beside and rename, so that a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but its manifest, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def file_digest(path: Path) -> str:
    """SHA-256 of one file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that decide a run's figures."""
    found = {"fivefold": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""Every error a user can cause, in one tree.

    FivefoldError
    ├── RecipeError        the recipe, or a --set on it, is wrong
    ├── DataError          a file or table can't be read, or misses what the recipe names
    │   └── LabelError     labels that don't fit the task
    ├── RunError           a run folder can't be used as asked
    │   └── ArtefactError  a file in it is damaged, changed or from a newer version
    └── MissingExtraError  an optional dependency isn't installed

The command line turns each into one message and exit code 2. Anything else that escapes is a bug
and keeps its traceback.
"""

from __future__ import annotations


class FivefoldError(Exception):
    """A user's mistake: what is wrong, what is allowed, what was got, what to do next.

    Parameters
    ----------
    what
        One sentence saying what is wrong.
    allowed, got, next_step
        What would have been right, what was found, and the way forward; each may be left out.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, allowed: str | None = None, got: str | None = None, next_step: str | None = None
    ) -> None:
        parts = (("allowed", allowed), ("got", got), ("next", next_step))
        super().__init__("\n".join([what, *(f"  {name}: {text}" for name, text in parts if text)]))


class RecipeError(FivefoldError):
    """The recipe, or an override of it, is wrong."""


class DataError(FivefoldError):
    """A data file can't be read, or misses what the recipe names."""


class LabelError(DataError):
    """Labels don't fit the task."""


class RunError(FivefoldError):
    """A run folder can't be used as asked."""


class ArtefactError(RunError):
    """A file of a run is damaged, changed, or written by a newer version."""


class MissingExtraError(FivefoldError):
    """An optional dependency isn't installed."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        self.missing = (package, extra, purpose)
        super().__init__(
            f"{purpose} needs the package '{package}', which isn't installed.",
            next_step=f"pip install {package}" if extra is None else f"pip install 'fivefold[{extra}]'",
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str | None, str]]:
        """How to come back from another process."""
        return type(self), self.missing

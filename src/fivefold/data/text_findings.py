"""Findings on text: missing, damaged, long, repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.columns import counted
from fivefold.data.duplicates import duplicate_groups, near_duplicate_groups
from fivefold.data.findings import Finding, shown
from fivefold.task import IntArray

DAMAGE = {
    "replacement_characters": ("�", "with U+FFFD: bytes were lost when the file was decoded"),
    # UTF-8 read as Windows-1252 or Latin-1: a lead byte, as Ã, Â, â€ or ðŸ, before what can only be its continuation.
    "mojibake": (
        "[ÃÂ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€|â‚¬|ðŸ|ï»¿",
        "that must have been decoded with the wrong encoding (such as Ã© for é); ftfy mends them",
    ),
    "literal_escapes": (r"\\[nrt](?:\W|$|[A-Z])|\\u[0-9a-fA-F]{4}", r"with written-out escapes such as \n"),
    "control_characters": ("[\u0000-\u0008\u000e-\u001f]", "with control characters"),
}

SPREAD = ("median", "p95", "max")


def text_findings(name: str, texts: Sequence[str]) -> Iterator[Finding]:
    """What one text column shows: empty cells, damage and lengths."""
    column = pl.Series(name, texts, dtype=pl.String)
    empty = (column.str.strip_chars() == "").arg_true().to_list()
    if len(empty) == len(texts):
        yield Finding("error", "empty_text", f"'{name}' is empty in every row; name another text column.", len(empty))
        return
    if empty:
        message = f"'{name}' is empty in {counted(len(empty), 'row')}; fill them or leave the rows out."
        yield Finding("warning", "empty_text", message, len(empty), shown([f"row {row}" for row in empty]))
    for kind, (pattern, meaning) in DAMAGE.items():
        rows = column.str.contains(pattern).arg_true()
        if rows.len():
            examples = shown(column.gather(rows.head(5)).str.extract(f"(.{{0,30}}(?:{pattern}).{{0,30}})").to_list())
            yield Finding("warning", kind, f"'{name}': {counted(rows.len(), 'row')} {meaning}.", rows.len(), examples)
    yield _lengths(name, column)


def duplicate_findings(
    texts: Sequence[str], codes: IntArray | None, threshold: float, seed: int, groups: Sequence[object] | None
) -> Iterator[Finding]:
    """Rows whose text is that of another row, exactly or nearly, and whether their labels agree.

    Parameters
    ----------
    texts
        All text of a row, (rows,).
    codes
        Labels, int32 (rows, targets), or None.
    groups
        The rows' given groups, (rows,), or None. Near duplicates within one group are no news.
    """
    exact = duplicate_groups(texts)
    repeated = _members(exact)
    if repeated:
        message = f"{counted(len(repeated), 'text')} more than once (letter case and spaces aside)"
        yield _groups_finding("duplicates", message, repeated, texts)
    if codes is not None and repeated:
        yield from _conflicts(repeated, codes, texts)
    near = _members(near_duplicate_groups(texts, threshold, seed=seed))
    apart = near if groups is None else [rows for rows in near if len({groups[row] for row in rows}) > 1]
    # A near group says more than the exact ones only if several different texts, or given groups, meet in it.
    told = [rows for rows in apart if groups is not None or len(set(exact[rows].tolist())) > 1]
    if told:
        across = "" if groups is None else ", across the given groups"
        message = (
            f"{counted(len(told), 'group')} of texts that are nearly the same (Jaccard {threshold:g} or more){across}"
        )
        yield _groups_finding("near_duplicates", message, told, texts)


def leak_findings(texts: Sequence[str], others: Sequence[str], threshold: float, seed: int) -> Iterator[Finding]:
    """Rows of another table whose text, exactly or nearly, is in this one."""
    together = [*texts, *others]
    exact = _shared(duplicate_groups(together), len(texts))
    near = np.setdiff1d(_shared(near_duplicate_groups(together, threshold, seed=seed), len(texts)), exact)
    for name, rows, how in (("test_duplicates", exact, "also"), ("test_near_duplicates", near, "nearly")):
        if len(rows):
            what = counted(len(rows), "text")
            message = f"{what} of the test table {how} in the training table: a score on them flatters."
            yield Finding("warning", name, message, len(rows), shown([f"test row {i}: {others[i]}" for i in rows[:5]]))


def _shared(groups: IntArray, start: int) -> npt.NDArray[np.int64]:
    """Rows from `start` on, counted from there, in a group that begins before."""
    return np.flatnonzero(np.isin(groups[start:], groups[:start]))


def _lengths(name: str, column: pl.Series) -> Finding:
    words, characters = column.str.count_matches(r"\S+").to_numpy(), column.str.len_chars().to_numpy()
    figures = {"words": _spread(words), "characters": _spread(characters)}
    told = "; ".join(f"{u} median {m:.0f}, 95 % up to {p:.0f}, longest {x:.0f}" for u, (m, p, x) in figures.items())
    names = {
        f"{unit}_{what}": value
        for unit, all_three in figures.items()
        for what, value in zip(SPREAD, all_three, strict=True)
    }
    return Finding("note", "lengths", f"'{name}': {told}.", len(column), figures=names)


def _spread(sizes: npt.NDArray[Any]) -> tuple[float, float, float]:
    return float(np.median(sizes)), float(np.percentile(sizes, 95)), float(sizes.max())


def _members(groups: IntArray) -> list[list[int]]:
    """Rows of every group that has several, in order."""
    order = np.argsort(groups, kind="stable")
    blocks = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [block.tolist() for block in blocks if len(block) > 1]


def _groups_finding(name: str, message: str, members: list[list[int]], texts: Sequence[str]) -> Finding:
    rows = sum(map(len, members))
    largest = sorted(members, key=len, reverse=True)[:3]
    examples = shown([f"rows {group[:4]}: {texts[group[0]]}" for group in largest])
    advice = "folds.near_duplicates keeps them in one fold"
    sentence = f"{message}, {rows} rows in all, {len(largest[0])} in the largest; {advice}."
    return Finding("warning", name, sentence, rows, examples)


def _conflicts(members: list[list[int]], codes: IntArray, texts: Sequence[str]) -> Iterator[Finding]:
    torn = [rows for rows in members if len(np.unique(codes[rows], axis=0)) > 1]
    if torn:
        rows = sum(map(len, torn))
        message = (
            f"{counted(len(torn), 'repeated text')} with different labels, {rows} rows: at most one of them is right."
        )
        examples = shown([f"rows {group[:4]}: {texts[group[0]]}" for group in torn])
        yield Finding("warning", "conflicting_labels", message, rows, examples)

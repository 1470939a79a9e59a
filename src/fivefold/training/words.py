"""Texts cut between words."""

from __future__ import annotations

import re

WORD = re.compile(r"\S+")


def shortened(text: str, first: int, last: int) -> str:
    """The first and the last words of a text, so many each, with the white space before them; the text itself if it has
    no more. A word is what white space doesn't part."""
    words = [match.span() for match in WORD.finditer(text)]
    if len(words) <= first + last:
        return text
    head = text[: words[first - 1][1]] if first else ""
    return head + (text[words[-last - 1][1] if first else words[-last][0] :] if last else "")

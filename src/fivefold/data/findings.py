"""What a check of the data found, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from fivefold.data.columns import counted

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Parameters
    ----------
    severity
        An error stops training, a warning may cost accuracy or honesty, a note is good to know.
    name
        A short fixed name, such as "near_duplicates".
    message
        One sentence: what was found, and what to do about it.
    count
        Rows (or labels) concerned.
    examples
        A few of them.
    figures
        Numbers behind the sentence, by name.
    """

    severity: Severity
    name: str
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """Everything a check found, errors first."""

    rows: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stops training."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A plain description."""
        return {"rows": self.rows, "findings": [asdict(finding) for finding in self.findings]}

    def render(self) -> str:
        """The report as plain text, a line a finding and a line for its examples."""
        totals = ", ".join(counted(sum(f.severity == s for f in self.findings), s) for s in SEVERITIES)
        headline = f"{counted(self.rows, 'row')} checked (numbered from 0): {totals}"
        return "\n".join([headline, *map(_rendered, self.findings)])


def report(rows: int, findings: Sequence[Finding]) -> CheckReport:
    """The report of these findings, errors first, else in the order they were made."""
    return CheckReport(rows, tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))))


def shown(examples: Sequence[object], length: int = 80) -> tuple[str, ...]:
    """The first examples as short text on one line."""
    texts = (" ".join(str(example).split()) for example in examples[:EXAMPLES])
    return tuple(text if len(text) <= length else text[: length - 1] + "…" for text in texts)


def _rendered(finding: Finding) -> str:
    line = f"{finding.severity.upper():8}{finding.message}"
    return "\n".join([line, *(f"          {example}" for example in finding.examples)])

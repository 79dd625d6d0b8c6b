"""Problems found in a data file, grouped by kind, each with its count and its first cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]

#: How many cases of one kind are kept for the report.
FIRST_CASES = 5


@dataclass(frozen=True)
class Problem:
    """`count` things are wrong in the same way; `first` describes the first of them."""

    kind: str
    severity: Severity
    count: int
    first: tuple[str, ...]

    def to_text(self) -> str:
        """The problem and its first cases, for people."""
        lines = [f"{self.severity}: {self.kind}: {self.count}"]
        lines += [f"    {case}" for case in self.first]
        if self.count > len(self.first):
            lines.append(f"    and {self.count - len(self.first)} more")
        return "\n".join(lines)


@dataclass
class Findings:
    """Collects problems; however many there are, only the first cases of each kind are kept."""

    _cases: dict[tuple[Severity, str], list[str]] = field(default_factory=dict)
    _counts: dict[tuple[Severity, str], int] = field(default_factory=dict)

    def error(self, kind: str, case: str) -> None:
        """Add a case of something that makes the file unfit for use."""
        self._add("error", kind, case)

    def warning(self, kind: str, case: str) -> None:
        """Add a case of something odd that does no harm."""
        self._add("warning", kind, case)

    def problems(self) -> tuple[Problem, ...]:
        """Errors before warnings, otherwise in the order in which the kinds were met."""
        found = [
            Problem(kind, severity, self._counts[severity, kind], tuple(cases))
            for (severity, kind), cases in self._cases.items()
        ]
        return tuple(sorted(found, key=lambda problem: problem.severity))

    def _add(self, severity: Severity, kind: str, case: str) -> None:
        key = (severity, kind)
        self._counts[key] = self._counts.get(key, 0) + 1
        cases = self._cases.setdefault(key, [])
        if len(cases) < FIRST_CASES:
            # JSON can hold half of a surrogate pair, which no terminal prints.
            cases.append(case.encode("utf-8", "backslashreplace").decode())


def to_text(problems: Iterable[Problem]) -> str:
    """All problems, one after another, for people."""
    return "\n".join(problem.to_text() for problem in problems)

"""What validation found: one line each, with the place, what stands there and what was expected."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
import orjson

Extent = Literal["fast", "full"]
LONGEST = 120
"""Characters of what was found that are shown."""
MOST = 1_000
"""Findings that a report keeps; all are counted."""


class Problem(NamedTuple):
    """What is wrong within a resource."""

    path: str
    found: str
    expected: str


class Finding(msgspec.Struct, frozen=True):
    """A problem with the resource, file and line that it is in; `line` counts lines or entries from 1."""

    file: str
    line: int
    resource: str
    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file} {self.line}: {self.resource}" if self.file else self.resource
        return f"{where}: {self.path or 'resource'}: found {self.found}, expected {self.expected}"


class ValidationReport(msgspec.Struct):
    """What was held against the rules, and what was found; `ok` says that nothing was."""

    us_core: str
    extent: Extent
    files: int = 0
    resources: dict[str, int] = {}
    """Resources held against the rules, by type."""
    other: dict[str, int] = {}
    """Resources of types that there are no rules for, by type: only their references and ids are checked."""
    in_full: int = 0
    """Resources held against the invariants as well."""
    findings: list[Finding] = []
    """The first ones, by file and line."""
    found: int = 0
    """All of them."""
    unusual: dict[str, int] = {}
    """What is valid and yet unlikely, counted: times after death or outside the encounter."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if there is room."""
        self.found += 1
        if len(self.findings) < MOST:
            self.findings.append(finding)

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        total = sum(self.resources.values())
        lines = [
            f"validated {total:,} resources in {self.files:,} files (US Core {self.us_core}, {self.extent}"
            + (f", {self.in_full:,} of them with all invariants)" if self.extent == "full" else ")")
        ]
        if self.other:
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(self.other.items()))
            lines.append(f"no rules for: {listed}")
        lines += [f"unlikely: {name}: {count:,}" for name, count in sorted(self.unusual.items())]
        if self.ok:
            return [*lines, "no errors"]
        shown = [f"error: {finding}" for finding in self.findings]
        more = self.found - len(shown)
        return [*lines, *shown, *([f"and {more:,} more errors"] if more else []), f"{self.found:,} errors"]


def shown(value: object) -> str:
    """A value as JSON, cut where it is long."""
    text = orjson.dumps(value).decode() if not isinstance(value, str) else f"`{value}`"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"

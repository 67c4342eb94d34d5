"""What an import read, changed, skipped and found, with counts and first examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec
import polars as pl

from ehrsim import counts
from ehrsim.importers.deidentification.report import DeidentificationReport


@dataclass
class SourceTables:
    """What a source says of its subjects and codes besides its events."""

    splits: dict[int, str] = field(default_factory=dict)
    """The split of each subject, where the source has splits of its own."""
    codes: list[pl.DataFrame] = field(default_factory=list)
    """Code tables (code, description, parent_codes)."""


class ImportReport(msgspec.Struct, dict=True):
    """The report of one import; written to `metadata/import.json` of the imported data set.

    `skipped` rows are not in the result, `changed` ones are in it altered, `findings` are oddities left as they are.
    Counts of `systems` and `kinds` are of the events written.
    """

    source: str
    format: str
    files: int = 0
    rows: int = 0
    subjects: int = 0
    events: int = 0
    systems: dict[str, int] = {}
    kinds: dict[str, int] = {}
    skipped: counts.Counts = {}
    changed: counts.Counts = {}
    findings: counts.Counts = {}
    splits: dict[str, int] = {}
    deidentification: DeidentificationReport | None = None
    """What was done so that nobody is identified; null for an import that leaves the data as they are."""

    @cached_property
    def tables(self) -> SourceTables:
        """Tables of the source that importers leave here for the writer; no part of the report as written."""
        return SourceTables()

    def skip(self, reason: str, count: int = 1, example: object = "") -> None:
        """Count rows that are left out."""
        counts.add(self.skipped, reason, count, example)

    def change(self, reason: str, count: int = 1, example: object = "") -> None:
        """Count rows that are kept in an altered form."""
        counts.add(self.changed, reason, count, example)

    def find(self, what: str, count: int = 1, example: object = "") -> None:
        """Count oddities that are kept as they are."""
        counts.add(self.findings, what, count, example)

    def count_codes(self, kinds: Counter[str], systems: Counter[str]) -> None:
        """Add to the counts of events written."""
        self.kinds = dict(Counter(self.kinds) + kinds)
        self.systems = dict(Counter(self.systems) + systems)

    def to_json(self) -> dict[str, object]:
        """The report as plain JSON values, sorted by count."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        for name in ("systems", "kinds"):
            plain[name] = dict(sorted(getattr(self, name).items(), key=lambda item: (-item[1], item[0])))
        return plain

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        lines = [f"{self.format}: {self.files:,} files, {self.rows:,} rows read from {self.source}"]
        lines.append(f"wrote {self.events:,} events of {self.subjects:,} subjects")
        for title, numbers in (("kinds", self.kinds), ("code systems", self.systems)):
            ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
            lines.append(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in ordered))
        for title, group in (("skipped", self.skipped), ("changed", self.changed), ("found", self.findings)):
            lines += counts.lines(title, group)
        return lines + (self.deidentification.lines() if self.deidentification else [])


def name_of(source: Path) -> str:
    """The name of a file as it appears in messages: its last two parts."""
    return "/".join(source.parts[-2:])

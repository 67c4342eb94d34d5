"""What an export to tables wrote, what the format could not carry, and what it carries altered."""

from __future__ import annotations

import msgspec

from ehrsim import counts


class TableReport(msgspec.Struct):
    """The report of one export to tables.

    `not_carried` counts events, or single columns of them, that are not in the output; `changed` counts those that
    are in it altered.
    """

    format: str
    rows: dict[str, int] = {}
    """Rows written, by table."""
    patients: int = 0
    events: int = 0
    """Events read."""
    mapped: dict[str, int] = {}
    """Distinct codes, answers and units with a standard concept, where a vocabulary was given."""
    unmapped: dict[str, int] = {}
    """Those without one."""
    not_carried: counts.Counts = {}
    changed: counts.Counts = {}

    def omit(self, reason: str, count: int, example: object = "") -> None:
        """Count what the output does not carry."""
        counts.add(self.not_carried, reason, count, example)

    def change(self, reason: str, count: int, example: object = "") -> None:
        """Count what is carried in an altered form."""
        counts.add(self.changed, reason, count, example)

    def wrote(self, table: str, rows: int) -> None:
        """Count rows of a table."""
        self.rows[table] = self.rows.get(table, 0) + rows

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        lines = [f"wrote {self.patients:,} patients from {self.events:,} events ({self.format})"]
        lines.append("rows: " + ", ".join(f"{name} {count:,}" for name, count in self.rows.items()))
        for name, count in self.mapped.items():
            total = count + self.unmapped.get(name, 0)
            lines.append(f"standard concepts: {count:,} of {total:,} distinct {name}")
        lines += counts.lines("not carried", self.not_carried)
        lines += counts.lines("changed", self.changed)
        return lines

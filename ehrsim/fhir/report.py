"""What an export wrote, what FHIR could not carry, and what was held against fhir.resources."""

from __future__ import annotations

import msgspec

from ehrsim import counts


class ExportReport(msgspec.Struct):
    """The report of one export.

    `not_carried` counts events, or single columns of them, that are not in the output; `changed` counts those that
    are in it altered; `left_out` counts resources that are not in summaries.
    """

    format: str
    resources: dict[str, int] = {}
    """Resources written, by type."""
    patients: int = 0
    events: int = 0
    not_carried: counts.Counts = {}
    changed: counts.Counts = {}
    left_out: counts.Counts = {}
    validated: dict[str, int] = {}
    """Resources held against the rules of FHIR and US Core, by type; all passed, or the export failed."""
    in_full: int = 0
    """Of these, the resources held against all invariants as well."""
    unlikely: dict[str, int] = {}
    """What is valid but unlikely, as the events have it: times before birth, after death or outside the encounter."""

    mapped_events: int = 0
    """Events with a further code by a crosswalk."""
    mapped_codes: int = 0
    """Codes of these, of `mappable_codes` that the crosswalk has."""
    mappable_codes: int = 0
    scores: dict[str, tuple[int, int]] = {}
    """Of each quality measure that is reported: how many patients meet it, of how many."""

    def omit(self, reason: str, count: int, example: object = "") -> None:
        """Count what FHIR does not carry."""
        counts.add(self.not_carried, reason, count, example)

    def change(self, reason: str, count: int, example: object = "") -> None:
        """Count what is carried in an altered form."""
        counts.add(self.changed, reason, count, example)

    def leave_out(self, reason: str, count: int) -> None:
        """Count resources that a summary does not list."""
        counts.add(self.left_out, reason, count, "")

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        total = sum(self.resources.values())
        lines = [
            f"wrote {total:,} resources of {self.patients:,} patients from {self.events:,} events ({self.format})",
            "resources: " + _listed(self.resources),
        ]
        lines += counts.lines("not carried by FHIR", self.not_carried)
        lines += counts.lines("changed", self.changed)
        lines += counts.lines("left out of the summaries", self.left_out)
        if self.mappable_codes:
            met = f"{self.mapped_codes:,} of the {self.mappable_codes:,} codes of the crosswalk"
            lines.append(f"further codes for {self.mapped_events:,} events, by {met}")
        lines += [f"measure {name}: {met:,} of {of:,} patients" for name, (met, of) in self.scores.items()]
        if self.validated:
            in_full = f", {self.in_full:,} in full" if self.in_full else ""
            lines.append(f"validated {sum(self.validated.values()):,}, all valid{in_full}")
        if self.unlikely:
            lines.append(f"unlikely, as in the events: {_listed(self.unlikely)}")
        return lines


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(numbers.items()))

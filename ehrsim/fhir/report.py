"""What an export wrote, what FHIR could not carry, and what was held against fhir.resources."""

from __future__ import annotations

import msgspec

from ehrsim.importers.report import Count


class ExportReport(msgspec.Struct):
    """The report of one export.

    `not_carried` counts events, or single columns of them, that are not in the output; `changed` counts those that
    are in it altered.
    """

    format: str
    resources: dict[str, int] = {}
    """Resources written, by type."""
    patients: int = 0
    events: int = 0
    not_carried: dict[str, Count] = {}
    changed: dict[str, Count] = {}
    validated: dict[str, int] = {}
    """Resources held against fhir.resources, by type; all passed, or the export failed."""

    def omit(self, reason: str, count: int, example: object = "") -> None:
        """Count what FHIR does not carry."""
        _add(self.not_carried, reason, count, example)

    def change(self, reason: str, count: int, example: object = "") -> None:
        """Count what is carried in an altered form."""
        _add(self.changed, reason, count, example)

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        total = sum(self.resources.values())
        lines = [
            f"wrote {total:,} resources of {self.patients:,} patients from {self.events:,} events ({self.format})",
            "resources: " + _listed(self.resources),
        ]
        for title, group in (("not carried by FHIR", self.not_carried), ("changed", self.changed)):
            for reason, count in group.items():
                example = f" (first: {count.example})" if count.example else ""
                lines.append(f"{title} {count.count:,}: {reason}{example}")
        if self.validated:
            lines.append(f"validated {sum(self.validated.values()):,}, all valid: {_listed(self.validated)}")
        return lines


def _add(group: dict[str, Count], reason: str, count: int, example: object) -> None:
    if count <= 0:
        return
    if reason in group:
        group[reason].count += count
    else:
        group[reason] = Count(count, str(example)[:200])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))

"""What a de-identification dropped, altered and measured: numbers only, nothing of the source."""

from __future__ import annotations

import msgspec

from ehrsim.importers.deidentification.disclosure import Knowledge, Likeness


class DeidentificationReport(msgspec.Struct):
    """The report of one de-identification; part of `metadata/import.json`.

    Counts are of events. It holds no value of the source: not an example, a name of a file or a code that was dropped.
    """

    policy: str
    basis: str
    """What the treatment of dates amounts to in law; not a legal determination."""
    min_patients: int
    dropped: dict[str, int] = {}
    """Events left out, by reason."""
    changed: dict[str, int] = {}
    """Events kept in an altered form, by what was done."""
    rare_codes: int = 0
    """Distinct codes of too few patients."""
    rolled_up_codes: int = 0
    """Those of them that became a parent."""
    scanned_texts: int = 0
    """Distinct texts looked at for identifiers that were left; none was found, or nothing would be written."""
    likeness: list[Likeness] = []
    """k-anonymity and l-diversity."""
    knowledge: list[Knowledge] = []
    """LKC-privacy."""

    def drop(self, reason: str, count: int) -> None:
        """Count events left out."""
        _add(self.dropped, reason, count)

    def change(self, what: str, count: int) -> None:
        """Count events altered."""
        _add(self.changed, what, count)

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        lines = [f"de-identified by the policy {self.policy}: {self.basis}"]
        for title, counts in (("dropped", self.dropped), ("altered", self.changed)):
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            lines += [f"{title} {count:,}: {reason}" for reason, count in ordered]
        rare = f"{self.rare_codes:,}, {self.rolled_up_codes:,} rolled up"
        lines.append(f"codes of fewer than {self.min_patients} patients: {rare}")
        lines += [
            f"alike in {', '.join(row.known)}: {row.classes:,} groups, smallest {row.k:,}, "
            f"{row.unique:,} patients alone, {row.in_small_classes:,} in small groups, l {row.l:,}"
            for row in self.likeness
        ]
        lines += [
            f"attacker who knows {row.known_codes} codes: {row.in_small_groups:.1%} of patients in small groups, "
            f"sensitive code told of {row.sensitive_told:.1%}"
            for row in self.knowledge
        ]
        return lines


def _add(counts: dict[str, int], reason: str, count: int) -> None:
    if count > 0:
        counts[reason] = counts.get(reason, 0) + count

"""Rare values: those of fewer patients than the threshold, rolled up to parents that enough have, or dropped.

What counts is patients with the value in the result, so that after rolling up no value is rare. Only the patients of
values that are still rare are kept in memory: fewer than the threshold for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import polars as pl

Parents = Callable[[str], tuple[str, ...]]
_SCHEMA = {"subject_id": pl.Int64, "value": pl.String}


class PatientCounts:
    """Which values have at least `enough` patients, gathered part by part; each part holds whole subjects."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self._frequent: set[str] = set()
        self._rare = pl.DataFrame(schema=_SCHEMA)

    def add(self, pairs: pl.DataFrame) -> None:
        """Count the (subject_id, value) of a part."""
        new = pairs.filter(~pl.col("value").is_in(list(self._frequent))).unique(maintain_order=True)
        rare = pl.concat([self._rare, new.select("subject_id", "value")])
        counts = rare.group_by("value").agg(patients=pl.len())
        self._frequent.update(counts.filter(pl.col("patients") >= self.enough)["value"])
        self._rare = rare.filter(~pl.col("value").is_in(list(self._frequent)))

    def rare(self) -> set[str]:
        """The values of fewer patients."""
        return set(self._rare["value"])

    def rolled_up(self, parents: Parents) -> dict[str, str | None]:
        """For each rare value the nearest ancestor that enough patients then have, None where there is none.

        From the narrowest values up, each group that is too small joins that of its parent; `parents` gives the
        ancestors of a value, nearest first.
        """
        patients: dict[str, set[int]] = defaultdict(set)
        for subject, value in self._rare.iter_rows():
            patients[value].add(subject)
        groups: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for value in patients:
            groups[len(parents(value))][value].add(value)
        result: dict[str, str | None] = {}
        for depth in range(max(groups, default=-1), -1, -1):
            for place, members in sorted(groups[depth].items()):
                together = set[int]().union(*(patients[value] for value in members))
                if place in self._frequent or len(together) >= self.enough:
                    result |= dict.fromkeys(members, place)
                elif depth == 0:
                    result |= dict.fromkeys(members, None)
                else:
                    groups[depth - 1][parents(place)[0]] |= members
        return result

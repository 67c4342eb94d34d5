"""Counts by reason with a first example: how imports and exports say what they skipped, changed and found."""

from __future__ import annotations

import msgspec

LONGEST_EXAMPLE = 200


class Count(msgspec.Struct):
    """How often something happened, and the first time in words."""

    count: int
    example: str


Counts = dict[str, Count]
"""Counts by reason."""


def add(counts: Counts, reason: str, count: int, example: object) -> None:
    """Count something `count` more times; `example` is kept if it is the first time."""
    if count <= 0:
        return
    if reason in counts:
        counts[reason].count += count
    else:
        counts[reason] = Count(count, str(example)[:LONGEST_EXAMPLE])


def lines(title: str, counts: Counts) -> list[str]:
    """The counts for people, a line each."""
    return [
        f"{title} {count.count:,}: {reason}" + (f" (first: {count.example})" if count.example else "")
        for reason, count in counts.items()
    ]

"""FHIR dates, dateTimes and instants as spans of time: a date is a day long, a year is a year."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

_PARTS = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)(T(?P<clock>\d\d:\d\d:\d\d)(?P<part>\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d))?)?)?",
    re.ASCII,
)
ZONES = 14 * 3600.0
"""Seconds by which a day may begin earlier or later elsewhere."""


class Span(NamedTuple):
    """From the first second to the last, in seconds since 1970 in UTC."""

    first: float
    last: float
    precision: int
    """Parts that are given: 1 is a year, 2 a month, 3 a day, 4 a time."""

    def before(self, other: Span) -> bool:
        """Whether it is surely over before another one begins, whatever the zones of dates without a time."""
        slack = 0.0 if self.precision == other.precision == 4 else ZONES
        if self.precision < 4 and other.precision < 4:
            slack = 0.0
        return self.last + slack < other.first


@lru_cache(maxsize=1 << 16)
def span(text: str) -> Span | None:
    """The span of a date, dateTime or instant; None for a text that is none, such as 30 February.

    >>> span("2024-02-30"), span("2024").precision, span("2024-03-01T09:00:00-05:00").first
    (None, 1, 1709301600.0)
    """
    match = _PARTS.fullmatch(text)
    if match is None:
        return None
    try:
        if match["zone"]:
            # A leap second is the one before it here.
            moment = datetime.fromisoformat(
                f"{match[1]}-{match['month']}-{match['day']}T{match['clock']}{match['zone']}"
            )
            first = moment.timestamp() + float(match["part"] or 0)
            return Span(first, first, 4)
        year, month, day = int(match["year"]), int(match["month"] or 0), int(match["day"] or 0)
        begin = datetime(year, month or 1, day or 1, tzinfo=UTC)
        end = datetime(year, month or 12, day or calendar.monthrange(year, month or 12)[1], tzinfo=UTC)
    except ValueError:
        return None
    precision = 1 + (month > 0) + (day > 0)
    return Span(begin.timestamp(), (end + timedelta(days=1)).timestamp() - 1, precision)


def out_of_order(start: str, end: str) -> bool:
    """Whether a period ends before it starts, or tells start and end differently precisely."""
    first, last = span(start), span(end)
    if first is None or last is None:
        return False
    if first.precision == last.precision:
        return first.first > last.first
    return last.before(first)

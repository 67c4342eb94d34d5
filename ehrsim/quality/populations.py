"""Who of a cohort is in the populations of quality measures, from events and one reference date.

Windows are half-open: from their first moment up to, not including, the reference date. It follows from the data:
midnight after the last event. Whoever is counted was alive when the period began and has an event in it. Everything
is computed for whole groups of subjects at once, and groups add up.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from ehrsim.codes import BIRTH, DEATH, OBSERVATION_END
from ehrsim.events import EARLIEST_YEAR, LATEST_YEAR
from ehrsim.quality.definitions import Criterion, Library, Measure, Value

PERIOD_MONTHS = 12
_subject, _time, _end, _code = (pl.col(name) for name in ("subject_id", "time", "end_time", "code"))


class Tally(NamedTuple):
    """How many subjects are in each population of a measure; those of groups add up with `plus`."""

    initial: int = 0
    denominator: int = 0
    """Of the initial population; the excluded are among them."""
    exclusion: int = 0
    numerator: int = 0
    """Of the denominator without the excluded."""

    def plus(self, other: Tally) -> Tally:
        """The counts of both."""
        return Tally(*(one + more for one, more in zip(self, other, strict=True)))

    @property
    def score(self) -> float | None:
        """The proportion; None where nobody is left in the denominator."""
        rest = self.denominator - self.exclusion
        return self.numerator / rest if rest else None


def reference_date(tables: Iterable[pl.LazyFrame]) -> datetime | None:
    """Midnight after the last event of some event tables; None where no event has a time."""
    within = _time.dt.year().is_between(EARLIEST_YEAR, LATEST_YEAR - 1)
    latest = [table.select(_time.filter(within).max()).collect(engine="streaming").item() for table in tables]
    known = [time for time in latest if time is not None]
    return datetime.combine(max(known).date(), datetime.min.time()) + timedelta(days=1) if known else None


def months_before(moment: datetime, months: int) -> datetime:
    """The moment so many calendar months earlier, on the last day of its month where that is shorter."""
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    return moment.replace(year=year, month=month + 1, day=min(moment.day, calendar.monthrange(year, month + 1)[1]))


def period_of(reference: datetime) -> tuple[datetime, datetime]:
    """The period of all measures: its first moment, and the reference date, which is not in it."""
    return months_before(reference, PERIOD_MONTHS), reference


def membership(frame: pl.DataFrame, library: Library, reference: datetime) -> dict[str, pl.DataFrame]:
    """The members of each measure's populations, by name of the measure, among the subjects of an event table.

    Each frame has a row for each subject of the initial population: `subject_id` and, true or false, `denominator`,
    `exclusion` and `numerator`.
    """
    listed = _listed(frame["code"].unique(), library)
    named = pl.concat(listed.values()).unique()
    coded = frame.filter(_code.is_in(named.implode()), _time.is_null() | (_time < reference))
    people = _people(frame, reference)
    found: dict[Criterion, pl.Series] = {}

    def holding(criterion: Criterion) -> pl.Expr:
        if criterion not in found:
            own = coded.filter(_code.is_in(listed[criterion.codes].implode()))
            found[criterion] = _holding(own, criterion, reference)
        return _subject.is_in(found[criterion].implode()) ^ pl.lit(criterion.or_none)

    return {
        measure.name: people.filter(_of_age(measure)).select(
            "subject_id",
            denominator=pl.all_horizontal(pl.lit(True), *map(holding, measure.denominator)),
            exclusion=pl.any_horizontal(pl.lit(False), *map(holding, measure.exclusion)),
            numerator=pl.all_horizontal(*map(holding, measure.numerator)),
        )
        for measure in library.measure
    }


def tally(members: pl.DataFrame) -> Tally:
    """The counts of a frame of `membership`."""
    denominator, exclusion, numerator = (pl.col(name) for name in ("denominator", "exclusion", "numerator"))
    counted = members.select(
        pl.len(),
        denominator.sum(),
        (denominator & exclusion).sum().alias("excluded"),
        (denominator & ~exclusion & numerator).sum().alias("met"),
    )
    return Tally(*map(int, counted.row(0)))


def _listed(distinct: pl.Series, library: Library) -> dict[str, pl.Series]:
    """The codes of a table that each list has."""
    listed = {}
    for name, values in library.codes.items():
        exact = [value for value in values if not value.endswith("*")]
        within = distinct.is_in(exact)
        for prefix in (value.removesuffix("*") for value in values if value.endswith("*")):
            within |= distinct.str.starts_with(prefix)
        listed[name] = distinct.filter(within)
    return listed


def _people(frame: pl.DataFrame, reference: datetime) -> pl.DataFrame:
    """Subjects with their age in years at the reference date who were alive when the period began and seen in it."""
    begin, _ = period_of(reference)
    vital = _code.is_in([BIRTH, DEATH, OBSERVATION_END])
    known = (
        frame.lazy()
        .group_by("subject_id")
        .agg(
            birth=_time.filter(_code == BIRTH).min(),
            death=_time.filter(_code == DEATH).min(),
            seen=(~vital & (_time >= begin) & (_time < reference)).any(),
        )
    )
    birth = pl.col("birth").dt
    had_birthday = birth.month().cast(pl.Int32) * 100 + birth.day() <= reference.month * 100 + reference.day
    alive = pl.col("death").is_null() | (pl.col("death") >= begin)
    age = reference.year - birth.year() - (~had_birthday).cast(pl.Int32)
    return known.filter(alive, "seen").select("subject_id", age=age).drop_nulls().collect()


def _of_age(measure: Measure) -> pl.Expr:
    return pl.col("age").is_between(*measure.ages, closed="left")


def _holding(coded: pl.DataFrame, criterion: Criterion, reference: datetime) -> pl.Series:
    """The subjects with an event of a criterion; where it is `or_none`, those for whom it does not hold."""
    events = coded
    if criterion.months is not None:
        begin = months_before(reference, criterion.months)
        lasts = (_end >= begin) | (_end.is_null() if criterion.ongoing else pl.lit(False))
        events = coded.filter((_time >= begin) | lasts.fill_null(False))
    if criterion.latest is None:
        return events["subject_id"].unique()
    # Of values of one time the largest is the latest, whatever their order.
    valued = events.filter(pl.col("numeric_value").is_not_null(), pl.col("unit") == criterion.latest.unit)
    latest = valued.sort("time", "numeric_value").group_by("subject_id").agg(pl.col("numeric_value").last())
    met = _within(criterion.latest)
    return latest.filter(~met if criterion.or_none else met)["subject_id"]


def _within(value: Value) -> pl.Expr:
    """Whether a number meets the bounds; it is compared as a float32, as events hold it."""
    number = pl.col("numeric_value")
    tests = [pl.lit(True)]
    if value.at_least is not None:
        tests.append(number >= pl.lit(value.at_least, pl.Float32))
    if value.above is not None:
        tests.append(number > pl.lit(value.above, pl.Float32))
    if value.at_most is not None:
        tests.append(number <= pl.lit(value.at_most, pl.Float32))
    if value.below is not None:
        tests.append(number < pl.lit(value.below, pl.Float32))
    return pl.all_horizontal(*tests)

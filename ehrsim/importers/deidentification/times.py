"""Times of whole subjects made relative: shifts by whole days, births at whole years of age, nobody older than 90.

Order and gaps within a subject stay as they are, up to what is left out. Times of day stay too.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from ehrsim import codes
from ehrsim.importers.deidentification.policy import Times

OLDEST = 90
"""Years; everybody this old or older is in one class (45 CFR 164.514(b)(2)(i)(C))."""
IMPLAUSIBLE_AGE = 130
DAYS_OF_YEAR = 365
YEAR_OF_ALL = 2000
MONTHS_IN_WORDS = 24
"""Age in months under which it is told in months."""

CountChange = Callable[[str, int], None]
_time, _subject = pl.col("time"), pl.col("subject_id")
_is_birth, _is_end = pl.col("code") == codes.BIRTH, pl.col("code") == codes.OBSERVATION_END


def deidentify_times(
    events: pl.DataFrame, draws: pl.DataFrame, common_ends: pl.Series, times: Times, count: CountChange
) -> pl.DataFrame:
    """Give the events of whole subjects their new times.

    `draws` holds four random numbers a subject (`Pseudonyms.draws`), `common_ends` the days on which the follow-up of
    many subjects ends. What is left out or altered is counted by calling `count(reason, rows)`.
    """
    if times.mode != "keep" and times.hide_common_end:
        events = _end_early(events, draws, common_ends, count)
    spans = _spans(events, draws)
    events = _births(events, spans, times, count)
    if times.mode == "keep":
        return events
    shifted = events.join(
        spans.select("subject_id", shift=_shift(times)), on="subject_id", how="left", maintain_order="left"
    )
    days = pl.duration(days="shift")
    return shifted.with_columns(pl.col("time", "end_time") + days).drop("shift")


def _end_early(events: pl.DataFrame, draws: pl.DataFrame, common_ends: pl.Series, count: CountChange) -> pl.DataFrame:
    """Cut records that end on a common day at a random moment of the year before, whatever stands there.

    The cut does not depend on what happens, so it censors without bias.
    """
    ends = events.filter(_is_end & _time.dt.date().is_in(common_ends.implode()))
    if ends.is_empty():
        return events
    firsts = events.filter(~_is_birth).group_by("subject_id").agg(first=_time.min())
    cuts = (
        ends.group_by("subject_id")
        .agg(end=_time.max())
        .join(firsts, on="subject_id")
        .join(draws.select("subject_id", early=pl.col("end") % DAYS_OF_YEAR), on="subject_id")
    )
    cut = pl.max_horizontal(pl.col("end") - pl.duration(days="early"), "first")
    events = events.join(cuts.select("subject_id", cut=cut), on="subject_id", how="left", maintain_order="left")
    late = (_time > pl.col("cut")) & ~_is_end & ~_is_birth
    count("event in the last year before a common end of follow-up left out", _true(events, late))
    over = pl.col("end_time") > pl.col("cut")
    return (
        events.filter(~late.fill_null(False))
        .with_columns(
            time=pl.when(_is_end).then(pl.coalesce("cut", "time")).otherwise("time"),
            end_time=pl.when(~over.fill_null(False)).then("end_time"),
        )
        .drop("cut")
    )


def _spans(events: pl.DataFrame, draws: pl.DataFrame) -> pl.DataFrame:
    """A row a subject: birth, first and last time of anything else, and its draws."""
    dated = events.filter(_time.is_not_null())
    spans = dated.group_by("subject_id").agg(
        birth=_time.filter(_is_birth).min(), first=_time.filter(~_is_birth).min(), last=_time.max()
    )
    spans = spans.with_columns(first=pl.coalesce("first", "birth"))
    return spans.join(draws, on="subject_id", how="left", maintain_order="left")


def _births(events: pl.DataFrame, spans: pl.DataFrame, times: Times, count: CountChange) -> pl.DataFrame:
    """Births at whole years before the first event, and none more than 90 years before the last."""
    first, last, birth = pl.col("first"), pl.col("last"), pl.col("birth")
    usable = (birth.dt.offset_by(f"{IMPLAUSIBLE_AGE}y") > first).fill_null(False)
    limit = last.dt.date().cast(pl.Datetime("us")).dt.offset_by(f"-{OLDEST}y")
    is_old = (birth <= last.dt.offset_by(f"-{OLDEST}y")).fill_null(False)
    born = _at_whole_age(birth, first) if times.whole_years else birth
    places = spans.select(
        "subject_id",
        "last",
        limit=limit,
        turns=birth.dt.offset_by(f"{OLDEST}y"),
        is_old=is_old & usable,
        born=pl.when(usable).then(pl.when(is_old).then(limit).otherwise(born)),
    )
    events = events.join(places, on="subject_id", how="left", maintain_order="left")
    unusable = _is_birth & pl.col("born").is_null()
    count(f"birth more than {IMPLAUSIBLE_AGE} years before the first event left out", _true(events, unusable))
    repeated = _is_birth & ~pl.struct("subject_id", "code").is_first_distinct()
    count("further birth of a subject left out", _true(events, repeated & ~unusable))
    early = (_time < pl.col("limit")) & ~_is_birth
    count(f"event more than {OLDEST} years before the last left out", _true(events, early))
    count(
        f"birth of somebody of {OLDEST} or more put {OLDEST} years before the last event",
        _true(events, _is_birth & ~unusable & ~repeated & pl.col("is_old")),
    )
    late = (pl.col("end_time") > pl.col("last")) & (pl.col("is_old") | (pl.col("end_time") >= pl.col("turns")))
    count(f"end_time at an age of {OLDEST} or more removed", _true(events, late))
    if times.whole_years:
        count("birth put at whole years of age", _true(events, _is_birth & ~unusable & ~repeated & ~pl.col("is_old")))
    gone = (unusable | repeated | early).fill_null(False)
    return (
        events.with_columns(
            time=pl.when(_is_birth).then("born").otherwise("time"),
            end_time=pl.when(~late.fill_null(False)).then("end_time"),
            gone=gone,
        )
        .filter(~pl.col("gone"))
        .drop("gone", *(name for name in places.columns if name != "subject_id"))
    )


def _at_whole_age(birth: pl.Expr, first: pl.Expr) -> pl.Expr:
    """The midnight that lies the whole years, or under two years the whole months, of age before the first event."""
    months = (first.dt.year() - birth.dt.year()) * 12 + first.dt.month().cast(pl.Int32) - birth.dt.month()
    months = (months - (first.dt.day() < birth.dt.day())).clip(0)
    told = pl.when(months < MONTHS_IN_WORDS).then(months).otherwise(months // 12 * 12)
    day = first.dt.date().cast(pl.Datetime("us"))
    return day.dt.offset_by(pl.format("-{}mo", told))


def _shift(times: Times) -> pl.Expr:
    """Days to add to every time of a subject."""
    day = pl.col("day")
    if times.mode == "shift":
        step = 7 if times.weekday else 1
        most = times.window_days // step
        drawn = (day % (2 * most)).cast(pl.Int64) - most
        # Never zero: the upper half is one further up.
        return (drawn + (drawn >= 0)) * step
    first = pl.col("first").dt.date()
    if times.years:
        year = first.dt.year() // times.years * times.years + (pl.col("year") % times.years).cast(pl.Int32)
    else:
        year = pl.lit(YEAR_OF_ALL, pl.Int32)
    start = pl.date(year, 1, 1)
    drawn = (day % DAYS_OF_YEAR).cast(pl.Int64)
    if times.weekday:
        whole_weeks = drawn // 7 * 7
        into_week = (first.dt.weekday().cast(pl.Int64) - start.dt.weekday()) % 7
        drawn = whole_weeks + into_week
        drawn = pl.when(drawn < DAYS_OF_YEAR).then(drawn).otherwise(drawn - 7)
    return (start - first).dt.total_days() + drawn


def _true(events: pl.DataFrame, mask: pl.Expr) -> int:
    return int(events.select(mask.fill_null(False).sum()).item())

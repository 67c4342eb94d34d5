"""What a patient's record amounts to: visits, codes a visit, age at its end, sex, death, and measured values."""

from __future__ import annotations

import polars as pl

from ehrsim import codes
from ehrsim.events import DESCRIPTION

DAYS_PER_YEAR = 365.25
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NOT_IN_VISITS = (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)
VISIT_MARKS = "^VISIT_(START|END|TYPE)//"
"""A pattern of the codes that mark a visit and are not in it."""


def years(duration: pl.Expr) -> pl.Expr:
    """A duration in years of 365.25 days."""
    return duration.dt.total_microseconds() / (DAYS_PER_YEAR * 86_400e6)


def records(events: pl.LazyFrame) -> pl.DataFrame:
    """One row a patient: subject_id, sex (null if unknown), age in years at the last event, whether died, visits."""
    born = pl.col("time").filter(pl.col("code") == codes.BIRTH).min()
    sex = pl.col("code").filter(pl.col("code").str.starts_with("GENDER//")).min().str.strip_prefix("GENDER//")
    lives = events.group_by("subject_id").agg(
        sex=sex, age=years(pl.col("time").max() - born), died=(pl.col("code") == codes.DEATH).any()
    )
    counted = visits(events).group_by("subject_id").agg(visits=pl.len().cast(pl.Int64))
    joined = lives.join(counted, on="subject_id", how="left").with_columns(pl.col("visits").fill_null(0))
    return joined.sort("subject_id").collect()


def visit_codes(events: pl.LazyFrame) -> pl.LazyFrame:
    """One row a code of a visit: subject, the visit's id or, for events without one, their day, its start, the code.

    The marks of a visit (its start, end and type) are not counted among its codes.
    """
    visit = ("subject_id", "visit_id", "day")
    return (
        visit_events(events)
        .with_columns(start=pl.col("time").min().over(visit))
        .filter(~pl.col("code").str.contains(VISIT_MARKS))
        .select(*visit, "start", "code")
        .unique()
    )


def visits(events: pl.LazyFrame) -> pl.LazyFrame:
    """One row a visit: its subject, its id or, for events without one, their day, and its number of distinct codes.

    The marks of a visit (its start, end and type) are not counted among its codes.
    """
    content = pl.col("code").filter(~pl.col("code").str.contains(VISIT_MARKS)).n_unique().cast(pl.Int64)
    return visit_events(events).group_by("subject_id", "visit_id", "day").agg(codes=content)


def visit_events(events: pl.LazyFrame) -> pl.LazyFrame:
    """The events of visits, with `visit_id` or, where that is null, the `day` that tells the visit.

    What is dated before the start of its visit, as a condition known for years, did not happen in it but on its day.
    """
    start = pl.col("time").filter(pl.col("code").str.starts_with("VISIT_START//")).min().over("subject_id", "visit_id")
    inside = events.filter(pl.col("time").is_not_null() & ~pl.col("code").is_in(_NOT_IN_VISITS))
    outside = pl.col("visit_id").is_null() | (pl.col("time") < start).fill_null(False)
    return inside.with_columns(
        visit_id=pl.when(~outside).then("visit_id"), day=pl.when(outside).then(pl.col("time").dt.date())
    )


def codes_per_visit(events: pl.LazyFrame) -> pl.DataFrame:
    """How many `visits` have how many distinct `codes`."""
    return visits(events).group_by("codes").agg(visits=pl.len().cast(pl.Int64)).sort("codes").collect()


def value_quantiles(events: pl.LazyFrame) -> pl.DataFrame:
    """The distribution of every code that has numeric values, in the unit that most of its values have.

    Returns code, unit, description, `values` (their number), `patients`, and q5, q25, q50, q75, q95.
    """
    described = pl.col(DESCRIPTION) if DESCRIPTION in events.collect_schema() else pl.lit(None, pl.String)
    value = pl.col("numeric_value")
    measured = events.filter(value.is_finite()).group_by("code", "unit")
    distributions = measured.agg(
        described.drop_nulls().min().alias(DESCRIPTION),
        values=pl.len().cast(pl.Int64),
        patients=pl.col("subject_id").n_unique().cast(pl.Int64),
        **{f"q{quantile * 100:.0f}": value.cast(pl.Float64).quantile(quantile, "linear") for quantile in QUANTILES},
    )
    ordered = distributions.sort(["code", "values", "unit"], descending=[False, True, False])
    return ordered.unique("code", keep="first", maintain_order=True).collect()

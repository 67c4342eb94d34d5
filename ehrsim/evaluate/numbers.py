"""Numbers of a record: visits, codes a visit, gaps, stays and ages, and how far their distributions are apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.evaluate.records import VISIT_MARKS, records, visit_codes, visit_events, years
from ehrsim.evaluate.resampling import Floats, Indices, block_of, subjects

DAY, HOUR = 86_400e6, 3_600e6
"""In microseconds."""


class Sample(NamedTuple):
    """Values, each of a patient."""

    values: Floats
    patient: Indices
    """The place of the patient of each value in `subjects`."""


def sample(everyone: pl.Series, table: pl.DataFrame, column: str) -> Sample:
    """A column of a table with a row a value and a `subject_id` of `everyone`, without nulls and what is not finite."""
    kept = table.select("subject_id", pl.col(column).cast(pl.Float64)).filter(pl.col(column).is_finite())
    places = everyone.search_sorted(kept["subject_id"]).to_numpy().astype(np.int64)
    return Sample(kept[column].to_numpy(), places)


def numbers(events: pl.LazyFrame) -> dict[str, Sample]:
    """The numbers of the records of a cohort, empty where nothing is known of one.

    They are visits a patient; codes a visit; the log of one more than the days from the start of a visit to the start
    of the next; days from the start of a visit to its end, where both are marked or the start has an end; the log of
    one more than the hours from the start of a visit to a code in it, and from a code to the same code again later in
    the visit; age in years at every event of a visit, and at the last event, where a birth is known.
    """
    key = ("subject_id", "start", "visit_id", "day")
    visits = visit_codes(events).group_by(key).agg(codes=pl.len()).sort(key).collect()
    first = pl.col("subject_id").ne_missing(pl.col("subject_id").shift(1))
    days = (pl.col("start") - pl.col("start").shift(1)).dt.total_microseconds() / DAY
    visits = visits.with_columns(gap=pl.when(~first).then(days.log1p()))
    everyone = subjects(events)
    inside = within_visits(events)
    tables = {
        "visits_per_patient": (records(events), "visits"),
        "codes_per_visit": (visits, "codes"),
        "log_gap": (visits, "gap"),
        "days_of_stay": (stays(events), "days"),
        "log_hours_into_stay": (inside, "since_start"),
        "log_hours_to_same_code": (inside, "since_same"),
        "age_at_event": (ages(events), "age"),
        "age_at_end": (records(events), "age"),
    }
    return {name: sample(everyone, table, column) for name, (table, column) in tables.items()}


def stays(events: pl.LazyFrame) -> pl.DataFrame:
    """A row a visit with a start and an end: subject_id and `days` between them."""
    kind = pl.col("code").str.extract("^(VISIT_START|VISIT_END)//", 1)
    start = pl.col("time").filter(kind == "VISIT_START").min()
    end = pl.coalesce(
        pl.col("time").filter(kind == "VISIT_END").max(), pl.col("end_time").filter(kind == "VISIT_START").max()
    )
    marks = events.filter(kind.is_not_null() & pl.col("visit_id").is_not_null())
    found = marks.group_by("subject_id", "visit_id").agg(days=(end - start).dt.total_microseconds() / DAY)
    return found.filter(pl.col("days").is_not_null()).sort("subject_id", "visit_id").collect()


def within_visits(events: pl.LazyFrame) -> pl.DataFrame:
    """A row a code of a visit at a moment: subject_id, and the log of one more than the hours since two others.

    They are those `since_start`, of the visit, and `since_same`, the moment before at which the visit had the code.
    """
    visit = ("subject_id", "visit_id")
    # Codes as numbers: only whether they are the same matters, and numbers sort faster.
    code = pl.col("code").cast(pl.Categorical).to_physical()
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in (*visit, "code"))
    moments = (
        visit_events(events)
        .filter(pl.col("visit_id").is_not_null())
        .with_columns(start=pl.col("time").min().over(visit))
        .filter(~pl.col("code").str.contains(VISIT_MARKS))
        .select(*visit, "start", code, "time")
        .unique()
        .sort(*visit, "code", "time")
        .with_columns(before=pl.when(same).then(pl.col("time").shift(1)))
    )
    hours = {
        name: ((pl.col("time") - pl.col(since)).dt.total_microseconds() / HOUR).log1p()
        for name, since in (("since_start", "start"), ("since_same", "before"))
    }
    return moments.select("subject_id", **hours).collect()


def ages(events: pl.LazyFrame) -> pl.DataFrame:
    """A row an event of a visit of a patient with a birth: subject_id and `age` in years."""
    births = events.filter(pl.col("code") == codes.BIRTH).group_by("subject_id").agg(born=pl.col("time").min())
    found = visit_events(events).join(births, on="subject_id")
    return found.select("subject_id", age=years(pl.col("time") - pl.col("born"))).collect()


def spread(values: Floats) -> float:
    """The interquartile range; the standard deviation where that is nought; 1 where all values are equal."""
    if not len(values):
        return 1.0
    return float(np.subtract(*np.quantile(values, [0.75, 0.25]))) or float(values.std()) or 1.0


def wasserstein(real: Sample, other: Sample, real_weights: Floats, weights: Floats) -> Floats:
    """(rows,) the Wasserstein distance of two samples in interquartile ranges of the first, by row of weights.

    In one dimension it is the area between the distribution functions (Vallender 1974, Theory of Probability and Its
    Applications 18:784). `real_weights` and `weights` (rows, blocks) count each block of patients so often; a sample
    without values, or without any of weight, gives NaN. The first row is exact; in the others, of which only the spread
    matters, values stand at the next of `_FINE` quantiles if there are more.
    """
    if not len(real.values) or not len(other.values):
        return np.full(len(weights), np.nan)
    grid, place = np.unique(np.concatenate([real.values, other.values]), return_inverse=True)
    scale, split = spread(real.values), len(real.values)
    owners = block_of(real.patient), block_of(other.patient)
    rows = [real_weights, weights]
    found = _areas(grid, (place[:split], place[split:]), owners, [each[:1] for each in rows])
    if len(weights) > 1:
        if len(grid) > _FINE:
            grid = np.unique(np.quantile(grid, np.linspace(0, 1, _FINE), method="higher"))
            place = np.searchsorted(grid, np.concatenate([real.values, other.values]))
        drawn = _areas(grid, (place[:split], place[split:]), owners, [each[1:] for each in rows])
        found = np.concatenate([found, drawn])
    return found / scale


_FINE = 4_096


def _areas(
    grid: Floats, places: tuple[Indices, Indices], owners: tuple[Indices, Indices], rows: list[Floats]
) -> Floats:
    """(rows,) the area between the distribution functions of two samples of values on a grid."""
    functions = []
    for where, owner, weights in zip(places, owners, rows, strict=True):
        if len(weights) == 1:
            counted = np.bincount(where, weights[0][owner], len(grid)).astype(np.float64)[None]
        else:
            size = weights.shape[1]
            by_block = np.bincount(owner * len(grid) + where, minlength=size * len(grid)).reshape(size, -1)
            counted = weights @ by_block
        below = counted.cumsum(axis=1)
        total = below[:, -1:]
        functions.append(np.where(total > 0, below / np.where(total > 0, total, 1.0), np.nan)[:, :-1])
    return np.asarray(np.abs(functions[0] - functions[1]) @ np.diff(grid))

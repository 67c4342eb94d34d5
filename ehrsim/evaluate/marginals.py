"""A generator that knows only how common everything is: what every metric that deserves the name must catch.

It takes real records apart. Visits go to any patient, by chance in proportion to the time that is known of each, on any
day of it; what happens in visits goes to any visit; who dies, and who is of which sex, is dealt out anew. Each code,
value, length of stay, sex and death is as common as it was, and nothing is left of what goes with what.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.evaluate.records import VISIT_MARKS, visit_events

DAY = 86_400_000_000
"""In microseconds."""


def marginal(table: pl.LazyFrame, seed: int = 0) -> pl.DataFrame:
    """The events of a cohort with as many patients, visits and events, drawn from what is common in `table`."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    frame = table.collect()
    inside = visit_events(frame.lazy()).collect()
    closing = pl.col("code").is_in((codes.DEATH, codes.OBSERVATION_END))
    static = pl.col("time").is_null()
    parts = [
        frame.filter(pl.col("code") == codes.BIRTH, ~static),
        _facts(frame.filter(static), frame["subject_id"].unique().sort(), rng),
        _endings(frame.filter(closing, ~static), frame, rng),
        _visits(inside, frame.columns, rng),
    ]
    dealt = pl.concat([part.select(frame.columns) for part in parts])
    return dealt.sort("subject_id", "time", "visit_id", "code", maintain_order=True)


def _facts(static: pl.DataFrame, everyone: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    """What has no time, as sex, of each patient given to another."""
    other = pl.DataFrame({"subject_id": everyone, "other": everyone.gather(rng.permutation(len(everyone)))})
    moved = static.join(other, on="subject_id", how="left", maintain_order="left")
    return moved.with_columns(subject_id=pl.col("other")).drop("other")


def _endings(closings: pl.DataFrame, frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Every record ends when it ended; which of them with a death is left to chance."""
    ends = frame.group_by("subject_id").agg(pl.col("time").max()).sort("subject_id")
    died = closings.filter(pl.col("code") == codes.DEATH)["subject_id"].unique()
    closed = closings["subject_id"].unique()
    known = ends.with_columns(
        code=pl.when(pl.col("subject_id").is_in(died.implode()))
        .then(pl.lit(codes.DEATH))
        .when(pl.col("subject_id").is_in(closed.implode()))
        .then(pl.lit(codes.OBSERVATION_END))
    )
    dealt = known.with_columns(code=known["code"].gather(rng.permutation(known.height))).drop_nulls()
    blank = {name: pl.lit(None, dtype) for name, dtype in frame.schema.items() if name not in dealt.columns}
    return dealt.with_columns(**blank)


def _visits(inside: pl.DataFrame, columns: list[str], rng: np.random.Generator) -> pl.DataFrame:
    """Visits of any patient on any day, holding anything."""
    key = ["subject_id", "visit_id", "day"]
    rows = inside.sort(*key, "time", maintain_order=True)
    if rows.is_empty():
        return rows.select(columns)
    number = rows.select(pl.struct(key).rle_id()).to_series().to_numpy()
    first = np.flatnonzero(np.diff(number, prepend=-1))
    moment = rows["time"].to_physical().to_numpy()
    owner = rows["subject_id"].to_numpy()[first]
    begin = np.minimum.reduceat(moment, first)
    # The time that is known of each patient: from the day of the first visit to that of the last.
    patients, place = np.unique(owner, return_inverse=True)
    low, high = np.full(len(patients), np.iinfo(np.int64).max), np.full(len(patients), np.iinfo(np.int64).min)
    np.minimum.at(low, place, begin // DAY)
    np.maximum.at(high, place, begin // DAY)
    days = high - low + 1
    to = rng.choice(len(patients), size=len(first), p=days / days.sum())
    shift = (low[to] + np.floor(rng.random(len(first)) * days[to]).astype(np.int64) - begin // DAY) * DAY
    moved = rows.with_columns(
        subject_id=pl.Series(patients[to][number]),
        time=pl.Series(moment + shift[number]).cast(pl.Datetime("us")),
        lasting=pl.col("end_time") - pl.col("time"),
        visit_id=pl.when(pl.col("visit_id").is_not_null()).then(pl.Series(number.astype(np.int64) + 1)),
    )
    mark = moved["code"].str.contains(VISIT_MARKS)
    marks, content = moved.filter(mark), moved.filter(~mark)
    place_of = ["subject_id", "time", "visit_id"]
    dealt = content.drop(place_of)[rng.permutation(content.height)]
    whole = pl.concat([content.select(place_of), dealt], how="horizontal").select(moved.columns)
    return pl.concat([marks, whole]).with_columns(end_time=pl.col("time") + pl.col("lasting")).select(columns)

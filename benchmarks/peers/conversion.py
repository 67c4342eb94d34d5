"""Events to exchange tables and back: what these do not say is lost, alike for real and simulated patients.

Lost are measured values, static facts but sex, times within a visit and its end, deaths, and codes and visit types that
fewer than 11 training patients have.
"""

from __future__ import annotations

from pathlib import Path

import exchange
import polars as pl

from ehrsim import codes
from ehrsim.evaluate.records import visit_codes
from ehrsim.events import event_writer, sort
from ehrsim.events.table import conform

VISIT, SEX = "VISIT_START//", "GENDER//"


def known(events: pl.LazyFrame, least: int) -> pl.Series:
    """The codes of visits and of their starts that at least so many patients have."""
    carried = pl.concat([
        visit_codes(events).select("subject_id", "code"),
        events.filter(pl.col("code").str.starts_with(VISIT)).select("subject_id", "code"),
    ]).group_by("code")  # fmt: skip
    counted = carried.agg(patients=pl.col("subject_id").n_unique()).filter(pl.col("patients") >= least)
    return counted.sort("code").collect()["code"]


def exchanged(events: pl.LazyFrame, vocabulary: pl.Series) -> pl.DataFrame:
    """The exchange table of the patients who have a visit with a code of the vocabulary, in order of their ids."""
    key = ("subject_id", "visit_id", "day")
    told = events.filter(pl.col("code").is_in(vocabulary.implode()))
    types = (
        told.filter(pl.col("code").str.starts_with(VISIT) & pl.col("visit_id").is_not_null())
        .group_by("subject_id", "visit_id")
        .agg(type=pl.col("code").min().str.strip_prefix(VISIT))
    )
    inside = visit_codes(events).filter(pl.col("code").is_in(vocabulary.implode()))
    visits = inside.group_by(*key, "start").agg(codes=pl.col("code").sort())
    visits = visits.join(types, on=["subject_id", "visit_id"], how="left").sort(
        "subject_id", "start", "visit_id", "day"
    )
    visit = pl.struct(pl.col("start").dt.date(), "type", "codes")
    lives = visits.group_by("subject_id", maintain_order=True).agg(visits=visit)
    facts = events.group_by("subject_id").agg(
        birth=pl.col("time").filter(pl.col("code") == codes.BIRTH).min().dt.date(),
        sex=pl.col("code").filter(pl.col("code").str.starts_with(SEX)).min().str.strip_prefix(SEX),
    )
    joined = lives.join(facts, on="subject_id", how="left").sort("subject_id")
    return joined.select(list(exchange.SCHEMA)).cast(dict(exchange.SCHEMA)).collect()


def as_events(table: pl.DataFrame, first: int = 1) -> pl.DataFrame:
    """The event table of an exchange table, in canonical order; patients are numbered from `first`."""
    numbered = table.with_row_index("subject_id", offset=first).cast({"subject_id": pl.Int64})
    visits = numbered.select("subject_id", "visits").explode("visits").unnest("visits")
    visits = visits.with_columns(visit_id=pl.int_range(1, pl.len() + 1).over("subject_id")).rename({"start": "time"})
    parts = [
        numbered.select("subject_id", time=pl.col("birth"), code=pl.lit(codes.BIRTH)).drop_nulls("time"),
        numbered.select("subject_id", time=pl.lit(None, pl.Date), code=SEX + pl.col("sex")).drop_nulls("code"),
        visits.select("subject_id", "time", "visit_id", code=VISIT + pl.col("type")).drop_nulls("code"),
        visits.explode("codes").select("subject_id", "time", "visit_id", code=pl.col("codes")),
    ]
    return sort(conform(pl.concat(parts, how="diagonal")).lazy()).collect()


def write_folder(tables: dict[str, pl.DataFrame], folder: Path) -> None:
    """A MEDS folder of exchange tables, one a split."""
    first = 1
    with event_writer(folder, {"dataset_name": "peers"}) as writer:
        for split, table in tables.items():
            writer.write(as_events(table, first), split)
            first += table.height

"""What the events say and OMOP's tables do not carry: counted by reason, so that nothing is left out in silence."""

from __future__ import annotations

from datetime import time

import polars as pl

from ehrsim.groups import example
from ehrsim.omop.codebook import FOLLOW_UP_END, SOURCE_VALUE_LENGTH
from ehrsim.omop.facts import STRING_LENGTH
from ehrsim.table_report import TableReport

_COLUMNS = {"time": "time", "end_time": "end time", "numeric_value": "numeric value", "text_value": "text"}
_COLUMNS |= {"unit": "unit", "visit_id": "visit"}
_CARRIED = {
    "birth": {"time"},
    "death": {"time"},
    FOLLOW_UP_END: {"time"},
    "gender": set(),
    "race": set(),
    "ethnicity": set(),
    "visit_start": {"time", "visit_id"},
    "visit_end": {"time", "visit_id", "text_value"},
    "condition_occurrence": {"time", "visit_id", "end_time", "text_value"},
    "procedure_occurrence": {"time", "visit_id", "end_time", "text_value"},
    "device_exposure": {"time", "visit_id", "end_time"},
    "drug_exposure": {"time", "visit_id", "end_time", "numeric_value", "text_value", "unit"},
    "measurement": {"time", "visit_id", "numeric_value", "text_value", "unit"},
    "observation": {"time", "visit_id", "numeric_value", "text_value", "unit"},
}
"""Columns of events for which each place has a column."""
_LENGTHS = {
    "condition_occurrence": SOURCE_VALUE_LENGTH,
    "procedure_occurrence": SOURCE_VALUE_LENGTH,
    "measurement": SOURCE_VALUE_LENGTH,
    "visit_end": SOURCE_VALUE_LENGTH,
    "observation": STRING_LENGTH,
}
"""The most characters of a text in each place."""


def count_losses(rows: pl.DataFrame, visits: pl.DataFrame, report: TableReport) -> None:
    """Count in `report` what of placed events their tables do not carry, or carry altered."""
    for (reason,), lost in rows.filter(pl.col("lost").is_not_null()).group_by("lost", maintain_order=True):
        report.omit(str(reason), lost.height, example(lost))
    place = pl.coalesce(pl.col("table").cast(pl.String), pl.col("kind").cast(pl.String))
    kept = rows.filter(pl.col("lost").is_null()).with_columns(place=place)
    _count_columns(kept, report)
    _count_lengths(kept, report)
    _count_times(kept, report)
    _count_visits(visits, report)


def _count_columns(kept: pl.DataFrame, report: TableReport) -> None:
    filled = kept.group_by("place").agg(pl.col(name).count() for name in _COLUMNS).sort("place")
    for place, *counts in filled.iter_rows():
        for (column, name), count in zip(_COLUMNS.items(), counts, strict=True):
            if count and column not in _CARRIED[place]:
                first = kept.filter((pl.col("place") == place) & pl.col(column).is_not_null()).head(1)
                report.omit(f"{name} of {place.replace('_', ' ')}", count, example(first))


def _count_lengths(kept: pl.DataFrame, report: TableReport) -> None:
    limit = pl.col("place").replace_strict(_LENGTHS, default=None, return_dtype=pl.Int64)
    texts = kept.filter(pl.col("text_value").str.len_chars() > SOURCE_VALUE_LENGTH)
    long = texts.filter(pl.col("text_value").str.len_chars() > limit)
    notes = pl.col("place") == "observation"
    _change(report, f"text cut to {STRING_LENGTH} characters, whole in a note", long.filter(notes))
    _change(report, f"text cut to {SOURCE_VALUE_LENGTH} characters", long.filter(~notes))
    long_units = kept.filter(pl.col("unit").str.len_chars() > SOURCE_VALUE_LENGTH)
    _change(report, f"unit cut to {SOURCE_VALUE_LENGTH} characters", long_units)
    _change(report, f"code cut to {SOURCE_VALUE_LENGTH} characters", kept.filter("cut"))
    _change(report, "code system with a name of more than 20 characters shortened", kept.filter("renamed"))


def _count_times(kept: pl.DataFrame, report: TableReport) -> None:
    is_fact = pl.col("table").is_not_null() & ~pl.col("kind").is_in(("marital", "language"))
    undated = kept.filter(is_fact & pl.col("time").is_null())
    _change(report, "event without a time, dated at the start of the record", undated)
    endless = kept.filter((pl.col("table") == "drug_exposure") & pl.col("end_time").is_null())
    _change(report, "drug without an end, ends on the day it begins", endless)
    ends = kept.filter((pl.col("kind") == FOLLOW_UP_END) & (pl.col("time").dt.time() != time(23, 59, 59)))
    _change(report, "end of follow-up told by its day", ends)
    known = kept.filter(pl.col("kind") == "birth")["subject_id"]
    people = kept.unique("subject_id", keep="first", maintain_order=True)
    unborn = people.filter(~pl.col("subject_id").is_in(known.implode()))
    report.change("person without a birth, year of birth 0", unborn.height, _subject(unborn))


def _count_visits(visits: pl.DataFrame, report: TableReport) -> None:
    for reason, mask in {
        "visit without a start, from its first event": pl.col("start_time").is_null(),
        "visit without an end, until its last event": pl.col("end_time").is_null(),
        "visit that ends before its start, until its last event": pl.col("backwards"),
        "end of a visit called like its start": pl.col("start_class") != pl.col("end_class"),
        "visit numbered anew": pl.col("visit_id").is_null() | (pl.col("visit_id") != pl.col("visit_occurrence_id")),
    }.items():
        found = visits.filter(mask)
        report.change(reason, found.height, _subject(found))


def _change(report: TableReport, reason: str, rows: pl.DataFrame) -> None:
    report.change(reason, rows.height, example(rows) if rows.height else "")


def _subject(rows: pl.DataFrame) -> str:
    if rows.is_empty():
        return ""
    number = rows["visit_id"][0] if "visit_occurrence_id" in rows.columns else None
    return f"subject_id {rows['subject_id'][0]}" + (f", visit_id {number}" if number is not None else "")

"""Defects of event tables: all of them at once, counted, with the first of each in words."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from ehrsim import codes
from ehrsim.events.table import COLUMNS, EARLIEST_YEAR, LATEST_YEAR

_code, _time, _subject = pl.col("code"), pl.col("time"), pl.col("subject_id")
_birth, _death = (_time.filter(_code == code).min().over("subject_id").dt.date() for code in (codes.BIRTH, codes.DEATH))
_first_of_its_code = pl.struct("subject_id", "code").is_first_distinct()
_same_subject_as_before = _subject.eq_missing(_subject.shift())

CHECKS: dict[str, pl.Expr] = {
    "subject_id is null": _subject.is_null(),
    "code is null or empty": _code.is_null() | (_code.str.len_bytes() == 0),
    "code has leading or trailing space": _code != _code.str.strip_chars(),
    f"time outside {EARLIEST_YEAR}-{LATEST_YEAR}": ~_time.dt.year().is_between(EARLIEST_YEAR, LATEST_YEAR),
    "end before start": pl.col("end_time") < _time,
    "numeric value is NaN or infinite": ~pl.col("numeric_value").is_finite(),
    "unit missing where the code has one elsewhere": pl.col("numeric_value").is_not_null()
    & pl.col("unit").is_null()
    & pl.col("unit").is_not_null().any().over("code"),
    "event before birth": _time.dt.date() < _birth,
    "event after death": _time.dt.date() > _death,
    "more than one birth": (_code == codes.BIRTH) & ~_first_of_its_code,
    "more than one death": (_code == codes.DEATH) & ~_first_of_its_code,
    "subject in two places": ~_same_subject_as_before & ~_subject.is_first_distinct(),
    "time runs backwards": (_time < _time.shift()) & _same_subject_as_before,
    "duplicate row": ~pl.struct(COLUMNS).is_first_distinct(),
}
"""What `validate` looks for: the name of a defect, and where a row has it (null: it has not)."""


class Problem(NamedTuple):
    """One kind of defect in an event table: its name, how many rows have it and the first of them in words."""

    name: str
    rows: int
    example: str


def validate(events: pl.LazyFrame) -> list[Problem]:
    """Every kind of defect in a table with its count and first example; an empty list means a valid table.

    Errors of the table itself (nulls, out-of-range times, ends before starts …) and oddities of its content (events
    before birth or after death, duplicate rows, missing units) are told alike: real data has them, and the reader
    decides.
    """
    frame = events.with_row_index("row").collect()
    problems = []
    for name, failed in CHECKS.items():
        rows = frame.filter(failed.fill_null(False))
        if rows.height:
            problems.append(Problem(name, rows.height, _describe(rows.row(0, named=True))))
    return problems


def _describe(row: dict[str, object]) -> str:
    shown = {
        key: row[key] for key in ("subject_id", "time", "code", "numeric_value", "end_time") if row[key] is not None
    }
    return f"row {row['row']}: " + ", ".join(f"{key} {value}" for key, value in shown.items())

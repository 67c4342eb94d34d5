"""One canonical form for events from every source: UCUM units, finite values, plausible times, short codes.

What is changed or left out is counted in the report, never done silently.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from ehrsim import codes
from ehrsim.events import EARLIEST_YEAR, LATEST_YEAR
from ehrsim.importers.report import ImportReport

LONGEST_CODE = 200
LONGEST_TEXT = 4000


def canonical(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """The events of `frame` (full schema) in canonical form; rows that cannot be kept are counted in `report`."""
    frame = _drop(frame, pl.col("subject_id").is_null(), "no subject id", report)
    frame = _drop(frame, pl.col("code").is_null() | (pl.col("code").str.strip_chars() == ""), "no code", report)
    frame = _drop(frame, _out_of_range("time"), f"time outside {EARLIEST_YEAR}-{LATEST_YEAR}", report)
    ends = _out_of_range("end_time")
    frame = _null(frame, "end_time", ends, f"end time outside {EARLIEST_YEAR}-{LATEST_YEAR} removed", report)
    backwards = pl.col("end_time") < pl.col("time")
    frame = _null(frame, "end_time", backwards, "end time before start removed", report)
    infinite = ~pl.col("numeric_value").is_finite()
    frame = _null(frame, "numeric_value", infinite, "NaN or infinite value removed", report)
    frame = _null(frame, "text_value", pl.col("text_value").str.strip_chars() == "", "empty text removed", report)
    frame = _shorten(frame, "text_value", LONGEST_TEXT, report)
    frame = _shorten(frame, "code", LONGEST_CODE, report)
    return _units(_codes(frame, report), report)


def _out_of_range(column: str) -> pl.Expr:
    return ~pl.col(column).dt.year().is_between(EARLIEST_YEAR, LATEST_YEAR)


def _drop(frame: pl.DataFrame, failed: pl.Expr, reason: str, report: ImportReport) -> pl.DataFrame:
    mask = frame.select(failed.fill_null(False)).to_series()
    if not mask.any():
        return frame
    report.skip(reason, int(mask.sum()), _example(frame.filter(mask)))
    return frame.filter(~mask)


def _null(frame: pl.DataFrame, column: str, failed: pl.Expr, reason: str, report: ImportReport) -> pl.DataFrame:
    mask = frame.select(failed.fill_null(False)).to_series()
    if not mask.any():
        return frame
    report.change(reason, int(mask.sum()), _example(frame.filter(mask)))
    return frame.with_columns(pl.when(mask).then(None).otherwise(pl.col(column)).alias(column))


def _shorten(frame: pl.DataFrame, column: str, length: int, report: ImportReport) -> pl.DataFrame:
    mask = (frame[column].str.len_chars() > length).fill_null(False)
    if not mask.any():
        return frame
    report.change(f"{column} cut to {length} characters", int(mask.sum()), _example(frame.filter(mask)))
    return frame.with_columns(pl.col(column).str.slice(0, length))


def _units(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Common spellings to UCUM."""
    return _replace(frame, "unit", codes.ucum, "unit respelled in UCUM", report)


def _codes(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Codes without surrounding space, and without a kind prefix that says nothing new."""
    return _replace(frame, "code", _canonical_code, "code brought to canonical form", report)


def _canonical_code(code: str) -> str:
    return codes.join(*codes.parse(code.strip()))


def _replace(
    frame: pl.DataFrame, column: str, respell: Callable[[str], str], reason: str, report: ImportReport
) -> pl.DataFrame:
    unique = frame[column].drop_nulls().unique().to_list()
    respelled = {old: new for old in unique if (new := respell(old) or None) != old}
    if not respelled:
        return frame
    touched = frame[column].is_in(list(respelled))
    report.change(reason, int(touched.sum()), next(f"`{old}` to `{new}`" for old, new in respelled.items()))
    return frame.with_columns(pl.col(column).replace(respelled))


def _example(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    return ", ".join(
        f"{key} {row[key]}" for key in ("subject_id", "time", "code", "numeric_value") if row[key] is not None
    )

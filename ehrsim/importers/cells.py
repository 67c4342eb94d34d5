"""Cells of source tables to the types of events, counting every cell and row that does not have its type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import polars as pl

from ehrsim import events
from ehrsim.importers.report import ImportReport

CellType = Literal["text", "integer", "number", "time", "identifier"]
_CALLED = {
    "text": "a text",
    "integer": "a whole number",
    "number": "a number",
    "time": "a date or time",
    "identifier": "an identifier",
}
_PLAIN_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")
_OTHER_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y%m%d")
_ZONE = r"(:\d{2}(?:\.\d+)?)\s*(?:Z|[+-]\d{2}:?\d{2})$"
_LARGEST_EXACT = float(1 << 53)


def typed(
    frame: pl.DataFrame,
    types: Mapping[str, CellType],
    report: ImportReport,
    source: str,
    required: Collection[str] = (),
    *,
    time_format: str | None = None,
) -> pl.DataFrame:
    """Give columns of `frame` their types.

    A row without one of the `required` cells is left out and counted; another cell without its type becomes null and
    is counted. `source` names the table in the report; `time_format` is the `strptime` format of times, None for ISO
    8601.
    """
    for column, cell_type in types.items():
        cells = frame[column]
        values = convert(cells, cell_type, time_format)
        failed = cells.is_not_null() & values.is_null()
        frame = frame.with_columns(values.alias(column))
        if failed.any():
            what = f"{source}: {column} is not {_CALLED[cell_type]}"
            example = f"`{cells.filter(failed)[0]}`"
            if column in required:
                report.skip(what, int(failed.sum()), example)
            else:
                report.change(f"{what}, removed", int(failed.sum()), example)
        if column in required:
            report.skip(f"{source}: no {column}", int(cells.is_null().sum()), _row(frame, cells.is_null()))
            frame = frame.filter(values.is_not_null())
    return frame


def keep(frame: pl.DataFrame, condition: pl.Expr, reason: str, report: ImportReport) -> pl.DataFrame:
    """The rows that meet `condition` (null counts as not); the others are counted as skipped."""
    mask = frame.select(condition.fill_null(False).alias("kept"))["kept"]
    if mask.all():
        return frame
    report.skip(reason, int((~mask).sum()), _row(frame, ~mask))
    return frame.filter(mask)


def first_of_each(frame: pl.DataFrame, column: str, report: ImportReport, source: str) -> pl.DataFrame:
    """The first row of each value of `column`; the others are counted as duplicates."""
    repeated = ~frame[column].is_first_distinct()
    report.skip(f"{source}: duplicate {column}, the first kept", int(repeated.sum()), _row(frame, repeated))
    return frame.filter(~repeated)


def convert(cells: pl.Series, cell_type: CellType, time_format: str | None = None) -> pl.Series:
    """The cells in the type named; null where they do not have it. A time is never taken for a number."""
    if cell_type in ("integer", "number") and (cells.dtype.is_temporal() or cells.dtype == pl.Boolean):
        return pl.Series(cells.name, [None], dtype=pl.Int64).new_from_index(0, len(cells))
    match cell_type:
        case "integer":
            return integers(cells)
        case "number":
            return cells.cast(pl.Float64, strict=False)
        case "time":
            return in_calendar(times(cells, time_format))
        case "identifier":
            return identifiers(cells)
        case "text":
            return texts(cells)


def texts(cells: pl.Series) -> pl.Series:
    """Cells as text; whole numbers without a decimal point, even if the column holds floats."""
    if cells.dtype.is_float():
        whole = (cells == cells.floor()) & (cells.abs() < _LARGEST_EXACT)
        plain = cells.cast(pl.Int64, strict=False).cast(pl.String)
        return plain.zip_with(whole.fill_null(False), cells.cast(pl.String))
    return cells.cast(pl.String)


def integers(cells: pl.Series) -> pl.Series:
    """Whole numbers, also those written with a decimal point and zeros (`12.0`)."""
    whole = cells.cast(pl.Int64, strict=False) if not cells.dtype.is_float() else None
    if whole is not None and whole.null_count() == cells.null_count():
        return whole
    decimal = cells.cast(pl.Float64, strict=False)
    exact = ((decimal == decimal.floor()) & (decimal.abs() < _LARGEST_EXACT)).fill_null(False)
    rounded = decimal.zip_with(exact, pl.Series([None], dtype=pl.Float64)).cast(pl.Int64, strict=False)
    return rounded if whole is None else whole.zip_with(whole.is_not_null(), rounded)


def identifiers(cells: pl.Series) -> pl.Series:
    """Subject and visit ids: plain numbers as they are, everything else by `ehrsim.events.stable_id`."""
    names = texts(cells)
    numbers = names.cast(pl.Int64, strict=False)
    plain = ((names == numbers.cast(pl.String)) & (numbers >= 0) & (names.str.len_bytes() <= 18)).fill_null(False)
    others = (~plain & names.is_not_null()).arg_true()
    return numbers if others.is_empty() else numbers.scatter(others, events.stable_id(names.gather(others)))


def times(cells: pl.Series, time_format: str | None = None) -> pl.Series:
    """Times as local wall clock (a zone is dropped): ISO 8601 dates and times, `20010203`, or a `strptime` format."""
    if cells.dtype == pl.Datetime:
        return cells.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    if cells.dtype == pl.Date:
        return cells.cast(pl.Datetime("us"))
    names = texts(cells)
    if time_format is not None:
        return _parse(names, time_format)
    parsed = _first_parsed(names, _PLAIN_FORMATS)
    pending = (parsed.is_null() & names.is_not_null()).arg_true()
    if pending.is_empty():
        return parsed
    # Only what no plain format fits pays for the search of a zone.
    zoneless = names.gather(pending).str.replace("T", " ", literal=True).str.replace(_ZONE, "${1}")
    return parsed.scatter(pending, _first_parsed(zoneless, _OTHER_FORMATS))


def _first_parsed(names: pl.Series, time_formats: tuple[str, ...]) -> pl.Series:
    """Each text by the first of the formats that fits it."""
    parsed = _parse(names, time_formats[0])
    for time_format in time_formats[1:]:
        pending = (parsed.is_null() & names.is_not_null()).arg_true()
        if pending.is_empty():
            break
        parsed = parsed.scatter(pending, _parse(names.gather(pending), time_format))
    return parsed


def in_calendar(moments: pl.Series) -> pl.Series:
    """Times with those outside the years 1 to 9999 null: no calendar in use has them."""
    return moments.zip_with(
        moments.dt.year().is_between(1, 9999).fill_null(False), pl.Series([None], dtype=moments.dtype)
    )


def _parse(names: pl.Series, time_format: str) -> pl.Series:
    has_time = any(directive in time_format for directive in ("%H", "%I", "%T", "%R", "%X", "%s", "%c"))
    if has_time:
        return names.str.to_datetime(time_format, strict=False, time_unit="us").dt.replace_time_zone(None)
    return names.str.to_date(time_format, strict=False).cast(pl.Datetime("us"))


def _row(frame: pl.DataFrame, mask: pl.Series) -> str:
    """The first row under `mask` in a few words."""
    rows = frame.filter(mask)
    if rows.is_empty():
        return ""
    return ", ".join(f"{key} {value}" for key, value in rows.row(0, named=True).items() if value is not None)

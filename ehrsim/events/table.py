"""The columns of the event table, their types and their canonical order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

import polars as pl

from ehrsim import codes
from ehrsim.errors import InputError

SCHEMA: dict[str, pl.DataType] = {
    "subject_id": pl.Int64(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "numeric_value": pl.Float32(),
    "text_value": pl.String(),
    "unit": pl.String(),
    "visit_id": pl.Int64(),
    "end_time": pl.Datetime("us"),
}
DESCRIPTION = "description"
COLUMNS = tuple(SCHEMA)
REQUIRED = ("subject_id", "time", "code")
CODES_SCHEMA: dict[str, pl.DataType] = {
    "code": pl.String(),
    "description": pl.String(),
    "parent_codes": pl.List(pl.String()),
}
EARLIEST_YEAR, LATEST_YEAR = 1800, 2300
"""Times outside these years are placeholders (year 1, 9999) or errors; de-identified calendars reach 2200."""

_FIRST_MOMENT, _LAST_MOMENT = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
"""The calendar of Python and of ISO 8601; times beyond it, which nothing can print, become its bounds."""


def conform(frame: pl.DataFrame, source: str = "the event table") -> pl.DataFrame:
    """Bring a frame with some of the columns to the full schema: missing ones null, types cast, order fixed.

    Raises `InputError`, naming `source`, if a required column is missing or a type cannot be cast without loss.
    """
    try:
        return conform_lazy(frame.lazy(), frame.schema, source).collect()
    except pl.exceptions.InvalidOperationError as error:
        raise InputError(f"{source}: {str(error).strip().splitlines()[0]}") from error


def conform_lazy(frame: pl.LazyFrame, schema: pl.Schema, source: str = "the event table") -> pl.LazyFrame:
    """`conform` for a lazy frame of known `schema`; `source` names it in errors."""
    for column in REQUIRED:
        if column not in schema:
            raise InputError(
                f"{source}: no column `{column}`, found {', '.join(schema)}", hint=f"expected {', '.join(COLUMNS)}"
            )
    for column, expected in {**SCHEMA, DESCRIPTION: pl.String()}.items():
        found = schema.get(column)
        if found is not None and not _castable(found, expected):
            raise InputError(f"{source}: column `{column}` has type {found}, expected {expected}")
    expressions = [
        (_cast(column, schema[column], dtype) if column in schema else pl.lit(None, dtype)).alias(column)
        for column, dtype in SCHEMA.items()
    ]
    if DESCRIPTION in schema:
        expressions.append(pl.col(DESCRIPTION).cast(pl.String))
    return frame.select(expressions)


def _castable(found: pl.DataType, expected: pl.DataType) -> bool:
    if found in (expected, pl.Null):
        return True
    if expected == pl.String:
        return found in (pl.Categorical, pl.Enum, pl.String)
    if expected == pl.Datetime("us"):
        return found in (pl.Datetime, pl.Date)
    if expected == pl.Int64:
        return found.is_integer()
    return found.is_numeric()


def _cast(column: str, found: pl.DataType, expected: pl.DataType) -> pl.Expr:
    expression = pl.col(column)
    if isinstance(found, pl.Date):
        expression = expression.clip(date(1, 1, 1), date(9999, 12, 31))
    if isinstance(found, pl.Datetime):
        if found.time_unit != "ns":
            bounds = (pl.lit(moment, pl.Datetime(found.time_unit)) for moment in (_FIRST_MOMENT, _LAST_MOMENT))
            expression = expression.clip(*(bound.dt.replace_time_zone(found.time_zone) for bound in bounds))
        expression = expression.dt.replace_time_zone(None)
    return expression.cast(expected)


_RANK = (
    pl.when(pl.col("code") == codes.BIRTH)
    .then(pl.lit(0, pl.Int8))
    .when(pl.col("code").str.starts_with("VISIT_START//"))
    .then(pl.lit(1, pl.Int8))
    .when(pl.col("code").str.starts_with("VISIT_END//"))
    .then(pl.lit(3, pl.Int8))
    .when(pl.col("code") == codes.DEATH)
    .then(pl.lit(4, pl.Int8))
    .otherwise(pl.lit(2, pl.Int8))
)


def sort(events: pl.LazyFrame) -> pl.LazyFrame:
    """Canonical order: subject, then time with static facts first, then birth, visit start … visit end, death, code.

    Codes may be of the type `enum_of_codes` and texts and units of Enums in alphabetical order: those sort faster.
    """
    of_code = ["code"] if isinstance(events.collect_schema()["code"], pl.Enum) else [_RANK, "code"]
    keys = ["subject_id", "time", *of_code, "visit_id", "numeric_value", "text_value", "unit", "end_time"]
    return events.sort(keys, nulls_last=False, maintain_order=True)


def enum_of_codes(known: Iterable[str]) -> pl.Enum:
    """A type for a column of `known` codes that is in the order of `sort`."""
    return pl.Enum(pl.DataFrame({"code": list(set(known))}, schema={"code": pl.String}).sort(_RANK, "code")["code"])

"""Events in groups of whole subjects, so that an export of any size takes bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
import polars as pl

from ehrsim import events as event_tables
from ehrsim.errors import InputError
from ehrsim.events import DESCRIPTION, EARLIEST_YEAR, LATEST_YEAR

Events = str | Path | pl.LazyFrame | pl.DataFrame


class Report(Protocol):
    """What an export counts, as far as reading goes."""

    events: int

    def omit(self, reason: str, count: int, example: object = "") -> None:
        """Count what is not in the output."""


class Source(NamedTuple):
    """Where events come from, as tables that each hold whole subjects."""

    tables: list[pl.LazyFrame]
    dataset: dict[str, Any]
    """`metadata/dataset.json` of a MEDS folder, empty for everything else."""
    descriptions: dict[str, str]
    """Displays of codes from `metadata/codes.parquet`."""


class Part(NamedTuple):
    """A range of subjects of one table."""

    table: pl.LazyFrame
    first: int
    last: int
    subjects: int
    ids: pl.Series
    """The subject ids, sorted."""


def open_source(events: Events) -> Source:
    """The source of an export; raises `InputError` where it is not an event table."""
    if isinstance(events, pl.DataFrame):
        events = events.lazy()
    if isinstance(events, pl.LazyFrame):
        return Source([event_tables.conform_lazy(events, events.collect_schema())], {}, {})
    folder = Path(events)
    whole = event_tables.read_events(folder)
    if folder.is_file():
        return Source([whole], {}, {})
    described = event_tables.read_codes(folder).select("code", DESCRIPTION).drop_nulls().unique("code", keep="first")
    shards = sorted((folder / "data").rglob("*.parquet"), key=lambda path: (path.parent, len(path.name), path.name))
    tables = [event_tables.read_events(shard) for shard in shards]
    return Source(tables, _dataset(folder), dict(described.iter_rows()))


def _dataset(folder: Path) -> dict[str, Any]:
    path = folder / "metadata" / "dataset.json"
    if not path.is_file():
        return {}
    try:
        dataset = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(dataset, dict):
        raise InputError(f"{path} holds a {type(dataset).__name__}, expected an object")
    return dataset


def parts(source: Source, events: int, report: Report) -> list[Part]:
    """Cut a source into ranges of subjects with about that many events each.

    Raises `InputError` if there is no event, or if a subject is spread over tables.
    """
    counts = [_subject_counts(table, report) for table in source.tables]
    subjects = np.concatenate([count["subject_id"].to_numpy() for count in counts])
    if not len(subjects):
        raise InputError("there are no events to export")
    tables = source.tables
    if len(np.unique(subjects)) != len(subjects):
        tables = [pl.concat(tables, how="diagonal")]
        counts = [pl.concat(counts).group_by("subject_id").agg(pl.col("events").sum()).sort("subject_id")]
    return [part for table, count in zip(tables, counts, strict=True) for part in _cut(table, count, events)]


def _subject_counts(table: pl.LazyFrame, report: Report) -> pl.DataFrame:
    counted = table.group_by("subject_id").agg(events=pl.len()).collect(engine="streaming").sort("subject_id")
    nameless = counted.filter(pl.col("subject_id").is_null())["events"].sum()
    report.omit("no subject id", int(nameless))
    return counted.filter(pl.col("subject_id").is_not_null())


def _cut(table: pl.LazyFrame, counts: pl.DataFrame, events: int) -> Iterator[Part]:
    number = (counts["events"].cum_sum() - counts["events"]) // events
    for _, group in counts.with_columns(number=number).group_by("number", maintain_order=True):
        ids = group["subject_id"]
        yield Part(table, int(ids[0]), int(ids[-1]), len(ids), ids)


def read(part: Part, report: Report) -> pl.DataFrame:
    """The events of a part, sorted by subject, without what no format can tell; that is counted."""
    frame = part.table.filter(pl.col("subject_id").is_between(part.first, part.last)).collect()
    if not frame["subject_id"].is_sorted():
        frame = event_tables.sort(frame.lazy()).collect()
    report.events += frame.height
    year = f"outside {EARLIEST_YEAR}-{LATEST_YEAR}"
    no_code = pl.col("code").is_null() | _blank("code") | pl.col("code").str.ends_with("//")
    out_of_range = {
        name: ~pl.col(name).dt.year().is_between(EARLIEST_YEAR, LATEST_YEAR) for name in ("time", "end_time")
    }
    dropped = {"no code": no_code, f"time {year}": out_of_range["time"]}
    emptied = {
        f"end time {year}": ("end_time", out_of_range["end_time"]),
        "end time before start": ("end_time", pl.col("end_time") < pl.col("time")),
        "NaN or infinite value": ("numeric_value", ~pl.col("numeric_value").is_finite()),
        "empty text": ("text_value", _blank("text_value")),
        "empty unit": ("unit", _blank("unit")),
    }
    checks = [*dropped.values(), *(check for _, check in emptied.values())]
    if not any(frame.select(check.any().alias(str(number)) for number, check in enumerate(checks)).row(0)):
        return frame
    for reason, check in dropped.items():
        frame = _drop(frame, check, reason, report)
    for reason, (column, check) in emptied.items():
        frame = _null(frame, column, check, reason, report)
    return frame


def _blank(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars() == ""


def _drop(frame: pl.DataFrame, failed: pl.Expr, reason: str, report: Report) -> pl.DataFrame:
    mask = frame.select(failed.fill_null(False)).to_series()
    if not mask.any():
        return frame
    report.omit(reason, int(mask.sum()), example(frame.filter(mask)))
    return frame.filter(~mask)


def _null(frame: pl.DataFrame, column: str, failed: pl.Expr, reason: str, report: Report) -> pl.DataFrame:
    mask = frame.select(failed.fill_null(False)).to_series()
    if not mask.any():
        return frame
    report.omit(reason, int(mask.sum()), example(frame.filter(mask)))
    return frame.with_columns(pl.when(mask).then(None).otherwise(pl.col(column)).alias(column))


def example(rows: pl.DataFrame, row: int = 0) -> str:
    """An event in words, for reports."""
    values = rows.row(row, named=True)
    shown = ("subject_id", "time", "code", "numeric_value", "text_value", "unit", "visit_id", "end_time")
    return ", ".join(f"{name} {values[name]}" for name in shown if values.get(name) is not None)


def descriptions_in(frame: pl.DataFrame, known: dict[str, str]) -> dict[str, str]:
    """The display of every code of a frame that has one: its own, else a known one."""
    if DESCRIPTION not in frame.columns:
        return known
    first = pl.col(DESCRIPTION).drop_nulls().first()
    own = frame.lazy().group_by("code").agg(first).drop_nulls().collect()
    return {**known, **dict(own.iter_rows())}

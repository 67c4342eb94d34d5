"""The verb `export_meds`: events as a MEDS 0.4 data set, in shards of a chosen size, for the tools that read MEDS.

It is the layout in which ehrsim keeps events itself (see `ehrsim.events`). `strict` leaves the columns that the MEDS
schema names and no others: subject_id, time, code, numeric_value, text_value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import polars as pl

from ehrsim import events as event_tables
from ehrsim import groups
from ehrsim.errors import UsageError
from ehrsim.events import DESCRIPTION, SPLITS, EventWriter
from ehrsim.groups import Events, Source
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent
from ehrsim.table_report import TableReport

SHARD_EVENTS = 500_000
Splits = Literal["keep", "hash", "none"]
_EXTRA = {"unit": "unit", "visit_id": "visit", "end_time": "end time"}


def export_meds(
    events: Events,
    out: str | Path,
    *,
    shard: int = SHARD_EVENTS,
    splits: Splits = "keep",
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> TableReport:
    """Write events (a MEDS folder, a Parquet file or a frame) as a MEDS 0.4 data set to the folder `out`.

    A file holds whole subjects, `shard` events or a little more. `splits` are those of the source (`keep`; by a hash of
    the subject where it has none), always those of the hash (`hash`), or `none`: then the files stand in `data/`.
    `metadata/codes.parquet` has the descriptions and parents of codes. `strict` leaves out unit, visit and end time,
    which are counted in the report. Memory is bounded by a shard.

    Raises `InputError` for a source that is no event table, `UsageError` for an unknown option or an existing output.
    """
    if splits not in get_args(Splits):
        raise UsageError(f"unknown splits `{splits}`", hint=f"expected one of {', '.join(get_args(Splits))}")
    if shard < 1:
        raise UsageError(f"shard is {shard}", hint="give the number of events of a file, 1 or more")
    report = TableReport(format="MEDS 0.4" + (", strict" if strict else ""))
    with atomic_directory(Path(out), overwrite=overwrite) as folder:
        source = groups.open_source(events)
        members = _members(events, splits)
        writer = EventWriter(folder)
        parts = groups.parts(source, shard, report)
        total = sum(part.subjects for part in parts)
        for part in parts:
            frame = event_tables.sort(groups.read(part, report).lazy()).collect()
            rows = _strict(frame, report) if strict else frame
            for name, subjects in _by_split(part.ids, members, splits):
                writer.write(rows.filter(pl.col("subject_id").is_in(subjects.implode())), name, strict=strict)
            report.patients += part.subjects
            progress("export", report.patients, total, "patients")
        _finish(writer, source, events)
        report.rows = {"events": writer.events}
    return report


def _members(events: Events, splits: Splits) -> pl.DataFrame | None:
    """(subject_id, split) of a source that has splits, where they are to be kept."""
    if splits != "keep" or not isinstance(events, str | Path) or not Path(events).is_dir():
        return None
    return event_tables.read_splits(Path(events))


def _by_split(subjects: pl.Series, members: pl.DataFrame | None, splits: Splits) -> list[tuple[str | None, pl.Series]]:
    """The subjects of a part by split."""
    if splits == "none":
        return [(None, subjects)]
    hashed = event_tables.split_of(subjects)
    if members is not None:
        ids = pl.DataFrame({"subject_id": subjects, "hashed": hashed})
        joined = ids.join(members, on="subject_id", how="left", maintain_order="left")
        hashed = joined.select(pl.coalesce("split", "hashed")).to_series()
    names = [*SPLITS, *sorted(set(hashed.unique()) - set(SPLITS))]
    return [(name, subjects.filter(hashed == name)) for name in names]


def _strict(frame: pl.DataFrame, report: TableReport) -> pl.DataFrame:
    """The events without the columns that MEDS does not name; what they held is counted."""
    for column, name in _EXTRA.items():
        filled = frame.filter(pl.col(column).is_not_null())
        if filled.height:
            report.omit(f"{name}, for which MEDS has no column", filled.height, groups.example(filled))
    return frame.drop(list(_EXTRA))


def _finish(writer: EventWriter, source: Source, events: Events) -> None:
    """Write the metadata: that of the source, its code table included."""
    if isinstance(events, str | Path) and Path(events).is_dir():
        writer.add_codes([event_tables.read_codes(Path(events))])
    elif source.descriptions:
        table = pl.DataFrame({"code": list(source.descriptions), DESCRIPTION: list(source.descriptions.values())})
        writer.add_codes([table.with_columns(parent_codes=pl.lit(None, pl.List(pl.String)))])
    dataset = {name: value for name, value in source.dataset.items() if isinstance(value, str)}
    writer.finish({"dataset_name": "events", **dataset, "etl_name": "ehrsim export --to meds"})

"""Any tables, by a TOML mapping: the source is the mapping file, and the tables lie relative to it.

    [maps.sexes]
    1 = "male"
    2 = "female"

    [[tables]]
    file = "patients.csv"
    subject_id = "{id}"
    [[tables.events]]
    code = "GENDER//{sex|sexes}"
    static = true

    [[tables]]
    file = "vitals/*.parquet"
    subject_id = "{id}"
    time = "{charted}"
    visit_id = "{stay}"
    [[tables.events]]
    code = "LOINC//8867-4"
    numeric_value = "{heart_rate}"
    unit = "/min"

An event that names a value is made only from rows that have one, so that a wide table makes an event for each filled
cell. The models are in `ehrsim.importers.table_mapping`, their JSON Schema in `schemas/table-mapping.schema.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ehrsim.errors import InputError
from ehrsim.importers import cells, tables
from ehrsim.importers.report import ImportReport
from ehrsim.importers.table_mapping import (
    TIME_UNITS,
    Cell,
    EventMapping,
    Mapping,
    TableMapping,
    Where,
    load_mapping,
    parse_template,
    templates,
    used_columns,
)

Maps = dict[str, dict[str, str]]


def mapping_schema() -> dict[str, Any]:
    """The JSON Schema of a mapping file."""
    return msgspec.json.schema(Mapping)


def recognises(source: Path) -> bool:
    """Whether `source` is a TOML file."""
    return source.suffix.lower() == ".toml" and source.is_file()


def read(source: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events that the mapping file `source` describes, table by table in batches.

    The whole mapping is checked against the tables before the first row is read. Raises `InputError` naming the key,
    the file and the column for anything in it that does not fit.
    """
    if source.is_dir():
        raise InputError(f"{source} is a folder, expected a mapping file", hint="name the TOML file")
    mapping = load_mapping(source)
    files = [_files(source, number, table) for number, table in enumerate(mapping.tables)]
    for number, (table, paths) in enumerate(zip(mapping.tables, files, strict=True)):
        yield from _table_events(table, paths, f"tables[{number}]", mapping.maps, report)


def _files(source: Path, number: int, table: TableMapping) -> list[Path]:
    """The files of a table, each checked to have every column that is used."""
    key = f"{source.name}: tables[{number}]"
    folder = source.parent
    several = any(sign in table.file for sign in "*?[")
    paths = sorted(path for path in folder.glob(table.file) if path.is_file()) if several else [folder / table.file]
    if not paths:
        raise InputError(f"{key}.file: no file matches `{table.file}`", hint="paths are relative to the mapping")
    for path in paths:
        if not path.is_file():
            near = tables.did_you_mean(path.name, [other.name for other in folder.glob("*") if other.is_file()])
            raise InputError(f"{key}.file: {path} does not exist", hint=near or "paths are relative to the mapping")
        header = tables.columns(path, table.separator)
        for place, column in used_columns(table, key):
            if column not in header:
                found = f"column `{column}`, which {path.name} does not have (it has {', '.join(header)})"
                raise InputError(f"{place} names {found}", hint=tables.did_you_mean(column, header))
    return paths


def _table_events(
    table: TableMapping, paths: list[Path], key: str, maps: Maps, report: ImportReport
) -> Iterator[pl.DataFrame]:
    """The events of one table, batch by batch."""
    used = {column: column for _, column in used_columns(table, key)}
    once: dict[int, pl.DataFrame] = {}
    for path in paths:
        place = f"{key} ({path.name})"
        batches = tables.batches(path, used, report, separator=table.separator, null_texts=table.null_values)
        for batch in batches:
            rows = _only(_of_somebody(batch, table, place, maps, report), table.where, place, report)
            for number, event in enumerate(table.events):
                events = _events(rows, event, table, f"{key}.events[{number}] ({path.name})", maps, report)
                if event.static or event.once:
                    events = _new(events, once.get(number), report)
                    once[number] = pl.concat([once[number], events]) if number in once else events
                yield events


def _of_somebody(rows: pl.DataFrame, table: TableMapping, place: str, maps: Maps, report: ImportReport) -> pl.DataFrame:
    """The rows that have a subject."""
    subjects = _evaluate(table.subject_id, rows, maps, place, report)
    return cells.keep(rows, pl.lit(subjects.is_not_null()), f"{place}: no subject_id", report)


def _new(events: pl.DataFrame, before: pl.DataFrame | None, report: ImportReport) -> pl.DataFrame:
    """The events that are not the same as one before."""
    new = events.unique(maintain_order=True)
    if before is not None:
        new = new.join(before, on=new.columns, how="anti", nulls_equal=True, maintain_order="left")
    report.find("repeated static or `once` events, kept once", events.height - new.height)
    return new


def _only(rows: pl.DataFrame, conditions: list[Where], place: str, report: ImportReport) -> pl.DataFrame:
    """The rows that meet every condition; the others are counted."""
    for condition in conditions:
        text = pl.lit(cells.texts(rows[condition.column]))
        if condition.present is not None:
            met = text.is_not_null() == condition.present
        elif condition.equals is not None:
            met = text.is_in(_listed(condition.equals))
        else:
            met = ~text.is_in(_listed(condition.not_equals or [])).fill_null(False)
        rows = cells.keep(rows, met, f"{place}: left out by where on `{condition.column}`", report)
    return rows


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _events(
    rows: pl.DataFrame, event: EventMapping, table: TableMapping, place: str, maps: Maps, report: ImportReport
) -> pl.DataFrame:
    """The events of one kind that a batch of rows makes."""
    rows = _only(rows, event.where, place, report)
    given = templates(event, table)
    raw = {name: _evaluate(template, rows, maps, place, report) for name, template in given.items()}
    frame = pl.DataFrame([series.alias(name) for name, series in raw.items()])
    frame = cells.typed(frame, {"code": "text"}, report, place, required=("code",))
    frame = cells.typed(frame, {"subject_id": "identifier"}, report, place, required=("subject_id",))
    for name in ("time", "end_time"):
        if name in given:
            frame = _timed(frame, name, table, place, report)
    if "numeric_value" in given:
        frame = cells.typed(frame, {"numeric_value": "number"}, report, place)
    valued = [name for name in ("numeric_value", "text_value") if name in given]
    if valued:
        has_value = pl.any_horizontal(pl.col(name).is_not_null() for name in valued)
        frame = cells.keep(frame, has_value, f"{place}: no value", report)
    if "visit_id" in given:
        frame = cells.typed(frame, {"visit_id": "identifier"}, report, place)
    texts = {name: "text" for name in ("text_value", "unit", "description") if name in given}
    frame = frame.with_columns(cells.texts(frame[name]).alias(name) for name in texts)
    return frame if "time" in given else frame.with_columns(time=pl.lit(None, pl.Datetime("us")))


def _evaluate(template: str, rows: pl.DataFrame, maps: Maps, place: str, report: ImportReport) -> pl.Series:
    """The template for each row: a lone column in its own type, else text, null where a cell is empty."""
    parts = parse_template(template, place)
    if len(parts) == 1 and isinstance(parts[0], Cell) and parts[0].map_name is None:
        return rows[parts[0].column]
    pieces: list[pl.Expr] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(pl.lit(part))
            continue
        texts = cells.texts(rows[part.column])
        pieces.append(pl.lit(_mapped(texts, part.map_name, maps, place, report) if part.map_name else texts))
    if all(isinstance(part, str) for part in parts):
        return pl.Series(["".join(map(str, parts))]).new_from_index(0, rows.height)
    return rows.select(pl.concat_str(pieces, ignore_nulls=False).alias("text"))["text"]


def _mapped(texts: pl.Series, map_name: str, maps: Maps, place: str, report: ImportReport) -> pl.Series:
    """Texts through a map; those it does not know become null and are counted."""
    known = {key: value for key, value in maps[map_name].items() if key != "*"}
    default = maps[map_name].get("*")
    mapped = texts.replace_strict(known, default=default, return_dtype=pl.String)
    mapped = mapped.zip_with(texts.is_not_null(), pl.Series([None], dtype=pl.String))
    unknown = texts.filter(mapped.is_null() & texts.is_not_null())
    if len(unknown):
        report.change(f"{place}: value not in map `{map_name}`, taken as empty", len(unknown), f"`{unknown[0]}`")
    return mapped


def _timed(frame: pl.DataFrame, name: str, table: TableMapping, place: str, report: ImportReport) -> pl.DataFrame:
    """Give `time` or `end_time` its type: a number of `time_unit`s since `origin`, or a text in `time_format`."""
    required = ("time",) if name == "time" else ()
    if table.time_unit is not None:
        frame = cells.typed(frame, {name: "number"}, report, place, required=required)
        finite = pl.when(
            pl.col(name).is_finite() & (pl.col(name).abs() < _LONGEST_SECONDS / TIME_UNITS[table.time_unit])
        )
        microseconds = finite.then((pl.col(name) * TIME_UNITS[table.time_unit] * 1e6).round().cast(pl.Int64))
        origin = cells.times(pl.Series([table.origin]))[0]
        moment = pl.lit(origin, pl.Datetime("us")) + microseconds.cast(pl.Duration("us"))
        frame = frame.with_columns(moment.alias(name))
        return (
            cells.keep(frame, pl.col(name).is_not_null(), f"{place}: {name} out of range", report)
            if required
            else frame
        )
    return cells.typed(frame, {name: "time"}, report, place, required=required, time_format=table.time_format)


_LONGEST_SECONDS = 2e11
"""About 6,000 years: longer spans are errors, and would leave the calendar."""

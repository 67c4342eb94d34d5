"""The mapping file of the table importer: its models, how it is read, and its templates.

Every value in it is a template, a text with columns in braces: `LOINC//{loinc}`, `{date} {time}`, `mg/dL`.
`{sex|sexes}` passes the cell through the map `sexes`; `{{` and `}}` are plain braces. A template is empty where one of
its cells is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import polars as pl

from ehrsim.errors import InputError
from ehrsim.importers import cells
from ehrsim.importers.tables import NULL_TEXTS, did_you_mean

Doc = msgspec.Meta
Template = Annotated[str, Doc(description="A text with {columns} or {column|map} in braces; {{ and }} are braces.")]
TIME_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}


class Where(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A condition that rows must meet; exactly one of `equals`, `not_equals` and `present`."""

    column: Annotated[str, Doc(description="The column looked at.")]
    equals: Annotated[str | list[str] | None, Doc(description="The text, or texts, of which the cell is one.")] = None
    not_equals: Annotated[str | list[str] | None, Doc(description="Texts which the cell is not; empty will do.")] = None
    present: Annotated[bool | None, Doc(description="Whether the cell is filled.")] = None


class EventMapping(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One event made from each row; what it does not say is taken from its table."""

    code: Annotated[Template, Doc(description="The code, `[KIND//]SYSTEM//CODE`, such as `LOINC//{loinc}`.")]
    static: Annotated[bool, Doc(description="A fact without a time, such as sex; kept once per subject.")] = False
    once: Annotated[bool, Doc(description="Keep one of events that are the same, as of a birth on every row.")] = False
    time: Template | None = None
    end_time: Template | None = None
    numeric_value: Template | None = None
    text_value: Template | None = None
    unit: Template | None = None
    visit_id: Template | None = None
    description: Template | None = None
    where: list[Where] = []


class TableMapping(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One table: where it lies, whose rows these are and when, and the events each row makes."""

    file: Annotated[str, Doc(description="CSV, gzipped CSV or Parquet, relative to the mapping; `*` for several.")]
    subject_id: Annotated[Template, Doc(description="The subject: a number stays, any other text is hashed to one.")]
    events: Annotated[list[EventMapping], Doc(min_length=1)]
    time: Template | None = None
    time_format: Annotated[str | None, Doc(description="strptime format of times; ISO 8601 if absent.")] = None
    time_unit: Annotated[
        Literal["seconds", "minutes", "hours", "days"] | None, Doc(description="Times are numbers since `origin`.")
    ] = None
    origin: Annotated[str, Doc(description="The moment at which numbered times are 0.")] = "2000-01-01"
    visit_id: Template | None = None
    separator: Annotated[str, Doc(min_length=1, max_length=1, description="Found if absent.")] | None = None
    null_values: Annotated[tuple[str, ...], Doc(description="Texts that mean an empty cell.")] = NULL_TEXTS
    where: list[Where] = []


class Mapping(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How tables become events: a TOML file with `[[tables]]`, each with `[[tables.events]]`, and `[maps.NAME]`."""

    tables: Annotated[list[TableMapping], Doc(min_length=1)]
    maps: Annotated[
        dict[str, dict[str, str]], Doc(description="Named maps from cell to text; key `*` is for all other cells.")
    ] = {}


class Cell(NamedTuple):
    """A column in a template, with the map its cells go through."""

    column: str
    map_name: str | None


_PIECES = re.compile(r"\{\{|\}\}|\{([^{}|]+)(?:\|([^{}|]+))?\}|[{}]|[^{}]+")


def parse_template(template: str, key: str) -> list[str | Cell]:
    """The texts and cells of a template, in order; `key` names it in the `InputError` of one that is malformed.

    >>> parse_template("LOINC//{code}", "code")
    ['LOINC//', Cell(column='code', map_name=None)]
    """
    parts: list[str | Cell] = []
    for piece in _PIECES.finditer(template):
        text = piece.group()
        if text in "{}":
            raise InputError(f"{key}: a lone `{text}` in `{template}`", hint=f"write `{text * 2}` for a plain brace")
        if piece.group(1):
            parts.append(Cell(piece.group(1), piece.group(2)))
        else:
            parts.append(text[0] if text in ("{{", "}}") else text)
    return parts


def load_mapping(path: Path) -> Mapping:
    """Read and check a mapping file; raises `InputError` naming the key that is wrong."""
    try:
        text = path.read_bytes().decode("utf-8")
        mapping = msgspec.toml.decode(text, type=Mapping)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", hint="expected a TOML file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {str(error).replace('`$.', '`')}", hint=_field_hint(str(error))) from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    _check(mapping, path)
    return mapping


def templates(event: EventMapping, table: TableMapping) -> dict[str, str]:
    """The templates of an event by event column, with those of its table where it has none."""
    given = {name: getattr(event, name) for name in _EVENT_COLUMNS}
    given["subject_id"] = table.subject_id
    given["visit_id"] = event.visit_id if event.visit_id is not None else table.visit_id
    given["time"] = None if event.static else (event.time if event.time is not None else table.time)
    return {name: template for name, template in given.items() if template}


_EVENT_COLUMNS = ("code", "time", "end_time", "numeric_value", "text_value", "unit", "visit_id", "description")


def used_columns(table: TableMapping, key: str) -> Iterator[tuple[str, str]]:
    """(key, column) of every column that a table's mapping names; `key` is the table's own."""
    for number, event in enumerate(table.events):
        for name, template in templates(event, table).items():
            own = name != "subject_id" and getattr(event, name) is not None
            place = f"{key}.events[{number}].{name}" if own else f"{key}.{name}"
            yield from ((place, part.column) for part in parse_template(template, place) if isinstance(part, Cell))
        yield from ((f"{key}.events[{number}].where", condition.column) for condition in event.where)
    yield from ((f"{key}.where", condition.column) for condition in table.where)


def _check(mapping: Mapping, path: Path) -> None:
    """What the types alone do not say."""
    for number, table in enumerate(mapping.tables):
        key = f"{path.name}: tables[{number}]"
        _check_times(table, key)
        _check_where(table.where, key)
        for index, event in enumerate(table.events):
            place = f"{key}.events[{index}]"
            _check_where(event.where, place)
            given = templates(event, table)
            if not event.static and "time" not in given:
                raise InputError(f"{place} has no time", hint="give it or its table `time`, or say `static = true`")
            for name, template in given.items():
                for part in parse_template(template, f"{place}.{name}"):
                    _check_map(part, mapping, f"{place}.{name}")


def _check_map(part: str | Cell, mapping: Mapping, key: str) -> None:
    if isinstance(part, Cell) and part.map_name is not None and part.map_name not in mapping.maps:
        hint = did_you_mean(part.map_name, mapping.maps) or f"add a table [maps.{part.map_name}]"
        raise InputError(f"{key} uses the map `{part.map_name}`, which is not there", hint=hint)


def _check_where(conditions: list[Where], key: str) -> None:
    for condition in conditions:
        given = [name for name in ("equals", "not_equals", "present") if getattr(condition, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"{key}.where on `{condition.column}` has {len(given)} conditions, expected one",
                hint="give one of equals, not_equals and present",
            )


def _check_times(table: TableMapping, key: str) -> None:
    if table.time_format is not None and table.time_unit is not None:
        raise InputError(f"{key} has both time_format and time_unit", hint="a time is either a text or a number")
    if cells.convert(pl.Series([table.origin]), "time").null_count():
        raise InputError(f"{key}.origin `{table.origin}` is not a date or time", hint="write it as 2000-01-01")
    if table.time_format is not None:
        try:
            pl.Series([""]).str.to_datetime(table.time_format, strict=False)
        except pl.exceptions.PolarsError as error:
            what = str(error).splitlines()[0]
            raise InputError(f"{key}.time_format `{table.time_format}` is no strptime format: {what}") from error


def _field_hint(message: str) -> str | None:
    """The nearest key to one that a model does not have."""
    unknown = re.search(r"unknown field `([^`]+)`", message)
    models: tuple[Any, ...] = (Mapping, TableMapping, EventMapping, Where)
    fields = {field for model in models for field in model.__struct_fields__}
    return did_you_mean(unknown.group(1), fields) if unknown else None

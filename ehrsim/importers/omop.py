"""OMOP CDM 5.x: CSV or Parquet tables in a folder, or a DuckDB file.

Codes are those of the standard concepts (see `ehrsim.importers.omop_vocabulary`). The tables used are person, death,
visit_occurrence, the six event tables of `FACTS`, observation_period and concept; every other one is reported as not
used. A time is the datetime where it lies on the date beside it, else that date. The end of a living person's last
observation period becomes `OBSERVATION_END`, at the last second of the day.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ehrsim import codes
from ehrsim.errors import InputError, MissingExtraError
from ehrsim.events import first_line
from ehrsim.importers import cells, omop_vocabulary, people, tables
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table

DUCKDB_SUFFIXES = (".duckdb", ".ddb", ".db")
CAUSE_OF_DEATH = "LOINC//69453-9"
_STATIC = ("marital", "language")
"""Kinds of facts about people that stand in the observation table, which asks for a date that they do not have."""


class Fact(NamedTuple):
    """A table with one event a row: its name, the kind of its events and what its columns begin with."""

    table: str
    kind: codes.Kind
    domain: str
    start: str
    end: str | None = None
    has_values: bool = False
    text: str | None = None
    """A column with a word or two on the event, as that it is the primary diagnosis."""


FACTS = (
    Fact(
        *("condition_occurrence", "condition", "condition", "condition_start", "condition_end"),
        text="condition_status_source_value",
    ),
    Fact("procedure_occurrence", "procedure", "procedure", "procedure", "procedure_end", text="modifier_source_value"),
    Fact("drug_exposure", "medication", "drug", "drug_exposure_start", "drug_exposure_end"),
    Fact("device_exposure", "procedure", "device", "device_exposure_start", "device_exposure_end"),
    Fact("measurement", "observation", "measurement", "measurement", has_values=True),
    Fact("observation", "observation", "observation", "observation", has_values=True),
)
USED = frozenset(
    ("person", "death", "visit_occurrence", "observation_period", "concept", *(fact.table for fact in FACTS))
)
_RECOGNISED_BY = {"visit_occurrence", "observation_period", "condition_occurrence", "drug_exposure", "measurement"}


class People(NamedTuple):
    """Who the events may belong to."""

    known: pl.DataFrame
    """(subject_id), each once."""
    dead: pl.DataFrame
    """(subject_id) of the people with a usable death."""


def recognises(source: Path) -> bool:
    """Whether `source` is a DuckDB file, or a folder with a person table and an event table of OMOP."""
    if source.is_file():
        return source.suffix.lower() in DUCKDB_SUFFIXES
    names = tables.table_names(source)
    return "person" in names and bool(names & _RECOGNISED_BY)


def read(source: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events of an OMOP database, table by table in batches.

    Raises `InputError` for a source without a person table, a table without a required column or an unreadable file.
    """
    if source.is_dir():
        yield from _read_folder(source, report)
        return
    with _exported(source) as folder:
        yield from _read_folder(folder, report)


def _read_folder(folder: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    found = tables.find_tables([folder])
    if "person" not in found:
        raise InputError(f"{folder} holds no person table", hint="expected the tables of an OMOP CDM, one file each")
    tables.report_unused(found, USED, report)
    concepts = omop_vocabulary.read_concepts(found.get("concept"), report)
    persons = _persons(found["person"], report)
    yield _statics(persons, concepts, report)
    known = persons.select("subject_id")
    death_events = _deaths(found.get("death"), known, concepts, report)
    yield death_events
    who = People(known, death_events.select("subject_id").unique())
    if "observation_period" in found:
        yield _observation_ends(found["observation_period"], who, report)
    if "visit_occurrence" in found:
        yield from _visits(found["visit_occurrence"], known, concepts, report)
    for fact in FACTS:
        if fact.table in found:
            for batch in _fact_rows(found[fact.table], fact, report):
                yield _events(batch, fact, known, concepts, report)


def _persons(table: Table, report: ImportReport) -> pl.DataFrame:
    """People with their typed columns and `born`, one row each."""
    optional = ["month_of_birth", "day_of_birth", "birth_datetime"]
    types: dict[str, cells.CellType] = {"person_id": "integer", "year_of_birth": "integer"}
    types |= {"month_of_birth": "integer", "day_of_birth": "integer", "birth_datetime": "time"}
    for domain in ("gender", "race", "ethnicity"):
        identifiers = (f"{domain}_concept_id", f"{domain}_source_concept_id")
        optional += [*identifiers, f"{domain}_source_value"]
        types |= {**dict.fromkeys(identifiers, "integer"), f"{domain}_source_value": "text"}
    frame = tables.whole(table, ["person_id", "year_of_birth"], optional, report)
    frame = cells.typed(frame, types, report, table.name, required=("person_id",))
    frame = cells.first_of_each(frame, "person_id", report, table.name)
    return _born(frame.rename({"person_id": "subject_id"}), report)


def _born(persons: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Add `born`: the birth datetime where it fits the year, else the date; an unknown month or day is the first."""
    year, month, day = pl.col("year_of_birth"), pl.col("month_of_birth"), pl.col("day_of_birth")
    text = pl.format("{}-{}-{}", year.cast(pl.String).str.zfill(4), month.fill_null(1), day.fill_null(1))
    date = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    exact = pl.when(pl.col("birth_datetime").dt.year() == year).then("birth_datetime")
    born = pl.when(year.is_between(1, 9999)).then(pl.coalesce(exact, date))
    persons = persons.with_columns(born=born)
    guessed = persons.filter(pl.col("born").is_not_null() & exact.is_null() & (month.is_null() | day.is_null()))
    report.change("person: month or day of birth unknown, the first taken", guessed.height)
    unborn = persons.filter(pl.col("born").is_null())
    if unborn.height:
        report.skip("person: no usable date of birth", unborn.height, f"person_id {unborn['subject_id'][0]}")
    return persons


def _statics(persons: pl.DataFrame, concepts: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Birth, sex, race and ethnicity; without a concept that is known, the source's word for it."""
    meanings = (
        ("gender", omop_vocabulary.GENDERS, people.GENDERS),
        ("race", omop_vocabulary.RACES, people.RACES),
        ("ethnicity", omop_vocabulary.ETHNICITIES, people.ETHNICITIES),
    )
    parts = [persons.select("subject_id", time="born", code=pl.lit(codes.BIRTH)).drop_nulls("time")]
    for domain, standard, words in meanings:
        identifiers = (f"{domain}_concept_id", f"{domain}_source_concept_id")
        known = [pl.col(name).replace_strict(standard, default=None, return_dtype=pl.String) for name in identifiers]
        rows = omop_vocabulary.look_up(persons, f"{domain}_source_concept_id", concepts, "local_")
        local = pl.when(pl.col("local_kind") == domain).then("local_value")
        word = pl.col(f"{domain}_source_value")
        spelled = pl.when(word.str.contains("[A-Za-z]")).then(people.word_codes(word, words))
        part = people.static(rows, domain.upper(), pl.coalesce(*known, local, spelled))
        report.find(f"person: {domain} unknown", persons.height - part.height)
        parts.append(part)
    return pl.concat(parts)


def _deaths(table: Table | None, known: pl.DataFrame, concepts: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Deaths, one a person, and their causes as observations."""
    if table is None:
        return pl.DataFrame(schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String})
    optional = ["death_datetime", "cause_concept_id"]
    frame = tables.whole(table, ["person_id", "death_date"], optional, report)
    types: dict[str, cells.CellType] = {"person_id": "integer", "cause_concept_id": "integer"}
    frame = _of_known(cells.typed(frame, types, report, table.name), known, report, table.name)
    frame = _start(frame, "death", report, table.name)
    frame = cells.first_of_each(frame, "subject_id", report, table.name)
    causes = omop_vocabulary.look_up(frame, "cause_concept_id", concepts, "cause_").drop_nulls("cause_value")
    return pl.concat(
        [
            frame.select("subject_id", time="death", code=pl.lit(codes.DEATH)),
            causes.select(
                "subject_id",
                time="death",
                code=pl.lit(CAUSE_OF_DEATH),
                text_value=pl.col("cause_system") + "//" + pl.col("cause_value"),
            ),
        ],
        how="diagonal",
    )


def _observation_ends(table: Table, who: People, report: ImportReport) -> pl.DataFrame:
    """The end of each living person's last observation period."""
    frame = tables.whole(table, ["person_id", "observation_period_end_date"], [], report)
    types: dict[str, cells.CellType] = {"person_id": "integer", "observation_period_end_date": "time"}
    frame = cells.typed(frame, types, report, table.name, required=("observation_period_end_date",))
    frame = _of_known(frame, who.known, report, table.name)
    alive = frame.join(who.dead, on="subject_id", how="anti", maintain_order="left")
    report.skip("observation_period: of somebody who died, whose death ends the record", frame.height - alive.height)
    ends = alive.group_by("subject_id", maintain_order=True).agg(pl.col("observation_period_end_date").max())
    report.skip("observation_period: not the last of the person", alive.height - ends.height)
    last_second = pl.col("observation_period_end_date").dt.truncate("1d") + pl.duration(days=1, seconds=-1)
    return ends.select("subject_id", time=last_second, code=pl.lit(codes.OBSERVATION_END))


def _visits(table: Table, known: pl.DataFrame, concepts: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Start and end of each visit; the end says where the person went."""
    required = ["visit_occurrence_id", "person_id", "visit_concept_id", "visit_start_date"]
    discharge = ["discharged_to_concept_id", "discharge_to_concept_id"]
    place = ["discharged_to_source_value", "discharge_to_source_value"]
    optional = ["visit_start_datetime", "visit_end_date", "visit_end_datetime", "visit_source_concept_id"]
    optional += [*discharge, *place]
    identifiers = ("visit_occurrence_id", "visit_concept_id", "visit_source_concept_id", *discharge)
    types: dict[str, cells.CellType] = dict.fromkeys(identifiers, "integer")
    types |= dict.fromkeys(place, "text")
    for batch in tables.rows(table, required, optional, report):
        frame = cells.typed(batch, types, report, table.name, required=("visit_occurrence_id",))
        frame = _of_known(frame, known, report, table.name)
        frame = _start(frame, "visit_start", report, table.name)
        frame = _end(frame, "visit_end", "visit_start", report, table.name)
        frame = frame.with_columns(discharged=pl.coalesce(discharge))
        frame = omop_vocabulary.look_up(frame, "discharged", concepts, "discharged_")
        frame = frame.with_columns(discharged_to=pl.coalesce("discharged_name", *place))
        frame = frame.with_columns(visit_class=_visit_class(frame, concepts, report))
        yield _visit_events(frame, report)


def _visit_class(frame: pl.DataFrame, concepts: pl.DataFrame, report: ImportReport) -> pl.Series:
    frame = omop_vocabulary.look_up(frame, "visit_concept_id", concepts, "visit_")
    frame = omop_vocabulary.look_up(frame, "visit_source_concept_id", concepts, "source_")
    ids = ("visit_concept_id", "visit_source_concept_id")
    known = [
        pl.col(name).replace_strict(omop_vocabulary.VISIT_CLASSES, default=None, return_dtype=pl.String) for name in ids
    ]
    classes = frame.select(visit_class=pl.coalesce(*known, "visit_value", "source_value"))["visit_class"]
    report.find("visit_occurrence: no known class, called UNKNOWN", classes.null_count())
    return classes.fill_null(omop_vocabulary.UNKNOWN_CLASS)


def _visit_events(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    starts = frame.select(
        "subject_id",
        time="visit_start",
        code=pl.lit("VISIT_START//") + pl.col("visit_class"),
        visit_id="visit_occurrence_id",
    )
    report.find("visit_occurrence: no end", frame["visit_end"].null_count())
    ended = frame.drop_nulls("visit_end")
    forwards = cells.keep(
        ended, pl.col("visit_end") >= pl.col("visit_start"), "visit_occurrence: end before start, no end event", report
    )
    ends = forwards.select(
        "subject_id",
        time="visit_end",
        code=pl.lit("VISIT_END//") + pl.col("visit_class"),
        text_value="discharged_to",
        visit_id="visit_occurrence_id",
    )
    return pl.concat([starts, ends], how="diagonal")


def _fact_rows(table: Table, fact: Fact, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Batches of a fact table with the columns its events need."""
    required = ["person_id", f"{fact.domain}_concept_id", f"{fact.start}_date"]
    optional = [f"{fact.start}_datetime", f"{fact.domain}_source_concept_id", f"{fact.domain}_source_value"]
    optional.append("visit_occurrence_id")
    if fact.end:
        optional += [f"{fact.end}_date", f"{fact.end}_datetime"]
    if fact.has_values:
        optional += [*_VALUE_TYPES]
    if fact.text:
        optional.append(fact.text)
    yield from tables.rows(table, required, optional, report)


_VALUE_TYPES: dict[str, cells.CellType] = {
    "value_as_number": "number",
    "value_as_string": "text",
    "value_as_concept_id": "integer",
    "value_source_value": "text",
    "operator_concept_id": "integer",
    "unit_concept_id": "integer",
    "unit_source_value": "text",
}


def _events(
    batch: pl.DataFrame, fact: Fact, known: pl.DataFrame, concepts: pl.DataFrame, report: ImportReport
) -> pl.DataFrame:
    """The events of one batch of a fact table."""
    types: dict[str, cells.CellType] = {
        f"{fact.domain}_concept_id": "integer",
        f"{fact.domain}_source_concept_id": "integer",
        f"{fact.domain}_source_value": "text",
        "visit_occurrence_id": "integer",
    }
    if fact.has_values:
        types |= _VALUE_TYPES
    if fact.text:
        types[fact.text] = "text"
    frame = _of_known(cells.typed(batch, types, report, fact.table), known, report, fact.table)
    frame = _start(frame, fact.start, report, fact.table)
    frame = omop_vocabulary.choose_codes(frame, fact.domain, fact.kind, concepts, report, fact.table)
    is_static = pl.col("kind").is_in(_STATIC).fill_null(False)
    columns = {"time": pl.when(~is_static).then(fact.start), "visit_id": pl.col("visit_occurrence_id")}
    if fact.end:
        frame = _end(frame, fact.end, fact.start, report, fact.table)
        columns["end_time"] = pl.col(fact.end)
    if fact.text:
        columns["text_value"] = pl.col(fact.text)
    if fact.has_values:
        frame = _values(frame, concepts)
        columns |= {name: pl.col(name) for name in ("numeric_value", "text_value", "unit")}
    return frame.select("subject_id", "code", "description", **columns)


def _values(frame: pl.DataFrame, concepts: pl.DataFrame) -> pl.DataFrame:
    """Add numeric_value, text_value (a coded answer, else a text, else `<` and the like) and unit."""
    frame = omop_vocabulary.look_up(frame, "value_as_concept_id", concepts, "answer_")
    frame = omop_vocabulary.look_up(frame, "unit_concept_id", concepts, "unit_")
    operators = omop_vocabulary.OPERATORS
    operator = pl.col("operator_concept_id").replace_strict(operators, default=None, return_dtype=pl.String)
    number = pl.col("value_as_number")
    answer = pl.col("answer_system") + "//" + pl.col("answer_value")
    text = pl.coalesce(answer, "value_as_string", pl.when(number.is_null()).then("value_source_value"), operator)
    ucum = pl.when(pl.col("unit_system") == "UCUM").then("unit_value")
    return frame.with_columns(
        numeric_value=number,
        text_value=text,
        unit=pl.when(number.is_not_null()).then(pl.coalesce(ucum, "unit_source_value", "unit_name")),
    )


def _of_known(frame: pl.DataFrame, known: pl.DataFrame, report: ImportReport, source: str) -> pl.DataFrame:
    """Rows of known people, with `subject_id` for `person_id`; the others are counted."""
    frame = cells.typed(frame, {"person_id": "integer"}, report, source, required=("person_id",))
    is_known = pl.col("person_id").is_in(known["subject_id"].implode())
    frame = cells.keep(frame, is_known, f"{source}: person_id not in the person table", report)
    return frame.rename({"person_id": "subject_id"})


def _start(frame: pl.DataFrame, name: str, report: ImportReport, source: str) -> pl.DataFrame:
    """Add the time `name`; rows without its date are left out: they would pass for facts of all times."""
    return _moment(frame, name, report, source, required=(f"{name}_date",))


def _end(frame: pl.DataFrame, name: str, start: str, report: ImportReport, source: str) -> pl.DataFrame:
    """Add the time `name`; a bare date on the day of `start` is an end at `start`, not at the midnight before it."""
    frame = _moment(frame, name, report, source, required=())
    same_day = pl.col(f"{name}_datetime").is_null() & (pl.col(name).dt.date() == pl.col(start).dt.date())
    return frame.with_columns(pl.when(same_day).then(start).otherwise(name).alias(name))


def _moment(
    frame: pl.DataFrame, name: str, report: ImportReport, source: str, *, required: tuple[str, ...]
) -> pl.DataFrame:
    """Add `name`: the datetime where it lies on the date beside it or stands alone, else the date."""
    date, exact = f"{name}_date", f"{name}_datetime"
    absent = [pl.lit(None, pl.String).alias(column) for column in (date, exact) if column not in frame.columns]
    frame = cells.typed(frame.with_columns(absent), {date: "time", exact: "time"}, report, source, required=required)
    agrees = pl.col(date).is_null() | (pl.col(exact).dt.date() == pl.col(date).dt.date())
    disagreeing = frame.filter(~agrees)
    if disagreeing.height:
        example = f"{disagreeing[exact][0]} beside {disagreeing[date][0]}"
        report.change(f"{source}: {exact} is not on {date}, the date taken", disagreeing.height, example)
    return frame.with_columns(pl.coalesce(pl.when(agrees).then(exact), date).alias(name))


@contextmanager
def _exported(database: Path) -> Iterator[Path]:
    """The tables of a DuckDB file that are used here, as Parquet files in a folder that lasts as long as the block."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("reading a DuckDB file", "duckdb") from error
    with tempfile.TemporaryDirectory(prefix="ehrsim-") as folder:
        try:
            with duckdb.connect(str(database), read_only=True) as connection:
                for catalog, schema, table in _duckdb_tables(connection):
                    target = Path(folder, f"{table.lower()}.parquet")
                    # All three parts: a schema that is called like its file would be ambiguous.
                    connection.table(f'"{catalog}"."{schema}"."{table}"').write_parquet(str(target))
        except duckdb.Error as error:
            raise InputError(f"{database} is not a readable DuckDB file: {first_line(error)}") from error
        yield Path(folder)


def _duckdb_tables(connection: Any) -> list[tuple[str, str, str]]:
    """(catalog, schema, table) of the tables to read: those beside the one `person` table, in a fixed order."""
    query = "select table_catalog, table_schema, table_name from information_schema.tables order by all"
    found: list[tuple[str, str, str]] = connection.execute(query).fetchall()
    schemas = [place for *place, table in found if table.lower() == "person"]
    if len(schemas) != 1:
        raise InputError(
            f"the database holds {len(schemas)} person tables, expected one", hint="expected the tables of an OMOP CDM"
        )
    return [row for row in found if list(row[:2]) == schemas[0] and row[2].lower() in USED]

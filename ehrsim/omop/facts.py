"""The tables with one event a row: conditions, drugs, procedures, devices, measurements, observations, and notes."""

from __future__ import annotations

import polars as pl

from ehrsim.importers.omop import FACTS, Fact
from ehrsim.omop import concepts
from ehrsim.omop.codebook import SOURCE_VALUE_LENGTH
from ehrsim.omop.concepts import ADMINISTRATION, EHR, ENGLISH, NO_CONCEPT, PRESCRIPTION, UTF_8
from ehrsim.omop.definitions import TABLES
from ehrsim.omop.identifiers import row_ids

STRING_LENGTH = 60
"""The most characters of observation.value_as_string; a longer text stands in a note as well."""

TEXT_COLUMNS = {
    "condition_occurrence": "condition_status_source_value",
    "procedure_occurrence": "modifier_source_value",
    "drug_exposure": "sig",
    "measurement": "value_source_value",
    "observation": "value_as_string",
}
"""Where the text of an event stands."""


def fact_tables(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The fact tables and notes of placed events with visits, without the tables that have no row."""
    tables = {}
    kept = rows.filter(pl.col("lost").is_null() & pl.col("table").is_not_null())
    for fact in FACTS:
        chosen = kept.filter(pl.col("table") == fact.table)
        if chosen.height:
            tables[fact.table] = _table(chosen, fact)
            if fact.table == "observation":
                tables["note"] = _notes(chosen, tables["observation"]["observation_id"])
    return tables


def _table(rows: pl.DataFrame, fact: Fact) -> pl.DataFrame:
    key = TABLES[fact.table].key
    assert key is not None, f"{fact.table} has a key"
    columns = {
        key: pl.lit(row_ids(rows["slot"], fact.table)),
        "person_id": pl.col("subject_id"),
        f"{fact.domain}_concept_id": pl.col("concept_id"),
        f"{fact.domain}_source_concept_id": pl.col("source_concept_id"),
        f"{fact.domain}_source_value": pl.col("source_value"),
        f"{fact.domain}_type_concept_id": _type(fact),
        f"{fact.start}_date": pl.col("when").dt.date(),
        f"{fact.start}_datetime": pl.col("time"),
        "visit_occurrence_id": pl.col("visit_occurrence_id"),
    }
    if fact.end:
        columns |= _end(fact)
    return rows.select(**columns, **_values(rows, fact.table))


def _type(fact: Fact) -> pl.Expr:
    if fact.table != "drug_exposure":
        return pl.lit(EHR)
    return pl.when(pl.col("kind") == "immunization").then(pl.lit(ADMINISTRATION)).otherwise(pl.lit(PRESCRIPTION))


def _end(fact: Fact) -> dict[str, pl.Expr]:
    """The end; a drug without one ends on the day it begins, since its column may not be empty."""
    end = pl.col("end_time")
    date = pl.coalesce(end, "when") if fact.table == "drug_exposure" else end
    return {f"{fact.end}_date": date.dt.date(), f"{fact.end}_datetime": end}


def _values(rows: pl.DataFrame, table: str) -> dict[str, pl.Expr]:
    text, number, unit = pl.col("text_value"), pl.col("numeric_value"), pl.col("unit")
    short_unit = unit.str.slice(0, SOURCE_VALUE_LENGTH)
    short_text = text.str.slice(0, SOURCE_VALUE_LENGTH)
    match table:
        case "condition_occurrence" | "procedure_occurrence":
            return {TEXT_COLUMNS[table]: short_text}
        case "drug_exposure":
            return {"sig": text, "quantity": _exact(rows["numeric_value"]), "dose_unit_source_value": short_unit}
        case "measurement" | "observation":
            operator = text.replace_strict(concepts.OPERATORS, default=None, return_dtype=pl.Int32)
            operator = pl.when(number.is_not_null()).then(operator)
            values = {
                "value_as_number": _exact(rows["numeric_value"]),
                "value_as_concept_id": pl.col("answer_id"),
                "unit_concept_id": pl.col("unit_id"),
                "unit_source_value": short_unit,
            }
            if table == "observation":
                string = pl.when(pl.col("answer_id").is_null()).then(text.str.slice(0, STRING_LENGTH))
                return {**values, "value_as_string": string, "value_source_value": short_text}
            return {
                **values,
                "operator_concept_id": operator,
                "unit_source_concept_id": pl.col("unit_source_id"),
                "value_source_value": pl.when(operator.is_null()).then(short_text),
            }
        case _:
            return {}


def _exact(values: pl.Series) -> pl.Expr:
    """The doubles with the fewest digits that give back the float32 values: 6.1, not 6.099999904632568."""
    distinct = values.drop_nulls().unique()
    doubles = distinct.cast(pl.String).cast(pl.Float64)
    if distinct.is_empty():
        return pl.lit(None, pl.Float64)
    return pl.lit(values.replace_strict(distinct, doubles, default=None, return_dtype=pl.Float64))


def _notes(rows: pl.DataFrame, identifiers: pl.Series) -> pl.DataFrame:
    """A note for each text that an observation cannot hold; `note_event_id` is the observation."""
    long = rows.with_columns(note_id=identifiers).filter(pl.col("text_value").str.len_chars() > STRING_LENGTH)
    return long.select(
        "note_id",
        "visit_occurrence_id",
        person_id="subject_id",
        note_date=pl.col("when").dt.date(),
        note_datetime="time",
        note_type_concept_id=pl.lit(EHR),
        note_class_concept_id=pl.lit(NO_CONCEPT),
        note_title="source_value",
        note_text="text_value",
        encoding_concept_id=pl.lit(UTF_8),
        language_concept_id=pl.lit(ENGLISH),
        note_source_value="source_value",
        note_event_id="note_id",
    )


def with_values(rows: pl.DataFrame, answers: pl.DataFrame, units: pl.DataFrame) -> pl.DataFrame:
    """Placed events with the concepts of their answers and units."""
    rows = rows.join(units, on="unit", how="left", maintain_order="left")
    return rows.join(answers, on="text_value", how="left", maintain_order="left")

"""MIMIC-IV CSV: the `hosp` and `icu` modules, plain or gzipped.

An admission is a visit; an emergency stay before it and each intensive care stay are procedures with an end inside it.
Diagnoses have the time of discharge, where MIMIC assigns them. Births are put on 1 January of the year that
`anchor_year - anchor_age` gives; deaths are at `deathtime` where the patient died in hospital, else at midnight of
`dod`. Item numbers stay codes of local systems (MIMIC_LAB, MIMIC_ITEM, MIMIC_MICRO) with their labels as descriptions.
The table of each kind of event is in `ehrsim.importers.mimic_tables`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ehrsim import codes
from ehrsim.errors import InputError
from ehrsim.importers import cells, mimic_tables, people, tables
from ehrsim.importers.cells import CellType
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table

VISIT_CLASSES = {
    "EU OBSERVATION": "OBSENC",
    "OBSERVATION ADMIT": "OBSENC",
    "DIRECT OBSERVATION": "OBSENC",
    "AMBULATORY OBSERVATION": "OBSENC",
}
"""Admission types that are observation, in v3-ActCode; every other one is inpatient."""
OLDEST_ANCHOR_AGE = 91
"""The age that MIMIC writes for everybody over 89."""

_ADMISSION_TYPES: dict[str, CellType] = {
    "subject_id": "integer",
    "hadm_id": "integer",
    "admittime": "time",
    "dischtime": "time",
    "deathtime": "time",
    "edregtime": "time",
    "edouttime": "time",
}
_ADMISSION_TEXTS = (
    "admission_type",
    "admission_location",
    "discharge_location",
    "insurance",
    "language",
    "marital_status",
    "race",
)


def recognises(source: Path) -> bool:
    """Whether `source` holds the patients and admissions tables of MIMIC-IV, in `hosp` or directly."""
    in_module = {"patients", "admissions"} <= tables.table_names(source / "hosp")
    names = tables.table_names(source)
    return in_module or {"patients", "admissions", "diagnoses_icd"} <= names


def read(source: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events of MIMIC-IV, table by table in batches.

    Raises `InputError` without patients or admissions, for a table without a required column, an unreadable file.
    """
    found = tables.find_tables([source, source / "hosp", source / "icu"])
    for name in ("patients", "admissions"):
        if name not in found:
            raise InputError(f"{source} holds no {name} table", hint="expected the hosp and icu folders of MIMIC-IV")
    tables.report_unused(found, {"patients", "admissions", *mimic_tables.USED}, report)
    patients = _patients(found["patients"], report)
    admissions = _admissions(found["admissions"], patients, report)
    yield _lives(patients, admissions, report)
    yield from (_statics(patients, admissions, report), _visits(admissions, report), _at_admission(admissions))
    known = mimic_tables.Known(patients.select("subject_id"), admissions.select("subject_id", "hadm_id", "dischtime"))
    yield from mimic_tables.read_all(found, known, report)


def _patients(table: Table, report: ImportReport) -> pl.DataFrame:
    columns: dict[str, CellType] = {
        "subject_id": "integer",
        "gender": "text",
        "anchor_age": "integer",
        "anchor_year": "integer",
        "dod": "time",
    }
    frame = tables.whole(table, ["subject_id", "gender", "anchor_age", "anchor_year"], ["dod"], report)
    frame = cells.typed(frame, columns, report, table.name, required=("subject_id",))
    return cells.first_of_each(frame, "subject_id", report, table.name)


def _admissions(table: Table, patients: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Admissions of known patients, by patient and time. They are few: half a million rows in all of MIMIC-IV."""
    required = ["subject_id", "hadm_id", "admittime"]
    optional = [*(name for name in _ADMISSION_TYPES if name not in required), *_ADMISSION_TEXTS]
    frame = tables.whole(table, required, optional, report)
    types = _ADMISSION_TYPES | dict.fromkeys(_ADMISSION_TEXTS, "text")
    frame = cells.typed(frame, types, report, table.name, required=required)
    is_known = pl.col("subject_id").is_in(patients["subject_id"].implode())
    frame = cells.keep(frame, is_known, "admissions: subject_id not in the patients table", report)
    frame = cells.first_of_each(frame, "hadm_id", report, table.name)
    return frame.sort("subject_id", "admittime", "hadm_id")


def _lives(patients: pl.DataFrame, admissions: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Births and deaths."""
    age, year = pl.col("anchor_age"), pl.col("anchor_year") - pl.col("anchor_age")
    plausible = (age >= 0) & year.is_between(1, 9999)
    aged = cells.keep(patients, plausible, "patients: no usable anchor_age and anchor_year, no birth", report)
    oldest = aged.filter(age == OLDEST_ANCHOR_AGE)
    report.find("patients: over 89 at the anchor year, age given as 91", oldest.height)
    in_hospital = admissions.group_by("subject_id").agg(pl.col("deathtime").min())
    dead = patients.join(in_hospital, on="subject_id", how="left", maintain_order="left")
    dead = dead.with_columns(died=pl.coalesce("deathtime", "dod")).drop_nulls("died")
    return pl.concat(
        [
            aged.select("subject_id", time=pl.datetime(year, 1, 1), code=pl.lit(codes.BIRTH)),
            dead.select("subject_id", time="died", code=pl.lit(codes.DEATH)),
        ]
    )


def _statics(patients: pl.DataFrame, admissions: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Sex, and what the first admission that knows it says of race, ethnicity, marital status and language."""
    parts = [people.static(patients, "GENDER", people.word_codes(pl.col("gender"), people.GENDERS))]
    for column in ("race", "marital_status", "language"):
        differing = admissions.group_by("subject_id").agg(pl.col(column).drop_nulls().n_unique())
        differing = differing.filter(pl.col(column) > 1)
        report.find(f"admissions: {column} differs between admissions, the first kept", differing.height)
    texts = [pl.col(column).drop_nulls().first() for column in ("race", "marital_status", "language")]
    first = admissions.group_by("subject_id", maintain_order=True).agg(texts)
    ethnicity = pl.col("race").str.extract("(?i)^(hispanic)").str.to_lowercase()
    parts.append(people.static(first, "ETHNICITY", ethnicity.replace(people.ETHNICITIES)))
    # "WHITE - RUSSIAN" is the category with a detail; a Hispanic answer says nothing of race.
    race = pl.when(ethnicity.is_null()).then(pl.col("race").str.split(" - ").list.first())
    parts.append(people.static(first, "RACE", people.word_codes(race, people.RACES)))
    marital = people.word_codes(pl.col("marital_status"), people.MARITAL_STATUSES)
    parts.append(people.static(first, "MARITAL", marital))
    parts.append(people.static(first, "LANGUAGE", people.word_codes(pl.col("language"), people.LANGUAGES)))
    return pl.concat(parts)


def _visits(admissions: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Start and end of each admission, with the kind of admission and where the patient went as texts."""
    visit_class = pl.col("admission_type").replace_strict(VISIT_CLASSES, default="IMP", return_dtype=pl.String)
    starts = admissions.select(
        "subject_id",
        time="admittime",
        code=pl.lit("VISIT_START//") + visit_class,
        text_value="admission_type",
        visit_id="hadm_id",
    )
    report.find("admissions: no dischtime", admissions["dischtime"].null_count())
    ended = admissions.drop_nulls("dischtime")
    forwards = pl.col("dischtime") >= pl.col("admittime")
    ended = cells.keep(ended, forwards, "admissions: dischtime before admittime, no end event", report)
    ends = ended.select(
        "subject_id",
        time="dischtime",
        code=pl.lit("VISIT_END//") + visit_class,
        text_value="discharge_location",
        visit_id="hadm_id",
    )
    return pl.concat([starts, ends])


def _at_admission(admissions: pl.DataFrame) -> pl.DataFrame:
    """The stay in the emergency department, where the patient came from and the insurance."""
    emergency = admissions.drop_nulls("edregtime").select(
        "subject_id",
        time="edregtime",
        code=pl.lit(codes.join("procedure", "MIMIC_CARE", "EMERGENCY DEPARTMENT")),
        visit_id="hadm_id",
        end_time="edouttime",
    )
    parts = [emergency]
    for column, system in (("admission_location", "MIMIC_ADMITTED_FROM"), ("insurance", "MIMIC_INSURANCE")):
        code = pl.lit(codes.join("observation", system, "")) + pl.col(column)
        parts.append(
            admissions.drop_nulls(column).select("subject_id", time="admittime", code=code, visit_id="hadm_id")
        )
    return pl.concat(parts, how="diagonal")

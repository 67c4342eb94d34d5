"""The event tables of MIMIC-IV: one function a table, from typed rows of known patients to events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import polars as pl

from ehrsim import codes
from ehrsim.importers import cells, tables
from ehrsim.importers.cells import CellType
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table

NDC_LENGTH = 11
OMR_MEASURES = {
    "Height (Inches)": ("8302-2", "[in_i]"),
    "Weight (Lbs)": ("29463-7", "[lb_av]"),
    "BMI (kg/m2)": ("39156-5", "kg/m2"),
}
"""Outpatient measurements that are the LOINC vital sign itself, with their unit."""
SYSTOLIC, DIASTOLIC = "LOINC//8480-6", "LOINC//8462-4"
_THOUSANDS = r"^\d{1,3}(,\d{3})+(\.\d+)?$"


class Known(NamedTuple):
    """Whom and what the rows may belong to."""

    patients: pl.DataFrame
    """(subject_id)"""
    admissions: pl.DataFrame
    """(subject_id, hadm_id, dischtime)"""


class Columns(NamedTuple):
    """The columns of a table that make events: those a row must have, and the others."""

    required: Mapping[str, CellType]
    optional: Mapping[str, CellType] = MappingProxyType({})


Found = dict[str, Table]
ToEvents = Callable[[pl.DataFrame, pl.DataFrame, ImportReport], pl.DataFrame]
"""(typed rows, labels of the dictionary table, report) to events."""


class EventTable(NamedTuple):
    """A table of events: its columns, what turns rows into events, and the dictionary with the labels of its codes."""

    columns: Columns
    to_events: ToEvents
    labels: str | None = None


def read_all(found: Found, known: Known, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events of every event table that was found, in batches."""
    for name, event_table in EVENT_TABLES.items():
        if name in found:
            labels = _labels(found, event_table.labels, report)
            for rows in _known_rows(found[name], event_table.columns, known, report):
                yield event_table.to_events(rows, labels, report)
    if "microbiologyevents" in found:
        yield from _microbiology(found["microbiologyevents"], known, report)


def _known_rows(table: Table, columns: Columns, known: Known, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Typed batches of rows of known patients; an admission nobody has is counted and taken off its row."""
    required: dict[str, CellType] = {"subject_id": "integer", **columns.required}
    types = required | {**columns.optional}
    types.setdefault("hadm_id", "integer")
    needed, other = list(required), [name for name in types if name not in required]
    for batch in tables.rows(table, needed, other, report):
        rows = cells.typed(batch, types, report, table.name, required=needed)
        is_known = pl.col("subject_id").is_in(known.patients["subject_id"].implode())
        rows = cells.keep(rows, is_known, f"{table.name}: subject_id not in the patients table", report)
        rows = rows.join(known.admissions, on=["subject_id", "hadm_id"], how="left", maintain_order="left")
        admitted = rows.select("subject_id", "hadm_id").join(known.admissions, on=["subject_id", "hadm_id"], how="anti")
        strays = admitted["hadm_id"].drop_nulls()
        if len(strays):
            reason = f"{table.name}: hadm_id is no admission of the patient, removed"
            report.change(reason, len(strays), f"hadm_id {strays[0]}")
            rows = rows.with_columns(
                hadm_id=pl.when(~pl.col("hadm_id").is_in(strays.unique().implode())).then("hadm_id")
            )
        yield rows


def _labels(found: Found, name: str | None, report: ImportReport) -> pl.DataFrame:
    """(key, description) of a dictionary table; empty where there is none."""
    schema = {"key": pl.String, "description": pl.String}
    if name is None or name not in found:
        return pl.DataFrame(schema=schema)
    keys, label = _DICTIONARIES[name]
    frame = tables.whole(found[name], [*keys, label], [], report)
    frame = frame.select(
        key=pl.concat_str(*(pl.col(key).cast(pl.String) for key in keys), separator="/"), description=label
    )
    return frame.drop_nulls("key").unique("key", keep="first", maintain_order=True)


_DICTIONARIES: dict[str, tuple[tuple[str, ...], str]] = {
    "d_icd_diagnoses": (("icd_code", "icd_version"), "long_title"),
    "d_icd_procedures": (("icd_code", "icd_version"), "long_title"),
    "d_hcpcs": (("code",), "short_description"),
    "d_labitems": (("itemid",), "label"),
    "d_items": (("itemid",), "label"),
}


def _described(rows: pl.DataFrame, key: pl.Expr, labels: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(key=key).join(labels, on="key", how="left", maintain_order="left")


def _icd_key() -> pl.Expr:
    return pl.concat_str("icd_code", pl.col("icd_version").cast(pl.String), separator="/")


def _dotted(code: pl.Expr, digits: pl.Expr | int) -> pl.Expr:
    """An ICD code with its dot after `digits` characters, where there are more."""
    dotted = code.str.slice(0, digits) + "." + code.str.slice(digits)
    return pl.when(code.str.len_chars() > digits).then(dotted).otherwise(code)


def _diagnoses(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    timed = cells.keep(rows, pl.col("dischtime").is_not_null(), "diagnoses_icd: no time of discharge", report)
    version = pl.col("icd_version")
    timed = cells.keep(timed, version.is_in([9, 10]), "diagnoses_icd: icd_version is not 9 or 10", report)
    code = pl.col("icd_code")
    category = pl.when((version == 9) & code.str.starts_with("E")).then(4).otherwise(3)
    system = pl.when(version == 9).then(pl.lit("ICD9CM//")).otherwise(pl.lit("ICD10CM//"))
    return _described(timed, _icd_key(), labels).select(
        "subject_id", "description", time="dischtime", code=system + _dotted(code, category), visit_id="hadm_id"
    )


def _procedures(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    version, code = pl.col("icd_version"), pl.col("icd_code")
    valid = cells.keep(rows, version.is_in([9, 10]), "procedures_icd: icd_version is not 9 or 10", report)
    named = pl.when(version == 9).then("ICD9PROC//" + _dotted(code, 2)).otherwise("ICD10PCS//" + code)
    return _described(valid, _icd_key(), labels).select(
        "subject_id", "description", time="chartdate", code=named, visit_id="hadm_id"
    )


def _hcpcs(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """HCPCS level I codes, which begin with a digit, are CPT."""
    code = pl.col("hcpcs_cd")
    system = pl.when(code.str.contains(r"^\d")).then(pl.lit("CPT//")).otherwise(pl.lit("HCPCS//"))
    described = _described(rows, code, labels)
    name = pl.coalesce("description", "short_description")
    return described.select("subject_id", time="chartdate", code=system + code, visit_id="hadm_id", description=name)


def _measured(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport, *, system: str) -> pl.DataFrame:
    """Charted and laboratory values: the number, else the text, else the comment."""
    number = pl.col("valuenum")
    text = pl.when(number.is_null()).then(pl.coalesce("value", *(["comments"] if "comments" in rows.columns else [])))
    return _described(rows, pl.col("itemid").cast(pl.String), labels).select(
        "subject_id",
        "description",
        time="charttime",
        code=pl.lit(codes.join("observation", system, "")) + pl.col("itemid").cast(pl.String),
        numeric_value=number,
        text_value=text,
        unit=pl.when(number.is_not_null()).then("valueuom"),
        visit_id="hadm_id",
    )


def _outputs(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    numeric = cells.typed(rows.rename({"value": "valuenum"}), {"valuenum": "number"}, report, "outputevents")
    return _measured(numeric.with_columns(value=pl.lit(None, pl.String)), labels, report, system="MIMIC_ITEM")


def _dates(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    unnumbered = rows.with_columns(valuenum=pl.lit(None, pl.Float64), valueuom=pl.lit(None, pl.String))
    return _measured(unnumbered, labels, report, system="MIMIC_ITEM")


def _during(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport, *, kind: codes.Kind) -> pl.DataFrame:
    """Infusions and procedures of intensive care: what was given or done from `starttime` to `endtime`."""
    has_amount = kind == "medication"
    return _described(rows, pl.col("itemid").cast(pl.String), labels).select(
        "subject_id",
        "description",
        time="starttime",
        code=pl.lit(codes.join(kind, "MIMIC_ITEM", "")) + pl.col("itemid").cast(pl.String),
        numeric_value=pl.col("amount") if has_amount else pl.lit(None, pl.Float64),
        unit=pl.col("amountuom") if has_amount else pl.lit(None, pl.String),
        visit_id="hadm_id",
        end_time="endtime",
    )


def _prescriptions(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Orders by National Drug Code, else by MIMIC's name of the drug; a dose that is a range becomes a text."""
    ndc = pl.when(pl.col("ndc").str.contains(rf"^\d{{{NDC_LENGTH}}}$")).then("ndc")
    named = cells.keep(
        rows, ndc.is_not_null() | pl.col("drug").is_not_null(), "prescriptions: no ndc and no drug", report
    )
    local = pl.lit(codes.join("medication", "MIMIC_DRUG", "")) + pl.col("drug")
    report.change("prescriptions: no usable ndc, the name of the drug taken", named.select(ndc.is_null()).sum().item())
    dose = pl.col("dose_val_rx")
    number = pl.when(dose.str.contains(_THOUSANDS)).then(dose.str.replace_all(",", "")).otherwise(dose)
    named = named.with_columns(number=number.cast(pl.Float64, strict=False))
    ranges = named.filter(pl.col("number").is_null() & dose.is_not_null())
    if ranges.height:
        report.change("prescriptions: dose is not a number, kept as text", ranges.height, ranges["dose_val_rx"][0])
    return named.select(
        "subject_id",
        time="starttime",
        code=pl.coalesce("NDC//" + ndc, local),
        numeric_value="number",
        text_value=pl.when(pl.col("number").is_null()).then(
            pl.concat_str(dose, "dose_unit_rx", separator=" ", ignore_nulls=False)
        ),
        unit=pl.when(pl.col("number").is_not_null()).then("dose_unit_rx"),
        visit_id="hadm_id",
        end_time="stoptime",
        description="drug",
    )


def _icu_stays(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    unit = pl.col("first_careunit").fill_null("INTENSIVE CARE")
    code = pl.lit(codes.join("procedure", "MIMIC_CARE", "")) + unit
    return rows.select("subject_id", time="intime", code=code, visit_id="hadm_id", end_time="outtime")


def _outpatient(rows: pl.DataFrame, labels: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Vital signs of outpatient records; a blood pressure `110/65` becomes two events."""
    name, value = pl.col("result_name"), pl.col("result_value")
    pressures = rows.filter((name == "Blood Pressure") & value.str.contains(r"^\d+/\d+$"))
    others = rows.filter(~((name == "Blood Pressure") & value.str.contains(r"^\d+/\d+$").fill_null(False)))
    parts = [
        pressures.select(
            "subject_id",
            time="chartdate",
            code=pl.lit(code),
            numeric_value=value.str.split("/").list.get(place).cast(pl.Float64),
            unit=pl.lit("mm[Hg]"),
        )
        for place, code in enumerate((SYSTOLIC, DIASTOLIC))
    ]
    loinc = name.replace_strict({key: f"LOINC//{code}" for key, (code, _) in OMR_MEASURES.items()}, default=None)
    unit = name.replace_strict({key: unit for key, (_, unit) in OMR_MEASURES.items()}, default=None)
    number = value.cast(pl.Float64, strict=False)
    parts.append(
        others.select(
            "subject_id",
            time="chartdate",
            code=pl.coalesce(loinc, "MIMIC_OMR//" + name),
            numeric_value=number,
            text_value=pl.when(number.is_null()).then(value),
            unit=pl.when(number.is_not_null()).then(unit),
        )
    )
    return pl.concat(parts, how="diagonal_relaxed")


def _microbiology(table: Table, known: Known, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Each test with the organism that grew once, and the sensitivity of the organism to each antibiotic.

    MIMIC repeats the test and organism on the row of every antibiotic; the keys of those already seen are kept.
    """
    texts = ("test_name", "spec_type_desc", "org_name", "ab_name", "interpretation", "comments")
    keys = ["micro_specimen_id", "test_itemid", "org_itemid", "isolate_num"]
    optional: dict[str, CellType] = dict.fromkeys(texts, "text")
    optional |= dict.fromkeys((*keys, "ab_itemid"), "integer")
    optional |= {"charttime": "time", "dilution_value": "number"}
    columns = Columns({"chartdate": "time", "test_itemid": "integer"}, optional)
    seen = pl.DataFrame(schema=dict.fromkeys(keys, pl.Int64))
    for batch in _known_rows(table, columns, known, report):
        rows = batch.with_columns(time=pl.coalesce("charttime", "chartdate"))
        tests = rows.unique(keys, keep="first", maintain_order=True)
        tests = tests.join(seen, on=keys, how="anti", nulls_equal=True, maintain_order="left")
        seen = pl.concat([seen, tests.select(keys)])
        yield tests.select(
            "subject_id",
            "time",
            code="MIMIC_MICRO//" + pl.col("test_itemid").cast(pl.String),
            text_value=pl.coalesce("org_name", "comments"),
            visit_id="hadm_id",
            description=pl.concat_str("test_name", "spec_type_desc", separator=", ", ignore_nulls=True),
        )
        yield rows.drop_nulls("ab_itemid").select(
            "subject_id",
            "time",
            code=pl.format("MIMIC_MICRO//{}:{}", pl.col("org_itemid").cast(pl.String).fill_null("0"), "ab_itemid"),
            numeric_value="dilution_value",
            text_value="interpretation",
            visit_id="hadm_id",
            description=pl.concat_str("org_name", "ab_name", separator=", ", ignore_nulls=True),
        )


_CHARTED: dict[str, CellType] = {"charttime": "time", "itemid": "integer"}
_STARTED: dict[str, CellType] = {"starttime": "time", "itemid": "integer"}
_VALUES: dict[str, CellType] = {"value": "text", "valuenum": "number", "valueuom": "text"}
_ICD: dict[str, CellType] = {"icd_code": "text", "icd_version": "integer"}

EVENT_TABLES: dict[str, EventTable] = {
    "diagnoses_icd": EventTable(Columns({"hadm_id": "integer", **_ICD}), _diagnoses, "d_icd_diagnoses"),
    "procedures_icd": EventTable(Columns({"chartdate": "time", **_ICD}), _procedures, "d_icd_procedures"),
    "hcpcsevents": EventTable(
        Columns({"chartdate": "time", "hcpcs_cd": "text"}, {"short_description": "text"}), _hcpcs, "d_hcpcs"
    ),
    "labevents": EventTable(
        Columns(_CHARTED, _VALUES | {"comments": "text"}), partial(_measured, system="MIMIC_LAB"), "d_labitems"
    ),
    "prescriptions": EventTable(
        Columns(
            {"starttime": "time"},
            {"stoptime": "time", "drug": "text", "ndc": "text", "dose_val_rx": "text", "dose_unit_rx": "text"},
        ),
        _prescriptions,
    ),
    "omr": EventTable(Columns({"chartdate": "time", "result_name": "text", "result_value": "text"}), _outpatient),
    "icustays": EventTable(
        Columns({"intime": "time", "hadm_id": "integer"}, {"outtime": "time", "first_careunit": "text"}), _icu_stays
    ),
    "chartevents": EventTable(Columns(_CHARTED, _VALUES), partial(_measured, system="MIMIC_ITEM"), "d_items"),
    "outputevents": EventTable(Columns(_CHARTED, {"value": "text", "valueuom": "text"}), _outputs, "d_items"),
    "datetimeevents": EventTable(Columns(_CHARTED, {"value": "text"}), _dates, "d_items"),
    "inputevents": EventTable(
        Columns(_STARTED, {"endtime": "time", "amount": "number", "amountuom": "text"}),
        partial(_during, kind="medication"),
        "d_items",
    ),
    "procedureevents": EventTable(
        Columns(_STARTED, {"endtime": "time"}), partial(_during, kind="procedure"), "d_items"
    ),
}
USED = frozenset((*EVENT_TABLES, *_DICTIONARIES, "microbiologyevents"))
"""Tables read besides patients and admissions. Drug administrations (emar, pharmacy), orders (poe) and transfers repeat
prescriptions, infusions and stays at another grain, so they are not."""

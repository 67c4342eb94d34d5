import csv
from collections import Counter
from pathlib import Path

import polars as pl

from ehrsim import events
from ehrsim.importers import synthea


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_counts_are_those_of_the_source_files(samples, run_import):
    folder = samples / "synthea_csv_27patients"
    frame, report = run_import(folder, "synthea")
    rows = {name: table(folder, name) for name in ("patients", "encounters", *synthea._READERS)}
    kinds = {
        "condition": len(rows["conditions"]),
        "medication": len(rows["medications"]),
        "immunization": len(rows["immunizations"]),
        "allergy": len(rows["allergies"]),
        "care_plan": len(rows["careplans"]),
        "procedure": len(rows["procedures"]) + len(rows["devices"]),
        "observation": len(rows["observations"]) + len(rows["supplies"]) + len(rows["imaging_studies"]),
        "visit_start": len(rows["encounters"]),
        "visit_end": len(rows["encounters"]),
        "visit_type": len(rows["encounters"]),
        "reason": sum(bool(row["REASONCODE"]) for row in rows["encounters"]),
        "birth": len(rows["patients"]),
        "death": sum(bool(row["DEATHDATE"]) for row in rows["patients"]),
        "gender": len(rows["patients"]),
        "race": len(rows["patients"]),
        "ethnicity": len(rows["patients"]),
        "marital": sum(bool(row["MARITAL"]) for row in rows["patients"]),
    }
    assert report.kinds == kinds
    systems = Counter("LOINC" if row["CODE"][-2] == "-" else "SYNTHEA" for row in rows["observations"])
    assert {name: report.systems[name] for name in systems} == dict(systems)
    rxnorm = len(rows["medications"]) + sum(row["SYSTEM"] == "RxNorm" for row in rows["allergies"])
    assert report.systems["RxNorm"] == rxnorm
    numbers = sum(row["TYPE"] == "numeric" for row in rows["observations"]) + len(rows["supplies"])
    assert frame["numeric_value"].count() == numbers
    assert not report.skipped


def test_ends_and_visits_are_those_of_the_source_files(samples, run_import):
    folder = samples / "synthea_csv_27patients"
    frame, _ = run_import(folder, "synthea")
    medications = table(folder, "medications")
    imported = frame.filter(pl.col("code").str.starts_with("RxNorm//"))
    assert imported["end_time"].count() == sum(bool(row["STOP"]) for row in medications)
    ids = events.stable_id(pl.Series([row["ENCOUNTER"] for row in medications]))
    assert sorted(imported["visit_id"]) == sorted(ids)
    starts = Counter(row["START"] for row in medications)
    assert Counter(imported["time"].dt.to_string("%Y-%m-%dT%H:%M:%SZ")) == starts


def test_golden(write_source, run_import):
    frame, report = run_import(write_source("synthea"), "synthea")
    first, second = events.stable_id(pl.Series(["aa-1", "bb-2"]))
    visit = events.stable_id(pl.Series(["e-1"]))[0]
    columns = ("subject_id", "time", "code", "numeric_value", "text_value", "unit", "visit_id", "end_time")
    rows = frame.with_columns(pl.col("time", "end_time").dt.to_string("%Y-%m-%d %H:%M")).select(columns).rows()
    at, day = "2010-01-01 10:00", "2010-01-01 00:00"
    expected = [
        (first, None, "ETHNICITY//2135-2", None, None, None, None, None),
        (first, None, "GENDER//female", None, None, None, None, None),
        (first, None, "MARITAL//M", None, None, None, None, None),
        (first, None, "RACE//2106-3", None, None, None, None, None),
        (first, "1950-01-02 00:00", "MEDS_BIRTH", None, None, None, None, None),
        (first, day, "ALLERGY//SNOMED//111088007", None, "SNOMED//418290006", None, visit, None),
        (first, day, "SNOMED//195662009", None, None, None, visit, "2010-02-01 00:00"),
        (first, at, "VISIT_START//AMB", None, None, None, visit, None),
        (first, at, "CVX//08", None, None, None, visit, None),
        (first, at, "DICOM//DX", None, None, None, visit, None),
        (first, at, "LOINC//72166-2", None, "Never smoker", None, visit, None),
        (first, at, "LOINC//8302-2", 127.9000015258789, None, "cm", visit, None),
        (first, at, "PROCEDURE//SNOMED//430193006", None, None, None, visit, None),
        (first, at, "REASON//SNOMED//195662009", None, None, None, visit, None),
        (first, at, "RxNorm//665078", None, None, None, visit, None),
        (first, at, "VISIT_TYPE//SNOMED//185345009", None, None, None, visit, None),
        (first, "2010-01-01 10:15", "VISIT_END//AMB", None, None, None, visit, None),
        (first, "2020-01-01 00:00", "MEDS_DEATH", None, None, None, None, None),
        (second, None, "ETHNICITY//2186-5", None, None, None, None, None),
        (second, None, "GENDER//male", None, None, None, None, None),
        (second, None, "RACE//1002-5", None, None, None, None, None),
        (second, "1960-01-02 00:00", "MEDS_BIRTH", None, None, None, None, None),
        (second, day, "ALLERGY//RxNorm//1191", None, None, None, visit, None),
        (second, day, "SYNTHEA//QALY", 8.0, None, "a", None, None),
    ]
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert report.findings["allergies: second reaction not kept"].count == 1
    assert report.findings["table not used: payers"].count == 1


def test_csv_subfolder_is_found(write_source, run_import):
    folder = write_source("synthea")
    (folder / "csv").mkdir()
    for path in folder.glob("*.csv"):
        path.rename(folder / "csv" / path.name)
    assert synthea.recognises(folder)
    _, report = run_import(folder, "synthea")
    assert report.events == 24


def test_unknown_system_of_an_allergy_stays_an_allergy(write_source, run_import):
    allergies = "START,PATIENT,ENCOUNTER,CODE,SYSTEM,DESCRIPTION\n2010-01-01,aa-1,e-1,x1,House list,Dust\n"
    frame, _ = run_import(write_source("synthea", allergies=allergies), "synthea")
    assert "ALLERGY//House_list//x1" in frame["code"]


def test_recognises_by_names(write_source):
    assert synthea.recognises(write_source("synthea"))
    assert not synthea.recognises(write_source("omop"))
    assert not synthea.recognises(write_source("mimic"))

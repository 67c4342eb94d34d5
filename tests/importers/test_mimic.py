import csv
import gzip
from collections import Counter
from pathlib import Path

import polars as pl

from ehrsim.importers import mimic


def table(folder: Path, name: str) -> list[dict[str, str]]:
    path = next(folder.rglob(f"{name}.csv.gz"))
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected_systems(folder: Path) -> Counter[str]:
    """Code systems of all events, counted row by row from the CSV files."""
    systems: Counter[str] = Counter()
    systems["MIMIC_LAB"] = len(table(folder, "labevents"))
    in_items = ("inputevents", "outputevents", "procedureevents", "datetimeevents")
    systems["MIMIC_ITEM"] = sum(len(table(folder, name)) for name in in_items)
    for row in table(folder, "prescriptions"):
        systems["NDC" if len(row["ndc"]) == 11 else "MIMIC_DRUG"] += 1
    for row in table(folder, "diagnoses_icd"):
        systems["ICD9CM" if row["icd_version"] == "9" else "ICD10CM"] += 1
    for row in table(folder, "procedures_icd"):
        systems["ICD9PROC" if row["icd_version"] == "9" else "ICD10PCS"] += 1
    for row in table(folder, "hcpcsevents"):
        systems["CPT" if row["hcpcs_cd"][0].isdigit() else "HCPCS"] += 1
    systems["LOINC"] = sum(2 if row["result_name"] == "Blood Pressure" else 1 for row in table(folder, "omr"))
    cultures = table(folder, "microbiologyevents")
    keys = ("micro_specimen_id", "test_itemid", "org_itemid", "isolate_num")
    tests = {tuple(row[key] for key in keys) for row in cultures}
    systems["MIMIC_MICRO"] = len(tests) + sum(bool(row["ab_itemid"]) for row in cultures)
    admissions = table(folder, "admissions")
    systems["MIMIC_CARE"] = len(table(folder, "icustays")) + sum(bool(row["edregtime"]) for row in admissions)
    systems["VISIT_START"] = systems["VISIT_END"] = len(admissions)
    return systems


def test_counts_are_those_of_the_source_files(samples, run_import):
    folder = samples / "mimiciv_csv_10subjects"
    frame, report = run_import(folder, "mimic")
    expected = expected_systems(folder)
    assert {system: report.systems[system] for system in expected} == dict(expected)
    patients = table(folder, "patients")
    assert report.subjects == len(patients)
    assert report.kinds["death"] == sum(bool(row["dod"]) for row in patients)
    assert report.kinds["birth"] == len(patients)
    assert not report.skipped
    (unused,) = [what for what in report.findings if what.startswith("table not used")]
    for name in ("emar", "emar_detail", "pharmacy", "poe", "transfers", "ingredientevents", "drgcodes"):
        assert name in unused
    values = sum(bool(row["valuenum"]) for row in table(folder, "labevents"))
    assert frame.filter(pl.col("code").str.starts_with("MIMIC_LAB//"))["numeric_value"].count() == values


def test_every_event_of_an_admission_carries_it(samples, run_import):
    folder = samples / "mimiciv_csv_10subjects"
    frame, _ = run_import(folder, "mimic")
    labs = Counter(row["hadm_id"] for row in table(folder, "labevents") if row["hadm_id"])
    found = (
        frame.filter(pl.col("code").str.starts_with("MIMIC_LAB//")).group_by("visit_id").len().drop_nulls("visit_id")
    )
    assert {str(visit): count for visit, count in found.iter_rows()} == dict(labs)


def test_golden(write_source, run_import):
    frame, report = run_import(write_source("mimic"), "mimic")
    columns = ("subject_id", "time", "code", "numeric_value", "text_value", "unit", "visit_id", "end_time")
    rows = frame.with_columns(pl.col("time", "end_time").dt.to_string("%Y-%m-%d %H:%M")).select(columns).rows()
    emergency, care = "PROCEDURE//MIMIC_CARE//EMERGENCY DEPARTMENT", "PROCEDURE//MIMIC_CARE//MICU"
    insulin, ventilation = "MEDICATION//MIMIC_ITEM//223258", "PROCEDURE//MIMIC_ITEM//225792"
    oxycodone = "MEDICATION//MIMIC_DRUG//Oxycodone"
    assert rows == [
        (1, None, "GENDER//female", None, None, None, None, None),
        (1, None, "LANGUAGE//en", None, None, None, None, None),
        (1, None, "MARITAL//M", None, None, None, None, None),
        (1, None, "RACE//2106-3", None, None, None, None, None),
        (1, "2062-01-01 00:00", "MEDS_BIRTH", None, None, None, None, None),
        (1, "2134-07-01 00:00", "LOINC//29463-7", 127.0, None, "[lb_av]", None, None),
        (1, "2134-07-01 00:00", "LOINC//8462-4", 65.0, None, "mm[Hg]", None, None),
        (1, "2134-07-01 00:00", "LOINC//8480-6", 110.0, None, "mm[Hg]", None, None),
        (1, "2134-08-17 16:24", emergency, None, None, None, 10, "2134-08-18 03:15"),
        (1, "2134-08-18 02:02", "VISIT_START//IMP", None, "EW EMER.", None, 10, None),
        (1, "2134-08-18 02:02", "MIMIC_ADMITTED_FROM//EMERGENCY ROOM", None, None, None, 10, None),
        (1, "2134-08-18 02:02", "MIMIC_INSURANCE//Medicare", None, None, None, 10, None),
        (1, "2134-08-18 04:00", "MIMIC_LAB//50902", 101.0, None, "meq/L", 10, None),
        (1, "2134-08-18 05:00", "NDC//00338001702", 25000.0, None, "[U]", 10, "2134-08-19 05:00"),
        (1, "2134-08-18 05:00", care, None, None, None, 10, "2134-08-19 05:00"),
        (1, "2134-08-18 06:00", oxycodone, None, "5-10 mg", None, 10, None),
        (1, "2134-08-18 06:00", "MIMIC_ITEM//220045", 80.0, None, "/min", 10, None),
        (1, "2134-08-18 07:00", insulin, 14.0, None, "[U]", 10, "2134-08-18 07:01"),
        (1, "2134-08-18 08:00", "MIMIC_ITEM//226559", 60.0, None, "mL", 10, None),
        (1, "2134-08-18 08:00", ventilation, None, None, None, 10, "2134-08-18 20:00"),
        (1, "2134-08-18 09:00", "MIMIC_MICRO//80026:90012", 1.0, "S", None, 10, None),
        (1, "2134-08-18 09:00", "MIMIC_MICRO//80026:90019", 4.0, "R", None, 10, None),
        (1, "2134-08-18 09:00", "MIMIC_MICRO//90039", None, "E. COLI", None, 10, None),
        (1, "2134-08-19 00:00", "ICD9PROC//39.61", None, None, None, 10, None),
        (1, "2134-08-23 19:35", "ICD9CM//250.00", None, None, None, 10, None),
        (1, "2134-08-23 19:35", "ICD9CM//E878.2", None, None, None, 10, None),
        (1, "2134-08-23 19:35", "VISIT_END//IMP", None, "HOME", None, 10, None),
        (1, "2134-09-18 04:00", "MIMIC_LAB//50902", None, "___", None, None, None),
        (1, "2137-09-02 00:00", "MEDS_DEATH", None, None, None, None, None),
        (2, None, "ETHNICITY//2135-2", None, None, None, None, None),
        (2, None, "GENDER//male", None, None, None, None, None),
        (2, "2059-01-01 00:00", "MEDS_BIRTH", None, None, None, None, None),
        (2, "2150-01-01 00:00", "VISIT_START//OBSENC", None, "DIRECT OBSERVATION", None, 20, None),
        (2, "2150-01-01 00:00", "ICD10PCS//02100Z9", None, None, None, 20, None),
        (2, "2150-01-01 00:00", "MIMIC_INSURANCE//Other", None, None, None, 20, None),
        (2, "2150-01-01 00:00", "MIMIC_MICRO//90039", None, "NO GROWTH.", None, None, None),
        (2, "2150-01-01 04:00", "MIMIC_LAB//51000", None, "HEMOLYZED.", None, None, None),
        (2, "2150-01-02 00:00", "ICD10CM//E11.22", None, None, None, 20, None),
        (2, "2150-01-02 00:00", "ICD10CM//I10", None, None, None, 20, None),
        (2, "2150-01-02 00:00", "VISIT_END//OBSENC", None, "DIED", None, 20, None),
        (2, "2150-01-02 00:00", "MEDS_DEATH", None, None, None, None, None),
    ]
    assert report.findings["table not used: caregiver"].count == 1
    described = dict(frame.select("code", "description").drop_nulls().rows())
    assert described["ICD9CM//250.00"] == "Diabetes"
    assert described["MIMIC_MICRO//80026:90012"] == "E. COLI, GENTA"


def test_recognises_by_names(write_source, samples):
    assert mimic.recognises(samples / "mimiciv_csv_10subjects")
    assert mimic.recognises(write_source("mimic"))
    assert not mimic.recognises(write_source("omop"))
    assert not mimic.recognises(write_source("synthea"))

import csv
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from ehrsim.errors import InputError, MissingExtraError
from ehrsim.importers import omop
from ehrsim.importers.report import ImportReport

FACTS = {
    "condition_occurrence": ("condition", "condition"),
    "procedure_occurrence": ("procedure", "procedure"),
    "drug_exposure": ("drug", "medication"),
    "device_exposure": ("device", "procedure"),
    "measurement": ("measurement", "observation"),
    "observation": ("observation", "observation"),
}
SYSTEMS = {"CPT4": "CPT", "ICD9Proc": "ICD9PROC", "RxNorm Extension": "RxNorm_Extension"}


def table(folder: Path, name: str) -> list[dict[str, str]]:
    path = next(path for path in folder.iterdir() if path.name.lower() == f"{name}.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def concepts_of(folder: Path) -> dict[str, str]:
    rows = table(folder, "concept")
    return {row["concept_id"]: SYSTEMS.get(row["vocabulary_id"], row["vocabulary_id"]) for row in rows}


def expected_counts(folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Kinds and code systems of the events of fact tables, counted row by row from the CSV files."""
    systems_of = concepts_of(folder) | {"0": ""}
    kinds: Counter[str] = Counter()
    systems: Counter[str] = Counter()
    for name, (domain, kind) in FACTS.items():
        for row in table(folder, name):
            source = systems_of.get(row[f"{domain}_source_concept_id"]) or f"OMOP_{domain.upper()}"
            system = systems_of.get(row[f"{domain}_concept_id"]) or source
            kinds["immunization" if system == "CVX" else kind] += 1
            systems[system] += 1
    return kinds, systems


@pytest.mark.parametrize("name", ["omop_synpuf50_5.2_csv", "omop_synthea27nj_5.4_csv"])
def test_counts_are_those_of_the_source_files(name, samples, run_import):
    folder = samples / name
    frame, report = run_import(folder, "omop")
    kinds, systems = expected_counts(folder)
    deaths, visits = table(folder, "death"), table(folder, "visit_occurrence")
    causes = sum(row["cause_concept_id"] not in ("", "0") for row in deaths)
    ends = len({row["person_id"] for row in table(folder, "observation_period")} - {row["person_id"] for row in deaths})
    assert report.subjects == len(table(folder, "person"))
    assert {kind: report.kinds.get(kind, 0) for kind in ("condition", "procedure", "medication", "immunization")} == {
        kind: kinds[kind] for kind in ("condition", "procedure", "medication", "immunization")
    }
    assert report.kinds["observation"] == kinds["observation"] + causes + ends
    assert report.kinds["death"] == len(deaths)
    assert report.kinds["visit_start"] == report.kinds["visit_end"] == len(visits)
    systems["LOINC"] += causes
    assert {system: report.systems.get(system, 0) for system in systems} == dict(systems)
    assert report.rows == sum(len(table(folder, name)) for name in omop.USED)
    assert all(reason.startswith("observation_period: ") for reason in report.skipped)
    assert sum(count.count for count in report.skipped.values()) == len(table(folder, "observation_period")) - ends
    with_values = table(folder, "measurement") + table(folder, "observation")
    measured = sum(bool(row["value_as_number"]) for row in with_values)
    assert frame["numeric_value"].count() == measured


def test_parquet_gives_the_events_of_csv(samples, run_import):
    from_csv, _ = run_import(samples / "omop_synthea27nj_5.4_csv", "omop")
    from_parquet, _ = run_import(samples / "omop_synthea27nj_5.4_parquet", "omop")
    assert from_csv.equals(from_parquet)


def test_duckdb_gives_the_events_of_csv(samples, run_import, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    folder = samples / "omop_synpuf50_5.2_csv"
    path = tmp_path / "synpuf.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("create schema cdm")
        for file in sorted(folder.glob("*.csv")):
            # Column types are DuckDB's own guess, as in a database that somebody loaded in a hurry.
            connection.execute(f"create table cdm.{file.stem.upper()} as from read_csv('{file}', sample_size=-1)")
    assert omop.recognises(path)
    from_csv, _ = run_import(folder, "omop")
    from_duckdb, _ = run_import(path, "omop")
    assert from_duckdb.drop("description").equals(from_csv.drop("description"))


def test_duckdb_file_that_is_none(tmp_path):
    path = tmp_path / "cdm.duckdb"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(InputError, match=r"cdm\.duckdb is not a readable DuckDB file"):
        list(omop.read(path, ImportReport("cdm", "omop")))


def test_duckdb_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "cdm.duckdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrsim\[duckdb\]'"):
        list(omop.read(tmp_path / "cdm.duckdb", ImportReport("cdm", "omop")))


def test_duckdb_without_people(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "cdm.duckdb"
    duckdb.connect(str(path)).close()
    with pytest.raises(InputError, match="holds 0 person tables"):
        list(omop.read(path, ImportReport("cdm", "omop")))


def test_golden(write_source, run_import):
    frame, report = run_import(write_source("omop"), "omop")
    columns = ("subject_id", "time", "code", "numeric_value", "text_value", "unit", "visit_id", "end_time")
    rows = frame.with_columns(pl.col("time", "end_time").dt.to_string("%Y-%m-%d %H:%M:%S")).select(columns).rows()
    assert rows == [
        (1, None, "ETHNICITY//2186-5", None, None, None, None, None),
        (1, None, "GENDER//male", None, None, None, None, None),
        (1, None, "RACE//2106-3", None, None, None, None, None),
        (1, "1950-03-04 05:06:07", "MEDS_BIRTH", None, None, None, None, None),
        (1, "2010-01-02 00:00:00", "SNOMED//44054006", None, None, None, 10, "2010-02-01 00:00:00"),
        (1, "2010-01-02 03:04:05", "VISIT_START//IMP", None, None, None, 10, None),
        (1, "2010-01-03 00:00:00", "ICD9CM//250.00", None, None, None, 10, None),
        (1, "2010-01-03 00:00:00", "RxNorm//314076", None, None, None, 10, "2010-01-10 00:00:00"),
        (1, "2010-01-03 07:08:09", "LOINC//4548-4", 6.5, "<", "%", 10, None),
        (1, "2010-01-04 00:00:00", "LOINC//4548-4", None, "LOINC//LA6576-8", None, 10, None),
        (1, "2010-01-05 00:00:00", "VISIT_END//IMP", None, "home", None, 10, None),
        (1, "2011-05-06 00:00:00", "LOINC//69453-9", None, "SNOMED//44054006", None, None, None),
        (1, "2011-05-06 00:00:00", "MEDS_DEATH", None, None, None, None, None),
        (2, None, "GENDER//female", None, None, None, None, None),
        (2, None, "RACE//Martian", None, None, None, None, None),
        (2, "1960-01-01 00:00:00", "MEDS_BIRTH", None, None, None, None, None),
        (2, "2012-01-01 00:00:00", "VISIT_START//UNKNOWN", None, None, None, 11, None),
        (2, "2012-01-01 00:00:00", "CONDITION//OMOP_CONDITION//Z99X", None, None, None, 11, None),
        (2, "2012-01-01 00:00:00", "CVX//140", None, None, None, None, "2012-01-01 00:00:00"),
        (2, "2014-12-31 23:59:59", "OBSERVATION_END", None, None, None, None, None),
    ]
    assert report.findings["table not used: note"].count == 1
    assert report.changed["person: month or day of birth unknown, the first taken"].count == 1
    assert any("condition_start_datetime is not on condition_start_date" in reason for reason in report.changed)
    described = dict(frame.select("code", "description").drop_nulls().rows())
    assert described["SNOMED//44054006"] == "Type 2 diabetes mellitus"


def test_tab_separated_vocabulary_with_lone_quotes(write_source, run_import):
    concepts = 'concept_id\tconcept_name\tvocabulary_id\tconcept_code\n201826\tType "2 diabetes\tSNOMED\t44054006\n'
    frame, _ = run_import(write_source("omop", CONCEPT=concepts), "omop")
    names = frame.filter(pl.col("code") == "SNOMED//44054006")["description"]
    assert names.to_list() == ['Type "2 diabetes']


def test_without_concepts_the_source_values_stay(write_source, run_import):
    folder = write_source("omop")
    (folder / "CONCEPT.csv").unlink()
    frame, report = run_import(folder, "omop")
    assert "no concept table: codes are the source's own values" in report.findings
    assert "CONDITION//OMOP_CONDITION//250.00" in frame["code"]
    assert "MEDICATION//OMOP//19078106" in frame["code"]


def test_end_date_on_the_day_of_a_timed_start_is_not_before_it(write_source, run_import):
    visits = (
        "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_start_datetime,visit_end_date\n"
        "10,1,9202,2010-01-02,2010-01-02 09:30:00,2010-01-02\n"
    )
    frame, report = run_import(write_source("omop", VISIT_OCCURRENCE=visits), "omop")
    ends = frame.filter(pl.col("code") == "VISIT_END//AMB")["time"]
    assert ends.dt.to_string("%H:%M").to_list() == ["09:30"]
    assert not any(reason.startswith("visit_occurrence") for reason in report.skipped)


def test_two_files_for_one_table_are_refused(write_source):
    folder = write_source("omop")
    (folder / "person.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="two files hold the table person"):
        list(omop.read(folder, ImportReport("omop", "omop")))


def test_recognises_by_names(write_source, tmp_path):
    assert omop.recognises(write_source("omop"))
    assert not omop.recognises(write_source("mimic"))
    assert not omop.recognises(tmp_path)

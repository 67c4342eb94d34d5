"""Crosswalks: further codes beside the original ones, in every format, and files that do not fit."""

from pathlib import Path

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import cli, events
from ehrsim.errors import FormatError, InputError
from ehrsim.fhir import export_fhir, validate_fhir
from ehrsim.fhir.crosswalk import Target, read_crosswalks
from ehrsim.importers import import_events

PAIRS = """source_code,target_code,target_description
ICD10CM//E11.9,SNOMED//44054006,Diabetes mellitus type 2
ICD10CM//E11.9,ICD9CM//250.00,
ICD10CM//I10,SNOMED//59621000,Essential hypertension
PROCEDURE//SNOMED//80146002,ICD10PCS//0DTJ4ZZ,
RxNorm//860975,ATC//A10BA02,metformin
DRUG//metformin,RxNorm//6809,
CVX//140,SNOMED//836377006,
ALLERGY//SNOMED//256277009,RxNorm//1,
PANEL//LOINC//58410-2,SNOMED//26604007,
CAREPLAN//SNOMED//386257007,ICD10CM//Z71.9,
LOINC//4548-4,SNOMED//43396009,
LAB RESULT//x/y,LOINC//2345-7,Glucose
NOSYSTEM,LOINC//8331-1,
OBSERVATION//SNOMED//413077008,LOINC//8867-4,Heart rate
VISIT_TYPE//SNOMED//32485007,HCPCS//G0378,
"""


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(PAIRS)
    return path


def _concepts(resources):
    """Lists of (code, display, chosen) by the first code of each concept that has several codes."""
    found = {}

    def look(value):
        if isinstance(value, dict):
            codings = value.get("coding", [])
            if len(codings) > 1:
                told = [(one["code"], one.get("display"), one.get("userSelected")) for one in codings]
                found[told[0][0]] = told
            for member in value.values():
                look(member)
        elif isinstance(value, list):
            for member in value:
                look(member)

    look(resources)
    return found


@pytest.mark.parametrize("format", ["ndjson", "transaction", "collection", "ips"])
def test_further_codes_stand_beside_the_original(format, every_row, pairs, resources_in, tmp_path):
    report = export_fhir(every_row, tmp_path / "out", format=format, crosswalk=[pairs], validate="full")
    found = _concepts(resources_in(tmp_path / "out"))
    assert found["E11.9"] == [
        ("E11.9", "Type 2 diabetes", True),
        ("44054006", "Diabetes mellitus type 2", None),
        ("250.00", None, None),
    ]
    assert found["x/y"] == [("x/y", "x/y", True), ("2345-7", "Glucose", None)]
    ended = {"860975", "386257007"} if format == "ips" else set()
    assert {"80146002", "860975", "140", "256277009", "58410-2", "386257007", "4548-4"} - ended <= found.keys()
    assert (report.mapped_codes, report.mappable_codes) == (14, 14)
    sources = [line.partition(",")[0] for line in PAIRS.splitlines()] + ["REASON//ICD10CM//I10"]
    assert report.mapped_events == every_row["code"].is_in(sources).sum()
    assert validate_fhir(tmp_path / "out", "full").ok


@pytest.mark.parametrize("format", ["ndjson", "collection"])
def test_an_import_takes_the_original(format, every_row, pairs, tmp_path):
    export_fhir(every_row, tmp_path / "fhir", format=format, crosswalk=[pairs])
    import_events(tmp_path / "fhir", tmp_path / "events", identified=True)
    columns = list(events.SCHEMA)
    again = events.sort(ehrsim.read_events(tmp_path / "events").select(columns)).collect()
    assert again.equals(every_row.select(columns))


def test_an_observation_is_what_its_further_code_asks_for(every_row, pairs, tmp_path):
    """A local or SNOMED CT code with one of LOINC beside it has the category and profile of that."""
    rows = pl.DataFrame(
        {
            "subject_id": [1, 1],
            "time": [every_row["time"].max()] * 2,
            "code": ["LAB RESULT//x/y", "OBSERVATION//SNOMED//413077008"],
            "numeric_value": [5.5, 70.0],
            "unit": ["mmol/L", "/min"],
        }
    )
    export_fhir(rows, tmp_path / "out", crosswalk=[pairs], validate="full")
    lab, rate = [orjson.loads(line) for line in (tmp_path / "out" / "Observation.ndjson").read_bytes().splitlines()]
    assert lab["category"][0]["coding"][0]["code"] == "laboratory"
    assert rate["category"][0]["coding"][0]["code"] == "vital-signs"
    assert [one["meta"]["profile"][0].rpartition("/")[2] for one in (lab, rate)] == [
        "us-core-observation-lab",
        "us-core-heart-rate",
    ]


def test_without_a_crosswalk_nothing_is_marked(every_row, tmp_path):
    report = export_fhir(every_row, tmp_path / "out")
    assert not any(b"userSelected" in path.read_bytes() for path in (tmp_path / "out").glob("*.ndjson"))
    assert not any("crosswalk" in line for line in report.lines())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "pairs.csv is empty"),
        ("source_code,target_code\n", "pairs.csv has no rows"),
        ("source,target_code\na,b\n", "has no column source_code, only source, target_code"),
        ("source_code,target\na,b\n", "has no column target_code"),
        ("source_code,target_code\n,SNOMED//44054006\n", "row 2: source_code is empty"),
        ("source_code,target_code\nICD10CM//E11.9,\n", "row 2: target_code is empty"),
        (
            "source_code,target_code\nICD10CM//E11.9,SNOMDE//44054006\n",
            "row 2: target_code `SNOMDE//44054006` is of no",
        ),
        ("source_code,target_code\nICD10CM//E11.9,44054006\n", "row 2: target_code `44054006` is of no known system"),
        ("source_code,target_code\nICD10CM//E11.9,SNOMED//44054007\n", "cannot be a code of SNOMED"),
        ("source_code,target_code\nGENDER//male,SNOMED//44054006\n", "`GENDER//male` is no code that can have another"),
        ("source_code,target_code\nLOINC//8480-6,SNOMED//271649006\n", "is of blood pressures"),
        ("source_code,target_code\nx//y,LOINC//85354-9\n", "is observed in components only"),
        (
            "source_code,target_code\nx//y,SNOMED//44054006\nx//y,SNOMED//44054006\n",
            "row 3: source_code `x//y` is target_code `SNOMED//44054006`, given twice",
        ),
        (
            "source_code,target_code\nx//y,SNOMED//44054006\nx//y,SNOMED//73211009\n",
            "row 3: source_code `x//y` is target_code `SNOMED//73211009`, also SNOMED//44054006",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_row(content, problem, every_row, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    with pytest.raises((FormatError, InputError), match=problem):
        export_fhir(every_row, tmp_path / "out", crosswalk=[path])
    assert not (tmp_path / "out").exists()


def test_several_files_are_one_table(tmp_path):
    pl.DataFrame({"source_code": ["a//b"], "target_code": ["LOINC//2345-7"]}).write_parquet(tmp_path / "one.parquet")
    (tmp_path / "two.csv").write_text("target_code,source_code\nSNOMED//44054006,a//b\n")
    both = read_crosswalks([tmp_path / "one.parquet", tmp_path / "two.csv"])
    assert [one.system for one in both.of("observation", "a", "b")] == ["LOINC", "SNOMED"]
    (tmp_path / "two.csv").write_text("target_code,source_code\nLOINC//4548-4,a//b\n")
    with pytest.raises(FormatError, match=r"two\.csv row 2: .* also LOINC//2345-7"):
        read_crosswalks([tmp_path / "one.parquet", tmp_path / "two.csv"])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv cannot be read"):
        read_crosswalks([tmp_path / "absent.csv"])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(FormatError, match=r"broken\.parquet is not valid Parquet"):
        read_crosswalks([tmp_path / "broken.parquet"])


def test_the_recipe_of_the_documentation_pairs_what_has_one_meaning(tmp_path, monkeypatch):
    """On lines in the layout of MRCONSO.RRF: one code with one partner, one with two, one that is suppressed."""
    rows = [
        ("C1", "ICD10CM", "PT", "E11.9", 'Type 2 "diabetes"', "N"),
        ("C1", "SNOMEDCT_US", "PT", "44054006", "Diabetes mellitus type 2", "N"),
        ("C1", "SNOMEDCT_US", "SY", "44054006", "Type II diabetes", "N"),
        ("C2", "ICD10CM", "PT", "I10", "Hypertension", "N"),
        ("C2", "SNOMEDCT_US", "PT", "59621000", "Essential hypertension", "N"),
        ("C2", "SNOMEDCT_US", "PT", "38341003", "Hypertensive disorder", "N"),
        ("C3", "ICD10CM", "PT", "J45.909", "Asthma", "N"),
        ("C3", "SNOMEDCT_US", "PT", "195967001", "Asthma", "O"),
    ]
    lines = [
        f"{cui}|ENG|P|L|PF|S|Y|A||||{sab}|{tty}|{code}|{name}|0|{hidden}||"
        for cui, sab, tty, code, name, hidden in rows
    ]
    (tmp_path / "MRCONSO.RRF").write_text("\n".join(lines) + "\n")
    blocks = (Path(__file__).parents[2] / "docs" / "fhir.md").read_text().split("```python\n")[1:]
    (recipe,) = [block.partition("```")[0] for block in blocks if "MRCONSO" in block.partition("```")[0]]
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    (pair,) = read_crosswalks(["pairs.csv"]).targets.items()
    assert pair == (("ICD10CM", "E11.9"), (Target("SNOMED", "44054006", "Diabetes mellitus type 2"),))


def test_the_command_takes_several(every_row, pairs, tmp_path, capsys):
    every_row.write_parquet(tmp_path / "events.parquet")
    (tmp_path / "more.csv").write_text("source_code,target_code\nICD9CM//250.00,SNOMED//44054006\n")
    files = ["--crosswalk", str(pairs), "--crosswalk", str(tmp_path / "more.csv")]
    assert cli.run(["export", str(tmp_path / "events.parquet"), "--out", str(tmp_path / "out"), *files]) == 0
    assert "by 15 of the 15 codes of the crosswalk" in capsys.readouterr().out

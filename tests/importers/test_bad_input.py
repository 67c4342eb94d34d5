"""Bad sources of every table format: one clear error that names the file, or a counted report; never half a result."""

import gzip
import random

import polars as pl
import pytest

from ehrsim.errors import FormatError, InputError
from ehrsim.importers import detect

FACT_TABLE = {"omop": "MEASUREMENT", "mimic": "labevents", "synthea": "observations", "table": "labs"}
PEOPLE_TABLE = {"omop": "PERSON", "mimic": "patients", "synthea": "patients", "table": "people"}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00" + bytes(range(256))


def many_rows(content: bytes) -> bytes:
    header, *rows = content.splitlines(keepends=True)
    return header + b"".join(rows) * 500


def compressed(content: bytes) -> bytes:
    # Rows that compress badly, so that half of the file is well inside its data.
    noise = random.Random(1)
    lines = many_rows(content).splitlines()
    return gzip.compress(b"\n".join([lines[0], *(line + b"%d" % noise.getrandbits(64) for line in lines[1:])]), mtime=0)


def garbled(content: bytes) -> bytes:
    whole = compressed(content)
    middle = len(whole) // 2
    return whole[:middle] + bytes(byte ^ 0x55 for byte in whole[middle : middle + 64]) + whole[middle + 64 :]


CORRUPTIONS = {
    "truncated gzip": (lambda content: compressed(content)[:-400], "ends in the middle of its compressed data"),
    "garbled gzip": (garbled, ".csv"),
    "empty": (lambda content: b"", "is empty"),
    "wrong header": (lambda content: b"one,two\n1,2\n", "column `"),
    "not UTF-8 in a cell": (lambda content: many_rows(content).replace(b"1,", b"\xe9,", 3), "is not UTF-8 text"),
    "not UTF-8 in the header": (lambda content: content.replace(b"e", b"\xe9", 2), "not UTF-8 text"),
    "too many cells": (lambda content: content + b"1" + b",1" * 60 + b"\n", "more cells than its header"),
    "quote that never ends": (lambda content: content + b'"1,2\n' * 3, "quoted cell that never ends"),
    "an image": (lambda content: PNG, "not"),
    "a line without an end": (lambda content: b"a" * (1 << 21), "first line is longer than"),
}


@pytest.mark.parametrize("format", FACT_TABLE)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corrupt_file_gives_one_error_that_names_it(format, corruption, write_source, run_import, tmp_path):
    corrupt, message = CORRUPTIONS[corruption]
    name = FACT_TABLE[format]
    source = write_source(format)
    (path,) = (source.parent if source.is_file() else source).rglob(f"{name}.csv")
    path.write_bytes(corrupt(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        run_import(source, format)
    assert message in caught.value.message
    assert path.name in caught.value.message
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", ["omop", "mimic", "synthea"])
def test_folder_without_the_table_of_people(format, write_source, run_import):
    source = write_source(format)
    (path,) = source.rglob(f"{PEOPLE_TABLE[format]}.csv")
    path.unlink()
    with pytest.raises(InputError, match=r"holds no (person|patients) table"):
        run_import(source, format)


@pytest.mark.parametrize("format", ["omop", "mimic", "synthea"])
def test_folder_of_images(format, run_import, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(PNG)
    with pytest.raises(InputError, match="images holds no"):
        run_import(folder, format)


@pytest.mark.parametrize("format", FACT_TABLE)
def test_header_alone_imports_the_rest(format, write_source, run_import):
    source = write_source(format)
    (path,) = (source.parent if source.is_file() else source).rglob(f"{FACT_TABLE[format]}.csv")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    frame, _ = run_import(source, format)
    assert frame["subject_id"].n_unique() == 2


@pytest.mark.parametrize("content", [b"PAR1 and nothing else", b"", PNG])
def test_parquet_that_is_none(content, write_source, run_import):
    source = write_source("omop")
    (source / "MEASUREMENT.csv").unlink()
    (source / "measurement.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"measurement\.parquet"):
        run_import(source, "omop")


def test_nested_parquet_column_is_of_no_use(write_source, run_import):
    source = write_source("omop")
    (source / "DEATH.csv").unlink()
    pl.DataFrame({"person_id": [1], "death_date": [["2011-01-01"]]}).write_parquet(source / "death.parquet")
    with pytest.raises(InputError, match=r"death\.parquet: column `death_date` has type List"):
        run_import(source, "omop")


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("person_id", [True], "person_id is not a whole number"),
        ("measurement_date", [2.5], "measurement_date is not a date or time"),
        ("measurement_concept_id", [2.5], "measurement_concept_id is not a whole number"),
    ],
)
def test_parquet_column_of_the_wrong_type_is_counted(column, values, reason, write_source, run_import):
    source = write_source("omop")
    (source / "MEASUREMENT.csv").unlink()
    row = {"person_id": [1], "measurement_concept_id": [3004410], "measurement_date": ["2010-01-01"]}
    pl.DataFrame(row | {column: values}).write_parquet(source / "measurement.parquet")
    _, report = run_import(source, "omop")
    assert any(reason in what for what in (*report.skipped, *report.changed)), report


LAB = "labevent_id,subject_id,hadm_id,itemid,charttime,value,valuenum,valueuom\n"
MEASUREMENT = "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,visit_occurrence_id\n"
OBSERVATION = "DATE,PATIENT,ENCOUNTER,CODE,DESCRIPTION,VALUE,UNITS,TYPE\n"
LABS = "id,day,clock,stay,loinc,value,unit,name,status\n"
PERSON = "person_id,gender_concept_id,year_of_birth\n"
PATIENTS = "subject_id,gender,anchor_age,anchor_year,dod\n"
SKIPPED = {
    "omop: unknown person": ("omop", "MEASUREMENT", MEASUREMENT + "1,99,3004410,2010-01-01,1,\n", "not in the person"),
    "omop: no person": ("omop", "MEASUREMENT", MEASUREMENT + "1,,3004410,2010-01-01,1,\n", "no person_id"),
    "omop: person is a word": ("omop", "MEASUREMENT", MEASUREMENT + "1,x,3004410,2010-01-01,1,\n", "whole number"),
    "omop: no date": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,,1,\n", "no measurement_date"),
    "omop: 30 February": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,2010-02-30,1,\n", "is not a date"),
    "omop: year 0": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,0000-01-01,1,\n", "is not a date"),
    "omop: year 9999": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,9999-12-31,1,\n", "time outside"),
    "omop: no concept": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,0,2010-01-01,1,\n", "no concept and no source"),
    "omop: duplicate person": ("omop", "PERSON", PERSON + "1,8507,1950\n1,8507,1951\n2,8532,1960\n", "duplicate"),
    "omop: year of birth 0": ("omop", "PERSON", PERSON + "1,8507,0\n2,8532,1960\n", "no usable date of birth"),
    "mimic: negative age": ("mimic", "patients", PATIENTS + "1,F,-3,2134,\n2,M,50,2150,\n", "no usable anchor_age"),
    "mimic: duplicate patient": (
        "mimic",
        "patients",
        PATIENTS + "1,F,3,2134,\n1,F,3,2134,\n2,M,5,2150,\n",
        "duplicate",
    ),
    "mimic: unknown patient": ("mimic", "labevents", LAB + "1,99,,50902,2134-01-01,1,1,g\n", "not in the patients"),
    "mimic: no time": ("mimic", "labevents", LAB + "1,1,,50902,,1,1,g\n", "no charttime"),
    "mimic: time is a word": ("mimic", "labevents", LAB + "1,1,,50902,noon,1,1,g\n", "charttime is not a date"),
    "mimic: item is a word": ("mimic", "labevents", LAB + "1,1,,salt,2134-01-01,1,1,g\n", "itemid is not a whole"),
    "synthea: unknown patient": ("synthea", "observations", OBSERVATION + "2010-01-01,x,,1-8,,1,,numeric\n", "not in"),
    "synthea: no code": ("synthea", "observations", OBSERVATION + "2010-01-01,aa-1,,,,1,,numeric\n", "no code"),
    "synthea: bad time": ("synthea", "observations", OBSERVATION + "soon,aa-1,,1-8,,1,,numeric\n", "not a date"),
    "table: no subject": ("table", "labs", LABS + ",03.02.2001,10:20,,1-8,1,,,\n", "no subject_id"),
    "table: no time": ("table", "labs", LABS + "1,03.02.2001,,,1-8,1,,,\n", "no time"),
    "table: other format": ("table", "labs", LABS + "1,2001-02-03,10:20,,1-8,1,,,\n", "time is not a date"),
    "table: no code": ("table", "labs", LABS + "1,03.02.2001,10:20,,,1,,,\n", "no code"),
    "table: no value": ("table", "labs", LABS + "1,03.02.2001,10:20,,1-8,,,,\n", "no value"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_bad_row_is_left_out_and_counted(case, write_source, run_import):
    format, name, content, reason = SKIPPED[case]
    _, report = run_import(write_source(format, **{name: content}), format)
    counts = [count for what, count in report.skipped.items() if reason in what]
    assert [count.count for count in counts] == [1], report.skipped
    assert counts[0].example


CHANGED = {
    "omop: not a number": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,2010-01-01,high,\n", "is not a number"),
    "omop: NaN": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,2010-01-01,NaN,\n", "NaN or infinite"),
    "omop: infinite": ("omop", "MEASUREMENT", MEASUREMENT + "1,1,3004410,2010-01-01,-inf,\n", "NaN or infinite"),
    "omop: visit is a word": (
        "omop",
        "MEASUREMENT",
        MEASUREMENT + "1,1,3004410,2010-01-01,1,x\n",
        "visit_occurrence_id",
    ),
    "mimic: not a number": ("mimic", "labevents", LAB + "1,1,,50902,2134-01-01,1,high,g\n", "valuenum is not a number"),
    "mimic: stray admission": ("mimic", "labevents", LAB + "1,1,77,50902,2134-01-01,1,1,g\n", "no admission of the"),
    "synthea: not a number": (
        "synthea",
        "observations",
        OBSERVATION + "2010-01-01,aa-1,,1234-5,,high,,numeric\n",
        "kept as text",
    ),
    "table: unknown word": ("table", "people", "id,sex,born\n1,7,1950-01-02\n2,2,1960-01-01\n", "not in map `sexes`"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_bad_cell_is_taken_off_and_counted(case, write_source, run_import):
    format, name, content, reason = CHANGED[case]
    _, report = run_import(write_source(format, **{name: content}), format)
    counts = [count for what, count in report.changed.items() if reason in what]
    assert [count.count for count in counts] == [1], report.changed


def test_no_usable_row_at_all(run_import, tmp_path):
    (tmp_path / "person.csv").write_text(PERSON + "x,8507,1950\n")
    with pytest.raises(InputError, match="no usable event") as caught:
        run_import(tmp_path, "omop")
    assert "person_id is not a whole number" in (caught.value.hint or "")
    assert list((tmp_path / "out").iterdir()) == []


def test_folder_of_no_known_format(tmp_path):
    (tmp_path / "picture.png").write_bytes(PNG)
    with pytest.raises(FormatError, match="is in no format known here"):
        detect(tmp_path)


@pytest.mark.parametrize("format", FACT_TABLE)
def test_format_is_detected(format, write_source):
    assert detect(write_source(format)) == format

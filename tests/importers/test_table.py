import polars as pl
import pytest

from ehrsim.errors import InputError
from ehrsim.importers import table
from ehrsim.importers.report import ImportReport
from ehrsim.importers.table_mapping import Cell, parse_template

SYNTHEA_MAPPING = """
[maps.sexes]
M = "male"
F = "female"

[[tables]]
file = "{folder}/patients.csv"
subject_id = "{{Id}}"
[[tables.events]]
code = "GENDER//{{GENDER|sexes}}"
static = true
[[tables.events]]
code = "MEDS_BIRTH"
time = "{{BIRTHDATE}}"

[[tables]]
file = "{folder}/observations.csv"
subject_id = "{{PATIENT}}"
time = "{{DATE}}"
visit_id = "{{ENCOUNTER}}"
[[tables.events]]
code = "LOINC//{{CODE}}"
numeric_value = "{{VALUE}}"
unit = "{{UNITS}}"
description = "{{DESCRIPTION}}"
where = [
    {{ column = "TYPE", equals = "numeric" }},
    {{ column = "CODE", not_equals = ["QALY", "DALY", "QOLS"] }},
]
[[tables.events]]
code = "LOINC//{{CODE}}"
text_value = "{{VALUE}}"
description = "{{DESCRIPTION}}"
where = [{{ column = "TYPE", equals = "text" }}]

[[tables]]
file = "{folder}/medications.csv"
subject_id = "{{PATIENT}}"
time = "{{START}}"
end_time = "{{STOP}}"
visit_id = "{{ENCOUNTER}}"
[[tables.events]]
code = "RxNorm//{{CODE}}"
end_time = "{{STOP}}"
description = "{{DESCRIPTION}}"
"""
WIDE_MAPPING = """
[[tables]]
file = "chart*.csv"
subject_id = "{patient}"
time = "{minute}"
time_unit = "minutes"
origin = "2020-01-01"
visit_id = "{patient}-{stay}"
null_values = ["", "-"]
[[tables.events]]
code = "VISIT_START//IMP"
where = [{ column = "minute", equals = "0" }]
[[tables.events]]
code = "LOINC//8867-4"
numeric_value = "{heart rate (bpm)}"
unit = "/min"
[[tables.events]]
code = "LOINC//9269-2"
numeric_value = "{gcs}"
unit = "{{score}}"
[[tables.events]]
code = "ICU//RHYTHM"
text_value = "{rhythm}"
where = [{ column = "rhythm", present = true }]
[[tables.events]]
code = "GENDER//{sex}"
static = true
"""
CHART = """patient,stay,minute,heart rate (bpm),gcs,rhythm,sex
1,1,0,80,15,sinus,male
1,1,60,-,14,,male
1,1,90.5,85,,AF,male
2,7,0,70,oops,sinus,female
"""


def test_maps_synthea_to_the_events_of_its_importer(samples, run_import, tmp_path):
    folder = samples / "synthea_csv_27patients"
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(SYNTHEA_MAPPING.format(folder=folder).replace('end_time = "{STOP}"\nvisit_id', "visit_id"))
    mapped, report = run_import(mapping, "table")
    imported, _ = run_import(folder, "synthea")
    wanted = pl.col("code").str.contains("^(GENDER|LOINC|RxNorm)//") | (pl.col("code") == "MEDS_BIRTH")
    assert mapped.height > 1600
    assert mapped.equals(imported.filter(wanted))
    assert report.skipped["tables[1].events[1] (observations.csv): left out by where on `TYPE`"].count == 599


def test_wide_table_makes_an_event_for_each_filled_cell(run_import, tmp_path):
    (tmp_path / "chart.csv").write_text(CHART)
    (tmp_path / "mapping.toml").write_text(WIDE_MAPPING)
    frame, report = run_import(tmp_path / "mapping.toml", "table")
    moments = frame.with_columns(pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"))
    assert moments.select("subject_id", "time", "code", "numeric_value", "text_value", "unit").rows() == [
        (1, None, "GENDER//male", None, None, None),
        (1, "2020-01-01 00:00:00", "VISIT_START//IMP", None, None, None),
        (1, "2020-01-01 00:00:00", "ICU//RHYTHM", None, "sinus", None),
        (1, "2020-01-01 00:00:00", "LOINC//8867-4", 80.0, None, "/min"),
        (1, "2020-01-01 00:00:00", "LOINC//9269-2", 15.0, None, "{score}"),
        (1, "2020-01-01 01:00:00", "LOINC//9269-2", 14.0, None, "{score}"),
        (1, "2020-01-01 01:30:30", "ICU//RHYTHM", None, "AF", None),
        (1, "2020-01-01 01:30:30", "LOINC//8867-4", 85.0, None, "/min"),
        (2, None, "GENDER//female", None, None, None),
        (2, "2020-01-01 00:00:00", "VISIT_START//IMP", None, None, None),
        (2, "2020-01-01 00:00:00", "ICU//RHYTHM", None, "sinus", None),
        (2, "2020-01-01 00:00:00", "LOINC//8867-4", 70.0, None, "/min"),
    ]
    assert frame.drop_nulls("visit_id")["visit_id"].n_unique() == 2
    assert report.changed["tables[0].events[2] (chart.csv): numeric_value is not a number, removed"].example == "`oops`"
    assert report.skipped["tables[0].events[2] (chart.csv): no value"].count == 2
    assert report.findings["repeated static or `once` events, kept once"].count == 2


def test_parquet_gives_the_events_of_csv(run_import, tmp_path):
    (tmp_path / "mapping.toml").write_text(WIDE_MAPPING.replace("chart*.csv", "part-*.parquet"))
    whole = pl.read_csv(CHART.encode(), null_values=["-", "oops"])
    whole.head(2).write_parquet(tmp_path / "part-0.parquet")
    whole.tail(2).write_parquet(tmp_path / "part-1.parquet")
    (tmp_path / "chart.csv").write_text(CHART)
    (tmp_path / "csv.toml").write_text(WIDE_MAPPING)
    from_parquet, report = run_import(tmp_path / "mapping.toml", "table")
    from_csv, _ = run_import(tmp_path / "csv.toml", "table")
    assert report.files == 2
    assert from_parquet.equals(from_csv)


def test_golden(write_source, run_import):
    frame, report = run_import(write_source("table"), "table")
    moments = frame.with_columns(pl.col("time").dt.to_string("%Y-%m-%d %H:%M"))
    assert moments.select("subject_id", "time", "code", "numeric_value", "unit", "visit_id", "description").rows() == [
        (1, None, "GENDER//male", None, None, None, None),
        (1, "1950-01-02 00:00", "MEDS_BIRTH", None, None, None, None),
        (1, "2001-02-03 10:20", "LOINC//2345-7", 90.0, "mg/dL", 7, "Glucose"),
        (2, None, "GENDER//female", None, None, None, None),
        (2, "1960-02-03 00:00", "MEDS_BIRTH", None, None, None, None),
        (2, "2001-02-04 10:20", "LOINC//718-7", 13.5, "g/dL", None, "Hemoglobin"),
    ]
    assert report.skipped["tables[1] (labs.csv): left out by where on `status`"].count == 1


def test_static_facts_are_kept_once_across_batches(run_import, tmp_path, monkeypatch):
    monkeypatch.setattr("ehrsim.importers.tables.BATCH_ROWS", 1)
    (tmp_path / "chart.csv").write_text(CHART)
    (tmp_path / "mapping.toml").write_text(WIDE_MAPPING)
    frame, _ = run_import(tmp_path / "mapping.toml", "table")
    assert frame.filter(pl.col("time").is_null())["code"].to_list() == ["GENDER//male", "GENDER//female"]


def test_map_with_a_word_for_all_others(write_source, run_import):
    source = write_source("table", people="id,sex,born\n1,9,1950-01-02\n2,2,1960-02-03\n")
    source.write_text(source.read_text().replace('2 = "female"', '2 = "female"\n"*" = "other"'))
    frame, _ = run_import(source, "table")
    assert frame["code"].head(1).to_list() == ["GENDER//other"]


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ('"{value}"', '"{vlaue}"', r"tables\[1\].events\[0\].numeric_value names column `vlaue`.*labs\.csv", "`value`"),
        ('"{id}"\n[[', '"{ID}"\n[[', r"tables\[0\].subject_id names column `ID`.*people\.csv", None),
        ('column = "status"', 'column = "sttus"', r"tables\[1\].where names column `sttus`", "`status`"),
        ("numeric_value", "numeric_vale", r"unknown field `numeric_vale`.*tables\[1\].events\[0\]", "`numeric_value`"),
        ("static = true", 'static = "yes"', r"Expected `bool`, got `str`.*tables\[0\].events\[0\].static", None),
        ("labs.csv", "lab.csv", r"tables\[1\].file: .*lab\.csv does not exist", "`labs.csv`"),
        ("labs.csv", "labs-*.csv", r"tables\[1\].file: no file matches `labs-\*\.csv`", "relative"),
        ("|sexes}", "|sex}", r"tables\[0\].events\[0\].code uses the map `sex`", "`sexes`"),
        ("{loinc}", "{loinc", r"tables\[1\].events\[0\].code: a lone `\{` in `LOINC//\{loinc`", "{{"),
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %I", r"tables\[1\].time_format `%d.%m.%Y %I` is no strptime format", None),
        ('time = "{born}"\n', "", r"tables\[0\].events\[1\] has no time", "static"),
        (', not_equals = "cancelled"', "", r"tables\[1\].where on `status` has 0 conditions", "one of"),
        ("[maps.sexes]", "[maps.sexes", "is not valid TOML", None),
    ],
)
def test_mistakes_in_the_mapping_name_the_key(old, new, message, hint, write_source, run_import, tmp_path):
    source = write_source("table")
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        run_import(source, "table")
    assert "mapping.toml" in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
    assert list((tmp_path / "out").iterdir()) == []


def test_mapping_that_is_no_text(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mapping\.toml is not UTF-8 text"):
        list(table.read(path, ImportReport("mapping.toml", "table")))


def test_schema_describes_every_key():
    schema = table.mapping_schema()
    assert set(schema["$defs"]) == {"Mapping", "TableMapping", "EventMapping", "Where"}
    assert schema["$defs"]["TableMapping"]["required"] == ["file", "subject_id", "events"]
    assert "description" in schema["$defs"]["EventMapping"]["properties"]["code"]


def test_braces_in_templates():
    assert parse_template("{a b}//{c|m}{{x}}", "key") == [Cell("a b", None), "//", Cell("c", "m"), "{", "x", "}"]
    with pytest.raises(InputError, match="a lone `}`"):
        parse_template("x}", "key")


def test_recognises_toml_files_only(write_source, tmp_path):
    assert table.recognises(write_source("table"))
    assert not table.recognises(tmp_path)
    assert not table.recognises(tmp_path / "none.toml")

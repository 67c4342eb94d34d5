"""Ids, concepts, standard vocabularies, and what the report says."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ehrsim import events, reference
from ehrsim.errors import InputError, UsageError
from ehrsim.omop import export_omop, identifiers
from ehrsim.omop.concepts import FIRST_LOCAL, local_ids
from ehrsim.omop.definitions import TABLES

DAY = datetime(2020, 1, 1, 9)
KEYED = [name for name, table in TABLES.items() if table.key and "person_id" in table.schema]


def frame(*rows: dict) -> pl.DataFrame:
    table = pl.DataFrame([{"subject_id": 1, "time": DAY, **row} for row in rows], infer_schema_length=None)
    return events.sort(events.conform(table).lazy()).collect()


def export(table: pl.DataFrame, folder: Path, **options):
    report = export_omop(table, folder, format="parquet", overwrite=True, **options)
    return {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES}, report


def test_rows_of_a_subject_are_the_same_whoever_else_is_exported(tmp_path):
    table = reference.population(30, seed=2)
    whole, _ = export(table, tmp_path / "whole")
    chosen = [3, 17, 29]
    few, _ = export(table.filter(pl.col("subject_id").is_in(chosen)), tmp_path / "few")
    shuffled = pl.concat([table.filter(pl.col("subject_id") == subject) for subject in reversed(range(31))])
    other, _ = export(shuffled, tmp_path / "other")
    for name in KEYED:
        assert few[name].equals(whole[name].filter(pl.col("person_id").is_in(chosen))), name
        assert other[name].sort(TABLES[name].key).equals(whole[name].sort(TABLES[name].key)), name
    assert (
        few["concept"]
        .join(whole["concept"], on=few["concept"].columns, how="anti", nulls_equal=True)
        .filter(
            # Whether a code counts as a measurement depends on its values.
            pl.col("domain_id") != "Observation"
        )
        .is_empty()
    )


def test_slots_of_hashed_subjects_make_way_for_each_other(monkeypatch):
    ids = pl.Series([2**62, -5, 7, 2**62 + 1])
    monkeypatch.setattr(events, "mixed", lambda series: pl.Series([9] * len(series), dtype=pl.UInt64).to_numpy())
    slots = identifiers.slots(ids)
    assert slots["slot"].n_unique() == 4
    assert slots.filter(pl.col("subject_id") == 7)["slot"].to_list() == [7]
    assert (slots["slot"] * identifiers.SPAN > 0).all()


def test_local_concepts_lie_where_sites_have_theirs_and_differ():
    ids = local_ids(f"LOINC//{number}" for number in range(60_000))
    assert len(set(ids.values())) == 60_000
    assert all(FIRST_LOCAL <= number < 2**31 for number in ids.values())
    alone = local_ids(["LOINC//7"])
    assert alone["LOINC//7"] == ids["LOINC//7"]


def test_codes_units_and_answers_have_local_concepts(tmp_path):
    tables, report = export(
        frame(
            {"code": "LOINC//4548-4", "numeric_value": 6.1, "unit": "%", "text_value": "<"},
            {"code": "LOINC//72166-2", "text_value": "SNOMED//266919005"},
            {"code": "ICD10CM//E11.9", "text_value": "primary"},
        ),
        tmp_path / "omop",
    )
    concepts = {row["concept_id"]: row for row in tables["concept"].to_dicts()}
    (measured,) = tables["measurement"].to_dicts()
    assert measured["value_as_number"] == 6.1
    assert measured["measurement_concept_id"] == measured["unit_concept_id"] == 0
    assert measured["operator_concept_id"] == 4171756
    assert concepts[measured["measurement_source_concept_id"]]["concept_code"] == "4548-4"
    assert concepts[measured["unit_source_concept_id"]]["vocabulary_id"] == "UCUM"
    (observed,) = tables["observation"].to_dicts()
    assert concepts[observed["value_as_concept_id"]]["concept_code"] == "266919005"
    (condition,) = tables["condition_occurrence"].to_dicts()
    assert condition["condition_source_value"] == "ICD10CM//E11.9"
    assert condition["condition_status_source_value"] == "primary"
    assert report.changed["person without a birth, year of birth 0"].count == 1


def test_visits_get_numbers_of_their_own(tmp_path):
    stay = {"code": "VISIT_START//IMP"}
    tables, report = export(frame({**stay, "visit_id": -3}, stay, {**stay, "visit_id": 2**61}), tmp_path / "omop")
    visits = tables["visit_occurrence"]
    assert visits["visit_occurrence_id"].to_list() == [identifiers.SPAN + number for number in range(3)]
    assert report.changed["visit numbered anew"].count == 3
    # What has a number among all visits keeps it.
    again = frame(*({**stay, "visit_id": number} for number in visits["visit_occurrence_id"]))
    tables, report = export(again, tmp_path / "again")
    assert tables["visit_occurrence"]["visit_occurrence_id"].equals(visits["visit_occurrence_id"])
    assert "visit numbered anew" not in report.changed


def test_a_long_text_stands_in_a_note(tmp_path):
    text = "word " * 30 + "end"
    tables, report = export(frame({"code": "LOINC//1", "text_value": text}), tmp_path / "omop")
    (note,) = tables["note"].to_dicts()
    assert note["note_text"] == text
    assert note["note_event_id"] == tables["observation"]["observation_id"][0]
    assert tables["observation"]["value_as_string"][0] == text[:60]
    assert report.changed["text cut to 60 characters, whole in a note"].count == 1


def test_losses_are_counted_by_reason(tmp_path):
    later = datetime(2021, 1, 1)
    _, report = export(
        frame(
            {"code": "VISIT_START//IMP", "visit_id": 1, "text_value": "Elective"},
            {"code": "VISIT_START//IMP", "visit_id": 1, "time": later},
            {"code": "VISIT_END//IMP", "time": later},
            {"code": "GENDER//male", "time": None},
            {"code": "GENDER//female", "time": None},
            {"code": "MEDS_BIRTH", "time": None},
            {"code": "ICD10CM//I10", "numeric_value": 3, "unit": "a"},
            {"code": "CAREPLAN//X//1", "end_time": later},
            {"code": "C" * 60},
            {"code": "A_system_with_a_long_name//1"},
        ),
        tmp_path / "omop",
    )
    assert {reason: count.count for reason, count in report.not_carried.items()} == {
        "visit start beyond the first": 1,
        "end of a visit without a number": 1,
        "gender beyond the first": 1,
        "birth without a time": 1,
        "text of visit start": 1,
        "numeric value of condition occurrence": 1,
        "unit of condition occurrence": 1,
        "end time of observation": 1,
    }
    assert report.changed["code cut to 50 characters"].count == 1
    assert report.changed["code system with a name of more than 20 characters shortened"].count == 1
    assert report.changed["visit without an end, until its last event"].count == 1


CONCEPTS = """\
concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code\
\tvalid_start_date\tvalid_end_date\tinvalid_reason
35206882\tType 2 diabetes\tCondition\tICD10CM\t5-char billing code\t\tE11.9\t20070101\t20991231\t
201826\tType 2 diabetes mellitus\tCondition\tSNOMED\tDisorder\tS\t44054006\t20020131\t20991231\t
45773688\tNeed for vaccination\tObservation\tICD10CM\t3-char billing code\t\tZ23\t20070101\t20991231\t
4062240\tVaccination required\tObservation\tSNOMED\tContext-dependent\tS\t171279008\t20020131\t20991231\t
8554\tpercent\tUnit\tUCUM\tUnit\tS\t%\t19700101\t20991231\t
1\tnot used "lone quote\tUnit\tUCUM\tUnit\tS\tnot used\t19700101\t20991231\t
"""
RELATIONSHIPS = """\
concept_id_1\tconcept_id_2\trelationship_id\tvalid_start_date\tvalid_end_date\tinvalid_reason
35206882\t201826\tMaps to\t20070101\t20991231\t
35206882\t1\tMaps to\t20070101\t20991231\tD
45773688\t4062240\tMaps to\t20070101\t20991231\t
8554\t8554\tMaps to\t19700101\t20991231\t
35206882\t1\tIs a\t20070101\t20991231\t
"""
VOCABULARIES = """\
vocabulary_id\tvocabulary_name\tvocabulary_reference\tvocabulary_version\tvocabulary_concept_id
SNOMED\tSNOMED\thttp://snomed.info\t2024-02-01\t44819097
None\tOMOP Standardized Vocabularies\tOMOP generated\tv5.0 30-AUG-24\t44819096
"""


@pytest.fixture
def vocabulary(tmp_path) -> Path:
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    (folder / "CONCEPT.csv").write_text(CONCEPTS)
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text(RELATIONSHIPS)
    (folder / "VOCABULARY.csv").write_text(VOCABULARIES)
    return folder


def test_a_vocabulary_gives_standard_concepts_and_their_tables(vocabulary, tmp_path):
    tables, report = export(
        frame(
            {"code": "ICD10CM//E11.9"},
            {"code": "ICD10CM//Z23"},
            {"code": "REASON//ICD10CM//E11.9"},
            {"code": "ICD10CM//R99"},
            {"code": "LOINC//4548-4", "numeric_value": 6.1, "unit": "%"},
        ),
        tmp_path / "omop",
        vocabulary=vocabulary,
    )
    conditions = tables["condition_occurrence"].sort("condition_source_value")
    names = ("condition_source_value", "condition_concept_id", "condition_source_concept_id")
    assert conditions.select(names).row(0) == ("ICD10CM//E11.9", 201826, 35206882)
    assert conditions["condition_concept_id"].to_list() == [201826, 0]
    assert conditions["condition_source_concept_id"][1] >= FIRST_LOCAL
    observed = dict(tables["observation"].select("observation_source_value", "observation_concept_id").iter_rows())
    assert observed == {"ICD10CM//Z23": 4062240, "REASON//ICD10CM//E11.9": 201826}
    assert tables["measurement"]["unit_concept_id"].to_list() == [8554]
    assert (report.mapped["codes"], report.unmapped["codes"]) == (3, 2)
    assert (report.mapped["units"], report.unmapped["units"]) == (1, 0)
    assert tables["cdm_source"]["vocabulary_version"].to_list() == ["v5.0 30-AUG-24"]
    assert "lone quote" not in "".join(tables["concept"]["concept_name"])
    assert {201826, 35206882, 8554} <= set(tables["concept"]["concept_id"])


def test_a_folder_without_a_vocabulary(vocabulary, tmp_path):
    (vocabulary / "CONCEPT_RELATIONSHIP.csv").unlink()
    with pytest.raises(InputError, match=r"has no CONCEPT_RELATIONSHIP\.csv"):
        export(frame({"code": "ICD10CM//I10"}), tmp_path / "omop", vocabulary=vocabulary)
    with pytest.raises(InputError, match="is not a folder"):
        export(frame({"code": "ICD10CM//I10"}), tmp_path / "omop", vocabulary=tmp_path / "nowhere")
    assert not (tmp_path / "omop").exists()


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown format `xlsx`"):
        export_omop(frame({"code": "ICD10CM//I10"}), tmp_path / "omop", format="xlsx")

"""MEDS sources: every set whole, ends folded, kinds moved from texts to codes, batches of whole subjects."""

from collections import Counter
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrsim import events
from ehrsim.counts import Count
from ehrsim.importers import import_events, meds
from ehrsim.importers.report import ImportReport

FOLDED = "end event folded into end_time"
SMALL = ["covid_wuhan_375", "pbcseq_312", "uci_diabetes_70", "synthea_stu3_1461", "nafld_mayo_17549"]
LARGE = ["synthea_py_1250", "diabetes130_71518", "physionet2012_seta_4000"]


def day(number: int) -> datetime:
    return datetime(2020, 1, 1) + (datetime(2020, 1, 2) - datetime(2020, 1, 1)) * number


def frame_of(rows: list[tuple]) -> pl.DataFrame:
    """Events from as much of (subject_id, time, code, text_value, numeric_value, visit_id) as the rows give."""
    names = ["subject_id", "time", "code", "text_value", "numeric_value", "visit_id"][: len(rows[0])]
    return pl.DataFrame(rows, schema={name: events.SCHEMA[name] for name in names}, orient="row")


def read_frame(frame: pl.DataFrame, folder) -> tuple[pl.DataFrame, ImportReport]:
    """What the reader makes of a file of these events, and its report."""
    frame.write_parquet(folder / "events.parquet")
    report = ImportReport(source="x", format="meds")
    return pl.concat(meds.read(folder / "events.parquet", report)), report


def independent_systems(source) -> Counter:
    """Events by code system, counted in the source file with nothing of ehrsim; ends of conditions left out."""
    frame = pl.read_parquet(source / "events.parquet", columns=["code"])
    prefixes = {"REASON", "PROCEDURE", "CONDITION", "PANEL", "CAREPLAN", "ALLERGY"}
    counts: Counter = Counter()
    for code, number in frame["code"].value_counts().iter_rows():
        if code.endswith("//END"):
            continue
        parts = code.split("//")
        if code in ("MEDS_BIRTH", "MEDS_DEATH"):
            counts["MEDS"] += number
        elif len(parts) == 1:
            counts["LOCAL"] += number
        elif parts[0] in prefixes:
            counts[parts[1]] += number
        else:
            counts[parts[0]] += number
    return counts


def judge_import(source, out) -> int:
    report = import_events(source, out)
    raw = pl.read_parquet(source / "events.parquet")
    folded = report.changed[FOLDED].count if FOLDED in report.changed else 0
    skipped = sum(count.count for count in report.skipped.values())
    written = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in (out / "data").rglob("*.parquet"))
    assert report.rows == raw.height
    assert report.events == written
    assert report.rows == written + skipped + folded, "every row is written, skipped or folded"
    assert report.subjects == raw["subject_id"].n_unique()
    assert report.systems == independent_systems(source)
    values = pl.scan_parquet(out / "data" / "**" / "*.parquet").select("numeric_value").drop_nulls().collect()
    kept = raw["numeric_value"].drop_nulls()
    assert values.height == kept.filter(kept.is_finite()).len()
    splits = dict(pl.read_parquet(source / "subject_splits.parquet").iter_rows())
    assert dict(pl.read_parquet(out / "metadata" / "subject_splits.parquet").iter_rows()) == splits
    assert report.splits == {"held_out": 0, **Counter(splits.values())}
    return report.events


@pytest.mark.parametrize("name", SMALL)
def test_a_set_is_imported_whole(event_sets, tmp_path, name):
    assert judge_import(event_sets / name, tmp_path / "out") > 1_000


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_set_is_imported_whole(event_sets, tmp_path, name):
    assert judge_import(event_sets / name, tmp_path / "out") > 1_000


def test_an_end_closes_the_latest_open_event_of_its_code(tmp_path):
    rows = [
        (1, day(1), "ICD10CM//I10"),
        (1, day(3), "ICD10CM//I10"),
        (1, day(4), "ICD10CM//I10//END"),
        (1, day(6), "ICD10CM//I10//END"),
        (1, day(7), "ICD10CM//I10//END"),
        (1, day(8), "ICD10CM//I10"),
        (1, day(8), "ICD10CM//I10//END"),
        (2, day(9), "ICD10CM//I10//END"),
        (2, None, "ICD10CM//E11//END"),
        (2, day(1), "ICD10CM//E11"),
        (2, day(2), None),
    ]
    found, report = read_frame(frame_of(rows), tmp_path)
    assert found.select("subject_id", "time", "code", "end_time").rows() == [
        (1, day(1), "ICD10CM//I10", day(6)),
        (1, day(3), "ICD10CM//I10", day(4)),
        (1, day(8), "ICD10CM//I10", day(8)),
        (2, day(1), "ICD10CM//E11", None),
        (2, day(2), None, None),
    ]
    assert report.changed[FOLDED].count == 3
    assert report.skipped["end of something that never started"].count == 3
    assert report.rows == len(rows) == found.height + 6


def fold_one_by_one(rows: list[tuple]) -> tuple[list[tuple], int, int]:
    """Ends folded with a stack for each subject and code, walking through time."""
    ends: dict[int, datetime] = {}
    folded = skipped = 0
    stacks: dict[tuple, list[int]] = {}
    order = sorted(range(len(rows)), key=lambda row: (rows[row][1], rows[row][2].endswith("//END"), row))
    for row in order:
        subject, when, code = rows[row]
        stack = stacks.setdefault((subject, code.removesuffix("//END")), [])
        if not code.endswith("//END"):
            stack.append(row)
        elif stack:
            ends[stack.pop()] = when
            folded += 1
        else:
            skipped += 1
    kept = [(*row, ends.get(number)) for number, row in enumerate(rows) if not row[2].endswith("//END")]
    return kept, folded, skipped


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.integers(1, 6).map(day),
            st.sampled_from(["A//1", "A//1//END", "A//1//END", "A//2", "A//2//END", "A//3"]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_folding_is_that_of_a_stack(rows):
    report = ImportReport(source="x", format="meds")
    found = meds._fold_ends(events.conform(frame_of(rows)), report)
    kept, folded, skipped = fold_one_by_one(rows)
    assert found.select("subject_id", "time", "code", "end_time").rows() == kept
    assert report.changed.get(FOLDED, Count(0, "")).count == folded
    assert report.skipped.get("end of something that never started", Count(0, "")).count == skipped


def test_kinds_named_in_texts_move_into_codes(tmp_path):
    rows = [
        (1, day(1), "SNOMED//44054006", "condition", None, 3),
        (1, day(1), "SNOMED//80146002", "procedure", None, 3),
        (1, day(1), "RxNorm//860975", "medication active", None, 3),
        (1, day(1), "SNOMED//185345009", None, None, 3),
        (1, day(1), "SNOMED//363779003", None, 4.0, 3),
        (1, day(1), "SNOMED//419263009", "allergy", None, None),
        (1, day(1), "LOINC//72166-2", "Never smoker", None, 3),
        (1, day(1), "SNOMED//161891005", "condition", None, 3),
        (1, day(2), "SNOMED//161891005//END", "condition", None, 3),
    ]
    found, report = read_frame(frame_of(rows), tmp_path)
    assert found.select("code", "text_value", "end_time").rows() == [
        ("SNOMED//44054006", None, None),
        ("PROCEDURE//SNOMED//80146002", None, None),
        ("RxNorm//860975", "active", None),
        ("VISIT_TYPE//SNOMED//185345009", None, None),
        ("OBSERVATION//SNOMED//363779003", None, None),
        ("ALLERGY//SNOMED//419263009", None, None),
        ("LOINC//72166-2", "Never smoker", None),
        ("SNOMED//161891005", None, day(2)),
    ]
    assert report.changed["kind moved from the text to the code"].count == 6


def test_without_any_such_text_codes_keep_their_kind(tmp_path):
    rows = [(1, day(1), "SNOMED//44054006", None, None, 3), (1, day(1), "LOINC//1", "high", None, 3)]
    found, report = read_frame(frame_of(rows), tmp_path)
    assert found["code"].to_list() == ["SNOMED//44054006", "LOINC//1"]
    assert report.changed == {}


def test_kinds_are_moved_in_every_shard_when_they_are_named_in_one(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    frame_of([(1, day(1), "SNOMED//1", "condition", None, 3)]).write_parquet(tmp_path / "set" / "data" / "0.parquet")
    frame_of([(2, day(1), "SNOMED//2", None, None, 3)]).write_parquet(tmp_path / "set" / "data" / "1.parquet")
    report = ImportReport(source="x", format="meds")
    found = pl.concat(meds.read(tmp_path / "set", report))
    assert found["code"].to_list() == ["SNOMED//1", "VISIT_TYPE//SNOMED//2"]
    assert (report.files, report.rows) == (2, 2)


def test_other_names_are_brought_to_ours(tmp_path):
    frame = pl.DataFrame(
        {
            "subject_id": [1, 1],
            "time": [day(1), day(2)],
            "code": ["LOINC//1", "FOLLOWUP_END"],
            "encounter_id": ["17", "e-a"],
            "whatever": [1.0, 2.0],
        }
    )
    found, report = read_frame(frame, tmp_path)
    assert found.columns == list(events.COLUMNS)
    assert found["visit_id"].to_list() == [17, events.stable_id_of("e-a")]
    assert found["code"].to_list() == ["LOINC//1", "OBSERVATION_END"]
    assert report.changed["code renamed"].count == 1


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_batches_are_of_whole_subjects(tmp_path, monkeypatch, tiny_events, size):
    monkeypatch.setattr(meds, "BATCH_ROWS", size)
    tiny_events.head(400).write_parquet(tmp_path / "events.parquet")
    batches = list(meds._batches(tmp_path / "events.parquet"))
    assert pl.concat(batches).equals(tiny_events.head(400))
    subjects = [subject for batch in batches for subject in batch["subject_id"].unique().to_list()]
    assert len(subjects) == len(set(subjects)) == tiny_events.head(400)["subject_id"].n_unique()
    assert max(batch.height for batch in batches) <= size + tiny_events["subject_id"].value_counts()["count"].max()


def test_batches_do_not_change_the_result(tmp_path, monkeypatch, tiny_events):
    rows = tiny_events.with_columns(code=pl.col("code").str.replace("ICD10CM//J06.9", "ICD10CM//I10//END"))
    rows.write_parquet(tmp_path / "events.parquet")
    import_events(tmp_path / "events.parquet", tmp_path / "whole")
    monkeypatch.setattr(meds, "BATCH_ROWS", 50)
    report = import_events(tmp_path / "events.parquet", tmp_path / "parts")
    assert report.changed[FOLDED].count > 10
    for path in (tmp_path / "whole").rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_the_sample_folder_is_recognised_and_imported(samples, tmp_path):
    source = samples / "meds_layout_synthea_stu3"
    assert meds.recognises(source)
    report = import_events(source, tmp_path / "out")
    raw = pl.concat([pl.read_parquet(path) for path in (source / "data").rglob("*.parquet")], how="diagonal_relaxed")
    assert report.rows == raw.height == report.events + report.changed[FOLDED].count
    described = pl.read_parquet(source / "metadata" / "codes.parquet").drop_nulls("description")
    found = events.read_codes(tmp_path / "out")
    assert set(described["code"]) <= set(found["code"])

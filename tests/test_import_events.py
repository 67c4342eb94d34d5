"""The import of anything: what comes out, how bad input ends, and that memory stays bounded."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import meds
import polars as pl
import pyarrow.parquet
import pytest
from polars.testing import assert_frame_equal

from ehrsim import events
from ehrsim.errors import EhrsimError, FormatError, InputError, UsageError
from ehrsim.importers import IMPORTERS, detect, import_events, reader, sink
from ehrsim.importers.canonical import LONGEST_CODE, LONGEST_TEXT

NOON = datetime(2020, 1, 1, 12)
BIRTH = datetime(1960, 1, 1)


def frame_of(*rows: dict) -> pl.DataFrame:
    """Events from rows that name only what matters, after one good row of subject 7."""
    full = [{"subject_id": 7, "time": NOON, "code": "LOINC//other", **row} for row in ({"code": "LOINC//good"}, *rows)]
    types = {name: dtype for name, dtype in events.SCHEMA.items() if any(name in row for row in full)}
    return pl.DataFrame(full, schema_overrides=types, infer_schema_length=None)


def whole_set(folder: Path, **metadata: pl.DataFrame) -> None:
    """A MEDS folder of one good event with the metadata tables given."""
    (folder / "data").mkdir(parents=True)
    (folder / "metadata").mkdir()
    frame_of().write_parquet(folder / "data" / "0.parquet")
    for name, frame in metadata.items():
        frame.write_parquet(folder / "metadata" / f"{name}.parquet")


def with_column(name: str, values: list, dtype: pl.DataType | None = None) -> Callable[[Path], None]:
    """A writer of a file whose column is this one."""
    return lambda path: frame_of().with_columns(pl.Series(name, values, dtype=dtype)).write_parquet(path)


def truncated(path: Path) -> None:
    frame_of().write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])


def corrupt(path: Path) -> None:
    """A file whose footer is whole and whose pages are not."""
    frame_of(*({"subject_id": number, "code": f"LOINC//{number}"} for number in range(5_000))).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    path.write_bytes(content)


def images(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        (folder / f"scan{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def images_in_data(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "scan.parquet").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def splits(**columns: list) -> Callable[[Path], None]:
    return lambda folder: whole_set(folder, subject_splits=pl.DataFrame(columns))


def codes(**columns: list) -> Callable[[Path], None]:
    return lambda folder: whole_set(folder, codes=pl.DataFrame(columns))


def without(column: str) -> Callable[[Path], None]:
    return lambda path: frame_of().drop(column).write_parquet(path)


FILES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "subject ids are text": (with_column("subject_id", ["p1"]), ["column `subject_id`", "String"]),
    "subject ids are decimal": (with_column("subject_id", [1.5]), ["column `subject_id`", "Float64"]),
    "subject ids overflow": (with_column("subject_id", [2**64 - 1], pl.UInt64), ["u64"]),
    "times are text": (with_column("time", ["2020-01-01"]), ["column `time`", "String"]),
    "times are numbers": (with_column("time", [20200101]), ["column `time`", "Int64"]),
    "codes are numbers": (with_column("code", [44054006]), ["column `code`", "Int64"]),
    "codes are lists": (with_column("code", [["a", "b"]]), ["column `code`", "List"]),
    "values are text": (with_column("numeric_value", ["5"]), ["column `numeric_value`", "String"]),
    "texts are numbers": (with_column("text_value", [5]), ["column `text_value`", "Int64"]),
    "units are numbers": (with_column("unit", [5]), ["column `unit`", "Int64"]),
    "visits are text": (with_column("visit_id", ["v"]), ["column `visit_id`", "String"]),
    "ends are text": (with_column("end_time", ["v"]), ["column `end_time`", "String"]),
    "no subject column": (without("subject_id"), ["no column `subject_id`", "found time, code"]),
    "no time column": (without("time"), ["no column `time`"]),
    "no code column": (without("code"), ["no column `code`"]),
    "no rows": (lambda path: frame_of().clear().write_parquet(path), ["no usable event"]),
    "no usable row": (with_column("code", [None], pl.String), ["no usable event", "no code"]),
    "an empty file": (Path.touch, ["not a readable Parquet file"]),
    "a truncated file": (truncated, ["not a readable Parquet file"]),
    "a corrupt file": (corrupt, ["not a readable Parquet file"]),
    "text named .parquet": (lambda path: path.write_text("a,b\n1,2\n"), ["not a readable Parquet file"]),
    "an absent file": (lambda path: None, ["does not exist"]),
}
FOLDERS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a text file": (lambda path: path.write_text("hello"), ["source", "no format known"]),
    "a folder of images": (images, ["source", "no format known"]),
    "images as shards": (images_in_data, ["scan.parquet", "not a readable Parquet file"]),
    "an empty folder": (Path.mkdir, ["source", "no format known"]),
    "an unknown split": (splits(subject_id=[7], split=["test"]), ["subject_splits.parquet", "`split`", "`test`"]),
    "a subject in two splits": (
        splits(subject_id=[7, 7], split=["train", "tuning"]),
        ["subject_splits.parquet", "two splits", "subject_id 7"],
    ),
    "splits without a column": (splits(subject_id=[7]), ["subject_splits.parquet", "no column `split`"]),
    "splits of text ids": (splits(subject_id=["7"], split=["train"]), ["subject_splits.parquet", "`subject_id`"]),
    "splits of nobody": (
        splits(subject_id=[7, None], split=["train"] * 2),
        ["subject_splits.parquet", "`subject_id` is null in 1 rows"],
    ),
    "code table without codes": (codes(description=["x"]), ["codes.parquet", "no column `code`"]),
    "code table of numbers": (codes(code=[1]), ["codes.parquet", "column `code`", "Int64"]),
    "parents are text": (codes(code=["a"], parent_codes=["b"]), ["codes.parquet", "column `parent_codes`"]),
}
REFUSED = {name: ("e.parquet", make, ["e.parquet", *said]) for name, (make, said) in FILES.items()} | {
    name: ("source", make, said) for name, (make, said) in FOLDERS.items()
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(case, tmp_path):
    name, make, said = REFUSED[case]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    make(tmp_path / "in" / name)
    with pytest.raises(InputError) as refusal:
        import_events(tmp_path / "in" / name, tmp_path / "out" / "events")
    assert "\n" not in str(refusal.value)
    assert all(part in str(refusal.value) for part in said), str(refusal.value)
    assert list((tmp_path / "out").iterdir()) == []


LONG = "X//" + "y" * 300
COUNTED: dict[str, tuple[dict, str, str, int]] = {
    "no subject": ({"subject_id": None}, "skipped", "no subject id", 0),
    "no code": ({"code": None}, "skipped", "no code", 0),
    "a blank code": ({"code": "  "}, "skipped", "no code", 0),
    "the year 1": ({"time": datetime(1, 1, 1)}, "skipped", "time outside 1800-2300", 0),
    "the year 9999": ({"time": datetime(9999, 12, 31)}, "skipped", "time outside 1800-2300", 0),
    "an end in 9999": ({"end_time": datetime(9999, 1, 1)}, "changed", "end time outside 1800-2300 removed", 1),
    "an end before its start": ({"end_time": datetime(2019, 1, 1)}, "changed", "end time before start removed", 1),
    "NaN": ({"numeric_value": float("nan")}, "changed", "NaN or infinite value removed", 1),
    "infinity": ({"numeric_value": float("-inf")}, "changed", "NaN or infinite value removed", 1),
    "a number beyond 32 bits": ({"numeric_value": 1e300}, "changed", "NaN or infinite value removed", 1),
    "a blank text": ({"text_value": " "}, "changed", "empty text removed", 1),
    "a long text": ({"text_value": "z" * 5_000}, "changed", f"text_value cut to {LONGEST_TEXT} characters", 1),
    "a long code": ({"code": LONG}, "changed", f"code cut to {LONGEST_CODE} characters", 1),
    "a code in spaces": ({"code": " LOINC//1 "}, "changed", "code brought to canonical form", 1),
    "a needless prefix": ({"code": "OBSERVATION//LOINC//1"}, "changed", "code brought to canonical form", 1),
    "a spelt unit": ({"numeric_value": 1.0, "unit": "mmHg"}, "changed", "unit respelled in UCUM", 1),
    "an end alone": ({"code": "ICD10CM//I10//END"}, "skipped", "end of something that never started", 0),
    "a repeated row": ({"code": "LOINC//good"}, "findings", "duplicate row", 1),
}


@pytest.mark.parametrize("case", COUNTED)
def test_a_bad_row_is_counted_with_an_example(case, tmp_path):
    row, group, reason, kept = COUNTED[case]
    wide = frame_of(row)
    if row.get("numeric_value") == 1e300:
        wide = wide.with_columns(pl.Series("numeric_value", [None, 1e300], dtype=pl.Float64))
    wide.write_parquet(tmp_path / "e.parquet")
    report = import_events(tmp_path / "e.parquet", tmp_path / "out")
    assert getattr(report, group)[reason].count == 1
    assert getattr(report, group)[reason].example
    assert report.events == 1 + kept
    assert report.rows == 2
    for other in {"skipped", "changed", "findings"} - {group}:
        assert getattr(report, other) == {}
    said = json.loads((tmp_path / "out" / "metadata" / "import.json").read_bytes())
    assert said[group][reason]["count"] == 1
    assert any(reason in line for line in report.lines())


def test_ages_below_zero_and_second_births_are_found_and_kept(tmp_path):
    rows = [
        {"code": "MEDS_BIRTH", "time": NOON},
        {"code": "MEDS_BIRTH", "time": BIRTH.replace(year=2020, month=6)},
        {"time": datetime(2019, 1, 1)},
        {"code": "MEDS_DEATH", "time": datetime(2020, 12, 1)},
        {"time": datetime(2021, 1, 1)},
        {"subject_id": -4, "code": "NOWHERE//1"},
    ]
    frame_of(*rows).write_parquet(tmp_path / "e.parquet")
    report = import_events(tmp_path / "e.parquet", tmp_path / "out")
    assert {name: count.count for name, count in report.findings.items()} == {
        "event before birth": 1,
        "event after death": 1,
        "more than one birth": 1,
    }
    assert (report.events, report.subjects) == (7, 2)
    assert report.systems["NOWHERE"] == 1
    assert report.kinds["observation"] == 4


def test_dates_and_zones_are_read_as_local_time(tmp_path):
    frame_of().with_columns(pl.lit(date(2020, 5, 1)).alias("time")).write_parquet(tmp_path / "e.parquet")
    import_events(tmp_path / "e.parquet", tmp_path / "out")
    assert events.read_events(tmp_path / "out").collect()["time"].to_list() == [datetime(2020, 5, 1)]


def test_what_comes_out_is_meds_and_valid(tiny_events, tmp_path):
    tiny_events.sample(fraction=1, shuffle=True, seed=5).write_parquet(tmp_path / "e.parquet")
    report = import_events(tmp_path / "e.parquet", tmp_path / "out", held_out=0.3)
    for shard in (tmp_path / "out" / "data").rglob("*.parquet"):
        meds.DataSchema.validate(pyarrow.parquet.read_table(shard))
    metadata = tmp_path / "out" / "metadata"
    meds.CodeMetadataSchema.validate(pyarrow.parquet.read_table(metadata / "codes.parquet"))
    meds.SubjectSplitSchema.validate(pyarrow.parquet.read_table(metadata / "subject_splits.parquet"))
    meds.DatasetMetadataSchema.validate(json.loads((metadata / "dataset.json").read_bytes()))
    assert events.validate(events.read_events(tmp_path / "out")) == []
    assert report.splits == {
        split: (events.split_of(pl.Series(range(1, 161)), held_out=0.3) == split).sum() for split in events.SPLITS
    }
    assert min(report.splits.values()) > 5


def test_events_come_back_as_they_were(tiny_events, tmp_path):
    tiny_events.write_parquet(tmp_path / "e.parquet")
    report = import_events(tmp_path / "e.parquet", tmp_path / "out")
    assert (report.skipped, report.changed, report.findings) == ({}, {}, {})
    assert_frame_equal(events.sort(events.read_events(tmp_path / "out")).collect(), tiny_events)


def test_spilling_does_not_change_the_events(tiny_events, tmp_path, monkeypatch):
    tiny_events.write_parquet(tmp_path / "e.parquet")
    import_events(tmp_path / "e.parquet", tmp_path / "whole")
    monkeypatch.setattr(sink, "SPILL_ROWS", 100)
    monkeypatch.setattr("ehrsim.importers.meds.BATCH_ROWS", 64)
    report = import_events(tmp_path / "e.parquet", tmp_path / "spilled")
    assert len(list((tmp_path / "spilled" / "data" / "train").iterdir())) > 30
    whole, spilled = (events.sort(events.read_events(tmp_path / name)).collect() for name in ("whole", "spilled"))
    assert_frame_equal(whole, spilled)
    for shard in (tmp_path / "spilled" / "data").rglob("*.parquet"):
        assert events.validate(events.read_events(shard)) == []
    assert report.events == tiny_events.height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "spilled", "whole"]


def test_splits_of_the_source_hold_and_held_out_is_cut_from_training(tmp_path):
    ids = list(range(200))
    given_splits = ["tuning" if subject % 4 == 0 else "train" for subject in ids[:-10]]
    whole_set(tmp_path / "set", subject_splits=pl.DataFrame({"subject_id": ids[:-10], "split": given_splits}))
    rows = pl.concat([frame_of().with_columns(pl.lit(subject, pl.Int64).alias("subject_id")) for subject in ids])
    rows.write_parquet(tmp_path / "set" / "data" / "0.parquet")
    report = import_events(tmp_path / "set", tmp_path / "out", held_out=0.2)
    found = dict(events.read_splits(tmp_path / "out").iter_rows())
    assert {subject for subject, split in found.items() if split == "tuning"} == set(range(0, 190, 4))
    cut = {subject for subject, split in found.items() if split == "held_out"}
    trainable = [subject for subject in ids if subject % 4 or subject >= 190]
    assert cut < set(trainable)
    assert 15 < len(cut) < 50
    assert report.findings["subject in none of the source's splits, put to train"].count == 10
    assert report.splits == {split: list(found.values()).count(split) for split in events.SPLITS}


def test_held_out_is_cut_from_splits_that_were_made_here(tmp_path):
    """The same share of the training subjects, although the lowest range of the hash is all tuning."""
    rows = pl.concat([frame_of().with_columns(pl.lit(subject, pl.Int64).alias("subject_id")) for subject in range(400)])
    events.write_events(events.conform(rows), tmp_path / "set")
    report = import_events(tmp_path / "set", tmp_path / "out", held_out=0.1)
    before, after = (dict(events.read_splits(tmp_path / name).iter_rows()) for name in ("set", "out"))
    moved = {subject for subject in before if before[subject] != after[subject]}
    assert {(before[subject], after[subject]) for subject in moved} == {("train", "held_out")}
    assert 20 < len(moved) == report.splits["held_out"] < 55


def test_an_existing_output_is_kept_unless_it_may_go(tiny_events, tmp_path):
    tiny_events.write_parquet(tmp_path / "e.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        import_events(tmp_path / "e.parquet", tmp_path / "out")
    truncated(tmp_path / "bad.parquet")
    with pytest.raises(InputError):
        import_events(tmp_path / "bad.parquet", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine").read_text() == "mine"
    import_events(tmp_path / "e.parquet", tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "metadata"]


def test_the_same_source_gives_the_same_bytes(tiny_events, tmp_path):
    tiny_events.write_parquet(tmp_path / "e.parquet")
    for name in ("a", "b"):
        import_events(tmp_path / "e.parquet", tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 6
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_progress_tells_rows_read_and_parts_sorted(tiny_events, tmp_path):
    told = []
    tiny_events.write_parquet(tmp_path / "e.parquet")
    import_events(tmp_path / "e.parquet", tmp_path / "out", progress=lambda *what: told.append(what))
    assert told == [("read", tiny_events.height, None, "events"), ("sort", 1, 1, "parts")]


def test_formats_are_known_by_name(tmp_path):
    with pytest.raises(UsageError, match="unknown source format `word`"):
        reader("word")
    assert all(callable(reader(name)) for name in IMPORTERS)
    with pytest.raises(InputError):
        import_events(tmp_path / "absent", tmp_path / "out", format="meds")


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        ("fhir_r4_bulk_ndjson_10patients", "fhir"),
        ("fhir_r4_bundles_synthea2019", "fhir"),
        ("fhir_r4_ndjson_synthea2019", "fhir"),
        ("meds_layout_synthea_stu3", "meds"),
        ("mimiciv_csv_10subjects", "mimic"),
        ("omop_synpuf50_5.2_csv", "omop"),
        ("omop_synthea27nj_5.4_csv", "omop"),
        ("omop_synthea27nj_5.4_parquet", "omop"),
        ("synthea_csv_27patients", "synthea"),
    ],
)
def test_every_sample_is_detected(samples, sample, name):
    assert detect(samples / sample) == name


def test_every_event_set_is_detected(event_sets):
    assert {detect(folder) for folder in event_sets.iterdir()} == {"meds"}


def test_unknown_formats_hint_at_the_known_ones(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(FormatError) as refusal:
        detect(tmp_path / "x")
    assert isinstance(refusal.value, EhrsimError)
    assert "--from meds|fhir|omop|mimic|synthea|table" in refusal.value.hint


MEASURE = """
import sys
from ehrsim.importers import import_events

def peak():
    # Not the peak of getrusage, which a process inherits from the one that started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

base = peak()
report = import_events(sys.argv[1], sys.argv[2])
print(report.events, base, peak())
"""


def memory_of_import(folder: Path, rows: int) -> int:
    """The growth of memory, in MB, of importing a file of so many rows in a process of its own."""
    number = pl.int_range(rows, eager=True)
    frame = pl.DataFrame(
        {
            "subject_id": number // 100,
            "time": pl.Series([NOON]).extend_constant(NOON, rows - 1),
            "code": "LOINC//" + (number % 977).cast(pl.String),
            "numeric_value": (number % 100).cast(pl.Float32),
        }
    )
    frame.write_parquet(folder / f"{rows}.parquet", row_group_size=100_000)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder / f"{rows}.parquet"), str(folder / f"out{rows}")],
        capture_output=True,
        text=True,
        check=True,
    )
    written, before, after = map(int, done.stdout.split())
    assert written == rows
    return (after - before) // 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc, which Linux has")
def test_memory_does_not_grow_with_the_source(tmp_path):
    small, large = memory_of_import(tmp_path, 2_000_000), memory_of_import(tmp_path, 10_000_000)
    assert large < 1.6 * small, f"{small} MB for 2 million rows, {large} MB for 10 million"

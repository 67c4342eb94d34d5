"""The event table: its columns, its order, its defects, its splits, and MEDS data sets as `meds` itself judges them."""

import base64
import json
from datetime import date, datetime

import meds
import numpy as np
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ehrsim import events
from ehrsim.errors import FormatError, InputError, UsageError
from ehrsim.events.arrow import ARROW_SCHEMAS

NOON = datetime(2020, 1, 1, 12)


def table(rows: list[dict]) -> pl.DataFrame:
    """Events from rows that name only what matters."""
    full = [{"subject_id": 1, "time": NOON, "code": "LOINC//1", **row} for row in rows]
    types = {name: dtype for name, dtype in events.SCHEMA.items() if any(name in row for row in full)}
    return events.conform(pl.DataFrame(full, schema_overrides=types, infer_schema_length=None))


def judge_meds(folder) -> dict:
    """Everything `meds` can check of a data set on disk; returns its metadata."""
    shards = sorted((folder / "data").rglob("*.parquet"))
    assert shards
    seen: set[int] = set()
    codes: set[str] = set()
    for shard in shards:
        frame = pyarrow.parquet.read_table(shard)
        meds.DataSchema.validate(frame)
        rows = pl.from_arrow(frame)
        ids = rows["subject_id"]
        assert ids.rle().len() == ids.n_unique(), f"{shard}: a subject is not contiguous"
        assert not seen & set(ids.unique()), f"{shard}: a subject is in two shards"
        seen |= set(ids.unique())
        codes |= set(rows["code"].unique())
        before = pl.col("time").shift().over("subject_id")
        assert rows.filter((pl.col("time") < before) | (pl.col("time").is_null() & before.is_not_null())).is_empty()
    code_table = pyarrow.parquet.read_table(folder / "metadata" / "codes.parquet")
    meds.CodeMetadataSchema.validate(code_table)
    assert codes <= set(code_table["code"].to_pylist()), "every code of the data stands in the code table"
    splits = pyarrow.parquet.read_table(folder / "metadata" / "subject_splits.parquet")
    meds.SubjectSplitSchema.validate(splits)
    assert sorted(splits["subject_id"].to_pylist()) == sorted(seen)
    for shard in shards:
        members = pl.from_arrow(splits).filter(pl.col("split") == shard.parent.name)["subject_id"]
        assert set(pl.read_parquet(shard)["subject_id"]) <= set(members)
    information = json.loads((folder / "metadata" / "dataset.json").read_bytes())
    meds.DatasetMetadataSchema.validate(information)
    return information


def test_stated_arrow_types_are_those_that_arrow_itself_would_state():
    text = pyarrow.string()
    types = {
        "Int64": pyarrow.int64(),
        "Float32": pyarrow.float32(),
        "Datetime": pyarrow.timestamp("us"),
        "String": text,
    }
    special = {"text_value": pyarrow.large_string(), "parent_codes": pyarrow.list_(text)}
    polars_types = {**events.SCHEMA, **events.CODES_SCHEMA, "split": pl.String()}
    for columns, stated in ARROW_SCHEMAS.items():
        fields = [(name, special.get(name) or types[polars_types[name].base_type().__name__]) for name in columns]
        assert base64.b64decode(stated) == pyarrow.schema(fields).serialize().to_pybytes()


def test_columns_are_completed_cast_and_ordered():
    given_frame = pl.DataFrame(
        {
            "code": pl.Series(["A", "B"], dtype=pl.Categorical),
            "extra": [1, 2],
            "time": pl.Series([date(2020, 1, 1), None], dtype=pl.Date),
            "numeric_value": [1, 2],
            "subject_id": pl.Series([1, 2], dtype=pl.UInt32),
        }
    )
    frame = events.conform(given_frame)
    assert frame.schema == pl.Schema(events.SCHEMA)
    assert frame.row(0) == (1, datetime(2020, 1, 1), "A", 1.0, None, None, None, None)
    assert events.conform(given_frame.with_columns(description=pl.lit("x"))).columns[-1] == "description"


def test_zones_are_taken_off_the_clock_they_show():
    times = pl.Series("time", [NOON]).dt.replace_time_zone("Asia/Kolkata").dt.cast_time_unit("ms")
    frame = pl.DataFrame({"subject_id": [1], "code": ["A"]}).with_columns(times)
    assert events.conform(frame)["time"].to_list() == [NOON]


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("us", "UTC"), pl.Date])
def test_times_beyond_any_calendar_become_its_bounds(dtype):
    limit = 2**31 - 1 if dtype == pl.Date else 2**63 - 1
    raw = pl.Series("time", [limit, -limit, None], dtype=pl.Int32 if dtype == pl.Date else pl.Int64)
    frame = pl.DataFrame({"subject_id": [1, 1, 1], "code": ["A", "B", "C"]}).with_columns(raw.cast(dtype))
    found = events.conform(frame)["time"]
    assert found.dt.year().to_list() == [9999, 1, None]
    assert len(str(found)) > 0


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("subject_id", ["1"], "column `subject_id` has type String, expected Int64"),
        ("subject_id", [1.5], "column `subject_id` has type Float64, expected Int64"),
        ("time", ["2020-01-01"], "column `time` has type String, expected Datetime"),
        ("code", [4], "column `code` has type Int64, expected String"),
        ("numeric_value", ["high"], "column `numeric_value` has type String, expected Float32"),
        ("text_value", [3], "column `text_value` has type Int64, expected String"),
        ("unit", [3], "column `unit` has type Int64, expected String"),
        ("visit_id", ["v1"], "column `visit_id` has type String, expected Int64"),
        ("description", [3], "column `description` has type Int64, expected String"),
        ("subject_id", [2**64 - 1], "conversion from `u64` to `i64` failed"),
    ],
)
def test_wrong_types_are_named(column, values, said):
    frame = pl.DataFrame({"subject_id": [1], "time": [NOON], "code": ["A"]}).with_columns(
        pl.Series(column, values, dtype=pl.UInt64 if values[0] == 2**64 - 1 else None)
    )
    with pytest.raises(InputError) as refusal:
        events.conform(frame)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("column", events.REQUIRED)
def test_missing_columns_are_named_with_those_found(column):
    frame = pl.DataFrame({"subject_id": [1], "time": [NOON], "code": ["A"]}).drop(column)
    with pytest.raises(InputError, match=f"no column `{column}`, found "):
        events.conform(frame)


def test_order_within_a_moment_is_birth_visit_events_end_death():
    codes = ["MEDS_DEATH", "VISIT_END//AMB", "ZZZ", "AAA", "VISIT_START//AMB", "MEDS_BIRTH"]
    frame = table([{"code": code} for code in codes] + [{"code": "GENDER//male", "time": None}])
    found = events.sort(frame.lazy()).collect()["code"].to_list()
    assert found == ["GENDER//male", "MEDS_BIRTH", "VISIT_START//AMB", "AAA", "ZZZ", "VISIT_END//AMB", "MEDS_DEATH"]


def test_order_does_not_depend_on_the_order_given(tiny_events):
    shuffled = tiny_events.sample(fraction=1, shuffle=True, seed=1)
    assert_frame_equal(events.sort(shuffled.lazy()).collect(), events.sort(tiny_events.lazy()).collect())


def test_codes_of_a_known_set_sort_like_texts(tiny_events):
    shuffled = tiny_events.sample(fraction=1.0, shuffle=True, seed=6)
    types = {"code": events.enum_of_codes(tiny_events["code"])}
    types |= {name: pl.Enum(tiny_events[name].drop_nulls().unique().sort()) for name in ("text_value", "unit")}
    by_index = events.sort(shuffled.cast(types).lazy()).collect().cast(dict.fromkeys(types, pl.String))
    assert_frame_equal(by_index, events.sort(tiny_events.lazy()).collect())
    assert tiny_events["code"].str.contains("^VISIT_END|^MEDS_BIRTH|^MEDS_DEATH").any()


def test_validation_tells_every_kind_of_defect_at_once():
    late = datetime(2020, 1, 2, 12)
    frame = table(
        [
            {"code": "MEDS_BIRTH", "time": datetime(2000, 1, 1)},
            {"time": datetime(1999, 12, 31)},
            {"time": datetime(1700, 1, 1), "code": "LOINC//old"},
            {"subject_id": 2, "code": ""},
            {"subject_id": 2, "code": " LOINC//1"},
            {"subject_id": 2, "time": late, "end_time": NOON},
            {"subject_id": 2, "time": late, "numeric_value": float("nan"), "unit": "mg"},
            {"subject_id": 2, "time": late, "numeric_value": 5.0},
            {"subject_id": 2, "code": "MEDS_DEATH", "time": late},
            {"subject_id": 2, "code": "MEDS_DEATH", "time": late, "visit_id": 3},
            {"subject_id": 2, "time": datetime(2020, 1, 3)},
            {"subject_id": 1, "code": "MEDS_BIRTH", "time": datetime(2020, 1, 3)},
            {"subject_id": 1, "code": "MEDS_BIRTH", "time": datetime(2020, 1, 3)},
            {"subject_id": None, "time": None},
        ]
    )
    found = {problem.name: (problem.rows, problem.example) for problem in events.validate(frame.lazy())}
    assert {name: rows for name, (rows, _) in found.items()} == {
        "subject_id is null": 1,
        "code is null or empty": 1,
        "code has leading or trailing space": 1,
        "time outside 1800-2300": 1,
        "end before start": 1,
        "numeric value is NaN or infinite": 1,
        "unit missing where the code has one elsewhere": 1,
        "event before birth": 2,
        "event after death": 1,
        "more than one birth": 2,
        "more than one death": 1,
        "subject in two places": 1,
        "time runs backwards": 2,
        "duplicate row": 1,
    }
    assert set(found) == set(events.validation.CHECKS), "a check that no defect of this table shows"
    assert found["end before start"][1].startswith("row 5: subject_id 2, time 2020-01-02 12:00:00, code LOINC//1")
    assert found["event after death"][1].startswith("row 10: ")


def test_valid_tables_have_no_problems(tiny_events):
    assert events.validate(tiny_events.lazy()) == []
    assert events.validate(tiny_events.clear().lazy()) == []


def test_a_written_data_set_is_meds_and_reads_back(tiny_events, tmp_path):
    described = tiny_events.with_columns(
        description=pl.when(pl.col("code") == "ICD10CM//I10").then(pl.lit("Essential hypertension"))
    )
    events.write_events(described, tmp_path / "set", name="tiny")
    information = judge_meds(tmp_path / "set")
    assert information == {"dataset_name": "tiny", "meds_version": "0.4.1"}
    back = events.read_events(tmp_path / "set").collect()
    assert_frame_equal(events.sort(back.lazy()).collect(), described)
    code_table = events.read_codes(tmp_path / "set")
    assert set(code_table["code"]) == set(tiny_events["code"])
    row = code_table.row(by_predicate=pl.col("code") == "ICD10CM//I10", named=True)
    assert row == {
        "code": "ICD10CM//I10",
        "description": "Essential hypertension",
        "parent_codes": ["ICD10CM//I00-I99"],
    }


def test_without_descriptions_the_table_reads_back_as_it_was(tiny_events, tmp_path):
    events.write_events(tiny_events.sample(fraction=1, shuffle=True, seed=2), tmp_path / "set")
    judge_meds(tmp_path / "set")
    back = events.sort(events.read_events(tmp_path / "set")).collect()
    assert_frame_equal(back, tiny_events)


def test_same_events_give_the_same_bytes(tiny_events, tmp_path):
    events.write_events(tiny_events, tmp_path / "a")
    events.write_events(tiny_events.sample(fraction=1, shuffle=True, seed=2), tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_splits_read_apart_and_together(tiny_events, tmp_path):
    events.write_events(tiny_events, tmp_path / "set")
    parts = {split: events.read_events(tmp_path / "set", split).collect() for split in ("train", "tuning")}
    expected = events.split_of(tiny_events["subject_id"])
    for split, part in parts.items():
        assert_frame_equal(part, tiny_events.filter(expected == split))
    with pytest.raises(InputError, match="no split `held_out`"):
        events.read_events(tmp_path / "set", "held_out")
    with pytest.raises(UsageError, match="unknown split `test`"):
        events.read_events(tmp_path / "set", "test")


def test_a_single_file_is_a_table_with_splits_by_hash(tiny_events, tmp_path):
    events.write_events(tiny_events, tmp_path / "one.parquet")
    meds.DataSchema.validate(pyarrow.parquet.read_table(tmp_path / "one.parquet"))
    assert_frame_equal(events.read_events(tmp_path / "one.parquet").collect(), tiny_events)
    tuning = events.read_events(tmp_path / "one.parquet", "tuning").collect()
    assert_frame_equal(tuning, tiny_events.filter(events.split_of(tiny_events["subject_id"]) == "tuning"))
    with pytest.raises(UsageError, match="exists already"):
        events.write_events(tiny_events, tmp_path / "one.parquet")
    events.write_events(tiny_events.head(3), tmp_path / "one.parquet", overwrite=True)
    assert events.read_events(tmp_path / "one.parquet").collect().height == 3


def test_splits_of_the_metadata_hold_where_shards_have_none(tiny_events, tmp_path):
    (tmp_path / "set" / "metadata").mkdir(parents=True)
    (tmp_path / "set" / "data").mkdir()
    half = pl.col("subject_id") <= 80
    tiny_events.filter(half).write_parquet(tmp_path / "set" / "data" / "0.parquet")
    tiny_events.filter(~half).write_parquet(tmp_path / "set" / "data" / "1.parquet")
    pl.DataFrame({"subject_id": [3, 90, 4], "split": ["held_out", "held_out", "train"]}).write_parquet(
        tmp_path / "set" / "metadata" / "subject_splits.parquet"
    )
    held_out = events.read_events(tmp_path / "set", "held_out").collect()
    assert held_out["subject_id"].unique().to_list() == [3, 90]
    assert events.read_events(tmp_path / "set").collect().height == tiny_events.height


def test_the_sample_data_set_is_read_whole(samples):
    folder = samples / "meds_layout_synthea_stu3"
    shards = {split: pl.read_parquet(folder / "data" / split / "0.parquet") for split in ("train", "tuning")}
    for split, shard in shards.items():
        found = events.read_events(folder, split).collect()
        assert found.height == shard.height
        assert found["code"].value_counts().sort("code").equals(shard["code"].value_counts().sort("code"))
    assert events.read_events(folder).collect().height == sum(shard.height for shard in shards.values())


def written(folder, name, frame) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / name)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "set does not exist"),
        (lambda folder: folder.mkdir(), "no data/ folder"),
        (lambda folder: (folder / "data").mkdir(parents=True), "holds no Parquet file"),
        (lambda folder: folder.write_text("subject_id,time,code"), "set is not a readable Parquet file"),
        (lambda folder: folder.touch(), "set is not a readable Parquet file"),
        (
            lambda folder: written(folder, "data/0.parquet", pl.DataFrame({"a": [1]})),
            "0.parquet: no column `subject_id`",
        ),
    ],
)
def test_what_is_no_event_table_is_refused_by_name(tmp_path, make, said):
    make(tmp_path / "set")
    with pytest.raises(InputError) as refusal:
        events.read_events(tmp_path / "set")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert isinstance(refusal.value, FormatError) == ("no data/" in said)


@pytest.mark.parametrize(
    ("name", "frame", "said"),
    [
        ("codes", {"a": [1]}, "codes.parquet: no column `code`, found a"),
        ("codes", {"code": [1]}, "codes.parquet: column `code` has type Int64"),
        ("codes", {"code": [None, "a"]}, "codes.parquet: column `code` is null in 1 rows"),
        ("codes", {"code": ["a"], "parent_codes": ["b"]}, "codes.parquet: column `parent_codes` has type String"),
        ("codes", {"code": ["a"], "description": [1]}, "codes.parquet: column `description` has type Int64"),
        ("subject_splits", {"subject_id": [1]}, "subject_splits.parquet: no column `split`, found subject_id"),
        ("subject_splits", {"subject_id": ["1"], "split": ["train"]}, "column `subject_id` has type String"),
        ("subject_splits", {"subject_id": [1], "split": [1]}, "column `split` has type Int64"),
        ("subject_splits", {"subject_id": [1, 1], "split": ["train", "tuning"]}, "two splits, first subject_id 1"),
    ],
)
def test_metadata_that_is_wrong_is_refused_by_name(tmp_path, name, frame, said):
    written(tmp_path, f"metadata/{name}.parquet", pl.DataFrame(frame))
    read = events.read_codes if name == "codes" else events.read_splits
    with pytest.raises(InputError) as refusal:
        read(tmp_path)
    assert said in str(refusal.value)


def test_metadata_may_be_absent_or_partial(tmp_path):
    assert events.read_codes(tmp_path).schema == pl.Schema(events.CODES_SCHEMA)
    assert events.read_splits(tmp_path) is None
    written(tmp_path, "metadata/codes.parquet", pl.DataFrame({"code": ["A"], "more": [1]}))
    assert events.read_codes(tmp_path).rows() == [("A", None, None)]
    written(tmp_path, "metadata/subject_splits.parquet", pl.DataFrame({"subject_id": [1, 1], "split": ["train"] * 2}))
    assert events.read_splits(tmp_path).rows() == [(1, "train")]


def test_the_first_description_of_a_code_wins_and_given_parents_hold(tmp_path):
    seen = table([{"code": "ICD10CM//E11.9"}, {"code": "MY//1"}]).with_columns(description=pl.lit("seen"))
    first = [("MY//1", None, ["MY//0"])]
    second = [("MY//1", "given", None), ("MY//9", "g", None)]
    with events.event_writer(tmp_path / "set", {"dataset_name": "x"}) as writer:
        writer.write(seen, "train")
        writer.add_codes([pl.DataFrame(rows, schema=events.CODES_SCHEMA, orient="row") for rows in (first, second)])
        assert (writer.events, writer.subjects) == (2, 1)
    assert events.read_codes(tmp_path / "set").rows() == [
        ("ICD10CM//E11.9", "seen", ["ICD10CM//E11", "ICD10CM//E00-E89"]),
        ("MY//1", "given", ["MY//0"]),
        ("MY//9", "g", None),
    ]


def test_shards_written_apart_are_adopted(tiny_events, tmp_path):
    shard = events.write_shard(tiny_events, tmp_path / "apart.parquet")
    assert (shard.events, len(shard.subjects)) == (tiny_events.height, tiny_events["subject_id"].n_unique())
    with events.event_writer(tmp_path / "set", {}) as writer:
        writer.adopt(shard, "held_out")
        writer.write(tiny_events.clear(), "train")
    assert not (tmp_path / "apart.parquet").exists()
    judge_meds(tmp_path / "set")
    assert_frame_equal(events.read_events(tmp_path / "set", "held_out").collect(), tiny_events)


def test_shards_are_read_in_the_order_they_were_written(tmp_path):
    with events.event_writer(tmp_path / "set", {}) as writer:
        for subject in range(12):
            writer.write(table([{"subject_id": subject}]), "train")
    assert events.read_events(tmp_path / "set").collect()["subject_id"].to_list() == list(range(12))


def test_a_broken_writer_leaves_nothing(tiny_events, tmp_path):
    with pytest.raises(RuntimeError), events.event_writer(tmp_path / "set", {}) as writer:
        writer.write(tiny_events, "train")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_splits_have_their_shares_and_never_change():
    ids = pl.Series(np.arange(200_000) * 7 - 300)
    split = events.split_of(ids, held_out=0.2)
    shares = {name: (split == name).mean() for name in events.SPLITS}
    assert shares == pytest.approx({"train": 0.7, "tuning": 0.1, "held_out": 0.2}, abs=0.005)
    assert events.split_of(pl.Series([1, 2, 42, -5, 2**62])).to_list() == [
        "train",
        "train",
        "train",
        "tuning",
        "tuning",
    ]
    assert events.split_of(pl.Series([1, None])).to_list() == ["train", None]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_subject_s_split_depends_on_itself_alone(ids, tuning, held_out):
    together = events.split_of(pl.Series(ids, dtype=pl.Int64), tuning=tuning, held_out=held_out).to_list()
    apart = [events.split_of(pl.Series([one], dtype=pl.Int64), tuning=tuning, held_out=held_out).item() for one in ids]
    assert together == apart
    more = events.split_of(pl.Series(ids, dtype=pl.Int64), tuning=tuning, held_out=held_out + 0.1).to_list()
    assert all(later == "held_out" for earlier, later in zip(together, more, strict=True) if earlier == "held_out")


def test_ids_are_the_numbers_themselves_or_a_hash_that_never_changes():
    given_ids = pl.Series(["12", "0", "012", "12.0", "a", None, "é", "", "9" * 18, "9" * 19, "12"])
    found = events.stable_id(given_ids).to_list()
    assert found[:2] == [12, 0]
    assert found[4] == 2340832890917691671 == events.stable_id_of("a")
    assert found[5] is None
    assert found[8] == int("9" * 18)
    assert found[0] == found[10]
    hashed = [found[index] for index in (2, 3, 4, 6, 7, 9)]
    assert len({*hashed, 12, 0}) == 8
    assert all(0 <= number < 2**63 for number in hashed)
    assert events.stable_id(pl.Series([], dtype=pl.String)).dtype == pl.Int64


@pytest.mark.slow
def test_ids_of_a_million_strings_do_not_collide():
    ids = events.stable_id(pl.Series([f"urn:uuid:{number:032x}" for number in range(1_000_000)]))
    assert ids.n_unique() == 1_000_000
    bits = np.unpackbits(ids.to_numpy().view(np.uint8).reshape(-1, 8), axis=1).mean(0)
    assert np.sort(bits)[0] == 0, "the sign bit is never set"
    assert np.abs(np.sort(bits)[1:] - 0.5).max() < 0.005


def test_texts_given_as_enums_are_read_back_as_texts(tiny_events, tmp_path):
    described = tiny_events.with_columns(description=pl.lit("what it is"))
    known = {name: pl.Enum(described[name].drop_nulls().unique().sort()) for name in ("code", "text_value", "unit")}
    enums = described.cast({**known, "description": pl.Enum(["what it is"])})
    plain, other = (events.write_shard(t, tmp_path / f"{i}.parquet") for i, t in enumerate((described, enums)))
    assert other.descriptions.equals(plain.descriptions)
    assert (other.events, other.subjects.to_list()) == (plain.events, plain.subjects.to_list())
    assert pyarrow.parquet.read_table(other.path).equals(pyarrow.parquet.read_table(plain.path))
    assert pl.read_parquet(other.path).equals(tiny_events.select(events.COLUMNS))

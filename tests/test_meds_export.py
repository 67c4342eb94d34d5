"""MEDS data sets: checked by the `meds` package, with the same events, splits, shards and codes."""

import meds
import polars as pl
import pyarrow.parquet
import pytest

import ehrsim
from ehrsim import events, reference
from ehrsim.errors import UsageError


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds") / "events"
    ehrsim.write_events(reference.population(60, seed=8), folder, name="people")
    return folder


def checked(folder) -> pl.DataFrame:
    """All events of a data set of which every file has passed the schemas of `meds`."""
    frames = []
    for shard in sorted((folder / "data").rglob("*.parquet")):
        table = pyarrow.parquet.read_table(shard)
        meds.DataSchema.validate(table)
        frames.append(pl.from_arrow(table))
    meds.CodeMetadataSchema.validate(pyarrow.parquet.read_table(folder / "metadata" / "codes.parquet"))
    splits = folder / "metadata" / "subject_splits.parquet"
    if splits.is_file():
        meds.SubjectSplitSchema.validate(pyarrow.parquet.read_table(splits))
    meds.DatasetMetadataSchema.validate(ehrsim_json(folder / "metadata" / "dataset.json"))
    return pl.concat(frames)


def ehrsim_json(path):
    import orjson

    return orjson.loads(path.read_bytes())


@pytest.mark.parametrize("shard", [500_000, 5_000])
def test_the_same_events_splits_and_codes(shard, population, tmp_path):
    report = ehrsim.export_meds(population, tmp_path / "meds", shard=shard)
    rows, source = checked(tmp_path / "meds"), checked(population)
    keys = ["subject_id", "time", "code"]
    assert events.sort(rows.lazy()).collect().equals(events.sort(source.lazy()).collect())
    assert events.read_splits(tmp_path / "meds").equals(events.read_splits(population))
    assert events.read_codes(tmp_path / "meds").equals(events.read_codes(population))
    files = len(list((tmp_path / "meds" / "data").rglob("*.parquet")))
    assert files == 2 if shard == 500_000 else files > 6
    assert report.rows == {"events": source.height}
    assert rows.select(keys).height == source.height
    assert ehrsim_json(tmp_path / "meds" / "metadata" / "dataset.json")["dataset_name"] == "people"


def test_strict_leaves_the_columns_of_meds_alone(population, tmp_path):
    report = ehrsim.export_meds(population, tmp_path / "meds", strict=True)
    rows = checked(tmp_path / "meds")
    assert rows.columns == ["subject_id", "time", "code", "numeric_value", "text_value"]
    source = checked(population)
    assert (
        events.sort(events.conform(rows).lazy())
        .collect()
        .select(rows.columns)
        .sort(rows.columns)
        .equals(source.select(rows.columns).sort(rows.columns))
    )
    lost = {reason: count.count for reason, count in report.not_carried.items()}
    assert lost["unit, for which MEDS has no column"] == source["unit"].count()
    assert lost["end time, for which MEDS has no column"] == source["end_time"].count()


def test_splits_of_ones_choice(population, tmp_path):
    given = pl.DataFrame({"subject_id": range(1, 61), "split": ["held_out"] * 60})
    ehrsim.export_meds(population, tmp_path / "none", splits="none")
    assert not (tmp_path / "none" / "metadata" / "subject_splits.parquet").exists()
    assert (tmp_path / "none" / "data" / "0.parquet").is_file()
    given.write_parquet(tmp_path / "none" / "metadata" / "subject_splits.parquet")
    ehrsim.export_meds(tmp_path / "none", tmp_path / "kept")
    assert set(events.read_splits(tmp_path / "kept")["split"]) == {"held_out"}
    ehrsim.export_meds(tmp_path / "none", tmp_path / "hashed", splits="hash")
    assert events.read_splits(tmp_path / "hashed").equals(events.read_splits(population))


@pytest.mark.parametrize(
    ("options", "message"), [({"splits": "thirds"}, "unknown splits"), ({"shard": 0}, "shard is 0")]
)
def test_options_that_cannot_be(options, message, population, tmp_path):
    with pytest.raises(UsageError, match=message):
        ehrsim.export_meds(population, tmp_path / "meds", **options)

"""Writing event tables: MEDS data sets shard by shard, or a single Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl

from ehrsim import codes
from ehrsim.events.arrow import MEDS_COLUMNS, write_meds
from ehrsim.events.subjects import SPLITS, split_of
from ehrsim.events.table import CODES_SCHEMA, DESCRIPTION, SCHEMA, conform, sort
from ehrsim.outputs import atomic_directory, atomic_file

MEDS_VERSION = "0.4.1"


class Shard(NamedTuple):
    """A Parquet file of sorted events, written by `write_shard`, with what the metadata must know of it."""

    path: Path
    events: int
    subjects: pl.Series
    """Distinct subject ids, int64."""
    descriptions: pl.DataFrame
    """(code, description) of every code in it, null where a code has no description."""


def write_shard(events: pl.DataFrame, path: Path, *, strict: bool = False) -> Shard:
    """Write sorted events of whole subjects to `path`; may run in another process than the `EventWriter`.

    Texts may be enums: they are read back as texts all the same. `strict` writes the columns that MEDS names alone.
    """
    frame = events if _conforms(events) else conform(events)
    if DESCRIPTION not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias(DESCRIPTION))
    first = pl.col(DESCRIPTION).drop_nulls().first()
    descriptions = frame.group_by("code", maintain_order=True).agg(first).cast(pl.String)
    frame = frame.drop(DESCRIPTION)
    write_meds(frame.select(MEDS_COLUMNS) if strict else frame, path)
    return Shard(path, frame.height, frame["subject_id"].unique(maintain_order=True), descriptions)


def _conforms(events: pl.DataFrame) -> bool:
    """Whether the table has the columns and types of events, or enums for texts."""
    expected = {**SCHEMA, DESCRIPTION: pl.String()}
    return events.columns[: len(SCHEMA)] == list(SCHEMA) and all(
        found == expected.get(name) or (isinstance(found, pl.Enum) and expected.get(name) == pl.String)
        for name, found in events.schema.items()
    )


class EventWriter:
    """Writes a MEDS data set shard by shard; make one with `event_writer`.

    Every frame handed to `write` holds whole subjects that no other frame holds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str | None, int] = {}
        self._descriptions: list[pl.DataFrame] = []
        self._code_tables: list[pl.DataFrame] = []
        self._splits: list[pl.DataFrame] = []
        self.events = 0
        self.subjects = 0

    def write(self, events: pl.DataFrame, split: str | None = None, *, strict: bool = False) -> None:
        """Append one shard of sorted events, to a split or, in data that has none, to the whole; see `write_shard`."""
        if not events.is_empty():
            self.adopt(write_shard(events, self._folder / "shard.partial", strict=strict), split)

    def adopt(self, shard: Shard, split: str | None = None) -> None:
        """Append a shard that lies somewhere on the same file system; the file is moved."""
        number = self._shards.get(split, 0)
        path = self._folder / "data" / (split or "") / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        shard.path.replace(path)
        self._shards[split] = number + 1
        self._descriptions.append(shard.descriptions)
        if split is not None:
            self._splits.append(pl.DataFrame({"subject_id": shard.subjects}).with_columns(split=pl.lit(split)))
        self.events += shard.events
        self.subjects += len(shard.subjects)

    def add_codes(self, tables: list[pl.DataFrame]) -> None:
        """Add code tables (code, description, parent_codes); the first description of a code wins."""
        self._code_tables.extend(table.select(list(CODES_SCHEMA)) for table in tables)

    def metadata_path(self, name: str) -> Path:
        """Where to put a further metadata file of that name."""
        (self._folder / "metadata").mkdir(exist_ok=True)
        return self._folder / "metadata" / name

    def finish(self, dataset: dict[str, str]) -> None:
        """Write the metadata: data set, splits, and the code table gathered from `write` and `add_codes`."""
        metadata = self._folder / "metadata"
        metadata.mkdir(parents=True, exist_ok=True)
        (self._folder / "data").mkdir(exist_ok=True)
        info = {**dataset, "meds_version": MEDS_VERSION}
        (metadata / "dataset.json").write_bytes(orjson.dumps(info, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        if self._splits:
            write_meds(pl.concat(self._splits).sort("subject_id"), metadata / "subject_splits.parquet")
        write_meds(self._code_table(), metadata / "codes.parquet")

    def _code_table(self) -> pl.DataFrame:
        seen = [frame.with_columns(parent_codes=pl.lit(None, pl.List(pl.String))) for frame in self._descriptions]
        table = pl.concat([pl.DataFrame(schema=CODES_SCHEMA), *self._code_tables, *seen])
        first = [pl.col(column).drop_nulls().first() for column in (DESCRIPTION, "parent_codes")]
        table = table.group_by("code", maintain_order=True).agg(first)
        derived = pl.Series([list(codes.parents(code)) or None for code in table["code"]], dtype=pl.List(pl.String))
        return table.with_columns(pl.col("parent_codes").fill_null(derived)).sort("code")


@contextmanager
def event_writer(out: str | Path, dataset: dict[str, str], *, overwrite: bool = False) -> Iterator[EventWriter]:
    """An `EventWriter` on `out`, which appears whole when the block ends, or not at all.

    `dataset` goes to `metadata/dataset.json` (dataset_name, dataset_version, etl_name, license …).
    """
    with atomic_directory(Path(out), overwrite=overwrite) as folder:
        writer = EventWriter(folder)
        yield writer
        writer.finish(dataset)


def write_events(
    events: pl.LazyFrame | pl.DataFrame, out: str | Path, *, name: str = "events", overwrite: bool = False
) -> None:
    """Write a table that fits in memory: a MEDS folder with splits by `split_of`, or one file for `*.parquet`."""
    frame = sort(conform(events.lazy().collect()).lazy()).collect()
    if Path(out).suffix == ".parquet":
        with atomic_file(Path(out), overwrite=overwrite) as path:
            write_meds(frame, path)
        return
    subjects = frame["subject_id"].unique(maintain_order=True)
    splits = pl.DataFrame({"subject_id": subjects, "split": split_of(subjects)})
    with event_writer(out, {"dataset_name": name}, overwrite=overwrite) as writer:
        for split in SPLITS:
            keep = splits.filter(pl.col("split") == split).select("subject_id")
            writer.write(frame.join(keep, on="subject_id", how="semi", maintain_order="left"), split)

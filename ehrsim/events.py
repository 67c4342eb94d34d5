"""The event table: one row per event of a subject, as a Polars frame with MEDS columns. Everything reads and writes it.

| column | type | meaning |
|---|---|---|
| subject_id | int64 | the subject |
| time | datetime[us] | when, as local wall-clock time without a zone; null for static facts (sex, race …) |
| code | string | `[KIND//]SYSTEM//CODE`, see `ehrsim.codes` |
| numeric_value | float32 | a measured value, null if none |
| text_value | string | a textual or coded answer, null if none |
| unit | string | UCUM unit of `numeric_value` |
| visit_id | int64 | the visit the event belongs to, unique within the subject; null if none |
| end_time | datetime[us] | end of a condition, medication, procedure …; null if unknown or a moment |

`description`, the display of the code, may follow as a ninth column; on disk it stands in `metadata/codes.parquet`.

On disk a table is a MEDS 0.4 data set (https://github.com/Medical-Event-Data-Standard/meds): `data/SPLIT/*.parquet`
with each subject whole, contiguous and in time order in one file, `metadata/codes.parquet`,
`metadata/subject_splits.parquet` and `metadata/dataset.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl

from ehrsim import codes
from ehrsim.errors import FormatError, InputError
from ehrsim.outputs import atomic_directory, atomic_file

SCHEMA: dict[str, pl.DataType] = {
    "subject_id": pl.Int64(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "numeric_value": pl.Float32(),
    "text_value": pl.String(),
    "unit": pl.String(),
    "visit_id": pl.Int64(),
    "end_time": pl.Datetime("us"),
}
DESCRIPTION = "description"
COLUMNS = tuple(SCHEMA)
REQUIRED = ("subject_id", "time", "code")
SPLITS = ("train", "tuning", "held_out")
CODES_SCHEMA: dict[str, pl.DataType] = {
    "code": pl.String(),
    "description": pl.String(),
    "parent_codes": pl.List(pl.String()),
}
MEDS_VERSION = "0.4.1"
EARLIEST_YEAR, LATEST_YEAR = 1800, 2300
"""Times outside these years are placeholders (year 1, 9999) or errors; de-identified calendars reach 2200."""


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring a frame with some of the columns to the full schema: missing ones null, types cast, order fixed.

    Raises `InputError` if a required column is missing or a type cannot be cast without loss of rows.
    """
    return conform_lazy(frame.lazy(), frame.schema).collect()


def conform_lazy(frame: pl.LazyFrame, schema: pl.Schema, source: str = "the event table") -> pl.LazyFrame:
    """`conform` for a lazy frame of known `schema`; `source` names it in errors."""
    for column in REQUIRED:
        if column not in schema:
            raise InputError(
                f"{source}: no column `{column}`, found {', '.join(schema)}", hint=f"expected {', '.join(COLUMNS)}"
            )
    for column, expected in SCHEMA.items():
        found = schema.get(column)
        if found is not None and not _castable(found, expected):
            raise InputError(f"{source}: column `{column}` has type {found}, expected {expected}")
    expressions = [
        (_cast(column, schema[column], dtype) if column in schema else pl.lit(None, dtype)).alias(column)
        for column, dtype in SCHEMA.items()
    ]
    if DESCRIPTION in schema:
        expressions.append(pl.col(DESCRIPTION).cast(pl.String))
    return frame.select(expressions)


def _castable(found: pl.DataType, expected: pl.DataType) -> bool:
    if found in (expected, pl.Null):
        return True
    if expected == pl.String:
        return found in (pl.Categorical, pl.Enum, pl.String)
    if expected == pl.Datetime("us"):
        return found in (pl.Datetime, pl.Date)
    if expected == pl.Int64:
        return found.is_integer()
    return found.is_numeric()


def _cast(column: str, found: pl.DataType, expected: pl.DataType) -> pl.Expr:
    expression = pl.col(column)
    if isinstance(found, pl.Datetime) and found.time_zone is not None:
        expression = expression.dt.replace_time_zone(None)
    return expression.cast(expected)


def sort(events: pl.LazyFrame) -> pl.LazyFrame:
    """Canonical order: subject, then time with static facts first, then birth, visit start … visit end, death, code."""
    rank = (
        pl.when(pl.col("code") == codes.BIRTH)
        .then(pl.lit(0, pl.Int8))
        .when(pl.col("code").str.starts_with("VISIT_START//"))
        .then(pl.lit(1, pl.Int8))
        .when(pl.col("code").str.starts_with("VISIT_END//"))
        .then(pl.lit(3, pl.Int8))
        .when(pl.col("code") == codes.DEATH)
        .then(pl.lit(4, pl.Int8))
        .otherwise(pl.lit(2, pl.Int8))
    )
    keys = ["subject_id", "time", rank, "code", "visit_id", "numeric_value", "text_value", "unit", "end_time"]
    return events.sort(keys, nulls_last=False, maintain_order=True)


def read_events(source: str | Path, split: str | None = None) -> pl.LazyFrame:
    """Scan a MEDS folder, or a single Parquet file, as an event table; `split` keeps one split of it.

    Data without splits of its own is split by `split_of`. Descriptions from `metadata/codes.parquet` are joined on as
    the ninth column. Raises `InputError` where the source is not an event table.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source} does not exist", hint="expected a MEDS folder or a Parquet file of events")
    if source.is_file():
        return only(_scan([source], source), split)
    data = source / "data"
    if not data.is_dir():
        raise FormatError(f"{source} has no data/ folder, so it is not a MEDS data set", hint="ehrsim import it first")
    has_splits = any((data / name).is_dir() for name in SPLITS)
    folder = data / split if split and has_splits else data
    shards = sorted(folder.rglob("*.parquet"), key=lambda shard: (shard.parent, len(shard.name), shard.name))
    if not shards:
        raise InputError(f"{folder} holds no Parquet file")
    events = _scan(shards, source)
    if not has_splits:
        events = only(events, split)
    code_table = read_codes(source)
    if DESCRIPTION in events.collect_schema() or code_table.is_empty():
        return events
    descriptions = code_table.select("code", DESCRIPTION).unique("code").lazy()
    return events.join(descriptions, on="code", how="left", maintain_order="left")


def only(events: pl.LazyFrame, split: str | None) -> pl.LazyFrame:
    """The subjects that `split_of` puts into `split`; all of them for None."""
    if split is None:
        return events
    member = pl.col("subject_id").map_batches(lambda ids: split_of(ids) == split, return_dtype=pl.Boolean)
    return events.filter(member)


def _scan(shards: list[Path], source: Path) -> pl.LazyFrame:
    frames = []
    for shard in shards:
        try:
            schema = pl.read_parquet_schema(shard)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{shard} is not a readable Parquet file: {first_line(error)}") from error
        frames.append(conform_lazy(pl.scan_parquet(shard), pl.Schema(schema), str(shard)))
    return pl.concat(frames, how="diagonal") if len(frames) > 1 else frames[0]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for one-line messages."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def read_codes(source: str | Path) -> pl.DataFrame:
    """The code table (code, description, parent_codes) of a MEDS folder; empty where there is none."""
    path = Path(source) / "metadata" / "codes.parquet"
    if not path.is_file():
        return pl.DataFrame(schema=CODES_SCHEMA)
    table = read_parquet(path)
    missing = [name for name in CODES_SCHEMA if name not in table.columns]
    filled = table.with_columns(pl.lit(None, CODES_SCHEMA[name]).alias(name) for name in missing)
    return filled.select(pl.col(name).cast(dtype) for name, dtype in CODES_SCHEMA.items())


def read_splits(source: str | Path) -> pl.DataFrame | None:
    """The subject splits (subject_id, split) of a MEDS folder, None where it has none."""
    path = Path(source) / "metadata" / "subject_splits.parquet"
    return read_parquet(path).select(pl.col("subject_id").cast(pl.Int64), "split") if path.is_file() else None


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file, or raise `InputError` naming it."""
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {first_line(error)}") from error


def split_of(subject_ids: pl.Series, *, tuning: float = 0.1, held_out: float = 0.0) -> pl.Series:
    """The split of each subject by a hash of its id alone (splitmix64), so that it never changes as data grows.

    The lowest `held_out` share of the hash range is held out, the next `tuning` share is for tuning, the rest trains.
    """
    with np.errstate(over="ignore"):
        mixed = subject_ids.to_numpy().astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    fraction = (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    names = np.where(fraction < held_out, "held_out", np.where(fraction < held_out + tuning, "tuning", "train"))
    return pl.Series("split", names.tolist(), dtype=pl.String)


def stable_id(identifiers: pl.Series) -> pl.Series:
    """A 63-bit integer id for each string: the number itself where the string is one, else a BLAKE2b hash of it."""
    unique = identifiers.drop_nulls().unique()
    values = [stable_id_of(text) for text in unique.to_list()]
    return identifiers.replace_strict(unique, pl.Series(values, dtype=pl.Int64), default=None, return_dtype=pl.Int64)


def stable_id_of(text: str) -> int:
    """`stable_id` of one string."""
    if text.isascii() and text.isdigit() and len(text) <= 18 and (text == "0" or text[0] != "0"):
        return int(text)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


class Shard(NamedTuple):
    """A Parquet file of sorted events, written by `write_shard`, with what the metadata must know of it."""

    path: Path
    events: int
    subjects: pl.Series
    """Distinct subject ids, int64."""
    descriptions: pl.DataFrame
    """(code, description) of the codes in it that have one."""


def write_shard(events: pl.DataFrame, path: Path) -> Shard:
    """Write sorted events of whole subjects to `path`; may run in another process than the `EventWriter`."""
    frame = conform(events)
    if DESCRIPTION in frame.columns:
        described = frame.lazy().select("code", DESCRIPTION).drop_nulls()
        descriptions = described.unique("code", keep="first", maintain_order=True).collect()
        frame = frame.drop(DESCRIPTION)
    else:
        descriptions = pl.DataFrame(schema={"code": pl.String, DESCRIPTION: pl.String})
    frame.write_parquet(path, compression="zstd", statistics=True)
    return Shard(path, frame.height, frame["subject_id"].unique(maintain_order=True), descriptions)


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

    def write(self, events: pl.DataFrame, split: str | None = None) -> None:
        """Append one shard of sorted events, to a split or, in data that has none, to the whole."""
        if not events.is_empty():
            self.adopt(write_shard(events, self._folder / "shard.partial"), split)

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
            pl.concat(self._splits).sort("subject_id").write_parquet(metadata / "subject_splits.parquet")
        self._code_table().write_parquet(metadata / "codes.parquet")

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
        with atomic_file(Path(out)) as path:
            frame.write_parquet(path, compression="zstd")
        return
    subjects = frame["subject_id"].unique(maintain_order=True)
    splits = pl.DataFrame({"subject_id": subjects, "split": split_of(subjects)})
    with event_writer(out, {"dataset_name": name}, overwrite=overwrite) as writer:
        for split in SPLITS:
            keep = splits.filter(pl.col("split") == split).select("subject_id")
            writer.write(frame.join(keep, on="subject_id", how="semi", maintain_order="left"), split)


class Problem(NamedTuple):
    """One kind of defect in an event table: its name, how many rows have it and the first of them in words."""

    name: str
    rows: int
    example: str


def validate(events: pl.LazyFrame) -> list[Problem]:
    """Every kind of defect in a table with its count and first example; an empty list means a valid table.

    Errors of the table itself (nulls, out-of-range times, ends before starts …) and oddities of its content (events
    before birth or after death, duplicate rows, missing units) are told alike: real data has them, and the reader
    decides.
    """
    frame = events.with_row_index("row").collect()
    birth, death = pl.col("birth"), pl.col("death")
    first_birth = pl.col("time").filter(pl.col("code") == codes.BIRTH).min().over("subject_id").alias("birth")
    first_death = pl.col("time").filter(pl.col("code") == codes.DEATH).min().over("subject_id").alias("death")
    frame = frame.with_columns(first_birth, first_death)
    year = pl.col("time").dt.year()
    is_code = pl.col("code")
    checks: dict[str, pl.Expr] = {
        "subject_id is null": pl.col("subject_id").is_null(),
        "code is null or empty": is_code.is_null() | (is_code.str.len_bytes() == 0),
        "code has leading or trailing space": is_code != is_code.str.strip_chars(),
        f"time outside {EARLIEST_YEAR}-{LATEST_YEAR}": ~year.is_between(EARLIEST_YEAR, LATEST_YEAR),
        "end before start": pl.col("end_time") < pl.col("time"),
        "numeric value is NaN or infinite": ~pl.col("numeric_value").is_finite(),
        "event before birth": pl.col("time").dt.date() < birth.dt.date(),
        "event after death": pl.col("time").dt.date() > death.dt.date(),
        "more than one birth": (is_code == codes.BIRTH) & (pl.col("time") != birth),
        "more than one death": (is_code == codes.DEATH) & (pl.col("time") != death),
        "subject in two places": pl.col("subject_id").ne_missing(pl.col("subject_id").shift())
        & ~pl.col("subject_id").is_first_distinct(),
        "time runs backwards": (pl.col("time") < pl.col("time").shift())
        & pl.col("subject_id").eq_missing(pl.col("subject_id").shift()),
        "duplicate row": ~pl.struct(COLUMNS).is_first_distinct(),
    }
    problems = []
    for name, failed in checks.items():
        rows = frame.filter(failed.fill_null(False))
        if rows.height:
            problems.append(Problem(name, rows.height, _describe(rows.row(0, named=True))))
    return problems


def _describe(row: dict[str, object]) -> str:
    shown = {
        key: row[key] for key in ("subject_id", "time", "code", "numeric_value", "end_time") if row[key] is not None
    }
    return f"row {row['row']}: " + ", ".join(f"{key} {value}" for key, value in shown.items())

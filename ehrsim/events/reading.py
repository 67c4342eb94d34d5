"""Reading event tables, code tables and subject splits from disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ehrsim.errors import FormatError, InputError, UsageError
from ehrsim.events.subjects import SPLITS, only
from ehrsim.events.table import CODES_SCHEMA, DESCRIPTION, conform_lazy


def read_events(source: str | Path, split: str | None = None) -> pl.LazyFrame:
    """Scan a MEDS folder, or a single Parquet file, as an event table; `split` keeps one split of it.

    Splits are the folders `data/SPLIT`, else those of `metadata/subject_splits.parquet`, else those of `split_of`.
    Descriptions from `metadata/codes.parquet` are joined on as the ninth column. Raises `InputError` where the source
    is not an event table or has no such split, `UsageError` for a name that no split can have.
    """
    source = Path(source)
    if split is not None and split not in SPLITS:
        raise UsageError(f"unknown split `{split}`", hint=f"expected one of {', '.join(SPLITS)}")
    if not source.exists():
        raise InputError(f"{source} does not exist", hint="expected a MEDS folder or a Parquet file of events")
    if source.is_file():
        return only(_scan([source]), split)
    events = _scan_folder(source, split)
    code_table = read_codes(source)
    if DESCRIPTION in events.collect_schema() or code_table[DESCRIPTION].drop_nulls().is_empty():
        return events
    descriptions = code_table.select("code", DESCRIPTION).unique("code").lazy()
    return events.join(descriptions, on="code", how="left", maintain_order="left")


def _scan_folder(source: Path, split: str | None) -> pl.LazyFrame:
    """The shards of a MEDS folder that hold `split`, or the rows of its subjects in all shards."""
    data = source / "data"
    if not data.is_dir():
        raise FormatError(f"{source} has no data/ folder, so it is not a MEDS data set", hint="ehrsim import it first")
    present = [name for name in SPLITS if (data / name).is_dir()]
    if split and present and split not in present:
        raise InputError(f"{source} has no split `{split}`", hint=f"it has {', '.join(present)}")
    folder = data / split if split and present else data
    shards = sorted(folder.rglob("*.parquet"), key=lambda shard: (shard.parent, len(shard.name), shard.name))
    if not shards:
        raise InputError(f"{folder} holds no Parquet file")
    events = _scan(shards)
    if split is None or present:
        return events
    splits = read_splits(source)
    if splits is None:
        return only(events, split)
    members = splits.lazy().filter(pl.col("split") == split).select("subject_id")
    return events.join(members, on="subject_id", how="semi", maintain_order="left")


def _scan(shards: list[Path]) -> pl.LazyFrame:
    frames = []
    for shard in shards:
        with readable(shard):
            schema = pl.read_parquet_schema(shard)
        frames.append(conform_lazy(pl.scan_parquet(shard), pl.Schema(schema), str(shard)))
    return pl.concat(frames, how="diagonal") if len(frames) > 1 else frames[0]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for one-line messages."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def read_codes(source: str | Path) -> pl.DataFrame:
    """The code table (code, description, parent_codes) of a MEDS folder; empty where there is none."""
    path = Path(source) / "metadata" / "codes.parquet"
    return read_code_table(path) if path.is_file() else pl.DataFrame(schema=CODES_SCHEMA)


def read_code_table(path: Path) -> pl.DataFrame:
    """A code table (code, description, parent_codes) from its file; raises `InputError` where it is none."""
    table = read_parquet(path)
    _require(path, table, "code", pl.String())
    for name, dtype in CODES_SCHEMA.items():
        if name in table.columns and table.schema[name] not in (dtype, pl.Null):
            raise InputError(f"{path}: column `{name}` has type {table.schema[name]}, expected {dtype}")
    columns = [
        (pl.col(name).cast(dtype) if name in table.columns else pl.lit(None, dtype)).alias(name)
        for name, dtype in CODES_SCHEMA.items()
    ]
    return table.select(columns)


def read_splits(source: str | Path) -> pl.DataFrame | None:
    """The subject splits (subject_id, split) of a MEDS folder, None where it has none."""
    path = Path(source) / "metadata" / "subject_splits.parquet"
    return read_split_table(path) if path.is_file() else None


def read_split_table(path: Path) -> pl.DataFrame:
    """Subject splits (subject_id, split) from their file; raises `InputError` where a subject is in two of them."""
    table = read_parquet(path)
    _require(path, table, "subject_id", pl.Int64())
    _require(path, table, "split", pl.String())
    table = table.select(pl.col("subject_id").cast(pl.Int64), pl.col("split").cast(pl.String)).unique(
        maintain_order=True
    )
    twice = table.filter(~pl.col("subject_id").is_first_distinct())
    if twice.height:
        raise InputError(f"{path}: {twice.height:,} subjects are in two splits, first subject_id {twice.item(0, 0)}")
    return table


def _require(path: Path, table: pl.DataFrame, column: str, expected: pl.DataType) -> None:
    """Refuse a metadata table without a column, or with one of another type or with nulls."""
    if column not in table.columns:
        raise InputError(f"{path}: no column `{column}`, found {', '.join(table.columns)}")
    found = table.schema[column]
    if not (found.is_integer() if expected.is_integer() else found in (pl.String, pl.Categorical, pl.Enum)):
        raise InputError(f"{path}: column `{column}` has type {found}, expected {expected}")
    nulls = table[column].null_count()
    if nulls:
        raise InputError(f"{path}: column `{column}` is null in {nulls:,} rows")


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file, or raise `InputError` naming it."""
    with readable(path):
        return pl.read_parquet(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn every way in which reading a Parquet file can fail into one `InputError` that names it."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {first_line(error)}") from error

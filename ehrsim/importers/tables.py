"""Tables of a source: CSV (plain or gzipped; comma, tab, semicolon or bar) and Parquet files, read in bounded batches.

CSV cells come as text, Parquet cells in their own type; `ehrsim.importers.cells` gives both the type that is needed.
Every way in which a file can be unreadable becomes one `InputError` that names it.
"""

from __future__ import annotations

import difflib
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ehrsim.errors import InputError
from ehrsim.events import first_line
from ehrsim.importers.report import ImportReport, name_of

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
BATCH_ROWS = 250_000
LONGEST_HEADER = 1 << 20
"""Bytes within which the first line of a CSV file must end; a longer one is no header."""
NULL_TEXTS = ("", "NULL", r"\N")
"""Cells that say "nothing here" in exports of common databases, besides truly empty ones."""

_RENAMED_BY_POLARS = re.compile(r"(.*)_duplicated_\d+$")
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, zlib.error)
_REASONS = (
    ("invalid utf-8", "is not UTF-8 text", "save it as UTF-8"),
    ("found more fields", "has a row with more cells than its header has columns", "quote cells that hold separators"),
    ("csv malformed", "has a quoted cell that never ends", 'look for a single " in the file'),
    ("could not parse", "has a quoted cell that never ends", 'look for a single " in the file'),
    ("unexpected end of file", "ends in the middle of its compressed data", "copy or download it again"),
    ("deflate", "has corrupt compressed data", "copy or download it again"),
    ("gzip", "has corrupt compressed data", "copy or download it again"),
    ("empty csv", "is empty", "expected a header line"),
)


class Table(NamedTuple):
    """A table of a source: its lower-case name and the file that holds it."""

    name: str
    path: Path


def find_tables(folders: Iterable[Path]) -> dict[str, Table]:
    """The tables in `folders` by lower-case name, whatever the case and format of their files.

    Raises `InputError` where two files claim the same name: which one counts is not ours to guess.
    """
    found: dict[str, Table] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = table_name(path)
            if name is None or not path.is_file():
                continue
            if name in found:
                raise InputError(
                    f"two files hold the table {name}: {name_of(found[name].path)} and {name_of(path)}",
                    hint="keep one of them",
                )
            found[name] = Table(name, path)
    return found


def table_names(folder: Path) -> set[str]:
    """The lower-case names of the tables in a folder, by file name alone; empty for a file."""
    paths = folder.iterdir() if folder.is_dir() else iter(())
    return {name for path in paths if (name := table_name(path)) is not None}


def table_name(path: Path) -> str | None:
    """The lower-case name of the table a file holds, None for a file that is no table."""
    lower = path.name.lower()
    return next((lower.removesuffix(suffix) for suffix in SUFFIXES if lower.endswith(suffix)), None)


def report_unused(found: Mapping[str, Table], used: Iterable[str], report: ImportReport) -> None:
    """Count and name the tables that an importer leaves unread."""
    names = sorted(set(found) - set(used))
    report.find(f"table not used: {', '.join(names)}", len(names))


def columns(path: Path, separator: str | None = None) -> list[str]:
    """The column names of a file, in order; raises `InputError` if it has none that can be read."""
    with readable(path):
        names = _scan(path, separator).collect_schema().names()
    if any("\ufffd" in name for name in names):
        raise InputError(f"{path}: the header is not UTF-8 text", hint="save it as UTF-8")
    for name in names:
        renamed = _RENAMED_BY_POLARS.match(name)
        if renamed and renamed.group(1) in names:
            raise InputError(f"{path}: two columns are called `{renamed.group(1)}`", hint="rename one")
    return names


def rows(
    table: Table, required: Sequence[str], optional: Sequence[str], report: ImportReport
) -> Iterator[pl.DataFrame]:
    """Yield batches of the named columns of a table, matched without regard to case; absent optional ones are null."""
    names = columns(table.path)
    by_name = {name.lower(): name for name in names}
    if len(by_name) < len(names):
        twice = next(name for name in names if by_name[name.lower()] != name)
        raise InputError(f"{table.path}: two columns are called `{twice}` but for case", hint="rename one")
    for name in required:
        if name not in by_name:
            raise InputError(
                f"{table.path}: no column `{name}`, found {', '.join(by_name)}", hint=did_you_mean(name, by_name)
            )
    wanted = [*required, *optional]
    present = {name: by_name[name] for name in wanted if name in by_name}
    absent = [pl.lit(None, pl.String).alias(name) for name in wanted if name not in by_name]
    for batch in batches(table.path, present, report):
        yield batch.with_columns(absent).select(wanted)


def whole(table: Table, required: Sequence[str], optional: Sequence[str], report: ImportReport) -> pl.DataFrame:
    """All rows of a table that is small by nature (people, code lists)."""
    return pl.concat([*rows(table, required, optional, report)], how="vertical_relaxed")


def batches(
    path: Path,
    wanted: Mapping[str, str],
    report: ImportReport,
    *,
    separator: str | None = None,
    null_texts: Sequence[str] = NULL_TEXTS,
) -> Iterator[pl.DataFrame]:
    """Yield batches of at most `BATCH_ROWS` rows with the columns `wanted` (new name: name in the file).

    Texts are stripped of surrounding space; `null_texts` become null. At least one frame comes, empty for a table
    without rows. Counts the file and its rows in `report`.
    """
    report.files += 1
    with readable(path):
        scanned = _scan(path, separator)
        types = scanned.collect_schema()
        cells = [_cell(path, name, types[name], null_texts).alias(new) for new, name in wanted.items()]
        selected = scanned.select(cells)
        none_yet = True
        # Without projection polars parses every cell and so notices rows with too many; it costs no measurable time.
        strict = pl.QueryOptFlags(projection_pushdown=path.suffix.lower() == ".parquet")
        for batch in selected.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, optimizations=strict):
            report.rows += batch.height
            none_yet = False
            yield batch
        if none_yet:
            yield pl.DataFrame(schema=selected.collect_schema())


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest of the `known` names, None if none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{text}`' for text in near)}?" if near else None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in reading `path` into an `InputError` that names it and says how to mend it."""
    try:
        yield
    except _UNREADABLE as error:
        text = str(error).lower()
        for sign, what, hint in _REASONS:
            if sign in text:
                raise InputError(f"{path} {what}", hint=hint) from error
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "CSV"
        raise InputError(f"{path} is not a readable {kind} file: {first_line(error)}") from error


def _scan(path: Path, separator: str | None = None) -> pl.LazyFrame:
    if path.suffix.lower() == ".parquet":
        return pl.scan_parquet(path, glob=False)
    header = _header(path)
    separator = separator or max(",\t;|", key=header.count)
    # Tab-separated vocabulary files are written without quoting, so a lone quote in them is a character like any other.
    quote = None if separator == "\t" and not header.startswith('"') else '"'
    return pl.scan_csv(path, separator=separator, quote_char=quote, infer_schema=False, glob=False)


def _header(path: Path) -> str:
    """The first line of a CSV file, read without trusting that it ends."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as file:
        line = file.readline(LONGEST_HEADER)
    if len(line) == LONGEST_HEADER:
        raise InputError(f"{path}: the first line is longer than {LONGEST_HEADER:,} bytes", hint="expected CSV")
    if b"\0" in line:
        raise InputError(f"{path} is binary data, not CSV text", hint="expected a header line")
    return line.decode("utf-8", errors="replace").removeprefix("\ufeff")


def _cell(path: Path, name: str, found: pl.DataType, null_texts: Sequence[str]) -> pl.Expr:
    """A column as text without padding and null texts, or in its own plain type."""
    cell = pl.col(name)
    if found in (pl.String, pl.Categorical, pl.Enum):
        text = cell.cast(pl.String).str.strip_chars()
        return pl.when(~text.is_in(list(null_texts))).then(text)
    if found.is_nested() or found in (pl.Binary, pl.Object):
        raise InputError(f"{path}: column `{name}` has type {found}", hint="expected text, a number, a date or a time")
    if found.is_decimal():
        return cell.cast(pl.Float64)
    return cell

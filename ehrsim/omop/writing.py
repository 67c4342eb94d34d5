"""Writing the tables, part by part: CSV files that grow, or Parquet parts that are joined at the end."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal

import polars as pl

from ehrsim.omop.definitions import TABLES

Format = Literal["csv", "parquet"]


def in_shape(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """The rows of a table with all its columns, in order and typed; columns that are not given are empty."""
    schema = TABLES[table].schema
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    )


class TableWriter:
    """Writes `TABLE.csv` or `TABLE.parquet` for every table of the definitions, those without rows included."""

    def __init__(self, folder: Path, format: Format, stack: ExitStack) -> None:
        self._folder = folder
        self._format = format
        self._stack = stack
        self._files: dict[str, BinaryIO] = {}
        self._parts: dict[str, int] = dict.fromkeys(TABLES, 0)
        self.rows: dict[str, int] = dict.fromkeys(TABLES, 0)

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Append rows to a table."""
        if frame.is_empty():
            return
        rows = in_shape(frame, table)
        self.rows[table] += rows.height
        if self._format == "csv":
            rows.write_csv(self._csv(table), include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.f")
            return
        part = self._parts_folder(table) / f"{self._parts[table]}.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(part, compression="lz4")
        self._parts[table] += 1

    def finish(self) -> None:
        """Complete all files."""
        for table, definition in TABLES.items():
            if self._format == "csv":
                self._csv(table)
                continue
            path = self._folder / f"{table}.parquet"
            parts = [self._parts_folder(table) / f"{number}.parquet" for number in range(self._parts[table])]
            if not parts:
                pl.DataFrame(schema=definition.schema).write_parquet(path)
                continue
            pl.scan_parquet(parts).sink_parquet(path, compression="zstd", maintain_order=True)
            for part in parts:
                part.unlink()
            self._parts_folder(table).rmdir()

    def _csv(self, table: str) -> BinaryIO:
        if table not in self._files:
            file = self._stack.enter_context((self._folder / f"{table}.csv").open("wb"))
            file.write((",".join(TABLES[table].schema) + "\n").encode())
            self._files[table] = file
        return self._files[table]

    def _parts_folder(self, table: str) -> Path:
        return self._folder / f".{table}"

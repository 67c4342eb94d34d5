"""Importers: one file a source format, each turning its source into batches of event rows; this file is their registry.

An importer is `read(source, report) -> Iterator[pl.DataFrame]`: batches of bounded size with event columns (see
`ehrsim.events.SCHEMA`; `description` welcome), in any order, a subject may be spread over batches. It counts every row
it cannot use with `report.skip(reason, ...)`. `import_events` does the rest for all of them: canonical units and codes,
grouping by subject in bounded memory, sorting, splitting, writing and reporting.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ehrsim.errors import FormatError, InputError, UsageError
from ehrsim.importers.report import ImportReport
from ehrsim.importers.sink import write_batches
from ehrsim.progress import Progress, silent

Reader = Callable[[Path, ImportReport], Iterator[pl.DataFrame]]


class Importer(NamedTuple):
    """A source format: the module that reads it and what it is called in messages."""

    module: str
    title: str


IMPORTERS: dict[str, Importer] = {
    "meds": Importer("ehrsim.importers.meds", "MEDS data set or Parquet file of events"),
    "fhir": Importer("ehrsim.importers.fhir", "FHIR R4 bundles, NDJSON or Bulk Data export"),
    "omop": Importer("ehrsim.importers.omop", "OMOP CDM 5.x tables (CSV, Parquet or DuckDB)"),
    "mimic": Importer("ehrsim.importers.mimic", "MIMIC-IV CSV (hosp and icu)"),
    "synthea": Importer("ehrsim.importers.synthea", "Synthea CSV"),
    "table": Importer("ehrsim.importers.table", "any tables, described by a TOML mapping"),
}
"""Every module here offers `read` (a `Reader`) and `recognises(source: Path) -> bool`, which only looks at names."""


def detect(source: Path) -> str:
    """The name of the format of `source`, judged by names and first bytes; raises `FormatError` if none fits."""
    if not source.exists():
        raise InputError(f"{source} does not exist")
    for name, importer in IMPORTERS.items():
        if importlib.import_module(importer.module).recognises(source):
            return name
    raise FormatError(
        f"{source} is in no format known here",
        hint=f"name it with --from {'|'.join(IMPORTERS)}",
    )


def reader(name: str) -> Reader:
    """The reader of a named format."""
    if name not in IMPORTERS:
        raise UsageError(f"unknown source format `{name}`", hint=f"expected one of {', '.join(IMPORTERS)}")
    read: Reader = importlib.import_module(IMPORTERS[name].module).read
    return read


def import_events(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    held_out: float = 0.0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ImportReport:
    """Import `source` into a MEDS folder `out` and say what was read, changed, skipped and found.

    Memory stays bounded: batches are spilled to disk by subject, then each part is sorted and written. Splits come
    from the source where it has them, else from `ehrsim.events.split_of`; `held_out` of the training subjects are cut
    off for tests, by a hash of their id. Raises `InputError` on a source that cannot be read at all, and then leaves
    nothing behind.
    """
    source = Path(source)
    name = format or detect(source)
    if not source.exists():
        raise InputError(f"{source} does not exist")
    report = ImportReport(source=source.name, format=name)
    write_batches(
        reader(name)(source, report), Path(out), report, held_out=held_out, overwrite=overwrite, progress=progress
    )
    return report

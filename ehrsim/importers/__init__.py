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
from ehrsim.importers.deidentification import SAFE_HARBOR, Deidentifier, Policy, load_policy
from ehrsim.importers.deidentification.discretion import DiscreetReport, discreetly
from ehrsim.importers.report import ImportReport
from ehrsim.importers.sink import write_batches
from ehrsim.progress import Progress, silent

Reader = Callable[[Path, ImportReport], Iterator[pl.DataFrame]]


class Importer(NamedTuple):
    """A source format: the module that reads it, what it is called in messages, and whether it is of real people."""

    module: str
    title: str
    identified: bool = False
    """Its sources usually hold records of real people: they are de-identified unless the user says otherwise."""


IMPORTERS: dict[str, Importer] = {
    "meds": Importer("ehrsim.importers.meds", "MEDS data set or Parquet file of events"),
    "fhir": Importer("ehrsim.importers.fhir", "FHIR R4 bundles, NDJSON or Bulk Data export", identified=True),
    "omop": Importer("ehrsim.importers.omop", "OMOP CDM 5.x tables (CSV, Parquet or DuckDB)", identified=True),
    "mimic": Importer("ehrsim.importers.mimic", "MIMIC-IV CSV (hosp and icu)", identified=True),
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
    identified: bool = False,
    deidentify: str | Path | Policy | None = None,
    seed: int | str | None = None,
    mapping: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ImportReport:
    """Import `source` into a MEDS folder `out` and say what was read, changed, skipped and found.

    Memory stays bounded: batches are spilled to disk by subject, then each part is sorted and written. Splits come
    from the source where it has them, else from `ehrsim.events.split_of`; `held_out` of the training subjects are cut
    off for tests, by a hash of their id. Raises `InputError` on a source that cannot be read at all, and then leaves
    nothing behind.

    FHIR, OMOP and MIMIC sources are de-identified by the policy `safe-harbor` unless `identified` is set; every other
    one if `deidentify` names a policy: that one, a TOML file or a `Policy`. Ids and shifts then follow from `seed`,
    from the policy's key file, or from a key that is drawn and forgotten; `mapping` is a CSV file to write (source_id,
    subject_id) to. Neither report nor errors hold values of a source that is de-identified. Raises `UsageError` for
    options that contradict one another.
    """
    source, out = Path(source), Path(out)
    if identified:
        if deidentify is not None or seed is not None or mapping is not None:
            raise UsageError("identified data are left as they are", hint="drop --identified, or the other option")
        return _import(source, out, format, None, held_out, overwrite, progress)
    policy = load_policy(deidentify) if deidentify is not None else None
    # That a path does not exist says no more than the caller did.
    may_tell = not source.exists() or not (format is None or _is_identified(format))
    name = _name(source, format) if may_tell else discreetly(source, lambda: _name(source, format))
    if policy is None and _is_identified(name):
        policy = load_policy(None)
    if policy is None:
        if seed is not None or mapping is not None:
            raise UsageError("a seed and a mapping are of de-identification", hint=f"add --deidentify {SAFE_HARBOR}")
        return _import(source, out, name, None, held_out, overwrite, progress)
    if mapping is not None and Path(mapping).resolve().is_relative_to(out.resolve()):
        raise UsageError(f"the mapping {mapping} lies in {out}", hint="keep it apart from what may be handed on")
    deidentifier = Deidentifier(policy, seed, Path(mapping) if mapping is not None else None)
    return discreetly(source, lambda: _import(source, out, name, deidentifier, held_out, overwrite, progress))


def _is_identified(format: str) -> bool:
    return format in IMPORTERS and IMPORTERS[format].identified


def _name(source: Path, format: str | None) -> str:
    """The name of the format of a source that exists, as given or found out."""
    name = format or detect(source)
    if not source.exists():
        raise InputError(f"{source} does not exist")
    return name


def _import(
    source: Path,
    out: Path,
    format: str | None,
    deidentifier: Deidentifier | None,
    held_out: float,
    overwrite: bool,
    progress: Progress,
) -> ImportReport:
    name = _name(source, format)
    if deidentifier is None:
        report = ImportReport(source=source.name, format=name)
    else:
        report = DiscreetReport(source=f"the {name} source", format=name)
    write_batches(
        reader(name)(source, report),
        out,
        report,
        held_out=held_out,
        overwrite=overwrite,
        progress=progress,
        deidentifier=deidentifier,
    )
    return report

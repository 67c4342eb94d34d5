"""FHIR R4: bundles, single resources, NDJSON and Bulk Data exports, plain or gzipped, in a file or a folder.

A first pass over the source gathers what references point at (`references`); a second one turns each resource into its
events (`patients`, `clinical`). Times are wall-clock times as written, without their zone. A resource that cannot be
used is counted with its reason and skipped; a file that cannot be read is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ehrsim import codes, events
from ehrsim.importers.fhir.clinical import CLINICAL, Builder
from ehrsim.importers.fhir.elements import Element, UnusableResource, child, children
from ehrsim.importers.fhir.patients import encounter, patient
from ehrsim.importers.fhir.record import Event, Record, statuses
from ehrsim.importers.fhir.references import TARGETS, Identities, identities, key_of
from ehrsim.importers.fhir.sources import Found, find_files, is_fhir_file, resources
from ehrsim.importers.report import ImportReport

BATCH_EVENTS = 100_000

BUILDERS: dict[str, Builder] = {"Patient": patient, "Encounter": encounter, **CLINICAL}
NOT_TRUE = frozenset(
    (
        "entered-in-error",
        "refuted",
        "not-done",
        "not-taken",
        "cancelled",
        "nullified",
        "declined",
        "planned",
        "preparation",
    )
)
"""Statuses, of whatever resource type, that say that what is told has not happened."""


def recognises(source: Path) -> bool:
    """Whether `source` is a JSON or NDJSON file by its name, or a folder with one."""
    if source.is_dir():
        return any(is_fhir_file(path) for path in source.rglob("*"))
    return is_fhir_file(source)


def read(source: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events of a FHIR source in batches of about `BATCH_EVENTS` rows."""
    files = find_files(source, report)
    known = _first_pass(files)
    rows: list[Event] = []
    for row in _events(files, known, report):
        rows.append(row)
        if len(rows) >= BATCH_EVENTS:
            yield _batch(rows, known, report)
            rows = []
    if rows:
        yield _batch(rows, known, report)


def _first_pass(files: list[Path]) -> Identities:
    uncounted = ImportReport(source="", format="fhir")
    return identities(found for path in files for found in resources(path, uncounted, TARGETS))


def _events(files: list[Path], known: Identities, report: ImportReport) -> Iterator[Event]:
    """The events of all resources of all files; what is not used is counted by resource type."""
    unused: Counter[str] = Counter()
    patients: set[int] = set()
    for path in files:
        report.files += 1
        for found in resources(path, report):
            report.rows += 1
            build = BUILDERS.get(found.resource["resourceType"])
            if build is None or _is_derived(found.resource):
                unused[found.resource["resourceType"]] += 1
                continue
            try:
                yield from _usable(found, build, known, patients, report)
            except UnusableResource as problem:
                example = f"{found}: {problem.found}" if problem.found else found
                report.skip(f"{found.resource['resourceType']}: {problem.reason}", 1, example)
    for name, count in sorted(unused.items()):
        if name != "Medication":
            report.find(f"resource type that makes no events: {name[:64]}", count)


def _is_derived(resource: Element) -> bool:
    """Whether an export wrote the resource beside those of events, which tell all that it tells."""
    try:
        tags = children(child(resource, "meta") or {}, "tag")
    except UnusableResource:
        return False
    return any(tag.get("system") == codes.TAG_SYSTEM and tag.get("code") == codes.DERIVED for tag in tags)


def _usable(found: Found, build: Builder, known: Identities, patients: set[int], report: ImportReport) -> list[Event]:
    """The events of a resource; raises `UnusableResource` where there should be none."""
    resource = found.resource
    if "status" in resource or "verificationStatus" in resource:
        for status in statuses(resource):
            if status in NOT_TRUE:
                raise UnusableResource(f"status {status}")
    if build is patient and known.repeated:
        key = key_of(resource)
        if key in patients:
            raise UnusableResource("given more than once")
        if key in known.repeated:
            patients.add(key)
    return build(Record(resource, found, known.medications, report))


def _batch(rows: list[Event], known: Identities, report: ImportReport) -> pl.DataFrame:
    """Rows as a frame, with the ids that the source itself states, without those of subjects that it does not have."""
    columns = dict(zip(Event._fields, zip(*rows, strict=True), strict=True))
    types = {**events.SCHEMA, "time": pl.Int64(), "end_time": pl.Int64(), "numeric_value": pl.Float64()}
    types[events.DESCRIPTION] = pl.String()
    frame = pl.DataFrame([pl.Series(name, columns[name], types[name]) for name in Event._fields])
    subjects = frame["subject_id"].to_numpy()
    present = known.subjects.contains(subjects)
    if not len(known.subjects.keys):
        report.find("event of a subject without a Patient", frame.height, rows[0].code)
    elif not present.all():
        missing = frame.filter(~present)
        report.skip("subject is no Patient of the source", missing.height, missing["code"][0])
        frame = frame.filter(present)
    visits = known.visits.translate(frame["visit_id"].fill_null(0).to_numpy())
    return frame.with_columns(
        pl.Series("subject_id", known.subjects.translate(frame["subject_id"].to_numpy())),
        pl.when(pl.col("visit_id").is_not_null()).then(pl.Series(visits)).alias("visit_id"),
        pl.col("time", "end_time").cast(pl.Datetime("us")),
    )

"""The verb `export_fhir`: events in, FHIR R4 with US Core 6.1 profiles out, every resource labelled as synthetic."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import get_args

from ehrsim import codes
from ehrsim.errors import UsageError
from ehrsim.fhir import groups, identity
from ehrsim.fhir.batches import batches
from ehrsim.fhir.fragments import Labels, Resource, encoded
from ehrsim.fhir.groups import Events
from ehrsim.fhir.links import link
from ehrsim.fhir.losses import count_losses
from ehrsim.fhir.places import ORGANIZATIONS, place_resources
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.shapes import Shapes
from ehrsim.fhir.table import table_of
from ehrsim.fhir.validation import Validate, Validator
from ehrsim.fhir.writers import ENTRIES, BundleWriter, Format, Layout, NdjsonWriter
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent

GROUP_EVENTS = {"ndjson": 250_000, "transaction": 25_000, "batch": 25_000, "collection": 25_000}
"""Events of a group by format: bundles are held in memory until their group is complete."""


def export_fhir(
    events: Events,
    out: str | Path,
    *,
    format: Format = "ndjson",
    entries: int = ENTRIES,
    shard: int | None = None,
    compressed: bool = False,
    validate: Validate = "fast",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write events (a MEDS folder, a Parquet file or a frame) as FHIR R4 to the folder `out`, and say what was written.

    `ndjson` is the layout of FHIR Bulk Data: `Type.ndjson` and a `manifest.json`, cut after every `shard` resources and
    gzipped if asked for. `transaction` and `batch` are bundles to upload, of `entries` at most: `shared.json` first,
    then `SUBJECT.json` or its parts `SUBJECT-001.json`, in order. `collection` is one bundle a patient, complete in
    itself.
    Ids are UUIDs of the run (from `metadata/dataset.json`), `seed`, the subject and the event, the same for any format,
    order or subset of the subjects. `validate` is `none`; `fast`, which holds every byte that is written against the
    rules of FHIR and US Core and every reference against what it leads to; or `full`, which also evaluates all
    invariants and asks fhir.resources, on the first resource of every shape and some hundred others. Memory is bounded
    by a group of some hundred thousand events.

    Raises `InputError` for a source that is no event table, `UsageError` for an unknown option or an output that
    exists, `GateError` for a resource that is not valid; then nothing is written.
    """
    for option, value, known in (("format", format, get_args(Format)), ("validate", validate, get_args(Validate))):
        if value not in known:
            raise UsageError(f"unknown {option} `{value}`", hint=f"expected one of {', '.join(known)}")
    layout = Layout(format, entries, shard, compressed)
    layout.check()
    report = ExportReport(format=format)
    with atomic_directory(Path(out), overwrite=overwrite) as folder, ExitStack() as stack:
        source = groups.open_source(events)
        key = identity.run_key(source.dataset, seed)
        labels = Labels(f"{codes.URI_BASE}/run/{identity.uuids(key.reshape(1, 2))[0]}")
        shapes, validator = Shapes(labels), Validator(validate, report)
        prefix = layout.prefixes()
        places = [place_resources(number, labels, prefix) for number in range(ORGANIZATIONS)]
        validator.check(chain.from_iterable(places))
        writer = _writer(layout, folder, places, labels, stack, validator)
        parts = groups.parts(source, GROUP_EVENTS[format], report)
        total = sum(part.subjects for part in parts)
        for part in parts:
            frame = groups.read(part, report)
            if not frame.is_empty():
                table = table_of(frame, shapes, groups.descriptions_in(frame, source.descriptions), key)
                count_losses(table, shapes, report)
                links = link(table, prefix)
                for batch in batches(table, shapes, links):
                    writer.write(batch, validator.checked(batch, map(encoded, batch.resources)))
                validator.end_group()
                writer.end_group(table, links.place.tolist())
                report.patients += len(table.subjects)
            progress("export", report.patients, total, "patients")
        writer.finish()
        report.resources = dict(sorted(writer.counts.items()))
    return report


def _writer(
    layout: Layout,
    folder: Path,
    places: list[list[Resource]],
    labels: Labels,
    stack: ExitStack,
    validator: Validator,
) -> NdjsonWriter | BundleWriter:
    if layout.format == "ndjson":
        return NdjsonWriter(folder, places, labels, layout, stack)
    return BundleWriter(folder, places, labels, layout, validator.check_bundle)

"""The verb `export_cds_hooks`: requests that a CDS Hooks client would send at moments of simulated patients' records.

Each request is a fixture for tests of decision support: its hook, its context, and a prefetch that holds what was known
at that moment and nothing of the patient's future. No server is behind them, and none is named unless asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
import orjson
import polars as pl
from msgspec import UNSET

from ehrsim import codes, groups
from ehrsim.errors import InputError, UsageError
from ehrsim.fhir import contents, identity, prefetch
from ehrsim.fhir.batches import batches
from ehrsim.fhir.cds_requests import (
    EncounterDischarge,
    EncounterDischargeRequest,
    OrderSelect,
    OrderSelectRequest,
    OrderSign,
    OrderSignRequest,
    PatientView,
    PatientViewRequest,
    Request,
)
from ehrsim.fhir.fragments import Labels, Resource
from ehrsim.fhir.identity import Words
from ehrsim.fhir.links import Links, link
from ehrsim.fhir.moments import Known, Moments, Situation, draw_moments, known_at
from ehrsim.fhir.places import ORGANIZATIONS, place_resources, places
from ehrsim.fhir.prefetch import Template
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.shapes import Shapes
from ehrsim.fhir.table import Table, table_of, without_control_characters
from ehrsim.fhir.validation import Validate, Validator
from ehrsim.fhir.writers import TOLD_TYPES, Layout
from ehrsim.groups import Events
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent

SITUATIONS: dict[str, Situation] = {
    "patient-view": "visit",
    "order-select": "order",
    "order-sign": "order",
    "encounter-discharge": "discharge",
}
"""The hooks, with the situation in which each is called; those of one situation are called at the same moments."""
HOOKS = tuple(SITUATIONS)
GROUP_EVENTS = 25_000
MANIFEST = "manifest.json"
RESERVED = ("invalid", "test", "example", "localhost")
"""Top-level domains that lead to no server, or to none but this machine (RFC 6761)."""
_PREFIX = Layout().prefixes()
_TESTS = {
    "patient-view": "the record is opened as a visit starts",
    "order-select": "medications are drafted at the time of their order in the record; the last is being selected",
    "order-sign": "medications are drafted at the time of their order in the record, and all are about to be signed",
    "encounter-discharge": "an inpatient stay is about to end, and the patient lives",
}


class CdsHooksReport(ExportReport, kw_only=True):
    """What was written: requests by hook, and how many patients have no moment for one."""

    requests: dict[str, int] = msgspec.field(default_factory=dict)
    without: dict[str, int] = msgspec.field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        listed = ", ".join(f"{hook} {count:,}" for hook, count in self.requests.items())
        head = (
            f"wrote {sum(self.requests.values()):,} requests of {self.patients:,} patients from {self.events:,} events"
        )
        rest = super().lines()[2:]
        return [f"{head} (CDS Hooks 2.0)", f"requests: {listed}", *self._absences(), *rest]

    def _absences(self) -> list[str]:
        return [f"no moment for {hook}: {count:,} patients" for hook, count in self.without.items() if count]


class _Export(NamedTuple):
    """What all requests of an export share."""

    folder: Path
    hooks: tuple[str, ...]
    moments: int
    templates: list[Template]
    server: str | None
    key: Words
    shapes: Shapes
    meta: Resource
    places: list[Resource]
    """The resources of organisations, locations and practitioners."""
    validator: Validator
    manifest: _Manifest
    report: CdsHooksReport


class _Prefetched(NamedTuple):
    """What each template finds, None for nothing."""

    found: dict[str, Resource | None]
    omitted: list[str]
    """Keys of templates whose context is not there."""


class _Fixture(NamedTuple):
    """A request with what the manifest says of it."""

    hook: str
    request: Request
    orders: list[dict[str, Any]]
    prefetched: _Prefetched


def export_cds_hooks(
    events: Events,
    out: str | Path,
    *,
    hooks: Iterable[str] = HOOKS,
    moments: int = 1,
    prefetch_templates: str | Path | Mapping[str, str] | None = None,
    fhir_server: str | None = None,
    validate: Validate = "fast",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> CdsHooksReport:
    """Write CDS Hooks 2.0 requests to `out` as `HOOK/SUBJECT-NUMBER.json`, with a `manifest.json` of what each tests.

    At most so many `moments` of each patient are drawn for every hook: starts of visits for `patient-view`, starts of
    medications for `order-select` and `order-sign` (the same ones), ends of inpatient stays for `encounter-discharge`.
    `prefetch_templates`, a mapping or a TOML or JSON file of one, adds FHIR queries by key to `prefetch.STANDARD`.
    `fhir_server` is a URL to state, of a reserved name that leads nowhere; an access token is never stated. Ids are
    those of `export_fhir` with the same seed, and the bytes do not depend on the other subjects.

    Raises `InputError` for a source that is no event table or has no such moment at all and for templates that are not
    supported, `UsageError` for an unknown option or an output that exists; then nothing is written.
    """
    wanted = _checked(tuple(hooks), moments, fhir_server)
    templates = prefetch.templates(prefetch_templates)
    report = CdsHooksReport(format="cds-hooks", requests=dict.fromkeys(wanted, 0), without=dict.fromkeys(wanted, 0))
    with atomic_directory(Path(out), overwrite=overwrite) as folder, (folder / MANIFEST).open("wb") as file:
        source = groups.open_source(events)
        key = identity.run_key(source.dataset, seed)
        labels = Labels(f"{codes.URI_BASE}/run/{identity.uuids(key.reshape(1, 2))[0]}")
        each = chain.from_iterable(place_resources(number, labels, _PREFIX) for number in range(ORGANIZATIONS))
        own = [resource for resource in each if resource["resourceType"] in TOLD_TYPES]
        export = _Export(
            folder=folder,
            hooks=wanted,
            moments=moments,
            templates=templates,
            server=fhir_server and fhir_server.rstrip("/"),
            key=key,
            shapes=Shapes(labels),
            meta=orjson.loads(orjson.dumps(labels.meta())),
            places=[orjson.loads(orjson.dumps(resource)) for resource in own],
            validator=Validator(validate, report),
            manifest=_Manifest(file, labels.source, templates),
            report=report,
        )
        export.validator.check(own)
        parts = groups.parts(source, GROUP_EVENTS, report)
        total = sum(part.subjects for part in parts)
        for part in parts:
            frame = without_control_characters(groups.read(part, report), report)
            if not frame.is_empty():
                _write_group(frame, groups.descriptions_in(frame, source.descriptions), export)
            progress("export", report.patients, total, "patients")
        export.manifest.close()
        if not any(report.requests.values()):
            raise InputError(
                f"no patient has a moment for {', '.join(wanted)}",
                hint="give events with visits, timed medications or inpatient stays",
            )
    return report


def _checked(hooks: tuple[str, ...], number: int, server: str | None) -> tuple[str, ...]:
    """The hooks in the order of their table, without repeats."""
    for hook in hooks:
        if hook not in HOOKS:
            raise UsageError(f"unknown hook `{hook}`", hint=f"expected some of {', '.join(HOOKS)}")
    if not hooks:
        raise UsageError("no hook is named", hint=f"name some of {', '.join(HOOKS)}")
    if number < 1:
        raise UsageError(f"moments is `{number}`, expected 1 or more")
    if server is not None:
        parts = urlsplit(server)
        name = (parts.hostname or "").rpartition(".")[2]
        if parts.scheme not in ("http", "https") or name not in RESERVED or parts.query or parts.fragment:
            raise UsageError(
                f"the FHIR server is `{server}`, expected a URL of a reserved name that leads to no server",
                hint="as https://fhir.example.invalid/r4",
            )
    return tuple(hook for hook in HOOKS if hook in hooks)


def _write_group(frame: pl.DataFrame, descriptions: dict[str, str], export: _Export) -> None:
    """Write the requests of the subjects of a frame."""
    table = table_of(frame, export.shapes, descriptions, export.key)
    links = link(table, _PREFIX)
    export.report.patients += len(table.subjects)
    for situation in dict.fromkeys(SITUATIONS[hook] for hook in export.hooks):
        called = [hook for hook in export.hooks if SITUATIONS[hook] == situation]
        drawn = draw_moments(table, export.shapes, situation, export.moments)
        for hook in called:
            export.report.without[hook] += len(table.subjects) - (int((drawn[0].row >= 0).sum()) if drawn else 0)
            (export.folder / hook).mkdir(exist_ok=True)
        for number, at in enumerate(drawn, start=1):
            known = known_at(table, at)
            export.report.omit("event without a time, which may be of the future", known.undated)
            cut = table_of(known.frame, export.shapes, descriptions, export.key, known.lanes)
            records = _records(cut, known, export)
            for subject, resources in zip(np.searchsorted(table.subjects, cut.subjects), records, strict=True):
                moment = _moment_of(table, links, at, int(subject), number)
                drafts = [resource for resource in resources if resource["id"] in known.drafts]
                stored = [resource for resource in resources if resource["id"] not in known.drafts]
                prefetched = _prefetched(moment, [*stored, *export.places], export)
                for hook in called:
                    _write(_fixture(hook, moment, drafts, prefetched, export), moment, export)


class _Moment(NamedTuple):
    """One moment of one subject, by the ids that its resources have."""

    subject: int
    number: int
    time: str
    patient: str
    encounter: str | None
    practitioner: str
    lanes: list[int]
    """The hash of its event."""


def _moment_of(table: Table, links: Links, at: Moments, subject: int, number: int) -> _Moment:
    row, visit = int(at.row[subject]), int(at.visit[subject])
    attends = links.practitioner[visit if visit >= 0 else len(links.visits) + subject]
    return _Moment(
        subject=int(table.subjects[subject]),
        number=number,
        time=table.time[row],
        patient=links.subjects[subject],
        encounter=links.visits[visit] if visit >= 0 else None,
        practitioner=places()[links.place[subject]].practitioners[attends],
        lanes=table.lanes[row].tolist(),
    )


def _records(cut: Table, known: Known, export: _Export) -> list[list[Resource]]:
    """The resources of each subject of a cut table, with the statuses of what goes on or is only drafted."""
    needed = prefetch.types(export.templates) | {"MedicationRequest"}
    gathered: list[list[Resource]] = [[] for _ in cut.subjects]
    for batch in batches(cut, export.shapes, link(cut, _PREFIX), TOLD_TYPES):
        # What is not needed is checked as well, since others refer to it.
        lines = chain.from_iterable(some.to_list() for some in export.validator.checked(batch))
        for subject, line in zip(batch.subjects.tolist(), lines, strict=True):
            if batch.resource_type in needed:
                resource = orjson.loads(line)
                if resource["id"] in known.drafts:
                    resource["status"] = "draft"
                elif resource["id"] in known.in_progress and resource["status"] in ("unknown", "completed"):
                    resource["status"] = "in-progress"
                gathered[subject].append(resource)
    export.validator.end_group()
    return gathered


def _fixture(hook: str, moment: _Moment, drafts: list[Resource], prefetched: _Prefetched, export: _Export) -> _Fixture:
    """The request of a hook at a moment."""
    shared: dict[str, Any] = {
        "hook_instance": identity.uuid_of("hookInstance", hook, *moment.lanes),
        "fhir_server": export.server or UNSET,
        "prefetch": prefetched.found,
    }
    who: dict[str, Any] = {"user_id": f"Practitioner/{moment.practitioner}", "patient_id": moment.patient}
    if moment.encounter is not None:
        who["encounter_id"] = moment.encounter
    # The order selected last is the one that decision support is to look at, among all of the session.
    selected = f"MedicationRequest/{drafts[-1]['id']}" if drafts else ""
    entries = [prefetch.entry(draft, export.server) for draft in drafts]
    bundle = {"resourceType": "Bundle", "meta": export.meta, "type": "collection", "entry": entries}
    request: Request
    if hook == "patient-view":
        request = PatientViewRequest(context=PatientView(**who), **shared)
    elif hook == "order-select":
        context = OrderSelect(selections=[selected], draft_orders=bundle, **who)
        request = OrderSelectRequest(context=context, **shared)
    elif hook == "order-sign":
        request = OrderSignRequest(context=OrderSign(draft_orders=bundle, **who), **shared)
    else:
        request = EncounterDischargeRequest(context=EncounterDischarge(**who), **shared)
    orders = [
        {
            "id": draft["id"],
            "display": contents.words(contents.concept_of(draft)),
            **contents.concept_of(draft)["coding"][0],
            "selected": hook == "order-sign" or selected.endswith(draft["id"]),
        }
        for draft in drafts
    ]
    return _Fixture(hook, request, orders, prefetched)


def _prefetched(moment: _Moment, resources: list[Resource], export: _Export) -> _Prefetched:
    record: prefetch.Record = {}
    for resource in resources:
        record.setdefault(resource["resourceType"], []).append(resource)
    values = {
        "context.patientId": moment.patient,
        "context.userId": f"Practitioner/{moment.practitioner}",
        "userPractitionerId": moment.practitioner,
    }
    if moment.encounter is not None:
        values["context.encounterId"] = moment.encounter
    context = prefetch.Context(values, dt.date.fromisoformat(moment.time[:10]))
    found: dict[str, Resource | None] = {}
    omitted = []
    for template in export.templates:
        query = prefetch.fill(template.text, context)
        if query is None:
            omitted.append(template.key)
        else:
            found[template.key] = prefetch.answer(query, record, export.meta, export.server)
    return _Prefetched(found, omitted)


def _write(fixture: _Fixture, moment: _Moment, export: _Export) -> None:
    name = f"{fixture.hook}/{moment.subject}-{moment.number}.json"
    content = msgspec.json.format(msgspec.json.encode(fixture.request), indent=2)
    (export.folder / name).write_bytes(content + b"\n")
    export.manifest.add(name, fixture, moment)
    export.report.requests[fixture.hook] += 1
    for resource in _resources(fixture):
        counts, kind = export.report.resources, resource["resourceType"]
        counts[kind] = counts.get(kind, 0) + 1


def _resources(fixture: _Fixture) -> Iterator[Resource]:
    """All resources in a request but the bundles around them."""
    drafts = getattr(fixture.request.context, "draft_orders", None)
    for one in (drafts, *fixture.prefetched.found.values()):
        if one is not None:
            yield from (entry["resource"] for entry in one["entry"]) if one["resourceType"] == "Bundle" else [one]


class _Manifest:
    """A file that says of each request what it tests, written as they come."""

    def __init__(self, file: BinaryIO, source: str, templates: list[Template]) -> None:
        self._file, self._empty = file, True
        head = {"specification": "CDS Hooks 2.0", "source": source, "synthetic": True}
        head["prefetch"] = {template.key: template.text for template in templates}
        file.write(orjson.dumps(head)[:-1] + b',"fixtures":[')

    def add(self, name: str, fixture: _Fixture, moment: _Moment) -> None:
        """Say what a request tests."""
        said = {
            "file": name,
            "hook": fixture.hook,
            "hookInstance": fixture.request.hook_instance,
            "subject": moment.subject,
            "patientId": moment.patient,
            "encounterId": moment.encounter,
            "moment": moment.time,
            "tests": _TESTS[fixture.hook],
            "orders": fixture.orders,
            "prefetch": {key: _number(one) for key, one in fixture.prefetched.found.items()},
            "omitted": fixture.prefetched.omitted,
        }
        self._file.write((b"\n" if self._empty else b",\n") + orjson.dumps(said))
        self._empty = False

    def close(self) -> None:
        """End the file."""
        self._file.write(b"\n]}\n")


def _number(found: Resource | None) -> int:
    """How many resources answer a template, those beyond its count as well."""
    if found is None:
        return 0
    total: int = found.get("total", 1)
    return total

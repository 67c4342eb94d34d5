"""How resources lie on disk: NDJSON files by resource type, or bundles by patient."""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import msgspec
import orjson
import polars as pl

from ehrsim.errors import UsageError
from ehrsim.fhir.fragments import Fragment, Labels, Resource
from ehrsim.fhir.inspection import MANIFEST
from ehrsim.fhir.patients import NEVER
from ehrsim.fhir.places import ORGANIZATIONS
from ehrsim.fhir.record import Batch
from ehrsim.fhir.table import Table

Format = Literal["ndjson", "transaction", "batch", "collection", "ips"]
SHARED_TYPES = ("Organization", "Location", "Practitioner", "PractitionerRole")
"""Types of resources that patients share."""
FINANCIAL_TYPES = ("Coverage", "Claim", "ExplanationOfBenefit")
COHORT_TYPES = ("Group", "Measure", "MeasureReport")
"""Types of resources that say something of all patients together."""
ON_REQUEST = frozenset((*FINANCIAL_TYPES, *COHORT_TYPES))
"""Types that are written where they are asked for."""
TYPES = (
    "Patient",
    "RelatedPerson",
    "CareTeam",
    "Appointment",
    "Encounter",
    "Condition",
    "Goal",
    "Device",
    "AdverseEvent",
    "FamilyMemberHistory",
    "Procedure",
    "Immunization",
    "AllergyIntolerance",
    "MedicationRequest",
    "Medication",
    "MedicationDispense",
    "MedicationAdministration",
    "Specimen",
    "ServiceRequest",
    "QuestionnaireResponse",
    "Observation",
    "DiagnosticReport",
    "CarePlan",
    "List",
    "DocumentReference",
    *FINANCIAL_TYPES,
    "Provenance",
    *COHORT_TYPES,
    *SHARED_TYPES,
)
"""All types of resources, in an order in which none refers to a later one but for those that patients share."""
TOLD_TYPES = frozenset(
    """Patient Encounter Condition Procedure Immunization AllergyIntolerance MedicationRequest Observation
    DiagnosticReport CarePlan Provenance Organization Location Practitioner""".split()  # noqa: SIM905
)
"""Types that tell events, with what these cannot do without."""
ALWAYS = frozenset(("Patient", "Provenance", *SHARED_TYPES)) - {"PractitionerRole"}
"""Types that cannot be left out: others refer to them, or they say that all is simulated."""
BUFFER = 1 << 18
SHARED_FILE = "shared.json"
"""The bundle that is to be uploaded before those of patients."""
COHORT_FILE = "cohort"
"""Name of the bundles on all patients together, which are to be uploaded after those of patients."""
COHORT_ENTRIES = 20
"""Of these bundles at most: a Group may name thousands of patients."""
ENTRIES = 150
"""Of a bundle to upload, if not said otherwise: the strictest server known takes 160."""
_FAST = 3
"""Level of compression."""
REFERENCE = re.compile(rb'"reference":"urn:uuid:([0-9a-f-]{36})"')
"""A reference within a bundle, as the encoder writes it."""


class Layout(msgspec.Struct, frozen=True):
    """How an export is cut into files."""

    format: Format = "ndjson"
    entries: int = ENTRIES
    """Most entries of a transaction or batch."""
    shard: int | None = None
    """Most resources of an NDJSON file; None: one file a type."""
    compressed: bool = False
    """NDJSON files are gzipped."""
    types: frozenset[str] = frozenset(TYPES) - ON_REQUEST
    """Types of resources to write."""

    def check(self) -> None:
        """Raise `UsageError` for a number that makes no sense."""
        for name, number in (("entries", self.entries), ("shard", self.shard)):
            if number is not None and number < 1:
                raise UsageError(f"{name} is `{number}`, expected 1 or more")
        if self.format != "ndjson" and (self.shard or self.compressed):
            raise UsageError(f"shards and compression are of NDJSON, not of `{self.format}`")

    def prefixes(self) -> dict[str, str]:
        """What stands before an id in a reference to each type of resource.

        Within a bundle resources are known by their `fullUrl`; those of another file, and all entries of a batch, which
        are processed on their own, by type and id.
        """
        literal = {"ndjson": TYPES, "batch": TYPES, "transaction": SHARED_TYPES}.get(self.format, ())
        return {name: f"{name}/" if name in literal else "urn:uuid:" for name in TYPES}


class NdjsonWriter:
    """Files by resource type, in the layout of FHIR Bulk Data; `counts` are the resources written by type."""

    def __init__(
        self, folder: Path, places: list[list[Resource]], labels: Labels, layout: Layout, stack: ExitStack
    ) -> None:
        self._folder, self._places, self._source, self._layout = folder, places, labels.source, layout
        self._stack = stack
        self._files: dict[str, BinaryIO] = {}
        self._written: dict[str, int] = {}
        self._shards: dict[str, list[str]] = {}
        self._latest = NEVER
        self.counts: Counter[str] = Counter()

    def write(self, batch: Batch, lines: Iterator[pl.Series]) -> None:
        """Write a batch, a line a resource."""
        for some in lines:
            self._write(batch.resource_type, some)

    def write_cohort(self, resources: Iterable[Resource]) -> None:
        """Write resources on all patients together."""
        for resource in resources:
            self._write(resource["resourceType"], _line(resource))

    def end_group(self, table: Table, places: list[int]) -> None:
        """Note how late the events are."""
        latest: Any = table.frame["time"].max()
        if latest is not None:
            self._latest = max(self._latest, f"{latest:%Y-%m-%dT%H:%M:%SZ}")

    def finish(self) -> None:
        """Write the places and the manifest, whose time is that of the last event: nothing is read off a clock."""
        for resource in chain.from_iterable(self._places):
            self._write(resource["resourceType"], _line(resource))
        output = [
            {"type": resource_type, "url": name, "count": self._written[name]}
            for resource_type, names in sorted(self._shards.items())
            for name in names
        ]
        manifest = {
            "transactionTime": self._latest,
            "request": f"{self._source}/$export",
            "requiresAccessToken": False,
            "output": output,
            "error": [],
        }
        (self._folder / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))

    def _write(self, resource_type: str, lines: pl.Series) -> None:
        self.counts[resource_type] += len(lines)
        while len(lines):
            name = self._open(resource_type)
            room = len(lines) if self._layout.shard is None else self._layout.shard - self._written[name]
            some, lines = lines.slice(0, room), lines.slice(room)
            self._append(some, self._files[name])
            self._written[name] += len(some)

    def _append(self, lines: pl.Series, file: BinaryIO) -> None:
        """Write lines as they are: so is a table of one column without header and quotes."""
        # Polars writes to what is beneath a file, past whatever compresses.
        target: BinaryIO = io.BytesIO() if self._layout.compressed else file
        lines.to_frame().write_csv(target, include_header=False, quote_style="never")
        if isinstance(target, io.BytesIO):
            file.write(target.getbuffer())

    def _open(self, resource_type: str) -> str:
        """The name of the file of a type that has room."""
        names = self._shards.setdefault(resource_type, [])
        if not names or self._written[names[-1]] == self._layout.shard:
            number = "" if self._layout.shard is None else f".{len(names):03d}"
            name = f"{resource_type}{number}.ndjson{'.gz' if self._layout.compressed else ''}"
            file: BinaryIO = self._stack.enter_context((self._folder / name).open("wb", buffering=0))
            if self._layout.compressed:
                # Without a name and a time in it, so that the bytes are the same at any time.
                packed = gzip.GzipFile("", "wb", _FAST, file, mtime=0)
                file = self._stack.enter_context(io.BufferedWriter(packed, BUFFER))
            names.append(name)
            self._files[name], self._written[name] = file, 0
        return names[-1]


def _line(resource: Resource) -> pl.Series:
    return pl.Series([orjson.dumps(resource).decode()])


Judge = Callable[[Resource, list[bytes]], None]
"""Checks a bundle, with `resourceType` for the content of entries, and the resources in it that were altered."""


class Entry(NamedTuple):
    """An entry of a bundle."""

    resource_type: str
    uuid: str
    resource: bytes


class BundleWriter:
    """Bundles by patient, named by the subject id; `counts` as for NDJSON. `places` are followed by what all share.

    A collection holds a patient whole, with all that is referred to. Transactions and batches hold so many entries at
    most, each only referring to those in it and in those before; what patients share comes in a bundle of its own.
    """

    def __init__(
        self, folder: Path, places: list[list[Resource]], labels: Labels, layout: Layout, judge: Judge
    ) -> None:
        self._folder, self._meta, self._layout, self._judge = folder, labels.meta(), layout, judge
        self._entries: dict[int, list[Entry]] = {}
        self._places = [
            [Entry(resource["resourceType"], resource["id"], orjson.dumps(resource)) for resource in place]
            for place in places
        ]
        self.counts: Counter[str] = Counter()

    def write(self, batch: Batch, lines: Iterator[pl.Series]) -> None:
        """Gather the entries of a batch by subject."""
        self.gather(batch, lines)
        self.counts[batch.resource_type] += len(batch.ids)

    def gather(self, batch: Batch, lines: Iterator[pl.Series]) -> None:
        """Gather the entries of a batch by subject, uncounted."""
        resources = chain.from_iterable(some.cast(pl.Binary).to_list() for some in lines)
        for subject, uuid, line in zip(batch.subjects.tolist(), batch.ids.to_list(), resources, strict=True):
            self._entries.setdefault(subject, []).append(Entry(batch.resource_type, uuid, line))

    def end_group(self, table: Table, places: list[int]) -> None:
        """Write the bundles of a group."""
        for subject, (number, place) in enumerate(zip(table.subjects.tolist(), places, strict=True)):
            entries = self._entries.pop(subject)
            if self._layout.format == "collection":
                shared = [*self._places[place], *chain.from_iterable(self._places[ORGANIZATIONS:])]
                self.counts.update(entry.resource_type for entry in shared)
                self._write(f"{number}.json", shared + entries)
            else:
                self._write_parts(str(number), entries, self._layout.entries)

    def write_cohort(self, resources: Iterable[Resource]) -> None:
        """Write resources on all patients together into bundles of their own, which lead to those of patients."""
        entries = [Entry(one["resourceType"], one["id"], orjson.dumps(one)) for one in resources]
        self.counts.update(entry.resource_type for entry in entries)
        self._write_parts(COHORT_FILE, entries, min(self._layout.entries, COHORT_ENTRIES))

    def finish(self) -> None:
        """Write what patients share, where it is not in their bundles."""
        if self._layout.format != "collection":
            shared = list(chain.from_iterable(self._places))
            self.counts.update(entry.resource_type for entry in shared)
            self._write(SHARED_FILE, shared)

    def _write_parts(self, name: str, entries: list[Entry], most: int) -> None:
        """Write as many bundles as entries need; all but the first name what is in those before by type and id."""
        earlier = dict[bytes, bytes]()
        if len(entries) <= most:
            self._write(f"{name}.json", entries)
            return
        for number, begin in enumerate(range(0, len(entries), most), start=1):
            given = entries[begin : begin + most]
            part = [entry._replace(resource=_named(entry.resource, earlier)) for entry in given]
            altered = [new.resource for new, old in zip(part, given, strict=True) if new.resource != old.resource]
            self._write(f"{name}-{number:03d}.json", part, altered)
            earlier |= {entry.uuid.encode(): entry.resource_type.encode() for entry in part}

    def _write(self, name: str, entries: list[Entry], altered: Sequence[bytes] = ()) -> None:
        bundle = {"resourceType": "Bundle", "meta": self._meta, "type": self._layout.format}
        empty = [self._entry(entry, b'{"resourceType":"%b"}' % entry.resource_type.encode()) for entry in entries]
        self._judge({**bundle, "entry": empty}, list(altered))
        full = [self._entry(entry, entry.resource) for entry in entries]
        (self._folder / name).write_bytes(orjson.dumps({**bundle, "entry": full}))

    def _entry(self, entry: Entry, resource: bytes) -> Fragment:
        request = ""
        if self._layout.format != "collection":
            request = f',"request":{{"method":"PUT","url":"{entry.resource_type}/{entry.uuid}"}}'
        return Fragment(
            b'{"fullUrl":"urn:uuid:%b","resource":%b%b}' % (entry.uuid.encode(), resource, request.encode())
        )


def _named(resource: bytes, earlier: dict[bytes, bytes]) -> bytes:
    """A resource with references to those in `earlier` bundles, id -> type, by type and id."""

    def by_name(found: re.Match[bytes]) -> bytes:
        uuid = found[1]
        return b'"reference":"%b/%b"' % (earlier[uuid], uuid) if uuid in earlier else found[0]

    return REFERENCE.sub(by_name, resource)

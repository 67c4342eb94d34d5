"""How resources lie on disk: one NDJSON file a resource type, or one bundle a patient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from ehrsim.fhir.batches import Batch
from ehrsim.fhir.fragments import Fragment, Resource, encoded
from ehrsim.fhir.table import Table

Format = Literal["ndjson", "transaction", "collection"]
TYPES = (
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "MedicationRequest",
    "Procedure",
    "Immunization",
    "AllergyIntolerance",
    "DiagnosticReport",
    "CarePlan",
    "Provenance",
    "Organization",
    "Location",
    "Practitioner",
)
BUFFER = 1 << 18


def prefixes(format: Format) -> dict[str, str]:
    """What stands before an id in a reference to each type of resource."""
    return {name: f"{name}/" if format == "ndjson" else "urn:uuid:" for name in TYPES}


class NdjsonWriter:
    """One file a resource type, in the layout of FHIR Bulk Data; `counts` are the resources written by type."""

    def __init__(self, folder: Path, places: list[list[Resource]], stack: ExitStack) -> None:
        self._folder, self._places, self._stack = folder, places, stack
        self._files: dict[str, BinaryIO] = {}
        self.counts: dict[str, int] = {}

    def write(self, batch: Batch, lines: Iterator[bytes]) -> None:
        """Write a batch, a line a resource."""
        self._file(batch.resource_type).writelines(lines)
        self._count(batch.resource_type, len(batch.ids))

    def end_group(self, table: Table, places: list[int]) -> None:
        """Nothing is left to write."""

    def finish(self) -> None:
        """Write the places."""
        for resource in chain.from_iterable(self._places):
            self._file(resource["resourceType"]).write(encoded(resource))
            self._count(resource["resourceType"], 1)

    def _file(self, resource_type: str) -> BinaryIO:
        if resource_type not in self._files:
            path = self._folder / f"{resource_type}.ndjson"
            self._files[resource_type] = self._stack.enter_context(path.open("wb", buffering=BUFFER))
        return self._files[resource_type]

    def _count(self, resource_type: str, count: int) -> None:
        self.counts[resource_type] = self.counts.get(resource_type, 0) + count


class BundleWriter:
    """One bundle a patient, named by the subject id, with all that it refers to; `counts` as for NDJSON."""

    def __init__(self, folder: Path, places: list[list[Resource]], meta: Fragment, format: Format) -> None:
        self._folder, self._meta, self._format = folder, meta, format
        self._entries: dict[int, list[Fragment]] = {}
        self._types = [[resource["resourceType"] for resource in place] for place in places]
        self._places = [
            [self._entry(resource["resourceType"], resource["id"], encoded(resource)) for resource in place]
            for place in places
        ]
        self.counts: dict[str, int] = {}

    def write(self, batch: Batch, lines: Iterator[bytes]) -> None:
        """Gather the entries of a batch by subject."""
        for subject, uuid, line in zip(batch.subjects.tolist(), batch.ids, lines, strict=True):
            self._entries.setdefault(subject, []).append(self._entry(batch.resource_type, uuid, line))
        self._count(batch.resource_type, len(batch.ids))

    def end_group(self, table: Table, places: list[int]) -> None:
        """Write the bundles of a group."""
        for subject, (number, place) in enumerate(zip(table.subjects.tolist(), places, strict=True)):
            for resource_type in self._types[place]:
                self._count(resource_type, 1)
            entries = self._places[place] + self._entries.pop(subject)
            bundle = {"resourceType": "Bundle", "meta": self._meta, "type": self._format, "entry": entries}
            (self._folder / f"{number}.json").write_bytes(orjson.dumps(bundle))

    def finish(self) -> None:
        """Nothing is left to write."""

    def _entry(self, resource_type: str, uuid: str, line: bytes) -> Fragment:
        request = b""
        if self._format == "transaction":
            request = f',"request":{{"method":"PUT","url":"{resource_type}/{uuid}"}}'.encode()
        return Fragment(b'{"fullUrl":"urn:uuid:%b","resource":%b%b}' % (uuid.encode(), line, request))

    def _count(self, resource_type: str, count: int) -> None:
        self.counts[resource_type] = self.counts.get(resource_type, 0) + count

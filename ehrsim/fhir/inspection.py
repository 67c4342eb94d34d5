"""What a folder of FHIR holds: resources by type, patients, references that lead nowhere, labels of synthetic data."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import orjson

from ehrsim.errors import FormatError, InputError

LABEL = "HTEST"
MANIFEST = "manifest.json"


class FhirSummary(msgspec.Struct):
    """What was found; `dangling` counts references to resources that are not in the folder."""

    files: int = 0
    resources: dict[str, int] = {}
    patients: int = 0
    references: int = 0
    dangling: int = 0
    first_dangling: str = ""
    unlabelled: int = 0

    def lines(self) -> list[str]:
        """The summary for people, a line each."""
        total = sum(self.resources.values())
        ordered = sorted(self.resources.items(), key=lambda item: (-item[1], item[0]))
        lines = [
            f"FHIR of {self.patients:,} patients: {total:,} resources in {self.files:,} files",
            "resources: " + ", ".join(f"{name} {count:,}" for name, count in ordered),
        ]
        if self.dangling:
            lines.append(
                f"dangling references: {self.dangling:,} of {self.references:,} (first: {self.first_dangling})"
            )
        else:
            lines.append(f"all {self.references:,} references resolve")
        labelled = f"{self.unlabelled:,} are not" if self.unlabelled else "every resource is"
        lines.append(f"{labelled} labelled as test data ({LABEL})")
        return lines


def inspect_fhir(path: str | Path) -> FhirSummary:
    """Read a folder of NDJSON files or bundles; raises `InputError` for a file that is not FHIR.

    Files are read one by one, references are held as text: about 100 bytes each for distinct ones.
    """
    path = Path(path)
    files = fhir_files(path)
    if not files:
        raise FormatError(f"{path} holds no .ndjson, .ndjson.gz or .json file", hint="name a folder of FHIR")
    summary, counts = FhirSummary(files=len(files)), Counter[str]()
    known: set[str] = set()
    wanted: Counter[str] = Counter()
    for file in files:
        bundled: set[str] = set()
        used: Counter[str] = Counter()
        for full_url, resource in resources_in(file):
            kind = resource["resourceType"]
            counts[kind] += 1
            summary.unlabelled += not _is_labelled(resource)
            known.add(f"{kind}/{resource.get('id')}")
            bundled.add(full_url)
            used.update(reference for reference in _references(resource) if not reference.startswith("#"))
        for reference, count in used.items():
            summary.references += count
            if reference not in bundled:
                wanted[reference] += count
    for reference, count in wanted.items():
        if reference not in known:
            summary.dangling += count
            summary.first_dangling = summary.first_dangling or reference
    summary.resources = dict(sorted(counts.items()))
    summary.patients = sum(name.startswith("Patient/") for name in known)
    return summary


def fhir_files(folder: Path) -> list[Path]:
    """The files of a folder that hold resources, by name; the manifest of an export holds none."""
    files = chain.from_iterable(folder.glob(pattern) for pattern in ("*.ndjson", "*.ndjson.gz", "*.json"))
    return sorted(path for path in files if path.name != MANIFEST)


def open_lines(file: Path) -> BinaryIO | gzip.GzipFile:
    """An NDJSON file, gzipped or not, to be read line by line."""
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def resources_in(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The full URL and content of every resource in a file."""
    if file.suffix != ".json":
        with open_lines(file) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield "", _parsed(line, f"{file.name} line {number}")
        return
    document = _parsed(file.read_bytes(), file.name)
    if document["resourceType"] != "Bundle":
        yield "", document
        return
    entries = document.get("entry", [])
    if not isinstance(entries, list):
        raise InputError(f"{file.name} has an `entry` that is no array")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("resource"), dict):
            raise InputError(f"{file.name} entry {number} has no resource")
        if "resourceType" not in entry["resource"]:
            raise InputError(f"{file.name} entry {number} has no resourceType")
        yield entry.get("fullUrl", ""), entry["resource"]


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        resource = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise FormatError(f"{where} has no resourceType, so it is not FHIR")
    return resource


def _is_labelled(resource: dict[str, Any]) -> bool:
    security = (resource.get("meta") or {}).get("security") or []
    return any(label.get("code") == LABEL for label in security)


def _references(value: Any) -> Iterator[str]:
    """Every reference anywhere in a resource."""
    if isinstance(value, dict):
        reference = value.get("reference")
        if isinstance(reference, str):
            yield reference
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)

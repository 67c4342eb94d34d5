"""The verb `validate_fhir`: files of FHIR, ours or others', held against the rules of R4 and US Core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import orjson

from ehrsim.errors import FormatError, UsageError
from ehrsim.fhir.inspection import fhir_files, open_lines
from ehrsim.fhir.validation.cross_resource import CrossResource, Place, Scope
from ehrsim.fhir.validation.facts import disorder, facts_of
from ehrsim.fhir.validation.findings import Extent, Finding, ValidationReport, shown
from ehrsim.fhir.validation.in_full import problems_in_full
from ehrsim.fhir.validation.rules import Rules, UsCore, rules_of
from ehrsim.progress import Progress, silent


def validate_fhir(
    path: str | Path, extent: Extent = "fast", us_core: UsCore = "6.1", *, progress: Progress = silent
) -> ValidationReport:
    """Hold FHIR against the rules of R4 and of the US Core profiles that resources name; say what is wrong with it.

    `path` is a file or a folder of NDJSON (gzipped or not), of bundles, or of single resources. `fast` holds every
    resource against the compiled schema and all against one another: references, ids, times. `full` adds the FHIRPath
    invariants, the forms of codes and units, narratives and the classes of fhir.resources, for every resource. In
    NDJSON relative references must lead to a resource of the folder; in bundles and single resources they may lead to
    one that a server has.

    Raises `FormatError` for a path that holds no FHIR files, `UsageError` for an unknown extent or version,
    `MissingExtraError` where `full` lacks its engine. What is wrong in the files is in the report.
    """
    if extent not in get_args(Extent):
        raise UsageError(f"unknown extent `{extent}` of validation", hint=f"expected {' or '.join(get_args(Extent))}")
    path, rules = Path(path), rules_of(us_core)
    files = [path] if path.is_file() else fhir_files(path)
    if not files:
        raise FormatError(f"{path} holds no .ndjson, .ndjson.gz or .json file", hint="name a folder of FHIR")
    report = ValidationReport(us_core=us_core, extent=extent, files=len(files))
    judge = _Judge(rules, report)
    loose = Scope(complete=any(file.suffix != ".json" for file in files))
    for number, file in enumerate(files):
        for read in _resources(file, loose):
            judge.take(read)
        progress("validate", number + 1, len(files), "files")
    judge.finish()
    return report


class _Read(NamedTuple):
    """A resource as it was read, or what kept it from being one."""

    file: str
    line: int
    resource: Any
    scope: Scope
    full_url: str = ""
    problem: str = ""


class _Judge:
    """Holds resources against the rules as they are read."""

    def __init__(self, rules: Rules, report: ValidationReport) -> None:
        self._rules, self._report, self._cross = rules, report, CrossResource()
        self._counts: Counter[str] = Counter()
        self._other: Counter[str] = Counter()

    def take(self, read: _Read) -> None:
        """Check a resource alone, and keep what others must agree with."""
        resource, kind = read.resource, _type_of(read.resource)
        if read.problem or not kind:
            found = shown(read.problem or resource)
            self._report.add(Finding(read.file, read.line, "?", "", found, "JSON of a resource with a resourceType"))
            return
        place = Place(read.file, read.line, f"{kind}/{resource.get('id', '?')}")
        known = self._rules.holds(kind)
        (self._counts if known else self._other)[kind] += 1
        problems = self._rules.problems(resource)
        if not problems and known and self._report.extent == "full":
            problems += problems_in_full(resource, self._rules)
            self._report.in_full += 1
        facts = facts_of(resource, self._rules) if not problems else None
        problems = [*problems, *(facts.problems + disorder(facts.periods) if facts else [])]
        for problem in dict.fromkeys(problems):
            self._report.add(place.finding(problem))
        if kind != "Bundle":
            self._cross.add(
                resource, facts or facts_of({"resourceType": kind}, self._rules), place, read.scope, read.full_url
            )

    def finish(self) -> None:
        """Check what resources say of one another."""
        for finding in self._cross.finish():
            self._report.add(finding)
        report = self._report
        report.findings.sort(key=lambda one: (one.file, one.line))
        report.resources, report.other = dict(sorted(self._counts.items())), dict(sorted(self._other.items()))
        report.unusual = dict(sorted(self._cross.unusual.items()))


def _resources(file: Path, loose: Scope) -> Iterator[_Read]:
    if file.suffix == ".json":
        yield from _of_document(file, loose)
        return
    with open_lines(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield from _unpacked(_parsed(line, file.name, number, loose))


def _of_document(file: Path, loose: Scope) -> Iterator[_Read]:
    yield from _unpacked(_parsed(file.read_bytes(), file.name, 1, loose))


def _unpacked(read: _Read) -> Iterator[_Read]:
    """A resource, and the entries of a bundle, numbered from 1, in a scope of their own."""
    yield read
    if _type_of(read.resource) != "Bundle" or not isinstance(read.resource.get("entry"), list):
        return
    scope = Scope(complete=False)
    for number, entry in enumerate(read.resource["entry"], start=1):
        if isinstance(entry, dict) and "resource" in entry:
            full_url = entry.get("fullUrl")
            inner = _Read(read.file, number, entry["resource"], scope, full_url if isinstance(full_url, str) else "")
            yield from _unpacked(inner)


def _parsed(text: bytes, file: str, line: int, scope: Scope) -> _Read:
    try:
        return _Read(file, line, orjson.loads(text), scope)
    except orjson.JSONDecodeError as error:
        return _Read(file, line, None, scope, problem=str(error))


def _type_of(resource: Any) -> str:
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    return kind if isinstance(kind, str) else ""

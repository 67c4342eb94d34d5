"""Prefetch of CDS Hooks: templates of FHIR reads and searches, answered from the resources of one patient.

Supported are reads (`Patient/{{context.patientId}}`) and searches of one patient by token, date and reference, the
subset that the specification recommends; a template that asks for anything else is refused before any work is done.
Sources: CDS Hooks 2.0 (HL7, CC BY 4.0), "Prefetch"; FHIR R4, "Search".
"""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from ehrsim.errors import InputError
from ehrsim.fhir import contents
from ehrsim.fhir.fragments import Resource

_PATIENT = "patient={{context.patientId}}"
_RECENT = f"{_PATIENT}&_sort=-date&_count=50"
STANDARD = {
    "patient": "Patient/{{context.patientId}}",
    "user": "{{context.userId}}",
    "encounter": "Encounter/{{context.encounterId}}",
    "conditions": f"Condition?{_PATIENT}",
    "medications": f"MedicationRequest?{_PATIENT}",
    "allergies": f"AllergyIntolerance?{_PATIENT}",
    "immunizations": f"Immunization?{_PATIENT}",
    "procedures": f"Procedure?{_PATIENT}",
    "laboratory": f"Observation?{_RECENT}&category=laboratory",
    "vitalSigns": f"Observation?{_RECENT}&category=vital-signs",
}
"""What is prefetched if not said otherwise: keys in common use; the specification has none of its own."""

_CODED = {name: {"code": element} for name, element in contents.CODES.items() if name not in ("CarePlan", "Encounter")}
_TOKENS: dict[str, dict[str, str]] = {
    "Patient": {"gender": "gender"},
    "Encounter": {"status": "status", "type": "type", "class": "class"},
    "Condition": {"category": "category", "clinical-status": "clinicalStatus", **_CODED["Condition"]},
    "Observation": {"category": "category", "status": "status", **_CODED["Observation"]},
    "MedicationRequest": {"status": "status", "intent": "intent", **_CODED["MedicationRequest"]},
    "Procedure": {"status": "status", **_CODED["Procedure"]},
    "Immunization": {"status": "status", "vaccine-code": "vaccineCode"},
    "AllergyIntolerance": {"clinical-status": "clinicalStatus", **_CODED["AllergyIntolerance"]},
    "DiagnosticReport": {"status": "status", "category": "category", **_CODED["DiagnosticReport"]},
    "CarePlan": {"status": "status", "category": "category"},
    "Provenance": {},
}
"""Search parameters of tokens, by resource type, with their elements; its keys are the types that can be searched."""
_DATES = {name: "date" for name in _TOKENS if name not in ("Patient", "Provenance")} | {
    "Condition": "onset-date",
    "MedicationRequest": "authoredon",
}
_WITH_PATIENT = frozenset(_TOKENS) - {"Patient", "Provenance"}
_READABLE = frozenset(_TOKENS) | {"Practitioner", "Organization", "Location"}
_TOKEN = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_TODAY = re.compile(r"today\(\)(?:\s*([+-])\s*(\d{1,6})\s+days?)?")
_NAMES = ("context.patientId", "context.userId", "context.encounterId", "userPractitionerId")
_DATE = re.compile(r"(eq|gt|lt|ge|le)?(\d{4}(?:-\d\d(?:-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?)?)?)?)")
_PROBE = {**dict.fromkeys(_NAMES, "x"), "context.userId": "Practitioner/x"}
"""Values that stand for those of tokens when a template is checked."""


class Template(NamedTuple):
    """A prefetch template under its key."""

    key: str
    text: str


class Context(NamedTuple):
    """What tokens stand for, by name without braces, and the day of the moment."""

    values: Mapping[str, str]
    today: dt.date


class _Read(NamedTuple):
    resource_type: str
    id: str


class _Search(NamedTuple):
    resource_type: str
    tokens: list[tuple[str, list[tuple[str | None, str]]]]
    """Elements, each with the systems (None for any) and codes that it may have."""
    dates: list[tuple[str, str]]
    """Comparisons and dates."""
    ids: list[set[str]]
    patients: list[set[str]]
    encounters: list[set[str]]
    newest_first: bool | None
    limit: int | None


def templates(source: str | Path | Mapping[str, str] | None) -> list[Template]:
    """The standard templates with those of a mapping or of a TOML or JSON file, which come first where keys are equal.

    Raises `InputError`, naming file and key, for a file that holds no such mapping or a query that is not supported.
    """
    own: Any = source
    where = "prefetch"
    if isinstance(source, (str, Path)):
        where = str(source)
        own = _read(Path(source))
    if own is not None and not isinstance(own, Mapping):
        raise InputError(f"{where} holds a {type(own).__name__}, expected a mapping of keys to FHIR queries")
    merged = {**STANDARD, **(own or {})}
    for key, text in merged.items():
        if not isinstance(text, str):
            raise InputError(f"{where}: `{key}` is a {type(text).__name__}, expected a FHIR query as text")
        try:
            _parsed(fill(text, Context(_PROBE, dt.date(2000, 1, 1))) or "")
        except ValueError as problem:
            raise InputError(f"{where}: `{key}` is `{text}`: {problem}") from None
    return [Template(key, text) for key, text in merged.items()]


def _read(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return orjson.loads(content) if path.suffix == ".json" else tomllib.loads(content.decode())
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"{path} is not valid {kind}: {error}", hint='write lines like key = "Query"') from error


def fill(text: str, context: Context) -> str | None:
    """A template with its tokens replaced; None if one of them has no value. Raises `ValueError` for an unknown one."""
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        name = found[1]
        if day := _TODAY.fullmatch(name):
            days = int(f"{day[1]}{day[2]}") if day[1] else 0
            return (context.today + dt.timedelta(days)).isoformat()
        if name not in _NAMES:
            raise ValueError(f"token {name} is not known; known are {', '.join(_NAMES)}, today(), today() - 90 days")
        missing |= name not in context.values
        return context.values.get(name, "")

    filled = _TOKEN.sub(value, text)
    return None if missing else filled


def types(queries: list[Template]) -> frozenset[str]:
    """The types of resources that some templates may ask for."""
    probe = Context(_PROBE, dt.date(2000, 1, 1))
    return frozenset(_parsed(fill(template.text, probe) or "").resource_type for template in queries)


Record = dict[str, list[Resource]]
"""The resources of one patient, and those of all patients, by type."""


def answer(query: str, record: Record, meta: Resource, base: str | None) -> Resource | None:
    """What a read or search finds among the resources of a record: a resource, a searchset, or None for nothing.

    `meta` is the metadata of a searchset, `base` the URL of the server that it is said to be from.
    """
    wanted = _parsed(query)
    own = record.get(wanted.resource_type, [])
    if isinstance(wanted, _Read):
        return next((resource for resource in own if resource["id"] == wanted.id), None)
    found = [resource for resource in own if _matches(resource, wanted)]
    if not found:
        return None
    if wanted.newest_first is not None:
        found.sort(key=lambda resource: contents.span(resource).start or "", reverse=wanted.newest_first)
    entries = [{**entry(resource, base), "search": {"mode": "match"}} for resource in found[: wanted.limit]]
    return {"resourceType": "Bundle", "meta": meta, "type": "searchset", "total": len(found), "entry": entries}


def entry(resource: Resource, base: str | None) -> Resource:
    """An entry of a bundle, with its full URL where the base URL of a server is given."""
    full_url = {} if base is None else {"fullUrl": f"{base}/{resource['resourceType']}/{resource['id']}"}
    return {**full_url, "resource": resource}


def _parsed(query: str) -> _Read | _Search:
    """A read or a search; raises `ValueError` that says what is not supported."""
    path, asks, parameters = query.partition("?")
    resource_type, slash, identifier = path.partition("/")
    known = _TOKENS if asks else _READABLE
    if resource_type not in known:
        raise ValueError(f"{resource_type or 'nothing'} is no type that is exported ({', '.join(sorted(known))})")
    if not asks:
        if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", identifier):
            raise ValueError("expected Type/id or Type?parameter=value")
        return _Read(resource_type, identifier)
    if slash:
        raise ValueError("expected Type?parameter=value, without an id")
    search = _Search(resource_type, [], [], [], [], [], None, None)
    for parameter in parameters.split("&"):
        name, equals, value = parameter.partition("=")
        if not equals or not value:
            raise ValueError(f"parameter `{parameter}` has no value")
        search = _with(search, name, unquote(value))
    if not (search.patients or search.ids):
        raise ValueError("it is not of one patient: add patient={{context.patientId}}")
    return search


def _with(search: _Search, name: str, value: str) -> _Search:
    """A search with one more parameter."""
    kind = search.resource_type
    if name == "_id":
        search.ids.append(set(value.split(",")))
    elif name in ("patient", "subject") and kind in _WITH_PATIENT:
        search.patients.append({one.removeprefix("Patient/") for one in value.split(",")})
    elif name == "encounter" and kind in _WITH_PATIENT - {"Encounter"}:
        search.encounters.append({one.removeprefix("Encounter/") for one in value.split(",")})
    elif name in _TOKENS[kind]:
        search.tokens.append((_TOKENS[kind][name], [_token(one) for one in value.split(",")]))
    elif name == _DATES.get(kind):
        found = _DATE.fullmatch(value)
        if found is None:
            raise ValueError(f"`{value}` is no date with an eq, gt, lt, ge or le before it")
        search.dates.append((found[1] or "eq", found[2].removesuffix("Z")))
    elif name == "_count" and value.isdecimal() and int(value) > 0:
        return search._replace(limit=int(value))
    elif name == "_sort" and value.removeprefix("-") == _DATES.get(kind):
        return search._replace(newest_first=value.startswith("-"))
    else:
        known = [*_TOKENS[kind], _DATES.get(kind, ""), "patient", "encounter", "_id", "_count", "_sort"]
        raise ValueError(f"`{name}={value}` is not supported for {kind}; known are {', '.join(filter(None, known))}")
    return search


def _token(value: str) -> tuple[str | None, str]:
    system, bar, code = value.rpartition("|")
    return (system if bar else None), code


def _matches(resource: Resource, search: _Search) -> bool:
    patient, encounter = _referred(resource, "subject", "patient"), _referred(resource, "encounter")
    return (
        all(resource["id"] in ids for ids in search.ids)
        and all(patient in patients for patients in search.patients)
        and all(encounter in encounters for encounters in search.encounters)
        and all(_has_token(resource, element, tokens) for element, tokens in search.tokens)
        and all(_is_dated(contents.span(resource), comparison, date) for comparison, date in search.dates)
    )


def _referred(resource: Resource, *elements: str) -> str:
    """The id that the first of some elements refers to."""
    found: str = next((resource[name]["reference"] for name in elements if name in resource), "")
    return found.rpartition("/")[2]


def _has_token(resource: Resource, element: str, tokens: list[tuple[str | None, str]]) -> bool:
    has = contents.codings(resource.get(element, []))
    return any(code == one and wanted in (None, system) for system, code in has for wanted, one in tokens)


def _is_dated(span: contents.Span, comparison: str, date: str) -> bool:
    """Whether a time compares so with a date, both taken as the spans that they stand for (FHIR R4, "Search")."""
    if span == (None, None):
        return False
    low, high = date + "0000-01-01T00:00:00"[len(date) :], date + "9999-12-31T23:59:59.999999"[len(date) :]
    start, end = (span.start or "").removesuffix("Z"), (span.end or "9999").removesuffix("Z")
    return {
        "eq": low <= start and end <= high,
        "gt": end > high,
        "lt": start < low,
        "ge": end > high or (low <= start and end <= high),
        "le": start < low or (low <= start and end <= high),
    }[comparison]

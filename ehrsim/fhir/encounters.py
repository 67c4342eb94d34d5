"""Encounters from the events of visits: class, types, reasons, period, priority, discharge and length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ehrsim import codes
from ehrsim.fhir.fragments import HL7, VISIT_SYSTEM, Fragment, Labels, Resource, code_value, coding, concept, fragment
from ehrsim.fhir.shapes import Shapes
from ehrsim.fhir.table import Ints, Mask, Table

CLASSES = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "IMP": "inpatient encounter",
    "ACUTE": "inpatient acute",
    "NONAC": "inpatient non-acute",
    "OBSENC": "observation encounter",
    "SS": "short stay",
    "HH": "home health",
    "VR": "virtual",
    "FLD": "field",
    "PRENC": "pre-admission",
}
_CLASS_WORDS = (
    ("EMER", "EMER"),
    ("URGENT", "EMER"),
    ("OUTPATIENT", "AMB"),
    ("INPATIENT", "IMP"),
    ("HOSPITAL", "IMP"),
    ("ADMIT", "IMP"),
    ("ELECTIVE", "IMP"),
    ("OBSERVATION", "OBSENC"),
    ("HOME", "HH"),
    ("VIRTUAL", "VR"),
    ("TELE", "VR"),
)
TIME_UNITS = frozenset(("a", "mo", "wk", "d", "h", "min", "s", "ms"))
_ATTENDER = [concept(f"{HL7}v3-ParticipationType", "PPRF", "primary performer")]


class Place(NamedTuple):
    """Where a visit takes place and who cares for the patient there: members that Encounters share."""

    participant: Fragment
    location: Fragment
    organization: Fragment


class VisitClass(NamedTuple):
    """The class of an Encounter, its display, and the type that keeps a visit code that is no class of FHIR."""

    coding: Fragment
    display: str
    type: Fragment | None


UNKNOWN_CLASS = VisitClass(fragment(coding(f"{HL7}v3-NullFlavor", "UNK", "unknown")), "unknown", None)
"""The class of a visit whose events have its number but which has no start of its own."""


def visit_class(value: str) -> VisitClass:
    """The class of a VISIT_START code; the nearest one by word, else ambulatory, where it is no class of FHIR."""
    if value in CLASSES:
        return VisitClass(fragment(coding(codes.uri("ACT"), value, CLASSES[value])), CLASSES[value], None)
    nearest = next((name for word, name in _CLASS_WORDS if word in value.upper()), "AMB")
    kept = fragment(concept(codes.uri("VISIT_START"), code_value(value), value))
    return VisitClass(fragment(coding(codes.uri("ACT"), nearest, CLASSES[nearest])), CLASSES[nearest], kept)


class Visit(NamedTuple):
    """One visit as the builder sees it."""

    id: str
    number: int | None
    visit_class: VisitClass
    subject: Fragment
    place: Place
    types: list[Fragment]
    reasons: list[Fragment]
    start: str | None
    end: str | None
    priority: str | None
    discharge: str | None
    length: Resource | None


def encounter(visit: Visit, meta: Fragment) -> Resource:
    """An Encounter; finished where its end is known."""
    resource: Resource = {"resourceType": "Encounter", "id": visit.id, "meta": meta}
    if visit.number is not None:
        resource["identifier"] = [{"system": VISIT_SYSTEM, "value": str(visit.number)}]
    kept = visit.visit_class.type
    types: list[Any] = visit.types if kept is None else [kept, *visit.types]
    resource |= {
        "status": "unknown" if visit.end is None else "finished",
        "class": visit.visit_class.coding,
        "type": types or [{"text": visit.visit_class.display}],
    }
    if visit.priority is not None:
        resource["priority"] = {"text": visit.priority}
    resource["subject"] = visit.subject
    resource["participant"] = visit.place.participant
    period = {name: time for name, time in (("start", visit.start), ("end", visit.end)) if time is not None}
    if period:
        resource["period"] = period
    if visit.length is not None:
        resource["length"] = visit.length
    if visit.reasons:
        resource["reasonCode"] = visit.reasons
    if visit.discharge is not None:
        resource["hospitalization"] = {"dischargeDisposition": {"text": visit.discharge}}
    resource["location"] = visit.place.location
    resource["serviceProvider"] = visit.place.organization
    return resource


def encounters(
    table: Table, shapes: Shapes, ids: list[str], subjects: list[Fragment], places: list[Place], labels: Labels
) -> Iterator[Resource]:
    """The Encounters of all visits of a table, in order; `places` by visit, `subjects` by subject."""
    visits = table.visits
    start, end = visits.start, np.where(ends_in_order(table), visits.end, -1)
    first = np.where(start >= 0, start, visits.first)
    classes = [UNKNOWN_CLASS if row < 0 else _class(shapes, int(table.code[row])) for row in start]
    meta = labels.meta("us-core-encounter")
    columns: tuple[Any, ...] = (
        ids,
        [
            number if numbered else None
            for number, numbered in zip(visits.number.tolist(), visits.numbered.tolist(), strict=True)
        ],
        classes,
        [subjects[subject] for subject in visits.subject],
        places,
        _concepts(table, shapes, "visit_type"),
        _concepts(table, shapes, "reason"),
        _at(table.time, first),
        _at(table.time, end),
        _at(table.text, start),
        _at(table.text, end),
        _lengths(table, shapes, end),
    )
    for visit in map(Visit, *columns):
        yield encounter(visit, meta)


def ends_in_order(table: Table) -> Mask:
    """Which visits have an end that an Encounter can carry: one that is not before a known start."""
    starts, ends = table.visits.start, table.visits.end
    mask: Mask = (starts >= 0) & (ends >= 0)
    times = table.frame["time"]
    mask[mask] = (times.gather(ends[mask]) >= times.gather(starts[mask])).fill_null(False).to_numpy()
    return mask


_CLASSES: dict[str, VisitClass] = {}


def _class(shapes: Shapes, number: int) -> VisitClass:
    value = shapes.codes[number].value
    if value not in _CLASSES:
        _CLASSES[value] = visit_class(value)
    return _CLASSES[value]


def _at(column: np.ndarray[Any, Any], rows: Ints) -> list[Any]:
    """The values of a column at some rows, None for row -1."""
    values = column[rows]
    values[rows < 0] = None
    gathered: list[Any] = values.tolist()
    return gathered


def _concepts(table: Table, shapes: Shapes, kind: str) -> list[list[Fragment]]:
    """The concepts of the types or reasons of each visit."""
    rows = table.rows_of(kind)
    rows = rows[table.visit[rows] >= 0]
    of_visit: list[list[Fragment]] = [[] for _ in range(len(table.visits.number))]
    for visit, code in zip(table.visit[rows].tolist(), table.code[rows].tolist(), strict=True):
        of_visit[visit].append(shapes.codes[code].concept)
    return of_visit


def _lengths(table: Table, shapes: Shapes, end: Ints) -> list[Resource | None]:
    """The Duration that the end of each visit states in a unit of time."""
    lengths: list[Resource | None] = [None] * len(end)
    for visit in np.flatnonzero(end >= 0).tolist():
        row = end[visit]
        value, unit = table.value[row], shapes.units[table.unit[row]]
        if value is not None and unit in TIME_UNITS:
            lengths[visit] = {"value": value, "unit": unit, "system": codes.UCUM_URI, "code": unit}
    return lengths

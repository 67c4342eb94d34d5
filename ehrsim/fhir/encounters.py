"""Encounters from the events of visits: class, types, reasons, period, priority, discharge and length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ehrsim import codes
from ehrsim.fhir.fragments import HL7, VISIT_SYSTEM, Fragment, Labels, Resource, code_value, coding, concept, fragment
from ehrsim.fhir.shapes import Shapes
from ehrsim.fhir.table import Ints, Mask, Table, objects

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
    """The class of an Encounter, its display, and a type that keeps a visit code that is no class of FHIR."""

    coding: Fragment
    display: str
    kept: tuple[Fragment, ...] = ()


UNKNOWN_CLASS = VisitClass(fragment(coding(f"{HL7}v3-NullFlavor", "UNK", "unknown")), "unknown")
"""The class of a visit whose events have its number but which has no start of its own."""


def visit_class(value: str) -> VisitClass:
    """The class of a VISIT_START code; the nearest one by word, else ambulatory, where it is no class of FHIR."""
    if value in CLASSES:
        return VisitClass(fragment(coding(codes.uri("ACT"), value, CLASSES[value])), CLASSES[value])
    nearest = next((name for word, name in _CLASS_WORDS if word in value.upper()), "AMB")
    kept = fragment(concept(codes.uri("VISIT_START"), code_value(value), value))
    return VisitClass(fragment(coding(codes.uri("ACT"), nearest, CLASSES[nearest])), CLASSES[nearest], (kept,))


Visit = tuple[
    str,
    int | None,
    VisitClass,
    Fragment,
    Place,
    list[Fragment],
    list[Fragment],
    str | None,
    str | None,
    str | None,
    str | None,
    Resource | None,
    Fragment | None,
]
"""One visit as the builder sees it, None for what it has not: the id of the resource; visit_id; class; reference to the
Patient; place; types and reasons; start and end as FHIR dateTimes; priority, discharge disposition and length; and a
list with a reference to the appointment."""


def encounter(visit: Visit, meta: Fragment) -> Resource:
    """An Encounter; finished where its end is known."""
    uuid, number, visit_class, subject, place, types, reasons, start, end, priority, discharge, length, booked = visit
    resource: Resource = {"resourceType": "Encounter", "id": uuid, "meta": meta}
    if number is not None:
        resource["identifier"] = [{"system": VISIT_SYSTEM, "value": str(number)}]
    resource["status"] = "unknown" if end is None else "finished"
    resource["class"] = visit_class.coding
    resource["type"] = [*visit_class.kept, *types] or [{"text": visit_class.display}]
    if priority is not None:
        resource["priority"] = {"text": priority}
    resource["subject"] = subject
    resource["participant"] = place.participant
    if booked is not None:
        resource["appointment"] = booked
    if start is not None:
        resource["period"] = {"start": start} if end is None else {"start": start, "end": end}
    if length is not None:
        resource["length"] = length
    if reasons:
        resource["reasonCode"] = reasons
    if discharge is not None:
        resource["hospitalization"] = {"dischargeDisposition": {"text": discharge}}
    resource["location"] = place.location
    resource["serviceProvider"] = place.organization
    return resource


def encounters(
    table: Table,
    shapes: Shapes,
    ids: list[str],
    subjects: list[Fragment],
    places: list[Place],
    booked: list[Fragment | None],
    labels: Labels,
) -> Iterator[Resource]:
    """The Encounters of all visits of a table, in order; `subjects`, `places` and appointments `booked` by visit."""
    visits = table.visits
    start, end = visits.start, np.where(ends_in_order(table), visits.end, -1)
    numbers = visits.number.astype(object)
    numbers[~visits.numbered] = None
    meta = labels.meta("us-core-encounter")
    columns = zip(
        ids,
        numbers.tolist(),
        _classes(table, shapes, start),
        subjects,
        places,
        _concepts(table, shapes, "visit_type"),
        _concepts(table, shapes, "reason"),
        *periods(table),
        _at(table.text, start),
        _at(table.text, end),
        _lengths(table, shapes, end),
        booked,
        strict=True,
    )
    return (encounter(visit, meta) for visit in columns)


def periods(table: Table) -> tuple[list[str | None], list[str | None]]:
    """When each visit starts, or else its first event is, and when it ends, as FHIR dateTimes."""
    visits = table.visits
    first = np.where(visits.start >= 0, visits.start, visits.first)
    return _at(table.time, first), _at(table.time, np.where(ends_in_order(table), visits.end, -1))


def _classes(table: Table, shapes: Shapes, start: Ints) -> list[VisitClass]:
    """The class of each visit, by the code of its start."""
    codes_of_starts = np.where(start >= 0, table.code[start], -1)
    distinct, inverse = np.unique(codes_of_starts, return_inverse=True)
    classes = [UNKNOWN_CLASS if code < 0 else visit_class(shapes.codes[code].value) for code in distinct.tolist()]
    found: list[VisitClass] = [classes[number] for number in inverse.tolist()]
    return found


def ends_in_order(table: Table) -> Mask:
    """Which visits have an end that an Encounter can carry: one that is not before a known start."""
    starts, ends = table.visits.start, table.visits.end
    mask: Mask = (starts >= 0) & (ends >= 0)
    times = table.frame["time"]
    mask[mask] = (times.gather(ends[mask]) >= times.gather(starts[mask])).fill_null(False).to_numpy()
    return mask


def _at(column: np.ndarray[Any, Any], rows: Ints) -> list[Any]:
    """The values of a column at some rows, None for row -1."""
    values = column[rows]
    values[rows < 0] = None
    gathered: list[Any] = values.tolist()
    return gathered


def _concepts(table: Table, shapes: Shapes, kind: str) -> list[list[Fragment]]:
    """The concepts of the types or reasons of each visit; visits with the same single one share its list."""
    rows = table.rows_of(kind)
    rows = rows[table.visit[rows] >= 0]
    code = np.full(len(table.visits.number), -1)
    code[table.visit[rows]] = table.code[rows]
    single = objects([*([coded.concept] for coded in shapes.codes), []])
    of_visit: list[list[Fragment]] = single[code].tolist()
    counts = np.bincount(table.visit[rows], minlength=len(of_visit))
    several = np.flatnonzero(counts > 1)
    for visit in several.tolist():
        of_visit[visit] = []
    for row in rows[counts[table.visit[rows]] > 1].tolist():
        of_visit[table.visit[row]].append(shapes.codes[table.code[row]].concept)
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

"""Encounters from the events of visits: class, types, reasons, period, priority, discharge and length."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir.columns import Among, Each, Ints, distinct_numbers, gathered, quoted
from ehrsim.fhir.fragments import HL7, VISIT_SYSTEM, Fragment, Resource, code_value, coding, concept, fragment
from ehrsim.fhir.places import places
from ehrsim.fhir.record import Batch, Record, items
from ehrsim.fhir.table import Mask, Table

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


def encounter(
    meta: Fragment,
    uuid: Fragment,
    number: Fragment | None,
    visit_class: VisitClass,
    types: Fragment | None,
    priority: Fragment | None,
    subject: Fragment,
    individual: Fragment,
    booked: Fragment | None,
    start: Fragment | None,
    end: Fragment | None,
    length: Fragment | None,
    reasons: Fragment | None,
    discharge: Fragment | None,
    location: Fragment,
    organization: Resource,
) -> Resource:
    """An Encounter; finished where its end is known. `types` and `reasons` are the items of lists, without brackets."""
    resource: Resource = {"resourceType": "Encounter", "id": uuid, "meta": meta}
    if number is not None:
        resource["identifier"] = [{"system": VISIT_SYSTEM, "value": number}]
    resource["status"] = "unknown" if end is None else "finished"
    resource["class"] = visit_class.coding
    resource["type"] = [*visit_class.kept, *([] if types is None else [types])] or [{"text": visit_class.display}]
    if priority is not None:
        resource["priority"] = {"text": priority}
    resource["subject"] = subject
    resource["participant"] = [{"individual": individual}]
    if booked is not None:
        resource["appointment"] = [booked]
    if start is not None:
        resource["period"] = {"start": start} if end is None else {"start": start, "end": end}
    if length is not None:
        resource["length"] = length
    if reasons is not None:
        resource["reasonCode"] = [reasons]
    if discharge is not None:
        resource["hospitalization"] = {"dischargeDisposition": {"text": discharge}}
    resource["location"] = [{"location": location}]
    resource["serviceProvider"] = organization
    return resource


def encounters(record: Record, starts: pl.Series, ends: pl.Series, booked: pl.Series) -> Batch:
    """The Encounters of all visits, in order, with ids of the appointments `booked` by visit."""
    table, links, visits = record.table, record.links, record.table.visits
    start, end = visits.start, np.where(ends_in_order(table), visits.end, -1)
    every = np.arange(len(visits.subject))
    place = links.place[visits.subject]
    locations = pl.Series([place.location for place in places(links.locale)])
    columns = (
        quoted(gathered(pl.Series(visits.number).cast(pl.String), np.where(visits.numbered, every, -1))),
        _classes(record, start),
        _items(record, "visit_type"),
        Each(gathered(table.text, start)),
        links.to_subjects(visits.subject),
        links.attending(visits.subject, every),
        links.to("Appointment", booked),
        quoted(starts),
        quoted(ends),
        _lengths(record, end),
        _items(record, "reason"),
        Each(gathered(table.text, end)),
        links.to("Location", locations.gather(place)),
        Among(place, links.organizations()),
    )
    build = partial(encounter, record.labels.meta("us-core-encounter"))
    return record.batch("Encounter", links.visits, visits.subject, build, columns)


def periods(table: Table) -> tuple[pl.Series, pl.Series]:
    """When each visit starts, or else its first event is, and when it ends, as FHIR dateTimes."""
    visits = table.visits
    first = np.where(visits.start >= 0, visits.start, visits.first)
    return gathered(table.time, first), gathered(table.time, np.where(ends_in_order(table), visits.end, -1))


def _classes(record: Record, start: Ints) -> Among:
    """The class of each visit, by the code of its start."""
    codes_of_starts = np.where(start >= 0, record.table.code[start], len(record.shapes.codes))
    distinct, index = distinct_numbers(codes_of_starts, len(record.shapes.codes) + 1)
    known = [*(code.value for code in record.shapes.codes), None]
    values = (known[code] for code in distinct.tolist())
    return Among(index, [UNKNOWN_CLASS if value is None else visit_class(value) for value in values])


def ends_in_order(table: Table) -> Mask:
    """Which visits have an end that an Encounter can carry: one that is not before a known start."""
    starts, ends = table.visits.start, table.visits.end
    mask: Mask = (starts >= 0) & (ends >= 0)
    times = table.frame["time"]
    mask[mask] = (times.gather(ends[mask]) >= times.gather(starts[mask])).fill_null(False).to_numpy()
    return mask


def _items(record: Record, kind: str) -> Each:
    """The concepts of the types or reasons of each visit, as items of a list."""
    rows = record.table.rows_of(kind)
    rows = rows[record.table.visit[rows] >= 0]
    return items(record.concepts(rows), record.table.visit[rows], len(record.table.visits.number))


def _lengths(record: Record, end: Ints) -> Each:
    """The Duration that the end of each visit states in a unit of time."""
    table, units = record.table, record.shapes.units
    timed = np.array([unit in TIME_UNITS for unit in units], dtype=np.bool_)[table.unit[end]] & (end >= 0)
    rows = np.where(timed, end, -1)
    after = [f',"unit":"{unit}","system":"{codes.UCUM_URI}","code":"{unit}"}}' for unit in units]
    unit = pl.Series(after).gather(table.unit[end])
    values = gathered(table.value, rows)
    return Each(pl.select(pl.concat_str(values, unit)).to_series(), '{"value":')

"""What goes with laboratory results: orders, specimens, reference ranges and interpretations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir import profiles
from ehrsim.fhir.columns import Among, Column, Each, Ints, distinct_numbers, grouped, nothing
from ehrsim.fhir.fragments import Fragment, Resource, concept, fragment
from ehrsim.fhir.patients import sexes
from ehrsim.fhir.record import Batch, Record, derived_ids, moment_ids, with_visit
from ehrsim.fhir.reference_ranges import ANYONE, HIGH, LOW, NORMAL, RANGES, reference_range
from ehrsim.fhir.shapes import NUMERIC, TIMED
from ehrsim.fhir.specimens import MATERIALS, material_of

_LABORATORY = fragment([concept(codes.uri("SNOMED"), "108252007", "Laboratory procedure")])
_STUDIES = fragment(
    {**concept(codes.uri("LOINC"), "26436-6", "Laboratory Studies (set)"), "text": "Laboratory Studies (set)"}
)


class Laboratory(NamedTuple):
    """The orders and specimens of a group."""

    batches: list[Batch]
    order: Each
    """References to the orders by event, null where it has none."""
    specimens: Each
    """References to all specimens."""
    specimen: Ints
    """Index of the specimen of each event, -1 where it has none."""


def laboratory(record: Record) -> Laboratory:
    """Orders and specimens: a specimen for each moment and material, and an order for each panel or moment."""
    observed = record.rows_of("observation")
    materials = np.array([material_of(code) for code in record.shapes.codes], dtype=np.int64)
    material = materials[record.table.code[observed]]
    rows, material = observed[material >= 0], material[material >= 0]
    batches = list[Batch]()
    order, specimens = Each(nothing(len(record.table.kind))), Each(nothing(0))
    specimen = np.full(len(record.table.kind), -1)
    if "Specimen" in record.types and len(rows):
        batch, specimen[rows] = _specimens(record, rows, material)
        batches.append(batch)
        specimens = record.links.to("Specimen", batch.ids)
    if "ServiceRequest" in record.types:
        orders, order = _orders(record, rows)
        batches += orders
    return Laboratory(batches, order, specimens, specimen)


def _specimens(record: Record, rows: Ints, material: Ints) -> tuple[Batch, Ints]:
    """A specimen for each material of each moment, and which of them each of some events was done on."""
    table = record.table
    places, number = grouped(table.moment[rows] * len(MATERIALS) + material, len(table.kind) * len(MATERIALS))
    first, of_first = rows[places], material[places]
    ids = moment_ids("Specimen", record, first, of_first)
    types = Among(of_first, [concept(codes.uri("SNOMED"), *one) for one in MATERIALS])
    meta = record.labels.derived("us-core-specimen")

    def specimen(uuid: Fragment, material: Resource, subject: Fragment, time: Fragment | None) -> Resource:
        resource: Resource = {"resourceType": "Specimen", "id": uuid, "meta": meta, "status": "available"}
        resource |= {"type": material, "subject": subject}
        if time is not None:
            resource["collection"] = {"collectedDateTime": time}
        return resource

    columns = (types, record.subjects(first), record.times(first))
    return record.batch("Specimen", ids, table.subject[first], specimen, columns), number


def _orders(record: Record, rows: Ints) -> tuple[list[Batch], Each]:
    """An order for each panel, and one for each moment with tests and no panel; and references to them by event."""
    table, panels = record.table, record.rows_of("panel")
    laboratory = np.array([_is_laboratory(code.system, code.value) for code in record.shapes.codes], dtype=np.bool_)
    panels = record.has(panels, laboratory)
    ids, batches = [], []
    of_event = np.full(len(record.table.kind), -1)
    if len(panels):
        ids.append(derived_ids("ServiceRequest", record.table.lanes[panels]))
        of_event[panels] = np.arange(len(panels))
        batches.append(_ordered(record, ids[0], panels, record.concepts(panels)))
    has_panel = np.zeros(len(table.kind), dtype=np.bool_)
    has_panel[table.moment[panels[(table.form[panels] & TIMED) != 0]]] = True
    alone = rows[~has_panel[table.moment[rows]]]
    if len(alone):
        places, number = grouped(table.moment[alone], len(table.kind))
        first = alone[places]
        ids.append(moment_ids("ServiceRequest", record, first))
        of_event[alone] = len(panels) + number
        studies = Among(np.zeros(len(first), dtype=np.int64), [_STUDIES])
        batches.append(_ordered(record, ids[-1], first, studies))
    every = pl.concat(ids) if ids else nothing(0)
    return batches, record.links.to("ServiceRequest", every).gather(of_event)


def _is_laboratory(system: str, value: str) -> bool:
    return system != "LOINC" or (
        profiles.category_of(value, None) == profiles.LABORATORY and value != profiles.BLOOD_PRESSURE
    )


def _ordered(record: Record, ids: pl.Series, first: Ints, ordered: Column) -> Batch:
    """Orders of what is `ordered`, by the first event of each."""
    meta = record.labels.derived("us-core-servicerequest")
    head = {"status": "completed", "intent": "order", "category": _LABORATORY}

    def order(
        uuid: Fragment,
        code: Fragment,
        subject: Fragment,
        visit: Fragment | None,
        time: Fragment | None,
        requester: Fragment,
    ) -> Resource:
        resource: Resource = {"resourceType": "ServiceRequest", "id": uuid, "meta": meta, **head, "code": code}
        resource["subject"] = subject
        with_visit(resource, visit)
        if time is not None:
            resource["occurrenceDateTime"] = resource["authoredOn"] = time
        resource["requester"] = requester
        return resource

    columns = (
        ordered,
        record.subjects(first),
        record.visits(first),
        record.times(first),
        record.practitioners(first),
    )
    return record.batch("ServiceRequest", ids, record.table.subject[first], order, columns)


def tested(record: Record, of: Laboratory, rows: Ints) -> tuple[Column, ...]:
    """What each of some observations has beyond its event: who made it, its order and specimen, and the members that
    say what is usual, and what its value is called in view of that.
    """
    return (
        record.practitioners(rows),
        of.order.gather(rows),
        of.specimens.gather(of.specimen[rows]),
        _judged(record, rows),
    )


def _judged(record: Record, rows: Ints) -> Among:
    """For each of some observations the members that say what is usual, none where that is not known."""
    table, shapes = record.table, record.shapes
    found, members = np.zeros(len(rows), dtype=np.int64), list[Resource]([{}])
    known = np.array([code.system == "LOINC" and code.value in RANGES for code in shapes.codes], dtype=np.bool_)
    judged = np.flatnonzero(known[table.code[rows]] & ((table.form[rows] & NUMERIC) != 0))
    values = table.frame["numeric_value"].gather(rows[judged]).to_numpy()
    sex = sexes(table, shapes)[table.subject[rows[judged]]]
    pairs = table.code[rows[judged]] * len(shapes.units) + table.unit[rows[judged]]
    distinct, index = distinct_numbers(pairs, len(shapes.codes) * len(shapes.units))
    for number, pair in enumerate(distinct.tolist()):
        code, unit = divmod(pair, len(shapes.units))
        ranges = RANGES[shapes.codes[code].value]
        if shapes.units[unit] != ranges.unit:
            continue
        of_pair = np.flatnonzero(index == number)
        written = {"referenceRange": reference_range(ranges)}
        base = len(members)
        members += [written, *({"interpretation": called, **written} for called in (LOW, HIGH, NORMAL))]
        found[judged[of_pair]] = base
        for whose, usual in ranges.by_sex.items():
            own = of_pair if whose == ANYONE else of_pair[sex[of_pair] == whose]
            low, high = (np.float32(bound) if bound is not None else None for bound in usual)
            called = np.full(len(own), base + 3)
            if low is not None:
                called[values[own] < low] = base + 1
            if high is not None:
                called[values[own] > high] = base + 2
            found[judged[own]] = called
    return Among(found, members)

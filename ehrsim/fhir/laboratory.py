"""What goes with laboratory results: orders, specimens, reference ranges and interpretations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir import profiles
from ehrsim.fhir.fragments import Fragment, Resource, concept, fragment, reference
from ehrsim.fhir.patients import sexes
from ehrsim.fhir.record import MOMENT, Batch, Record, batch, derived_ids, moment_ids, moments, with_visit
from ehrsim.fhir.reference_ranges import ANYONE, HIGH, LOW, NORMAL, RANGES, reference_range
from ehrsim.fhir.shapes import NUMERIC
from ehrsim.fhir.specimens import MATERIALS, material_of
from ehrsim.fhir.table import Ints, Objects, objects

_LABORATORY = fragment([concept(codes.uri("SNOMED"), "108252007", "Laboratory procedure")])
_STUDIES = fragment(
    {**concept(codes.uri("LOINC"), "26436-6", "Laboratory Studies (set)"), "text": "Laboratory Studies (set)"}
)


class Laboratory(NamedTuple):
    """The orders and specimens of a group, and references to them by event; None where an event has none."""

    batches: list[Batch]
    order: Objects
    specimen: Objects


def laboratory(record: Record) -> Laboratory:
    """Orders and specimens: a specimen for each moment and material, and an order for each panel or moment."""
    observed = record.rows_of("observation")
    materials = np.array([material_of(code) for code in record.shapes.codes], dtype=np.int64)
    material = materials[record.table.code[observed]]
    rows, material = observed[material >= 0], material[material >= 0]
    order, specimen = (np.full(len(record.table.kind), None, dtype=object) for _ in range(2))
    batches: list[Batch] = []
    if "Specimen" in record.types and len(rows):
        batches.append(_specimens(record, rows, material, specimen))
    if "ServiceRequest" in record.types:
        batches += _orders(record, rows, order)
    return Laboratory(batches, order, specimen)


def _specimens(record: Record, rows: Ints, material: Ints, of_event: Objects) -> Batch:
    """A specimen for each material of each moment; the events are told it."""
    of_rows = moments(record.table, rows, "row").with_columns(material=material)
    first, number = _groups(of_rows, [*MOMENT, "material"])
    ids = moment_ids("Specimen", record, first, material[np.searchsorted(rows, first)])
    prefix = record.links.prefix["Specimen"]
    of_event[rows] = objects([reference(prefix + uuid) for uuid in ids])[number]
    types = [fragment(concept(codes.uri("SNOMED"), *one)) for one in MATERIALS]
    of_first = material[np.searchsorted(rows, first)]
    columns = (ids, [types[one] for one in of_first.tolist()], record.subjects(first), record.times(first))
    meta = record.labels.derived("us-core-specimen")

    def specimen(uuid: str, material: Fragment, subject: Fragment, time: str | None) -> Resource:
        resource: Resource = {"resourceType": "Specimen", "id": uuid, "meta": meta, "status": "available"}
        resource |= {"type": material, "subject": subject}
        if time is not None:
            resource["collection"] = {"collectedDateTime": time}
        return resource

    return batch("Specimen", ids, record.table.subject[first], of_first, map(specimen, *columns))


def _orders(record: Record, rows: Ints, of_event: Objects) -> Iterator[Batch]:
    """An order for each panel, and one for each moment with tests and no panel; the events are told it."""
    panels = record.rows_of("panel")
    laboratory = np.array([_is_laboratory(code.system, code.value) for code in record.shapes.codes], dtype=np.bool_)
    panels = record.has(panels, laboratory)
    if len(panels):
        ids = derived_ids("ServiceRequest", record.table.lanes[panels])
        yield _ordered(record, ids, panels, record.concepts(panels), (of_event, panels, np.arange(len(panels))))
    at_panels = moments(record.table, panels, "panel").select(MOMENT).unique()
    alone = moments(record.table, rows, "row").join(at_panels, on=MOMENT, how="anti", maintain_order="left")
    if alone.is_empty():
        return
    first, number = _groups(alone, MOMENT)
    ids = moment_ids("ServiceRequest", record, first)
    yield _ordered(record, ids, first, [_STUDIES] * len(first), (of_event, alone["row"].to_numpy(), number))


def _is_laboratory(system: str, value: str) -> bool:
    return system != "LOINC" or (
        profiles.category_of(value, None) == profiles.LABORATORY and value != profiles.BLOOD_PRESSURE
    )


def _ordered(
    record: Record, ids: list[str], first: Ints, ordered: list[Fragment], told: tuple[Objects, Ints, Ints]
) -> Batch:
    """Orders by the first event of each; `told` are the list of references by event, some events, and their orders."""
    of_event, rows, number = told
    prefix = record.links.prefix["ServiceRequest"]
    of_event[rows] = objects([fragment([{"reference": prefix + uuid}]) for uuid in ids])[number]
    meta = record.labels.derived("us-core-servicerequest")
    head = {"status": "completed", "intent": "order", "category": _LABORATORY}

    def order(
        uuid: str, code: Fragment, subject: Fragment, visit: Fragment | None, time: str | None, requester: Fragment
    ) -> Resource:
        resource: Resource = {"resourceType": "ServiceRequest", "id": uuid, "meta": meta, **head, "code": code}
        resource["subject"] = subject
        with_visit(resource, visit)
        if time is not None:
            resource["occurrenceDateTime"] = resource["authoredOn"] = time
        resource["requester"] = requester
        return resource

    columns = (
        ids,
        ordered,
        record.subjects(first),
        record.visits(first),
        record.times(first),
        record.practitioners(first),
    )
    return batch("ServiceRequest", ids, record.table.subject[first], record.table.code[first], map(order, *columns))


def _groups(rows: pl.DataFrame, keys: list[str] | tuple[str, ...]) -> tuple[Ints, Ints]:
    """The first row of each group of equal keys, ascending, and for each row the number of its group."""
    first = rows.select(pl.col("row").first().over(keys)).to_series().to_numpy()
    distinct, number = np.unique(first, return_inverse=True)
    return distinct.astype(np.int64), number.astype(np.int64)


Tested = tuple[Fragment, Fragment | None, Fragment | None, Resource | None, Resource | None]
"""What an observation has beyond its event: lists of references to who made it, and to its order; its specimen; its
range with what its value is called in view of it; and what it is derived from."""


def tested(record: Record, of: Laboratory, answered: Objects, rows: Ints) -> list[Tested]:
    """What each of some observations has beyond its event; `answered` are the members of those of questionnaires."""
    columns = (of.order[rows], of.specimen[rows], _judged(record, rows), answered[rows])
    return list(zip(record.performers(rows), *(column.tolist() for column in columns), strict=True))


def _judged(record: Record, rows: Ints) -> Objects:
    """For each of some observations the members that say what is usual, None where that is not known."""
    table, shapes = record.table, record.shapes
    found: Objects = np.full(len(rows), None, dtype=object)
    known = np.array([code.system == "LOINC" and code.value in RANGES for code in shapes.codes], dtype=np.bool_)
    judged = np.flatnonzero(known[table.code[rows]] & ((table.form[rows] & NUMERIC) != 0))
    values = table.frame["numeric_value"].gather(rows[judged]).to_numpy()
    sex = sexes(table, shapes)[table.subject[rows[judged]]]
    pairs = table.code[rows[judged]] * len(shapes.units) + table.unit[rows[judged]]
    for pair in np.unique(pairs).tolist():
        code, unit = divmod(pair, len(shapes.units))
        ranges = RANGES[shapes.codes[code].value]
        if shapes.units[unit] != ranges.unit:
            continue
        written = {"referenceRange": reference_range(ranges)}
        of_pair = pairs == pair
        found[judged[of_pair]] = written
        for whose, usual in ranges.by_sex.items():
            of_sex = of_pair if whose == ANYONE else of_pair & (sex == whose)
            low, high = (np.float32(bound) if bound is not None else None for bound in usual)
            below = of_sex & (values < low) if low is not None else np.zeros_like(of_sex)
            above = of_sex & (values > high) if high is not None else np.zeros_like(of_sex)
            for which, called in ((below, LOW), (above, HIGH), (of_sex & ~below & ~above, NORMAL)):
                found[judged[which]] = {"interpretation": called, **written}
    return found

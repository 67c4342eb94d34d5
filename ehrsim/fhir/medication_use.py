"""What follows an order of a drug: the reason for it, the drug itself, that it was dispensed or given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim.fhir import identity
from ehrsim.fhir.columns import Among, Column, Each, Ints, gathered
from ehrsim.fhir.fragments import HL7, Fragment, Resource, concept
from ehrsim.fhir.indications import asked_for, uses
from ehrsim.fhir.record import Batch, Record, derived_ids, with_visit
from ehrsim.fhir.resources import MEDICATION_STATUSES
from ehrsim.fhir.shapes import TIMED
from ehrsim.fhir.table import Mask

INPATIENT = frozenset(("IMP", "ACUTE", "NONAC", "OBSENC", "SS"))
"""Classes of visits in which drugs are given by the staff."""
_NEVER_USED = frozenset(("draft", "cancelled", "entered-in-error"))
_INPATIENT_USE = concept(f"{HL7}medication-admin-category", "inpatient", "Inpatient")

_CATEGORIES = [
    [concept(f"{HL7}medicationrequest-category", name, name.capitalize())] for name in ("outpatient", "inpatient")
]


def ordered(record: Record, rows: Ints) -> tuple[Column, ...]:
    """What each of some orders has beyond its event: a status, who ordered it, its category, and the reason for it."""
    category = Among(_inpatient(record, rows).astype(np.int64), _CATEGORIES)
    return _statuses(record, rows), record.practitioners(rows), category, _reasons(record, rows)


def _statuses(record: Record, rows: Ints) -> Among:
    """The status that the text of each of some orders says."""
    texts = record.table.frame["text_value"].gather(rows).fill_null("")
    values = sorted(MEDICATION_STATUSES)
    status = texts.replace_strict(values, range(1, len(values) + 1), default=0, return_dtype=pl.Int64).to_numpy()
    return Among(status, [None, *values])


def _reasons(record: Record, rows: Ints) -> Each:
    """For each order a reference to the latest of the subject's conditions by then that the drug is given for."""
    reason = np.full(len(rows), -1)
    conditions = record.rows_of("condition")
    table, shapes = record.table, record.shapes
    drugs = {code: uses(shapes.codes[code]) for code in np.unique(table.code[rows]).tolist()}
    diseases = {code: asked_for(shapes.codes[code]) for code in np.unique(table.code[conditions]).tolist()}
    pairs = [(drug, disease) for drug, one in drugs.items() for disease, other in diseases.items() if one & other]
    if pairs:
        time = table.frame["time"].to_physical()
        orders = pl.DataFrame(
            {
                "order": np.arange(len(rows)),
                "subject": table.subject[rows],
                "drug": table.code[rows],
                "time": time.gather(rows),
            }
        )
        known = pl.DataFrame(
            {
                "row": conditions,
                "subject": table.subject[conditions],
                "condition": table.code[conditions],
                "since": time.gather(conditions),
            }
        )
        given_for = pl.DataFrame(pairs, schema={"drug": pl.Int64, "condition": pl.Int64}, orient="row")
        latest = (
            orders.join(given_for, on="drug")
            .join(known, on=["subject", "condition"])
            .filter(pl.col("since") <= pl.col("time"))
            .group_by("order")
            .agg(pl.col("row").sort_by("since", "row").last())
        )
        reason[latest["order"].to_numpy()] = latest["row"].to_numpy()
    return record.links.to("Condition", gathered(record.ids, reason))


def medication_use(record: Record) -> Iterator[Batch]:
    """Medications, and what was dispensed or administered, of the orders that have a time and were not withdrawn."""
    rows = record.rows_of("medication")
    withdrawn = record.table.frame["text_value"].gather(rows).is_in(list(_NEVER_USED)).fill_null(False).to_numpy()
    rows = rows[((record.table.form[rows] & TIMED) != 0) & ~withdrawn]
    if not len(rows):
        return
    drugs, name = record.concepts(rows), "medicationCodeableConcept"
    if "Medication" in record.types:
        medications, drugs = _medications(record, rows)
        name = "medicationReference"
        yield medications
    inpatient = _inpatient(record, rows)
    for use, which in ((_DISPENSED, ~inpatient), (_GIVEN, inpatient)):
        if use.resource_type in record.types and which.any():
            yield _used(record, use, rows[which], drugs.gather(np.flatnonzero(which)), name)


class _Use(NamedTuple):
    """How a drug that was ordered came to the patient, and the members that say so."""

    resource_type: str
    profile: str | None
    category: Resource
    order: str
    time: str
    several: bool
    """Whether `order` may name several."""


_DISPENSED = _Use(
    "MedicationDispense", "us-core-medicationdispense", {}, "authorizingPrescription", "whenHandedOver", several=True
)
_GIVEN = _Use(
    "MedicationAdministration", None, {"category": _INPATIENT_USE}, "request", "effectiveDateTime", several=False
)


def _used(record: Record, use: _Use, rows: Ints, drugs: Each, name: str) -> Batch:
    """What became of some orders; `name` is the member that holds the drug."""
    ids = derived_ids(use.resource_type, record.table.lanes[rows])
    meta = record.labels.derived(use.profile)

    def used(
        uuid: Fragment,
        drug: Fragment,
        subject: Fragment,
        visit: Fragment | None,
        time: Fragment,
        order: Fragment,
        practitioner: Fragment,
    ) -> Resource:
        resource: Resource = {"resourceType": use.resource_type, "id": uuid, "meta": meta, "status": "completed"}
        resource |= {**use.category, name: drug, "subject": subject}
        with_visit(resource, visit, "context")
        resource[use.time] = time
        resource["performer"] = [{"actor": practitioner}]
        resource[use.order] = [order] if use.several else order
        return resource

    columns = (
        drugs,
        record.subjects(rows),
        record.visits(rows),
        record.times(rows),
        record.references("MedicationRequest", rows),
        record.practitioners(rows),
    )
    return record.batch(use.resource_type, ids, record.table.subject[rows], used, columns)


def _inpatient(record: Record, rows: Ints) -> Mask:
    """Which events are of a stay."""
    mask: Mask = np.append(stays(record), False)[record.table.visit[rows]]
    return mask


def stays(record: Record) -> Mask:
    """Which visits are stays."""
    visits = record.table.visits
    staying = np.array([code.value in INPATIENT for code in record.shapes.codes], dtype=np.bool_)
    mask: Mask = (visits.start >= 0) & staying[record.table.code[visits.start]]
    return mask


def _medications(record: Record, rows: Ints) -> tuple[Batch, Each]:
    """A Medication for each subject and drug, and for each of some orders a reference to it."""
    table = record.table
    pairs = table.subject[rows] * len(record.shapes.codes) + table.code[rows]
    # In the order in which they came: numbers of codes depend on who else is in the group.
    _, earliest, which = np.unique(pairs, return_index=True, return_inverse=True)
    order = np.argsort(earliest)
    first, number = rows[earliest[order]], np.argsort(order)[which]
    of_code = identity.text_words(code.code for code in record.shapes.codes)[table.code[first]]
    ids = derived_ids("Medication", table.subject_lanes[table.subject[first]], of_code)
    meta = record.labels.derived("us-core-medication")

    def medication(uuid: Fragment, code: Fragment) -> Resource:
        return {"resourceType": "Medication", "id": uuid, "meta": meta, "code": code, "status": "active"}

    batch = record.batch("Medication", ids, table.subject[first], medication, [record.concepts(first)])
    return batch, record.links.to("Medication", ids.gather(number))

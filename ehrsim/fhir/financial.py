"""Coverage, and for each finished visit a claim and what came of it: the least that payers need, without amounts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir.columns import Among, Each, Ints, nothing, quoted
from ehrsim.fhir.fragments import HL7, Fragment, Resource, concept
from ehrsim.fhir.medication_use import stays
from ehrsim.fhir.places import PAYER, PAYER_NAME
from ehrsim.fhir.record import Batch, Record, derived_ids, items

MEMBER_SYSTEM = f"{codes.URI_BASE}/identifier/member"
_MEMBER = concept(f"{HL7}v2-0203", "MB", "Member Number")
_SELF = concept(f"{HL7}subscriber-relationship", "self", "Self")
_PLAN = concept(f"{HL7}v3-ActCode", "EHCPOL", "extended healthcare")
_TYPES = [concept(f"{HL7}claim-type", name, name.capitalize()) for name in ("professional", "institutional")]
_NORMAL = concept(f"{HL7}processpriority", "normal", "Normal")
_VISIT = {"text": "Visit"}


def payments(record: Record, ends: pl.Series) -> Iterator[Batch]:
    """The plan of each patient, and for each visit with an end its Claim and ExplanationOfBenefit."""
    coverage = _coverages(record)
    yield coverage
    chosen = np.flatnonzero(ends.is_not_null().to_numpy())
    if not len(chosen):
        return
    subject = record.table.visits.subject[chosen]
    links, lanes = record.links, record.table.visits.lanes[chosen]
    kind = stays(record)[chosen].astype(np.int64)
    diagnoses, sequences = _diagnoses(record, chosen)
    columns = (
        Among(kind, _TYPES),
        links.to_subjects(subject),
        quoted(ends.gather(chosen)),
        quoted(ends.gather(chosen).str.slice(0, 10)),
        Among(links.place[subject], links.organizations()),
        links.to("Coverage", coverage.ids.gather(subject)),
        diagnoses,
        sequences,
        record.to_visits(chosen),
    )
    claims = derived_ids("Claim", lanes)
    of_benefit = links.to("Claim", claims if "Claim" in record.types else nothing(len(claims)))
    for resource_type, ids, more in (
        ("Claim", claims, ()),
        ("ExplanationOfBenefit", derived_ids("ExplanationOfBenefit", lanes), (of_benefit,)),
    ):
        if resource_type in record.types:
            build = partial(_of_visit, resource_type, record)
            yield record.batch(resource_type, ids, subject, build, (*columns, *more))


def _coverages(record: Record) -> Batch:
    """The plan of each patient."""
    links, table = record.links, record.table
    meta, payor = record.labels.derived("us-core-coverage"), _payer(record)

    def coverage(uuid: Fragment, subject: Fragment, member: Fragment) -> Resource:
        return {
            "resourceType": "Coverage",
            "id": uuid,
            "meta": meta,
            "identifier": [{"type": _MEMBER, "system": MEMBER_SYSTEM, "value": member}],
            "status": "active",
            "type": _PLAN,
            "subscriberId": member,
            "beneficiary": subject,
            "relationship": _SELF,
            "payor": [payor],
        }

    ids, every = derived_ids("Coverage", table.subject_lanes), np.arange(len(table.subjects))
    members = pl.Series([f"SYN{number:09d}" for number in table.subjects.tolist()])
    return record.batch("Coverage", ids, every, coverage, (links.to_subjects(every), quoted(members)))


def _payer(record: Record) -> Resource:
    return {"reference": record.links.prefix["Organization"] + PAYER, "display": PAYER_NAME}


def _diagnoses(record: Record, visits: Ints) -> tuple[Each, Each]:
    """What each of some visits was for: its conditions with numbers, and these numbers, both as items of lists."""
    count = len(record.table.visits.number)
    rows = record.rows_of("condition")
    rows = rows[record.table.visit[rows] >= 0]
    visit = record.table.visit[rows]
    number = pl.Series(visit).to_frame("visit").select(pl.int_range(1, pl.len() + 1).over("visit")).to_series()
    numbers = number.cast(pl.String)
    conditions = record.references("Condition", rows)
    numbered = pl.select(pl.concat_str(numbers, pl.lit(f',"diagnosisReference":{conditions.before}'), conditions.texts))
    diagnoses = Each(numbered.to_series(), '{"sequence":', f"{conditions.after}}}")
    return items(diagnoses, visit, count).gather(visits), items(Each(numbers), visit, count).gather(visits)


def _of_visit(
    resource_type: str,
    record: Record,
    uuid: Fragment,
    kind: Resource,
    subject: Fragment,
    end: Fragment,
    date: Fragment,
    provider: Resource,
    coverage: Fragment,
    diagnoses: Fragment | None,
    sequences: Fragment | None,
    visit: Fragment | None,
    claim: Fragment | None = None,
) -> Resource:
    """A Claim, or the ExplanationOfBenefit of one."""
    resource: Resource = {
        "resourceType": resource_type,
        "id": uuid,
        "meta": record.labels.derived(),
        "status": "active",
        "type": kind,
        "use": "claim",
        "insurer": _payer(record),
    }
    insurance: Resource = {"focal": True, "coverage": coverage}
    if resource_type == "Claim":
        resource["priority"] = _NORMAL
        insurance = {"sequence": 1, **insurance}
    resource |= {"patient": subject, "created": end, "provider": provider}
    if resource_type != "Claim":
        resource |= {"outcome": "complete"} if claim is None else {"claim": claim, "outcome": "complete"}
    item: Resource = {"sequence": 1, "productOrService": _VISIT, "servicedDate": date}
    if diagnoses is not None:
        resource["diagnosis"] = [diagnoses]
        item["diagnosisSequence"] = [sequences]
    if visit is not None:
        item["encounter"] = [visit]
    return resource | {"insurance": [insurance], "item": [item]}

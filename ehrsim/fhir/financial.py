"""Coverage, and for each finished visit a claim and what came of it: the least that payers need, without amounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ehrsim import codes
from ehrsim.fhir.fragments import HL7, Fragment, Labels, Resource, concept, fragment, reference
from ehrsim.fhir.medication_use import stays
from ehrsim.fhir.places import PAYER, PAYER_NAME, places
from ehrsim.fhir.record import Batch, Record, batch, derived_ids
from ehrsim.fhir.table import Ints

MEMBER_SYSTEM = f"{codes.URI_BASE}/identifier/member"
_MEMBER = concept(f"{HL7}v2-0203", "MB", "Member Number")
_SELF = concept(f"{HL7}subscriber-relationship", "self", "Self")
_PLAN = concept(f"{HL7}v3-ActCode", "EHCPOL", "extended healthcare")
_TYPES = [fragment(concept(f"{HL7}claim-type", name, name.capitalize())) for name in ("professional", "institutional")]
_NORMAL = concept(f"{HL7}processpriority", "normal", "Normal")
_VISIT = {"text": "Visit"}


def coverages(record: Record) -> tuple[Batch, list[Fragment]]:
    """The plan of each patient, and references to them."""
    links = record.links
    ids = derived_ids("Coverage", record.table.subject_lanes)
    meta, payor = record.labels.derived("us-core-coverage"), reference(links.prefix["Organization"] + PAYER, PAYER_NAME)

    def coverage(uuid: str, subject: Fragment, number: int) -> Resource:
        member = f"SYN{number:09d}"
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

    resources = map(coverage, ids, links.subjects.tolist(), record.table.subjects.tolist())
    references = [reference(links.prefix["Coverage"] + uuid) for uuid in ids]
    return batch("Coverage", ids, np.arange(len(ids)), 0, resources), references


def claims(record: Record, coverages: list[Fragment], ends: list[str | None]) -> Iterator[Batch]:
    """A Claim for each visit with an end, and its ExplanationOfBenefit."""
    visits, links = record.table.visits, record.links
    chosen = np.flatnonzero([end is not None for end in ends])
    if not len(chosen):
        return
    subject = visits.subject[chosen]
    kinds = stays(record)[chosen].astype(np.int64)
    organizations = [
        reference(links.prefix["Organization"] + place.organization, place.name) for place in places(links.locale)
    ]
    common = (
        kinds.tolist(),
        links.subjects[subject].tolist(),
        [ends[visit] for visit in chosen.tolist()],
        [organizations[place] for place in links.place[subject].tolist()],
        [coverages[number] for number in subject.tolist()],
        _diagnoses(record, chosen),
        links.visits[chosen].tolist(),
    )
    ids = derived_ids("Claim", visits.lanes[chosen])
    payer = reference(links.prefix["Organization"] + PAYER, PAYER_NAME)
    if "Claim" in record.types:
        heads = [_head("Claim", record.labels, kind) | {"insurer": payer, "priority": _NORMAL} for kind in (0, 1)]
        yield batch("Claim", ids, subject, kinds, _of_visits(heads, ids, common, [{}] * len(ids)))
    if "ExplanationOfBenefit" in record.types:
        heads = [_head("ExplanationOfBenefit", record.labels, kind) | {"insurer": payer} for kind in (0, 1)]
        own = derived_ids("ExplanationOfBenefit", visits.lanes[chosen])
        more: list[Resource] = [{"outcome": "complete"}] * len(ids)
        if "Claim" in record.types:
            more = [{"claim": reference(links.prefix["Claim"] + uuid), "outcome": "complete"} for uuid in ids]
        yield batch("ExplanationOfBenefit", own, subject, kinds, _of_visits(heads, own, common, more))


def _head(resource_type: str, labels: Labels, kind: int) -> Resource:
    return {
        "resourceType": resource_type,
        "id": "",
        "meta": labels.derived(),
        "status": "active",
        "type": _TYPES[kind],
        "use": "claim",
    }


def _diagnoses(record: Record, visits: Ints) -> list[list[Resource]]:
    """What each of some visits was for: references to its conditions."""
    found: list[list[Resource]] = [[] for _ in record.table.visits.number]
    if "Condition" in record.types:
        rows = record.rows_of("condition")
        rows = rows[record.table.visit[rows] >= 0]
        conditions = record.references("Condition", rows)
        for visit, condition in zip(record.table.visit[rows].tolist(), conditions, strict=True):
            found[visit].append({"sequence": len(found[visit]) + 1, "diagnosisReference": condition})
    return [found[visit] for visit in visits.tolist()]


def _of_visits(
    heads: list[Resource], ids: list[str], common: tuple[list[Any], ...], more: list[Resource]
) -> Iterator[Resource]:
    for uuid, kind, subject, end, provider, coverage, diagnoses, visit, other in zip(ids, *common, more, strict=True):
        resource = {**heads[kind], "id": uuid, "patient": subject, "created": end, "provider": provider, **other}
        item: Resource = {"sequence": 1, "productOrService": _VISIT, "servicedDate": end[:10]}
        insurance: Resource = {"focal": True, "coverage": coverage}
        if resource["resourceType"] == "Claim":
            insurance = {"sequence": 1, **insurance}
        if diagnoses:
            resource["diagnosis"] = diagnoses
            item["diagnosisSequence"] = [one["sequence"] for one in diagnoses]
        if visit is not None:
            item["encounter"] = [visit]
        yield resource | {"insurance": [insurance], "item": [item]}

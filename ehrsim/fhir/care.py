"""Who cares for a patient and to what end: related persons, care teams, goals, appointments and lists.

Nothing here is told by the events: persons are invented as patients are, and goals are those that guidelines set for
the conditions of the patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir import identity, people
from ehrsim.fhir.columns import Among, Each, Ints, gathered, nothing, quoted
from ehrsim.fhir.fragments import HL7, Fragment, Resource, concept
from ehrsim.fhir.record import Batch, Record, derived_ids, items, single
from ehrsim.fhir.shapes import Coded

_RELATIONS = (
    ("SPS", "spouse"),
    ("CHILD", "child"),
    ("PRN", "parent"),
    ("SIB", "sibling"),
    ("FRND", "unrelated friend"),
)
_EMERGENCY = concept(f"{HL7}v2-0131", "C", "Emergency Contact")


def related_persons(record: Record) -> Batch:
    """Somebody to call for each patient."""
    links = record.links
    lanes = identity.hashed(identity.key_of("RelatedPerson"), *record.table.subject_lanes.T)
    meta, prefix = record.labels.derived("us-core-relatedperson"), links.prefix["Patient"]

    def related(uuid: str, subject: str, words: tuple[int, ...]) -> Resource:
        draws = people.Draws(words)
        address, city = people.address(draws, links.locale)
        code, display = _RELATIONS[draws.below(len(_RELATIONS))]
        return {
            "resourceType": "RelatedPerson",
            "id": uuid,
            "meta": meta,
            "active": True,
            "patient": {"reference": prefix + subject},
            "relationship": [concept(f"{HL7}v3-RoleCode", code, display), _EMERGENCY],
            "name": [people.name(draws, None, locale=links.locale)],
            "telecom": [people.telephone(draws, city, "home")],
            "address": [address],
        }

    ids = identity.uuids(lanes)
    resources = map(related, ids.to_list(), links.subjects.to_list(), people.words_of(lanes))
    return single("RelatedPerson", ids, np.zeros(len(ids), dtype=np.int64), resources)


_LEADER = concept(codes.uri("SNOMED"), "446050000", "Primary care provider")
_ORGANIZATION = concept(codes.uri("SNOMED"), "224891009", "Healthcare services")
_PATIENT = concept(codes.uri("SNOMED"), "116154003", "Patient")


def care_teams(record: Record) -> Batch:
    """The patient, the practitioner and the organisation that care for each patient."""
    links, every = record.links, np.arange(len(record.table.subjects))
    ids = derived_ids("CareTeam", record.table.subject_lanes)
    meta = record.labels.derived("us-core-careteam")

    def team(uuid: Fragment, subject: Fragment, practitioner: Fragment, organization: Resource) -> Resource:
        members = ((_PATIENT, subject), (_LEADER, practitioner), (_ORGANIZATION, organization))
        return {
            "resourceType": "CareTeam",
            "id": uuid,
            "meta": meta,
            "status": "active",
            "name": "Primary care team",
            "subject": subject,
            "participant": [{"role": [role], "member": member} for role, member in members],
            "managingOrganization": [organization],
        }

    own, where = links.attending(every, np.full(len(every), -1)), Among(links.place, links.organizations())
    return record.batch("CareTeam", ids, every, team, (links.to_subjects(every), own, where))


class Aim(NamedTuple):
    """A goal for those with a condition."""

    icd10: tuple[str, ...]
    words: tuple[str, ...]
    text: str
    measure: tuple[str, str]
    """LOINC code and display of what is measured."""
    target: Resource


def _below(value: float, unit: str) -> Resource:
    high = {"value": value, "comparator": "<", "unit": unit, "system": codes.UCUM_URI, "code": unit}
    return {"detailQuantity": high}


AIMS: tuple[Aim, ...] = (
    Aim(
        ("E10", "E11", "E13"),
        ("diabetes mellitus type", "type 1 diabetes", "type 2 diabetes", "type ii diabetes"),
        "Hemoglobin A1c below 7 %",
        ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"),
        _below(7, "%"),
    ),
    Aim(
        ("I10", "I11", "I12", "I13"),
        ("hypertension", "hypertensive"),
        "Systolic blood pressure below 130 mm[Hg]",
        ("8480-6", "Systolic blood pressure"),
        _below(130, "mm[Hg]"),
    ),
    Aim(
        ("E78", "I25"),
        ("hyperlipidemia", "hypercholesterolemia", "coronary"),
        "LDL cholesterol below 100 mg/dL",
        ("13457-7", "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation"),
        _below(100, "mg/dL"),
    ),
    Aim(
        ("E66",),
        ("obes",),
        "Body mass index below 30 kg/m2",
        ("39156-5", "Body mass index (BMI) [Ratio]"),
        _below(30, "kg/m2"),
    ),
)
_NOT_THESE = ("prediabetes", "pulmonary hypertension", "portal hypertension", "pregnancy")


def _aim(code: Coded) -> int:
    """The number in `AIMS` of the goal for those with a condition, -1 for none."""
    name = code.display.casefold()
    if code.kind != "condition" or any(words in name for words in _NOT_THESE):
        return -1
    for number, aim in enumerate(AIMS):
        if code.system == "ICD10CM" and code.value.startswith(aim.icd10):
            return number
        if code.system != "ICD10CM" and any(word in name for word in aim.words):
            return number
    return -1


def goals(record: Record) -> tuple[list[Batch], Each]:
    """A goal for each patient and aim, from the first condition on that asks for it.

    Also references to the goals of each subject, as the items of a list.
    """
    table = record.table
    rows = record.rows_of("condition")
    aims = np.array([_aim(code) for code in record.shapes.codes], dtype=np.int64)
    rows = rows[aims[table.code[rows]] >= 0]
    aim = aims[table.code[rows]]
    # Ascending by subject, as numpy's unique leaves them.
    _, first = np.unique(table.subject[rows] * len(AIMS) + aim, return_index=True)
    rows, aim = rows[first], aim[first]
    if not len(rows):
        return [], Each(nothing(len(table.subjects)))
    ids = derived_ids("Goal", table.subject_lanes[table.subject[rows]], aim)
    meta = record.labels.derived("us-core-goal")
    heads = Among(aim, [_goal_head(one, meta) for one in AIMS])

    def goal(uuid: Fragment, head: Resource, subject: Fragment, condition: Fragment, date: Fragment | None) -> Resource:
        resource = {**head, "id": uuid, "subject": subject}
        if date is not None:
            resource["startDate"] = date
        return resource | {"addresses": [condition]}

    columns = (heads, record.subjects(rows), record.references("Condition", rows), record.dates(rows))
    batch = record.batch("Goal", ids, table.subject[rows], goal, columns)
    return [batch], items(record.links.to("Goal", ids), table.subject[rows], len(table.subjects))


def _goal_head(aim: Aim, meta: Fragment) -> Resource:
    measure = concept(codes.uri("LOINC"), *aim.measure)
    return {
        "resourceType": "Goal",
        "id": "",
        "meta": meta,
        "lifecycleStatus": "active",
        "description": {"text": aim.text},
        "target": [{"measure": measure, **aim.target}],
    }


_ROUTINE = concept(f"{HL7}v2-0276", "ROUTINE", "Routine appointment - default if not valued")
_PLANNED = frozenset(("AMB", "VR", "HH"))


def appointments(record: Record, starts: pl.Series, ends: pl.Series) -> tuple[list[Batch], pl.Series]:
    """The appointments that led to planned visits with a start and an end; and their ids by visit."""
    visits, links = record.table.visits, record.links
    planned = np.array([code.value in _PLANNED for code in record.shapes.codes], dtype=np.bool_)
    timed = (starts.is_not_null() & ends.is_not_null()).to_numpy()
    chosen = np.flatnonzero((visits.start >= 0) & planned[record.table.code[visits.start]] & timed)
    if not len(chosen):
        return [], nothing(len(starts))
    ids, subject = derived_ids("Appointment", visits.lanes[chosen]), visits.subject[chosen]
    meta = record.labels.derived()

    def appointment(
        uuid: Fragment, start: Fragment, end: Fragment, subject: Fragment, practitioner: Fragment
    ) -> Resource:
        return {
            "resourceType": "Appointment",
            "id": uuid,
            "meta": meta,
            "status": "fulfilled",
            "appointmentType": _ROUTINE,
            # An instant, unlike a dateTime, has seconds and a zone always, as ours have.
            "start": start,
            "end": end,
            "participant": [{"actor": actor, "status": "accepted"} for actor in (subject, practitioner)],
        }

    columns = (
        quoted(starts.gather(chosen)),
        quoted(ends.gather(chosen)),
        links.to_subjects(subject),
        links.attending(subject, chosen),
    )
    number = np.full(len(starts), -1)
    number[chosen] = np.arange(len(chosen))
    return [record.batch("Appointment", ids, subject, appointment, columns)], gathered(ids, number)


_LISTS = (
    ("condition", "Condition", "11450-4", "Problem list - Reported"),
    ("medication", "MedicationRequest", "10160-0", "History of Medication use Narrative"),
    ("allergy", "AllergyIntolerance", "48765-2", "Allergies and adverse reactions Document"),
)


def lists(record: Record) -> Iterator[Batch]:
    """The problems, drugs and allergies of each patient who has any, in order; each code once, where it came first."""
    table = record.table
    for kind, resource_type, code, title in _LISTS:
        if resource_type not in record.types:
            continue
        rows = record.rows_of(kind)
        _, first = np.unique(table.subject[rows] * len(record.shapes.codes) + table.code[rows], return_index=True)
        rows = rows[np.sort(first)]
        if len(rows):
            yield _list(record, rows, resource_type, concept(codes.uri("LOINC"), code, title), title)


def _list(record: Record, rows: Ints, resource_type: str, code: Resource, title: str) -> Batch:
    table = record.table
    subjects = np.unique(table.subject[rows])
    ids = derived_ids(f"List {resource_type}", table.subject_lanes[subjects])
    meta = record.labels.derived()

    def one(uuid: Fragment, subject: Fragment, entries: Fragment) -> Resource:
        return {
            "resourceType": "List",
            "id": uuid,
            "meta": meta,
            "status": "current",
            "mode": "snapshot",
            "title": title,
            "code": code,
            "subject": subject,
            "entry": [entries],
        }

    entries = record.references(resource_type, rows).within('{"item":', "}")
    entries = items(entries, table.subject[rows], len(table.subjects)).gather(subjects)
    return record.batch("List", ids, subjects, one, (record.links.to_subjects(subjects), entries))

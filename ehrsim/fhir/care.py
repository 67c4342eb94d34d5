"""Who cares for a patient and to what end: related persons, care teams, goals, appointments and lists.

Nothing here is told by the events: persons are invented as patients are, and goals are those that guidelines set for
the conditions of the patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ehrsim import codes
from ehrsim.fhir import identity, people
from ehrsim.fhir.fragments import HL7, Fragment, Resource, concept, fragment, reference
from ehrsim.fhir.places import places
from ehrsim.fhir.record import Batch, Record, batch, derived_ids
from ehrsim.fhir.shapes import Coded
from ehrsim.fhir.table import Ints, Objects, objects

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
    locale, subjects = record.links.locale, record.links.subjects.tolist()
    lanes = identity.hashed(identity.key_of("RelatedPerson"), *record.table.subject_lanes.T)
    meta = record.labels.derived("us-core-relatedperson")

    def related(uuid: str, subject: Fragment, words: tuple[int, ...]) -> Resource:
        draws = people.Draws(words)
        address, city = people.address(draws, locale)
        code, display = _RELATIONS[draws.below(len(_RELATIONS))]
        return {
            "resourceType": "RelatedPerson",
            "id": uuid,
            "meta": meta,
            "active": True,
            "patient": subject,
            "relationship": [concept(f"{HL7}v3-RoleCode", code, display), _EMERGENCY],
            "name": [people.name(draws, None, locale=locale)],
            "telecom": [people.telephone(draws, city, "home")],
            "address": [address],
        }

    ids = identity.uuids(lanes)
    return batch("RelatedPerson", ids, np.arange(len(ids)), 0, map(related, ids, subjects, people.words_of(lanes)))


_LEADER = concept(codes.uri("SNOMED"), "446050000", "Primary care provider")
_ORGANIZATION = concept(codes.uri("SNOMED"), "224891009", "Healthcare services")
_PATIENT = concept(codes.uri("SNOMED"), "116154003", "Patient")


def care_teams(record: Record) -> tuple[Batch, list[Fragment]]:
    """The patient, the practitioner and the organisation that care for each patient; and references to the teams."""
    links = record.links
    ids = derived_ids("CareTeam", record.table.subject_lanes)
    meta = record.labels.derived("us-core-careteam")
    own = links.practitioners[links.place, links.practitioner[len(links.visit_ids) :]].tolist()
    organizations = [
        reference(links.prefix["Organization"] + place.organization, place.name) for place in places(links.locale)
    ]
    where = [organizations[place] for place in links.place.tolist()]

    def team(uuid: str, subject: Fragment, practitioner: Fragment, organization: Fragment) -> Resource:
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

    resources = map(team, ids, links.subjects.tolist(), own, where)
    prefix = links.prefix["CareTeam"]
    return batch("CareTeam", ids, np.arange(len(ids)), 0, resources), [reference(prefix + uuid) for uuid in ids]


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


def goals(record: Record) -> tuple[Batch | None, Objects]:
    """A goal for each patient and aim, from the first condition on that asks for it.

    Also the list of references to the goals of each subject, None where there are none.
    """
    table = record.table
    of_subject: Objects = np.full(len(table.subjects), None, dtype=object)
    rows = record.rows_of("condition")
    aims = np.array([_aim(code) for code in record.shapes.codes], dtype=np.int64)
    rows = rows[aims[table.code[rows]] >= 0]
    aim = aims[table.code[rows]]
    _, first = np.unique(table.subject[rows] * len(AIMS) + aim, return_index=True)
    rows, aim = rows[first], aim[first]
    if not len(rows):
        return None, of_subject
    ids = derived_ids("Goal", table.subject_lanes[table.subject[rows]], aim)
    meta = record.labels.derived("us-core-goal")
    heads = [_goal_head(one, meta) for one in AIMS]

    def goal(uuid: str, aim: int, subject: Fragment, condition: Fragment, time: str | None) -> Resource:
        resource = {**heads[aim], "id": uuid, "subject": subject}
        if time is not None:
            resource["startDate"] = time[:10]
        return resource | {"addresses": [condition]}

    prefix = record.links.prefix["Goal"]
    # Ascending by subject, as numpy's unique leaves them.
    subjects, begins = np.unique(table.subject[rows], return_index=True)
    for subject, begin, end in zip(subjects.tolist(), begins, [*begins[1:], len(ids)], strict=True):
        of_subject[subject] = fragment([{"reference": prefix + uuid} for uuid in ids[begin:end]])
    columns = (ids, aim.tolist(), record.subjects(rows), record.references("Condition", rows), record.times(rows))
    return batch("Goal", ids, table.subject[rows], aim, map(goal, *columns)), of_subject


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


def appointments(record: Record, starts: list[str | None], ends: list[str | None]) -> tuple[Batch | None, Objects]:
    """The appointments that led to planned visits with a start and an end; and by visit a list with a reference."""
    visits = record.table.visits
    of_visit: Objects = np.full(len(visits.number), None, dtype=object)
    planned = np.array([code.value in _PLANNED for code in record.shapes.codes], dtype=np.bool_)
    timed = np.array([start is not None and end is not None for start, end in zip(starts, ends, strict=True)], np.bool_)
    chosen = np.flatnonzero((visits.start >= 0) & planned[record.table.code[visits.start]] & timed)
    if not len(chosen):
        return None, of_visit
    ids = derived_ids("Appointment", visits.lanes[chosen])
    prefix, links = record.links.prefix["Appointment"], record.links
    of_visit[chosen] = objects([fragment([{"reference": prefix + uuid}]) for uuid in ids])
    subject = visits.subject[chosen]
    who = links.practitioners[links.place[subject], links.practitioner[chosen]].tolist()
    meta = record.labels.derived()

    def appointment(uuid: str, start: str, end: str, subject: Fragment, practitioner: Fragment) -> Resource:
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
        ids,
        [starts[number] or "" for number in chosen.tolist()],
        [ends[number] or "" for number in chosen.tolist()],
        links.subjects[subject].tolist(),
        who,
    )
    return batch("Appointment", ids, subject, 0, map(appointment, *columns)), of_visit


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
    subjects, begins = np.unique(table.subject[rows], return_index=True)
    ids = derived_ids(f"List {resource_type}", table.subject_lanes[subjects])
    prefix = record.links.prefix[resource_type]
    uuids: list[str] = record.ids[rows].tolist()
    meta, head = record.labels.derived(), fragment(code)
    between = f'"}}}},{{"item":{{"reference":"{prefix}'

    def one(uuid: str, subject: Fragment, begin: int, end: int) -> Resource:
        return {
            "resourceType": "List",
            "id": uuid,
            "meta": meta,
            "status": "current",
            "mode": "snapshot",
            "title": title,
            "code": head,
            "subject": subject,
            "entry": Fragment(f'[{{"item":{{"reference":"{prefix}{between.join(uuids[begin:end])}"}}}}]'),
        }

    ends = np.append(begins[1:], len(rows))
    columns = (ids, record.links.subjects[subjects].tolist(), begins.tolist(), ends.tolist())
    return batch("List", ids, subjects, 0, map(one, *columns))

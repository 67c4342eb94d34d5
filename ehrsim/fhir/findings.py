"""What some codes imply beside their own resource: implants, adverse events, family histories, questionnaires."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ehrsim import codes
from ehrsim.fhir.columns import Among, Each, nothing
from ehrsim.fhir.fragments import HL7, Fragment, Resource, concept, fragment
from ehrsim.fhir.record import Batch, Record, derived_ids, with_visit
from ehrsim.fhir.shapes import NUMERIC, TIMED, Coded

_IMPLANTS = (
    (
        ("Z95.0",),
        ("cardiac pacemaker", "implantation of pacemaker", "insertion of pacemaker"),
        "14106009",
        "Cardiac pacemaker",
    ),
    (
        ("Z95.810",),
        ("implantable defibrillator", "cardioverter defibrillator"),
        "72506001",
        "Implantable defibrillator",
    ),
    (("Z95.5", "Z95.82"), ("coronary stent", "insertion of stent", "stent placement"), "65818007", "Stent"),
    (("Z96.64",), ("hip replacement", "prosthetic hip"), "304120007", "Total hip replacement prosthesis"),
    (("Z96.65",), ("knee replacement", "prosthetic knee"), "304121006", "Total knee replacement prosthesis"),
    (("Z97.5",), ("intrauterine contraceptive device",), "268460000", "Intrauterine contraceptive device"),
    (("Z96.41",), ("insulin pump",), "69805005", "Insulin pump"),
)
"""ICD-10-CM prefixes and words of conditions and procedures, with the implant in SNOMED CT."""
_GONE = ("removal", "replacement of stent", "exchange")


def _implant(code: Coded) -> int:
    """The number in `_IMPLANTS` of the device that a condition or procedure tells of, -1 for none."""
    name = code.display.casefold()
    if code.kind not in ("condition", "procedure") or any(word in name for word in _GONE):
        return -1
    for number, (icd10, words, *_) in enumerate(_IMPLANTS):
        if code.system == "ICD10CM" and code.value.startswith(icd10):
            return number
        if code.system != "ICD10CM" and any(word in name for word in words):
            return number
    return -1


def devices(record: Record) -> Iterator[Batch]:
    """An implant for each patient and kind of device, from the first event on that tells of it."""
    table = record.table
    rows = np.sort(np.concatenate([record.rows_of("condition"), record.rows_of("procedure")]))
    implants = np.array([_implant(code) for code in record.shapes.codes], dtype=np.int64)
    rows = rows[implants[table.code[rows]] >= 0]
    _, first = np.unique(table.subject[rows] * len(_IMPLANTS) + implants[table.code[rows]], return_index=True)
    rows = rows[first]
    if not len(rows):
        return
    kind = implants[table.code[rows]]
    ids = derived_ids("Device", table.subject_lanes[table.subject[rows]], kind)
    meta = record.labels.derived("us-core-implantable-device")
    types = [concept(codes.uri("SNOMED"), code, display) for *_, code, display in _IMPLANTS]

    def device(uuid: Fragment, kind: Resource, subject: Fragment) -> Resource:
        return {
            "resourceType": "Device",
            "id": uuid,
            "meta": meta,
            "status": "active",
            "type": kind,
            "patient": subject,
        }

    yield record.batch("Device", ids, table.subject[rows], device, (Among(kind, types), record.subjects(rows)))


def _is_adverse(code: Coded) -> bool:
    """Whether a condition is the adverse effect of a drug: T36 to T50 with a 5 in the sixth place, and T88.7."""
    if code.kind != "condition":
        return False
    if code.system == "ICD10CM":
        plain = code.value.replace(".", "")
        return code.value.startswith("T88.7") or (plain[:3] in _DRUG_EFFECTS and plain[5:6] == "5")
    name = code.display.casefold()
    return any(words in name for words in ("adverse reaction", "adverse effect", "drug-induced"))


_DRUG_EFFECTS = frozenset(f"T{number}" for number in range(36, 51))


def adverse_events(record: Record) -> Iterator[Batch]:
    """The adverse events that conditions are."""
    adverse = np.array([_is_adverse(code) for code in record.shapes.codes], dtype=np.bool_)
    rows = record.has(record.rows_of("condition"), adverse)
    if not len(rows):
        return
    ids, meta = derived_ids("AdverseEvent", record.table.lanes[rows]), record.labels.derived()

    def adverse_event(
        uuid: Fragment,
        event: Fragment,
        subject: Fragment,
        visit: Fragment | None,
        time: Fragment | None,
        condition: Fragment,
    ) -> Resource:
        resource: Resource = {
            "resourceType": "AdverseEvent",
            "id": uuid,
            "meta": meta,
            "actuality": "actual",
            "event": event,
            "subject": subject,
        }
        with_visit(resource, visit)
        if time is not None:
            resource["date"] = time
        return resource | {"resultingCondition": [condition]}

    columns = (
        record.concepts(rows),
        record.subjects(rows),
        record.visits(rows),
        record.times(rows),
        record.references("Condition", rows),
    )
    yield record.batch("AdverseEvent", ids, record.table.subject[rows], adverse_event, columns)


def _is_of_family(code: Coded) -> bool:
    if code.kind != "condition":
        return False
    if code.system == "ICD10CM":
        return code.value.startswith(("Z80", "Z81", "Z82", "Z83", "Z84"))
    return "family history of" in code.display.casefold()


_RELATIVE = fragment(concept(f"{HL7}v3-RoleCode", "FAMMEMB", "family member"))


def family_histories(record: Record) -> Iterator[Batch]:
    """What conditions say of the patient's family, a resource each; which relative it was is not told."""
    of_family = np.array([_is_of_family(code) for code in record.shapes.codes], dtype=np.bool_)
    rows = record.has(record.rows_of("condition"), of_family)
    if not len(rows):
        return
    ids, meta = derived_ids("FamilyMemberHistory", record.table.lanes[rows]), record.labels.derived()

    def history(uuid: Fragment, code: Fragment, subject: Fragment, time: Fragment | None) -> Resource:
        resource: Resource = {
            "resourceType": "FamilyMemberHistory",
            "id": uuid,
            "meta": meta,
            "status": "partial",
            "patient": subject,
        }
        if time is not None:
            resource["date"] = time
        return resource | {"relationship": _RELATIVE, "condition": [{"code": code}]}

    columns = (record.concepts(rows), record.subjects(rows), record.times(rows))
    yield record.batch("FamilyMemberHistory", ids, record.table.subject[rows], history, columns)


QUESTIONNAIRES = {
    "44261-6": "44249-1",
    "70274-6": "69737-5",
    "55758-7": "55757-9",
    "75626-2": "72109-2",
    "72106-8": "72107-6",
    "82667-7": "82666-9",
}
"""LOINC codes of the questionnaires whose total scores are observed."""


def questionnaire_responses(record: Record) -> tuple[list[Batch], Each]:
    """An answered questionnaire for each total score with a time; and references to them by event.

    Answers to single questions are not simulated: the total is the one item.
    """
    table = record.table
    scores = np.array(
        [code.system == "LOINC" and code.value in QUESTIONNAIRES for code in record.shapes.codes], dtype=np.bool_
    )
    rows = record.has(record.rows_of("observation"), scores)
    # US Core asks for the time of an answer.
    rows = rows[(table.form[rows] & (NUMERIC | TIMED)) == NUMERIC | TIMED]
    if not len(rows):
        return [], Each(nothing(len(table.kind)))
    ids = derived_ids("QuestionnaireResponse", table.lanes[rows])
    meta = record.labels.derived("us-core-questionnaireresponse")

    def response(
        uuid: Fragment, code: Coded, subject: Fragment, visit: Fragment | None, time: Fragment, value: Fragment
    ) -> Resource:
        resource: Resource = {
            "resourceType": "QuestionnaireResponse",
            "id": uuid,
            "meta": meta,
            "questionnaire": f"http://loinc.org/q/{QUESTIONNAIRES[code.value]}",
            "status": "completed",
            "subject": subject,
        }
        with_visit(resource, visit)
        item = {"linkId": f"/{code.value}", "text": code.display, "answer": [{"valueDecimal": value}]}
        return resource | {"authored": time, "item": [item]}

    columns = (
        record.codes(rows),
        record.subjects(rows),
        record.visits(rows),
        record.times(rows),
        Each(table.value.gather(rows)),
    )
    number = np.full(len(table.kind), -1)
    number[rows] = np.arange(len(rows))
    batch = record.batch("QuestionnaireResponse", ids, table.subject[rows], response, columns)
    return [batch], record.links.to("QuestionnaireResponse", ids).gather(number)

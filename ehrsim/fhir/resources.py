"""The builders of clinical resources, one a resource type, and the kinds of event that they are for.

A builder is a pure function of one event. To take apart a plain tuple and to copy the head that all resources of a
shape share is what makes the builders fast.

To map another kind of event, write its builder and give it a line in `MAPPINGS`, and its head one in `shapes.HEADS`;
the tests hold every mapping against fhir.resources and against the importer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ehrsim.fhir import profiles
from ehrsim.fhir.dosages import dosage
from ehrsim.fhir.fragments import Fragment, Resource, absent, absent_extension, concept, fragment
from ehrsim.fhir.shapes import Shape

Number = float | int | None
Text = str | Fragment | None
Event = tuple[str, Shape, Fragment, Fragment | None, str | None, str | None, Number, Text, Any]
"""One event as its builder sees it, None for what it has not: the id of the resource; its shape; references to the
Patient and the Encounter; time and end as FHIR dateTimes; the number; the text, or a fragment of a CodeableConcept
where it is a coded answer; and what the resource has beyond its event, which its builder takes apart."""

MEDICATION_STATUSES = frozenset(("active", "on-hold", "completed", "stopped", "unknown"))
"""Texts that become the status of an order; those that say that it never was are kept as notes."""
_UNKNOWN = absent("unknown")
_NOT_STATED = absent_extension("unknown")
_SYSTOLIC = fragment(concept("http://loinc.org", profiles.SYSTOLIC, "Systolic blood pressure"))
_DIASTOLIC = fragment(concept("http://loinc.org", profiles.DIASTOLIC, "Diastolic blood pressure"))
_MILLIMETRES = {
    "unit": profiles.BLOOD_PRESSURE_UNIT,
    "system": "http://unitsofmeasure.org",
    "code": profiles.BLOOD_PRESSURE_UNIT,
}


def condition(event: Event) -> Resource:
    """A diagnosis of a visit, or a problem where there is no visit."""
    uuid, shape, subject, visit, time, end, _, text, _ = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    if time is not None:
        resource["onsetDateTime"] = time
    if end is not None:
        resource["abatementDateTime"] = end
    if text is not None:
        resource["note"] = [{"text": text}]
    return resource


def procedure(event: Event) -> Resource:
    """A procedure that was done."""
    uuid, shape, subject, visit, time, end, _, text, _ = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    if end is not None:
        resource["performedPeriod"] = _period(time, end)
    elif time is not None:
        resource["performedDateTime"] = time
    if text is not None:
        resource["note"] = [{"text": text}]
    return resource


def medication_request(event: Event) -> Resource:
    """An order of a drug by a practitioner; a text that is another status than the head's is the status."""
    uuid, shape, subject, visit, time, end, value, text, (requester, category, reasons) = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    if time is not None:
        resource["authoredOn"] = time
    resource["requester"], resource["category"] = requester, category
    if reasons is not None:
        resource["reasonReference"] = reasons
    if text in MEDICATION_STATUSES and text != resource["status"]:
        resource["status"] = text
    elif text is not None:
        resource["note"] = [{"text": text}]
    if value is not None:
        dose = {"doseAndRate": [{"doseQuantity": {"value": value, **shape.unit}}]}
        resource["dosageInstruction"] = [{**dosage(shape.code.display), **dose}]
    if end is not None:
        resource["dispenseRequest"] = {"validityPeriod": _period(time, end)}
    return resource


def immunization(event: Event) -> Resource:
    """A vaccine given."""
    uuid, shape, subject, visit, time, _, _, text, _ = event
    resource = {**shape.head, "id": uuid, "patient": subject}
    if visit is not None:
        resource["encounter"] = visit
    if time is not None:
        resource["occurrenceDateTime"] = time
    else:
        resource["occurrenceString"] = "unknown"
    if text is not None:
        resource["note"] = [{"text": text}]
    return resource


def allergy_intolerance(event: Event) -> Resource:
    """An allergy, with the reaction where the text is the code of one."""
    uuid, shape, subject, visit, time, _, _, text, _ = event
    resource = {**shape.head, "id": uuid, "patient": subject}
    if visit is not None:
        resource["encounter"] = visit
    if time is not None:
        resource["recordedDate"] = time
    if isinstance(text, Fragment):
        resource["reaction"] = [{"manifestation": [text]}]
    elif text is not None:
        resource["note"] = [{"text": text}]
    return resource


def observation(event: Event) -> Resource:
    """A laboratory result, vital sign (whose value can only be a number), survey answer, or any other observation."""
    uuid, shape, subject, visit, time, end, value, text, (performer, order, specimen, judged, answered) = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    if end is not None:
        resource["effectivePeriod"] = _period(time, end)
    elif time is not None:
        resource["effectiveDateTime"] = time
    elif shape.category == profiles.VITAL_SIGN:
        # Not a dateTime without a value, which HL7's validator measures (vs-1).
        resource["effectivePeriod"] = _NOT_STATED
    resource["performer"] = performer
    if order is not None:
        resource["basedOn"] = order
    if specimen is not None:
        resource["specimen"] = specimen
    _observe(resource, shape, value, text)
    for members in (judged, answered):
        if members is not None:
            resource |= members
    return resource


def _observe(resource: Resource, shape: Shape, value: Number, text: Text) -> None:
    """Give an observation its value, or the reason why it has none, and its note."""
    if value is not None:
        quantity = {"value": value, **shape.unit}
        if shape.boxed:
            resource["component"] = [{"code": shape.code.concept, "valueQuantity": quantity}]
        else:
            resource["valueQuantity"] = quantity
    elif text is None or shape.category == profiles.VITAL_SIGN:
        resource["dataAbsentReason"] = _UNKNOWN
    elif isinstance(text, Fragment):
        resource["valueCodeableConcept"] = text
    else:
        resource["valueString"] = text
    if text is not None and (value is not None or shape.category == profiles.VITAL_SIGN):
        resource["note"] = [{"text": text}]


def blood_pressure(event: Event) -> Resource:
    """A systolic and a diastolic pressure of one moment; None for an unknown one."""
    uuid, shape, subject, visit, time, _, _, _, (pressures, performer) = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    resource["effectiveDateTime"] = time
    resource["performer"] = performer
    resource["component"] = [
        {"code": code, "dataAbsentReason": _UNKNOWN}
        if pressure is None
        else {"code": code, "valueQuantity": {"value": pressure, **_MILLIMETRES}}
        for code, pressure in zip((_SYSTOLIC, _DIASTOLIC), pressures, strict=True)
    ]
    return resource


def diagnostic_report(event: Event) -> Resource:
    """A panel with its order, specimens and results."""
    uuid, shape, subject, visit, time, _, _, text, (results, order, specimens, performer) = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    if time is not None:
        resource["effectiveDateTime"] = resource["issued"] = time
    resource["performer"] = performer
    if order is not None:
        resource["basedOn"] = order
    if specimens is not None:
        resource["specimen"] = specimens
    if results is not None:
        resource["result"] = results
    if text is not None:
        resource["conclusion"] = text
    return resource


def care_plan(event: Event) -> Resource:
    """A care plan, active until its end."""
    uuid, shape, subject, visit, time, end, _, text, (aims, team) = event
    resource = {**shape.head, "id": uuid, "subject": subject}
    if visit is not None:
        resource["encounter"] = visit
    if time is not None or end is not None:
        resource["period"] = _period(time, end)
    if team is not None:
        resource["careTeam"] = [team]
    if aims is not None:
        resource["goal"] = aims
    if text is not None:
        resource["note"] = [{"text": text}]
    return resource


class Mapping(NamedTuple):
    """The resource type that carries a kind of event, and its builder."""

    resource_type: str
    build: Callable[[Event], Resource]


MAPPINGS: dict[str, Mapping] = {
    "condition": Mapping("Condition", condition),
    "procedure": Mapping("Procedure", procedure),
    "medication": Mapping("MedicationRequest", medication_request),
    "immunization": Mapping("Immunization", immunization),
    "allergy": Mapping("AllergyIntolerance", allergy_intolerance),
    "observation": Mapping("Observation", observation),
    "panel": Mapping("DiagnosticReport", diagnostic_report),
    "care_plan": Mapping("CarePlan", care_plan),
}
"""Kinds of event that are a resource each; demographics and visits are gathered into Patients and Encounters."""


def _period(start: str | None, end: str | None) -> Resource:
    if start is None:
        return {"end": end}
    return {"start": start} if end is None else {"start": start, "end": end}

"""The builders of clinical resources, one a resource type, and the kinds of event that they are for.

A builder is a pure function of one `Event`. To map another kind of event, write its builder and give it a line in
`MAPPINGS`; the tests hold every mapping against fhir.resources and against the importer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ehrsim.fhir import profiles
from ehrsim.fhir.fragments import (
    HL7,
    Fragment,
    Resource,
    absent,
    absent_extension,
    concept,
    fragment,
    narrative,
)
from ehrsim.fhir.shapes import Shape


class Event(NamedTuple):
    """One event as its builder sees it; None for what it has not."""

    id: str
    shape: Shape
    subject: Fragment
    visit: Fragment | None
    time: str | None
    end: str | None
    value: float | int | None
    text: str | Fragment | None
    """A fragment is the CodeableConcept of a coded answer."""
    practitioner: Fragment
    parts: Sequence[Any] = ()
    """References to the results of a panel; the numbers of a blood pressure."""


_CONFIRMED = fragment(concept(f"{HL7}condition-ver-status", "confirmed", "Confirmed"))
_CLINICAL = {
    name: fragment(concept(f"{HL7}condition-clinical", name, name.capitalize())) for name in ("active", "resolved")
}
_ALLERGY_CONFIRMED = fragment(concept(f"{HL7}allergyintolerance-verification", "confirmed", "Confirmed"))
_ALLERGY_ACTIVE = fragment(concept(f"{HL7}allergyintolerance-clinical", "active", "Active"))
_UNKNOWN = absent("unknown")
_NOT_STATED = absent_extension("unknown")
MEDICATION_STATUSES = frozenset(
    ("active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown")
)
_SYSTOLIC = fragment(concept("http://loinc.org", profiles.SYSTOLIC, "Systolic blood pressure"))
_DIASTOLIC = fragment(concept("http://loinc.org", profiles.DIASTOLIC, "Diastolic blood pressure"))
_MILLIMETRES = {
    "unit": profiles.BLOOD_PRESSURE_UNIT,
    "system": "http://unitsofmeasure.org",
    "code": profiles.BLOOD_PRESSURE_UNIT,
}
_ASSESS_PLAN = concept("http://hl7.org/fhir/us/core/CodeSystem/careplan-category", "assess-plan", "Assessment and Plan")


def condition(event: Event) -> Resource:
    """A diagnosis of a visit, or a problem where there is no visit."""
    resource: Resource = {
        "resourceType": "Condition",
        "id": event.id,
        "meta": event.shape.meta,
        "clinicalStatus": _CLINICAL["active" if event.end is None else "resolved"],
        "verificationStatus": _CONFIRMED,
        "category": event.shape.category,
        "code": event.shape.code.concept,
        "subject": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.time is not None:
        resource["onsetDateTime"] = event.time
    if event.end is not None:
        resource["abatementDateTime"] = event.end
    return _noted(resource, event)


def procedure(event: Event) -> Resource:
    """A procedure that was done; without a time its status cannot be completed (us-core-7)."""
    resource: Resource = {
        "resourceType": "Procedure",
        "id": event.id,
        "meta": event.shape.meta,
        "status": "unknown" if event.time is None else "completed",
        "code": event.shape.code.concept,
        "subject": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.end is not None:
        resource["performedPeriod"] = _period(event)
    elif event.time is not None:
        resource["performedDateTime"] = event.time
    if event.end is not None and event.time is None:
        resource["status"] = "completed"
    return _noted(resource, event)


def medication_request(event: Event) -> Resource:
    """An order of a drug."""
    status, text = "active" if event.end is None else "completed", event.text
    if text in MEDICATION_STATUSES and text != status:
        status, text = str(text), None
    resource: Resource = {
        "resourceType": "MedicationRequest",
        "id": event.id,
        "meta": event.shape.meta,
        "status": status,
        "intent": "order",
        "medicationCodeableConcept": event.shape.code.concept,
        "subject": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.time is not None:
        resource["authoredOn"] = event.time
    resource["requester"] = event.practitioner
    if text is not None:
        resource["note"] = [{"text": text}]
    if event.value is not None:
        resource["dosageInstruction"] = [{"doseAndRate": [{"doseQuantity": _quantity(event)}]}]
    if event.end is not None:
        resource["dispenseRequest"] = {"validityPeriod": _period(event)}
    return resource


def immunization(event: Event) -> Resource:
    """A vaccine given."""
    resource: Resource = {
        "resourceType": "Immunization",
        "id": event.id,
        "meta": event.shape.meta,
        "status": "completed",
        "vaccineCode": event.shape.code.concept,
        "patient": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.time is not None:
        resource["occurrenceDateTime"] = event.time
    else:
        resource["occurrenceString"] = "unknown"
    resource["primarySource"] = True
    return _noted(resource, event)


def allergy_intolerance(event: Event) -> Resource:
    """An allergy, with the reaction where the event's text is the code of one."""
    resource: Resource = {
        "resourceType": "AllergyIntolerance",
        "id": event.id,
        "meta": event.shape.meta,
        "clinicalStatus": _ALLERGY_ACTIVE,
        "verificationStatus": _ALLERGY_CONFIRMED,
        "code": event.shape.code.concept,
        "patient": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.time is not None:
        resource["recordedDate"] = event.time
    if isinstance(event.text, Fragment):
        resource["reaction"] = [{"manifestation": [event.text]}]
        return resource
    return _noted(resource, event)


def observation(event: Event) -> Resource:
    """A laboratory result, vital sign, survey answer, or any other observation."""
    shape = event.shape
    resource: Resource = {"resourceType": "Observation", "id": event.id, "meta": shape.meta, "status": "final"}
    if shape.category is not None:
        resource["category"] = shape.category
    resource["code"] = shape.code.concept
    _placed(resource, event, required=shape.category_name == profiles.VITAL_SIGN)
    if shape.boxed:
        resource["component"] = [_valued({"code": shape.code.concept}, event)]
    else:
        _valued(resource, event)
    if event.value is not None and event.text is not None:
        resource["note"] = [{"text": event.text}]
    return resource


def blood_pressure(event: Event) -> Resource:
    """A systolic and a diastolic pressure of one moment; `event.parts` are the two, None for an unknown one."""
    resource: Resource = {
        "resourceType": "Observation",
        "id": event.id,
        "meta": event.shape.meta,
        "status": "final",
        "category": event.shape.category,
        "code": event.shape.code.concept,
    }
    _placed(resource, event, required=True)
    resource["component"] = [
        {"code": code, "dataAbsentReason": _UNKNOWN}
        if value is None
        else {"code": code, "valueQuantity": {"value": value, **_MILLIMETRES}}
        for code, value in zip((_SYSTOLIC, _DIASTOLIC), event.parts, strict=True)
    ]
    return resource


def diagnostic_report(event: Event) -> Resource:
    """A panel with references to its results; without a time its status cannot be final (us-core-8 and 9)."""
    resource: Resource = {
        "resourceType": "DiagnosticReport",
        "id": event.id,
        "meta": event.shape.meta,
        "status": "unknown" if event.time is None else "final",
        "category": event.shape.category,
        "code": event.shape.code.concept,
        "subject": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.time is not None:
        resource["effectiveDateTime"] = resource["issued"] = event.time
    resource["performer"] = [event.practitioner]
    if event.parts:
        resource["result"] = event.parts
    if event.text is not None:
        resource["conclusion"] = event.text
    return resource


def care_plan(event: Event) -> Resource:
    """A care plan, whose code stands as its second category and in its narrative."""
    resource: Resource = {
        "resourceType": "CarePlan",
        "id": event.id,
        "meta": event.shape.meta,
        "text": narrative(event.shape.code.display),
        "status": "active" if event.end is None else "completed",
        "intent": "plan",
        "category": [_ASSESS_PLAN, event.shape.code.concept],
        "subject": event.subject,
    }
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.time is not None or event.end is not None:
        resource["period"] = _period(event)
    return _noted(resource, event)


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


def _placed(resource: Resource, event: Event, *, required: bool) -> None:
    """Add whom and when an Observation is about; a `required` time that is not known is said to be unknown."""
    resource["subject"] = event.subject
    if event.visit is not None:
        resource["encounter"] = event.visit
    if event.end is not None:
        resource["effectivePeriod"] = _period(event)
    elif event.time is not None:
        resource["effectiveDateTime"] = event.time
    elif required:
        resource["_effectiveDateTime"] = _NOT_STATED


def _valued(resource: Resource, event: Event) -> Resource:
    """Add the value of an Observation or component."""
    if event.value is not None:
        resource["valueQuantity"] = _quantity(event)
    elif event.text is None:
        resource["dataAbsentReason"] = _UNKNOWN
    elif isinstance(event.text, Fragment):
        resource["valueCodeableConcept"] = event.text
    else:
        resource["valueString"] = event.text
    return resource


def _quantity(event: Event) -> Resource:
    return {"value": event.value, **event.shape.unit}


def _period(event: Event) -> Resource:
    period = {}
    if event.time is not None:
        period["start"] = event.time
    if event.end is not None:
        period["end"] = event.end
    return period


def _noted(resource: Resource, event: Event) -> Resource:
    """Add a text that has no place of its own."""
    if event.text is not None:
        resource["note"] = [{"text": event.text}]
    return resource

"""The builders of clinical resources, one a resource type, and the kinds of event that they are for.

A builder is a pure function of one event. It is called once for all events of a shape that have the same columns filled
(see `columns`), so it may be plain Python, and asks of what it is given only whether it is there.

To map another kind of event, write its builder and give it a line in `MAPPINGS`, and its head one in `shapes.HEADS`;
the tests hold every mapping against fhir.resources and against the importer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ehrsim.fhir import profiles
from ehrsim.fhir.dosages import dosage
from ehrsim.fhir.fragments import Fragment, Resource, absent, absent_extension, concept, fragment
from ehrsim.fhir.shapes import Shape


class Event(NamedTuple):
    """One event as its builder sees it, None for what it has not."""

    uuid: Fragment
    """The id of the resource."""
    shape: Shape
    subject: Fragment
    """A reference to the Patient."""
    visit: Fragment | None
    """A reference to the Encounter."""
    time: Fragment | None
    end: Fragment | None
    value: Fragment | None
    text: Fragment | None
    answer: Fragment | None
    """A CodeableConcept, instead of a text that is a coded answer."""

    def begun(self, subject: str = "subject") -> Resource:
        """The resource with what every one has: head, id, patient as the member `subject`, and visit."""
        resource = {**self.shape.head, "id": self.uuid, subject: self.subject}
        if self.visit is not None:
            resource["encounter"] = self.visit
        return resource

    def period(self) -> Resource:
        """From when to when the event lasted, as far as known."""
        times = {"start": self.time, "end": self.end}
        return {name: time for name, time in times.items() if time is not None}


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
    resource = event.begun()
    if event.time is not None:
        resource["onsetDateTime"] = event.time
    if event.end is not None:
        resource["abatementDateTime"] = event.end
    return _noted(resource, event)


def procedure(event: Event) -> Resource:
    """A procedure that was done."""
    resource = event.begun()
    if event.end is not None:
        resource["performedPeriod"] = event.period()
    elif event.time is not None:
        resource["performedDateTime"] = event.time
    return _noted(resource, event)


def medication_request(
    event: Event, status: str | None, requester: Fragment, category: Fragment, reason: Fragment | None
) -> Resource:
    """An order of a drug by a practitioner; a text that is another `status` than the head's is the status."""
    resource = event.begun()
    if event.time is not None:
        resource["authoredOn"] = event.time
    resource["requester"], resource["category"] = requester, category
    if reason is not None:
        resource["reasonReference"] = [reason]
    if status is not None and status != resource["status"]:
        resource["status"] = status
    else:
        _noted(resource, event)
    if event.value is not None:
        dose = {"doseAndRate": [{"doseQuantity": {"value": event.value, **event.shape.unit}}]}
        resource["dosageInstruction"] = [{**dosage(event.shape.code.display), **dose}]
    if event.end is not None:
        resource["dispenseRequest"] = {"validityPeriod": event.period()}
    return resource


def immunization(event: Event) -> Resource:
    """A vaccine given."""
    resource = event.begun("patient")
    if event.time is not None:
        resource["occurrenceDateTime"] = event.time
    else:
        resource["occurrenceString"] = "unknown"
    return _noted(resource, event)


def allergy_intolerance(event: Event) -> Resource:
    """An allergy, with the reaction where the text is the code of one."""
    resource = event.begun("patient")
    if event.time is not None:
        resource["recordedDate"] = event.time
    if event.answer is not None:
        resource["reaction"] = [{"manifestation": [event.answer]}]
    return _noted(resource, event)


def observation(
    event: Event,
    performer: Fragment,
    order: Fragment | None,
    specimen: Fragment | None,
    judged: Resource,
    response: Fragment | None,
) -> Resource:
    """A laboratory result, vital sign (whose value can only be a number), survey answer, or any other observation.

    `judged` are the members that say what is usual, `response` refers to the questionnaire that it is the score of.
    """
    resource = event.begun()
    if event.end is not None:
        resource["effectivePeriod"] = event.period()
    elif event.time is not None:
        resource["effectiveDateTime"] = event.time
    elif event.shape.category == profiles.VITAL_SIGN:
        # Not a dateTime without a value, which HL7's validator measures (vs-1).
        resource["effectivePeriod"] = _NOT_STATED
    resource["performer"] = [performer]
    if order is not None:
        resource["basedOn"] = [order]
    if specimen is not None:
        resource["specimen"] = specimen
    _observe(resource, event)
    resource |= judged
    if response is not None:
        resource["derivedFrom"] = [response]
    return resource


def _observe(resource: Resource, event: Event) -> None:
    """Give an observation its value, or the reason why it has none, and its note."""
    shape, text = event.shape, event.text
    if event.value is not None:
        quantity = {"value": event.value, **shape.unit}
        if shape.boxed:
            resource["component"] = [{"code": shape.code.concept, "valueQuantity": quantity}]
        else:
            resource["valueQuantity"] = quantity
    elif event.answer is not None:
        resource["valueCodeableConcept"] = event.answer
    elif text is None or shape.category == profiles.VITAL_SIGN:
        resource["dataAbsentReason"] = _UNKNOWN
    else:
        resource["valueString"] = text
    if text is not None and (event.value is not None or shape.category == profiles.VITAL_SIGN):
        resource["note"] = [{"text": text}]


def blood_pressure(
    event: Event, systolic: Fragment | None, diastolic: Fragment | None, performer: Fragment
) -> Resource:
    """A systolic and a diastolic pressure of one moment; None for an unknown one."""
    resource = event.begun()
    resource["effectiveDateTime"] = event.time
    resource["performer"] = [performer]
    resource["component"] = [
        {"code": code, "dataAbsentReason": _UNKNOWN}
        if pressure is None
        else {"code": code, "valueQuantity": {"value": pressure, **_MILLIMETRES}}
        for code, pressure in ((_SYSTOLIC, systolic), (_DIASTOLIC, diastolic))
    ]
    return resource


def diagnostic_report(
    event: Event,
    results: Fragment | None,
    order: Fragment | None,
    specimens: Fragment | None,
    performer: Fragment,
) -> Resource:
    """A panel with its order; `results` and `specimens` are references, several as the items of a list."""
    resource = event.begun()
    if event.time is not None:
        resource["effectiveDateTime"] = resource["issued"] = event.time
    resource["performer"] = [performer]
    if order is not None:
        resource["basedOn"] = [order]
    if specimens is not None:
        resource["specimen"] = [specimens]
    if results is not None:
        resource["result"] = [results]
    if event.text is not None:
        resource["conclusion"] = event.text
    return resource


def care_plan(event: Event, goals: Fragment | None, team: Fragment | None) -> Resource:
    """A care plan, active until its end; `goals` are references to those of the patient, as the items of a list."""
    resource = event.begun()
    if event.time is not None or event.end is not None:
        resource["period"] = event.period()
    if team is not None:
        resource["careTeam"] = [team]
    if goals is not None:
        resource["goal"] = [goals]
    return _noted(resource, event)


class Mapping(NamedTuple):
    """The resource type that carries a kind of event, and its builder."""

    resource_type: str
    build: Callable[..., Resource]
    """Takes an `Event`, and what the resource has beyond it."""


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


def _noted(resource: Resource, event: Event) -> Resource:
    if event.text is not None:
        resource["note"] = [{"text": event.text}]
    return resource

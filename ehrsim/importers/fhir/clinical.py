"""From clinical resources to events, one function a resource type; `CLINICAL` names them.

Each takes a `Record` and returns its events. To read another resource type, write its function and give it a line.
"""

from __future__ import annotations

from collections.abc import Callable

from ehrsim.codes import Kind
from ehrsim.importers.fhir.elements import (
    Element,
    Meaning,
    UnusableResource,
    answer,
    boolean,
    child,
    children,
    first,
    meaning,
    text,
)
from ehrsim.importers.fhir.record import (
    Event,
    Record,
    Span,
    Value,
    amount,
    drug,
    ending,
    note,
    period,
    span,
    subject,
    value_of,
    visit,
)

_CAREPLAN_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/careplan-category"
"""A category of this system says that a care plan is one, not which."""

Builder = Callable[[Record], list[Event]]


def condition(record: Record) -> list[Event]:
    """A Condition from its onset to its abatement."""
    start, end = span(record, ("onsetDateTime", "onsetPeriod", "recordedDate"))
    if "abatementDateTime" in record.resource:
        end = ending(record, record.resource, "abatementDateTime")
    elif "abatementPeriod" in record.resource:
        end = period(record, child(record.resource, "abatementPeriod")).end
    return [_event(record, _code(record, "condition"), Span(start, end), Value(text=note(record)))]


def procedure(record: Record) -> list[Event]:
    """A Procedure that was done."""
    when = span(record, ("performedDateTime", "performedPeriod"))
    return [_event(record, _code(record, "procedure"), when, Value(text=note(record)))]


def immunization(record: Record) -> list[Event]:
    """A vaccine given."""
    code = _known(meaning(child(record.resource, "vaccineCode"), "immunization"))
    when = span(record, ("occurrenceDateTime", "recorded"))
    return [_event(record, code, when, Value(text=note(record)))]


def allergy_intolerance(record: Record) -> list[Event]:
    """An allergy, with its first reaction as text."""
    when = span(record, ("onsetDateTime", "onsetPeriod", "recordedDate"))
    reaction = first(record.resource, "reaction")
    manifestation = first(reaction, "manifestation") if reaction else None
    words = answer(manifestation, "condition") if manifestation else None
    return [_event(record, _code(record, "allergy"), Span(when.start, None), Value(text=words or note(record)))]


def diagnostic_report(record: Record) -> list[Event]:
    """A panel of results; the results themselves are Observations."""
    when = span(record, ("effectiveDateTime", "effectivePeriod", "issued"))
    return [_event(record, _code(record, "panel"), when, Value(text=text(record.resource, "conclusion")))]


def care_plan(record: Record) -> list[Event]:
    """A care plan, named by its first category that is more than "a plan", else by its title or description."""
    resource = record.resource
    named = [category for category in children(resource, "category") if not _is_bare_plan(category)]
    code = meaning(named[0], "care_plan") if named else None
    if code is None:
        code = meaning({"text": text(resource, "title") or text(resource, "description")}, "care_plan")
    when = span(record, ("period", "created"))
    return [_event(record, _known(code), when, Value(text=note(record)))]


def _is_bare_plan(category: Element) -> bool:
    return any(coding.get("system") == _CAREPLAN_CATEGORY for coding in children(category, "coding"))


def observation(record: Record) -> list[Event]:
    """An Observation and each of its components; one that has only components is not an event of its own."""
    resource = record.resource
    value = value_of(record, resource)
    when = span(record, ("effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued"))
    components = children(resource, "component") if "component" in resource else []
    if not components:
        if value.text is None and "note" in resource:
            value = value._replace(text=note(record))
        return [_event(record, _code(record, "observation"), when, value)]
    parts = [(part, value_of(record, part)) for part in components]
    if len(parts) == 1 and parts[0][1].numeric is not None:
        parts = [(parts[0][0], parts[0][1]._replace(text=note(record)))]
    events = [
        _event(record, _known(meaning(child(part, "code"), "observation")), when, found)
        for part, found in parts
        if found != Value()
    ]
    if value != Value():
        events.append(_event(record, _code(record, "observation"), when, value))
    if not events:
        raise UnusableResource("components without a value")
    return events


def medication_request(record: Record) -> list[Event]:
    """An order of a drug; a status other than the one its end implies is kept as text."""
    resource = record.resource
    if boolean(resource, "doNotPerform"):
        raise UnusableResource("doNotPerform: an order not to give")
    dispense = child(resource, "dispenseRequest")
    validity = period(record, child(dispense, "validityPeriod") if dispense else None)
    dated = "authoredOn" in resource or validity.start is None
    start = span(record, ("authoredOn",)).start if dated else validity.start
    status = text(resource, "status")
    implied = "active" if validity.end is None else "completed"
    words = status if status not in (None, implied) else note(record)
    dosage = first(resource, "dosageInstruction")
    rate = first(dosage, "doseAndRate") if dosage else None
    dose = amount(record, child(rate, "doseQuantity") if rate else None, words)
    return [_event(record, _known(drug(record)), Span(start, validity.end), dose)]


def medication_statement(record: Record) -> list[Event]:
    """A drug that the patient says to take."""
    when = span(record, ("effectiveDateTime", "effectivePeriod", "dateAsserted"))
    return [_event(record, _known(drug(record)), when, Value(text=note(record)))]


def medication_administration(record: Record) -> list[Event]:
    """A drug that was given, with its dose."""
    when = span(record, ("effectiveDateTime", "effectivePeriod"))
    dosage = child(record.resource, "dosage")
    dose = amount(record, child(dosage, "dose") if dosage else None, note(record))
    return [_event(record, _known(drug(record)), when, dose)]


def medication_dispense(record: Record) -> list[Event]:
    """A drug that was handed over, with its amount."""
    when = span(record, ("whenHandedOver", "whenPrepared"))
    handed_over = amount(record, child(record.resource, "quantity"), note(record))
    return [_event(record, _known(drug(record)), when, handed_over)]


CLINICAL: dict[str, Builder] = {
    "Condition": condition,
    "Procedure": procedure,
    "Immunization": immunization,
    "AllergyIntolerance": allergy_intolerance,
    "DiagnosticReport": diagnostic_report,
    "CarePlan": care_plan,
    "Observation": observation,
    "MedicationRequest": medication_request,
    "MedicationStatement": medication_statement,
    "MedicationAdministration": medication_administration,
    "MedicationDispense": medication_dispense,
}


def _code(record: Record, kind: Kind) -> Meaning:
    return _known(meaning(child(record.resource, "code"), kind))


_ABSENT = "//hl7.org_fhir_uv_ips_CodeSystem_absent-unknown-uv-ips//"
"""In the codes by which a patient summary says that it has nothing of a kind to list."""


def _known(code: Meaning | None) -> Meaning:
    if code is None:
        raise UnusableResource("no code")
    if _ABSENT in code.code:
        raise UnusableResource("says that there is none, or no information")
    return code


def _event(record: Record, code: Meaning, when: Span, value: Value) -> Event:
    return Event(
        subject(record),
        when.start,
        code.code,
        value.numeric,
        value.text,
        value.unit,
        visit(record),
        when.end,
        code.description,
    )

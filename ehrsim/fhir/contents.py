"""What finished resources say of themselves: when, of what code, with which value; for those who choose among them."""

from __future__ import annotations

from typing import Any, NamedTuple

from ehrsim.fhir.fragments import Resource

TIMES = {
    "Encounter": "period",
    "Condition": "onset",
    "Observation": "effective",
    "MedicationRequest": "authoredOn",
    "Procedure": "performed",
    "Immunization": "occurrence",
    "AllergyIntolerance": "recordedDate",
    "DiagnosticReport": "effective",
    "CarePlan": "period",
    "Provenance": "recorded",
}
"""The element that says when, without the type that ends its name where it may be of several."""
CODES = {
    "Encounter": "type",
    "Condition": "code",
    "Observation": "code",
    "MedicationRequest": "medicationCodeableConcept",
    "Procedure": "code",
    "Immunization": "vaccineCode",
    "AllergyIntolerance": "code",
    "DiagnosticReport": "code",
    "CarePlan": "category",
}
"""The element that says what."""


class Span(NamedTuple):
    """A time or period as FHIR dateTimes, both ends the same for a time; None for an end that is not known."""

    start: str | None
    end: str | None


def span(resource: Resource) -> Span:
    """When a resource is from; both ends are None where it does not say."""
    element = TIMES.get(resource["resourceType"], "")
    for member in (element, f"{element}DateTime", f"{element}Period"):
        value = resource.get(member)
        if isinstance(value, str):
            return Span(value, value)
        if isinstance(value, dict):
            return Span(value.get("start"), value.get("end"))
    return Span(None, None)


def concept_of(resource: Resource) -> Resource:
    """The CodeableConcept of what a resource is about: the last one of a plan, whose first is that it is one."""
    found: Any = resource.get(CODES[resource["resourceType"]], {})
    concept: Resource = found[-1] if isinstance(found, list) else found
    return concept


def codings(value: Any) -> list[tuple[str, str]]:
    """Systems and codes of a CodeableConcept, a Coding, a code or a list of these."""
    if isinstance(value, list):
        return [found for member in value for found in codings(member)]
    if isinstance(value, str):
        return [("", value)]
    if isinstance(value, dict) and "coding" in value:
        return codings(value["coding"])
    return [(value.get("system", ""), value["code"])] if isinstance(value, dict) and "code" in value else []


def category_of(resource: Resource) -> str | None:
    """The code of the first category of a resource."""
    found = codings(resource.get("category", []))
    return found[0][1] if found else None


def words(concept: Resource) -> str:
    """A CodeableConcept for people."""
    shown = concept.get("text") or next((coding.get("display") for coding in concept.get("coding", [])), "")
    return str(shown or "")


def value_in_words(observation: Resource) -> str:
    """The value of an observation with its unit, of each component where it has those; empty where it has none."""
    if "valueQuantity" in observation:
        quantity = observation["valueQuantity"]
        return f"{quantity['value']} {quantity.get('unit', '')}".strip()
    if "valueCodeableConcept" in observation:
        return words(observation["valueCodeableConcept"])
    if "valueString" in observation:
        return str(observation["valueString"])
    parts = [(words(part["code"]), value_in_words(part)) for part in observation.get("component", [])]
    return ", ".join(f"{name} {value or 'unknown'}" for name, value in parts)

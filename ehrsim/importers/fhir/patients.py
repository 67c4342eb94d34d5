"""From Patients to birth, death and static facts, and from Encounters to the events of visits."""

from __future__ import annotations

from ehrsim import codes
from ehrsim.codes import Kind
from ehrsim.importers.fhir.elements import (
    Element,
    Meaning,
    UnusableResource,
    best_coding,
    boolean,
    child,
    children,
    first,
    meaning,
    text,
)
from ehrsim.importers.fhir.record import Event, Record, Span, Value, amount, instant, period, subject
from ehrsim.importers.fhir.references import key_of

_EXTENSIONS = "http://hl7.org/fhir/StructureDefinition/"
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
_GENDERS = ("male", "female", "other")
_VISIT_URI = codes.uri("VISIT_START")
_CLASS_UNKNOWN = "UNK"


def patient(record: Record) -> list[Event]:
    """Birth, death, sex, race, ethnicity, marital status and languages of a Patient."""
    resource, key = record.resource, key_of(record.resource)
    events = [
        Event(key, time, code)
        for code, time in ((codes.BIRTH, _birth(record)), (codes.DEATH, _death(record)))
        if time is not None
    ]
    facts: list[tuple[Kind, str | None]] = [
        ("gender", _gender(record)),
        ("race", _omb_category(resource, "us-core-race", codes.RACES)),
        ("ethnicity", _omb_category(resource, "us-core-ethnicity", codes.ETHNICITIES)),
        ("marital", _word(child(resource, "maritalStatus"), "marital")),
    ]
    facts += [
        ("language", _word(child(spoken, "language"), "language")) for spoken in children(resource, "communication")
    ]
    events += [Event(key, None, codes.join(kind, kind, value)) for kind, value in facts if value is not None]
    return events


def _birth(record: Record) -> int | None:
    """The time of birth, else the date; one that cannot be read is counted, the rest of the Patient is kept."""
    shadow = child(record.resource, "_birthDate")
    exact = _extension(shadow, f"{_EXTENSIONS}patient-birthTime") if shadow else None
    try:
        time = instant(record, exact, "valueDateTime") if exact else None
        return instant(record, record.resource, "birthDate") if time is None else time
    except UnusableResource as problem:
        record.report.skip(f"Patient: birth left out: {problem.reason}", 1, f"{record.found}: {problem.found}")
        return None


def _death(record: Record) -> int | None:
    try:
        time = instant(record, record.resource, "deceasedDateTime")
    except UnusableResource as problem:
        record.report.skip(f"Patient: death left out: {problem.reason}", 1, f"{record.found}: {problem.found}")
        return None
    if time is None and boolean(record.resource, "deceasedBoolean"):
        record.find("Patient has died, but it is not said when: no event")
    return time


def _gender(record: Record) -> str | None:
    gender = text(record.resource, "gender")
    if gender in _GENDERS or gender in (None, "unknown"):
        return gender if gender in _GENDERS else None
    record.report.skip("Patient: gender that is no code of FHIR left out", 1, f"{record.found}: {gender}")
    return None


def _omb_category(resource: Element, profile: str, displays: dict[str, str]) -> str | None:
    """A race or ethnicity of US Core: its code where the text is that code's display, else the text."""
    extension = _extension(resource, _US_CORE + profile)
    if extension is None:
        return None
    parts = children(extension, "extension")
    words = next((text(part, "valueString") for part in parts if part.get("url") == "text"), None)
    codings = [coding for part in parts if (coding := child(part, "valueCoding"))]
    for coding in codings:
        code = text(coding, "code")
        if code in displays and words in (None, displays[code], text(coding, "display")):
            return code
    return words or next((text(coding, "display") for coding in codings), None)


def _extension(element: Element, url: str) -> Element | None:
    return next((part for part in children(element, "extension") if part.get("url") == url), None)


def _word(concept: Element | None, kind: Kind) -> str | None:
    """The code of a concept in the system that its kind of event stands for, else its text, else any code of it."""
    if concept is None:
        return None
    for coding in children(concept, "coding"):
        system, code = text(coding, "system"), text(coding, "code")
        if system and code and codes.default_kind(codes.system_of_uri(system)) == kind:
            return code
    coded = best_coding(concept, kind)
    return text(concept, "text") or (coded["code"] if coded else None)


def encounter(record: Record) -> list[Event]:
    """Start and end of an Encounter, its types and its reasons."""
    resource, whom, key = record.resource, subject(record), key_of(record.resource)
    when = period(record, child(resource, "period"))
    kept, types = _types(record)
    events = _bounds(record, whom, key, when, kept or _class(record))
    reasons = [meaning(concept, "reason") for concept in children(resource, "reasonCode")]
    coded = [found for found in (*types, *reasons) if found is not None]
    return events + [Event(whom, when.start, code, visit_id=key, description=display) for code, display in coded]


def _types(record: Record) -> tuple[str | None, list[Meaning | None]]:
    """The visit code that stands among the types of an Encounter, None if there is none, and its other types.

    A type that is words only is left out: it says no more than the class.
    """
    kept, types = None, []
    for concept in children(record.resource, "type"):
        coding = best_coding(concept, "visit_type")
        if coding is None:
            record.find("Encounter type without a code left out")
        elif coding.get("system") == _VISIT_URI:
            kept = coding["code"]
        else:
            types.append(meaning(concept, "visit_type"))
    return kept, types


def _class(record: Record) -> str | None:
    """The class of an Encounter; None where it is "unknown", which says that the visit has no start."""
    kind = child(record.resource, "class")
    code = text(kind, "code") if kind else None
    if code is None:
        record.find("Encounter without a class")
        return _CLASS_UNKNOWN
    if code == _CLASS_UNKNOWN:
        record.find("Encounter of unknown class: its start is no event")
        return None
    return " ".join(code.split())


def _bounds(record: Record, whom: int, key: int, when: Span, code: str | None) -> list[Event]:
    """The start and end of a visit with what is said of its admission, length and discharge."""
    resource = record.resource
    if code is None:
        return []
    if when.start is None:
        record.find("Encounter without a date, kept without a time")
    priority = _words(child(resource, "priority"))
    events = [Event(whom, when.start, f"VISIT_START//{code}", text_value=priority, visit_id=key)]
    stay = child(resource, "hospitalization")
    discharge = _words(child(stay, "dischargeDisposition")) if stay else None
    length = amount(record, child(resource, "length"), discharge)
    if when.end is not None:
        events.append(Event(whom, when.end, f"VISIT_END//{code}", *length, visit_id=key))
    elif length != Value():
        record.change("length or discharge of an Encounter without an end left out")
    return events


def _words(concept: Element | None) -> str | None:
    """A concept in words, else its code."""
    if concept is None:
        return None
    coding = first(concept, "coding")
    return text(concept, "text") or (text(coding, "display") or text(coding, "code") if coding else None)

"""One resource as its builder sees it: whom and which visit it is about, when, and how to count what is odd in it."""

from __future__ import annotations

from typing import NamedTuple

from ehrsim.importers.fhir.elements import (
    Element,
    Meaning,
    UnusableResource,
    answer,
    boolean,
    child,
    children,
    compact,
    first,
    meaning,
    moment,
    number,
    text,
    unit,
)
from ehrsim.importers.fhir.references import contained, key_of, target
from ehrsim.importers.fhir.sources import Found
from ehrsim.importers.report import ImportReport

_PERIODS = frozenset(("period", "onsetPeriod", "performedPeriod", "effectivePeriod"))
"""Elements that are a Period where others are a dateTime."""
_TEXTUAL = ("valueDateTime", "valueTime", "valuePeriod", "valueRange", "valueRatio", "valueSampledData")


class Event(NamedTuple):
    """A row of the event table; ids are hashes of FHIR ids still, times are microseconds since 1970."""

    subject_id: int
    time: int | None
    code: str
    numeric_value: float | None = None
    text_value: str | None = None
    unit: str | None = None
    visit_id: int | None = None
    end_time: int | None = None
    description: str | None = None


class Span(NamedTuple):
    """From when to when something was; either end may be unknown."""

    start: int | None
    end: int | None


NEVER = Span(None, None)


class Value(NamedTuple):
    """The value of an Observation or component."""

    numeric: float | None = None
    text: str | None = None
    unit: str | None = None


class Record(NamedTuple):
    """A resource with all that is needed to understand it."""

    resource: Element
    found: Found
    medications: dict[int, Meaning]
    report: ImportReport

    def change(self, what: str, example: object = "") -> None:
        """Count something that is kept in an altered form."""
        self.report.change(what, 1, f"{self.found}: {example}" if example else self.found)

    def find(self, what: str) -> None:
        """Count an oddity."""
        self.report.find(what, 1, self.found)


def subject(record: Record) -> int:
    """The hash of the id of the Patient that a resource is about."""
    reference = child(record.resource, "subject") or child(record.resource, "patient")
    if reference is None:
        raise UnusableResource("no subject")
    found = target(reference, record.found.links)
    if found is None:
        within = contained(record.resource, reference)
        if within is not None and within.get("resourceType") == "Patient":
            return key_of(within)
        raise UnusableResource("subject that cannot be resolved", compact(reference))
    if found.type not in ("Patient", ""):
        raise UnusableResource("subject is no Patient", compact(reference))
    return found.key


def visit(record: Record) -> int | None:
    """The hash of the id of the Encounter that a resource belongs to, None where it names none."""
    reference = child(record.resource, "encounter") or child(record.resource, "context")
    if reference is None:
        return None
    found = target(reference, record.found.links)
    if found is None:
        record.change("encounter that cannot be resolved left out", compact(reference))
        return None
    return found.key if found.type in ("Encounter", "") else None


def span(record: Record, names: tuple[str, ...]) -> Span:
    """When a resource was, by the first of its elements `names` that says so."""
    resource = record.resource
    for name in names:
        if name in _PERIODS:
            found = period(record, child(resource, name))
            if found != NEVER:
                return found
        else:
            time = instant(record, resource, name)
            if time is not None:
                return Span(time, None)
    record.find(f"{resource['resourceType']} without a date, kept without a time")
    return NEVER


def period(record: Record, element: Element | None) -> Span:
    """The start and end of a Period."""
    if element is None:
        return NEVER
    return Span(instant(record, element, "start"), ending(record, element, "end"))


def instant(record: Record, parent: Element, name: str) -> int | None:
    """The time under a name, in microseconds; a date without a day is taken as its first day, and counted."""
    found = moment(parent, name)
    if found is None:
        return None
    microseconds, partial = found
    if partial:
        record.change("date without a day taken as its first day", parent[name])
    return microseconds


def ending(record: Record, parent: Element, name: str) -> int | None:
    """The end under a name; one that cannot be read is left out, and counted."""
    try:
        return instant(record, parent, name)
    except UnusableResource as problem:
        record.change(f"unreadable end left out: {problem.reason}", problem.found)
        return None


def note(record: Record) -> str | None:
    """The text of the first note of a resource."""
    annotation = first(record.resource, "note")
    return text(annotation, "text") if annotation else None


def value_of(record: Record, element: Element) -> Value:
    """The value of an Observation or component, whatever its type; an empty one where it has none."""
    if "valueQuantity" in element:
        return amount(record, child(element, "valueQuantity"))
    if "valueCodeableConcept" in element:
        concept = child(element, "valueCodeableConcept")
        return Value(text=answer(concept) if concept else None)
    if "valueString" in element:
        return Value(text=text(element, "valueString"))
    if "valueInteger" in element:
        return Value(number(element, "valueInteger"))
    return _other_value(record, element)


def _other_value(record: Record, element: Element) -> Value:
    """The value of a type that the event table has no column for, as text."""
    truth = boolean(element, "valueBoolean")
    if truth is not None:
        return Value(text="true" if truth else "false")
    for name in _TEXTUAL:
        if element.get(name) is not None:
            record.change(f"{name} kept as text")
            return Value(text=compact(element[name]))
    return Value()


def amount(record: Record, element: Element | None, words: str | None = None) -> Value:
    """The value and unit of a Quantity, with a text beside them; "less than" and its like are lost, and counted."""
    if element is None:
        return Value(text=words)
    if "comparator" in element:
        record.change("comparator of a quantity left out", text(element, "comparator"))
    value = number(element, "value")
    return Value(value, words, None if value is None else unit(element))


def drug(record: Record) -> Meaning | None:
    """The code of the medication of a resource: its own, or of the Medication it refers to."""
    resource = record.resource
    named = meaning(child(resource, "medicationCodeableConcept"), "medication")
    reference = child(resource, "medicationReference")
    if named is not None or reference is None:
        return named
    within = contained(resource, reference)
    if within is not None:
        return meaning(child(within, "code"), "medication")
    found = target(reference, record.found.links)
    known = record.medications.get(found.key) if found is not None else None
    if known is None:
        raise UnusableResource("Medication that cannot be resolved", compact(reference))
    return known


def statuses(resource: Element) -> list[str]:
    """The codes that say whether what a resource tells of is true and has happened."""
    found = [status] if (status := text(resource, "status")) else []
    if "verificationStatus" in resource:
        concept = child(resource, "verificationStatus") or {}
        found += [code for coding in children(concept, "coding") if (code := text(coding, "code"))]
    return found

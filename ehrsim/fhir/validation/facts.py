"""What one resource says that others must agree with: its references and its times; and what it can say wrong alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from ehrsim.fhir.validation.findings import Problem, shown
from ehrsim.fhir.validation.rules import Element, Rules
from ehrsim.fhir.validation.times import out_of_order, span

CLINICAL = frozenset(
    """
    onsetDateTime onsetPeriod effectiveDateTime effectivePeriod effectiveInstant performedDateTime
    performedPeriod occurrenceDateTime occurrencePeriod authoredOn whenHandedOver whenPrepared period
    lastOccurrence collectedDateTime collectedPeriod
    """.split()  # noqa: SIM905
)
"""Elements of a resource that say when something was or began to be done to the patient, or found."""
RECORDED = frozenset(["abatementDateTime", "abatementPeriod", "recordedDate", "issued"])
"""Elements that say when something ended or was written down, which may be after death."""
WITHIN_ENCOUNTER = frozenset(
    ["effectiveDateTime", "effectiveInstant", "performedDateTime", "occurrenceDateTime", "authoredOn", "whenHandedOver"]
)
"""Elements that lie within the encounter that the resource names, as a rule."""
ON_BEHALF = frozenset(("Organization", "Patient", "PractitionerRole", "RelatedPerson"))
"""Who may act without somebody on whose behalf."""
WHOSE = ("subject", "patient", "beneficiary", "individual")
_TIMES = frozenset(("date", "dateTime", "instant"))


class Reference(NamedTuple):
    """A reference of a resource; `targets` are the types it may lead to, none: any."""

    path: str
    text: str
    targets: frozenset[str]

    @property
    def kinds(self) -> frozenset[str]:
        """The types that a reference by UUID may lead to: the one that it names, or else those of its element."""
        named = self.text.rpartition("/")[0] if "/" in self.text else ""
        return frozenset((named,)) if named else self.targets


class Moment(NamedTuple):
    """A time in a patient's life."""

    path: str
    text: str
    name: str
    """The element of the resource that it stands in."""


class Period(NamedTuple):
    """A Period that has both its ends."""

    path: str
    start: str
    end: str


class Facts(NamedTuple):
    """What was gathered from one resource."""

    references: list[Reference]
    moments: list[Moment]
    periods: list[Period]
    problems: list[Problem]


def facts_of(resource: Any, rules: Rules) -> Facts:
    """Gather the references and times of a resource that is valid on its own."""
    facts = Facts([], [], [], [])
    for element in rules.elements(resource, every=False):
        kind, value = element.type_name, element.value
        if kind == "Reference":
            _reference(element, resource, facts)
        elif kind == "Period":
            _period(element, facts)
        elif kind in _TIMES and isinstance(value, str):
            if span(value) is None:
                facts.problems.append(Problem(element.path, shown(value), "a day of the calendar"))
            name, _, part = element.path.partition(".")
            if (name in CLINICAL or name in RECORDED) and part != "end" and "." not in part:
                facts.moments.append(Moment(element.path, value, name))
    contained = resource.get("contained")
    for number, inner in enumerate(contained if isinstance(contained, list) else ()):
        found = facts_of(inner, rules)
        at = f"contained[{number}]."
        facts.references.extend(
            one._replace(path=at + one.path) for one in found.references if not one.text.startswith("#")
        )
        facts.problems.extend(one._replace(path=at + one.path) for one in [*found.problems, *disorder(found.periods)])
    if resource["resourceType"] == "Provenance":
        facts.references.extend(_acting_alone(resource))
    return facts


def _acting_alone(provenance: Any) -> list[Reference]:
    """Who acts on nobody's behalf, and so must not be a practitioner or a device (provenance-1 of US Core)."""
    profiles = (provenance.get("meta") or {}).get("profile", [])
    if not any("us-core-provenance" in profile for profile in profiles):
        return []
    return [
        Reference(f"agent[{number}].who", agent["who"]["reference"], ON_BEHALF)
        for number, agent in enumerate(provenance["agent"])
        if "onBehalfOf" not in agent and isinstance(agent["who"].get("reference"), str)
    ]


def disorder(periods: list[Period]) -> list[Problem]:
    """Periods that end before they start (per-1)."""
    return [
        Problem(path, f"{shown(start)} to {shown(end)}", "a start not after the end (per-1)")
        for path, start, end in periods
        if out_of_order(start, end)
    ]


def whose(resource: Any) -> str | None:
    """The reference to the patient that a resource is of."""
    return _named(resource, *WHOSE)


def encounter_of(resource: Any) -> str | None:
    """The reference to the encounter that a resource belongs to."""
    return _named(resource, "encounter", "context")


def _named(resource: Any, *names: str) -> str | None:
    for name in names:
        value = resource.get(name)
        text = value.get("reference") if isinstance(value, dict) else None
        if isinstance(text, str):
            return text
    return None


def _reference(element: Element, resource: Any, facts: Facts) -> None:
    text = element.value.get("reference")
    if not isinstance(text, str):
        return
    if not text.startswith("#"):
        facts.references.append(Reference(element.path, text, element.targets))
        return
    inner = [one for one in resource.get("contained", []) if one.get("id") == text[1:]]
    if text != "#" and not inner:
        facts.problems.append(Problem(element.path, shown(text), "the id of a contained resource"))
    elif inner and element.targets and inner[0]["resourceType"] not in element.targets:
        expected = " or ".join(sorted(element.targets))
        facts.problems.append(Problem(element.path, f"{inner[0]['resourceType']} {shown(text)}", expected))


def _period(element: Element, facts: Facts) -> None:
    start, end = element.value.get("start"), element.value.get("end")
    if isinstance(start, str) and isinstance(end, str):
        facts.periods.append(Period(element.path, start, end))

"""What resources must agree on: references lead to the right type, ids are given once, times lie in a life.

Resources are added one by one and may come in any order. Memory is that of the ids and the distinct references, and of
the earliest and latest time of each patient and encounter.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from ehrsim.fhir.validation.facts import CLINICAL, WITHIN_ENCOUNTER, Facts, Moment, encounter_of, whose
from ehrsim.fhir.validation.findings import Finding, Problem, shown
from ehrsim.fhir.validation.times import Span, span

AFTER_DEATH = "times after death"
OUTSIDE = "times outside the encounter"
ELSEWHERE = "references to resources that are not at hand"


class Place(NamedTuple):
    """Where a resource stands."""

    file: str
    line: int
    resource: str

    def finding(self, problem: Problem) -> Finding:
        """A problem of the resource that stands here."""
        return Finding(self.file, self.line, self.resource, *problem)


class Scope:
    """A bundle, or all resources that are not in one: within it references are resolved first."""

    def __init__(self, *, complete: bool) -> None:
        self.types: dict[str, str] = {}
        """What resources are known by, and their type."""
        self.complete = complete
        """Whether relative references must lead to a resource that is at hand."""


class _Extreme(NamedTuple):
    span: Span
    place: Place
    moment: Moment


class CrossResource:
    """Gathers what resources say of one another; `finish` gives what does not fit."""

    def __init__(self) -> None:
        self.unusual: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._known: dict[str, str] = {}
        self._wanted: dict[tuple[int, str, frozenset[str]], tuple[Scope, Place, str]] = {}
        self._lives: dict[str, tuple[Span | None, Span | None]] = {}
        self._stays: dict[str, tuple[Span | None, Span | None]] = {}
        self._first: dict[str, _Extreme] = {}
        self._last: dict[str, _Extreme] = {}
        self._within: dict[tuple[str, str], _Extreme] = {}

    def add(self, resource: Any, facts: Facts, place: Place, scope: Scope, full_url: str = "") -> None:
        """Take in a resource; `full_url` is what it is known by in its bundle."""
        kind = resource["resourceType"]
        name = f"{kind}/{resource['id']}" if isinstance(resource.get("id"), str) else ""
        self._register(name, kind, place, scope, full_url)
        for reference in facts.references:
            self._wanted.setdefault((id(scope), reference.text, reference.targets), (scope, place, reference.path))
        own = {one for one in (name, full_url) if one}
        if kind == "Patient":
            life = (_span(resource.get("birthDate")), _span(resource.get("deceasedDateTime")))
            self._lives |= dict.fromkeys(own, life)
            birth, death = life
            if birth and death and death.before(birth):
                self._say(
                    place,
                    "deceasedDateTime",
                    resource["deceasedDateTime"],
                    f"a time after birth ({resource['birthDate']})",
                )
        elif kind == "Encounter":
            period = resource.get("period") or {}
            self._stays |= dict.fromkeys(own, (_span(period.get("start")), _span(period.get("end"))))
        self._moments(facts.moments, whose(resource), encounter_of(resource), place)

    def finish(self) -> list[Finding]:
        """All findings; those about times name the first of each patient."""
        for (_, text, targets), (scope, place, path) in self._wanted.items():
            self._resolve(text, targets, scope, place, path)
        for patient, (birth, death) in self._lives.items():
            first, last = self._first.get(patient), self._last.get(patient)
            if birth and first and first.span.before(birth):
                self._say(first.place, first.moment.path, first.moment.text, "a time after the patient's birth")
            if death and last and death.before(last.span):
                self.unusual[AFTER_DEATH] += 1
        for (encounter, side), extreme in self._within.items():
            start, end = self._stays.get(encounter, (None, None))
            if (side == "first" and start and extreme.span.before(start)) or (
                side == "last" and end and end.before(extreme.span)
            ):
                self.unusual[OUTSIDE] += 1
        return self._findings

    def _register(self, name: str, kind: str, place: Place, scope: Scope, full_url: str) -> None:
        """Know a resource by its names; bundles may repeat what patients share, each has it once."""
        for own, said in ((full_url, "fullUrl"), (name, "id")):
            if own and own in scope.types:
                self._say(place, said, own, "one that no other resource has")
            elif own:
                scope.types[own] = kind
        if name:
            self._known[name] = kind

    def _resolve(self, text: str, targets: frozenset[str], scope: Scope, place: Place, path: str) -> None:
        kind = scope.types.get(text) or self._known.get(text.partition("/_history/")[0])
        if kind is not None:
            if targets and kind not in targets:
                self._say(place, path, f"{text} ({kind})", "a reference to " + " or ".join(sorted(targets)))
        elif text.startswith("urn:uuid:") or (scope.complete and text[:1].isupper() and "?" not in text):
            self._say(place, path, text, "a reference to a resource that is there")
        else:
            self.unusual[ELSEWHERE] += 1

    def _moments(self, moments: list[Moment], patient: str | None, encounter: str | None, place: Place) -> None:
        for moment in moments:
            when = span(moment.text)
            if when is None:
                continue
            extreme = _Extreme(when, place, moment)
            if patient is not None:
                if patient not in self._first or when.last < self._first[patient].span.last:
                    self._first[patient] = extreme
                if moment.name in CLINICAL and (
                    patient not in self._last or when.first > self._last[patient].span.first
                ):
                    self._last[patient] = extreme
            if encounter is not None and moment.name in WITHIN_ENCOUNTER:
                for side, is_more in (("first", -1), ("last", 1)):
                    known = self._within.get((encounter, side))
                    if known is None or (when.first - known.span.first) * is_more > 0:
                        self._within[encounter, side] = extreme

    def _say(self, place: Place, path: str, found: str, expected: str) -> None:
        self._findings.append(place.finding(Problem(path, shown(found), expected)))


def _span(text: Any) -> Span | None:
    return span(text) if isinstance(text, str) else None

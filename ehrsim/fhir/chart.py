"""A page on one patient of an export, written from the FHIR resources alone: what somebody who opens the chart sees."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from ehrsim.errors import InputError
from ehrsim.fhir.fragments import SUBJECT_SYSTEM, Resource
from ehrsim.fhir.inspection import fhir_files, resources_in
from ehrsim.outputs import atomic_file
from ehrsim.pages import template

_ID = re.compile(r"[0-9a-f-]{36}$")
MOST_VISITS, MOST_POINTS = 60, 60
WIDTH, HEIGHT = 132, 30
"""Of the drawing of a trend, in CSS pixels."""


class Trend(NamedTuple):
    """The values of one test, oldest first."""

    name: str
    unit: str
    latest: str
    when: str
    flag: str
    usual: str
    number: int
    drawing: Markup


class Row(NamedTuple):
    """A line of a list: what, when, and what more there is to say."""

    what: str
    when: str = ""
    more: str = ""


class Visit(NamedTuple):
    """An encounter with its note."""

    when: str
    kind: str
    what: str
    why: str
    with_whom: str
    note: str


class Chart:
    """The resources of a patient by type, and those they refer to by id."""

    def __init__(self, patient: Resource, own: dict[str, list[Resource]], others: dict[str, Resource]) -> None:
        self.patient, self.own = patient, own
        self._by_id = others | {one["id"]: one for several in own.values() for one in several}

    def target(self, reference: dict[str, Any] | None) -> Resource:
        """What a reference leads to, empty where that is not known."""
        found = _ID.search((reference or {}).get("reference", ""))
        return self._by_id.get(found[0], {}) if found else {}

    def of(self, resource_type: str) -> list[Resource]:
        """The patient's resources of a type."""
        return self.own.get(resource_type, [])


def write_chart(source: str | Path, out: str | Path, *, patient: str | None = None, overwrite: bool = False) -> str:
    """Write a page on one patient of an export in the folder `source`, and return the patient's identifier.

    `patient` is the subject id, or the id of the Patient; without it the page is on the one with the most resources.

    Raises `InputError` for a patient that is not there and for files that are not FHIR, `UsageError` for an output that
    exists.
    """
    chart = read_chart(Path(source), patient)
    with atomic_file(Path(out), overwrite=overwrite) as temporary:
        temporary.write_text(
            template(Path(__file__).with_name("chart.html.jinja")).render(**context(chart)),
            encoding="utf-8",
            newline="\n",
        )
    return _identifier(chart.patient)


def read_chart(folder: Path, patient: str | None) -> Chart:
    """The resources of a patient, in two readings of the folder: the second keeps what is the patient's."""
    patients: dict[str, Resource] = {}
    number: dict[str, int] = {}
    others: dict[str, Resource] = {}
    for resource in _all(folder):
        if resource["resourceType"] == "Patient":
            patients[resource["id"]] = resource
        elif (owner := _owner(resource)) is not None:
            number[owner] = number.get(owner, 0) + 1
        else:
            others[resource["id"]] = resource
    if not patients:
        raise InputError(f"{folder} holds no Patient", hint="name a folder of FHIR written by ehrsim export")
    chosen = _chosen(patients, number, patient, folder)
    own: dict[str, list[Resource]] = {}
    for resource in _all(folder):
        if _owner(resource) == chosen["id"]:
            own.setdefault(resource["resourceType"], []).append(resource)
    return Chart(chosen, own, others)


def _all(folder: Path) -> Iterator[Resource]:
    for file in fhir_files(folder):
        for _, resource in resources_in(file):
            if resource["resourceType"] != "Bundle" and "id" in resource:
                yield resource


def _owner(resource: Resource) -> str | None:
    """The id of the Patient that a resource is of, None for one that patients share."""
    for name in ("subject", "patient", "beneficiary"):
        found = _ID.search((resource.get(name) or {}).get("reference", ""))
        if found:
            return found[0]
    whom = [part.get("actor", {}) for part in resource.get("participant", [])] + resource.get("target", [])
    if resource["resourceType"] in ("Appointment", "Provenance") and whom:
        found = _ID.search(whom[0].get("reference", ""))
        return found[0] if found else None
    return None


def _chosen(patients: dict[str, Resource], number: dict[str, int], patient: str | None, folder: Path) -> Resource:
    if patient is None:
        return patients[max(patients, key=lambda one: (number.get(one, 0), one))]
    for one in patients.values():
        if patient in (one["id"], _identifier(one)):
            return one
    first = ", ".join(sorted(_identifier(one) for one in patients.values())[:5])
    raise InputError(f"{folder} has no patient `{patient}`", hint=f"it has {len(patients):,}, among them {first}")


def _identifier(patient: Resource) -> str:
    known = {one.get("system"): one.get("value", "") for one in patient.get("identifier", [])}
    return str(known.get(SUBJECT_SYSTEM, patient["id"]))


def context(chart: Chart) -> dict[str, Any]:
    """Everything the template shows, as text and drawings."""
    patient = chart.patient
    return {
        "name": _name(patient),
        "identifier": _identifier(patient),
        "facts": _facts(chart),
        "problems": [
            Row(_text(one.get("code")), _day(one.get("onsetDateTime")), _text(one.get("clinicalStatus")))
            for one in _active_first(_distinct(chart.of("Condition"), "code"))
        ],
        "medications": [
            _medication(one, chart) for one in _active_first(_distinct(chart.of("MedicationRequest"), _DRUG))
        ],
        "allergies": [
            Row(_text(one.get("code")), _day(one.get("recordedDate")), _reactions(one))
            for one in chart.of("AllergyIntolerance")
        ],
        "goals": [
            Row(one["description"]["text"], _day(one.get("startDate")), _addresses(one, chart))
            for one in chart.of("Goal")
        ],
        "care_plans": [
            Row(_text(one["category"][-1]), _day(one.get("period", {}).get("start")), one["status"])
            for one in _active_first(chart.of("CarePlan")[::-1])
        ],
        "procedures": [
            Row(_text(one.get("code")), _performed(one)) for one in _distinct(chart.of("Procedure"), "code")
        ],
        "immunizations": [
            Row(_text(one.get("vaccineCode")), _day(one.get("occurrenceDateTime"))) for one in chart.of("Immunization")
        ],
        "devices": [Row(_text(one.get("type"))) for one in chart.of("Device")],
        "trends": _trends(chart),
        "reports": [
            Row(_text(one.get("code")), _day(one.get("effectiveDateTime")), f"{len(one.get('result', []))} results")
            for one in chart.of("DiagnosticReport")[-12:][::-1]
        ],
        "visits": _visits(chart),
        "more_visits": max(len(chart.of("Encounter")) - MOST_VISITS, 0),
        "counts": sorted(((name, len(of)) for name, of in chart.own.items()), key=lambda one: (-one[1], one[0])),
    }


_DRUG = "medicationCodeableConcept"


def _facts(chart: Chart) -> list[tuple[str, str]]:
    patient = chart.patient
    team = [chart.target(part.get("member")) for one in chart.of("CareTeam") for part in one["participant"]]
    carers = [_name(one) for one in team if one.get("resourceType") == "Practitioner"]
    contact = [f"{_name(one)} ({_text(one['relationship'][0])})" for one in chart.of("RelatedPerson")]
    payers = [chart.target(one["payor"][0]).get("name", "") for one in chart.of("Coverage")]
    address = (patient.get("address") or [{}])[0]
    lines = [", ".join(address.get("line", [])), address.get("city", ""), address.get("postalCode", "")]
    known = (
        ("Sex", patient.get("gender", "")),
        ("Born", patient.get("birthDate", "")),
        ("Died", _day(patient.get("deceasedDateTime"))),
        ("Lives at", ", ".join(part for part in lines if part)),
        ("Cared for by", ", ".join(carers)),
        ("In an emergency", ", ".join(contact)),
        ("Insured with", ", ".join(payers)),
    )
    return [(title, value) for title, value in known if value]


def _medication(order: Resource, chart: Chart) -> Row:
    reasons = [_text(chart.target(one).get("code")) for one in order.get("reasonReference", [])]
    dosage = [one["text"] for one in order.get("dosageInstruction", []) if "text" in one]
    more = [order["status"], *dosage, *(f"for {reason}" for reason in reasons)]
    return Row(_text(order.get(_DRUG)), _day(order.get("authoredOn")), "; ".join(more))


def _reactions(allergy: Resource) -> str:
    return ", ".join(_text(one["manifestation"][0]) for one in allergy.get("reaction", []))


def _addresses(goal: Resource, chart: Chart) -> str:
    return ", ".join(_text(chart.target(one).get("code")) for one in goal.get("addresses", []))


def _performed(procedure: Resource) -> str:
    return _day(procedure.get("performedDateTime")) or _period(procedure.get("performedPeriod"))


def _distinct(resources: list[Resource], member: str) -> list[Resource]:
    """The first of each code, latest first."""
    first: dict[str, Resource] = {}
    for one in resources:
        first.setdefault(_text(one.get(member)), one)
    return list(first.values())[::-1]


def _active_first(resources: list[Resource]) -> list[Resource]:
    """What goes on before what has ended, each in its order: a page that is cut off then lacks the least."""

    def ended(one: Resource) -> bool:
        status = one.get("clinicalStatus", one.get("status"))
        return (status["coding"][0]["code"] if isinstance(status, dict) else status) != "active"

    return sorted(resources, key=ended)


def _trends(chart: Chart) -> list[Trend]:
    series: dict[tuple[str, str], list[tuple[str, float, Resource]]] = {}
    for one in chart.of("Observation"):
        when = one.get("effectiveDateTime", "")
        parts = one.get("component") or [one]
        for part in parts:
            quantity = part.get("valueQuantity")
            if quantity and "value" in quantity:
                key = (_text(part.get("code")), quantity.get("unit", ""))
                series.setdefault(key, []).append((when, float(quantity["value"]), one))
    found = [_trend(name, unit, values) for (name, unit), values in series.items()]
    return sorted(found, key=lambda trend: (-trend.number, trend.name))


def _trend(name: str, unit: str, values: list[tuple[str, float, Resource]]) -> Trend:
    values = sorted(values, key=lambda value: value[0])
    when, latest, resource = values[-1]
    flags = [coding["code"] for one in resource.get("interpretation", []) for coding in one["coding"]]
    flag = {"H": "high", "L": "low"}.get(flags[0] if flags else "", "")
    usual = "; ".join(filter(None, map(_range, resource.get("referenceRange", []))))
    drawing = _drawn([value for _, value, _ in values[-MOST_POINTS:]])
    return Trend(name, unit, f"{latest:g}", _day(when), flag, usual, len(values), drawing)


def _range(one: Resource) -> str:
    low, high = (one.get(name, {}).get("value") for name in ("low", "high"))
    whose = "".join(f"{_text(who).lower()} " for who in one.get("appliesTo", []))
    if low is None or high is None:
        return f"{whose}from {low:g}" if low is not None else f"{whose}up to {high:g}" if high is not None else ""
    return f"{whose}{low:g} to {high:g}"


def _drawn(values: list[float]) -> Markup:
    """A line through values, with a dot at the last."""
    least, most = min(values), max(values)
    spread = (most - least) or 1.0
    step = (WIDTH - 8) / max(len(values) - 1, 1)
    points = [
        (4 + number * step, HEIGHT - 5 - (value - least) / spread * (HEIGHT - 10))
        for number, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return Markup(
        f'<svg class="trend" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'
        f'<polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )


def _visits(chart: Chart) -> list[Visit]:
    notes: dict[str, str] = {}
    for one in chart.of("DocumentReference"):
        for visit in one.get("context", {}).get("encounter", []):
            data = one["content"][0]["attachment"]["data"]
            notes[chart.target(visit).get("id", "")] = b64decode(data).decode()
    ordered = sorted(chart.of("Encounter"), key=lambda one: one.get("period", {}).get("start", ""), reverse=True)
    return [
        Visit(
            when=_period(one.get("period")),
            kind=one["class"].get("display", one["class"].get("code", "")),
            what=", ".join(map(_text, one.get("type", []))),
            why=", ".join(map(_text, one.get("reasonCode", []))),
            with_whom=", ".join(_name(chart.target(part.get("individual"))) for part in one.get("participant", [])),
            note=notes.get(one["id"], ""),
        )
        for one in ordered[:MOST_VISITS]
    ]


def _text(concept: Resource | None) -> str:
    """What a CodeableConcept says in words."""
    if not concept:
        return ""
    codings = concept.get("coding") or [{}]
    return str(concept.get("text") or codings[0].get("display") or codings[0].get("code") or "")


def _name(resource: Resource) -> str:
    names = resource.get("name") or []
    if not isinstance(names, list) or not names:
        return str(names or "")
    return " ".join([*names[0].get("given", []), names[0].get("family", "")]).strip()


def _day(time: str | None) -> str:
    return (time or "")[:10]


def _period(period: Resource | None) -> str:
    start, end = (_day((period or {}).get(name)) for name in ("start", "end"))
    return f"{start} to {end}" if end and end != start else start

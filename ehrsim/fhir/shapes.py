"""The shape of a resource: all that its code, its unit and the columns that are filled decide, worked out once.

A shape holds the pre-encoded parts that all resources of that shape share. There are as many as distinct (code, unit,
form) in the events: some thousands, however many events there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import orjson
import polars as pl

from ehrsim import codes
from ehrsim.fhir import profiles
from ehrsim.fhir.columns import Templates
from ehrsim.fhir.crosswalk import NOTHING, Crosswalk, codings
from ehrsim.fhir.dosages import dosage
from ehrsim.fhir.fragments import (
    HL7,
    Fragment,
    Labels,
    Resource,
    code_value,
    coding,
    concept,
    event_concept,
    fragment,
    narrative,
)
from ehrsim.fhir.syntax import is_well_formed
from ehrsim.fhir.ucum import is_ucum

KINDS: tuple[str, ...] = (*get_args(codes.Kind), "observation_end")
NUMBER_OF = {kind: number for number, kind in enumerate(KINDS)}

NUMERIC, CODED, TEXT, TIMED, ENDED, IN_VISIT = (1 << bit for bit in range(6))
"""Bits of a form: which columns an event fills. CODED is a text that is a code of a known system."""
FORMS = 1 << 6

_CONFIRMED = fragment(concept(f"{HL7}condition-ver-status", "confirmed", "Confirmed"))
_ACTIVE, _RESOLVED = (
    fragment(concept(f"{HL7}condition-clinical", name, name.capitalize())) for name in ("active", "resolved")
)
_ALLERGY_CONFIRMED = fragment(concept(f"{HL7}allergyintolerance-verification", "confirmed", "Confirmed"))
_ALLERGY_ACTIVE = fragment(concept(f"{HL7}allergyintolerance-clinical", "active", "Active"))
_DIAGNOSIS = fragment([concept(f"{HL7}condition-category", "encounter-diagnosis", "Encounter Diagnosis")])
_PROBLEM = fragment([concept(f"{HL7}condition-category", "problem-list-item", "Problem List Item")])
_LABORATORY_REPORT = fragment([concept(f"{HL7}v2-0074", "LAB", "Laboratory")])
_OTHER_REPORT = fragment([concept(f"{HL7}v2-0074", "OTH", "Other")])
_ASSESS_PLAN = concept(
    "http://hl7.org/fhir/us/core/CodeSystem/careplan-category", "assess-plan", "Assessment and Plan of Treatment"
)


class Coded(NamedTuple):
    """A code of the events, taken apart and encoded."""

    code: str
    kind: str
    system: str
    value: str
    display: str
    concept: Fragment
    change: str | None
    """How the code in the resource differs from that of the event, if it does."""
    loinc: str | None = None
    """Of an observation, its code in LOINC: its own, or a further one; FHIR holds it to what that asks for."""
    mapped: bool = False
    """It has further codes by a crosswalk."""


class Shape(NamedTuple):
    """What all resources of one code, unit and form share."""

    code: Coded
    head: Resource
    """The members that are the same in all of them, in order; `id` is empty."""
    category: str | None
    """The name of an observation's category."""
    unit: Resource
    """The members of a Quantity that say its unit."""
    boxed: bool
    """The value stands in a component, because the profile of the code does not allow it as the value."""


class Shapes:
    """The codes, units and shapes met so far in one export, by number, and the templates of lines made of them."""

    def __init__(self, labels: Labels, crosswalk: Crosswalk = NOTHING) -> None:
        self.labels, self._crosswalk = labels, crosswalk
        self.templates = Templates()
        self.codes: list[Coded] = []
        self.units: list[str | None] = [None]
        self._code_numbers: dict[tuple[str, str | None], int] = {}
        self._unit_numbers: dict[str | None, int] = {None: 0}
        self._shapes: dict[tuple[int, int, int], Shape] = {}

    def code_number(self, code: str, description: str | None) -> int:
        """The number of a code with its description."""
        number = self._code_numbers.setdefault((code, description), len(self.codes))
        if number == len(self.codes):
            self.codes.append(coded(code, description, self._crosswalk))
        return number

    def unit_number(self, unit: str | None) -> int:
        """The number of a unit."""
        number = self._unit_numbers.setdefault(unit, len(self.units))
        if number == len(self.units):
            self.units.append(unit)
        return number

    def concepts(self) -> pl.Series:
        """The CodeableConcepts of all codes, by number."""
        return pl.Series([orjson.dumps(code.concept).decode() for code in self.codes], dtype=pl.String)

    def shape(self, code_number: int, unit_number: int, form: int) -> Shape:
        """The shape of the resources of a code with a unit and a form."""
        key = code_number, unit_number, form
        shape = self._shapes.get(key)
        if shape is None:
            shape = shape_of(self.codes[code_number], self.units[unit_number], form, self.labels)
            self._shapes[key] = shape
        return shape


def coded(code: str, description: str | None, crosswalk: Crosswalk = NOTHING) -> Coded:
    """Take a code apart and encode its CodeableConcept, with the further codes of a crosswalk."""
    if code == codes.OBSERVATION_END:
        return Coded(code, "observation_end", "LOCAL", code, code, fragment({}), None)
    kind, system, value = codes.parse(code)
    whole = event_concept(system, value, description)
    further = crosswalk.of(kind, system, value)
    if further:
        whole["coding"][0]["userSelected"] = True
        whole["coding"] += codings(further)
    loinc = value if system == "LOINC" else None
    if kind == "observation" and loinc is None:
        loinc = next((one.value for one in further if one.system == "LOINC"), None)
    if loinc in profiles.GENERAL_CODE:
        general = profiles.GENERAL_CODE[loinc]
        whole["coding"].append(coding(codes.uri("LOINC"), general, profiles.GENERAL_CODES[general]))
    change = _change(kind, system, value)
    return Coded(code, kind, system, value, whole["text"], fragment(whole), change, loinc, bool(further))


_WORDS = {"race": frozenset(codes.RACES.values()), "ethnicity": frozenset(codes.ETHNICITIES.values())}


def _change(kind: str, system: str, value: str) -> str | None:
    if value in _WORDS.get(kind, ()):
        return "race or ethnicity in words, written as its code"
    if not is_well_formed(system, code_value(value)):
        return "code that its system cannot have, written as a local one"
    return "white space in a code" if code_value(value) != value else None


def may_hold_answer(code: Coded) -> bool:
    """Whether the text of an event may be a coded answer: that of an allergy, or of an observation but a vital sign."""
    if code.kind != "observation":
        return code.kind == "allergy"
    return code.loinc is None or profiles.category_of(code.loinc, None) != profiles.VITAL_SIGN


def shape_of(code: Coded, unit: str | None, form: int, labels: Labels) -> Shape:
    """The shape of the resources of a code with a unit and a form."""
    if code.kind == "observation":
        return _observation(code, unit, form, labels)
    head = HEADS[code.kind](code, form, labels) if code.kind in HEADS else {}
    return Shape(code, head, None, quantity_unit(unit), False)


def _condition(code: Coded, form: int, labels: Labels) -> Resource:
    in_visit = form & IN_VISIT
    profile = "us-core-condition-" + ("encounter-diagnosis" if in_visit else "problems-health-concerns")
    return {
        **_head("Condition", labels, profile),
        "clinicalStatus": _RESOLVED if form & ENDED else _ACTIVE,
        "verificationStatus": _CONFIRMED,
        "category": _DIAGNOSIS if in_visit else _PROBLEM,
        "code": code.concept,
    }


def _procedure(code: Coded, form: int, labels: Labels) -> Resource:
    """A procedure without any time cannot be completed (us-core-7)."""
    status = "completed" if form & (TIMED | ENDED) else "unknown"
    return {**_head("Procedure", labels, "us-core-procedure"), "status": status, "code": code.concept}


def _medication_request(code: Coded, form: int, labels: Labels) -> Resource:
    return {
        **_head("MedicationRequest", labels, "us-core-medicationrequest"),
        "status": "completed" if form & ENDED else "active",
        "intent": "order",
        "reportedBoolean": False,
        "medicationCodeableConcept": code.concept,
        "dosageInstruction": fragment([dosage(code.display)]),
    }


def _immunization(code: Coded, form: int, labels: Labels) -> Resource:
    """US Core has no vaccines coded in NDC (us-core-5)."""
    profile = None if code.system == "NDC" else "us-core-immunization"
    return {
        **_head("Immunization", labels, profile),
        "status": "completed",
        "primarySource": True,
        "vaccineCode": code.concept,
    }


def _allergy(code: Coded, form: int, labels: Labels) -> Resource:
    return {
        **_head("AllergyIntolerance", labels, "us-core-allergyintolerance"),
        "clinicalStatus": _ALLERGY_ACTIVE,
        "verificationStatus": _ALLERGY_CONFIRMED,
        "code": code.concept,
    }


def _report(code: Coded, form: int, labels: Labels) -> Resource:
    """A report without a time cannot be final (us-core-8 and 9)."""
    laboratory = code.system != "LOINC" or profiles.category_of(code.value, None) == profiles.LABORATORY
    laboratory &= code.value != profiles.BLOOD_PRESSURE
    return {
        **_head("DiagnosticReport", labels, "us-core-diagnosticreport-lab" if laboratory else None),
        "status": "final" if form & TIMED else "unknown",
        "category": _LABORATORY_REPORT if laboratory else _OTHER_REPORT,
        "code": code.concept,
    }


def _care_plan(code: Coded, form: int, labels: Labels) -> Resource:
    """A CarePlan has no code: it stands as the last category, and in the narrative."""
    return {
        **_head("CarePlan", labels, "us-core-careplan"),
        "text": narrative(code.display),
        "status": "completed" if form & ENDED else "active",
        "intent": "plan",
        "category": [_ASSESS_PLAN, code.concept] if labels.us_core else [code.concept],
    }


HEADS: dict[str, Callable[[Coded, int, Labels], Resource]] = {
    "condition": _condition,
    "procedure": _procedure,
    "medication": _medication_request,
    "immunization": _immunization,
    "allergy": _allergy,
    "panel": _report,
    "care_plan": _care_plan,
}
"""The members that a code and a form decide, by kind of event; those of observations depend on the unit too."""


def _head(resource_type: str, labels: Labels, profile: str | None) -> Resource:
    return {"resourceType": resource_type, "id": "", "meta": labels.meta(profile)}


def _observation(code: Coded, unit: str | None, form: int, labels: Labels) -> Shape:
    if code.loinc is None:
        return _observed(code, None, None, labels, quantity_unit(unit))
    sign = profiles.vital_sign(code.loinc)
    if sign is not None:
        return _vital_sign(code, sign, unit, form, labels)
    category = profiles.category_of(code.loinc, unit)
    profile = {
        profiles.LABORATORY: "us-core-observation-lab",
        profiles.SURVEY: "us-core-observation-screening-assessment",
    }.get(category)
    if code.loinc == profiles.SMOKING_STATUS and form & ~IN_VISIT == CODED | TIMED:
        profile = "us-core-smokingstatus"
    return _observed(code, category, profile, labels, quantity_unit(unit))


def _vital_sign(code: Coded, sign: profiles.VitalSign, unit: str | None, form: int, labels: Labels) -> Shape:
    """A vital sign claims its profile where time and unit fit; a number that does not fit stands in a component."""
    equivalent = profiles.EQUIVALENT_UNITS.get(unit or "", unit)
    if form & NUMERIC and equivalent not in sign.units:
        return _observed(code, profiles.VITAL_SIGN, None, labels, {"unit": unit} if unit else {}, boxed=True)
    profile = sign.profile if form & (TIMED | ENDED) == TIMED else None
    spelled = {"unit": unit, "system": codes.UCUM_URI, "code": equivalent} if unit else {}
    return _observed(code, profiles.VITAL_SIGN, profile, labels, spelled)


def _observed(
    code: Coded, category: str | None, profile: str | None, labels: Labels, unit: Resource, *, boxed: bool = False
) -> Shape:
    head = {**_head("Observation", labels, profile), "status": "final"}
    if category is not None:
        head["category"] = profiles.CATEGORIES[category]
    head["code"] = code.concept
    return Shape(code, head, category, unit, boxed)


def pressure_shape(labels: Labels) -> Shape:
    """The shape of a blood pressure of two components."""
    code = coded(f"LOINC//{profiles.BLOOD_PRESSURE}", "Blood pressure panel with all children optional")
    return _observed(code, profiles.VITAL_SIGN, "us-core-blood-pressure", labels, {})


def quantity_unit(unit: str | None) -> Resource:
    """The members of a Quantity that say its unit; coded where it is UCUM."""
    if not unit:
        return {}
    return {"unit": unit, "system": codes.UCUM_URI, "code": unit} if is_ucum(unit) else {"unit": unit}

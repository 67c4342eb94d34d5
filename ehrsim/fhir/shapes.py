"""The shape of a resource: all that its code, its unit and the columns that are filled decide, worked out once.

A shape holds the pre-encoded parts that all resources of that shape share. There are as many as distinct (code, unit,
form) in the events: some thousands, however many events there are.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

from ehrsim import codes
from ehrsim.fhir import profiles
from ehrsim.fhir.fragments import HL7, Fragment, Labels, Resource, coding, concept, event_concept, fragment
from ehrsim.fhir.ucum import is_ucum

KINDS: tuple[str, ...] = (*get_args(codes.Kind), "observation_end")
NUMBER_OF = {kind: number for number, kind in enumerate(KINDS)}

NUMERIC, CODED, TEXT, TIMED, ENDED, IN_VISIT = (1 << bit for bit in range(6))
"""Bits of a form: which columns an event fills. CODED is a text that is a code of a known system."""

_CONDITION_CATEGORIES = {
    name: fragment([concept(f"{HL7}condition-category", name, display)])
    for name, display in (("encounter-diagnosis", "Encounter Diagnosis"), ("problem-list-item", "Problem List Item"))
}
_REPORT_CATEGORIES = {
    name: fragment([concept(f"{HL7}v2-0074", name, display)])
    for name, display in (("LAB", "Laboratory"), ("OTH", "Other"))
}
_PROFILES = {
    "procedure": "us-core-procedure",
    "medication": "us-core-medicationrequest",
    "immunization": "us-core-immunization",
    "allergy": "us-core-allergyintolerance",
    "care_plan": "us-core-careplan",
}


class Coded(NamedTuple):
    """A code of the events, taken apart and encoded."""

    code: str
    kind: str
    system: str
    value: str
    display: str
    concept: Fragment


class Shape(NamedTuple):
    """What all resources of one code, unit and form share."""

    code: Coded
    meta: Fragment
    category: Fragment | None = None
    category_name: str | None = None
    unit: Resource = {}
    boxed: bool = False
    """The value stands in a component, because the profile of the code does not allow it as the value."""


class Shapes:
    """The codes, units and shapes met so far in one export, by number."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.codes: list[Coded] = []
        self.units: list[str | None] = [None]
        self._code_numbers: dict[tuple[str, str | None], int] = {}
        self._unit_numbers: dict[str | None, int] = {None: 0}
        self._shapes: dict[int, Shape] = {}

    def code_number(self, code: str, description: str | None) -> int:
        """The number of a code with its description."""
        number = self._code_numbers.setdefault((code, description), len(self.codes))
        if number == len(self.codes):
            self.codes.append(coded(code, description))
        return number

    def unit_number(self, unit: str | None) -> int:
        """The number of a unit."""
        number = self._unit_numbers.setdefault(unit, len(self.units))
        if number == len(self.units):
            self.units.append(unit)
        return number

    @staticmethod
    def key(code_number: int, unit_number: int, form: int) -> int:
        """The key of a shape; also computed for whole columns, so only arithmetic."""
        return (code_number << 24) | (unit_number << 8) | form

    def shape(self, key: int) -> Shape:
        """The shape of a key."""
        shape = self._shapes.get(key)
        if shape is None:
            code, unit = self.codes[key >> 24], self.units[(key >> 8) & 0xFFFF]
            shape = self._shapes[key] = shape_of(code, unit, key & 0xFF, self.labels)
        return shape


def coded(code: str, description: str | None) -> Coded:
    """Take a code apart and encode its CodeableConcept."""
    if code == codes.OBSERVATION_END:
        return Coded(code, "observation_end", "LOCAL", code, code, fragment({}))
    kind, system, value = codes.parse(code)
    whole = event_concept(system, value, description)
    if (system, value) == ("LOINC", profiles.PULSE_OXIMETRY):
        parent = coding(codes.uri("LOINC"), profiles.OXYGEN_SATURATION, "Oxygen saturation in Arterial blood")
        whole["coding"].append(parent)
    return Coded(code, kind, system, value, whole["text"], fragment(whole))


def shape_of(code: Coded, unit: str | None, form: int, labels: Labels) -> Shape:
    """The shape of the resources of a code with a unit and a form."""
    if code.kind == "observation":
        return _observation(code, unit, form, labels)
    if code.kind == "condition":
        name = "encounter-diagnosis" if form & IN_VISIT else "problem-list-item"
        profile: str | None = "us-core-condition-" + (name if form & IN_VISIT else "problems-health-concerns")
        return Shape(code, labels.meta(profile), _CONDITION_CATEGORIES[name])
    if code.kind == "panel":
        laboratory = code.system != "LOINC" or profiles.category_of(code.value, None) == profiles.LABORATORY
        laboratory &= code.value != profiles.BLOOD_PRESSURE
        profile = "us-core-diagnosticreport-lab" if laboratory else None
        return Shape(code, labels.meta(profile), _REPORT_CATEGORIES["LAB" if laboratory else "OTH"])
    profile = _PROFILES.get(code.kind)
    if (code.kind, code.system) == ("immunization", "NDC"):
        profile = None  # us-core-5: vaccines of US Core are not coded in NDC
    return Shape(code, labels.meta(profile), unit=quantity_unit(unit))


def _observation(code: Coded, unit: str | None, form: int, labels: Labels) -> Shape:
    if code.system != "LOINC":
        return Shape(code, labels.meta(), unit=quantity_unit(unit))
    sign = profiles.VITAL_SIGNS.get(code.value)
    if sign is not None:
        return _vital_sign(code, sign, unit, form, labels)
    name = profiles.category_of(code.value, unit)
    profile = {
        profiles.LABORATORY: "us-core-observation-lab",
        profiles.SURVEY: "us-core-observation-screening-assessment",
    }.get(name)
    if code.value == profiles.SMOKING_STATUS and form & ~IN_VISIT == CODED | TIMED:
        profile = "us-core-smokingstatus"
    return Shape(code, labels.meta(profile), profiles.CATEGORIES[name], name, quantity_unit(unit))


def _vital_sign(code: Coded, sign: profiles.VitalSign, unit: str | None, form: int, labels: Labels) -> Shape:
    """A vital sign claims its profile where unit, value and time fit it; a value that does not stands in a component."""
    name = profiles.VITAL_SIGN
    category = profiles.CATEGORIES[name]
    equivalent = profiles.EQUIVALENT_UNITS.get(unit or "", unit)
    fits = equivalent in sign.units if form & NUMERIC else not form & (CODED | TEXT)
    if not fits:
        return Shape(code, labels.meta(), category, name, {"unit": unit} if unit else {}, boxed=True)
    profile = sign.profile if form & TIMED else None
    spelled = {"unit": unit, "system": codes.UCUM_URI, "code": equivalent} if unit else {}
    return Shape(code, labels.meta(profile), category, name, spelled)


def pressure_shape(labels: Labels) -> Shape:
    """The shape of a blood pressure of two components."""
    code = coded(f"LOINC//{profiles.BLOOD_PRESSURE}", "Blood pressure panel with all children optional")
    name = profiles.VITAL_SIGN
    return Shape(code, labels.meta("us-core-blood-pressure"), profiles.CATEGORIES[name], name)


def quantity_unit(unit: str | None) -> Resource:
    """The members of a Quantity that say its unit; coded where it is UCUM."""
    if not unit:
        return {}
    return {"unit": unit, "system": codes.UCUM_URI, "code": unit} if is_ucum(unit) else {"unit": unit}

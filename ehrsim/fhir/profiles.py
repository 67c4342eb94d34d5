"""Which category, US Core profile and unit the codes of observations ask for, and what panels consist of.

Sources: US Core 6.1.0 and FHIR R4 vital signs profiles (HL7, CC0); LOINC codes (Regenstrief Institute, Inc.).
"""

from __future__ import annotations

from typing import NamedTuple

from ehrsim.fhir.fragments import HL7, concept, fragment


class VitalSign(NamedTuple):
    """What the profile of a vital sign asks for: its name in US Core and the units it allows."""

    profile: str
    units: tuple[str, ...]


SYSTOLIC, DIASTOLIC, BLOOD_PRESSURE = "8480-6", "8462-4", "85354-9"
BLOOD_PRESSURE_UNIT = "mm[Hg]"
SMOKING_STATUS = "72166-2"
OXYGEN_SATURATION, PULSE_OXIMETRY = "2708-6", "59408-5"

VITAL_SIGNS: dict[str, VitalSign] = {
    "8867-4": VitalSign("us-core-heart-rate", ("/min",)),
    "9279-1": VitalSign("us-core-respiratory-rate", ("/min",)),
    "8310-5": VitalSign("us-core-body-temperature", ("Cel", "[degF]")),
    "8302-2": VitalSign("us-core-body-height", ("cm", "[in_i]")),
    "29463-7": VitalSign("us-core-body-weight", ("kg", "g", "[lb_av]")),
    "39156-5": VitalSign("us-core-bmi", ("kg/m2",)),
    "9843-4": VitalSign("us-core-head-circumference", ("cm", "[in_i]")),
    OXYGEN_SATURATION: VitalSign("us-core-vital-signs", ("%",)),
    PULSE_OXIMETRY: VitalSign("us-core-pulse-oximetry", ("%",)),
    "59576-9": VitalSign("pediatric-bmi-for-age", ("%",)),
    "77606-2": VitalSign("pediatric-weight-for-height", ("%",)),
    "8289-1": VitalSign("head-occipital-frontal-circumference-percentile", ("%",)),
}
"""Codes that make an Observation a vital sign; FHIR R4 holds them to its profile whether it claims it or not."""

MORE_VITAL_SIGNS = frozenset((SYSTOLIC, DIASTOLIC, "8478-0", "3141-9", "8331-1", "8306-3", "8287-5", "3137-7"))
"""Vital signs without a profile of their own."""

EQUIVALENT_UNITS = {
    "{beats}/min": "/min",
    "{Beats}/min": "/min",
    "{breaths}/min": "/min",
    "{Breaths}/min": "/min",
    "{counts}/min": "/min",
    "1/min": "/min",
    "kg/m^2": "kg/m2",
    "{percent}": "%",
}
"""Spellings of exactly the same UCUM unit, for profiles that fix one of them."""

SURVEYS = frozenset(
    """44261-6 70274-6 55758-7 69737-5 75626-2 82667-7 89204-2 82668-5 44249-1 72109-2 93025-5 71802-3 63586-2 67875-5
    93035-4 93038-8 76690-7 89206-7 55757-9 68516-4 68517-2 72133-2 72106-8 9269-2 38208-5 71956-7 72514-3 82589-3
    56799-0 56051-6 54899-0 63512-8 93159-2 93026-3 93027-1 93028-9 93029-7 93030-5 93031-3 93033-9 93034-7
    99550-6""".split()  # noqa: SIM905
)
"""Codes of questionnaires and scores that are answered, not measured."""

SURVEY_UNITS = frozenset(("{score}", "{T-score}"))
SOCIAL_HISTORY = frozenset(
    (SMOKING_STATUS, "11367-0", "11341-5", "63513-6", "74013-4", "11331-6", "76689-9", "82810-3")
)

LABORATORY, VITAL_SIGN, SURVEY, SOCIAL = "laboratory", "vital-signs", "survey", "social-history"
_DISPLAYS = {LABORATORY: "Laboratory", VITAL_SIGN: "Vital Signs", SURVEY: "Survey", SOCIAL: "Social History"}
CATEGORIES = {
    name: fragment([concept(f"{HL7}observation-category", name, display)]) for name, display in _DISPLAYS.items()
}

_BASIC = frozenset(("2345-7", "3094-0", "2160-0", "17861-6", "2951-2", "2823-3", "2075-0", "2028-9"))
_METABOLIC = _BASIC | {"1751-7", "2885-2", "1975-2", "6768-6", "1742-6", "1920-8", "62238-1", "33914-3"}
_BLOOD = frozenset(("6690-2", "789-8", "718-7", "4544-3", "787-2", "785-6", "786-4", "777-3", "788-0", "21000-5"))
_LIPIDS = frozenset(("2093-3", "2571-8", "2085-9", "13457-7", "18262-6"))
PANELS: dict[str, frozenset[str]] = {
    BLOOD_PRESSURE: frozenset((SYSTOLIC, DIASTOLIC)),
    "51990-0": _BASIC | {"62238-1", "33914-3"},
    "24320-4": _BASIC,
    "24321-2": _BASIC,
    "24323-8": _METABOLIC,
    "57698-3": _LIPIDS,
    "24331-1": _LIPIDS,
    "58410-2": _BLOOD,
    "57021-8": _BLOOD,
}
"""LOINC members of common panels; any other panel holds every laboratory observation of its time."""


def category_of(code: str, unit: str | None) -> str:
    """The category of a LOINC observation."""
    if code in VITAL_SIGNS or code in MORE_VITAL_SIGNS:
        return VITAL_SIGN
    if code in SOCIAL_HISTORY:
        return SOCIAL
    return SURVEY if code in SURVEYS or unit in SURVEY_UNITS else LABORATORY


def in_panel(panel: str, code: str, category: str | None) -> bool:
    """Whether an observation of that code belongs to a panel when both are of one time and visit."""
    members = PANELS.get(panel)
    return category == LABORATORY if members is None else code in members

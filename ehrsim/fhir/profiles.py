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

GENERAL_CODES = {
    "9279-1": "Respiratory rate",
    "8867-4": "Heart rate",
    OXYGEN_SATURATION: "Oxygen saturation in Arterial blood",
    "8310-5": "Body temperature",
    "8302-2": "Body height",
    "9843-4": "Head Occipital-frontal circumference",
    "29463-7": "Body weight",
    "39156-5": "Body mass index (BMI) [Ratio]",
}
"""The code that each vital signs profile of FHIR R4 asks for, with its name."""
_MORE_SPECIAL = {
    "9279-1": "76170-0 76172-6 76171-8 19840-8 33438-3 76270-8 11291-2",
    "8867-4": """60978-4 73795-7 73799-9 76476-1 76477-9 8889-8 8890-6 8891-4 8892-2 8893-0 40443-4 55425-3 68999-2
        11328-2 69000-8 8886-4""",
    OXYGEN_SATURATION: "19224-5 20564-1 2709-4 2710-2 2713-6 51733-4 59408-5 59417-6 89276-0 97549-0",
    "8310-5": """60834-9 60835-6 60836-4 60838-0 60955-2 61009-7 75539-7 75987-8 76010-8 76011-6 76278-1 8309-7 8328-7
        8329-5 8330-3 8331-1 8332-9 8333-7 8334-5 91371-5 98657-0 98663-8""",
    "8302-2": "3137-7 3138-5 8306-3 8308-9",
    "9843-4": "8287-5",
    "29463-7": "3141-9 3142-7 75292-3 79348-9 8350-1 8351-9",
    "39156-5": "89270-3",
}
GENERAL_CODE = {special: general for general, names in _MORE_SPECIAL.items() for special in names.split()}
"""Codes that say how or where one of these was measured. HL7's validator holds them to its profile, which then wants
the general code beside the special one."""

MORE_VITAL_SIGNS = frozenset((SYSTOLIC, DIASTOLIC, "8478-0"))
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


def vital_sign(code: str) -> VitalSign | None:
    """What the profile of a LOINC code asks for, which may be that of the general code; None without a profile."""
    return VITAL_SIGNS.get(code) or VITAL_SIGNS.get(GENERAL_CODE.get(code, ""))


def category_of(code: str, unit: str | None) -> str:
    """The category of a LOINC observation."""
    if vital_sign(code) is not None or code in MORE_VITAL_SIGNS:
        return VITAL_SIGN
    if code in SOCIAL_HISTORY:
        return SOCIAL
    return SURVEY if code in SURVEYS or unit in SURVEY_UNITS else LABORATORY


def in_panel(panel: str, code: str, category: str | None) -> bool:
    """Whether an observation of that code belongs to a panel when both are of one time and visit."""
    members = PANELS.get(panel)
    return category == LABORATORY if members is None else code in members

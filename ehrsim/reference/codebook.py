"""The codes that the reference population writes, numbered in alphabetical order, with displays, units and kinds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ehrsim import codes
from ehrsim.codes import Kind
from ehrsim.reference.loading import load
from ehrsim.reference.specification import Family

VISIT_CLASSES = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "HH": "home health",
    "IMP": "inpatient encounter",
    "VR": "virtual",
}
SMOKING_STATUS = "LOINC//72166-2"
SMOKING_ANSWERS = ("SNOMED//266919005", "SNOMED//8517006", "SNOMED//449868002")
"""Never, former and current daily smoker."""
WELL_CHILD, WELL_ADULT, NEWBORN = "ICD10CM//Z00.129", "ICD10CM//Z00.00", "ICD10CM//Z38.00"
WELLNESS_TYPE, VIRTUAL_TYPE = "SNOMED//162673000", "SNOMED//448337001"
FOLLOW_UP_TYPE, EMERGENCY_TYPE, ADMISSION_TYPE = "SNOMED//390906007", "SNOMED//4525004", "SNOMED//32485007"


class Codebook(NamedTuple):
    """All event codes in alphabetical order: a code's number is its rank, so that numbers sort as codes do."""

    codes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    units: tuple[str | None, ...]
    number: dict[str, int]

    def of(self, kind: Kind, code: str) -> int:
        """The number of a specification's `SYSTEM//CODE` as an event of a kind."""
        return self.number[event_code(kind, code)]


def event_code(kind: Kind, code: str) -> str:
    """The canonical event code of a specification's `SYSTEM//CODE`."""
    system, _, value = code.partition("//")
    return codes.join(kind, system, value)


@lru_cache(maxsize=1)
def codebook() -> Codebook:
    """The codebook of the shipped specification."""
    family = load()
    described = dict(_described(family))
    ordered = tuple(sorted(described))
    units = {item.code: item.unit for item in family.measurement}
    return Codebook(
        ordered,
        tuple(described[code] for code in ordered),
        tuple(units.get(code) for code in ordered),
        {code: position for position, code in enumerate(ordered)},
    )


def _described(family: Family) -> Iterator[tuple[str, str]]:
    yield codes.BIRTH, "Birth"
    yield codes.DEATH, "Death"
    for visit_class, display in VISIT_CLASSES.items():
        yield f"VISIT_START//{visit_class}", f"Start of visit: {display}"
        yield f"VISIT_END//{visit_class}", f"End of visit: {display}"
    yield "GENDER//female", "Female"
    yield "GENDER//male", "Male"
    yield from ((f"RACE//{code}", display) for code, display in codes.RACES.items())
    yield from ((f"ETHNICITY//{code}", display) for code, display in codes.ETHNICITIES.items())
    for code, display in family.codes.items():
        if code.startswith(("LANGUAGE//", "MARITAL//")):
            yield code, display
    for kind, code in _emitted(family):
        yield event_code(kind, code), family.codes[code]


def _emitted(family: Family) -> Iterator[tuple[Kind, str]]:
    """Every kind of event that the specification can give rise to, with its code."""
    yield "observation", SMOKING_STATUS
    yield from (("reason", code) for code in (WELL_CHILD, WELL_ADULT, NEWBORN))
    for visit_type in (WELLNESS_TYPE, VIRTUAL_TYPE, FOLLOW_UP_TYPE, EMERGENCY_TYPE, ADMISSION_TYPE):
        yield "visit_type", visit_type
    for encounter in family.encounter:
        yield "visit_type", encounter.visit_type
        if encounter.reason:
            yield "reason", encounter.reason
        yield from (("condition", item.code) for item in encounter.diagnoses)
        yield from (("procedure", item.code) for item in encounter.procedures)
        yield from (("medication", item.code) for item in encounter.medications + encounter.one_of)
        yield from (("allergy", item.code) for item in encounter.allergies)
        yield from (("care_plan", item.code) for item in encounter.care_plans)
    for follow_up in family.follow_up:
        yield "reason", follow_up.reason
        yield from (("procedure", item.code) for item in follow_up.procedures)
    for screening in family.screening:
        yield "visit_type", screening.visit_type
        yield from (("procedure", item.code) for item in screening.procedures)
    yield from (("medication", item.code) for treatment in family.treatment for item in treatment.products)
    yield from (("immunization", item.code) for item in family.vaccine)
    yield from (("observation", item.code) for item in family.measurement)
    yield from (("panel", item.code) for item in family.panel if item.code)

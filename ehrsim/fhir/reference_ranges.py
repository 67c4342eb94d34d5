"""Reference ranges of common laboratory tests in adults, and what a value outside of one is called.

The bounds are those in general use in the United States (conventional units), rounded; every laboratory states its own.
They apply to the unit that is named and to no other.
"""

from __future__ import annotations

from typing import NamedTuple

from ehrsim.codes import UCUM_URI
from ehrsim.fhir.fragments import HL7, Fragment, Resource, concept, fragment

FEMALE, MALE, ANYONE = "female", "male", ""


class Range(NamedTuple):
    """Bounds of what is usual, each None where there is none."""

    low: float | None
    high: float | None


class Ranges(NamedTuple):
    """The ranges of a test in one unit, by sex where they differ."""

    unit: str
    by_sex: dict[str, Range]


def _all(unit: str, low: float | None, high: float | None) -> Ranges:
    return Ranges(unit, {ANYONE: Range(low, high)})


def _each(unit: str, female: Range, male: Range) -> Ranges:
    return Ranges(unit, {FEMALE: female, MALE: male})


_CREATININE = _each("mg/dL", Range(0.5, 1.1), Range(0.7, 1.3))
_LDL = _all("mg/dL", None, 130)

RANGES: dict[str, Ranges] = {
    "2160-0": _CREATININE,
    "38483-4": _CREATININE,
    "2951-2": _all("mmol/L", 136, 145),
    "2947-0": _all("mmol/L", 136, 145),
    "2823-3": _all("mmol/L", 3.5, 5.1),
    "6298-4": _all("mmol/L", 3.5, 5.1),
    "2075-0": _all("mmol/L", 98, 107),
    "2069-3": _all("mmol/L", 98, 107),
    "2028-9": _all("mmol/L", 22, 29),
    "20565-8": _all("mmol/L", 22, 29),
    "1963-8": _all("mmol/L", 22, 28),
    "17861-6": _all("mg/dL", 8.5, 10.5),
    "49765-1": _all("mg/dL", 8.5, 10.5),
    "3094-0": _all("mg/dL", 7, 20),
    "6299-2": _all("mg/dL", 7, 20),
    "2345-7": _all("mg/dL", 70, 140),
    "2339-0": _all("mg/dL", 70, 140),
    "62238-1": _all("mL/min/{1.73_m2}", 60, None),
    "33914-3": _all("mL/min/{1.73_m2}", 60, None),
    "4548-4": _all("%", 4.0, 5.6),
    "718-7": _each("g/dL", Range(12.0, 15.5), Range(13.5, 17.5)),
    "4544-3": _each("%", Range(36, 46), Range(41, 51)),
    "20570-8": _each("%", Range(36, 46), Range(41, 51)),
    "787-2": _all("fL", 80, 100),
    "785-6": _all("pg", 27, 33),
    "786-4": _all("g/dL", 32, 36),
    "777-3": _all("10*3/uL", 150, 400),
    "6690-2": _all("10*3/uL", 4.0, 11.0),
    "789-8": _each("10*6/uL", Range(3.9, 5.1), Range(4.5, 5.9)),
    "788-0": _all("%", 11.5, 14.5),
    "2093-3": _all("mg/dL", None, 200),
    "2571-8": _all("mg/dL", None, 150),
    "2085-9": _each("mg/dL", Range(50, None), Range(40, None)),
    "13457-7": _LDL,
    "18262-6": _LDL,
    "1751-7": _all("g/dL", 3.5, 5.0),
    "2885-2": _all("g/dL", 6.0, 8.3),
    "1975-2": _all("mg/dL", 0.1, 1.2),
    "6768-6": _all("U/L", 40, 130),
    "1742-6": _all("U/L", 7, 40),
    "1920-8": _all("U/L", 8, 40),
    "3016-3": _all("m[iU]/L", 0.4, 4.5),
    "14959-1": _all("mg/g", None, 30),
    "2857-1": _all("ng/mL", None, 4.0),
    "2276-4": _each("ng/mL", Range(11, 150), Range(24, 300)),
    "33762-6": _all("pg/mL", None, 300),
    "2524-7": _all("mmol/L", 0.5, 2.0),
    "19123-9": _all("mmol/L", 0.7, 1.0),
    "2744-1": _all("[pH]", 7.35, 7.45),
    "2019-8": _all("mm[Hg]", 35, 45),
    "2703-7": _all("mm[Hg]", 75, 100),
    "19926-5": _all("%", 70, None),
}
"""By LOINC code."""

_DISPLAYS = {"L": "Low", "N": "Normal", "H": "High"}
LOW, NORMAL, HIGH = (
    fragment([concept(f"{HL7}v3-ObservationInterpretation", code, display)]) for code, display in _DISPLAYS.items()
)
"""Values of Observation.interpretation."""


def reference_range(ranges: Ranges) -> Fragment:
    """The value of Observation.referenceRange: one range, or one of each sex."""
    return fragment([_encoded(one, ranges.unit, sex) for sex, one in ranges.by_sex.items()])


def _encoded(one: Range, unit: str, sex: str) -> Resource:
    quantities = {
        name: {"value": bound, "unit": unit, "system": UCUM_URI, "code": unit}
        for name, bound in (("low", one.low), ("high", one.high))
        if bound is not None
    }
    applies = (
        {"appliesTo": [concept("http://hl7.org/fhir/administrative-gender", sex, sex.capitalize())]} if sex else {}
    )
    normal = concept(f"{HL7}referencerange-meaning", "normal", "Normal Range")
    return {**quantities, "type": normal, **applies}

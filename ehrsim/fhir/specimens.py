"""What a laboratory test is done on, by the words that LOINC has for it."""

from __future__ import annotations

from typing import NamedTuple

from ehrsim.fhir import profiles
from ehrsim.fhir.shapes import Coded


class Material(NamedTuple):
    """A type of specimen in SNOMED CT."""

    code: str
    display: str


BLOOD = Material("119297000", "Blood specimen")
SERUM = Material("119364003", "Serum specimen")
URINE = Material("122575003", "Urine specimen")
STOOL = Material("119339001", "Stool specimen")
FLUID = Material("258450006", "Cerebrospinal fluid sample")
MATERIALS = (SERUM, BLOOD, URINE, STOOL, FLUID)

_WORDS = (
    ("cerebral spinal fluid", FLUID),
    ("urine", URINE),
    ("stool", STOOL),
    ("serum", SERUM),
    ("plasma", SERUM),
    ("red blood cells", BLOOD),
    ("blood", BLOOD),
)
_OF_SERUM = frozenset(
    """2160-0 38483-4 2951-2 2947-0 2823-3 6298-4 2075-0 2069-3 2028-9 20565-8 17861-6 49765-1 3094-0 6299-2 2345-7
    2339-0 62238-1 33914-3 2093-3 2571-8 2085-9 13457-7 18262-6 1751-7 2885-2 1975-2 6768-6 1742-6 1920-8 3016-3 2857-1
    2276-4 33762-6 19123-9 6598-7 10839-9 1963-8""".split()  # noqa: SIM905
)
_OF_BLOOD = frozenset("4544-3 777-3 6690-2 718-7 789-8 787-2 4548-4 2524-7 2744-1 2019-8 2703-7".split())  # noqa: SIM905
_OF_URINE = frozenset(("14959-1", "9187-6"))
_KNOWN = {code: of for codes, of in ((_OF_SERUM, SERUM), (_OF_BLOOD, BLOOD), (_OF_URINE, URINE)) for code in codes}


def material_of(code: Coded) -> int:
    """The number in `MATERIALS` of what a test is done on, -1 where neither its name nor its code tell."""
    if code.kind != "observation" or code.system != "LOINC":
        return -1
    if profiles.category_of(code.value, None) != profiles.LABORATORY:
        return -1
    known = _KNOWN.get(code.value)
    if known is None:
        words = code.display.casefold()
        known = next((material for word, material in _WORDS if word in words), None)
    return -1 if known is None else MATERIALS.index(known)

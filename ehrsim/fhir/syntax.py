"""Whether a code can be one of its system at all, by shape and check digit.

Event data holds misspelt codes. FHIR says that what stands under the URI of a system is a code of it, so a code that
cannot be one is written under a local URI. Sources: SNOMED CT identifiers (Verhoeff check digit), LOINC (mod 10 check
digit), FHIR "Using Codes" for the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from ehrsim import codes
from ehrsim.codes.check_digits import mod_10, verhoeff


def system_uri(system: str, value: str) -> str:
    """The URI that a code stands under: that of its system, or a local one where it cannot be a code of that."""
    if is_well_formed(system, value):
        return codes.uri(system)
    return codes.LOCAL_URI + quote(system)


def is_well_formed(system: str, value: str) -> bool:
    """Whether a code has the shape of its system; true for systems whose shape is not known here.

    >>> [is_well_formed("SNOMED", value) for value in ("44054006", "44054007", "E11")]
    [True, False, False]
    >>> [is_well_formed("LOINC", value) for value in ("4548-4", "4548-5")]
    [True, False]
    """
    check = _CHECKS.get(system)
    return check is None or check(value)


def _is_snomed(value: str) -> bool:
    return re.fullmatch(r"[1-9]\d{5,17}", value, re.ASCII) is not None and verhoeff(value)


def _is_loinc(value: str) -> bool:
    match = re.fullmatch(r"(?:L[PAG])?(\d+)-(\d)", value, re.ASCII)
    if match is None or value.startswith("L"):
        return match is not None
    return mod_10(match[1], match[2])


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: compiled.fullmatch(value) is not None


_CHECKS: dict[str, Callable[[str], bool]] = {
    "SNOMED": _is_snomed,
    "LOINC": _is_loinc,
    "RxNorm": _matches(r"[1-9]\d{0,7}"),
    "CVX": _matches(r"\d{2,3}"),
    "ICD10CM": _matches(r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?"),
    "ICD9CM": _matches(r"[0-9VE]\d{2,3}(\.?\d{1,2})?"),
    "NDC": _matches(r"[0-9*-]{9,14}"),
}

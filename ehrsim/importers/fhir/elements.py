"""The elements of FHIR resources, read with their types checked: objects, texts, dates, quantities, coded concepts.

A JSON value of the wrong type, or a date that is none, raises `UnusableResource`, which the reader counts.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from ehrsim import codes
from ehrsim.codes import Kind

Element = dict[str, Any]

_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_TYPE_NAMES = {dict: "an object", list: "an array", str: "a text", bool: "true or false", int: "a number"}

_PREFERRED: dict[Kind, tuple[str, ...]] = {
    "condition": ("SNOMED", "ICD10CM", "ICD10", "ICD9CM"),
    "procedure": ("SNOMED", "CPT", "HCPCS", "ICD10PCS", "ICD9PROC"),
    "medication": ("RxNorm", "NDC", "ATC", "SNOMED"),
    "immunization": ("CVX", "NDC", "SNOMED"),
    "allergy": ("SNOMED", "RxNorm"),
    "observation": ("LOINC", "SNOMED"),
    "panel": ("LOINC", "SNOMED"),
}
_PREFERRED_ELSE = ("SNOMED", "ICD10CM", "LOINC", "RxNorm", "CVX")
"""Which of several codings of a concept is taken: the earliest system of these, then a known one, then the first."""


class UnusableResource(Exception):
    """Why a resource, or a part of it, cannot become an event: a reason to count under, and what was found."""

    def __init__(self, reason: str, found: object = "") -> None:
        self.reason = reason
        self.found = str(found)[:80]
        super().__init__(reason)


class Moment(NamedTuple):
    """A point in time: microseconds since 1970 of the wall clock as written, and whether its day was written at all."""

    microseconds: int
    partial: bool


class Meaning(NamedTuple):
    """The code of an event and its display."""

    code: str
    description: str | None


def child(parent: Element, name: str) -> Element | None:
    """The object under a name, None if there is none."""
    value = parent.get(name)
    if value is None or type(value) is dict:
        return value
    raise _mistyped(name, value, "an object")


def children(parent: Element, name: str) -> list[Element]:
    """The objects in the array under a name, empty if there is none."""
    value = parent.get(name)
    if value is None:
        return []
    if type(value) is not list:
        raise _mistyped(name, value, "an array")
    for item in value:
        if type(item) is not dict:
            raise _mistyped(name, item, "an array of objects")
    return value


def first(parent: Element, name: str) -> Element | None:
    """The first object in the array under a name, None if there is none."""
    items = children(parent, name)
    return items[0] if items else None


def text(parent: Element, name: str) -> str | None:
    """The text under a name, None if there is none or it is blank."""
    value = parent.get(name)
    if type(value) is str:
        return value if value and not value.isspace() else None
    if value is None:
        return None
    raise _mistyped(name, value, "a text")


def number(parent: Element, name: str) -> float | None:
    """The number under a name, None if there is none."""
    value = parent.get(name)
    if value is None:
        return None
    if type(value) is not float and type(value) is not int:
        raise _mistyped(name, value, "a number")
    return float(value)


def boolean(parent: Element, name: str) -> bool | None:
    """The truth value under a name, None if there is none."""
    value = parent.get(name)
    if value is None or type(value) is bool:
        return value
    raise _mistyped(name, value, "true or false")


def moment(parent: Element, name: str) -> Moment | None:
    """The date or dateTime under a name, None if there is none."""
    written = text(parent, name)
    if written is None:
        return None
    parsed = _moment(written)
    if parsed is None:
        raise UnusableResource(f"`{name}` is not a FHIR date", written)
    return parsed


@lru_cache(maxsize=1 << 16)
def _moment(written: str) -> Moment | None:
    if not _DATE.fullmatch(written):
        return None
    partial = len(written) < 10
    try:
        stamp = datetime.fromisoformat(f"{written}-01-01"[:10] if partial else written)
    except ValueError:
        return None
    return Moment((stamp.replace(tzinfo=None) - _EPOCH) // _MICROSECOND, partial)


def unit(quantity: Element) -> str | None:
    """The unit of a Quantity: its UCUM code, or the unit as written where that says more (`{beats}/min`)."""
    written, code = text(quantity, "unit"), text(quantity, "code")
    coded = code is not None and quantity.get("system") == codes.UCUM_URI and not (written and "{" in written)
    return code if coded else written or code


def meaning(concept: Element | None, kind: Kind) -> Meaning | None:
    """The code of a CodeableConcept as an event of a kind, None where it says nothing."""
    if concept is None:
        return None
    coding = best_coding(concept, kind)
    if coding is None:
        return _worded(kind, text(concept, "text") or _display(concept))
    display = text(coding, "display") or text(concept, "text")
    return _meaning(kind, text(coding, "system"), coding["code"], display)


def best_coding(concept: Element, kind: Kind) -> Element | None:
    """The coding of a CodeableConcept that its event takes, None where no coding has a code."""
    codings = children(concept, "coding")
    if len(codings) == 1 and text(codings[0], "code") is not None:
        return codings[0]
    coded = [coding for coding in codings if text(coding, "code") is not None]
    if len(coded) < 2:
        return coded[0] if coded else None
    stated = [coding for coding in coded if "userSelected" in coding]
    if len(stated) == 1 and stated[0]["userSelected"] is True:
        # The others are translations of it. Where each of several says so or not, it is of a choice on a screen.
        return stated[0]
    return min(coded, key=lambda coding: _rank(kind, text(coding, "system")))


def answer(concept: Element, kind: Kind = "observation") -> str | None:
    """A coded answer as text: `SYSTEM//code` of a known system, else its words."""
    coding = best_coding(concept, kind)
    if coding is not None:
        system = codes.system_of_uri(text(coding, "system") or "")
        if codes.is_known_system(system):
            return f"{system}//{coding['code']}"
    return text(concept, "text") or _display(concept) or (coding["code"] if coding else None)


def compact(value: object) -> str:
    """Any JSON value as text, for values that an event has no column for."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _display(concept: Element) -> str | None:
    coding = first(concept, "coding")
    return text(coding, "display") if coding else None


@lru_cache(maxsize=1 << 16)
def _meaning(kind: Kind, system: str | None, code: str, display: str | None) -> Meaning:
    value = " ".join(code.split())
    name = codes.system_of_uri(system) if system else "LOCAL"
    return Meaning(codes.join(kind, name, value), display if display != value else None)


@lru_cache(maxsize=1 << 12)
def _worded(kind: Kind, words: str | None) -> Meaning | None:
    """A concept in words only becomes a local code of these words; `//` in them would be taken for a code's parts."""
    if words is None:
        return None
    return Meaning(codes.join(kind, "LOCAL", " ".join(words.replace("//", "/").split())), None)


@lru_cache(maxsize=1 << 10)
def _rank(kind: Kind, system: str | None) -> int:
    preferred = _PREFERRED.get(kind, _PREFERRED_ELSE)
    name = codes.system_of_uri(system) if system else "LOCAL"
    if name in preferred:
        return preferred.index(name)
    return len(preferred) + (not codes.is_known_system(name))


def _mistyped(name: str, value: object, expected: str) -> UnusableResource:
    found = _TYPE_NAMES.get(type(value), "null" if value is None else "a number")
    return UnusableResource(f"`{name}` is {found}, expected {expected}", compact(value))

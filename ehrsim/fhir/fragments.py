"""The parts of FHIR that many resources share, encoded once: metadata, codes, references, categories."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from typing import Any, NamedTuple

import orjson

from ehrsim import codes
from ehrsim.fhir.syntax import system_uri

HL7 = "http://terminology.hl7.org/CodeSystem/"
EXTENSIONS = "http://hl7.org/fhir/StructureDefinition/"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
SUBJECT_SYSTEM = f"{codes.URI_BASE}/identifier/subject"
VISIT_SYSTEM = f"{codes.URI_BASE}/identifier/visit"
TAG_SYSTEM = codes.TAG_SYSTEM

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Characters that no FHIR string can have."""

Resource = dict[str, Any]
Fragment = orjson.Fragment


def fragment(value: Any) -> Fragment:
    """A part encoded once, to stand in any number of resources."""
    return Fragment(orjson.dumps(value))


def coding(system: str, code: str, display: str) -> dict[str, str]:
    """A FHIR Coding."""
    return {"system": system, "code": code, "display": display}


def concept(system: str, code: str, display: str) -> Resource:
    """A CodeableConcept of one coding."""
    return {"coding": [coding(system, code, display)]}


def absent(reason: str) -> Resource:
    """A dataAbsentReason."""
    return {"coding": [coding(f"{HL7}data-absent-reason", reason, reason.capitalize())]}


def absent_extension(reason: str) -> Resource:
    """What stands in place of a primitive that is required but not known."""
    return {"extension": [{"url": f"{EXTENSIONS}data-absent-reason", "valueCode": reason}]}


def narrative(text: str) -> Resource:
    """A generated narrative of one line."""
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{escape(text)}</div>'}


class Labels(NamedTuple):
    """What labels every resource of an export: where it comes from, and that it is synthetic."""

    source: str
    us_core: str | None = "6.1"
    """The version of US Core whose profiles resources claim; they are plain FHIR R4 if None."""

    def meta(self, profile: str | None = None) -> Fragment:
        """The metadata of a resource, with the US Core profile of that name, or none."""
        return _meta(self.source, profile if self.us_core else None)

    def derived(self, profile: str | None = None) -> Fragment:
        """As `meta`, of a resource that no event is told by: it follows from others, or is invented."""
        return _meta(self.source, profile if self.us_core else None, derived=True)


@lru_cache(maxsize=256)
def _meta(source: str, profile: str | None, *, derived: bool = False) -> Fragment:
    meta: Resource = {"source": source}
    if profile:
        meta["profile"] = [US_CORE + profile]
    meta["security"] = [coding(f"{HL7}v3-ActReason", "HTEST", "test health data")]
    meta["tag"] = [coding(TAG_SYSTEM, "synthetic", "Synthetic")]
    if derived:
        meta["tag"].append(coding(TAG_SYSTEM, codes.DERIVED, "Derived"))
    return fragment(meta)


def code_value(value: str) -> str:
    """A code as FHIR allows it: without surrounding or doubled white space."""
    return " ".join(value.split())


def event_concept(system: str, value: str, description: str | None) -> Resource:
    """The CodeableConcept of an event's code; the code is its own display where it has no description."""
    value = code_value(value)
    display = CONTROL.sub(" ", description or "").strip() or value
    return {**concept(system_uri(system, value), value, display), "text": display}

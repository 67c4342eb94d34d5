"""The grammar of codes, the code systems with their canonical URIs, and the kinds of event.

A code is `[KIND//]SYSTEM//CODE`, for example `LOINC//4548-4`, `ICD10CM//E11.9`, `PROCEDURE//SNOMED//80146002`.
Each system has a default kind (LOINC: observation, RxNorm: medication, SNOMED: condition …); the prefix appears only
where the kind differs from it. An unknown system is *local*: its codes are passed through under a URI of ours.

Sources: MEDS 0.4 (sentinel codes), FHIR R4 "Using Codes" (canonical URIs), CDC Race & Ethnicity code set.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

Kind = Literal[
    "birth",
    "death",
    "gender",
    "race",
    "ethnicity",
    "marital",
    "language",
    "visit_start",
    "visit_end",
    "visit_type",
    "reason",
    "condition",
    "procedure",
    "medication",
    "immunization",
    "allergy",
    "observation",
    "panel",
    "care_plan",
]

BIRTH = "MEDS_BIRTH"
DEATH = "MEDS_DEATH"
OBSERVATION_END = "OBSERVATION_END"
"""End of follow-up: nothing is known of the subject after it (a censoring time, not a death)."""

URI_BASE = "https://ehrsim.github.io/fhir"
TAG_SYSTEM = f"{URI_BASE}/CodeSystem/tag"
"""Tags of FHIR resources written here."""
DERIVED = "derived"
"""The tag of resources that follow from others or are invented: an import makes no events of them."""
LOCAL_URI = f"{URI_BASE}/CodeSystem/local-"

PREFIXES: dict[str, Kind] = {
    "VISIT_START": "visit_start",
    "VISIT_END": "visit_end",
    "VISIT_TYPE": "visit_type",
    "REASON": "reason",
    "CONDITION": "condition",
    "PROCEDURE": "procedure",
    "MEDICATION": "medication",
    "IMMUNIZATION": "immunization",
    "ALLERGY": "allergy",
    "OBSERVATION": "observation",
    "PANEL": "panel",
    "CAREPLAN": "care_plan",
    "GENDER": "gender",
    "RACE": "race",
    "ETHNICITY": "ethnicity",
    "MARITAL": "marital",
    "LANGUAGE": "language",
}
PREFIX_OF: dict[Kind, str] = {kind: prefix for prefix, kind in PREFIXES.items()}
SINGLE_PART_KINDS: frozenset[Kind] = frozenset(
    ("visit_start", "visit_end", "gender", "race", "ethnicity", "marital", "language")
)
"""Kinds whose codes have one part after the prefix (`GENDER//female`): the prefix is their code system."""


class CodeSystem(NamedTuple):
    """A code system: its name in codes, canonical URI, the kind its codes have unless prefixed, and other URIs read."""

    name: str
    uri: str
    kind: Kind
    aliases: tuple[str, ...] = ()


_THO = "http://terminology.hl7.org/CodeSystem/"
_SYSTEMS = (
    CodeSystem("ICD10CM", "http://hl7.org/fhir/sid/icd-10-cm", "condition", ("urn:oid:2.16.840.1.113883.6.90",)),
    CodeSystem("ICD10", "http://hl7.org/fhir/sid/icd-10", "condition", ("urn:oid:2.16.840.1.113883.6.3",)),
    CodeSystem("ICD9CM", "http://hl7.org/fhir/sid/icd-9-cm", "condition", ("urn:oid:2.16.840.1.113883.6.103",)),
    CodeSystem(
        "ICD10PCS",
        "http://www.cms.gov/Medicare/Coding/ICD10",
        "procedure",
        ("http://hl7.org/fhir/sid/icd-10-pcs", "urn:oid:2.16.840.1.113883.6.4"),
    ),
    CodeSystem("ICD9PROC", "urn:oid:2.16.840.1.113883.6.104", "procedure"),
    CodeSystem("SNOMED", "http://snomed.info/sct", "condition", ("urn:oid:2.16.840.1.113883.6.96",)),
    CodeSystem("LOINC", "http://loinc.org", "observation", ("urn:oid:2.16.840.1.113883.6.1",)),
    CodeSystem(
        "RxNorm",
        "http://www.nlm.nih.gov/research/umls/rxnorm",
        "medication",
        ("urn:oid:2.16.840.1.113883.6.88",),
    ),
    CodeSystem("CVX", "http://hl7.org/fhir/sid/cvx", "immunization", ("urn:oid:2.16.840.1.113883.12.292",)),
    CodeSystem("NDC", "http://hl7.org/fhir/sid/ndc", "medication", ("urn:oid:2.16.840.1.113883.6.69",)),
    CodeSystem("ATC", "http://www.whocc.no/atc", "medication"),
    CodeSystem(
        "HCPCS",
        "http://terminology.hl7.org/CodeSystem/HCPCS-all-codes",
        "procedure",
        ("urn:oid:2.16.840.1.113883.6.285", "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"),
    ),
    CodeSystem("CPT", "http://www.ama-assn.org/go/cpt", "procedure", ("urn:oid:2.16.840.1.113883.6.12",)),
    CodeSystem("CDCREC", "urn:oid:2.16.840.1.113883.6.238", "race"),
    CodeSystem("ACT", _THO + "v3-ActCode", "visit_start"),
    CodeSystem("MARITALSTATUS", _THO + "v3-MaritalStatus", "marital"),
    CodeSystem("BCP47", "urn:ietf:bcp:47", "language"),
)
SYSTEMS: dict[str, CodeSystem] = {system.name: system for system in _SYSTEMS}
_NAME_OF_URI = {uri: system.name for system in _SYSTEMS for uri in (system.uri, *system.aliases)}

_LOCAL_KINDS: dict[str, Kind] = {"DRUG": "medication", "DIAGNOSIS": "condition"}
"""Kinds of some local systems that MEDS data sets commonly use; every other local system holds observations."""


class Code(NamedTuple):
    """A code taken apart."""

    kind: Kind
    system: str
    value: str


@lru_cache(maxsize=1 << 17)
def parse(code: str) -> Code:
    """Take a code apart.

    >>> parse("PROCEDURE//SNOMED//80146002")
    Code(kind='procedure', system='SNOMED', value='80146002')
    >>> parse("GENDER//female")
    Code(kind='gender', system='GENDER', value='female')
    >>> parse("D130//NUM_PROCEDURES")
    Code(kind='observation', system='D130', value='NUM_PROCEDURES')
    """
    if code == BIRTH:
        return Code("birth", "MEDS", code)
    if code == DEATH:
        return Code("death", "MEDS", code)
    head, separator, rest = code.partition("//")
    if not separator:
        return Code("observation", "LOCAL", code)
    kind = PREFIXES.get(head)
    if kind in SINGLE_PART_KINDS:
        return Code(kind, head, rest)
    if kind is not None and "//" in rest:
        system, _, value = rest.partition("//")
        return Code(kind, system, value)
    return Code(default_kind(head), head, rest)


def default_kind(system: str) -> Kind:
    """The kind of an unprefixed code of `system`."""
    known = SYSTEMS.get(system)
    return known.kind if known else PREFIXES.get(system) or _LOCAL_KINDS.get(system, "observation")


def join(kind: Kind, system: str, value: str) -> str:
    """The canonical code of a kind, system and value; the inverse of `parse`.

    >>> join("condition", "SNOMED", "44054006"), join("procedure", "SNOMED", "80146002")
    ('SNOMED//44054006', 'PROCEDURE//SNOMED//80146002')
    """
    if kind in ("birth", "death"):
        return BIRTH if kind == "birth" else DEATH
    if kind in SINGLE_PART_KINDS:
        return f"{PREFIX_OF[kind]}//{value}"
    if system == "LOCAL" and kind == "observation":
        return value
    bare = f"{system}//{value}"
    return bare if parse(bare) == (kind, system, value) else f"{PREFIX_OF[kind]}//{bare}"


def uri(system: str) -> str:
    """The canonical URI of a system; local systems get one under ehrsim's own base."""
    known = SYSTEMS.get(system)
    return known.uri if known else LOCAL_URI + quote(system)


def system_of_uri(canonical: str) -> str:
    """The system name of a canonical URI or OID.

    An unknown URI becomes a local system named after it, in characters that a code may hold.
    """
    canonical = canonical.strip().rstrip("/")
    name = _NAME_OF_URI.get(canonical)
    if name is not None:
        return name
    if canonical.startswith(LOCAL_URI):
        return unquote(canonical.removeprefix(LOCAL_URI))
    return re.sub(r"[^A-Za-z0-9._:-]+", "_", re.sub(r"^[a-z]+://", "", canonical)) or "LOCAL"


def is_known_system(system: str) -> bool:
    """Whether `system` is one of the code systems listed here (not a local one)."""
    return system in SYSTEMS


RACES = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
    "2131-1": "Other Race",
}
ETHNICITIES = {"2135-2": "Hispanic or Latino", "2186-5": "Not Hispanic or Latino"}

"""Concept ids: the well-known standard ones, and local ones for every code, unit and answer of the events.

A local concept id lies in [2,000,000,000, 2**31), which OMOP leaves to sites. It is a hash of the code, so that a code
has the same id in every export; of two codes that fall on the same id (one pair in about 17,000 codes) the later in
alphabetical order takes the next that is free. The class of a local concept is the kind of its events (`allergy`,
`visit_type` …), which tells `ehrsim import` what OMOP's tables do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date

import polars as pl

from ehrsim.importers import omop_vocabulary
from ehrsim.omop.definitions import TABLES

FIRST_LOCAL = 2_000_000_000
_LOCAL_IDS = (1 << 31) - FIRST_LOCAL

NO_CONCEPT = 0
EHR, ENCOUNTER_RECORD, ADMINISTRATION, PRESCRIPTION, ALGORITHM = 32817, 32827, 32818, 32838, 32880
CDM_VERSION = 756265
UTF_8, ENGLISH = 32678, 4180186
_DEPRECATED = {8521, 8522}
"""Concepts for "other" that are no longer standard: they serve as source concepts."""

_STANDARD: dict[int, tuple[str, str, str, str, str]] = {
    NO_CONCEPT: ("No matching concept", "Metadata", "None", "Undefined", "No matching concept"),
    8507: ("MALE", "Gender", "Gender", "Gender", "M"),
    8532: ("FEMALE", "Gender", "Gender", "Gender", "F"),
    8521: ("OTHER", "Gender", "Gender", "Gender", "O"),
    8657: ("American Indian or Alaska Native", "Race", "Race", "Race", "1"),
    8515: ("Asian", "Race", "Race", "Race", "2"),
    8516: ("Black or African American", "Race", "Race", "Race", "3"),
    8557: ("Native Hawaiian or Other Pacific Islander", "Race", "Race", "Race", "4"),
    8527: ("White", "Race", "Race", "Race", "5"),
    8522: ("Other Race", "Race", "Race", "Race", "9"),
    38003563: ("Hispanic or Latino", "Ethnicity", "Ethnicity", "Ethnicity", "Hispanic"),
    38003564: ("Not Hispanic or Latino", "Ethnicity", "Ethnicity", "Ethnicity", "Not Hispanic"),
    9201: ("Inpatient Visit", "Visit", "Visit", "Visit", "IP"),
    9202: ("Outpatient Visit", "Visit", "Visit", "Visit", "OP"),
    9203: ("Emergency Room Visit", "Visit", "Visit", "Visit", "ER"),
    581476: ("Home Visit", "Visit", "Visit", "Visit", ""),
    581478: ("Ambulance Visit", "Visit", "Visit", "Visit", ""),
    5083: ("Telehealth", "Visit", "CMS Place of Service", "Visit", "02"),
    42898160: ("Non-hospital institution Visit", "Visit", "Visit", "Visit", "LTCP"),
    32037: ("Intensive Care", "Visit", "Visit", "Visit", ""),
    581385: ("Observation Room", "Visit", "Visit", "Visit", ""),
    EHR: ("EHR", "Type Concept", "Type Concept", "Type Concept", "OMOP4976890"),
    ADMINISTRATION: ("EHR administration record", "Type Concept", "Type Concept", "Type Concept", ""),
    ENCOUNTER_RECORD: ("EHR encounter record", "Type Concept", "Type Concept", "Type Concept", ""),
    PRESCRIPTION: ("EHR prescription", "Type Concept", "Type Concept", "Type Concept", ""),
    ALGORITHM: ("Standard algorithm", "Type Concept", "Type Concept", "Type Concept", ""),
    CDM_VERSION: ("OMOP CDM Version 5.4.0", "Metadata", "CDM", "CDM", ""),
    UTF_8: ("UTF-8", "Metadata", "Note Type", "Note Type", ""),
    ENGLISH: ("English language", "Observation", "SNOMED", "Qualifier Value", ""),
    4171756: ("<", "Meas Value Operator", "SNOMED", "Qualifier Value", ""),
    4171754: ("<=", "Meas Value Operator", "SNOMED", "Qualifier Value", ""),
    4172704: (">", "Meas Value Operator", "SNOMED", "Qualifier Value", ""),
    4171755: (">=", "Meas Value Operator", "SNOMED", "Qualifier Value", ""),
}
"""Name, domain, vocabulary, class and code of the standard concepts used, as in the OHDSI standardised vocabularies.

Where no code is given here, the id stands for it."""


def _inverse(concepts: Mapping[int, str], first: Mapping[str, int] | None = None) -> dict[str, int]:
    """Concept ids by what they mean; of several, that of `first`, else the first listed."""
    inverse: dict[str, int] = dict(first or {})
    for concept_id, meaning in concepts.items():
        inverse.setdefault(meaning, concept_id)
    return inverse


GENDERS = _inverse(omop_vocabulary.GENDERS)
RACES = _inverse(omop_vocabulary.RACES)
ETHNICITIES = _inverse(omop_vocabulary.ETHNICITIES)
OPERATORS = _inverse(omop_vocabulary.OPERATORS)
VISITS = _inverse(omop_vocabulary.VISIT_CLASSES, {"IMP": 9201, "AMB": 9202, "VR": 5083})
DEPRECATED = frozenset(_DEPRECATED)

_VOCABULARIES = {system: name for name, system in omop_vocabulary.SYSTEM_OF_VOCABULARY.items()}
_VOCABULARY_LENGTH = 20
_ALWAYS = (date(1970, 1, 1), date(2099, 12, 31))


def vocabulary_of(system: str) -> str:
    """The OMOP name of a code system, in at most 20 characters: longer ones end in a hash of the rest.

    >>> vocabulary_of("ICD10CM"), vocabulary_of("CPT"), len(vocabulary_of("a_system_with_a_long_name"))
    ('ICD10CM', 'CPT4', 20)
    """
    name = _VOCABULARIES.get(system, system)
    if len(name) <= _VOCABULARY_LENGTH:
        return name
    return f"{name[:11]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


def local_ids(keys: Iterable[str]) -> dict[str, int]:
    """The local concept id of each key."""
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for key in sorted(set(keys)):
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % _LOCAL_IDS
        while number in taken:
            number = (number + 1) % _LOCAL_IDS
        taken.add(number)
        ids[key] = FIRST_LOCAL + number
    return ids


def standard_concepts() -> pl.DataFrame:
    """The rows of the standard concepts that an export may use."""
    rows = [
        {
            "concept_id": concept_id,
            "concept_name": name,
            "domain_id": domain,
            "vocabulary_id": vocabulary,
            "concept_class_id": kind,
            "standard_concept": None if concept_id in (NO_CONCEPT, *DEPRECATED) else "S",
            "concept_code": code or str(concept_id),
        }
        for concept_id, (name, domain, vocabulary, kind, code) in _STANDARD.items()
    ]
    return valid_always(pl.DataFrame(rows, infer_schema_length=None))


def valid_always(concepts: pl.DataFrame) -> pl.DataFrame:
    """Rows of the concept table with the columns that all of them share: valid from 1970 to 2099."""
    first, last = _ALWAYS
    whole = concepts.with_columns(
        valid_start_date=pl.lit(first), valid_end_date=pl.lit(last), invalid_reason=pl.lit(None, pl.String)
    )
    schema = TABLES["concept"].schema
    return whole.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def vocabulary_tables(concepts: pl.DataFrame, version: str) -> dict[str, pl.DataFrame]:
    """The tables that the concept table refers to, with the names that occur in it."""
    tables = {}
    for table in ("vocabulary", "domain", "concept_class"):
        names = pl.concat(
            [concepts[f"{table}_id"], pl.Series(["None"] if table == "vocabulary" else [], dtype=pl.String)]
        )
        rows = pl.DataFrame({f"{table}_id": names.unique().sort()})
        tables[table] = rows.with_columns(
            pl.col(f"{table}_id").alias(f"{table}_name"),
            pl.lit(NO_CONCEPT, pl.Int32).alias(f"{table}_concept_id"),
        )
    own = pl.when(pl.col("vocabulary_id") == "None").then(pl.lit(version))
    tables["vocabulary"] = tables["vocabulary"].with_columns(vocabulary_version=own)
    return tables

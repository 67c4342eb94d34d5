"""Patients with their demographics, and the Provenance that says a patient is simulated."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ehrsim import codes
from ehrsim.fhir import people
from ehrsim.fhir.columns import Among, quoted
from ehrsim.fhir.fragments import (
    EXTENSIONS,
    HL7,
    SUBJECT_SYSTEM,
    US_CORE,
    Fragment,
    Labels,
    Resource,
    coding,
    concept,
    fragment,
)
from ehrsim.fhir.locales import Locale
from ehrsim.fhir.record import Batch, Record, derived_ids, single
from ehrsim.fhir.shapes import NUMBER_OF, Shapes
from ehrsim.fhir.table import Table, date_times

GENDERS = ("male", "female", "other")
MARITAL_STATUSES = {
    "A": "Annulled",
    "C": "Common Law",
    "D": "Divorced",
    "I": "Interlocutory",
    "L": "Legally Separated",
    "M": "Married",
    "P": "Polygamous",
    "S": "Never Married",
    "T": "Domestic partner",
    "U": "unmarried",
    "W": "Widowed",
}
_RACE_WORDS = {
    "white": "2106-3",
    "caucasian": "2106-3",
    "black": "2054-5",
    "africanamerican": "2054-5",
    "black/africanamerican": "2054-5",
    "asian": "2028-9",
    "native": "1002-5",
    "americanindian": "1002-5",
    "nativehawaiian": "2076-8",
    "pacificislander": "2076-8",
}
_ETHNICITY_WORDS = {"hispanic": "2135-2", "nonhispanic": "2186-5", "nothispanic": "2186-5"}
_OMB_RACES = frozenset(codes.RACES) - {"2131-1"}
_LANGUAGES = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "en-GB": "English (Great Britain)",
    "en-US": "English (United States)",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "pt": "Portuguese",
    "ru": "Russian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
_RECORD_NUMBER = fragment(concept(f"{HL7}v2-0203", "MR", "Medical record number"))
_BIRTH_SEX = {
    gender: fragment({"url": f"{US_CORE}us-core-birthsex", "valueCode": code})
    for gender, code in (("female", "F"), ("male", "M"))
}
_SEX = {
    gender: fragment({"url": f"{US_CORE}us-core-sex", "valueCoding": coding(codes.uri("SNOMED"), code, display)})
    for gender, code, display in (("female", "248152002", "Female"), ("male", "248153007", "Male"))
}
"""Of US Core 8.0; 6.1 has a code there, of a value set that is not part of it."""
_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
DEMOGRAPHICS = ("birth", "death", "gender", "race", "ethnicity", "marital", "language")
US_CORE_FACTS = ("race", "ethnicity")
"""Facts that only the extensions of US Core have a place for."""
NEVER = "1970-01-01T00:00:00Z"
"""When a record without any time is recorded."""


class Demographics(NamedTuple):
    """What the events say of one subject: the value of the first event of each kind."""

    birth: str | None = None
    death: str | None = None
    gender: str | None = None
    race: str | None = None
    ethnicity: str | None = None
    marital: str | None = None
    language: str | None = None


def demographics(table: Table, shapes: Shapes) -> list[Demographics]:
    """The demographics of each subject of a table."""
    found: list[dict[str, str]] = [{} for _ in table.subjects]
    for kind in DEMOGRAPHICS:
        rows = table.rows_of(kind)
        dated = kind in ("birth", "death")
        values = table.time.gather(rows).to_list() if dated else [shapes.codes[code].value for code in table.code[rows]]
        for subject, value in zip(table.subject[rows].tolist(), values, strict=True):
            if value is not None:
                found[subject].setdefault(kind, value)
    return [Demographics(**values) for values in found]


def sexes(table: Table, shapes: Shapes) -> npt.NDArray[Any]:
    """The gender of each subject, empty where the events have none."""
    found = np.full(len(table.subjects), "", dtype=object)
    rows = table.rows_of("gender")[::-1]
    found[table.subject[rows]] = [shapes.codes[code].value for code in table.code[rows]]
    return found


def repeated(table: Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of demographic events beyond the first of their kind and subject, which a Patient has no place for."""
    rows = np.flatnonzero(np.isin(table.kind, [NUMBER_OF[kind] for kind in DEMOGRAPHICS]))
    pairs = table.subject[rows] * len(NUMBER_OF) + table.kind[rows]
    _, first = np.unique(pairs, return_index=True)
    return np.delete(rows, first)


class Home(NamedTuple):
    """Where the patients of an export live, and how it numbers them."""

    locale: Locale
    numbering: people.Numbering


def patients(record: Record) -> Batch:
    """The Patients of a group."""
    table, links = record.table, record.links
    facts = demographics(table, record.shapes)
    every = np.arange(len(facts))
    attending = links.attending(every, np.full(len(facts), -1))
    practitioners = [Fragment(attending.before + uuid + attending.after) for uuid in attending.texts.to_list()]
    organizations = links.organizations()
    home = Home(links.locale, people.numbering(record.labels.source, links.locale))
    build = partial(patient, home=home, labels=record.labels)
    columns = (
        links.subjects.to_list(),
        table.subjects.tolist(),
        people.words_of(table.subject_lanes),
        facts,
        practitioners,
        [organizations[place] for place in links.place.tolist()],
    )
    filled = np.array([sum(1 << bit for bit, fact in enumerate(known) if fact is not None) for known in facts])
    return single("Patient", links.subjects, filled, map(build, *columns))


def patient(
    uuid: str,
    subject: int,
    words: tuple[int, ...],
    facts: Demographics,
    practitioner: Fragment,
    organization: Resource,
    *,
    home: Home,
    labels: Labels,
) -> Resource:
    """A Patient; what the events do not say (name, address …) is invented from the words of a hash."""
    locale = home.locale
    gender = facts.gender if facts.gender in GENDERS else "unknown"
    draws = people.Draws(words)
    name = people.name(draws, gender, facts.birth, locale)
    address, city = people.address(draws, locale)
    resource: Resource = {"resourceType": "Patient", "id": uuid, "meta": labels.meta("us-core-patient")}
    extensions = _us_extensions(facts, labels.us_core) if labels.us_core else []
    if extensions:
        resource["extension"] = extensions
    resource["identifier"] = [{"use": "usual", "type": _RECORD_NUMBER, "system": SUBJECT_SYSTEM, "value": str(subject)}]
    national = home.numbering.identifier(subject, locale)
    if national is not None:
        resource["identifier"].append(national)
    resource["active"] = True
    resource["name"] = [name]
    resource["telecom"] = people.contacts(draws, city, name, locale)
    resource["gender"] = gender
    if gender == "other" and locale.other_gender:
        resource["_gender"] = locale.other_gender
    if facts.birth is not None:
        resource |= _birth(facts.birth)
    if facts.death is not None:
        resource["deceasedDateTime"] = facts.death
    resource["address"] = [{"use": "home", **address}]
    if facts.marital is not None:
        resource["maritalStatus"] = _marital(facts.marital)
    language = facts.language or locale.language
    if language is not None:
        resource["communication"] = [{"language": _language(language), "preferred": True}]
    resource["generalPractitioner"] = [practitioner]
    resource["managingOrganization"] = organization
    return resource


def _us_extensions(facts: Demographics, version: str) -> list[Fragment]:
    """The extensions of a version of US Core: race, ethnicity, the sex recorded as that at birth, and that of today."""
    extensions: list[Fragment] = []
    if facts.race is not None:
        extensions.append(_race(facts.race))
    if facts.ethnicity is not None:
        extensions.append(_ethnicity(facts.ethnicity))
    if facts.gender in _BIRTH_SEX:
        extensions += [_BIRTH_SEX[facts.gender], *([_SEX[facts.gender]] if version == "8.0" else [])]
    return extensions


def _birth(time: str) -> Resource:
    members: Resource = {"birthDate": time[:10]}
    if time[10:] != "T00:00:00Z":
        members["_birthDate"] = {"extension": [{"url": f"{EXTENSIONS}patient-birthTime", "valueDateTime": time}]}
    return members


@lru_cache(maxsize=256)
def _race(value: str) -> Fragment:
    return fragment(_omb_extension("us-core-race", value, codes.RACES, _RACE_WORDS))


@lru_cache(maxsize=256)
def _ethnicity(value: str) -> Fragment:
    return fragment(_omb_extension("us-core-ethnicity", value, codes.ETHNICITIES, _ETHNICITY_WORDS))


def _omb_extension(profile: str, value: str, displays: dict[str, str], words: dict[str, str]) -> Resource:
    """A race or ethnicity: an OMB category where the value is one or a word for one, and a text."""
    code = value if value in displays else words.get(re.sub(r"[\s_-]", "", value.casefold()))
    parts: list[Resource] = []
    if code in _OMB_RACES or code in codes.ETHNICITIES:
        omb = coding(codes.uri("CDCREC"), str(code), displays[str(code)])
        parts.append({"url": "ombCategory", "valueCoding": omb})
    elif code in displays:
        detailed = coding(codes.uri("CDCREC"), str(code), displays[str(code)])
        parts.append({"url": "detailed", "valueCoding": detailed})
    parts.append({"url": "text", "valueString": displays.get(value, value)})
    return {"url": US_CORE + profile, "extension": parts}


@lru_cache(maxsize=256)
def _marital(value: str) -> Fragment:
    display = MARITAL_STATUSES.get(value)
    return fragment(concept(f"{HL7}v3-MaritalStatus", value, display) if display else {"text": value})


@lru_cache(maxsize=256)
def _language(value: str) -> Fragment:
    if not _LANGUAGE_TAG.fullmatch(value):
        return fragment({"text": value})
    return fragment(concept(codes.uri("BCP47"), value, _LANGUAGES.get(value, value)))


def last_moments(table: Table) -> pl.Series:
    """When the last that each subject's events tell of was, begun or ended, as a FHIR dateTime; null without a time."""
    latest = pl.DataFrame({"subject": table.subject}).with_columns(
        time=pl.max_horizontal(table.frame["time"], table.frame["end_time"])
    )
    last = latest.group_by("subject", maintain_order=True).agg(pl.col("time").max())["time"]
    return date_times(last)


def provenances(record: Record) -> Batch:
    """The Provenances of the patients of a group."""
    links, every = record.links, np.arange(len(record.table.subjects))
    ids = derived_ids("Provenance", record.table.subject_lanes)
    columns = (
        links.to_subjects(every),
        Among(links.place, links.organizations()),
        quoted(last_moments(record.table).fill_null(NEVER)),
    )
    return record.batch("Provenance", ids, every, partial(provenance, record.labels), columns)


def provenance(
    labels: Labels, uuid: Fragment, target: Fragment, organization: Resource, recorded: Fragment
) -> Resource:
    """The Provenance of a patient: assembled by ehrsim on behalf of an organisation, from no living person."""
    kind = f"{HL7}provenance-participant-type"
    return {
        "resourceType": "Provenance",
        "id": uuid,
        "meta": labels.meta("us-core-provenance"),
        "contained": [
            {
                "resourceType": "Device",
                "id": "ehrsim",
                "deviceName": [{"name": "ehrsim", "type": "model-name"}],
                "note": [{"text": "Simulates patients who never existed."}],
            }
        ],
        "target": [target],
        "recorded": recorded,
        "activity": {"coding": [coding(f"{HL7}v3-DataOperation", "CREATE", "create")]},
        "agent": [
            {
                "type": concept(kind, "author", "Author"),
                "who": {"reference": "#ehrsim"},
                "onBehalfOf": organization,
            }
        ],
    }

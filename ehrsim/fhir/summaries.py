"""What a patient summary holds: its sections, which resources each of them lists, and the table that people read.

Section codes, and which sections a summary must have, are those of the International Patient Summary (HL7 IPS 1.1.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any, Literal, NamedTuple

from ehrsim.fhir import contents, profiles
from ehrsim.fhir.fragments import Resource

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


class Absent(NamedTuple):
    """What stands in a section that must be there and has nothing to list."""

    resource_type: str
    never_recorded: str
    """The absent-unknown code for a record that has nothing of the kind: nothing says that anybody asked."""
    all_ended: str
    """The code for a record in which all of the kind has ended."""


class Section(NamedTuple):
    """A section of the document: its title, LOINC code, the columns of its narrative, and what goes into it."""

    title: str
    code: str
    display: str
    columns: tuple[str, ...]
    takes: Callable[[Resource], bool]
    row: Callable[[Resource], tuple[str, ...]]
    keep: Literal["all", "first", "latest"]
    """Of the resources of one code."""
    absent: Absent | None = None
    """Of a section that must be there."""


def _is(resource_type: str, *statuses: str) -> Callable[[Resource], bool]:
    return lambda one: one["resourceType"] == resource_type and (not statuses or _status(one) in statuses)


def _status(resource: Resource) -> str:
    found = contents.codings(resource.get("clinicalStatus", resource.get("status", "")))
    return found[0][1]


def _observed(*categories: str | None) -> Callable[[Resource], bool]:
    return lambda one: one["resourceType"] == "Observation" and contents.category_of(one) in categories


def _is_result(resource: Resource) -> bool:
    if resource["resourceType"] == "DiagnosticReport":
        return True
    return _observed(profiles.LABORATORY, profiles.SURVEY, None)(resource)


def _name(resource: Resource) -> str:
    return contents.words(contents.concept_of(resource))


def _day(time: str | None) -> str:
    return time[:10] if time else ""


def _since(resource: Resource) -> tuple[str, ...]:
    return _name(resource), _day(contents.span(resource).start)


def _episode(resource: Resource) -> tuple[str, ...]:
    return *_since(resource), _day(resource.get("abatementDateTime"))


def _order(resource: Resource) -> tuple[str, ...]:
    doses = [
        one["doseQuantity"] for dosage in resource.get("dosageInstruction", ()) for one in dosage.get("doseAndRate", ())
    ]
    dose = ", ".join(f"{one['value']} {one.get('unit', '')}".strip() for one in doses)
    return _name(resource), dose, resource["status"], _day(contents.span(resource).start)


def _allergy(resource: Resource) -> tuple[str, ...]:
    reactions = (contents.words(one) for reaction in resource.get("reaction", ()) for one in reaction["manifestation"])
    return _name(resource), ", ".join(reactions), _day(contents.span(resource).start)


def _measured(resource: Resource) -> tuple[str, ...]:
    if resource["resourceType"] == "DiagnosticReport":
        value = resource.get("conclusion") or f"report, {len(resource.get('result', ()))} results"
    else:
        value = contents.value_in_words(resource) or "unknown"
    return _name(resource), value, _day(contents.span(resource).start)


_RESULT = ("Test", "Result", "Date")
SECTIONS = (
    Section(
        title="Active problems",
        code="11450-4",
        display="Problem list - Reported",
        columns=("Problem", "Since"),
        takes=_is("Condition", "active"),
        row=_since,
        keep="first",
        absent=Absent("Condition", "no-problem-info", "no-known-problems"),
    ),
    Section(
        title="Medications",
        code="10160-0",
        display="History of Medication use Narrative",
        columns=("Medication", "Dose", "Status", "Ordered"),
        takes=_is("MedicationRequest", "active", "on-hold", "unknown"),
        row=_order,
        keep="latest",
        absent=Absent("MedicationStatement", "no-medication-info", "no-known-medications"),
    ),
    Section(
        title="Allergies and intolerances",
        code="48765-2",
        display="Allergies and adverse reactions Document",
        columns=("Allergy", "Reaction", "Recorded"),
        takes=_is("AllergyIntolerance"),
        row=_allergy,
        keep="latest",
        absent=Absent("AllergyIntolerance", "no-allergy-info", "no-known-allergies"),
    ),
    Section(
        title="Immunizations",
        code="11369-6",
        display="History of Immunization Narrative",
        columns=("Vaccine", "Date"),
        takes=_is("Immunization"),
        row=_since,
        keep="all",
    ),
    Section(
        title="Results",
        code="30954-2",
        display="Relevant diagnostic tests/laboratory data Narrative",
        columns=_RESULT,
        takes=_is_result,
        row=_measured,
        keep="latest",
    ),
    Section(
        title="Procedures",
        code="47519-4",
        display="History of Procedures Document",
        columns=("Procedure", "Date"),
        takes=_is("Procedure"),
        row=_since,
        keep="all",
    ),
    Section(
        title="Vital signs",
        code="8716-3",
        display="Vital signs",
        columns=_RESULT,
        takes=_observed(profiles.VITAL_SIGN),
        row=_measured,
        keep="latest",
    ),
    Section(
        title="Past illnesses",
        code="11348-0",
        display="History of Past illness Narrative",
        columns=("Problem", "From", "To"),
        takes=_is("Condition", "resolved"),
        row=_episode,
        keep="latest",
    ),
    Section(
        title="Social history",
        code="29762-2",
        display="Social history Narrative",
        columns=("Observation", "Finding", "Date"),
        takes=_observed(profiles.SOCIAL),
        row=_measured,
        keep="latest",
    ),
    Section(
        title="Plan of care",
        code="18776-5",
        display="Plan of care note",
        columns=("Plan", "Since"),
        takes=_is("CarePlan", "active"),
        row=_since,
        keep="latest",
    ),
)
"""Sections in the order of the document; all but those with `absent` are left out where they would be empty."""


def chosen(section: Section, resources: list[Resource]) -> tuple[list[Resource], int]:
    """The resources of a section, the latest first, and how many others of the same codes are left out."""
    own = [resource for resource in resources if section.takes(resource)]
    own.sort(key=lambda resource: contents.span(resource).start or "", reverse=True)
    if section.keep == "all":
        return own, 0
    kept: dict[Any, Resource] = {}
    for resource in own:
        key = tuple(contents.codings(contents.concept_of(resource)))
        if section.keep == "first":
            kept[key] = resource
        else:
            kept.setdefault(key, resource)
    wanted = {resource["id"] for resource in kept.values()}
    return [resource for resource in own if resource["id"] in wanted], len(own) - len(kept)


def section_narrative(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Resource:
    """A generated narrative that is a table, every cell escaped and on one line."""
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_CONTROL.sub(' ', cell).strip())}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{table}</div>'}

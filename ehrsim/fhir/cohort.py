"""What an export says of all its patients together: the Group of them, quality measures, and their reports.

This is where a cohort comes in: its name, its members, and for each measure the counts of its populations. Nothing is
kept of a group of patients but their subject ids (8 bytes each) and counts, so memory does not grow with the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from ehrsim import codes, quality
from ehrsim.fhir import identity
from ehrsim.fhir.columns import Ints
from ehrsim.fhir.fragments import HL7, Fragment, Labels, Resource, concept, narrative
from ehrsim.fhir.identity import Words
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.writers import Layout
from ehrsim.groups import Source
from ehrsim.quality.populations import tally

MEMBERS = 10_000
"""Most members of a Group; a larger cohort is a Group of Groups, so that no resource is larger than a megabyte."""
GROUP_SYSTEM = f"{codes.URI_BASE}/identifier/cohort"
MEASURE_URL = f"{codes.URI_BASE}/Measure/"
_POPULATIONS = {
    "initial-population": "Initial Population",
    "denominator": "Denominator",
    "denominator-exclusion": "Denominator Exclusion",
    "numerator": "Numerator",
}


class Cohort:
    """Gathers subjects and counts group by group; `resources` are then made of them."""

    def __init__(
        self, source: Source, key: Words, labels: Labels, layout: Layout, measures: str | Path | None = None
    ) -> None:
        """Raises as `load_measures` does, before anything is written."""
        self._key, self._labels, self._types = key, labels, layout.types
        # Patients are in other bundles than their Group; reports and Groups stand in one.
        self._group_prefix = layout.prefixes()["Group"]
        self._name = str(source.dataset.get("dataset_name") or "")
        self._subjects: list[Ints] = []
        self._library = quality.load_measures(measures)
        self._tallies = {measure.name: quality.Tally() for measure in self._library.measure}
        reported = "MeasureReport" in self._types
        self._reference = quality.reference_date(source.tables) if reported else None

    def take(self, frame: pl.DataFrame, subjects: Ints) -> None:
        """Take in the events of a group of whole subjects."""
        self._subjects.append(subjects)
        if self._reference is not None:
            for name, members in quality.membership(frame, self._library, self._reference).items():
                self._tallies[name] = self._tallies[name].plus(tally(members))

    def resources(self, report: ExportReport) -> Iterator[Resource]:
        """All resources, none of which refers to a later one; scores are noted in `report`."""
        subjects = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *self._subjects]))
        digest = identity.text_words([subjects.tobytes().hex()])[0]
        cohort = identity.uuid_of("Group", *self._key.tolist(), int(digest))
        if "Group" in self._types:
            yield from self._groups(cohort, subjects)
        if "Measure" in self._types:
            for measure in self._library.measure:
                yield measure_resource(measure, self._library, self._labels)
        if self._reference is not None:
            group = {"reference": self._group_prefix + cohort} if "Group" in self._types else None
            for measure in self._library.measure:
                counted = self._tallies[measure.name]
                report.scores[measure.name] = (counted.numerator, counted.denominator - counted.exclusion)
                uuid = identity.uuid_of("MeasureReport", cohort, measure.name, measure.version)
                yield measure_report(uuid, measure, counted, self._reference, group, self._labels)

    def _groups(self, cohort: str, subjects: Ints) -> Iterator[Resource]:
        """The Group of all, after its parts where there are more than one Group may hold."""
        name = f"Simulated cohort {self._name}".strip() + f", {len(subjects):,} patients"
        starts = range(0, len(subjects), MEMBERS)
        if len(starts) <= 1:
            yield self._group(cohort, name, len(subjects), self._patients(subjects))
            return
        parts = []
        for number, start in enumerate(starts, start=1):
            own = subjects[start : start + MEMBERS]
            uuid = identity.uuid_of("Group", cohort, number)
            parts.append({"entity": {"reference": self._group_prefix + uuid}})
            yield self._group(uuid, f"{name}, part {number} of {len(starts)}", len(own), self._patients(own))
        yield self._group(cohort, name, len(subjects), parts)

    def _patients(self, subjects: Ints) -> Fragment:
        ids = identity.uuids(identity.subject_lanes(self._key, subjects))
        return Fragment("[" + ",".join(f'{{"entity":{{"reference":"Patient/{uuid}"}}}}' for uuid in ids) + "]")

    def _group(self, uuid: str, name: str, quantity: int, members: Any) -> Resource:
        return {
            "resourceType": "Group",
            "id": uuid,
            "meta": self._labels.derived(),
            "text": narrative(f"{name}, all simulated by ehrsim: none of them ever existed"),
            "identifier": [{"system": GROUP_SYSTEM, "value": uuid}],
            "active": True,
            "type": "person",
            "actual": True,
            "name": name,
            "quantity": quantity,
            "member": members,
        }


def measure_resource(measure: quality.Measure, library: quality.Library, labels: Labels) -> Resource:
    """The Measure of a definition, whose criteria stand in it as JSON with the codes that they name."""
    return {
        "resourceType": "Measure",
        "id": identity.uuid_of("Measure", measure.name, measure.version),
        "meta": labels.derived(),
        "text": narrative(f"{measure.title}. {measure.description}"),
        "url": MEASURE_URL + measure.name,
        "version": measure.version,
        "name": measure.name.title().replace("-", ""),
        "title": measure.title,
        "status": "draft",
        "experimental": True,
        "subjectCodeableConcept": concept("http://hl7.org/fhir/resource-types", "Patient", "Patient"),
        "description": measure.description,
        "purpose": "Describes simulated patients, for tests of software. It measures nobody's care.",
        "scoring": concept(f"{HL7}measure-scoring", "proportion", "Proportion"),
        "type": [concept(f"{HL7}measure-type", measure.kind, measure.kind.capitalize())],
        "improvementNotation": _improvement(measure),
        "group": [{"population": [_population(code, _criteria(code, measure, library)) for code in _POPULATIONS]}],
    }


def _improvement(measure: quality.Measure) -> Resource:
    words = f"{measure.improvement.capitalize()}d score indicates improvement"
    return concept(f"{HL7}measure-improvement-notation", measure.improvement, words)


def _population(code: str, more: Resource) -> Resource:
    return {"code": concept(f"{HL7}measure-population", code, _POPULATIONS[code]), **more}


def _criteria(code: str, measure: quality.Measure, library: quality.Library) -> Resource:
    """What a population asks for, in words and as JSON."""
    if code == "initial-population":
        first, end = measure.ages
        words = f"{first} to {end - 1} years old at the reference date, alive when the period began, and seen in it"
        asked: dict[str, Any] = {"ages": measure.ages, "period_months": quality.populations.PERIOD_MONTHS}
    else:
        part = {"denominator": "denominator", "denominator-exclusion": "exclusion", "numerator": "numerator"}[code]
        criteria: list[quality.Criterion] = getattr(measure, part)
        words = (" or " if part == "exclusion" else " and ").join(map(_in_words, criteria)) or (
            "nobody" if part == "exclusion" else "all of the initial population"
        )
        asked = {
            "any" if part == "exclusion" else "all": criteria,
            "codes": {one.codes: library.codes[one.codes] for one in criteria},
        }
    expression = orjson.dumps(asked, default=_as_members).decode()
    return {"criteria": {"description": words, "language": "application/json", "expression": expression}}


def _as_members(part: Any) -> Any:
    """The members of a part of a definition that say something."""
    return {name: value for name in part.__struct_fields__ if (value := getattr(part, name)) not in (None, False)}


def _in_words(criterion: quality.Criterion) -> str:
    words = criterion.codes.replace("_", " ")
    if criterion.latest is not None:
        value = criterion.latest
        bounds = {name: getattr(value, name) for name in ("at_least", "above", "at_most", "below")}
        said = " and ".join(
            f"{name.replace('_', ' ')} {bound:g}" for name, bound in bounds.items() if bound is not None
        )
        words = f"latest {words} {said} {value.unit}"
    if criterion.ongoing:
        words += " in force"
    if criterion.months is not None:
        words += f" in the last {criterion.months} months"
    return words + (", or none" if criterion.or_none else "")


def measure_report(
    uuid: str,
    measure: quality.Measure,
    counted: quality.Tally,
    reference: datetime,
    group: Resource | None,
    labels: Labels,
) -> Resource:
    """The summary of a measure: its counts and score over the period before the reference date."""
    first, end = quality.period_of(reference)
    last = end - timedelta(days=1)
    counts = dict(zip(_POPULATIONS, counted, strict=True))
    resource: Resource = {
        "resourceType": "MeasureReport",
        "id": uuid,
        "meta": labels.derived(),
        "status": "complete",
        "type": "summary",
        "measure": f"{MEASURE_URL}{measure.name}|{measure.version}",
    }
    if group is not None:
        resource["subject"] = group
    resource |= {
        "date": f"{last:%Y-%m-%d}",
        "period": {"start": f"{first:%Y-%m-%d}", "end": f"{last:%Y-%m-%d}"},
        "improvementNotation": _improvement(measure),
    }
    about: Resource = {"population": [_population(code, {"count": count}) for code, count in counts.items()]}
    if counted.score is not None:
        about["measureScore"] = {"value": round(counted.score, 4)}
    return {**resource, "group": [about]}

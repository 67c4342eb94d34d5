"""A clinical note of each visit, written from its events by a template, and labelled as such in its first line."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir.fragments import Fragment, Resource, concept, fragment
from ehrsim.fhir.medication_use import stays
from ehrsim.fhir.record import Batch, Record, batch, derived_ids
from ehrsim.fhir.shapes import KINDS

LABEL = "SYNTHETIC - written by a program about a patient who never existed."
LINES = 60
"""Most events that a note tells of; of longer visits the first are told, and how many more there were."""
_SECTIONS = {
    "visit_type": "Visit",
    "reason": "Reason",
    "condition": "Diagnosis",
    "allergy": "Allergy",
    "procedure": "Procedure",
    "medication": "Medication ordered",
    "immunization": "Immunization",
    "observation": "Observed",
    "care_plan": "Plan",
}
_ORDER = {kind: number for number, kind in enumerate(_SECTIONS)}
_PROGRESS = fragment(concept(codes.uri("LOINC"), "11506-3", "Progress note"))
_DISCHARGE = fragment(concept(codes.uri("LOINC"), "18842-5", "Discharge summary"))
_NOTE = fragment(
    [
        concept(
            "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
            "clinical-note",
            "Clinical Note",
        )
    ]
)


def notes(record: Record, starts: list[str | None], ends: list[str | None]) -> Batch | None:
    """A note for each visit with events to tell of."""
    texts = _texts(record)
    visits = texts["visit"].to_numpy().astype(np.int64)
    if not len(visits):
        return None
    links, subject = record.links, record.table.visits.subject[visits]
    ids = derived_ids("DocumentReference", record.table.visits.lanes[visits])
    staying = stays(record)[visits]
    authors = links.practitioners[links.place[subject], links.practitioner[visits]].tolist()
    meta = record.labels.derived("us-core-documentreference")

    def note(
        uuid: str,
        staying: bool,
        subject: Fragment,
        author: Fragment,
        visit: Fragment | None,
        start: str | None,
        end: str | None,
        text: str,
    ) -> Resource:
        when = end or start
        heading = f"{LABEL}\n{'Discharge summary' if staying else 'Progress note'}, {(when or 'undated')[:10]}\n\n"
        data = b64encode(f"{heading}{text}\n".encode()).decode()
        resource: Resource = {
            "resourceType": "DocumentReference",
            "id": uuid,
            "meta": meta,
            "status": "current",
            "docStatus": "final",
            "type": _DISCHARGE if staying else _PROGRESS,
            "subject": subject,
        }
        if record.labels.us_core:
            resource["category"] = _NOTE
        if when is not None:
            resource["date"] = when
        resource["author"] = [author]
        attachment = {"contentType": "text/plain", "language": "en", "data": data}
        resource["content"] = [{"attachment": attachment}]
        context: Resource = {} if visit is None else {"encounter": [visit]}
        if start is not None:
            context["period"] = {"start": start} if end is None else {"start": start, "end": end}
        return resource | {"context": context} if context else resource

    columns = (
        ids,
        staying.tolist(),
        links.subjects[subject].tolist(),
        authors,
        links.visits[visits].tolist(),
        [starts[visit] for visit in visits.tolist()],
        [ends[visit] for visit in visits.tolist()],
        texts["text"].to_list(),
    )
    return batch("DocumentReference", ids, subject, staying.astype(np.int64), map(note, *columns))


def _texts(record: Record) -> pl.DataFrame:
    """The text of the note of each visit, a line an event: in the order of sections, then of events."""
    table, shapes = record.table, record.shapes
    place = np.array([_ORDER.get(kind, -1) for kind in KINDS], dtype=np.int64)[table.kind]
    rows = np.flatnonzero((place >= 0) & (table.visit >= 0))
    titles = pl.Series(list(_SECTIONS.values()))
    displays = pl.Series([code.display for code in shapes.codes], dtype=pl.String)
    units = pl.Series([f" {unit}" if unit else "" for unit in shapes.units], dtype=pl.String)
    value = table.frame["numeric_value"].gather(rows).cast(pl.String).str.strip_suffix(".0")
    lines = pl.DataFrame(
        {
            "visit": table.visit[rows],
            "place": place[rows],
            "title": titles.gather(place[rows]),
            "display": displays.gather(table.code[rows]),
            "value": (": " + value + units.gather(table.unit[rows])).fill_null(""),
        }
    )
    told = lines.sort("visit", "place", maintain_order=True).with_columns(
        number=pl.int_range(pl.len()).over("visit"), total=pl.len().over("visit")
    )
    last = pl.col("number") == LINES - 1
    more = pl.when(last & (pl.col("total") > LINES)).then(pl.format("\n... and {} more.", pl.col("total") - LINES))
    line = pl.format("{}: {}{}{}", "title", "display", "value", more.otherwise(pl.lit("")))
    kept = told.filter(pl.col("number") < LINES).select("visit", line=line)
    return kept.group_by("visit", maintain_order=True).agg(text=pl.col("line").str.join("\n"))

"""A clinical note of each visit, written from its events by a template, and labelled as such in its first line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.fhir.columns import Among, quoted
from ehrsim.fhir.fragments import Fragment, Resource, concept, fragment
from ehrsim.fhir.medication_use import stays
from ehrsim.fhir.record import Batch, Record, derived_ids
from ehrsim.fhir.shapes import KINDS
from ehrsim.fhir.table import Mask

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


def notes(record: Record, starts: pl.Series, ends: pl.Series) -> Iterator[Batch]:
    """A note for each visit with events to tell of."""
    texts = _texts(record)
    visits = texts["visit"].to_numpy().astype(np.int64)
    if not len(visits):
        return
    links, subject = record.links, record.table.visits.subject[visits]
    staying = stays(record)[visits]
    start, end = starts.gather(visits), ends.gather(visits)
    when = end.zip_with(end.is_not_null(), start)
    meta = record.labels.derived("us-core-documentreference")

    def note(
        uuid: Fragment,
        staying: bool,
        subject: Fragment,
        author: Fragment,
        visit: Fragment | None,
        start: Fragment | None,
        end: Fragment | None,
        when: Fragment | None,
        data: Fragment,
    ) -> Resource:
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
        Among(staying.astype(np.int64), (False, True)),
        links.to_subjects(subject),
        links.attending(subject, visits),
        record.to_visits(visits),
        quoted(start),
        quoted(end),
        quoted(when),
        quoted(_encoded(texts["text"], staying, when)),
    )
    ids = derived_ids("DocumentReference", record.table.visits.lanes[visits])
    yield record.batch("DocumentReference", ids, subject, note, columns)


def _encoded(texts: pl.Series, staying: Mask, when: pl.Series) -> pl.Series:
    """The notes with their headings, in base64."""
    title = pl.when(pl.Series(staying)).then(pl.lit("Discharge summary")).otherwise(pl.lit("Progress note"))
    whole = pl.format(f"{LABEL}\n{{}}, {{}}\n\n{{}}\n", title, when.str.slice(0, 10).fill_null("undated"), texts)
    return pl.select(whole.cast(pl.Binary).bin.encode("base64")).to_series()


def _texts(record: Record) -> pl.DataFrame:
    """The text of the note of each visit, a line an event: in the order of sections, then of events."""
    table, shapes = record.table, record.shapes
    place = np.array([_ORDER.get(kind, -1) for kind in KINDS], dtype=np.int64)[table.kind]
    rows = np.flatnonzero((place >= 0) & (table.visit >= 0))
    rows = rows[np.argsort(table.visit[rows] * len(_SECTIONS) + place[rows], kind="stable")]
    visit = table.visit[rows]
    begins = np.flatnonzero(np.diff(visit, prepend=-1))
    length = np.diff(begins, append=len(rows))
    number = np.arange(len(rows)) - np.repeat(begins, length)
    told = np.flatnonzero(number < LINES)
    rows, visit = rows[told], visit[told]
    more = (np.repeat(length, length) - LINES)[told]
    more[number[told] < LINES - 1] = 0
    heads = pl.Series([f"{_SECTIONS.get(code.kind)}: {code.display}" for code in shapes.codes])
    units = pl.Series([f" {unit}" if unit else "" for unit in shapes.units])
    value = table.value[rows]
    lines = pl.DataFrame({"visit": visit, "head": heads[table.code[rows]], "value": value, "more": more})
    measured = pl.concat_str(pl.lit(": "), "value", units[table.unit[rows]])
    rest = pl.when(pl.col("more") > 0).then(pl.format("\n... and {} more.", "more")).otherwise(pl.lit(""))
    line = pl.concat_str("head", measured.fill_null(""), rest)
    return (
        lines.select(pl.col("visit").set_sorted(), line=line)
        .group_by("visit", maintain_order=True)
        .agg(text=pl.col("line").str.join("\n"))
    )

"""The visit_occurrence table, and the number in it of each visit of the events.

A visit is the events that share a `visit_id`, or a start without one. OMOP asks every visit for a start and an end:
where no event tells them, they are those of the visit's events.
"""

from __future__ import annotations

import polars as pl

from ehrsim.importers import omop_vocabulary
from ehrsim.omop import concepts
from ehrsim.omop.codebook import SOURCE_VALUE_LENGTH
from ehrsim.omop.concepts import ENCOUNTER_RECORD, NO_CONCEPT
from ehrsim.omop.identifiers import SPAN
from ehrsim.omop.placing import PERSON

_KEY = ("subject_id", "visit_id")


def visits(rows: pl.DataFrame) -> pl.DataFrame:
    """The visits of placed events of whole subjects, one a row.

    (subject_id, visit_id, visit_occurrence_id, start, end, start_class, end_class, concept and text columns);
    `start_time` and `end_time` are those told by events, null where they are derived.
    """
    kept = rows.filter(pl.col("lost").is_null() & ~pl.col("kind").is_in(PERSON))
    inside = kept.filter(pl.col("visit_id").is_not_null())
    # A second start or end of a visit is left out, and yet tells that the visit went on then.
    marks = pl.col("kind").is_in(["visit_start", "visit_end"]) & pl.col("time").is_not_null()
    told = pl.col("lost").is_null() | marks
    of_visits = rows.filter(told & ~pl.col("kind").is_in(PERSON) & pl.col("visit_id").is_not_null())
    spans = of_visits.group_by(_KEY, maintain_order=True).agg(
        pl.col("slot").first(), first=pl.col("when").min(), last=pl.col("when").max()
    )
    starts, ends = (_told(inside, kind) for kind in ("start", "end"))
    frame = spans.join(starts, on=_KEY, how="left", maintain_order="left")
    frame = frame.join(ends, on=_KEY, how="left", maintain_order="left")
    alone = kept.filter((pl.col("kind") == "visit_start") & pl.col("visit_id").is_null())
    frame = pl.concat([frame, _told(alone, "start", slot="slot")], how="diagonal")
    start = pl.coalesce("start_time", "first")
    forwards = pl.when(pl.col("end_time") >= start).then("end_time")
    frame = frame.with_columns(start=start, backwards=(pl.col("end_time") < start).fill_null(False))
    frame = frame.with_columns(end=pl.coalesce(forwards, pl.max_horizontal("last", "start")))
    return _numbered(frame).sort("subject_id", "visit_occurrence_id")


def _told(rows: pl.DataFrame, what: str, **more: str) -> pl.DataFrame:
    """The starts or ends of visits that events tell."""
    return rows.filter(pl.col("kind") == f"visit_{what}").select(
        *_KEY,
        pl.col("time").alias(f"{what}_time"),
        pl.col("part").alias(f"{what}_class"),
        pl.col("text_value").alias(f"{what}_text"),
        pl.col("source_concept_id").alias(f"{what}_concept_id"),
        **more,
    )


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `visit_occurrence_id`: the slot of the subject and the visit's number, where all of the subject's fit.

    Where one does not, all visits of the subject are counted in the order of their numbers, then those without one.
    """
    number, slot = pl.col("visit_id"), pl.col("slot")
    plain = number.is_between(0, SPAN - 1).fill_null(False)
    own = ((number // SPAN == slot) & (number >= 0)).fill_null(False)
    ordered = frame.sort("subject_id", "visit_id", "start", nulls_last=True, maintain_order=True)
    counted = pl.int_range(pl.len()).over("subject_id")
    return ordered.with_columns(
        visit_occurrence_id=pl.when(plain.all().over("subject_id"))
        .then(slot * SPAN + number)
        .when(own.all().over("subject_id"))
        .then(number)
        .otherwise(slot * SPAN + counted)
    )


def visit_table(frame: pl.DataFrame) -> pl.DataFrame:
    """The visit_occurrence rows of visits."""
    named = pl.coalesce("start_class", "end_class")
    source = pl.coalesce("start_concept_id", "end_concept_id").fill_null(NO_CONCEPT)
    standard = named.replace_strict(concepts.VISITS, default=NO_CONCEPT, return_dtype=pl.Int32).fill_null(NO_CONCEPT)
    unknown = named.is_null() | (named == omop_vocabulary.UNKNOWN_CLASS)
    return frame.select(
        "visit_occurrence_id",
        person_id="subject_id",
        visit_concept_id=standard,
        visit_start_date=pl.col("start").dt.date(),
        visit_start_datetime="start",
        visit_end_date=pl.col("end").dt.date(),
        visit_end_datetime="end",
        visit_type_concept_id=pl.lit(ENCOUNTER_RECORD),
        visit_source_value=named.str.slice(0, SOURCE_VALUE_LENGTH),
        visit_source_concept_id=pl.when(unknown).then(NO_CONCEPT).otherwise(source),
        discharged_to_concept_id=pl.lit(NO_CONCEPT),
        discharged_to_source_value=pl.col("end_text").str.slice(0, SOURCE_VALUE_LENGTH),
    )


def with_visits(rows: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """Placed events with the `visit_occurrence_id` of their visits."""
    known = frame.drop_nulls("visit_id").select(*_KEY, "visit_occurrence_id")
    return rows.join(known, on=_KEY, how="left", maintain_order="left")

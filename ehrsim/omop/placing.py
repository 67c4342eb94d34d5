"""Where each event goes: a table, a visit's start or end, a fact about the person, or nowhere, with the reason."""

from __future__ import annotations

import polars as pl

from ehrsim.importers import omop_vocabulary
from ehrsim.omop.codebook import FOLLOW_UP_END, TABLE, Codebook

PERSON = ("birth", "death", "gender", "race", "ethnicity", FOLLOW_UP_END)
"""Kinds of events of which a person has one."""
_TIMED = ("birth", "death", FOLLOW_UP_END, "visit_start", "visit_end")
_OPERATORS = list(omop_vocabulary.OPERATORS.values())


def placed(frame: pl.DataFrame, codebook: Codebook, slots: pl.DataFrame) -> pl.DataFrame:
    """The events of whole subjects with what their codes become, and with columns that say where they go.

    `slot` of the subject; `began` and `ended`, the span of the subject's events without the birth; `when`, the time,
    else the beginning of that span; `table`; and `lost`, the reason why the event is not carried at all, else null.
    """
    rows = frame.join(codebook.codes, on="code", how="left", maintain_order="left")
    rows = rows.join(slots, on="subject_id", how="left", maintain_order="left")
    rows = rows.join(_spans(rows), on="subject_id", how="left", maintain_order="left")
    kind, visit = pl.col("kind"), pl.col("visit_id")
    is_person, is_visit = kind.is_in(PERSON), kind.is_in(("visit_start", "visit_end"))
    by_value = pl.when(_is_measured()).then(pl.lit("measurement", TABLE)).otherwise(pl.lit("observation", TABLE))
    table = pl.when(~is_person & ~is_visit).then(pl.coalesce("table", by_value))
    lost = (
        pl.when(kind.is_in(_TIMED) & pl.col("time").is_null())
        .then(pl.format("{} without a time", _words()))
        .when(pl.col("began").is_null() & ~is_person)
        .then(pl.lit("event without a time in a record that has none"))
        .when((kind == "visit_end") & visit.is_null())
        .then(pl.lit("end of a visit without a number"))
    )
    rows = rows.with_columns(table=table, lost=lost, when=pl.coalesce("time", "began"))
    return rows.with_columns(lost=pl.coalesce("lost", _repeated(rows)))


def _spans(rows: pl.DataFrame) -> pl.DataFrame:
    """(subject_id, began, ended): the first and last time of each subject, that of the birth only if alone."""
    time = pl.col("time")
    later = time.filter(pl.col("kind") != "birth")
    until = time.filter(pl.col("kind") == FOLLOW_UP_END).max()
    began = pl.coalesce(later.min(), time.min())
    ended = pl.max_horizontal(pl.coalesce(until, later.max(), time.max()), began)
    return rows.group_by("subject_id", maintain_order=True).agg(began=began, ended=ended)


def _is_measured() -> pl.Expr:
    """Whether an observation is a measurement: a number, with no text but a comparison, which has a column there."""
    text = pl.col("text_value")
    return pl.col("numeric_value").is_not_null() & (text.is_null() | text.is_in(_OPERATORS))


def _words() -> pl.Expr:
    return pl.col("kind").cast(pl.String).str.replace_all("_", " ")


def _repeated(rows: pl.DataFrame) -> pl.Expr:
    """The reason for events of which there may be one only, but for the first."""
    single = rows.with_row_index("row").filter(
        pl.col("lost").is_null()
        & pl.col("kind").is_in((*PERSON, "visit_start", "visit_end"))
        & ~((pl.col("kind") == "visit_start") & pl.col("visit_id").is_null())
    )
    of_visit = pl.when(pl.col("kind").is_in(("visit_start", "visit_end"))).then("visit_id")
    again = single.filter(~pl.struct("subject_id", "kind", of_visit).is_first_distinct())
    reasons = again.select("row", reason=pl.format("{} beyond the first", _words()))
    everywhere = pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
    return pl.lit(everywhere.scatter(reasons["row"], reasons["reason"]))

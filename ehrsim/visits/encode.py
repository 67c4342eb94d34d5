"""Events to visit sequences.

Steps are the events of one visit on one day (or in one finer bin); events outside any visit form steps of their own.
Lossless for codes of the vocabulary but for this: times are rounded down to the second, only the first birth, death,
end of observation, visit start and visit end count, and an end without its start is left out. The report counts what
was left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT, Int64, Sequences, offsets_of
from ehrsim.vocabulary import Entry, Vocabulary

DAY = 86_400


class EncodeReport(NamedTuple):
    """Rows left out of the sequences, by reason."""

    left_out: dict[str, int]


def encode(table: pl.DataFrame, vocabulary: Vocabulary, *, step_seconds: int = DAY) -> tuple[Sequences, EncodeReport]:
    """The visit sequences of whole subjects; `step_seconds` is the length of a step's time bin."""
    frame = _numbered(table)
    subjects = frame["subject_id"].unique(maintain_order=True)
    patients = len(subjects)
    static, timed = frame.filter(pl.col("time").is_null()), frame.filter(pl.col("time").is_not_null())
    statics, static_offsets, unknown_statics = _statics(static, vocabulary, patients)
    moments = {code: _first_moment(timed, code, patients) for code in (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)}
    visits, rest = _visits(timed.filter(~pl.col("code").is_in(list(moments))), vocabulary)
    known = _with_entries(rest, vocabulary)
    steps, rows = _steps(visits, known.filter(pl.col("entry") > 0), step_seconds)
    sequences = Sequences(
        subject=subjects.to_numpy(),
        birth=moments[codes.BIRTH],
        death=moments[codes.DEATH],
        end=moments[codes.OBSERVATION_END],
        static_offsets=static_offsets,
        statics=statics,
        step_offsets=offsets_of(np.bincount(steps["patient"].to_numpy(), minlength=patients)),
        time=steps["anchor"].to_numpy(),
        kind=steps["kind"].cast(pl.Int32).to_numpy(),
        visit=steps["visit_id"].fill_null(MISSING).to_numpy(),
        length=steps["length"].fill_null(MISSING).to_numpy(),
        end_value=steps["end_value"].cast(pl.Float32).fill_null(float("nan")).to_numpy(),
        event_offsets=offsets_of(np.bincount(rows["step"].to_numpy(), minlength=steps.height)),
        entry=rows["entry"].cast(pl.Int32).to_numpy(),
        offset=rows["offset"].to_numpy(),
        value=rows["numeric_value"].fill_null(float("nan")).to_numpy(),
        duration=rows["duration"].fill_null(MISSING).to_numpy(),
    )
    unknown = known.filter((pl.col("entry") == 0) & ~pl.col("structural")).height
    stray = known.filter((pl.col("entry") == 0) & pl.col("structural")).height
    repeated = timed.filter(pl.col("code").is_in(list(moments))).height - sum(
        int((moment != MISSING).sum()) for moment in moments.values()
    )
    left_out = {
        "code not in the vocabulary": unknown,
        "static fact not in the vocabulary": unknown_statics,
        "visit start or end without its counterpart, or repeated": stray,
        "repeated birth, death or end of observation": repeated,
    }
    return sequences, EncodeReport({reason: count for reason, count in left_out.items() if count})


def _numbered(table: pl.DataFrame) -> pl.DataFrame:
    """Rows in canonical order with times in seconds and patients numbered from 0."""
    frame = events.sort(events.conform(table).lazy()).collect()
    first = frame["subject_id"].ne_missing(frame["subject_id"].shift())
    seconds = pl.col("time").dt.timestamp("us").floordiv(1_000_000)
    ends = pl.col("end_time").dt.timestamp("us").floordiv(1_000_000)
    return frame.with_columns(
        patient=first.cast(pl.Int64).cum_sum() - 1, seconds=seconds, duration=ends - seconds
    ).with_row_index("row")


def _statics(static: pl.DataFrame, vocabulary: Vocabulary, patients: int) -> tuple[np.ndarray, Int64, int]:
    known = _mapped(static, vocabulary.static_index, "static")
    kept = known.filter(pl.col("static").is_not_null())
    offsets = offsets_of(np.bincount(kept["patient"].to_numpy(), minlength=patients))
    return kept["static"].cast(pl.Int32).to_numpy(), offsets, static.height - kept.height


def _first_moment(timed: pl.DataFrame, code: str, patients: int) -> Int64:
    """(P,) the first time of a code for each patient, MISSING where it never occurs."""
    rows = timed.filter(pl.col("code") == code).unique("patient", keep="first", maintain_order=True)
    moments = np.full(patients, MISSING, np.int64)
    moments[rows["patient"].to_numpy()] = rows["seconds"].to_numpy()
    return moments


def _visits(timed: pl.DataFrame, vocabulary: Vocabulary) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The visits (patient, visit_id, start, kind, length, end_value), and the rows that are no start or end of one."""
    key = ["patient", "visit_id"]
    types = _mapped(timed.filter(pl.col("code").str.starts_with("VISIT_START//")), vocabulary.type_index, "kind")
    starts = types.filter(pl.col("kind").is_not_null() & pl.col("visit_id").is_not_null())
    starts = starts.unique(key, keep="first", maintain_order=True).select(
        *key, pl.col("seconds").alias("start"), "kind", pl.col("row").alias("start_row")
    )
    ends = timed.filter(pl.col("code").str.starts_with("VISIT_END//")).join(starts, on=key, how="inner")
    ends = ends.filter(pl.col("seconds") >= pl.col("start")).unique(key, keep="last", maintain_order=True)
    ends = ends.select(
        *key,
        (pl.col("seconds") - pl.col("start")).alias("length"),
        pl.col("numeric_value").alias("end_value"),
        pl.col("row").alias("end_row"),
    )
    visits = starts.join(ends, on=key, how="left", maintain_order="left")
    used = pl.concat([visits["start_row"], visits["end_row"].drop_nulls()])
    return visits, timed.filter(~pl.col("row").is_in(used.implode()))


def _with_entries(rows: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """Rows with their vocabulary index (0: unknown) and whether they mark a visit's start or end."""
    unique = rows.select("code", "text_value", "unit").unique()
    mapping = {Entry(*row): vocabulary.lookup(Entry(*row)) for row in unique.iter_rows()}
    structural = pl.col("code").str.starts_with("VISIT_START//") | pl.col("code").str.starts_with("VISIT_END//")
    return _mapped(rows, mapping, "entry").with_columns(structural=structural)


def _mapped(rows: pl.DataFrame, mapping: dict[Entry, int], name: str) -> pl.DataFrame:
    """Rows with the number that `mapping` gives their (code, text_value, unit), null where it gives none."""
    schema = {"code": pl.String, "text_value": pl.String, "unit": pl.String, name: pl.Int64}
    table = pl.DataFrame([(*entry, index) for entry, index in mapping.items()], schema=schema, orient="row")
    keys = ["code", "text_value", "unit"]
    return rows.join(table, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _steps(visits: pl.DataFrame, rows: pl.DataFrame, step_seconds: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The steps in order, and the rows with their step number and offset, in the order of the sequences."""
    key = ["patient", "visit_id", "bin"]
    rows = rows.with_columns(bin=pl.col("seconds").floordiv(step_seconds))
    first_events = rows.group_by(key).agg(pl.col("seconds").min().alias("first"))
    starts = visits.with_columns(bin=pl.col("start").floordiv(step_seconds)).drop("start_row", "end_row")
    steps = first_events.join(starts, on=key, how="full", coalesce=True, nulls_equal=True)
    continues = pl.when(pl.col("visit_id").is_null()).then(NO_VISIT).otherwise(CONTINUES)
    steps = steps.with_columns(anchor=pl.coalesce("start", "first"), kind=pl.coalesce("kind", continues.cast(pl.Int64)))
    order = ["patient", "anchor", pl.col("kind") == NO_VISIT, pl.col("kind") == CONTINUES, "visit_id"]
    steps = steps.sort(order, nulls_last=True, maintain_order=True).with_row_index("step")
    numbered = rows.join(steps.select(*key, "step", "anchor"), on=key, how="left", nulls_equal=True)
    numbered = numbered.with_columns(offset=pl.col("seconds") - pl.col("anchor"), step=pl.col("step").cast(pl.Int64))
    return steps, numbered.sort("step", "entry", "offset", "numeric_value", "duration", nulls_last=False)

"""Events to visit sequences.

Steps are the events of one visit on one day (or in one finer bin); events outside any visit form steps of their own.
Lossless for codes of the vocabulary but for this: times are rounded down to the second; only the first birth, death,
end of observation and visit start, and the last visit end, count; an end without its start is left out; visit ends take
the usual form of their visit type; births, deaths, static facts and visit bounds keep their code and time alone. The
report counts all but the rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT, Int64, Sequences, offsets_of
from ehrsim.vocabulary import UNSTATED_VISIT, Entry, Vocabulary

DAY = 86_400


class EncodeReport(NamedTuple):
    """What the sequences do not say of the table, by reason."""

    left_out: dict[str, int]
    """Rows that are not in the sequences."""
    altered: dict[str, int]
    """Rows that are in them with less than they said."""


def encode(table: pl.DataFrame, vocabulary: Vocabulary, *, step_seconds: int = DAY) -> tuple[Sequences, EncodeReport]:
    """The visit sequences of whole subjects; `step_seconds` is the length of a step's time bin."""
    frame = _numbered(table)
    subjects = frame["subject_id"].unique(maintain_order=True)
    patients = len(subjects)
    static, timed = frame.filter(pl.col("time").is_null()), frame.filter(pl.col("time").is_not_null())
    statics, static_offsets, unknown_statics = _statics(static, vocabulary, patients)
    moments = {code: _first_moment(timed, code, patients) for code in (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)}
    known = _with_entries(timed.filter(~pl.col("code").is_in(list(moments))), vocabulary)
    visits, unusual_ends = _visits(known, vocabulary)
    used = pl.concat([visits["start_row"].drop_nulls(), visits["end_row"].drop_nulls()])
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
    left_out = {
        "code not in the vocabulary": known.filter((pl.col("entry") == 0) & ~pl.col("structural")).height,
        "static fact not in the vocabulary": unknown_statics,
        "visit start or end without its counterpart, repeated, or of a type not in the vocabulary": known.filter(
            (pl.col("entry") == 0) & pl.col("structural") & ~pl.col("row").is_in(used.implode())
        ).height,
        "repeated birth, death or end of observation": timed.filter(pl.col("code").is_in(list(moments))).height
        - sum(int((moment != MISSING).sum()) for moment in moments.values()),
    }
    altered = {
        "code kept in a broader form": known.filter((pl.col("entry") > 0) & ~pl.col("exact")).height,
        "visit end brought to the usual one of its type": unusual_ends,
        "detail of a birth, death, static fact or visit bound": frame.filter(_has_lost_detail()).height,
    }
    return sequences, EncodeReport(*({why: n for why, n in counts.items() if n} for counts in (left_out, altered)))


def _has_lost_detail() -> pl.Expr:
    """Whether a row says more than its kind can carry in sequences."""

    def says(*columns: str) -> pl.Expr:
        return pl.any_horizontal(pl.col(column).is_not_null() for column in columns)

    code = pl.col("code")
    return (
        pl.when(pl.col("time").is_null())
        .then(says("numeric_value", "visit_id", "end_time"))
        .when(code.is_in([codes.BIRTH, codes.DEATH, codes.OBSERVATION_END]))
        .then(says("numeric_value", "text_value", "unit", "visit_id", "end_time"))
        .when(code.str.starts_with("VISIT_START//"))
        .then(says("numeric_value", "end_time"))
        .when(code.str.starts_with("VISIT_END//"))
        .then(says("end_time"))
        .otherwise(False)
    )


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


def _visits(timed: pl.DataFrame, vocabulary: Vocabulary) -> tuple[pl.DataFrame, int]:
    """The visits, and how many ends are not the usual one of their type.

    A visit whose start no event tells starts with its first event, where the vocabulary has a type for it.

    Columns: patient, visit_id, start, kind, start_row (null where no event tells it), length, end_value, end_row.
    """
    key = ["patient", "visit_id"]
    marks = timed.filter(pl.col("code").str.starts_with("VISIT_START//"))
    types = {entry: index for entry in _entries_of(marks) if (index := vocabulary.lookup_type(entry)) is not None}
    starts = _mapped(marks, types, "kind").filter(pl.col("kind").is_not_null() & pl.col("visit_id").is_not_null())
    starts = starts.unique(key, keep="first", maintain_order=True).select(
        *key, pl.col("seconds").alias("start"), "kind", pl.col("row").alias("start_row")
    )
    if (unstated := vocabulary.type_index.get(UNSTATED_VISIT)) is not None:
        inside = timed.filter((pl.col("entry") > 0) & pl.col("visit_id").is_not_null()).join(starts, on=key, how="anti")
        begun = inside.group_by(key, maintain_order=True).agg(pl.col("seconds").min().alias("start"))
        starts = pl.concat([starts, begun.with_columns(kind=pl.lit(unstated, pl.Int64))], how="diagonal")
    ends = timed.filter(pl.col("code").str.starts_with("VISIT_END//")).join(starts, on=key, how="inner")
    ends = ends.filter(pl.col("seconds") >= pl.col("start")).unique(key, keep="last", maintain_order=True)
    visits = starts.join(
        ends.select(
            *key,
            (pl.col("seconds") - pl.col("start")).alias("length"),
            pl.col("numeric_value").alias("end_value"),
            pl.col("row").alias("end_row"),
        ),
        on=key,
        how="left",
        maintain_order="left",
    )
    return visits, _unusual(ends, vocabulary)


def _unusual(ends: pl.DataFrame, vocabulary: Vocabulary) -> int:
    """How many visit ends are not the usual one of the `kind` of their visit."""
    table = [(*end, index) for index, end in enumerate(vocabulary.visit_ends, start=1)]
    keys = {"code": pl.String, "text_value": pl.String, "unit": pl.String, "kind": pl.Int64}
    usual = pl.DataFrame(table, schema=keys, orient="row")
    return ends.join(usual, on=list(keys), how="anti", nulls_equal=True).height


def _with_entries(rows: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """Rows with their index (0: unknown), whether it is exactly theirs, and whether they bound a visit."""
    mapping = {entry: vocabulary.lookup(entry) for entry in _entries_of(rows)}
    exact = {entry: vocabulary.index[entry] for entry in mapping if entry in vocabulary.index}
    structural = pl.col("code").str.starts_with("VISIT_START//") | pl.col("code").str.starts_with("VISIT_END//")
    return _mapped(_mapped(rows, mapping, "entry"), exact, "exact").with_columns(
        pl.col("exact").is_not_null(), structural=structural
    )


def _entries_of(rows: pl.DataFrame) -> list[Entry]:
    return [Entry(*row) for row in rows.select("code", "text_value", "unit").unique().iter_rows()]


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
    # What comes before the start of its visit, or has none, continues nothing.
    begun = (pl.col("kind") > NO_VISIT).cum_sum().over("patient", "visit_id") > 0
    alone = (pl.col("kind") == CONTINUES) & ~begun
    steps = steps.with_columns(pl.when(alone).then(NO_VISIT).otherwise("kind").alias("kind"))
    numbered = rows.join(steps.select(*key, "step", "anchor"), on=key, how="left", nulls_equal=True)
    numbered = numbered.with_columns(offset=pl.col("seconds") - pl.col("anchor"), step=pl.col("step").cast(pl.Int64))
    return steps, numbered.sort("step", "entry", "offset", "numeric_value", "duration", nulls_last=False)

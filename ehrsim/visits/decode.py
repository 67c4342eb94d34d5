"""Visit sequences to events: the inverse of `encode`."""

from __future__ import annotations

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.events import DESCRIPTION
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT, Int64, Sequences
from ehrsim.vocabulary import UNSTATED_VISIT, Entry, Vocabulary


def decode(sequences: Sequences, vocabulary: Vocabulary) -> pl.DataFrame:
    """The event table of the sequences, in canonical order, with descriptions where the vocabulary has them."""
    parts = [
        _moments(sequences.subject, sequences.birth, codes.BIRTH),
        _moments(sequences.subject, sequences.death, codes.DEATH),
        _moments(sequences.subject, sequences.end, codes.OBSERVATION_END),
        _statics(sequences, vocabulary),
        *_visit_bounds(sequences, vocabulary),
        _measurements(sequences, vocabulary),
    ]
    columns = [*events.COLUMNS, DESCRIPTION] if vocabulary.descriptions else list(events.COLUMNS)
    frames = [_complete(part).select(columns) for part in parts]
    return events.sort(pl.concat(frames).lazy()).collect()


def _complete(part: pl.DataFrame) -> pl.DataFrame:
    filled = part.with_columns(
        pl.lit(None, dtype).alias(name)
        for name, dtype in {**events.SCHEMA, DESCRIPTION: pl.String()}.items()
        if name not in part.columns
    )
    return filled.with_columns(pl.col(name).cast(dtype) for name, dtype in events.SCHEMA.items())


def _times(seconds: Int64) -> pl.Series:
    """Datetimes from whole seconds; MISSING becomes null."""
    known = seconds != MISSING
    micro = pl.Series(np.where(known, seconds, 0) * 1_000_000, dtype=pl.Int64).cast(pl.Datetime("us"))
    return pl.select(pl.when(pl.Series(known)).then(micro)).to_series()


def _moments(subject: Int64, seconds: Int64, code: str) -> pl.DataFrame:
    known = seconds != MISSING
    return pl.DataFrame({"subject_id": subject[known], "time": _times(seconds[known])}).with_columns(code=pl.lit(code))


def _described(indices: np.ndarray, entries: list[Entry], vocabulary: Vocabulary) -> pl.DataFrame:
    """Code, text, unit and description of entries by index (from 1)."""
    table = pl.DataFrame(
        [(*entry, vocabulary.descriptions.get(entry.code)) for entry in entries],
        schema=dict.fromkeys(["code", "text_value", "unit", DESCRIPTION], pl.String),
        orient="row",
    )
    return table[pl.Series(indices.astype(np.int64) - 1)] if len(indices) else table.clear()


def _statics(sequences: Sequences, vocabulary: Vocabulary) -> pl.DataFrame:
    subject = np.repeat(sequences.subject, np.diff(sequences.static_offsets))
    named = _described(sequences.statics, vocabulary.statics, vocabulary)
    return named.with_columns(subject_id=pl.Series(subject))


def _visit_bounds(sequences: Sequences, vocabulary: Vocabulary) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The visit starts that events tell, and the visit ends where a length is known."""
    subject = sequences.subject[sequences.patient_of_step()]
    begins = (sequences.kind != CONTINUES) & (sequences.kind != NO_VISIT)
    ends = begins & (sequences.length != MISSING)
    told = begins & (sequences.kind != vocabulary.type_index.get(UNSTATED_VISIT))
    starts = _described(sequences.kind[told], vocabulary.visit_types, vocabulary).with_columns(
        subject_id=pl.Series(subject[told]),
        time=_times(sequences.time[told]),
        visit_id=pl.Series(sequences.visit[told]),
    )
    stops = _described(sequences.kind[ends], vocabulary.visit_ends, vocabulary).with_columns(
        subject_id=pl.Series(subject[ends]),
        time=_times(sequences.time[ends] + sequences.length[ends]),
        visit_id=pl.Series(sequences.visit[ends]),
        numeric_value=_nan_to_null(sequences.end_value[ends]),
    )
    return starts, stops


def _measurements(sequences: Sequences, vocabulary: Vocabulary) -> pl.DataFrame:
    step = sequences.step_of_event()
    begin = sequences.time[step] + sequences.offset
    has_end = sequences.duration != MISSING
    finish = np.where(has_end, begin + np.where(has_end, sequences.duration, 0), MISSING)
    visit = sequences.visit[step]
    named = _described(sequences.entry, vocabulary.entries, vocabulary)
    return named.with_columns(
        subject_id=pl.Series(sequences.subject[sequences.patient_of_step()[step]]),
        time=_times(begin),
        numeric_value=_nan_to_null(sequences.value),
        visit_id=pl.select(pl.when(pl.Series(visit != MISSING)).then(pl.Series(visit))).to_series(),
        end_time=_times(finish),
    )


def _nan_to_null(values: np.ndarray) -> pl.Series:
    return pl.Series(values, dtype=pl.Float32).fill_nan(None)

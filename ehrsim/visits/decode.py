"""Visit sequences to events: the inverse of `encode`."""

from __future__ import annotations

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.events import DESCRIPTION
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT, Int32, Int64, Sequences
from ehrsim.vocabulary import UNSTATED_VISIT, Entry, Vocabulary


def decode(sequences: Sequences, vocabulary: Vocabulary, *, enums: bool = False) -> pl.DataFrame:
    """The event table of the sequences, in canonical order, with descriptions where the vocabulary has them.

    With `enums` its texts stay in types that know all of them: these are quicker to write.
    """
    names = _Names(vocabulary)
    parts = [
        _moments(sequences.subject, sequences.birth, codes.BIRTH),
        _moments(sequences.subject, sequences.death, codes.DEATH),
        _moments(sequences.subject, sequences.end, codes.OBSERVATION_END),
        _statics(sequences, names),
        *_visit_bounds(sequences, names),
        _measurements(sequences, names),
    ]
    schema = {**events.SCHEMA, **names.schema}
    if not vocabulary.descriptions:
        del schema[DESCRIPTION]
    ordered = events.sort(pl.concat([_complete(part, schema) for part in parts]).lazy()).collect()
    return ordered if enums else ordered.cast({name: pl.String for name in names.schema if name in schema})


class _Names:
    """What the entries of a vocabulary are called, in types that sort without comparing texts."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        kinds = (vocabulary.entries, vocabulary.visit_types, vocabulary.visit_ends, vocabulary.statics)
        entries = [entry for kind in kinds for entry in kind]
        self.schema: dict[str, pl.DataType] = {
            "code": events.enum_of_codes([codes.BIRTH, codes.DEATH, codes.OBSERVATION_END, *(e.code for e in entries)]),
            "text_value": pl.Enum(sorted({entry.text for entry in entries if entry.text is not None})),
            "unit": pl.Enum(sorted({entry.unit for entry in entries if entry.unit is not None})),
            DESCRIPTION: pl.Enum(sorted(set(vocabulary.descriptions.values()))),
        }

    def of(self, indices: Int32, entries: list[Entry]) -> pl.DataFrame:
        """Code, text, unit and description of `entries` by index (from 1)."""
        rows = [(*entry, self.vocabulary.descriptions.get(entry.code)) for entry in entries]
        table = pl.DataFrame(rows, schema=self.schema, orient="row")
        return table[pl.Series(indices.astype(np.int64) - 1)] if len(indices) else table.clear()


def _complete(part: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """`part` with the columns and types of `schema`."""
    return part.select(
        pl.col(name).cast(dtype) if name in part.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    )


def _times(seconds: Int64) -> pl.Series:
    """Datetimes from whole seconds; MISSING becomes null."""
    known = seconds != MISSING
    micro = pl.Series(np.where(known, seconds, 0) * 1_000_000, dtype=pl.Int64).cast(pl.Datetime("us"))
    return pl.select(pl.when(pl.Series(known)).then(micro)).to_series()


def _moments(subject: Int64, seconds: Int64, code: str) -> pl.DataFrame:
    known = seconds != MISSING
    return pl.DataFrame({"subject_id": subject[known], "time": _times(seconds[known])}).with_columns(code=pl.lit(code))


def _statics(sequences: Sequences, names: _Names) -> pl.DataFrame:
    subject = np.repeat(sequences.subject, np.diff(sequences.static_offsets))
    named = names.of(sequences.statics, names.vocabulary.statics)
    return named.with_columns(subject_id=pl.Series(subject))


def _visit_bounds(sequences: Sequences, names: _Names) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The visit starts that events tell, and the visit ends where a length is known."""
    subject = sequences.subject[sequences.patient_of_step()]
    begins = (sequences.kind != CONTINUES) & (sequences.kind != NO_VISIT)
    ends = begins & (sequences.length != MISSING)
    vocabulary = names.vocabulary
    told = begins & (sequences.kind != vocabulary.type_index.get(UNSTATED_VISIT))
    starts = names.of(sequences.kind[told], vocabulary.visit_types).with_columns(
        subject_id=pl.Series(subject[told]),
        time=_times(sequences.time[told]),
        visit_id=pl.Series(sequences.visit[told]),
    )
    stops = names.of(sequences.kind[ends], vocabulary.visit_ends).with_columns(
        subject_id=pl.Series(subject[ends]),
        time=_times(sequences.time[ends] + sequences.length[ends]),
        visit_id=pl.Series(sequences.visit[ends]),
        numeric_value=_nan_to_null(sequences.end_value[ends]),
    )
    return starts, stops


def _measurements(sequences: Sequences, names: _Names) -> pl.DataFrame:
    step = sequences.step_of_event()
    begin = sequences.time[step] + sequences.offset
    has_end = sequences.duration != MISSING
    finish = np.where(has_end, begin + np.where(has_end, sequences.duration, 0), MISSING)
    visit = sequences.visit[step]
    named = names.of(sequences.entry, names.vocabulary.entries)
    return named.with_columns(
        subject_id=pl.Series(sequences.subject[sequences.patient_of_step()[step]]),
        time=_times(begin),
        numeric_value=_nan_to_null(sequences.value),
        visit_id=pl.select(pl.when(pl.Series(visit != MISSING)).then(pl.Series(visit))).to_series(),
        end_time=_times(finish),
    )


def _nan_to_null(values: np.ndarray) -> pl.Series:
    return pl.Series(values, dtype=pl.Float32).fill_nan(None)

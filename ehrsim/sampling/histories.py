"""Histories: records up to a date, as what the slots need to go on with them.

Of a record the model is told what is known of it on the date: the events before, and, where the date is later than the
last of them, that nothing happened until then (a future that begins earlier is drawn again, with what is not known of
the patient). Nothing that was recorded afterwards has any influence.

The model knows the calendar of its data up to their end, where most records break off. A future that would reach beyond
is drawn as many whole weeks earlier as need be, history and all, and told at its own time.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.errors import InputError, UsageError
from ehrsim.runs import Run
from ehrsim.sampling.rows import Known
from ehrsim.visits import encode
from ehrsim.visits.scales import YEAR, Scales
from ehrsim.visits.sequences import MISSING, Int64, Sequences

EPOCH = dt.datetime(1970, 1, 1)
WEEK = 7 * 86_400
COUNTED_IDS = 1 << 31
"""Visits of the future are numbered on from the highest id below; beyond are hashes, which counting does not reach."""


class Histories(NamedTuple):
    """H histories, each to be continued `copies` times: patient i of the output continues history i // copies."""

    copies: int
    events: pl.DataFrame
    """What was recorded before the date, in canonical order."""
    sequences: Sequences
    """The same as the model is told it, `known.shift` earlier."""
    known: Known
    """Of H histories, in the calendar of `events`."""

    @property
    def number(self) -> int:
        """How many histories there are."""
        return self.sequences.patients

    @property
    def patients(self) -> int:
        """Patients of the output."""
        return self.copies * self.number

    def known_of(self, patients: Int64) -> Known:
        """Of patients of the output by index."""
        return self.known.of(patients // self.copies)

    def listed(self) -> pl.DataFrame:
        """Which subject of the output continues whom: subject_id, source_subject_id, copy (from 0), since, until."""
        history = np.repeat(np.arange(self.number), self.copies)
        known = self.known.of(history)
        moments = {
            name: pl.Series(seconds * 1_000_000).cast(pl.Datetime("us"))
            for name, seconds in (("since", known.since), ("until", known.until))
        }
        return pl.DataFrame(
            {
                "subject_id": np.arange(1, len(history) + 1),
                "source_subject_id": self.sequences.subject[history],
                "copy": np.tile(np.arange(self.copies), self.number),
                **moments,
            }
        )


class HistoryReport(NamedTuple):
    """What became of the records that were to be continued, by reason."""

    left_out: dict[str, int]
    """Patients without a future."""
    unknown: dict[str, int]
    """Rows that are part of the output, but that the model does not know."""
    open_ends: int
    """Rows whose end came after the date, and is left open."""

    def lines(self) -> list[str]:
        """What is worth saying, for people."""
        left_out = [f"left out {number:,}: {why}" for why, number in self.left_out.items()]
        unknown = [f"not known to the model {number:,}: {why}" for why, number in self.unknown.items()]
        return left_out + unknown + ([f"ends after the date left open: {self.open_ends:,}"] if self.open_ends else [])


def read_histories(
    run: Run,
    source: str | Path | pl.LazyFrame | pl.DataFrame,
    *,
    since: dt.datetime | None,
    years: float | None,
    copies: int,
) -> tuple[Histories, HistoryReport]:
    """The histories of all patients of `source` who are alive and known on the date `since`.

    Without a date each is continued from its last event. `years` is how long at most; without it, to the end of the
    data of the run. Raises `UsageError` for numbers out of range, `InputError` if no patient is left.
    """
    if copies < 1:
        raise UsageError(f"{copies} futures of each patient, expected 1 or more")
    if years is not None and not 0 < years <= 120:
        raise UsageError(f"years is `{years}`, expected more than 0, 120 at most")
    table = source if isinstance(source, pl.LazyFrame | pl.DataFrame) else events.read_events(source)
    frame = table.lazy().collect()
    before, died, open_ends = _before(events.sort(events.conform(frame).lazy()).collect(), since)
    sequences, encoded = encode(before, run.vocabulary, step_seconds=run.scales.step_seconds)
    everyone = frame["subject_id"].n_unique()
    reasons = _reasons(sequences, run.scales, since, years)
    kept = sequences.select(np.flatnonzero(~np.any(list(reasons.values()), axis=0)))
    counts = {"died before": died, "without any event before": everyone - died - sequences.patients}
    left_out = counts | {why: int(mask.sum()) for why, mask in reasons.items()}
    if not kept.patients:
        found = ", ".join(f"{n} {why}" for why, n in left_out.items() if n)
        raise InputError(f"no patient to continue: {found or 'none at all'}", hint="try another --since, or --years")
    report = HistoryReport({why: n for why, n in left_out.items() if n}, encoded.left_out, open_ends)
    return _histories(run, before, kept, since, years, copies), report


def _before(frame: pl.DataFrame, since: dt.datetime | None) -> tuple[pl.DataFrame, int, int]:
    """The events before the date of patients not dead by then, how many are, and how many ends are not known yet."""
    if since is not None:
        frame = frame.filter(pl.col("time").is_null() | (pl.col("time") < since))
    dead = frame.filter(pl.col("code") == codes.DEATH)["subject_id"].unique()
    alive = ~pl.col("subject_id").is_in(dead.implode()) & (pl.col("code") != codes.OBSERVATION_END)
    frame = frame.filter(alive)
    timed = frame.filter(pl.col("time").is_not_null())["subject_id"].unique()
    frame = frame.filter(pl.col("subject_id").is_in(timed.implode()))
    if since is None:
        return frame, len(dead), 0
    late = pl.col("end_time") >= since
    cleared = frame.with_columns(end_time=pl.when(late).then(None).otherwise("end_time"))
    return cleared, len(dead), frame.filter(late).height


def _reasons(
    sequences: Sequences, scales: Scales, since: dt.datetime | None, years: float | None
) -> dict[str, np.ndarray]:
    """Which patients cannot be continued, and why; (P,) bool each, no patient twice."""
    without_step = np.diff(sequences.step_offsets) == 0
    without_birth = ~without_step & (sequences.birth == MISSING) & scales.births_known
    beyond = np.zeros_like(without_step)
    if years is None:
        late = _since(sequences, since) // scales.step_seconds >= scales.horizon
        beyond = late & ~without_step & ~without_birth
    return {
        "without anything the run knows before": without_step,
        "without a birth": without_birth,
        "at the end of the data of the run (--years goes beyond)": beyond,
    }


def _since(sequences: Sequences, since: dt.datetime | None) -> Int64:
    """(P,) seconds of the date, or of each patient's last step."""
    if since is not None:
        return np.full(sequences.patients, (since - EPOCH) // dt.timedelta(seconds=1), np.int64)
    last = np.maximum(sequences.step_offsets[1:] - 1, 0)
    return sequences.time[last] if len(sequences.time) else np.zeros(sequences.patients, np.int64)


def _histories(
    run: Run, before: pl.DataFrame, sequences: Sequences, since: dt.datetime | None, years: float | None, copies: int
) -> Histories:
    scales = run.scales
    begin = _since(sequences, since)
    horizon = scales.horizon * scales.step_seconds
    until = np.full(len(begin), horizon) if years is None else begin + int(years * YEAR)
    shift = -(-np.maximum(until - horizon, 0) // WEEK) * WEEK
    mine = before.filter(pl.col("subject_id").is_in(sequences.subject.tolist()))
    of_subject = mine.group_by("subject_id").agg(
        pl.col("time").max().dt.timestamp("us").floordiv(1_000_000).alias("last"),
        pl.col("visit_id").filter(pl.col("visit_id").is_between(0, COUNTED_IDS)).max().fill_null(0),
    )
    of_subject = pl.DataFrame({"subject_id": sequences.subject}).join(
        of_subject, on="subject_id", how="left", maintain_order="left"
    )
    moved = sequences._replace(
        time=sequences.time - shift[sequences.patient_of_step()],
        birth=np.where(sequences.birth == MISSING, MISSING, sequences.birth - shift),
    )
    known = Known(
        since=np.maximum(begin, of_subject["last"].to_numpy()),
        until=until,
        shift=shift,
        last_visit=_last_visits(sequences),
        visit_ids=of_subject["visit_id"].to_numpy(),
    )
    return Histories(copies, mine, moved, known)


def _last_visits(sequences: Sequences) -> Int64:
    """(P,) the id of the last step that belongs to a visit, or MISSING."""
    last = np.full(sequences.patients, MISSING)
    known = sequences.visit != MISSING
    last[sequences.patient_of_step()[known]] = sequences.visit[known]
    return last

"""Moments of a record at which a clinician would be given decision support, and what was known at each of them.

A record is cut at the level of its events, before any resource is made: what comes later, and the end of what was still
going on, is not there to be written.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from ehrsim.fhir import identity
from ehrsim.fhir.columns import Ints
from ehrsim.fhir.encounters import ends_in_order, visit_class
from ehrsim.fhir.identity import Lanes
from ehrsim.fhir.resources import MEDICATION_STATUSES
from ehrsim.fhir.shapes import ENDED, NUMBER_OF, TIMED, Shapes
from ehrsim.fhir.table import Mask, Table

Situation = Literal["visit", "order", "discharge"]
"""The start of a visit; the start of one or more medications at one time; the end of an inpatient stay."""

_FACTS = ("gender", "race", "ethnicity", "marital", "language")
"""Kinds of event that need no time to be known from the beginning."""
_AT_ARRIVAL = ("visit_start", "visit_type")
"""Events of a visit that are known as it starts: its reason may be what is only found out in it."""
_KNOWN_AT_THEIR_END = ("observation", "panel")


class Moments(NamedTuple):
    """At most one moment of each subject of a table; all arrays have an element a subject."""

    situation: Situation
    row: Ints
    """The row of the event that makes the moment, -1 for none."""
    time: Ints
    """In microseconds, 0 for none."""
    visit: Ints
    """Index of the visit that the event belongs to, -1 for none."""


class Known(NamedTuple):
    """The events that were known at some moments, cut down to what was known of them."""

    frame: pl.DataFrame
    lanes: Lanes
    """The hash of each row, that of the whole event."""
    drafts: frozenset[str]
    """Ids of the medications that start at the moment of an order: they are drafted, not yet ordered."""
    in_progress: frozenset[str]
    """Ids of the visits and procedures that go on at the moment."""
    undated: int
    """Events of these subjects without a time, which may be of the future and so are not known."""


def draw_moments(table: Table, shapes: Shapes, situation: Situation, count: int) -> list[Moments]:
    """Up to `count` moments of each subject, drawn by the hash of their events, each subject's in order of time."""
    found = _candidates(table, shapes, situation)
    found = found.sort("subject", "rank").filter(pl.int_range(pl.len()).over("subject") < count)
    found = found.sort("subject", "time", "row").with_columns(number=pl.int_range(pl.len()).over("subject"))
    found = found.sort("number", maintain_order=True)
    drawn = []
    for _, own in found.group_by("number", maintain_order=True):
        subject = own["subject"].to_numpy()
        row, time, visit = (np.full(len(table.subjects), none) for none in (-1, 0, -1))
        row[subject], time[subject], visit[subject] = (own[name].to_numpy() for name in ("row", "time", "visit"))
        drawn.append(Moments(situation, row, time, visit))
    return drawn


def _candidates(table: Table, shapes: Shapes, situation: Situation) -> pl.DataFrame:
    """Every moment of a situation in the life of each subject: of the medications of one time, the first one's row."""
    visits = table.visits
    if situation == "visit":
        rows = visits.start[visits.start >= 0]
    elif situation == "order":
        rows = table.rows_of("medication")
    else:
        rows = visits.end[ends_in_order(table) & _is_inpatient(table, shapes)]
    rows = np.sort(rows[(table.form[rows] & TIMED) != 0])
    times = table.frame["time"].to_physical()
    columns = {"subject": table.subject[rows], "row": rows, "time": times.gather(rows), "visit": table.visit[rows]}
    frame = pl.DataFrame({**columns, "rank": table.lanes[rows, 0]})
    if situation == "order":
        first = [pl.col(name).first() for name in ("row", "visit", "rank")]
        frame = frame.group_by("subject", "time", maintain_order=True).agg(first)
    born, died = (_time_of(table, kind) for kind in ("birth", "death"))
    subject, time = frame["subject"].to_numpy(), frame["time"].to_numpy()
    latest = np.iinfo(np.int64).max
    alive = (time >= np.where(born < latest, born, -latest)[subject]) & (time < died[subject])
    return frame.filter(alive)


def _is_inpatient(table: Table, shapes: Shapes) -> Mask:
    """Which visits are of an inpatient class."""
    start = table.visits.start
    code = np.where(start >= 0, table.code[start], -1)
    inpatient = {one: visit_class(shapes.codes[one].value).display.startswith("inpatient") for one in set(code) - {-1}}
    mask: Mask = np.array([inpatient.get(one, False) for one in code.tolist()], dtype=np.bool_)
    return mask


def _time_of(table: Table, kind: str) -> Ints:
    """The time of the first event of a kind of each subject, the latest number there is for none."""
    rows = table.rows_of(kind)
    rows = rows[(table.form[rows] & TIMED) != 0][::-1]
    times = np.full(len(table.subjects), np.iinfo(np.int64).max)
    times[table.subject[rows]] = table.frame["time"].to_physical().gather(rows).to_numpy()
    return times


def known_at(table: Table, at: Moments) -> Known:
    """What the events of the subjects that have a moment say at it: all before it, and some of the same time.

    At the start of a visit that is the visit itself; at an order or a discharge, all but the end of the visit. An event
    that ends later is there without its end, and an observation only at its end. A text that says how an order ended
    is there from its end on.
    """
    moment, has = at.time[table.subject], at.row[table.subject] >= 0
    time, end = (table.frame[name].to_physical().fill_null(0).to_numpy() for name in ("time", "end_time"))
    timed, ended = (table.form & TIMED) != 0, (table.form & ENDED) != 0
    own = (table.visit >= 0) & (table.visit == at.visit[table.subject])
    goes_on = ended & (end > moment)
    facts = ~timed & _is(table, *_FACTS)
    keep = has & (facts | (timed & (time < moment)) | (timed & (time == moment) & _same_time(table, at, own)))
    keep &= ~(goes_on & _is(table, *_KNOWN_AT_THEIR_END))
    rows = np.flatnonzero(keep)
    medication = _is(table, "medication")
    drafts = rows[medication[rows] & (time[rows] == moment[rows])] if at.situation == "order" else rows[:0]
    procedures = rows[_is(table, "procedure")[rows] & goes_on[rows]]
    status = table.frame["text_value"].is_in(list(MEDICATION_STATUSES)).fill_null(False).to_numpy()
    unsaid = medication & status & ~(ended & ~goes_on)
    frame = table.frame[rows].with_columns(
        end_time=pl.when(pl.Series(~goes_on[rows])).then(pl.col("end_time")),
        text_value=pl.when(pl.Series(~unsaid[rows])).then(pl.col("text_value")),
    )
    going_on = pl.concat([identity.uuids(table.lanes[procedures]), _visits_in_progress(table, at, time)])
    return Known(
        frame=frame,
        lanes=table.lanes[rows],
        drafts=frozenset(identity.uuids(table.lanes[drafts])),
        in_progress=frozenset(going_on),
        undated=int((has & ~timed & ~facts).sum()),
    )


def _same_time(table: Table, at: Moments, own: Mask) -> Mask:
    """Which events, where they are of the time of the moment, are known at it."""
    if at.situation == "visit":
        return _is(table, "birth") | (own & _is(table, *_AT_ARRIVAL))
    known: Mask = ~_is(table, "death") & ~(own & _is(table, "visit_end"))
    return known


def _visits_in_progress(table: Table, at: Moments, time: Ints) -> pl.Series:
    """Ids of the visits of the moments, and of those that have started then and end later."""
    visits = table.visits
    moment = at.time[visits.subject]
    started = (visits.start >= 0) & (time[visits.start] <= moment)
    goes_on = (visits.end >= 0) & (time[visits.end] > moment)
    own = np.arange(len(visits.subject)) == at.visit[visits.subject]
    return identity.uuids(visits.lanes[own | (started & goes_on)])


def _is(table: Table, *kinds: str) -> Mask:
    mask: Mask = np.isin(table.kind, [NUMBER_OF[kind] for kind in kinds])
    return mask

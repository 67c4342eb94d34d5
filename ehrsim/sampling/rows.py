"""From the rows that leave the device to visit sequences: bins become times and values, records become consistent."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.batch import Sizes
from ehrsim.visits.scales import AT_END, AT_START, Scales
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT, Int64, Sequences, offsets_of

Rows = dict[str, np.ndarray[Any, Any]]
"""Fields of `ehrsim.sampling.slots.Row`, each with the rows of some patients as leading axis, in order of time."""


class Known(NamedTuple):
    """What is known of P patients whose records go on; all in seconds of the record's own calendar."""

    since: Int64
    """(P,) the future is not told to begin before, and `until` (P,) not to last beyond."""
    until: Int64
    shift: Int64
    """(P,) by how much earlier the model was told the history."""
    last_visit: Int64
    """(P,) id of the last visit or MISSING: the one that steps belong to which continue a visit."""
    visit_ids: Int64
    """(P,) the highest id of a visit, 0 if there is none; those of the future follow."""

    def of(self, which: Int64) -> Known:
        """Those of some of the patients."""
        return Known(*(column[which] for column in self))


def to_sequences(rows: Rows, scales: Scales, sizes: Sizes, known: Known | None = None) -> Sequences:
    """The sequences of whole records; patient index i becomes subject i + 1.

    Nothing comes before birth or after death: times are moved to the nearest moment of the patient's life. What would
    be told twice, the same of the same moment in all respects, is told once. Of patients who are `known` already
    neither birth nor statics are told again.
    """
    order = np.argsort(rows["patient"], kind="stable")
    rows = {name: column[order] for name, column in rows.items()}
    terminal = rows["kind"] >= sizes.death
    patient = np.cumsum(np.append(False, terminal[:-1]))
    last = np.flatnonzero(terminal)
    moments = _moments(rows, patient, scales)
    births = _birth(rows, last, moments, scales)
    begins, until = births, np.full(len(last), scales.horizon * scales.step_seconds)
    if known is not None:
        begins, until, moments = known.since, known.until, moments + known.shift[patient]
    moments = _running_maximum(np.maximum(moments, begins[patient]), patient)
    steps = np.flatnonzero(~terminal)
    of_patient = patient[steps]
    kind, visit = _visits(rows["kind"][steps], of_patient, sizes, known)
    length = _lengths(rows, steps, kind, scales)
    anchor = moments[steps]
    place_step, place = np.nonzero(rows["codes"][steps])
    events = {name: rows[name][steps][place_step, place] for name in _EVENT_FIELDS}
    event_time = anchor[place_step] + _offsets(events, length[place_step], scales)
    event_time = np.maximum(event_time, begins[of_patient][place_step])
    event_time = _in_order(event_time, place_step << 32 | events["codes"])
    final = _finals(moments[last], of_patient[place_step], event_time)
    dies = rows["kind"][last] == sizes.death
    beyond = np.where(dies, final, np.maximum(final, until + scales.step_seconds - 1))
    stop = np.minimum(anchor + np.where(length == MISSING, 0, length), beyond[of_patient])
    length = np.where(length == MISSING, MISSING, stop - anchor)
    values = scales.values.value(events["codes"], events["rank"])
    values = np.where(events["value"] > 0, values, np.nan).astype(np.float32)
    duration = _durations(events, event_time, beyond[of_patient][place_step], sizes, scales)
    owner = of_patient[place_step] << 32 | np.where(visit == MISSING, 0, visit)[place_step]
    told = _first_told(owner, events["codes"], event_time, values, duration)
    statics = rows["statics"][last] * (known is None)
    return Sequences(
        subject=rows["patient"][last].astype(np.int64) + 1,
        birth=births if scales.births_known and known is None else np.full(len(last), MISSING),
        death=np.where(dies, final, MISSING),
        end=np.where(~dies & scales.ends_known, final, MISSING),
        static_offsets=offsets_of((statics > 0).sum(1)),
        statics=statics[statics > 0].astype(np.int32),
        step_offsets=offsets_of(np.bincount(of_patient, minlength=len(last))),
        time=anchor,
        kind=kind,
        visit=visit,
        length=length,
        end_value=_end_values(length, scales),
        event_offsets=offsets_of(np.bincount(place_step[told], minlength=len(steps))),
        entry=events["codes"][told].astype(np.int32),
        offset=(event_time - anchor[place_step])[told],
        value=values[told],
        duration=duration[told],
    )


_EVENT_FIELDS = ("codes", "offset", "offset_within", "value", "rank", "duration", "duration_within")


def _birth(rows: Rows, last: Int64, moments: Int64, scales: Scales) -> Int64:
    """(P,) seconds of birth, or the start of the record's first time bin where births are not known.

    Some begin with their birth: those are born at the moment of their first step.
    """
    origin = rows["origin"][last].astype(np.int64) * scales.step_seconds
    if not scales.births_known:
        return origin
    first = np.append(0, last[:-1] + 1)[: len(last)]
    at_once = (first < last) & (rows["time"][first] == rows["origin"][first])
    at_first, within = _chosen(rows["origin_clock"][last], at_once * scales.born_at_first)
    level = np.minimum((within * len(scales.birth_clock)).astype(np.int64), len(scales.birth_clock) - 1)
    return np.where(at_first, moments[first], origin + scales.birth_clock[level].astype(np.int64))


def _chosen(
    uniform: np.ndarray[Any, Any], share: np.ndarray[Any, Any]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each number decides for what has a `share` of chances, and what is left of it, again from 0 to 1."""
    chosen = uniform < share
    left = np.where(chosen, uniform / np.maximum(share, 1e-9), (uniform - share) / np.maximum(1.0 - share, 1e-9))
    return chosen, left


def _moments(rows: Rows, patient: Int64, scales: Scales) -> Int64:
    """Seconds of every row: its time bin and clock, which may be that of the last one in the same bin of the clock."""
    kept, within = _chosen(rows["clock_within"], scales.clock_kept[rows["kind"]])
    order = np.lexsort((np.arange(len(patient)), rows["clock"], patient))
    new = np.append(True, (np.diff(patient[order]) != 0) | (np.diff(rows["clock"][order]) != 0))[: len(order)]
    source = np.maximum.accumulate(np.where(new | ~kept[order], np.arange(len(order)), 0))
    within[order] = within[order[source]]
    clock = scales.clock.draw(rows["clock"], within)
    return rows["time"].astype(np.int64) * scales.step_seconds + clock


def _running_maximum(times: Int64, patient: Int64) -> Int64:
    """The latest time so far within each patient."""
    apart = np.int64(1 << 40)
    latest: Int64 = np.maximum.accumulate(times + patient * apart) - patient * apart
    return latest


def _visits(
    kinds: np.ndarray[Any, Any], patient: Int64, sizes: Sizes, known: Known | None = None
) -> tuple[np.ndarray[Any, Any], Int64]:
    """Kinds in the terms of sequences, and visit ids that count a patient's visits from 1, or from those known.

    A step that continues goes on with the patient's last visit, whatever happened outside of visits since; where there
    has been none it is outside of visits itself.
    """
    patients = patient[-1] + 1 if len(patient) else 0
    last = np.full(patients, MISSING) if known is None else known.last_visit
    ids = np.zeros(patients, np.int64) if known is None else known.visit_ids
    begins = (kinds != sizes.continues) & (kinds != NO_VISIT)
    count = np.cumsum(begins)
    first = np.searchsorted(patient, np.arange(patients))
    before = (count - begins)[first][patient] if len(patient) else count
    number = count - before
    visit = np.where(number > 0, ids[patient] + number, last[patient])
    outside = (kinds == NO_VISIT) | (visit == MISSING)
    kind = np.where(outside, NO_VISIT, np.where(kinds == sizes.continues, CONTINUES, kinds)).astype(np.int32)
    return kind, np.where(outside, MISSING, visit)


def _lengths(rows: Rows, steps: Int64, kind: np.ndarray[Any, Any], scales: Scales) -> Int64:
    bins = rows["length"][steps]
    drawn = scales.length.draw(np.maximum(bins - 1, 0), rows["length_within"][steps])
    return np.where((bins > 0) & (kind > 0), drawn, MISSING)


def _offsets(events: Rows, length: Int64, scales: Scales) -> Int64:
    drawn = scales.offset.draw(np.maximum(events["offset"] - 2, 0), events["offset_within"])
    drawn = np.where(events["offset"] == AT_END, np.where(length == MISSING, 0, length), drawn)
    return np.where(events["offset"] == AT_START, 0, drawn)


def _in_order(times: Int64, code: Int64) -> Int64:
    """The times of each `code` in ascending order: its values were drawn one after the other. Codes stand together."""
    ordered: Int64 = times[np.lexsort((times, np.cumsum(np.diff(code, prepend=code[:1]) != 0)))]
    return ordered


def _finals(terminal: Int64, owner: Int64, event_time: Int64) -> Int64:
    """(P,) the end of each record: its terminal step, or its last event if that is later."""
    final = terminal.copy()
    np.maximum.at(final, owner, event_time)
    return final


def _first_told(
    owner: Int64, code: np.ndarray[Any, Any], time: Int64, value: np.ndarray[Any, Any], duration: Int64
) -> Int64:
    """Rows of the events without those that repeat an earlier one of the same visit (`owner`) in every column."""
    columns = (time, owner, code.astype(np.int64), value.view(np.int32).astype(np.int64), duration)
    # Only events of one mark are compared in full: that leaves few, and sorting one column is quick.
    mark = (time * 0x9E3779B97F4A7C1 + owner) * 0x94D049BB133111 + code
    order = np.argsort(mark, kind="stable")
    close = np.zeros(len(order) + 1, bool)
    close[1:-1] = np.diff(mark[order]) == 0
    suspect = order[close[1:] | close[:-1]]
    _, first = np.unique(np.stack([column[suspect] for column in columns], axis=1), axis=0, return_index=True)
    repeated = np.ones(len(suspect), bool)
    repeated[first] = False
    kept: Int64 = np.delete(np.arange(len(time)), suspect[repeated])
    return kept


def _durations(events: Rows, begin: Int64, beyond: Int64, sizes: Sizes, scales: Scales) -> Int64:
    """Seconds to the end of each event; an end after death is no end."""
    bins = events["duration"]
    rank = (np.maximum(bins - 1, 0) + events["duration_within"]) / (sizes.durations - 1)
    drawn = scales.durations.value(events["codes"], rank).astype(np.int64)
    return np.where((bins > 0) & (begin + drawn <= beyond), drawn, MISSING)


def _end_values(length: Int64, scales: Scales) -> np.ndarray[Any, Any]:
    days = np.where(length == MISSING, np.nan, length / 86_400.0)
    return (days if scales.end_in_days else np.full(len(length), np.nan)).astype(np.float32)

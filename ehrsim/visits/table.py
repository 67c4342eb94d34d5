"""Visit sequences to a table of steps in which every time and value is a bin: what batches are packed from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.batch import CHANGES, Sizes, Visit
from ehrsim.visits.scales import (
    AT_END,
    AT_START,
    DURATION_BINS,
    VALUE_BINS,
    YEAR,
    Scales,
    origins,
)
from ehrsim.visits.sequences import CONTINUES, MISSING, Int32, Int64, Sequences, offsets_of
from ehrsim.vocabulary import Vocabulary


class Table(NamedTuple):
    """All steps of a data set in bins: the whole of a `Batch` but for packing. Steps of a patient are contiguous."""

    step_offsets: Int64
    context_statics: Int32
    outcome: Int32
    last_age: NDArray[np.float32]
    """(P,) years, of the terminal step."""
    origin: Int32
    first_gap: Int32
    timed: NDArray[np.bool_]
    visit: Visit
    code_offsets: Int64
    """Offsets into `distinct_codes`, by patient."""
    distinct_codes: Int32

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(self.outcome)

    def events_before(self) -> Int64:
        """(steps + 1,) number of events before each step."""
        return offsets_of((self.visit.codes > 0).sum(1))


def sizes(vocabulary: Vocabulary, scales: Scales, places: int) -> Sizes:
    """The sizes that a vocabulary and scales give a model, without precursors."""
    return Sizes(
        vocabulary=vocabulary.size,
        groups=vocabulary.group_bounds,
        kinds=len(vocabulary.visit_types) + 4,
        statics=len(vocabulary.statics) + 1,
        gaps=scales.gap.bins + scales.landing.bins,
        landings=tuple(-float(middle) * scales.step_seconds / YEAR for middle in scales.landing.knots[:, 2]),
        first_gaps=scales.first_gap.bins + scales.first_landing.bins,
        origins=scales.origin.bins,
        clocks=scales.clock.bins,
        lengths=scales.length.bins + 1,
        offsets=scales.offset.bins + 2,
        values=1 + VALUE_BINS + 1 + CHANGES,
        durations=DURATION_BINS + 1,
        places=places,
        ties=scales.values.ties(VALUE_BINS),
    )


def suggest_places(sequences: Sequences) -> int:
    """Event places a step: enough for 99 % of the steps, a multiple of 8 from 8 to 64; longer steps are split."""
    events = np.diff(sequences.event_offsets)
    needed = np.quantile(events, 0.99) if len(events) else 1
    return int(np.clip(8 * np.ceil(needed / 8), 8, 64))


class TableReport(NamedTuple):
    """What was left out on the way to the table."""

    patients_without_time: int
    """Patients of whom neither a step nor both birth and end are known."""
    steps_after_death: int
    steps_split: int


def tabulate(sequences: Sequences, scales: Scales, size: Sizes) -> tuple[Table, TableReport]:
    """The table of the sequences. Steps after death, and patients without any, are left out and counted."""
    kept = usable(sequences)
    kept, late = _drop_after_death(kept)
    split, extra = _split_steps(kept, size.places)
    table = _table(split, scales, size)
    return table, TableReport(sequences.patients - kept.patients, late, extra)


def usable(sequences: Sequences) -> Sequences:
    """The patients whom a table holds, in its order: of whom a step is known, or when their life began and ended."""
    whole_life = (sequences.birth != MISSING) & ((sequences.death != MISSING) | (sequences.end != MISSING))
    return sequences.select(np.flatnonzero((np.diff(sequences.step_offsets) > 0) | whole_life))


def _drop_after_death(sequences: Sequences) -> tuple[Sequences, int]:
    owner = sequences.patient_of_step()
    death = sequences.death[owner]
    first = np.append(True, owner[1:] != owner[:-1])[: len(owner)]
    keep = (death == MISSING) | (sequences.time <= death) | first
    steps = np.flatnonzero(keep)
    if len(steps) == len(owner):
        return sequences, 0
    event_keep = keep[sequences.step_of_event()]
    return sequences._replace(
        step_offsets=offsets_of(np.bincount(owner[steps], minlength=sequences.patients)),
        time=sequences.time[steps],
        kind=sequences.kind[steps],
        visit=sequences.visit[steps],
        length=sequences.length[steps],
        end_value=sequences.end_value[steps],
        event_offsets=offsets_of(np.diff(sequences.event_offsets)[steps]),
        entry=sequences.entry[event_keep],
        offset=sequences.offset[event_keep],
        value=sequences.value[event_keep],
        duration=sequences.duration[event_keep],
    ), int(len(owner) - len(steps))


def _split_steps(sequences: Sequences, places: int) -> tuple[Sequences, int]:
    """Steps with more events than places go on in further steps of kind CONTINUES."""
    counts = np.diff(sequences.event_offsets)
    pieces = np.maximum(-(-counts // places), 1)
    if (pieces == 1).all():
        return sequences, 0
    source = np.repeat(np.arange(len(counts)), pieces)
    part = np.arange(len(source)) - np.repeat(offsets_of(pieces)[:-1], pieces)
    lengths = np.minimum(counts[source] - part * places, places)
    owner = sequences.patient_of_step()[source]
    further = part > 0
    return sequences._replace(
        step_offsets=offsets_of(np.bincount(owner, minlength=sequences.patients)),
        time=sequences.time[source],
        kind=np.where(further, CONTINUES, sequences.kind[source]).astype(np.int32),
        visit=sequences.visit[source],
        length=np.where(further, MISSING, sequences.length[source]),
        end_value=np.where(further, np.nan, sequences.end_value[source]).astype(np.float32),
        event_offsets=offsets_of(lengths),
    ), int(further.sum())


def _table(sequences: Sequences, scales: Scales, size: Sizes) -> Table:
    """Bins of every step, with one terminal step a patient appended."""
    patients = sequences.patients
    counts = np.diff(sequences.step_offsets)
    step_offsets = offsets_of(counts + 1)
    owner = sequences.patient_of_step()
    rows = np.arange(len(owner)) + owner
    last_rows = step_offsets[1:] - 1
    total = int(step_offsets[-1])
    origin_bin, has_birth = origins(sequences, scales.step_seconds)
    time = np.zeros(total, np.int64)
    time[rows] = sequences.time
    time[last_rows] = _terminal_times(sequences)
    step_bin = np.floor_divide(time, scales.step_seconds)
    gap_bins = np.maximum(np.diff(step_bin, prepend=step_bin[:1]), 0)
    patient_of_row = np.repeat(np.arange(patients), counts + 1)
    start = np.zeros(total, bool)
    start[step_offsets[:-1]] = True
    timed = ~start
    known_end = (sequences.death != MISSING) | (sequences.end != MISSING)
    timed[last_rows] &= known_end
    kind = np.zeros(total, np.int32)
    kind[rows] = np.where(sequences.kind == CONTINUES, size.continues, sequences.kind)
    dead = sequences.death != MISSING
    kind[last_rows] = np.where(dead, size.death, size.end)
    length = np.zeros(total, np.int32)
    has_length = sequences.length != MISSING
    length[rows[has_length]] = 1 + scales.length.assign(sequences.length[has_length])
    since_origin = (step_bin - origin_bin[patient_of_row]) * float(scales.step_seconds)
    age = (np.maximum(since_origin, 0) / YEAR).astype(np.float32)
    year = ((time - (scales.horizon + 1) * scales.step_seconds) / YEAR).astype(np.float32)
    first_bin = step_bin[step_offsets[:-1]]
    elapsed = ((step_bin - first_bin[patient_of_row]) * float(scales.step_seconds) / YEAR).astype(np.float32)
    first_gap = scales.first_gap_index(np.maximum(first_bin - origin_bin, 0), first_bin)
    events = _event_bins(sequences, scales, size, rows, total)
    distinct, code_offsets = _distinct_codes(sequences)
    return Table(
        step_offsets=step_offsets,
        context_statics=_static_rows(sequences),
        outcome=np.where(dead, 2, 1).astype(np.int32),
        last_age=age[last_rows],
        origin=scales.origin.assign(origin_bin),
        first_gap=np.where(has_birth, first_gap, -1).astype(np.int32),
        timed=timed,
        visit=Visit(
            kind=kind,
            gap=np.where(timed, scales.gap_index(gap_bins, step_bin), 0).astype(np.int32),
            clock=scales.clock.assign(time - step_bin * scales.step_seconds),
            length=length,
            age=age,
            year=year,
            elapsed=elapsed,
            steps=(np.arange(total) - step_offsets[:-1][patient_of_row]).astype(np.float32),
            since=(np.where(start, 0, gap_bins) * float(scales.step_seconds) / YEAR).astype(np.float32),
            **events,
        ),
        code_offsets=code_offsets,
        distinct_codes=distinct,
    )


def _terminal_times(sequences: Sequences) -> Int64:
    """Death, else end of observation, else the last step; never before the last step."""
    has_steps = np.diff(sequences.step_offsets) > 0
    last = np.where(has_steps, np.append(sequences.time, 0)[sequences.step_offsets[1:] - 1], sequences.birth)
    moment = np.where(sequences.death != MISSING, sequences.death, sequences.end)
    return np.maximum(np.where(moment != MISSING, moment, last), last)


def _static_rows(sequences: Sequences) -> Int32:
    """(P, S) statics of each patient, padded with 0."""
    counts = np.diff(sequences.static_offsets)
    width = max(int(counts.max(initial=0)), 1)
    rows = np.zeros((sequences.patients, width), np.int32)
    column = np.arange(len(sequences.statics)) - np.repeat(sequences.static_offsets[:-1], counts)
    rows[np.repeat(np.arange(sequences.patients), counts), column] = sequences.statics
    return rows


def _distinct_codes(sequences: Sequences) -> tuple[Int32, Int64]:
    owner = sequences.patient_of_step()[sequences.step_of_event()]
    pairs = np.unique(np.stack([owner, sequences.entry.astype(np.int64)], axis=1), axis=0)
    return pairs[:, 1].astype(np.int32), offsets_of(np.bincount(pairs[:, 0], minlength=sequences.patients))


def _event_bins(
    sequences: Sequences, scales: Scales, size: Sizes, rows: Int64, total: int
) -> dict[str, NDArray[np.generic]]:
    """The event fields of `Visit`, each (total, K)."""
    step = sequences.step_of_event()
    place = np.arange(len(step)) - np.repeat(sequences.event_offsets[:-1], np.diff(sequences.event_offsets))
    dither = _dither(sequences)
    has_value = ~np.isnan(sequences.value)
    has_value &= scales.values.known[sequences.entry]
    rank = np.zeros(len(step), np.float32)
    rank[has_value] = scales.values.rank(sequences.entry[has_value], sequences.value[has_value], dither[has_value])
    has_end = (sequences.duration != MISSING) & scales.durations.known[sequences.entry]
    duration = np.zeros(len(step), np.int32)
    fraction = scales.durations.rank(sequences.entry[has_end], sequences.duration[has_end], dither[has_end])
    duration[has_end] = 1 + (fraction * (size.durations - 1)).astype(np.int32)
    length = np.where(sequences.kind == CONTINUES, MISSING, sequences.length)[step]
    offset = scales.offset.assign(sequences.offset) + 2
    offset = np.where(sequences.offset == length, AT_END, offset)
    offset = np.where(sequences.offset == 0, AT_START, offset)
    chains = _chains(sequences)
    earlier, last = (_last_values(chains, begin, has_value) for begin in (chains.block, np.arange(len(step))))
    last_rank = np.where(earlier >= 0, rank[earlier], np.float32(-1))
    last_age = np.where(earlier >= 0, (sequences.time[step] - sequences.time[step[earlier]]) / YEAR, 0)
    number, mean_rank = _mean_ranks(chains, has_value, rank)
    # Equal values rank alike, and so do those beyond the one end of what was observed.
    same = has_value & (last >= 0) & (rank == rank[last])
    value = np.where(same, size.same, np.where(has_value, 1 + (rank * size.value_bins).astype(np.int32), 0))
    columns = {
        "codes": (sequences.entry, np.int32),
        "offset": (offset, np.int32),
        "value": (value, np.int32),
        "rank": (rank, np.float32),
        "duration": (duration, np.int32),
        "last_rank": (last_rank, np.float32),
        "last_age": (last_age, np.float32),
        "measurements": (number, np.float32),
        "mean_rank": (mean_rank, np.float32),
    }
    filled = {}
    for name, (column, dtype) in columns.items():
        grid = np.full((total, size.places), -1 if name == "last_rank" else 0, dtype)
        grid[rows[step], place] = column
        filled[name] = grid
    return filled


def _dither(sequences: Sequences) -> NDArray[np.float64]:
    """Where in its tie each value stands: at one place for a patient and code, so that equal values rank alike."""
    owner = sequences.patient_of_step()[sequences.step_of_event()]
    _, pair = np.unique(owner << 32 | sequences.entry, return_inverse=True)
    drawn: NDArray[np.float64] = np.random.Generator(np.random.Philox(key=0)).random(pair.max(initial=-1) + 1)
    return drawn[pair]


class _Chains(NamedTuple):
    """Events in the order of patient, code and time, with where those of a patient and code, and of a step, begin."""

    order: Int64
    """(E,) row of each"""
    chain: Int64
    """(E,) position of the first one of the patient and code, and `block` (E,) of those the first one in the step."""
    block: Int64


def _chains(sequences: Sequences) -> _Chains:
    step = sequences.step_of_event()
    owner = sequences.patient_of_step()[step]
    order = np.lexsort((np.arange(len(step)), sequences.entry, owner))
    owner, entry, step = owner[order], sequences.entry[order], step[order]
    position = np.arange(len(order))
    new_chain = np.ones(len(order), bool)
    new_chain[1:] = (owner[1:] != owner[:-1]) | (entry[1:] != entry[:-1])
    new_block = new_chain.copy()
    new_block[1:] |= step[1:] != step[:-1]
    return _Chains(
        order,
        np.maximum.accumulate(np.where(new_chain, position, 0)),
        np.maximum.accumulate(np.where(new_block, position, 0)),
    )


def _last_values(chains: _Chains, begin: Int64, has_value: NDArray[np.bool_]) -> Int64:
    """For each event the row of the code's last value before the event at `begin` in the chains; -1 for none."""
    last = np.full(len(begin), -1, np.int64)
    valued = np.maximum.accumulate(np.where(has_value[chains.order], np.arange(len(begin)), -1))
    before = np.where(begin > 0, valued[np.maximum(begin - 1, 0)], -1)
    found = before >= chains.chain
    last[chains.order[found]] = chains.order[before[found]]
    return last


def _mean_ranks(
    chains: _Chains, has_value: NDArray[np.bool_], rank: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each event how many values the code had in earlier steps, and the mean of their ranks (0: none)."""
    order, chain, block = chains
    upto = [np.append(0.0, np.cumsum(column[order].astype(np.float64))) for column in (has_value, rank)]
    number, total = np.zeros(len(order)), np.zeros(len(order))
    number[order], total[order] = (sums[block] - sums[chain] for sums in upto)
    return number.astype(np.float32), (total / np.maximum(number, 1)).astype(np.float32)

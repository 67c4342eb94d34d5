"""Packing: batches of fixed shape with several patients to a row, and little padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.batch import Batch, Context, Visit
from ehrsim.visits.sequences import Int32, Int64, offsets_of
from ehrsim.visits.table import Table

CONTEXT_CODES = 4
"""Codes offered as context in training: a random few of those the patient ever has."""
COMMON_ENOUGH = 0.01
"""Share of the patients who have a code from which on it is chosen the sooner the fewer have it."""


class Shape(NamedTuple):
    """The fixed shape of batches: rows, steps a row, patients and events a batch."""

    rows: int
    steps: int
    patients: int
    events: int


def suggest_shape(table: Table, steps_per_batch: int) -> Shape:
    """Rows long enough for 99.5 % of the patients (32 to 512 steps), as many as `steps_per_batch` allows."""
    lengths = np.diff(table.step_offsets)
    longest = float(np.quantile(lengths, 0.995)) if len(lengths) else 1
    steps = int(np.clip(2 ** np.ceil(np.log2(max(longest, 1))), 32, 512))
    rows = max(steps_per_batch // steps, 4)
    mean = max(float(np.minimum(lengths, steps).mean()), 1.0) if len(lengths) else 1.0
    patients = int(np.ceil(1.25 * rows * steps / mean / 8)) * 8
    density = int(table.events_before()[-1]) / max(len(table.visit.kind), 1)
    longest_row = steps * table.visit.codes.shape[1]
    return Shape(rows, steps, patients, max(int(np.ceil(1.25 * rows * steps * density / 64)) * 64, longest_row))


def batches(table: Table, shape: Shape, order: Int64, code_key: int) -> Iterator[Batch]:
    """Batches of the patients in `order`, each placed in the first row that has room; longer records are cut.

    `code_key` seeds the choice of context codes.
    """
    lengths = np.minimum(np.diff(table.step_offsets), shape.steps)
    before = table.events_before()
    events = before[table.step_offsets[:-1] + lengths] - before[table.step_offsets[:-1]]
    rng = np.random.Generator(np.random.Philox(key=code_key))
    context_codes = _choose_codes(table, rng)
    room, event_room = np.full(shape.rows, shape.steps), shape.events
    placed: list[tuple[int, int, int]] = []
    for patient in order.tolist():
        length = int(lengths[patient])
        row = int(np.argmax(room >= length))
        if room[row] < length or len(placed) == shape.patients or event_room < events[patient]:
            yield _batch(table, shape, placed, lengths, context_codes)
            placed, row = [], 0
            room[:], event_room = shape.steps, shape.events
        placed.append((patient, row, shape.steps - int(room[row])))
        room[row] -= length
        event_room -= int(events[patient])
    if placed:
        yield _batch(table, shape, placed, lengths, context_codes)


def _choose_codes(table: Table, rng: np.random.Generator) -> Int32:
    """(P, CONTEXT_CODES) distinct codes each patient has, chosen at random, 0 where there are not enough.

    A code that few have is chosen sooner: to be told of what everybody has teaches nothing. Weighted sampling without
    replacement after Efraimidis & Spirakis 2006.
    """
    codes, patients = table.distinct_codes, table.patients
    owner = np.repeat(np.arange(patients), np.diff(table.code_offsets))
    having = np.bincount(codes, minlength=1)
    turn = rng.exponential(size=len(codes)) * np.maximum(having, COMMON_ENOUGH * patients)[codes]
    order = np.lexsort((turn, owner))
    place = np.arange(len(codes)) - table.code_offsets[:-1][owner]
    first = place < CONTEXT_CODES
    chosen = np.zeros((patients, CONTEXT_CODES), np.int32)
    chosen[owner[first], place[first]] = codes[order][first]
    return chosen


def _batch(
    table: Table, shape: Shape, placed: list[tuple[int, int, int]], lengths: Int64, context_codes: Int32
) -> Batch:
    patients, rows, columns = (np.array(part) for part in zip(*placed, strict=True))
    counts = lengths[patients]
    ordinal = np.repeat(np.arange(len(patients)), counts)
    within = np.arange(len(ordinal)) - np.repeat(offsets_of(counts)[:-1], counts)
    source = table.step_offsets[patients][ordinal] + within
    target = (rows[ordinal], columns[ordinal] + within)

    def grid(column: NDArray[np.generic]) -> NDArray[np.generic]:
        filled = np.zeros((shape.rows, shape.steps, *column.shape[1:]), column.dtype)
        filled[target] = column[source]
        return filled

    def pad(column: NDArray[np.generic]) -> NDArray[np.generic]:
        filled = np.zeros((shape.patients, *column.shape[1:]), column.dtype)
        filled[: len(patients)] = column[patients]
        return filled

    patient = np.zeros((shape.rows, shape.steps), np.int32)
    patient[target] = ordinal
    used = np.zeros((shape.rows, shape.steps), bool)
    used[target] = True
    start = np.zeros((shape.rows, shape.steps), bool)
    start[rows, columns] = True
    real = np.zeros(shape.patients, bool)
    real[: len(patients)] = True
    visit = Visit(*(grid(column) for column in table.visit))
    found = np.nonzero(visit.codes)
    spare = (0, shape.events - len(found[0]))
    return Batch(
        context=Context(
            statics=pad(table.context_statics),
            outcome=pad(table.outcome),
            codes=pad(context_codes),
            ages=pad(np.stack([table.last_age, table.last_age], axis=1)),
        ),
        origin=pad(table.origin),
        first_gap=pad(table.first_gap),
        number=pad(np.arange(table.patients, dtype=np.int32)),
        real=real,
        patient=patient,
        used=used,
        start=start,
        timed=grid(table.timed) & used,
        visit=visit,
        events=(_pad(found[0], spare), _pad(found[1], spare), _pad(found[2], spare)),
        real_event=np.arange(shape.events) < len(found[0]),
    )


def _pad(index: NDArray[np.integer], spare: tuple[int, int]) -> Int32:
    return np.pad(index.astype(np.int32), spare)

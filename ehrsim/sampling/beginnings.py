"""Beginnings: where slots take up patients whose history is known, instead of at birth."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ehrsim.batch import Batch, Context, Sizes, Visit
from ehrsim.models.base import PatientModel, Tree, where
from ehrsim.runs import Run
from ehrsim.sampling.counters import Purpose, counters
from ehrsim.sampling.histories import Histories
from ehrsim.sampling.slots import Remembered, Slots, Tables
from ehrsim.visits import packing, table
from ehrsim.visits.packing import Shape
from ehrsim.visits.scales import origins
from ehrsim.visits.table import Table

Array = jax.Array

PARTICLES = 4
"""Draws of what is not known of a patient from the history; attempts at a future take them in turn."""
MOST_SILENT = 256
"""Attempts at a future that begins after the date; in later ones the first visit is moved there."""
HISTORIES_AT_ONCE = 64


class Beginnings(NamedTuple):
    """H histories on the device, each for `copies` patients; further ones are padding."""

    first: Array
    """() int32 the patient of the first copy of the first history."""
    copies: Array
    """() int32"""
    state: Any
    """Leading axis H * copies * PARTICLES: of the model, before the last visit is taken in."""
    statics: Array
    """(H, S)"""
    origin: Array
    """(H,) int32 time bin"""
    time: Array
    """(H,) int32 time bin of the last step, and `begun` (H,) of the first one."""
    begun: Array
    first_clock: Array
    """(H,) int32"""
    visit: Visit
    """(H, ...) the last step"""
    remembered: Remembered
    since: Array
    """(H,) int32 time bin of the first step at the earliest, and `until` (H,) of the last one at the latest."""
    until: Array

    def history(self, patient: Array) -> Array:
        """(B,) rows of the histories of patients (B,)."""
        return jnp.clip((patient - self.first) // self.copies, 0, self.origin.shape[0] - 1)


def take_up(beginnings: Beginnings, fresh: Array, slots: Slots) -> Slots:
    """Slots whose patient is new (`fresh`) are where the patient's history ends."""
    row = beginnings.history(slots.patient)
    of_patient = jnp.maximum(slots.patient - beginnings.first, 0) * PARTICLES + slots.attempt % PARTICLES

    def taken(new: Tree, old: Tree) -> Tree:
        mine: Tree = jax.tree.map(lambda part: part[row], new)
        return where(fresh, mine, old)

    of_state = jax.tree.map(lambda part: part.at[of_patient].get(mode="clip"), beginnings.state)
    return slots._replace(
        context=slots.context._replace(statics=taken(beginnings.statics, slots.context.statics)),
        state=where(fresh, of_state, slots.state),
        origin=taken(beginnings.origin, slots.origin),
        time=taken(beginnings.time, slots.time),
        begun=taken(beginnings.begun, slots.begun),
        first_clock=taken(beginnings.first_clock, slots.first_clock),
        visit=taken(beginnings.visit, slots.visit),
        remembered=taken(beginnings.remembered, slots.remembered),
    )


def beginnings(
    run: Run, tables: Tables, histories: Histories, first: int, end: int, size: int, seed: int
) -> Beginnings:
    """The beginnings of the histories `first` to `end` (exclusive), padded to `size`."""
    sequences = histories.sequences.select(np.arange(first, end))
    sizes, scales = run.model.sizes, run.scales
    steps, _ = table.tabulate(sequences, scales, sizes)
    last = steps.step_offsets[1:] - 2
    bins = scales.step_seconds
    copies, known = histories.copies, histories.known.of(np.arange(first, end))
    statics = np.zeros((end - first, tables.profiles.shape[1]), np.int32)
    width = min(statics.shape[1], steps.context_statics.shape[1])
    statics[:, :width] = steps.context_statics[:, :width]
    columns = {
        "statics": statics,
        "origin": origins(sequences, bins)[0].astype(np.int32),
        "time": (sequences.time[sequences.step_offsets[1:] - 1] // bins).astype(np.int32),
        "begun": (sequences.time[sequences.step_offsets[:-1]] // bins).astype(np.int32),
        "first_clock": steps.visit.clock[steps.step_offsets[:-1]],
        "visit": Visit(*(column[last] for column in steps.visit)),
        "remembered": _remembered(steps, sizes),
        "since": ((known.since - known.shift) // bins).astype(np.int32),
        "until": ((known.until - known.shift) // bins).astype(np.int32),
    }
    state = _states(run.model, tables, steps, first, copies, seed)
    missing = size - (end - first)
    return Beginnings(
        first=jnp.int32(first * copies),
        copies=jnp.int32(copies),
        state=jax.tree.map(lambda part: _padded(part, missing * copies * PARTICLES), state),
        **jax.tree.map(lambda part: jnp.asarray(_padded(part, missing)), columns),
    )


def _padded(part: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    return np.pad(part, [(0, rows)] + [(0, 0)] * (part.ndim - 1))


def _remembered(steps: Table, sizes: Sizes) -> Remembered:
    """What `Slots` remember of the histories, (H, V) each."""
    owner = np.repeat(np.arange(steps.patients), np.diff(steps.step_offsets))
    row, place = np.nonzero(steps.visit.codes)
    at = owner[row], steps.visit.codes[row, place]
    measured = steps.visit.value[row, place] > 0
    at_value = at[0][measured], at[1][measured]
    rank, age = steps.visit.rank[row, place][measured], steps.visit.age[row][measured]
    shape = (steps.patients, sizes.vocabulary)
    seen, last_time, measurements, total_rank = (np.zeros(shape, np.float32) for _ in range(4))
    last_rank = np.full(shape, -1, np.float32)
    seen[at] = 1
    # In the order of time: the last of several assignments to one place remains.
    last_rank[at_value], last_time[at_value] = rank, age
    np.add.at(measurements, at_value, np.float32(1))
    np.add.at(total_rank, at_value, rank)
    return Remembered(*map(jnp.asarray, (seen, last_rank, last_time, measurements, total_rank)))


def _states(model: PatientModel, tables: Tables, steps: Table, first: int, copies: int, seed: int) -> Any:
    """The states of all copies and particles: a pytree with leading axis H * copies * PARTICLES."""
    key = jax.random.key(seed)
    longest = int(np.diff(steps.step_offsets).max())
    width = 1 << max(longest - 1, 31).bit_length()
    shape = Shape(HISTORIES_AT_ONCE, width, HISTORIES_AT_ONCE, HISTORIES_AT_ONCE * width * model.sizes.places)
    parts = []
    for batch in packing.batches(steps, shape, np.arange(steps.patients), 0):
        context = _context(tables, batch.context)
        drawn = _resumed(model, key, first, copies, batch._replace(context=context))
        parts.append(jax.tree.map(lambda part, real=batch.real: np.asarray(part)[real], drawn))
    joined = jax.tree.map(lambda *part: np.concatenate(part), *parts)
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[3:]), joined)


def _context(tables: Tables, context: Context) -> Context:
    """The statics, and what is asked of the outcome and the age at the end."""
    return Context(
        statics=context.statics,
        outcome=np.full_like(context.outcome, tables.outcome),
        codes=np.zeros_like(context.codes),
        ages=np.broadcast_to(np.asarray(tables.ages), context.ages.shape),
    )


@jax.jit(static_argnames=("copies",))
def _resumed(model: Any, key: Array, first: int, copies: int, batch: Batch) -> Any:
    """A pytree with leading axes (N, copies, PARTICLES)."""
    patient = (first + batch.number)[None, None] * copies + jnp.arange(copies)[:, None, None]
    shape = (copies, PARTICLES, batch.number.shape[0])
    patient = jnp.broadcast_to(patient, shape).reshape(-1)
    particle = jnp.broadcast_to(jnp.arange(PARTICLES)[None, :, None], shape).reshape(-1)
    numbers = model.noise.start
    noise = counters(key, patient, particle, jnp.zeros_like(patient)).normal(Purpose.START, numbers)
    state = model.resume(noise.reshape(copies * PARTICLES, shape[2], numbers), batch)
    return jax.tree.map(lambda part: jnp.moveaxis(part.reshape(*shape, *part.shape[2:]), 2, 0), state)

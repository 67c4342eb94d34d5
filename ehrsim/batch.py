"""The arrays that training, models and sampling exchange. Bins are those of `ehrsim.visits.scales`.

Axis names: N patients, R rows, T steps, K event places,
M events, `...` any leading axes (R, T in training, slots in sampling).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = Any
"""A NumPy array on the host, a JAX array on the device."""


CHANGES = 30
"""Bins of how far a value is from the last one: see `ehrsim.models.values`."""


class Precursor(NamedTuple):
    """A code after which the first of another comes more often, or less: see `ehrsim.visits.precursors`."""

    code: int
    before: int
    """A code, or from the size of the vocabulary on one of `Sizes.classes`."""
    weight: float
    """Log odds ratio of `code` with `before` in the record, to begin with."""
    at_once: float = 0.0
    """What is added to it, to begin with, in the very step in which `before` comes."""


class Sizes(NamedTuple):
    """The numbers that shape a model: every head and table has one of these lengths."""

    vocabulary: int
    """Vocabulary indices, padding 0 included."""
    groups: tuple[tuple[int, int], ...]
    """First index and index past the last of each group of codes."""
    kinds: int
    """Kinds of step: NO_VISIT 0, the visit types, then continuation, death and end."""
    statics: int
    """Statics, padding 0 included."""
    gaps: int
    landings: tuple[float, ...]
    """Of the last bins of gaps, which tell where a long gap ends: the year, as in `Visit`, of the middle of each."""
    first_gaps: int
    origins: int
    clocks: int
    lengths: int
    """Length bins, 0 for "no end recorded" included."""
    offsets: int
    values: int
    """Ways to tell a value: none, its bin, that of the last time, and the bins of changes since then."""
    durations: int
    """Duration bins, 0 for "no end" included."""
    places: int
    """Event places K of a step."""
    ties: tuple[tuple[int, float, float], ...] = ()
    """Values so common that they take whole bins: their code, and from which rank up to which."""
    precursors: tuple[Precursor, ...] = ()
    """By code."""
    classes: tuple[tuple[int, ...], ...] = ()
    """Codes, ascending, any of which may be the precursor of another."""

    @property
    def value_bins(self) -> int:
        """Bins of the scale of a code's values; those are numbered from 1."""
        return self.values - CHANGES - 2

    @property
    def same(self) -> int:
        """Value bin of a code that has the very value it had the last time."""
        return self.value_bins + 1

    @property
    def continues(self) -> int:
        """Kind of a step that goes on with the visit before it."""
        return self.kinds - 3

    @property
    def death(self) -> int:
        """Terminal kind: the patient dies."""
        return self.kinds - 2

    @property
    def end(self) -> int:
        """Terminal kind: the record ends with the patient alive."""
        return self.kinds - 1


NO_CODES = -1


class Context(NamedTuple):
    """What is known of a patient beforehand; leading axis N. 0 stands for "not given" everywhere."""

    statics: Array
    """(N, S) indices of statics."""
    outcome: Array
    """(N,) 1 alive at the end of the record, 2 dead."""
    codes: Array
    """(N, C) indices of codes that the patient has at some time; NO_CODES in the first place: has none at all."""
    ages: Array
    """(N, 2) ages in years that the age at the end of the record lies between, NaN if not given."""

    def bare(self) -> Context:
        """Nothing but the statics."""
        return Context(self.statics, 0 * self.outcome, 0 * self.codes, np.float32(np.nan) * self.ages)


class Moment(NamedTuple):
    """When something is, in years and in steps; float32 arrays of one shape."""

    age: Array
    """Since the patient's origin (birth where it is known)."""
    year: Array
    """In the calendar, since the end of the data, so nought at the latest."""
    elapsed: Array
    """Since the first step of the record."""
    steps: Array
    """Of the record before this one."""
    since: Array
    """The step before; 0 at a patient's first step."""


class Visit(NamedTuple):
    """One step: what a model emits, and reads at the next step."""

    kind: Array
    """(...) int32"""
    gap: Array
    """(...) int32 bin of the time since the step before; 0 and not counted at a patient's first step."""
    clock: Array
    """(...) int32"""
    length: Array
    """(...) int32"""
    age: Array
    """(...) as in `Moment`, like the four that follow."""
    year: Array
    elapsed: Array
    steps: Array
    since: Array
    codes: Array
    """(..., K) int32 vocabulary indices in ascending order, 0 where empty; a repeated code has several places."""
    offset: Array
    """(..., K) int32"""
    value: Array
    """(..., K) int32 bin, 0 without a value, `Sizes.same` where it is that of the last time, in this step or before."""
    rank: Array
    """(..., K) float32 rank of the value on the scale of its code, 0 where there is none."""
    duration: Array
    """(..., K) int32 bin, 0 without an end."""
    last_rank: Array
    """(..., K) float32 rank of the code's value the last time it was measured before, -1 if never."""
    last_age: Array
    """(..., K) float32 years since then, 0 if never."""
    measurements: Array
    """(..., K) float32 how many values the code had in steps before."""
    mean_rank: Array
    """(..., K) float32 their mean rank, 0 without any."""

    @property
    def moment(self) -> Moment:
        """When the step is."""
        return Moment(self.age, self.year, self.elapsed, self.steps, self.since)


PAST = ("last_rank", "last_age", "measurements", "mean_rank")
"""Fields of `Visit` with what is known of the values of its codes in steps before; without any, -1 and 0, 0, 0."""


class Batch(NamedTuple):
    """Packed rows of several patients each."""

    context: Context
    origin: Array
    """(N,) int32 bin of the calendar time of birth (or of the first step)."""
    first_gap: Array
    """(N,) int32 bin of the time from birth to the first step, -1 where no birth is known."""
    number: Array
    """(N,) int32 a number of the patient that does not depend on the batch: random draws are keyed by it."""
    real: Array
    """(N,) bool, False for padding patients."""
    patient: Array
    """(R, T) int32 index of the patient (N axis) of each step; padding steps point at 0."""
    used: Array
    """(R, T) bool, False for padding steps."""
    start: Array
    """(R, T) bool, the first step of a patient."""
    timed: Array
    """(R, T) bool, the gap of the step is known."""
    visit: Visit
    """Leading axes (R, T)."""
    events: tuple[Array, Array, Array]
    """(M,) int32 each: row, step and place of every event; padding points at 0, 0, 0."""
    real_event: Array
    """(M,) bool, False for padding events."""

    @property
    def steps(self) -> Any:
        """Number of real steps."""
        return np.asarray(self.used).sum()

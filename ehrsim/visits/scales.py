"""Scales: what turns times and values into a few bins, and back. Fitted on the training split only.

A *histogram* holds whole numbers (days, seconds): frequent numbers have a bin of their own, the others share bins of
about equal mass, inside which five quantiles are kept. A *quantile scale* maps the values of one code to their rank in
[0, 1] by 77 quantiles, so that every code has the same, uniform scale; ties are whole intervals of ranks. Both are
bounded by what was observed, and both are inverted by linear interpolation and rounding to the precision of the data.
The first and the last of 64 levels are halved again and again: a straight line from a tail's beginning to the one
greatest value ever seen would make rare values common.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.visits.profiles import fit_profiles
from ehrsim.visits.sequences import CONTINUES, MISSING, Float32, Int32, Int64, Sequences
from ehrsim.vocabulary import Vocabulary

VALUE_BINS = 32
VALUE_LEVELS = 64
DURATION_BINS = 8
DURATION_LEVELS = 16
GAP_BINS = 64
LANDING_BINS = 32
FIRST_LANDING_BINS = 64
LONG_GAP_DAYS = 400
CLOCK_BINS = 48
LENGTH_BINS = 48
OFFSET_BINS = 30
BIRTH_BINS = 64
AT_START, AT_END = 0, 1
"""Offset bins of events at the anchor of their step, and at the end of their visit; histogram bins follow."""
_SUBKNOTS = 5
_HALVINGS = 6
YEAR = 365.25 * 86_400.0

FloatArray = NDArray[np.floating]


class Histogram(NamedTuple):
    """Bins of whole numbers: `knots` (bins, 5) are the least, quartiles and greatest number of each bin."""

    knots: NDArray[np.float64]

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.knots)

    def assign(self, numbers: Int64) -> NDArray[np.int32]:
        """The bin of each number; numbers outside the observed range go to the nearest bin."""
        found = np.searchsorted(self.knots[:, 0], numbers, side="right") - 1
        return np.clip(found, 0, self.bins - 1).astype(np.int32)

    def draw(self, bins: NDArray[np.integer], uniform: FloatArray) -> Int64:
        """The number at fraction `uniform` of each bin."""
        position = uniform.astype(np.float64) * (_SUBKNOTS - 1)
        lower = np.minimum(position.astype(np.int64), _SUBKNOTS - 2)
        left, right = self.knots[bins, lower], self.knots[bins, lower + 1]
        drawn: Int64 = np.rint(left + (position - lower) * (right - left)).astype(np.int64)
        return drawn


def fit_histogram(numbers: Int64, bins: int) -> Histogram:
    """A histogram of at most `bins` bins of about equal mass; one bin holding 0 if there are no numbers."""
    if not len(numbers):
        return Histogram(np.zeros((1, _SUBKNOTS)))
    ordered = np.sort(numbers)
    unique, counts = np.unique(ordered, return_counts=True)
    target = len(ordered) / bins
    knots, begin, taken, left = [], 0, 0, bins
    for index in range(len(unique)):
        mass = counts[begin : index + 1].sum()
        closes_here = mass >= target or index == len(unique) - 1
        next_is_atom = index + 1 < len(unique) and counts[index + 1] >= target
        if closes_here or next_is_atom:
            part = ordered[taken : taken + mass]
            knots.append(np.quantile(part, np.linspace(0, 1, _SUBKNOTS)))
            begin, taken, left = index + 1, taken + int(mass), left - 1
            target = max((len(ordered) - taken) / max(left, 1), 1)
    return Histogram(np.array(knots))


class QuantileScale(NamedTuple):
    """A scale for each vocabulary index: `knots` (V, K) at the ranks of `_grid`, `decimals` (V,), `known` (V,)."""

    knots: NDArray[np.float64]
    decimals: NDArray[np.int32]
    known: NDArray[np.bool_]

    def rank(self, index: NDArray[np.integer], values: FloatArray, dither: FloatArray) -> Float32:
        """The rank in [0, 1) of each value on the scale of its index; `dither` in [0, 1) places it within its tie."""
        ranks = np.zeros(len(values), np.float32)
        order = np.argsort(index, kind="stable")
        chosen, starts = np.unique(index[order], return_index=True)
        for position, rows in zip(chosen, np.split(order, starts[1:]) if len(order) else [], strict=True):
            ranks[rows] = _rank(self.knots[position], values[rows].astype(np.float64), dither[rows])
        return np.minimum(ranks, np.float32(1 - 2**-16))

    def value(self, index: NDArray[np.integer], ranks: FloatArray) -> Float32:
        """The value at each rank, rounded to the precision of its code; the inverse of `rank`."""
        grid = _grid(self.knots.shape[1])
        inside = np.clip(ranks.astype(np.float64), 0, 1)
        lower = np.clip(np.searchsorted(grid, inside, side="right") - 1, 0, len(grid) - 2)
        left, right = self.knots[index, lower], self.knots[index, lower + 1]
        raw = left + (inside - grid[lower]) / (grid[lower + 1] - grid[lower]) * (right - left)
        power = 10.0 ** self.decimals[index]
        rounded: Float32 = (np.rint(raw * power) / power).astype(np.float32)
        return rounded

    def ties(self, bins: int) -> tuple[tuple[int, float, float], ...]:
        """The index, first rank and last rank of every tie that holds a whole one of equally wide bins."""
        grid, found = _grid(self.knots.shape[1]), []
        for index in np.flatnonzero(self.known):
            _, first = np.unique(self.knots[index], return_index=True)
            start, end = grid[first], grid[np.append(first[1:] - 1, len(grid) - 1)]
            whole = np.floor(end * bins) - np.ceil(start * bins) >= 1
            found += [(int(index), float(low), float(high)) for low, high in zip(start[whole], end[whole], strict=True)]
        return tuple(found)


def _rank(knots: NDArray[np.float64], values: NDArray[np.float64], dither: FloatArray) -> NDArray[np.float64]:
    """Ranks on one scale: a tie is the interval of ranks of its equal knots, anything else lies between two of them."""
    grid = _grid(len(knots))
    unique, first = np.unique(knots, return_index=True)
    start, end = grid[first], grid[np.append(first[1:] - 1, len(knots) - 1)]
    values = np.clip(values, unique[0], unique[-1])
    above = np.searchsorted(unique, values)
    below = np.maximum(above - 1, 0)
    tied = unique[above] == values
    span = np.where(tied, 1.0, unique[above] - unique[below])
    between = end[below] + (values - unique[below]) / span * (start[above] - end[below])
    within = start[above] + dither * (end[above] - start[above])
    # Not even by rounding in the tie above: a model may hold that to be impossible.
    ranks: NDArray[np.float64] = np.where(tied, within, np.minimum(between, start[above] - 2.0**-20))
    return ranks


def _grid(knots: int) -> NDArray[np.float64]:
    """The ranks of so many knots: those of equal levels, and in the first and last level ever nearer to the end."""
    levels = knots - 1 - 2 * _HALVINGS
    low = 0.5 ** np.arange(_HALVINGS, 0, -1.0) / levels
    ranks: NDArray[np.float64] = np.sort(np.concatenate([np.linspace(0, 1, levels + 1), low, 1 - low]))
    return ranks


def fit_quantiles(index: NDArray[np.integer], values: FloatArray, size: int, levels: int) -> QuantileScale:
    """The quantile scales of `size` indices from the values seen with each."""
    grid = _grid(levels + 1 + 2 * _HALVINGS)
    knots = np.zeros((size, len(grid)))
    decimals = np.zeros(size, np.int32)
    known = np.zeros(size, np.bool_)
    order = np.argsort(index, kind="stable")
    chosen, starts = np.unique(index[order], return_index=True)
    for position, rows in zip(chosen, np.split(order, starts[1:]) if len(order) else [], strict=True):
        column = np.sort(values[rows].astype(np.float64))
        knots[position] = np.quantile(column, grid, method="inverted_cdf")
        decimals[position] = _decimals(column.astype(np.float32))
        known[position] = True
    return QuantileScale(knots, decimals, known)


def _decimals(values: Float32) -> int:
    """The fewest decimals that write 99 % of the values exactly, at most 6."""
    for decimals in range(6):
        if np.mean(np.round(values.astype(np.float64), decimals).astype(np.float32) == values) >= 0.99:
            return decimals
    return 6


class Scales(NamedTuple):
    """All scales of a run. `gap` counts time bins of `step_seconds`; the others count seconds or days."""

    step_seconds: int
    gap: Histogram
    """Gaps of up to `long_gap` time bins."""
    landing: Histogram
    """Where longer gaps end: time bins before the horizon. Their bins are numbered after those of `gap`.

    After years without a visit what matters is where in the calendar the next one falls: most data begin and end at
    some date, and bins of the gap itself would be too wide to meet it.
    """
    first_gap: Histogram
    """Time bins from birth to the first step, up to `long_gap`, and `first_landing` where the first step is if it comes
    later: like `gap` and `landing`. Many records begin at some date, at whatever age."""
    first_landing: Histogram
    clock: Histogram
    """Seconds from the start of a time bin to the anchor of its step."""
    clock_kept: NDArray[np.float64]
    """(kinds,) share of the steps of each kind that are at the very second of the patient's last step in the same bin
    of the clock: what is booked with what went before is at the same time of day. Terminal kinds have none."""
    length: Histogram
    offset: Histogram
    origin: Histogram
    """Time bin of birth, or of the first step where no birth is known."""
    birth_clock: NDArray[np.float64]
    """(levels,) quantiles of the seconds from the start of a time bin to a birth in it."""
    values: QuantileScale
    durations: QuantileScale
    end_in_days: bool
    """The value of a visit's end is its length in days."""
    born_at_first: float
    """Share of the first steps in the time bin of birth that are at the very moment of birth."""
    births_known: bool
    """Most records begin with a birth; else they begin with their first step."""
    ends_known: bool
    """Most records of the living close with an end of observation."""
    horizon: int
    """The last time bin of any record."""
    longest: int
    """The most steps of any record."""
    profiles: Int32
    """(profiles, S) sets of statics to give patients, padded with 0, and the share of each."""
    profile_shares: NDArray[np.float64]
    code_patients: Int64
    """(V,) patients who have each code."""

    @property
    def long_gap(self) -> int:
        """The longest gap in time bins that is not a long one."""
        return long_gap(self.step_seconds)

    def gap_index(self, gaps: Int64, time: Int64) -> Int32:
        """The bin of each gap before a step at a time bin."""
        long = self.gap.bins + self.landing.assign(self.horizon - time)
        return np.where(gaps > self.long_gap, long, self.gap.assign(gaps)).astype(np.int32)

    def first_gap_index(self, gaps: Int64, time: Int64) -> Int32:
        """The bin of each gap from birth to a first step at a time bin."""
        long = self.first_gap.bins + self.first_landing.assign(self.horizon - time)
        return np.where(gaps > self.long_gap, long, self.first_gap.assign(gaps)).astype(np.int32)


def long_gap(step_seconds: int) -> int:
    """A little more than a year in time bins, so that yearly visits are told apart to the day."""
    return LONG_GAP_DAYS * 86_400 // step_seconds


def fit_scales(sequences: Sequences, vocabulary: Vocabulary, step_seconds: int) -> Scales:
    """The scales of the training sequences."""
    step_bin = np.floor_divide(sequences.time, step_seconds)
    first = np.zeros(len(step_bin), bool)
    first[sequences.step_offsets[:-1][np.diff(sequences.step_offsets) > 0]] = True
    gaps = np.diff(step_bin, prepend=step_bin[:1])[~first]
    last, last_bin = terminal_bins(sequences, step_seconds)
    every_gap, landing = np.concatenate([gaps, last]), np.concatenate([step_bin[~first], last_bin])
    horizon = int(max(step_bin.max(initial=0), np.floor_divide(_latest(sequences), step_seconds)))
    is_long = every_gap > long_gap(step_seconds)
    birth_bin, has_birth = origins(sequences, step_seconds)
    has_length = sequences.length != MISSING
    owner = _visit_lengths(sequences)[sequences.step_of_event()]
    inner = (sequences.offset != 0) & (sequences.offset != owner)
    has_value, has_duration = ~np.isnan(sequences.value), sequences.duration != MISSING
    births = sequences.birth[sequences.birth != MISSING]
    born = has_birth[np.diff(sequences.step_offsets) > 0]
    first_bin = step_bin[first][born]
    to_first = np.maximum(first_bin - birth_bin[np.diff(sequences.step_offsets) > 0][born], 0)
    late = to_first > long_gap(step_seconds)
    ends = ~np.isnan(sequences.end_value)
    days = sequences.length[ends] / 86_400.0
    alive = int((sequences.death == MISSING).sum())
    profiles, profile_shares = fit_profiles(sequences, vocabulary)
    clock = fit_histogram(sequences.time - step_bin * step_seconds, CLOCK_BINS)
    return Scales(
        step_seconds=step_seconds,
        gap=fit_histogram(np.maximum(every_gap[~is_long], 0), GAP_BINS),
        landing=fit_histogram(horizon - landing[is_long], LANDING_BINS),
        first_gap=fit_histogram(to_first[~late], GAP_BINS),
        first_landing=fit_histogram(horizon - first_bin[late], FIRST_LANDING_BINS),
        clock=clock,
        clock_kept=_clock_kept(sequences, clock, step_seconds, len(vocabulary.visit_types)),
        length=fit_histogram(sequences.length[has_length], LENGTH_BINS),
        offset=fit_histogram(sequences.offset[inner], OFFSET_BINS),
        origin=fit_histogram(birth_bin, BIRTH_BINS),
        birth_clock=_quantiles(np.mod(births, step_seconds)),
        values=fit_quantiles(sequences.entry[has_value], sequences.value[has_value], vocabulary.size, VALUE_LEVELS),
        durations=fit_quantiles(
            sequences.entry[has_duration], sequences.duration[has_duration], vocabulary.size, DURATION_LEVELS
        ),
        born_at_first=_born_at_first(sequences, step_seconds),
        births_known=bool(has_birth.sum() * 2 > len(has_birth)),
        ends_known=bool((sequences.end[sequences.death == MISSING] != MISSING).sum() * 2 > alive),
        horizon=horizon,
        longest=int(np.diff(sequences.step_offsets).max(initial=1)),
        profiles=profiles,
        profile_shares=profile_shares,
        code_patients=_code_patients(sequences, vocabulary.size),
        end_in_days=bool(ends.any() and np.mean(np.abs(sequences.end_value[ends] - days) < 1e-3) > 0.99),
    )


def _quantiles(numbers: Int64) -> NDArray[np.float64]:
    return np.quantile(numbers, np.linspace(0, 1, VALUE_LEVELS), method="inverted_cdf") if len(numbers) else np.zeros(1)


def _clock_kept(sequences: Sequences, clock: Histogram, step_seconds: int, types: int) -> NDArray[np.float64]:
    seconds = np.mod(sequences.time, step_seconds)
    before = last_alike(sequences.patient_of_step(), clock.assign(seconds))
    alike = before >= 0
    kind = np.where(sequences.kind == CONTINUES, types + 1, sequences.kind)[alike]
    kept = seconds[alike] == seconds[before[alike]]
    counts = np.bincount(kind, minlength=types + 4)
    return np.bincount(kind, kept, types + 4) / np.maximum(counts, 1)


def last_alike(patient: Int64, label: NDArray[np.integer]) -> Int64:
    """For each row the one before it of the same patient and label, -1 if there is none."""
    order = np.lexsort((np.arange(len(label)), label, patient))
    alike = (np.diff(patient[order]) == 0) & (np.diff(label[order]) == 0)
    before = np.full(len(label), -1, np.int64)
    before[order[1:][alike]] = order[:-1][alike]
    return before


def _born_at_first(sequences: Sequences, step_seconds: int) -> float:
    """Nought where no first step is in the time bin of a birth."""
    begins = (np.diff(sequences.step_offsets) > 0) & (sequences.birth != MISSING)
    first, birth = sequences.time[sequences.step_offsets[:-1][begins]], sequences.birth[begins]
    at_once = first // step_seconds == birth // step_seconds
    return float(np.mean(first[at_once] == birth[at_once])) if at_once.any() else 0.0


def _latest(sequences: Sequences) -> int:
    """The last moment of any record, never before 1970 (where there is nothing)."""
    return max(int(np.maximum(sequences.death, sequences.end).max(initial=0)), 0)


def _code_patients(sequences: Sequences, size: int) -> Int64:
    owner = sequences.patient_of_step()[sequences.step_of_event()]
    pairs = np.unique(owner * size + sequences.entry)
    return np.bincount(pairs % size, minlength=size)


def origins(sequences: Sequences, step_seconds: int) -> tuple[Int64, NDArray[np.bool_]]:
    """(P,) time bin of birth, else of the first step, and whether the birth is known."""
    has_birth = sequences.birth != MISSING
    has_steps = np.diff(sequences.step_offsets) > 0
    first = np.zeros(sequences.patients, np.int64)
    first[has_steps] = sequences.time[sequences.step_offsets[:-1][has_steps]]
    return np.floor_divide(np.where(has_birth, sequences.birth, first), step_seconds), has_birth


def terminal_bins(sequences: Sequences, step_seconds: int) -> tuple[Int64, Int64]:
    """Time bins from the last step to death or end of observation, of the patients who have both, and of that end."""
    moment = np.where(sequences.death != MISSING, sequences.death, sequences.end)
    chosen = (np.diff(sequences.step_offsets) > 0) & (moment != MISSING)
    last = sequences.time[sequences.step_offsets[1:][chosen] - 1]
    terminal = np.floor_divide(moment[chosen], step_seconds)
    return terminal - np.floor_divide(last, step_seconds), terminal


def _visit_lengths(sequences: Sequences) -> Int64:
    """(M,) the length of the visit on the step that starts it, MISSING elsewhere."""
    return np.where(sequences.kind == CONTINUES, MISSING, sequences.length)

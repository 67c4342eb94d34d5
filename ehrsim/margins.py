"""Margins of records: counts that simulated records have to share with real ones, for `ehrsim.raking`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ehrsim.batch import Precursor, Sizes, Visit
from ehrsim.models.shift import AGE_BINS, AGE_EDGES, GAP_CLASSES, GAP_EDGES, STEP_BINS, STEP_EDGES
from ehrsim.rates import Floats, tally
from ehrsim.visits.precursors import Firsts, first_occurrences
from ehrsim.visits.sequences import Int64
from ehrsim.visits.table import Table

AT_ONCE = 1_000
"""Patients whose precursors are counted together."""


class Margins(NamedTuple):
    """Counts over the records of a table; steps that end a record have a kind and nothing else."""

    kind: Floats
    """(STEP_BINS, kinds) steps, by how many came before"""
    kind_by_age: Floats
    """(AGE_BINS, kinds) steps, by the age at the step before"""
    gap: Floats
    """(AGE_BINS, gaps) steps whose gap is known, by the age at the step before"""
    length: Floats
    """(kinds, lengths) visits"""
    first: Floats
    """(AGE_BINS, V) steps with a code that the patient had never had, out of `fresh` (AGE_BINS, V) steps of those who
    had not; both by age, and where none of the code's precursors is known"""
    fresh: Floats
    first_by_gap: Floats
    """(GAP_CLASSES, V) steps with a code that the patient had never had, out of `fresh_by_gap` (GAP_CLASSES, V), by the
    time since the step before, whatever precursors are known"""
    fresh_by_gap: Floats
    first_by_static: Floats
    """(statics, V) the same by what is known of the patient once and for all, out of `fresh_by_static` (statics, V)"""
    fresh_by_static: Floats
    led: Floats
    """(cells,) the same of codes with precursors, by which were known before the step, out of `exposed` (cells,): see
    `led_by`; without steps in which one of them comes"""
    exposed: Floats
    led_at_once: Floats
    """(precursors,) the same in the step in which one comes, out of `exposed_at_once` (precursors,)"""
    exposed_at_once: Floats
    again: Floats
    """(V,) steps with a code that the patient had had, out of `known` (V,) steps of those who had"""
    known: Floats
    following: Floats
    """(places + 1, groups + 1) codes of a step by how many come before and by group; first, that there is no more"""
    first_value: Floats
    """(V, value bins) values by rank, of codes that had none before"""
    later_value: Floats
    """(V, value bins) values by rank, of codes that had"""


class LedBy(NamedTuple):
    """A code with precursors, and its cells of `Margins.led`."""

    code: int
    pairs: slice
    """Its precursors among those of the sizes."""
    cells: slice
    """One for each set of its precursors: bit i of the place of a cell tells whether the i-th of them is known."""


def led_by(sizes: Sizes) -> list[LedBy]:
    """The codes with precursors, in order."""
    codes, begins, numbers = np.unique([pair.code for pair in sizes.precursors], return_index=True, return_counts=True)
    ends = np.cumsum(1 << numbers)
    return [
        LedBy(code, slice(begin, begin + number), slice(end - (1 << number), end))
        for code, begin, number, end in zip(
            codes.astype(int).tolist(), begins.tolist(), numbers.tolist(), ends.tolist(), strict=True
        )
    ]


def count(steps: Table, sizes: Sizes) -> Margins:
    """The margins of a table."""
    visit, rows = steps.visit, len(steps.visit.kind)
    lengths = np.diff(steps.step_offsets)
    owner = np.repeat(np.arange(steps.patients), lengths)
    before = np.arange(rows) - steps.step_offsets[owner]
    age = np.searchsorted(np.array(AGE_EDGES), np.asarray(visit.age), side="right")
    age_before = np.where(before == 0, age, np.roll(age, 1))
    codes, inner = visit.codes, visit.kind < sizes.death
    distinct = (codes > 0) & (codes != np.pad(codes, ((0, 0), (1, 0)))[:, :-1])
    firsts = first_occurrences(steps, sizes.vocabulary)
    last = steps.step_offsets[owner[firsts.step] + 1] - 1
    gap = np.where(before == 0, 0, 1 + np.searchsorted(np.array(GAP_EDGES, np.float32), visit.since, side="right"))
    passed, passed_gap = _passed(age, inner, AGE_BINS), _passed(gap, inner, GAP_CLASSES)
    first, known = _firsts_by(age, passed, firsts, last, sizes)
    first_by_gap, known_by_gap = _firsts_by(gap, passed_gap, firsts, last, sizes)
    first_by_static, fresh_by_static = _by_static(firsts, steps, sizes)
    led = _led(firsts, steps, sizes, age, passed)
    visits = (visit.kind > 0) & (visit.kind < sizes.continues)
    measured = visit.value > 0
    earliest = measured & distinct & (visit.last_rank < 0)
    return Margins(
        kind=_by(np.searchsorted(STEP_EDGES, before, side="right"), visit.kind, STEP_BINS, sizes.kinds),
        kind_by_age=_by(age_before, visit.kind, AGE_BINS, sizes.kinds),
        gap=_by(age_before[steps.timed], visit.gap[steps.timed], AGE_BINS, sizes.gaps),
        length=_by(visit.kind[visits], visit.length[visits], sizes.kinds, sizes.lengths),
        first=first - led.first,
        fresh=passed[-1][:, None] - known - led.fresh,
        first_by_gap=first_by_gap,
        fresh_by_gap=passed_gap[-1][:, None] - known_by_gap,
        first_by_static=first_by_static,
        fresh_by_static=fresh_by_static,
        led=led.led,
        exposed=led.exposed,
        led_at_once=led.at_once,
        exposed_at_once=led.exposed_at_once,
        again=tally(codes[distinct], sizes.vocabulary) - first.sum(0),
        known=known.sum(0),
        following=_following(codes[inner], distinct[inner], sizes),
        first_value=_by_rank(visit, earliest, sizes),
        later_value=_by_rank(visit, measured & ~earliest, sizes),
    )


def _passed(of: Int64, inner: NDArray[np.bool_], bins: int) -> Floats:
    """(rows + 1, bins) how many steps of each bin come before a row; `of` (rows,) are the bins."""
    return np.concatenate([np.zeros((1, bins)), (np.eye(bins)[of] * inner[:, None]).cumsum(0)])


def _firsts_by(of: Int64, passed: Floats, firsts: Firsts, last: Int64, sizes: Sizes) -> tuple[Floats, Floats]:
    """(bins, V) steps with the first of a code, and those of patients who have had it, by the bin `of` (rows,) a step.

    `last` are the rows with the ends of the records of `firsts`.
    """
    first = _by(of[firsts.step], firsts.code, passed.shape[1], sizes.vocabulary)
    return first, _sums_by(firsts.code, passed[last] - passed[firsts.step + 1], sizes.vocabulary).T


def _by_static(firsts: Firsts, steps: Table, sizes: Sizes) -> tuple[Floats, Floats]:
    """`first_by_static` and `fresh_by_static` of margins."""
    patient, place = np.nonzero(steps.context_statics)
    of_static = sparse.csr_matrix(
        (np.ones(len(patient)), (steps.context_statics[patient, place], patient)), (sizes.statics, steps.patients)
    )
    owner = np.repeat(np.arange(steps.patients), np.diff(firsts.offsets))
    # Steps after the first with a code, but for the one that ends the record.
    after = steps.step_offsets[owner + 1] - firsts.step - 2
    shape = (steps.patients, sizes.vocabulary)
    first, known = (
        of_static @ sparse.csr_matrix((number, (owner, firsts.code)), shape) for number in (np.ones(len(owner)), after)
    )
    all_steps = of_static @ (np.diff(steps.step_offsets) - 1.0)
    return first.toarray(), all_steps[:, None] - known.toarray()


class _Led(NamedTuple):
    """`led` and `exposed` of margins and those at once."""

    led: Floats
    exposed: Floats
    at_once: Floats
    exposed_at_once: Floats
    first: Floats
    """(AGE_BINS, V) the same where any precursor of a code is known, out of `fresh` (AGE_BINS, V)"""
    fresh: Floats


def _led(firsts: Firsts, steps: Table, sizes: Sizes, age: Int64, passed: Floats) -> _Led:
    """What goes by precursors.

    `age` (rows,) is the bin of each row, and `passed` (rows + 1, AGE_BINS) how many steps of each bin come before it.
    """
    of_codes = led_by(sizes)
    cells, of_age = of_codes[-1].cells.stop if of_codes else 0, np.zeros((2, AGE_BINS, sizes.vocabulary))
    counted = _Led(*np.zeros((2, cells)), *np.zeros((2, len(sizes.precursors))), *of_age)
    if not sizes.precursors:
        return counted
    code = np.array([pair.code for pair in sizes.precursors])
    codes, begins = np.unique(code, return_index=True)
    for begin in range(0, steps.patients, AT_ONCE):
        end = min(begin + AT_ONCE, steps.patients)
        # The step that ends a record stands for never.
        last = steps.step_offsets[begin + 1 : end + 1, None] - 1
        first = np.repeat(last, sizes.vocabulary, axis=1)
        patient = np.repeat(np.arange(end - begin), np.diff(firsts.offsets[begin : end + 1]))
        part = slice(firsts.offsets[begin], firsts.offsets[end])
        first[patient, firsts.code[part]] = firsts.step[part]
        of_pairs = [_came(first, pair, sizes) for pair in sizes.precursors]
        came, since = (np.stack(steps_of, axis=1) for steps_of in zip(*of_pairs, strict=True))
        start = steps.step_offsets[begin:end]
        for of_code in of_codes:
            pairs, cells, of = of_code.pairs, of_code.cells, first[:, of_code.code]
            found = _by_known(came[:, pairs], since[:, pairs], of, start, last[:, 0])
            for total, number, where in zip(counted[:4], found, (cells, cells, pairs, pairs), strict=True):
                total[where] += number
        of, since = first[:, codes], np.minimum.reduceat(since, begins, axis=1)
        stop = np.maximum(np.minimum(of + 1, last), since)
        who, which = np.nonzero((since <= of) & (of < last))
        counted.first[:] += _by(age[of[who, which]], codes[which], AGE_BINS, sizes.vocabulary)
        for bin_ in range(AGE_BINS):
            counted.fresh[bin_, codes] += (passed[stop, bin_] - passed[np.minimum(since, stop), bin_]).sum(0)
    return counted


def _by_known(
    came: Int64, since: Int64, first: Int64, start: Int64, last: Int64
) -> tuple[Floats, Floats, Floats, Floats]:
    """Patients' first steps with a code and their steps up to those, (cells,) each, by which precursors were known
    before; and (precursors,) each, in the steps in which one comes, which are not among the former.

    Precursors come in the steps `came` (N, precursors), and may lead to the code from the steps `since` (N, precursors)
    on; `first` (N,) are the steps with the code, and records go from `start` up to but excluding `last`.
    """
    number = since.shape[1]
    bits = 1 << np.arange(number)
    stop, happened = np.minimum(first + 1, last), first < last
    known = ((came < first[:, None]) * bits).sum(1)
    events = np.bincount(known[happened], minlength=1 << number).astype(np.float64)
    # A precursor is known before the step after that in which it comes.
    order = np.argsort(came, axis=1)
    times = np.clip(np.take_along_axis(came, order, 1) + 1, start[:, None], stop[:, None])
    lengths = np.diff(times, axis=1, prepend=start[:, None], append=stop[:, None])
    cells = np.concatenate([np.zeros((len(first), 1), np.int64), bits[order].cumsum(1)], axis=1)
    steps = np.bincount(cells.ravel(), lengths.ravel(), 1 << number).astype(np.float64)
    at_once = (since == came) & (came < stop[:, None])
    of_first = at_once & (came == first[:, None])
    for pair in range(number):
        # Steps in which several come are taken out once.
        step, there = came[:, pair], at_once[:, pair] & ~(at_once & (came == came[:, [pair]]))[:, :pair].any(1)
        cell = ((came < step[:, None]) * bits).sum(1)
        steps -= np.bincount(cell[there], minlength=1 << number)
        events -= np.bincount(cell[there & of_first[:, pair]], minlength=1 << number)
    return events, steps, of_first.sum(0).astype(np.float64), at_once.sum(0).astype(np.float64)


def _following(codes: NDArray[np.int32], distinct: NDArray[np.bool_], sizes: Sizes) -> Floats:
    """`following` of margins, from the codes (steps, K) of steps."""
    groups = np.searchsorted([last for _, last in sizes.groups], codes[distinct], side="right") + 1
    before = distinct.cumsum(1)[distinct] - 1
    number = distinct.sum(1)
    shape = (sizes.places + 1, len(sizes.groups) + 1)
    return _by(before, groups, *shape) + _by(number, 0 * number, *shape)


def _came(first: Int64, pair: Precursor, sizes: Sizes) -> tuple[Int64, Int64]:
    """(N,) each the step in which a precursor comes, and that from which on it may lead to the code.

    `first` (N, V) are the first steps with each code.
    """
    alone = pair.before < sizes.vocabulary
    codes = np.array([pair.before] if alone else sizes.classes[pair.before - sizes.vocabulary])
    codes = codes[codes != pair.code]
    # In one step, only what comes before a code leads to it.
    return first[:, codes].min(axis=1), (first[:, codes] + (codes > pair.code)).min(axis=1)


def _by_rank(visit: Visit, which: NDArray[np.bool_], sizes: Sizes) -> Floats:
    bins = sizes.value_bins
    rank = np.minimum((visit.rank[which] * bins).astype(np.int64), bins - 1)
    return _by(visit.codes[which], rank, sizes.vocabulary, bins)


def _by(one: NDArray[np.integer], other: NDArray[np.integer], rows: int, columns: int) -> Floats:
    """(rows, columns) how often both indices occur together."""
    return tally(one.astype(np.int64) * columns + other, rows * columns).reshape(rows, columns)


def _sums_by(index: Int64, of: Floats, size: int) -> Floats:
    """(size, n) sums of the rows of `of` (m, n) by index (m,)."""
    sums: Floats = sparse.csr_matrix((np.ones(len(index)), (index, np.arange(len(index)))), (size, len(index))) @ of
    return sums

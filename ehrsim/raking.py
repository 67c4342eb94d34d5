"""Raking: shifting a trained model's logits until the records it simulates have the margins of the real ones.

Training tells a model what comes next in real records. In simulated ones every step rests on simulated steps, and what
is off by a little at each, in the same direction, adds up: those who come often come less and less often, a chronic
code is lost. Likelihood does not show it, so records are simulated, their margins counted beside those of the training
patients, and the logits shifted by the difference, round after round, as survey weights are raked to known margins
(Deming & Stephan 1940, "On a least squares adjustment of a sampled frequency table when the expected marginal totals
are known").

Every round draws other patients and makes up for less of the difference than the one before, which averages out what
was chance in each (Robbins & Monro 1951, "A stochastic approximation method").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from ehrsim.batch import Sizes, Visit
from ehrsim.models.shift import STEP_BINS, STEP_EDGES, Shift, no_shift
from ehrsim.preparation import Data
from ehrsim.progress import Progress
from ehrsim.sampling import sample
from ehrsim.visits import table
from ehrsim.visits.precursors import Firsts, first_occurrences
from ehrsim.visits.sequences import Int64
from ehrsim.visits.table import Table

Floats = NDArray[np.float64]

SIMULATED = 300_000
"""Steps to simulate in a round; more of them leave less to chance."""
PATIENTS = (500, 20_000)
"""Patients to simulate in a round, at least and at most."""
AMONG = 4
"""And no more than so many times those to learn from: beyond that the chance in these counts for more."""
LARGEST = 1.0
"""Of the change of a logit in a round."""
AT_ONCE = 2_000
"""Patients whose precursors are counted together."""
NEVER = 1 << 40
"""The step with the first of a code that never comes."""
CREDIBLE = 10.0
"""Events that make a difference count for about half."""
SEEDS = 1 << 31
"""Simulation begins here, so that users' seeds, which are small, draw other patients."""


class Margins(NamedTuple):
    """Counts over the records of a table; steps that end a record have a kind and nothing else."""

    kind: Floats
    """(STEP_BINS, kinds) steps, by how many came before"""
    gap: Floats
    """(gaps,) steps whose gap is known"""
    first: Floats
    """(V,) steps with a code that the patient had never had, out of `fresh` (V,) steps of those who had not; both where
    none of the code's precursors is known"""
    fresh: Floats
    led: Floats
    """(precursors,) the same of its code where a precursor is known, out of `exposed` (precursors,)"""
    exposed: Floats
    again: Floats
    """(V,) steps with a code that the patient had had, out of `known` (V,) steps of those who had"""
    known: Floats
    no_more: Floats
    """(places + 1,) steps with so many codes, out of `many` (places + 1,) with so many or more"""
    many: Floats
    first_value: Floats
    """(V, value bins) values by rank, of codes that had none before"""
    later_value: Floats
    """(V, value bins) values by rank, of codes that had"""


def count(steps: Table, sizes: Sizes) -> Margins:
    """The margins of a table."""
    visit, size = steps.visit, sizes.vocabulary
    lengths = np.diff(steps.step_offsets)
    owner = np.repeat(np.arange(steps.patients), lengths)
    before = np.arange(len(owner)) - steps.step_offsets[owner]
    cell = np.searchsorted(STEP_EDGES, before, side="right") * sizes.kinds + visit.kind
    codes = visit.codes
    once = codes != np.pad(codes, ((0, 0), (1, 0)))[:, :-1]
    firsts = first_occurrences(steps, size)
    begins, of_begin = firsts.step, firsts.code
    has, first = _tally(codes[(codes > 0) & once], size), _tally(of_begin, size)
    last = steps.step_offsets[owner[begins]] + lengths[owner[begins]] - 1
    known = np.bincount(of_begin, weights=last - begins - 1, minlength=size).astype(np.float64)
    measured = visit.value > 0
    earliest = measured & once & (visit.last_rank < 0)
    inner = visit.kind < sizes.death
    numbers = _tally(((codes > 0) & once).sum(1)[inner], sizes.places + 1)
    led, exposed, of_any, exposed_to_any = _led(firsts, steps, sizes)
    return Margins(
        kind=_tally(cell, STEP_BINS * sizes.kinds).reshape(STEP_BINS, sizes.kinds),
        gap=_tally(visit.gap[steps.timed], sizes.gaps),
        first=first - of_any,
        fresh=inner.sum() - known - exposed_to_any,
        led=led,
        exposed=exposed,
        again=has - first,
        known=known,
        no_more=numbers,
        many=numbers[::-1].cumsum()[::-1],
        first_value=_by_rank(visit, earliest, sizes),
        later_value=_by_rank(visit, measured & ~earliest, sizes),
    )


def _led(firsts: Firsts, steps: Table, sizes: Sizes) -> tuple[Floats, Floats, Floats, Floats]:
    """`led` and `exposed` of margins, and (V,) each the same where any precursor of a code is known."""
    pairs, of_any = np.zeros((2, len(sizes.precursors))), np.zeros((2, sizes.vocabulary))
    if not sizes.precursors:
        return pairs[0], pairs[1], of_any[0], of_any[1]
    code, before = (np.array([pair[part] for pair in sizes.precursors]) for part in (0, 1))
    codes, begins = np.unique(code, return_index=True)
    for begin in range(0, steps.patients, AT_ONCE):
        end = min(begin + AT_ONCE, steps.patients)
        of_patient, step_begins = np.diff(firsts.offsets[begin : end + 1]), steps.step_offsets[begin : end + 1]
        part = slice(firsts.offsets[begin], firsts.offsets[end])
        first = np.full((end - begin, sizes.vocabulary), NEVER)
        cells = (np.repeat(np.arange(end - begin), of_patient), firsts.code[part])
        first[cells] = firsts.step[part] - np.repeat(step_begins[:-1], of_patient)
        inner = np.diff(step_begins)[:, None] - 1
        # In one step, only what comes before a code leads to it.
        known = first[:, before] + (before > code)
        pairs += _followed(first[:, code], known, inner)
        of_any[:, codes] += _followed(first[:, codes], np.minimum.reduceat(known, begins, axis=1), inner)
    return pairs[0], pairs[1], of_any[0], of_any[1]


def _followed(first: Int64, known: Int64, inner: Int64) -> Floats:
    """(2, n) events and steps at risk in patients (N, n), from the step where something is `known` to the `first` event
    or past the last of `inner` (N, 1) steps.
    """
    events = (first < inner) & (known <= first)
    at_risk = np.clip(np.minimum(first + 1, inner) - known, 0, None)
    return np.stack([events.sum(0), at_risk.sum(0)]).astype(np.float64)


def _by_rank(visit: Visit, which: NDArray[np.bool_], sizes: Sizes) -> Floats:
    bins = sizes.value_bins
    rank = np.minimum((visit.rank[which] * bins).astype(np.int64), bins - 1)
    return _tally(visit.codes[which] * bins + rank, sizes.vocabulary * bins).reshape(-1, bins)


def _tally(index: NDArray[np.integer], size: int) -> Floats:
    return np.bincount(index, minlength=size).astype(np.float64)


def shift_towards(real: Margins, simulated: Margins) -> Shift:
    """What moves the margins of simulated records to those of real ones, if each margin went by its own logit alone."""
    return Shift(
        kind=_shares(real.kind, simulated.kind),
        gap=_shares(real.gap, simulated.gap),
        first=_difference(real.first, real.fresh, simulated.first, simulated.fresh),
        led=_difference(real.led, real.exposed, simulated.led, simulated.exposed),
        again=_difference(real.again, real.known, simulated.again, simulated.known),
        no_more=_difference(real.no_more, real.many, simulated.no_more, simulated.many),
        first_value=_shares(real.first_value, simulated.first_value),
        # A value goes by the last one, so that a shift acts again and again.
        later_value=_shares(real.later_value, simulated.later_value) * _seldom(real)[:, None],
    )


def _seldom(real: Margins) -> Floats:
    """(V,) patients with values of a code for one later value, from 0.1 to 1."""
    share: Floats = np.clip(real.first_value.sum(1) / np.maximum(real.later_value.sum(1), 1.0), 0.1, 1.0)
    return share


def _shares(real: Floats, simulated: Floats) -> Floats:
    of_real, of_simulated = (np.broadcast_to(part.sum(-1, keepdims=True), part.shape) for part in (real, simulated))
    return _difference(real, of_real, simulated, of_simulated)


def _difference(real: Floats, of_real: Floats, simulated: Floats, of_simulated: Floats) -> Floats:
    """How much larger the log odds of real rates are than those of simulated ones, less where they rest on few.

    To both is added what is at the rate of both together and has at least CREDIBLE events and CREDIBLE non-events.
    """
    rate = (real + simulated + 0.5) / (of_real + of_simulated + 1.0)
    added = CREDIBLE / np.minimum(rate, 1 - rate)
    ours, theirs = (
        (events + added * rate) / (number + added) for events, number in ((real, of_real), (simulated, of_simulated))
    )
    difference = np.log(ours) - np.log1p(-ours) - np.log(theirs) + np.log1p(-theirs)
    limited: Floats = np.clip(difference, -LARGEST, LARGEST)
    return limited


def discrepancy(real: Margins, simulated: Margins) -> float:
    """Mean over kinds, gaps, codes and values of the total variation distance of their shares."""
    pairs = [(getattr(real, name), getattr(simulated, name)) for name in Shift._fields]
    return float(np.mean([_total_variation(one, other) for one, other in pairs if one.sum()]))


def _total_variation(one: Floats, other: Floats) -> float:
    return float(abs(one / one.sum() - other / max(other.sum(), 1.0)).sum() / 2)


def rake(model: Any, data: Data, rounds: int, seed: int, progress: Progress) -> tuple[Any, list[float]]:
    """The model with its logits shifted in some `rounds`, and the discrepancy that each of them found."""
    real = count(data.train, data.sizes)
    shift, found = no_shift(data.sizes), []
    for number in range(rounds):
        simulated = _simulated(model.shifted(shift), data, (SEEDS + seed + number) % (1 << 32))
        found.append(discrepancy(real, simulated))
        gain = 1 / (1 + number / 2)
        shift = Shift(*(old + gain * new for old, new in zip(shift, shift_towards(real, simulated), strict=True)))
        progress("rake", number + 1, rounds, "rounds")
    return model.shifted(shift), found


def _simulated(model: Any, data: Data, seed: int) -> Margins:
    """The margins of simulated records, a block at a time."""
    steps = len(data.train.visit.kind) / data.train.patients
    least, most = PATIENTS
    patients = int(np.clip(SIMULATED / steps, least, max(least, min(most, AMONG * data.train.patients))))
    blocks = sample(model, data.vocabulary, data.scales, first=0, end=patients, seed=seed)
    parts = [count(table.tabulate(block, data.scales, data.sizes)[0], data.sizes) for block, _ in blocks]
    whole: Margins = jax.tree.map(lambda *counts: np.sum(counts, axis=0), *parts)
    return whole

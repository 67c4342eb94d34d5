"""Raking: shifting a trained model's logits until the records it simulates have the margins of the real ones.

Training tells a model what comes next in real records. In simulated ones every step rests on simulated steps, and what
is off by a little at each, in the same direction, adds up: those who come often come less and less often, a chronic
code is lost. Likelihood does not show it, so records are simulated, their margins counted beside those of the training
patients, and the logits shifted by the difference, round after round, as survey weights are raked to known margins
(Deming & Stephan 1940, "On a least squares adjustment of a sampled frequency table when the expected marginal totals
are known").

Margins share logits, and codes that are drawn instead of one another share their chances: a round that made up for all
of every difference would overshoot. The first makes up for half. Every round draws other patients and makes up for less
than the one before, which averages out what was chance in each (Robbins & Monro 1951, "A stochastic approximation
method").
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ehrsim.batch import Sizes
from ehrsim.margins import Margins, count, led_by
from ehrsim.models.layers import PROSPECT_FEATURES
from ehrsim.models.shift import Shift, no_shift
from ehrsim.preparation import Data
from ehrsim.progress import Progress
from ehrsim.rates import Floats, total_variation
from ehrsim.sampling import sample
from ehrsim.visits import table
from ehrsim.visits.regression import logistic

SIMULATED = 300_000
"""Steps to simulate in a round; more of them leave less to chance."""
PATIENTS = (500, 20_000)
"""Patients to simulate in a round, at least and at most."""
AMONG = 4
"""And no more than so many times those to learn from: beyond that the chance in these counts for more."""
HALF = 0.5
"""Of the shifts of kinds, which go by two margins, and of values that are not the first: each of those is drawn given
the one before, which was shifted as well. Weights w(x) on the kernel of a reversible chain K make w(x) (Kw)(x) of its
stationary distribution, up to w(x) squared."""
EIGHTHS = 8
"""Parts of a scale of values that are raked before its bins."""
LARGEST = 1.0
"""Of the change of a logit in a round."""
CREDIBLE = 10.0
"""Events that make a difference count for about half."""
SEEDS = 1 << 31
"""Simulation begins here, so that users' seeds, which are small, draw other patients."""


def shift_towards(real: Margins, simulated: Margins, sizes: Sizes) -> Shift:
    """What moves the margins of simulated records to those of real ones, if each margin went by its own logit alone."""
    at_any_age = _difference(*(counts.sum(0) for counts in (real.first, real.fresh, simulated.first, simulated.fresh)))
    # What is left at each age once that is done.
    expected = _moved(simulated.first, simulated.fresh, at_any_age)
    at_age = _difference(real.first, real.fresh, expected, simulated.fresh)
    whatever_precedes = _difference(
        *(counts.sum(0) for of in (real, simulated) for counts in (of.first_by_gap, of.fresh_by_gap))
    )
    after_all_gaps = _moved(simulated.first_by_gap, simulated.fresh_by_gap, whatever_precedes)
    led, led_at_once = _led(real, simulated, at_any_age, sizes)
    of_all_statics = _moved(simulated.first_by_static, simulated.fresh_by_static, whatever_precedes)
    return Shift(
        kind=HALF * _shares(real.kind, simulated.kind),
        kind_by_age=HALF * _shares(real.kind_by_age, simulated.kind_by_age),
        gap=_shares(real.gap, simulated.gap),
        length=_shares(real.length, simulated.length),
        first=at_any_age + at_age,
        first_by_gap=_difference(real.first_by_gap, real.fresh_by_gap, after_all_gaps, simulated.fresh_by_gap),
        first_by_static=_difference(
            real.first_by_static, real.fresh_by_static, of_all_statics, simulated.fresh_by_static
        ),
        led=led,
        led_at_once=led_at_once,
        again=_difference(real.again, real.known, simulated.again, simulated.known),
        wanted=np.zeros((PROSPECT_FEATURES, sizes.vocabulary)),
        following=_shares(real.following, simulated.following),
        first_value=_shares_of_ranks(real.first_value, simulated.first_value),
        later_value=HALF * _shares_of_ranks(real.later_value, simulated.later_value),
    )


def of_statics(real: Margins) -> Floats:
    """(statics, V) how much larger the log odds of first codes are in patients of whom something is known than in all.

    What only one sex can have is rare in training, and a network that learns it is never quite sure.
    """
    first, fresh = (
        np.broadcast_to(counts.sum(0), real.first_by_static.shape) for counts in (real.first_by_gap, real.fresh_by_gap)
    )
    return _apart(real.first_by_static, real.fresh_by_static, first, fresh)


def _led(real: Margins, simulated: Margins, at_any_age: Floats, sizes: Sizes) -> tuple[Floats, Floats]:
    """(precursors,) by how much more each leads to its code in real records, given the others, and that at once.

    Precursors go together, so the margin of each by itself would come right but slowly. Of each code this is a logistic
    regression of real first occurrences on the precursors known, with the log odds of simulated ones as an offset,
    shifted as they are `at_any_age` (V,). Coefficients have a prior: CREDIBLE events count for about half.
    """
    shift = np.zeros(len(sizes.precursors))
    for code, pairs, cells in led_by(sizes):
        number = pairs.stop - pairs.start
        known = (np.arange(1 << number)[1:, None] >> np.arange(number) & 1).astype(np.float64)
        (happened, at_risk), (ours, out_of) = ((of.led[cells][1:], of.exposed[cells][1:]) for of in (real, simulated))
        rate = (happened.sum() + ours.sum() + 0.5) / (at_risk.sum() + out_of.sum() + 1.0)
        added = CREDIBLE / min(rate, 1 - rate)
        # Few steps tell little of a cell: as in `_difference` it is taken for one of the rate of all of them.
        offset = _log_odds(ours + added * rate, out_of + added) + at_any_age[code]
        trust = (ours.sum() + 1) / (ours.sum() + happened.sum() + 1)
        shift[pairs] = _regressed(known, trust * (happened + added * rate), trust * (at_risk + added), offset)
    shift = np.clip(shift, -LARGEST, LARGEST)
    whatever_else = at_any_age[[pair.code for pair in sizes.precursors]] + shift
    expected = _moved(simulated.led_at_once, simulated.exposed_at_once, whatever_else)
    return shift, _difference(real.led_at_once, real.exposed_at_once, expected, simulated.exposed_at_once)


def _regressed(known: Floats, happened: Floats, at_risk: Floats, offset: Floats) -> Floats:
    """Coefficients of `known` (cells, n) by Newton's method, for counts (cells,) and log odds (cells,) known before."""
    weights = np.zeros(known.shape[1])
    for _ in range(20):
        chance = logistic(known @ weights + offset)
        gradient = known.T @ (happened - at_risk * chance) - CREDIBLE * weights
        hessian = known.T @ (known * (at_risk * chance * (1 - chance))[:, None]) + CREDIBLE * np.eye(len(weights))
        step = np.clip(np.linalg.solve(hessian, gradient), -0.5, 0.5)
        weights = weights + step
        if abs(step).max() < 1e-3:
            break
    return weights


def _log_odds(events: Floats, number: Floats) -> Floats:
    odds: Floats = np.log(events) - np.log(np.maximum(number - events, 1e-9))
    return odds


def _moved(events: Floats, number: Floats, change: Floats) -> Floats:
    """What becomes of so many events out of a number when the log odds of each change."""
    often = events * np.exp(change)
    moved: Floats = number * often / np.maximum(often + number - events, 1e-9)
    return moved


def _shares(real: Floats, simulated: Floats) -> Floats:
    of_real, of_simulated = (np.broadcast_to(part.sum(-1, keepdims=True), part.shape) for part in (real, simulated))
    return _difference(real, of_real, simulated, of_simulated)


def _shares_of_ranks(real: Floats, simulated: Floats) -> Floats:
    """As `_shares`, for eighths of the scale first: few values tell little of a bin, and more of where they all lie."""
    bins = real.shape[1]
    eighth = np.arange(bins) * EIGHTHS // bins
    begins = np.searchsorted(eighth, np.arange(EIGHTHS))
    roughly = _shares(*(np.add.reduceat(counts, begins, axis=1) for counts in (real, simulated)))[:, eighth]
    expected = simulated * np.exp(roughly)
    expected *= simulated.sum(1, keepdims=True) / np.maximum(expected.sum(1, keepdims=True), 1e-9)
    return roughly + _shares(real, expected)


def _difference(real: Floats, of_real: Floats, simulated: Floats, of_simulated: Floats) -> Floats:
    """How much larger the log odds of real rates are than those of simulated ones, less where they rest on few.

    It is limited to what is made up for in a round.
    """
    limited: Floats = np.clip(_apart(real, of_real, simulated, of_simulated), -LARGEST, LARGEST)
    return limited


def _apart(real: Floats, of_real: Floats, simulated: Floats, of_simulated: Floats) -> Floats:
    """As `_difference`, without a limit.

    To both is added what is at the rate of both together and has at least CREDIBLE events and CREDIBLE non-events.
    """
    rate = (real + simulated + 0.5) / (of_real + of_simulated + 1.0)
    added = CREDIBLE / np.minimum(rate, 1 - rate)
    ours, theirs = (
        (events + added * rate) / (number + added) for events, number in ((real, of_real), (simulated, of_simulated))
    )
    difference: Floats = np.log(ours) - np.log1p(-ours) - np.log(theirs) + np.log1p(-theirs)
    return difference


def discrepancy(real: Margins, simulated: Margins) -> float:
    """Mean over kinds, gaps, codes and values of the total variation distance of their shares."""
    pairs = [(getattr(real, name), getattr(simulated, name)) for name in Margins._fields if name in Shift._fields]
    return float(np.mean([total_variation(one, other) for one, other in pairs if one.sum()]))


def rake(model: Any, data: Data, rounds: int, seed: int, progress: Progress) -> tuple[Any, list[float]]:
    """The model with its logits shifted in some `rounds`, and the discrepancy that each of them found."""
    real = count(data.train, data.sizes)
    shift, found = no_shift(data.sizes), []
    for number in range(rounds):
        simulated = _simulated(model.shifted(shift), data, (SEEDS + seed + number) % (1 << 32))
        found.append(discrepancy(real, simulated))
        gain = 1 / (2 + number / 3)
        shift = Shift(
            *(old + gain * new for old, new in zip(shift, shift_towards(real, simulated, data.sizes), strict=True))
        )
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

"""Rates with exact bounds, and the risk that an attack adds to what a control shows.

Exact bounds are those of Clopper and Pearson (1934, Biometrika 26:404): they cover at least as often as they say,
however few the trials.
"""

from __future__ import annotations

import math

import msgspec
from scipy import stats

COVERAGE = 0.95


class Rate(msgspec.Struct, frozen=True):
    """Successes out of trials that do not depend on one another, with exact bounds of 95 %."""

    successes: int
    trials: int
    value: float | None
    """None without trials; the bounds are then 0 and 1."""
    low: float
    high: float


class Risk(msgspec.Struct, frozen=True):
    """What an attack succeeds more often than its control, of what the control leaves to succeed in.

    `value` is (attack - control) / (1 - control): 0 where the attack does no better on those whose data were used than
    on those whose were not, 1 where it always succeeds (Giomi et al. 2023, "A Unified Framework for Quantifying Privacy
    Risk in Synthetic Data", PoPETs 2023:2). It is below 0 where chance favours the control. None where nothing can be
    said: no trials, or a control that always succeeds.
    """

    attack: Rate
    control: Rate
    value: float | None
    low: float | None
    high: float | None


def rate(successes: int, trials: int, coverage: float = COVERAGE) -> Rate:
    """A rate with its Clopper-Pearson bounds."""
    tail = (1 - coverage) / 2
    low = float(stats.beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return Rate(successes, trials, successes / trials if trials else None, low, high)


def excess(attack: Rate, control: Rate) -> Risk:
    """The risk that an attack adds to its control.

    It is one less the ratio of their failures, whose interval follows from those of both rates (method of variance
    estimates recovery: Donner and Zou 2012, Statistical Methods in Medical Research 21:347). With exact bounds of the
    rates it is wider than need be.
    """
    if attack.value is None or control.value is None or control.value == 1.0:
        return Risk(attack, control, None, None, None)
    failed, spared = 1 - attack.value, 1 - control.value
    lowest = _ratio_bound(failed, spared, 1 - attack.high, 1 - control.low, -1)
    highest = _ratio_bound(failed, spared, 1 - attack.low, 1 - control.high, 1)
    return Risk(attack, control, 1 - failed / spared, 1 - highest, 1 - lowest)


def _ratio_bound(upper: float, lower: float, upper_end: float, lower_end: float, sign: int) -> float:
    """The end of the interval of upper / lower on one side, from the ends of both that lead there."""
    product, room = upper * lower, lower_end * (2 * lower - lower_end)
    if room <= 0:
        return math.inf if sign > 0 else 0.0
    inner = max(product**2 - upper_end * (2 * upper - upper_end) * room, 0.0)
    return max((product + sign * math.sqrt(inner)) / room, 0.0)

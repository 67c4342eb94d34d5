"""Figures with intervals: patients are drawn again with replacement, and every figure stands beside its floor.

Three cohorts take part: held-out real patients, another real sample, and simulated patients. A *distance* compares the
first with one of the others. That between the two real samples is the *floor*: what chance alone leaves, for a
generator as good as reality. Patients, not visits or events, are drawn again (Efron and Tibshirani 1993, An
Introduction to the Bootstrap), since those of one patient depend on each other.

Many patients are drawn in `BLOCKS`, every hundredth together, which costs a hundredth and has the same spread: the
sums of blocks are independent and alike, as are those of patients (the method of random groups, Wolter 2007,
Introduction to Variance Estimation, chapter 2). So every figure keeps sums by block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Cohort = TypeVar("Cohort")
DRAWS, COVERAGE = 200, 0.95
BLOCKS = 100
"""Patients are drawn in so many blocks; so few patients or less one by one."""
NOT_NEGATIVE = (0.0, np.inf)


class Resamples(NamedTuple):
    """How often each block counts, (1 + draws, blocks) a cohort: in the first row once, then as often as drawn."""

    held_out: Floats
    real: Floats
    simulated: Floats


class Figure(NamedTuple):
    """A distance of simulated patients to held-out ones, that of another real sample, and how both compare.

    Intervals are of 95 %. `ratio` is the value over the floor, None where the floor is not above nought.
    """

    value: float
    interval: tuple[float, float]
    floor: float
    ratio: float | None
    ratio_interval: tuple[float, float] | None
    difference: float
    difference_interval: tuple[float, float]


Distance = Callable[[Cohort, Cohort, Floats, Floats], Floats]
"""From held-out patients, others, and the weights of each (rows, blocks), to a distance a row."""


def subjects(events: pl.LazyFrame) -> pl.Series:
    """The patients of a table of events in order: the place of one in it is its number in every metric."""
    return events.select(pl.col("subject_id").unique().sort()).collect()["subject_id"]


def block_of(places: Indices) -> Indices:
    """The block of patients by their place in `subjects`."""
    return places % BLOCKS


def blocks(patients: int) -> int:
    """How many blocks so many patients make."""
    return min(patients, BLOCKS)


def once(patients: int) -> Floats:
    """(1, blocks) weights that count every patient once."""
    return np.ones((1, blocks(patients)))


def resamples(held_out: int, real: int, simulated: int, *, draws: int = DRAWS, seed: int = 0) -> Resamples:
    """Draw as many blocks of patients as each cohort has, with replacement, `draws` times."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    drawn = []
    for patients in (held_out, real, simulated):
        size = blocks(patients)
        again = rng.multinomial(size, np.full(size, 1 / size), draws) if size else np.ones((0, 0))
        drawn.append(np.vstack([once(patients), again.astype(np.float64)]))
    return Resamples(*drawn)


def beside_floor(
    distance: Distance[Cohort],
    held_out: Cohort,
    real: Cohort,
    simulated: Cohort,
    weights: Resamples,
    *,
    bounds: tuple[float, float] = NOT_NEGATIVE,
) -> Figure:
    """The distance of simulated patients beside that of real ones, both from the same draws of held-out patients.

    `bounds` are the least and the most that the distance can be.
    """
    found = distance(held_out, simulated, weights.held_out, weights.simulated)
    floor = distance(held_out, real, weights.held_out, weights.real)
    return figure(found, floor, bounds=bounds)


def figure(found: Floats, floor: Floats, *, bounds: tuple[float, float] = NOT_NEGATIVE) -> Figure:
    """The figure of two distances (1 + draws,), each first as it is and then by draw."""
    value, lowest = float(found[0]), float(floor[0])
    ratio = value / lowest if lowest > 0 else None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, differences = np.where(floor > 0, found / floor, np.nan), found - floor
    return Figure(
        value,
        interval(found, bounds),
        lowest,
        ratio,
        None if ratio is None else interval(ratios, (bounds[0], np.inf)),
        value - lowest,
        interval(differences),
    )


def interval(drawn: Floats, bounds: tuple[float, float] = (-np.inf, np.inf)) -> tuple[float, float]:
    """The 95 % interval of what `drawn` (1 + draws,) begins with: quantiles of the draws, moved onto the value.

    A distance between two samples is their difference and chance. Each draw adds chance a second time, so that draws of
    a distance lie too high and those of R squared too low, the whole interval often beside the value. Their spread is
    right: the quantiles are moved by what the mean of the draws is off the value, and cut to `bounds`.
    """
    value, draws = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    if not len(draws) or not np.isfinite(value):
        return (value, value)
    ends = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]) - draws.mean() + value
    low, high = np.clip(ends, *bounds)
    return float(min(low, value)), float(max(high, value))

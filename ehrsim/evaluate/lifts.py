"""What comes within a year of what: how much more often one code follows another than it follows any visit.

The lift of B after A is the share of first visits with A that B follows, at a later visit within a year, over the share
of all visits that B follows so. It is 1 where A tells nothing about B, whatever lies between.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim.evaluate.patterns import incidence
from ehrsim.evaluate.records import DAYS_PER_YEAR
from ehrsim.evaluate.resampling import Floats, block_of, blocks

MOST_CODES, LEAST_FOLLOWED = 80, 20
DAY = 86_400e6
"""In microseconds."""
_MOST_LATER = 120
"""Later visits looked at: a year of one every third day."""


class Followed(NamedTuple):
    """How often codes are followed within a year, by block of patients."""

    pairs: Floats
    """(blocks, codes * codes) first visits with a code that another follows"""
    first: Floats
    """(blocks, codes) first visits with a code"""
    after_any: Floats
    """(blocks, codes) visits that a code follows"""
    visits: Floats
    """(blocks,)"""


def commonest(events: pl.LazyFrame, codes: pl.Series, most: int = MOST_CODES) -> list[str]:
    """The codes of visits that most patients have."""
    counted = events.filter(pl.col("code").is_in(codes.implode())).group_by("code").agg(pl.col("subject_id").n_unique())
    return counted.sort(["subject_id", "code"], descending=[True, False]).head(most).collect()["code"].to_list()


def followed(events: pl.LazyFrame, codes: pl.Series, chosen: list[str]) -> Followed:
    """Count what follows what in a table of events whose visits have the `codes`, of which some are `chosen`."""
    visits = incidence(events, codes)
    columns = np.searchsorted(codes.to_numpy(), np.array(chosen, dtype=object)) if chosen else np.zeros(0, np.int64)
    there = visits.codes[:, columns].toarray().astype(bool)
    day = visits.start.astype("datetime64[us]").astype(np.int64) / DAY
    later = np.zeros_like(there)
    for step in range(1, min(_MOST_LATER, len(there))):
        gap = day[step:] - day[:-step]
        near = np.flatnonzero((visits.patient[step:] == visits.patient[:-step]) & (gap <= DAYS_PER_YEAR))
        if not len(near):
            break
        near = near[gap[near] > 0]
        later[near] |= there[near + step]
    row, column = np.nonzero(there)
    _, begin = np.unique(visits.patient[row] * len(chosen) + column, return_index=True)
    onset = np.zeros_like(there)
    onset[row[begin], column[begin]] = True
    number, size = blocks(visits.patients), len(chosen)
    owner = block_of(visits.patient)
    found = np.zeros((number, size, size))
    first, after = np.zeros((number, size)), np.zeros((number, size))
    for block in range(number):
        own = np.flatnonzero(owner == block)
        start, end = onset[own].astype(np.float32), later[own].astype(np.float32)
        found[block] = start.T @ end
        first[block], after[block] = start.sum(axis=0), end.sum(axis=0)
    total = np.bincount(owner, minlength=number).astype(np.float64)
    return Followed(found.reshape(number, -1), first, after, total)


def log_lifts(counted: Followed, weights: Floats) -> Floats:
    """(rows, codes * codes) the logarithm of each lift, by row of weights (rows, blocks).

    Half an occurrence is added to each count, so that none is nought (Haldane 1956, Annals of Human Genetics 20:309).
    """
    size = counted.first.shape[1]
    pairs = (weights @ counted.pairs + 0.5).reshape(len(weights), size, size)
    first = weights @ counted.first + 1.0
    base = (weights @ counted.after_any + 0.5) / (weights @ counted.visits + 1.0)[:, None]
    return np.asarray(np.log(pairs / first[:, :, None] / base[:, None, :])).reshape(len(weights), -1)


def compared(held_out: Followed) -> np.ndarray:
    """The pairs that are compared: those that `LEAST_FOLLOWED` held-out patients have at least."""
    return np.flatnonzero(held_out.pairs.sum(axis=0) >= LEAST_FOLLOWED)


def lift_gaps(held_out: Followed, other: Followed, held_out_weights: Floats, weights: Floats) -> Floats:
    """(rows,) the mean absolute difference of the logarithms of lifts, over the pairs that are compared."""
    kept = compared(held_out)
    if not len(kept):
        return np.full(len(weights), np.nan)
    gaps = log_lifts(held_out, held_out_weights)[:, kept] - log_lifts(other, weights)[:, kept]
    return np.asarray(np.abs(gaps).mean(axis=1))

"""How often things happen in records as the models see them, and how far apart two cohorts are in that.

For what a likelihood does not say: whether records that follow their own history are like the real ones. It stops the
training of models that have no likelihood, and calibrates those that drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ehrsim.batch import Sizes
from ehrsim.visits.table import Table

Floats = NDArray[np.float64]
MOST_STEPS = 200
"""Longer records are counted with those of this length."""


class Rates(NamedTuple):
    """Counts over the records of a table."""

    kind: Floats
    """(kinds,) steps"""
    gap: Floats
    """(gaps,) steps whose gap is known"""
    length: Floats
    """(lengths,) visits"""
    codes: Floats
    """(kinds, V) steps of each kind that have the code"""
    origin: Floats
    """(origins,) patients"""
    first_gap: Floats
    """(first_gaps,) patients"""
    steps: Floats
    """(MOST_STEPS + 1,) patients with so many steps"""
    carriers: Floats
    """(V,) patients who have the code"""
    pairs: sparse.csr_matrix
    """(V, V) steps that have both codes"""
    sequences: sparse.csr_matrix
    """(V, V) steps with the first code before steps with the second"""


def count(table: Table, sizes: Sizes) -> Rates:
    """The counts of a table."""
    visit, patients = table.visit, table.patients
    codes = visit.codes
    row, place = np.nonzero((codes > 0) & (codes != np.pad(codes, ((0, 0), (1, 0)))[:, :-1]))
    code = codes[row, place].astype(np.int64)
    cell = visit.kind[row].astype(np.int64) * sizes.vocabulary + code
    of_kind = np.bincount(cell, minlength=sizes.kinds * sizes.vocabulary)
    steps = np.diff(table.step_offsets)
    owner = np.repeat(np.arange(patients), steps)
    shape = (len(visit.kind), sizes.vocabulary)
    has = sparse.csr_matrix((np.ones(len(row)), (row, code)), shape)
    ever = sparse.csr_matrix((np.ones(len(row)), (owner[row], code)), (patients, sizes.vocabulary))
    goes_on = owner[1:] == owner[:-1]
    is_visit = (visit.kind > 0) & (visit.kind < sizes.continues)
    return Rates(
        kind=tally(visit.kind, sizes.kinds),
        gap=tally(visit.gap[table.timed], sizes.gaps),
        length=tally(visit.length[is_visit], sizes.lengths),
        codes=of_kind.reshape(sizes.kinds, sizes.vocabulary).astype(np.float64),
        origin=tally(table.origin, sizes.origins),
        first_gap=tally(table.first_gap[table.first_gap >= 0], sizes.first_gaps),
        steps=tally(np.minimum(steps, MOST_STEPS), MOST_STEPS + 1),
        carriers=np.asarray((ever > 0).sum(0), np.float64).ravel(),
        pairs=sparse.triu(has.T @ has, k=1).tocsr(),
        sequences=(has[:-1][goes_on].T @ has[1:][goes_on]).tocsr(),
    )


def tally(index: NDArray[np.integer], size: int) -> Floats:
    """(size,) how often each index occurs."""
    return np.bincount(index, minlength=size).astype(np.float64)


def total(parts: Sequence[Rates]) -> Rates:
    """The counts of several tables together."""
    return Rates(*(sum(part[1:], start=part[0]) for part in zip(*parts, strict=True)))


def distance(first: Rates, second: Rates) -> float:
    """Mean over the kinds of rate of the total variation distance between two cohorts, between 0 and 1."""
    return float(np.mean([total_variation(a, b) for a, b in zip(first, second, strict=True) if a.sum()]))


def total_variation(first: Any, second: Any) -> float:
    """Between the shares of two arrays of counts, between 0 and 1; 1 where the second is empty."""
    if not second.sum():
        return 1.0
    return float(abs(first / first.sum() - second / second.sum()).sum() / 2)

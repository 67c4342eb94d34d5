"""Patterns of codes: how common each is, which fall into one visit, and which follow at the next.

The definitions are those of HALO (Theodorou et al. 2023, Nature Communications 14:5305): the share of visits with a
code or a pair, the share of transitions from a code to a code of the next visit, and for each the share of patients
with at least one. All is kept sparse, patients by patterns, so that a vocabulary may be large and patients can be drawn
again with replacement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ehrsim.evaluate.prevalence import r_squared
from ehrsim.evaluate.records import visit_codes
from ehrsim.evaluate.resampling import subjects

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Counts(NamedTuple):
    """How often each patient shows each pattern, out of how many occasions."""

    matrix: sparse.csr_matrix
    """(patients, patterns) float64"""
    occasions: Floats
    """(patients,) visits, transitions, or 1"""
    pattern: Indices
    """(patterns,) the number of each pattern, ascending: a code, or first code times the number of codes plus second"""

    def shares(self, weight: Floats | None = None) -> Floats:
        """(patterns,) occasions with the pattern out of all; `weight` (patients,) counts each patient that often."""
        weight = np.ones(len(self.occasions)) if weight is None else weight
        return np.asarray(weight @ self.matrix) / max(float(weight @ self.occasions), 1.0)


class Visits(NamedTuple):
    """The visits of a cohort in order of patient and time."""

    codes: sparse.csr_matrix
    """(visits, codes) 1 where the visit has the code"""
    patient: Indices
    """(visits,) the place of the patient in `subjects`"""
    start: NDArray[np.datetime64]
    """(visits,) in microseconds"""
    patients: int


class Patterns(NamedTuple):
    """The patterns of a cohort, of every kind."""

    code_by_visit: Counts
    code_by_patient: Counts
    pair_by_visit: Counts
    pair_by_patient: Counts
    sequence_by_visit: Counts
    sequence_by_patient: Counts


def vocabulary(*cohorts: pl.LazyFrame) -> pl.Series:
    """The codes of the visits of some tables, in order."""
    codes = pl.concat([visit_codes(events).select("code") for events in cohorts])
    return codes.unique().sort("code").collect()["code"]


def patterns(events: pl.LazyFrame, codes: pl.Series) -> Patterns:
    """Count the patterns of a table of events over `codes`, which must hold all of its codes."""
    visits, patient, _, patients = incidence(events, codes)
    follows = patient[1:] == patient[:-1]
    before, after, of_step = visits[:-1][follows], visits[1:][follows], patient[1:][follows]
    size = len(codes)
    found = {
        "code": (patient, _coordinates(visits, patient), size),
        "pair": (patient, _pairs(visits, visits, patient, within=True), size * size),
        "sequence": (of_step, _pairs(before, after, of_step, within=False), size * size),
    }
    counted = {}
    for name, (occasion, (owner, pattern), limit) in found.items():
        key, number = np.unique(owner * limit + pattern, return_counts=True)
        known, column = np.unique(key % limit, return_inverse=True)
        shape = (patients, len(known))
        by_visit = sparse.csr_matrix((number.astype(np.float64), (key // limit, column)), shape)
        by_patient = sparse.csr_matrix((np.ones(len(key)), (key // limit, column)), shape)
        occasions = np.bincount(occasion, minlength=patients).astype(np.float64)
        counted[f"{name}_by_visit"] = Counts(by_visit, occasions, known)
        counted[f"{name}_by_patient"] = Counts(by_patient, np.ones(patients), known)
    return Patterns(**counted)


def aligned(first: Counts, second: Counts) -> tuple[Floats, Floats]:
    """The shares of two cohorts over the patterns that either shows."""
    once = (np.ones((1, len(counts.occasions))) for counts in (first, second))
    return next(_aligned_rows(first, second, *once))


class Distances(NamedTuple):
    """How far the shares of two cohorts are from each other, by row of weights."""

    total_variation: Floats
    r_squared: Floats


def distances(real: Counts, synthetic: Counts, real_weights: Floats, weights: Floats) -> Distances:
    """Compare two cohorts once for every row of the weights (rows, patients) of each.

    R squared is over the patterns that a patient with a weight shows, and NaN where they are all as common.
    """
    found = np.full((2, len(real_weights)), np.nan)
    for row, (truth, guess) in enumerate(_aligned_rows(real, synthetic, real_weights, weights)):
        shown = (truth > 0) | (guess > 0)
        explained = r_squared(truth[shown], guess[shown])
        found[:, row] = total_variation(truth, guess), np.nan if explained is None else explained
    return Distances(*found)


def _aligned_rows(
    first: Counts, second: Counts, first_weights: Floats, second_weights: Floats
) -> Iterator[tuple[Floats, Floats]]:
    union = np.union1d(first.pattern, second.pattern)
    places = [np.searchsorted(union, counts.pattern) for counts in (first, second)]
    for weights in zip(first_weights, second_weights, strict=True):
        both = np.zeros((2, len(union)))
        for shares, counts, place, weight in zip(both, (first, second), places, weights, strict=True):
            shares[place] = counts.shares(weight)
        yield both[0], both[1]


def total_variation(real: Floats, synthetic: Floats) -> float:
    """Half the absolute difference between two sets of shares, each scaled to a sum of 1."""
    if not real.sum() or not synthetic.sum():
        return 1.0
    return float(np.abs(real / real.sum() - synthetic / synthetic.sum()).sum() / 2)


def incidence(events: pl.LazyFrame, codes: pl.Series) -> Visits:
    """The visits of a table of events that have any of `codes`, which are its columns."""
    keys = ["subject_id", "start", "visit_id", "day"]
    column = pl.DataFrame({"code": codes}).with_row_index("column").lazy()
    rows = visit_codes(events).join(column, on="code").collect()
    visits = rows.select(keys).unique().sort(keys).with_row_index("row")
    rows = rows.join(visits, on=keys, nulls_equal=True)
    shape = (visits.height, len(codes))
    matrix = sparse.csr_matrix((np.ones(rows.height), (rows["row"].to_numpy(), rows["column"].to_numpy())), shape)
    everyone = subjects(events)
    patient = everyone.search_sorted(visits["subject_id"]).to_numpy().astype(np.int64)
    return Visits(matrix, patient, visits["start"].cast(pl.Datetime("us")).to_numpy(), len(everyone))


def _coordinates(visits: sparse.csr_matrix, patient: Indices) -> tuple[Indices, Indices]:
    return np.repeat(patient, np.diff(visits.indptr)), visits.indices.astype(np.int64)


def _pairs(
    left: sparse.csr_matrix, right: sparse.csr_matrix, patient: Indices, *, within: bool
) -> tuple[Indices, Indices]:
    """The patient and the number of every pair of a code of a row of `left` and one of the same row of `right`.

    `within` one visit a pair has no order and no code goes with itself.
    """
    row = np.repeat(np.arange(left.shape[0]), np.diff(left.indptr))
    partners = np.diff(right.indptr)[row]
    first = np.repeat(left.indices.astype(np.int64), partners)
    begin = np.repeat(right.indptr[:-1][row] - (np.cumsum(partners) - partners), partners)
    second = right.indices[begin + np.arange(len(first))].astype(np.int64)
    owner = np.repeat(patient[row], partners)
    if within:
        kept = first < second
        owner, first, second = owner[kept], first[kept], second[kept]
    return owner, first * left.shape[1] + second

"""Patterns of codes: how common each is, which fall into one visit, and which follow at the next.

The definitions are those of HALO (Theodorou et al. 2023, Nature Communications 14:5305): the share of visits with a
code or a pair, the share of transitions from a code to a code of the next visit, and for each the share of patients
with at least one. All is kept sparse, blocks of patients by patterns, so that a vocabulary may be large and patients
can be drawn again with replacement.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ehrsim.evaluate.records import visit_codes
from ehrsim.evaluate.resampling import block_of, blocks, subjects

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Counts(NamedTuple):
    """How often each block of patients shows each pattern, out of how many occasions."""

    matrix: sparse.csr_matrix
    """(blocks, patterns) float64"""
    occasions: Floats
    """(blocks,) visits, transitions, or patients"""
    pattern: Indices
    """(patterns,) the number of each pattern, ascending: a code, or first code times the number of codes plus second"""

    def shares(self, weight: Floats | None = None) -> Floats:
        """(patterns,) occasions with the pattern out of all; `weight` (blocks,) counts each block that often."""
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
    order = np.argsort(block_of(patient), kind="stable")
    visits, patient = visits[order], patient[order]
    size = len(codes)
    tallies = {"code": _Tally(size), "pair": _Tally(size * size), "sequence": _Tally(size * size)}
    ends = np.searchsorted(block_of(patient), np.arange(blocks(patients) + 1))
    for low, high in itertools.pairwise(ends):
        part, owner = visits[low:high], patient[low:high]
        follows = owner[1:] == owner[:-1]
        before, after, of_step = part[:-1][follows], part[1:][follows], owner[1:][follows]
        tallies["code"].add(*_coordinates(part, owner), len(owner))
        tallies["pair"].add(*row_pairs(part, part, owner, within=True), len(owner))
        tallies["sequence"].add(*row_pairs(before, after, of_step, within=False), len(of_step))
    everyone = np.bincount(block_of(np.arange(patients)), minlength=blocks(patients)).astype(np.float64)
    counted = {}
    for name, tally in tallies.items():
        counted[f"{name}_by_visit"], counted[f"{name}_by_patient"] = tally.counts(everyone)
    return Patterns(**counted)


class _Tally:
    """Counts of a kind of pattern, block by block, so that no list is as long as all that the cohort shows."""

    def __init__(self, limit: int) -> None:
        """`limit` is one more than the highest number of a pattern."""
        self.limit = limit
        self.found: list[tuple[Indices, Indices, Indices]] = []
        self.occasions: list[int] = []

    def add(self, owner: Indices, pattern: Indices, occasions: int) -> None:
        """Count what the patients of the next block show: the owner and the pattern of each occurrence."""
        first = owner.min() if len(owner) else 0
        key, number = np.unique((owner - first) * self.limit + pattern, return_counts=True)
        shown = key % self.limit
        order = np.argsort(shown, kind="stable")
        known, begin = np.unique(shown[order], return_index=True)
        visits = np.add.reduceat(number[order], begin) if len(known) else number
        self.found.append((known, visits, np.diff(begin, append=len(shown))))
        self.occasions.append(occasions)

    def counts(self, patients: Floats) -> tuple[Counts, Counts]:
        """By visit or transition, and by patient, of whom each block has so many."""
        known, column = np.unique(self._joined(0), return_inverse=True)
        row = np.repeat(np.arange(len(self.found)), [len(part[0]) for part in self.found])
        shape = (len(patients), len(known))
        matrices = [sparse.csr_matrix((self._joined(kind) * 1.0, (row, column)), shape) for kind in (1, 2)]
        occasions = np.array(self.occasions, np.float64)
        return Counts(matrices[0], occasions, known), Counts(matrices[1], patients, known)

    def _joined(self, part: int) -> Indices:
        """A part of what was found of every block."""
        return np.concatenate([np.zeros(0, np.int64), *(found[part] for found in self.found)]).astype(np.int64)


def aligned(first: Counts, second: Counts) -> tuple[Floats, Floats]:
    """The shares of two cohorts over the patterns that either shows."""
    union = np.union1d(first.pattern, second.pattern)
    both = np.zeros((2, len(union)))
    for shares, counts in zip(both, (first, second), strict=True):
        shares[np.searchsorted(union, counts.pattern)] = counts.shares()
    return both[0], both[1]


class Distances(NamedTuple):
    """How far the shares of two cohorts are from each other, by row of weights."""

    total_variation: Floats
    r_squared: Floats


def distances(real: Counts, synthetic: Counts, real_weights: Floats, weights: Floats) -> Distances:
    """Compare two cohorts once for every row of the weights (rows, blocks) of each.

    R squared is over the patterns that a patient with a weight shows, and NaN where they are all as common. Both are
    sums over patterns, and taken some thousand patterns at a time.
    """
    union = np.union1d(real.pattern, synthetic.pattern)
    cohorts = (real, real_weights), (synthetic, weights)
    occasions = [np.maximum(rows @ counts.occasions, 1.0)[:, None] for counts, rows in cohorts]
    totals = [rows @ np.asarray(counts.matrix.sum(axis=1)).ravel()[:, None] for counts, rows in cohorts]
    sums = np.zeros((5, len(weights)))
    for begin in range(0, len(union), _AT_ONCE):
        part = union[begin : begin + _AT_ONCE]
        both = [rows @ _dense(counts, part) for counts, rows in cohorts]
        truth, guess = (shown / number for shown, number in zip(both, occasions, strict=True))
        scaled = [shown / np.maximum(total, 1e-300) for shown, total in zip(both, totals, strict=True)]
        shown = (truth > 0) | (guess > 0)
        sums += np.stack(
            [
                np.abs(scaled[0] - scaled[1]).sum(axis=1) / 2,
                ((guess - truth) ** 2).sum(axis=1),
                truth.sum(axis=1),
                (truth**2).sum(axis=1),
                shown.sum(axis=1),
            ]
        )
    apart, residual, total, squares, number = sums
    variance = squares - total**2 / np.maximum(number, 1)
    # What rounding leaves of the variance of equal shares is no variance.
    varies = variance > 1e-12 * np.maximum(squares, 1e-300)
    explained = np.where(varies, 1 - residual / np.where(varies, variance, 1.0), np.nan)
    empty = (totals[0][:, 0] == 0) | (totals[1][:, 0] == 0)
    return Distances(np.where(empty, 1.0, apart), explained)


_AT_ONCE = 16_384


def _dense(counts: Counts, chosen: Indices) -> Floats:
    """(blocks, chosen) the counts of some patterns, ascending, nought for those that the cohort does not show."""
    low, high = np.searchsorted(counts.pattern, [chosen[0], chosen[-1] + 1])
    found = np.zeros((counts.matrix.shape[0], len(chosen)))
    found[:, np.searchsorted(chosen, counts.pattern[low:high])] = counts.matrix[:, low:high].toarray()
    return found


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


def row_pairs(
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

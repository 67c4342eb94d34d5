"""Copies: synthetic records that are those of training patients, whole or in part, and how like the rest is to them.

Every figure stands beside its control: held-out patients, looked up among the same training patients. Short and common
records are alike by chance, in reality too; only what synthetic records have more of is copied. The shares say of a
release whether it holds copies; which record is one is told to nobody.

None of this measures privacy. A generator can leak without a single copy, and most do: distances to the closest record
miss what membership inference finds (Yao et al. 2025, "The DCR Delusion"). They are here because a copy is a plain
fault, and because others report them.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ehrsim.evaluate import histories
from ehrsim.evaluate.exact import Risk, excess, rate
from ehrsim.evaluate.histories import MOST_PATIENTS, Histories, Keys, matrices, nearest
from ehrsim.evaluate.patterns import vocabulary
from ehrsim.evaluate.resampling import Floats, Indices

LEAST_VISITS = 3
"""Visits that a record must have for its being the same as another to say anything."""
LEAST_CODES = 8
NEAR = 0.9
"""Jaccard index from which on two records are near-duplicates."""
LONGEST = 64
"""Runs of visits are followed up to this length."""
LEVELS = (0.5, 0.9, 0.99, 1.0)
RARE_RUN = 0.01


class Quantiles(msgspec.Struct, frozen=True):
    """The values that half, 90 %, 99 % and all records do not exceed, of synthetic and of held-out patients."""

    synthetic: tuple[float, float, float, float]
    held_out: tuple[float, float, float, float]


class Distances(msgspec.Struct, frozen=True):
    """Distances of records by the cosine of their codes. Not a measure of privacy: see the module."""

    closest: Quantiles
    """DCR: distance to the closest training record"""
    closest_ratio: Quantiles
    """NNDR: distance to the closest training record over that to the second closest"""
    nearer_to_training: float
    """Share of synthetic records nearer to training than to held-out patients, of as many of each: 0.5 is chance"""
    adversarial_accuracy_training: float
    adversarial_accuracy_held_out: float
    """NNAA: how often a nearest neighbour tells synthetic from real records, both training (or held-out) and synthetic
    ones being looked up, as many of each (Yale et al. 2020, Neurocomputing 416:244): 0.5 where it cannot"""

    @property
    def privacy_loss(self) -> float:
        """The held-out accuracy less the training one, as Yale et al. call it."""
        return self.adversarial_accuracy_held_out - self.adversarial_accuracy_training


class Copies(msgspec.Struct, frozen=True):
    """How many records are copies of training records; `attack` is of synthetic records, `control` of held-out ones.

    Records count that have at least 3 visits; for near-duplicates, at least 8 codes.
    """

    exact: Risk
    """Every visit has the very codes, in the same order"""
    near: dict[str, Risk]
    """A Jaccard index of 0.9 or more with one training record: of `codes`, of `onsets` (codes with ages), of `visits`
    (sets of codes of single visits and of two in a row)"""
    run_length: int
    """The least length of a run that at most 1 % of one half of the held-out records share with a training record"""
    long_runs: Risk
    """Records that share so long a run of visits; the control is the other half of the held-out records"""
    longest_run: Quantiles
    """Visits in a row, each with the very codes, that a record shares with one training record; at most 64"""
    shared_visits: Quantiles
    """Share of a record's single visits and pairs of visits in a row that one training record has too"""
    repeated: Risk
    """Synthetic records that are the same as another synthetic one; the control is the same of training records"""
    distances: Distances


class _Cohorts(NamedTuple):
    members: Histories
    held_out: Histories
    synthetic: Histories


def copies(
    members: pl.LazyFrame,
    held_out: pl.LazyFrame,
    synthetic: pl.LazyFrame,
    *,
    most: int = MOST_PATIENTS,
    seed: int = 0,
) -> Copies:
    """Look up synthetic and held-out records among those of training patients, at most `most` of each."""
    tables = [histories.some(events, most, seed=seed) for events in (members, held_out, synthetic)]
    known = vocabulary(*tables)
    cohorts = _Cohorts(*(histories.histories(events, known) for events in tables))
    whole = [_whole(history) for history in cohorts]
    runs = [_longest_runs(history, cohorts.members) for history in (cohorts.synthetic, cohorts.held_out)]
    length, long_runs = _long_runs(*runs)
    near, shared = _overlaps(cohorts)
    return Copies(
        exact=excess(
            *(rate(int(np.isin(one, whole[0]).sum()), len(one)) for one in (whole[2], whole[1])),
        ),
        near=near,
        run_length=length,
        long_runs=long_runs,
        longest_run=_quantiles(*runs),
        shared_visits=_quantiles(*shared),
        repeated=excess(*(rate(_repeated(one), len(one)) for one in (whole[2], whole[0]))),
        distances=_distances(cohorts),
    )


def _whole(history: Histories) -> Keys:
    """A key of each whole record of enough visits."""
    keys, patient = histories.visit_keys(history), history.visits.patient
    number = np.bincount(patient, minlength=history.visits.patients)
    place = np.arange(len(patient)) - np.searchsorted(patient, patient)
    powers = np.cumprod(np.full(int(number.max(initial=1)), _ODD, np.uint64), dtype=np.uint64)
    total = np.zeros(history.visits.patients, np.uint64)
    np.add.at(total, patient, keys * powers[place])
    return total[number >= LEAST_VISITS]


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _repeated(keys: Keys) -> int:
    """How many keys there are beyond the distinct ones."""
    return len(keys) - len(np.unique(keys))


def _longest_runs(history: Histories, members: Histories) -> NDArray[np.int64]:
    """The longest run of visits of every record of enough visits that a single training record has as well."""
    own, theirs = (histories.visit_keys(one) for one in (history, members))
    longest = np.zeros(history.visits.patients, np.int64)
    before: list[Keys | None] = [None, None]
    for length in range(1, LONGEST + 1):
        keys, owner = histories.run_keys(own, history.visits.patient, length, before[0])
        known, _ = histories.run_keys(theirs, members.visits.patient, length, before[1])
        before = [keys, known]
        longest[owner[np.isin(keys, known)]] = length
        if longest.max(initial=0) < length:
            break
    number = np.bincount(history.visits.patient, minlength=history.visits.patients)
    return longest[number >= LEAST_VISITS]


def _long_runs(synthetic: Indices, held_out: Indices) -> tuple[int, Risk]:
    """The length that few of one half of the held-out records reach, and how many of the others do."""
    choosing, judging = held_out[::2], held_out[1::2]
    length = int(np.quantile(choosing, 1 - RARE_RUN, method="higher")) + 1 if len(choosing) else 1
    attack, control = (rate(int((one >= length).sum()), len(one)) for one in (synthetic, judging))
    return length, excess(attack, control)


def _overlaps(cohorts: _Cohorts) -> tuple[dict[str, Risk], tuple[Floats, Floats]]:
    """Near-duplicates by what records share, and the shares of visits that synthetic and held-out records share."""
    ways = {"codes": histories.code_tokens, "onsets": histories.onset_tokens, "visits": histories.run_tokens}
    near, shared = {}, []
    for name, way in ways.items():
        members, held_out, synthetic = (_presence(one) for one in matrices(*(way(history) for history in cohorts)))
        rates = []
        for one, history in ((synthetic, cohorts.synthetic), (held_out, cohorts.held_out)):
            codes = np.diff(histories.code_counts(history).indptr)
            visits = np.bincount(history.visits.patient, minlength=history.patients)
            jaccard, contained = _closest(one, members)
            told = codes >= LEAST_CODES
            rates.append(rate(int((jaccard[told] >= NEAR).sum()), int(told.sum())))
            if name == "visits":
                shared.append(contained[visits >= LEAST_VISITS])
        near[name] = excess(rates[0], rates[1])
    return near, (shared[0], shared[1])


def _presence(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """1 where there is anything."""
    return sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), matrix.shape)


def _closest(queries: sparse.csr_matrix, base: sparse.csr_matrix) -> tuple[Floats, Floats]:
    """(queries,) the largest Jaccard index with a row of `base`, and the largest share of it that one of them has."""
    sizes, own = np.diff(base.indptr).astype(np.float32), np.diff(queries.indptr).astype(np.float32)
    jaccard, contained = np.zeros(len(own)), np.zeros(len(own))
    other = base.T.toarray() if base.shape[1] <= histories.DENSE else base.T.tocsr()
    for begin in range(0, len(own), 256):
        part = queries[begin : begin + 256] @ other
        both = part if isinstance(part, np.ndarray) else part.toarray()
        mine = own[begin : begin + 256, None]
        jaccard[begin : begin + 256] = (both / np.maximum(mine + sizes - both, 1)).max(axis=1, initial=0)
        contained[begin : begin + 256] = (both / np.maximum(mine, 1)).max(axis=1, initial=0)
    return jaccard, contained


def _quantiles(synthetic: NDArray[np.generic], held_out: NDArray[np.generic]) -> Quantiles:
    """Both sets of values; nought where there are none."""
    ends = []
    for values in (synthetic, held_out):
        found = np.quantile(values.astype(np.float64), LEVELS, method="lower") if len(values) else np.zeros(len(LEVELS))
        ends.append(tuple(float(one) for one in found))
    return Quantiles(ends[0], ends[1])  # type: ignore[arg-type]


def _distances(cohorts: _Cohorts) -> Distances:
    """The distances of the literature, by codes."""
    members, held_out, synthetic = matrices(*(histories.code_tokens(history) for history in cohorts))
    to_training = [_two(one, members) for one in (synthetic, held_out)]
    size = min(one.shape[0] for one in (members, held_out, synthetic))
    # As many of each: the more there are, the nearer is the nearest. The tables are in no order that matters.
    fewer = [_spread(one, size) for one in (members, held_out, synthetic)]
    nearer, farther = (_two(fewer[2], one)[:, 0] for one in fewer[:2])
    return Distances(
        _quantiles(*(found[:, 0] for found in to_training)),
        _quantiles(*(found[:, 0] / np.maximum(found[:, 1], 1e-6) for found in to_training)),
        float(np.mean(nearer < farther) + np.mean(nearer == farther) / 2),
        _adversarial_accuracy(fewer[0], fewer[2]),
        _adversarial_accuracy(fewer[1], fewer[2]),
    )


def _spread(matrix: sparse.csr_matrix, size: int) -> sparse.csr_matrix:
    """`size` rows, evenly spread."""
    return matrix[np.linspace(0, matrix.shape[0] - 1, size).astype(np.int64)]


def _two(queries: sparse.csr_matrix, base: sparse.csr_matrix, *, itself: bool = False) -> Floats:
    """(queries, 2) distances to the closest and the second closest; both the same where there is but one."""
    found = 1 - nearest(queries, base, 2, itself=itself).similarity.astype(np.float64)
    return np.maximum(found[:, [0, -1]], 0)


def _adversarial_accuracy(real: sparse.csr_matrix, synthetic: sparse.csr_matrix) -> float:
    """How often a record's nearest other is of its own cohort; half where both are as near."""
    if min(real.shape[0], synthetic.shape[0]) < LEAST_VISITS:
        return 0.5
    found = []
    for own, other in ((real, synthetic), (synthetic, real)):
        within, across = _two(own, own, itself=True)[:, 0], _two(own, other)[:, 0]
        found.append(np.mean(within < across) + np.mean(within == across) / 2)
    return float(np.mean(found))

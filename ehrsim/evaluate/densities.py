"""Attacks by whoever has the synthetic data alone: how much denser it lies about a patient than other real data does.

The threat model: the attacker has the synthetic records, the whole record of a target, and records of other real
patients of the same source, his *reference* (a strong attacker). He does not have the run folder. A patient about whom
the synthetic data lies denser than the population does is likely to be of the training data: the density ratio of
DOMIAS (van Breugel et al. 2023, "Membership Inference Attacks against Synthetic Data through Overfitting Detection",
AISTATS). The density is estimated in several ways, always by the same for both cohorts:

    nearest ...     distance to the most similar reference patient over that to the most similar synthetic one, by what
                    two records share: codes, ages of onset, sets of codes of visits, values
    transitions     likelihood of a record, visit by visit, under rates of codes given the visit before and whether the
                    patient had the code already
    classifier      gradient-boosted trees that tell synthetic from reference patients by counts of codes, mean values,
                    age and sex: their odds are a density ratio
    all together    the mean rank under all of these

None of them looks at which targets are members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse, stats

from ehrsim.evaluate import histories, membership, two_sample
from ehrsim.evaluate.histories import MOST_PATIENTS, Histories, Tokens, matrices, nearest
from ehrsim.evaluate.membership import Flags, Labels, Membership
from ehrsim.evaluate.patterns import vocabulary
from ehrsim.evaluate.resampling import Floats

WAYS: dict[str, Callable[[Histories], Tokens]] = {
    "nearest by codes": histories.code_tokens,
    "nearest by ages of onset": histories.onset_tokens,
    "nearest by visits": histories.run_tokens,
    "nearest by values": histories.value_tokens,
}
CLOSEST = 1e-3
"""Distances are taken to be this at least: below it two records are the same but for rounding."""
MOST_CODES = 2_000
SMOOTHING = 10.0
"""Occasions that the general rate of a code counts for where it is estimated for a case."""
CHUNK = 4_096
OUTLIERS = 0.05


class Scores(NamedTuple):
    """The scores of attacks for every target, members first, and what is known of the targets."""

    attacks: dict[str, Floats]
    blind: dict[str, Floats]
    """Scores that know nothing of what was released."""
    member: Flags
    groups: dict[str, Labels]


def membership_by_data(
    members: pl.LazyFrame,
    non_members: pl.LazyFrame,
    synthetic: pl.LazyFrame,
    reference: pl.LazyFrame,
    *,
    most: int = MOST_PATIENTS,
    seed: int = 0,
) -> Membership:
    """Membership inference with the synthetic data alone; see this module for the attacks and who can mount them.

    `members` are training patients, `non_members` and `reference` real patients of the same source that were not
    trained on; no patient may be in two of the tables. At most `most` patients of each are looked at. Raises
    `InputError` for too few targets, `MissingExtraError` without scikit-learn.
    """
    cohorts = (histories.some(frame, most, seed=seed) for frame in (members, non_members, synthetic, reference))
    found = scores(*cohorts, seed=seed)
    return membership.infer(found.attacks, found.member, blind=found.blind, groups=found.groups, seed=seed)


def scores(
    members: pl.LazyFrame,
    non_members: pl.LazyFrame,
    synthetic: pl.LazyFrame,
    reference: pl.LazyFrame,
    *,
    seed: int = 0,
) -> Scores:
    """The scores of every attack for all members, then all non-members."""
    cohorts = (members, non_members, synthetic, reference)
    known = vocabulary(*cohorts)
    told = [histories.histories(events, known) for events in cohorts]
    attacks: dict[str, Floats] = {}
    for name, tokens in WAYS.items():
        attacks[name] = _nearer(*matrices(*(tokens(history) for history in told)))
    targets = told[:2]
    likelihoods = [[Transitions.fit(base).score(target) for target in targets] for base in told[2:]]
    of_synthetic, of_reference = (np.concatenate(both) for both in likelihoods)
    attacks["transitions"] = of_synthetic - of_reference
    attacks["classifier"] = _odds(told, seed)
    attacks["all together"] = np.mean([stats.rankdata(score) / len(score) for score in attacks.values()], axis=0)
    person = pl.concat([target.person for target in targets])
    rarity = _rarest(told)
    blind = {
        "visits": person["visits"].cast(pl.Float64).to_numpy(),
        "age": person["age"].fill_null(person["age"].mean() or 0.0).fill_null(0.0).to_numpy(),
        "likelihood under the reference": of_reference,
        "rarest code": rarity,
    }
    blind |= {f"fewer {name}": -score for name, score in blind.items()}
    of_person = histories.groups(person)
    of_person["outlier"] = _outliers({"rare codes": rarity, "long record": blind["visits"], "unlikely": -of_reference})
    member = np.repeat([True, False], [target.patients for target in targets])
    return Scores(attacks, blind, member, of_person)


def merged(parts: list[Scores], *, seed: int = 0) -> Scores:
    """The scores of the same members with different non-members and references, judged together.

    Where few real patients are left, each half of them is the reference of the other: all are targets then. Members are
    shared out among the parts, so that each counts once. What scores with different references are is not comparable:
    each is replaced by the mean of the shares of members and of non-members of its part that have a lower one.
    """
    if len(parts) == 1:
        return parts[0]
    rng = np.random.Generator(np.random.Philox(key=[seed, 10]))
    owner = rng.permutation(np.arange(int(parts[0].member.sum())) % len(parts))
    kept = [np.append(owner == number, np.ones(int((~part.member).sum()), bool)) for number, part in enumerate(parts)]

    def joined(columns: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([column[rows] for column, rows in zip(columns, kept, strict=True)])

    return Scores(
        {name: joined([_ranks(part.attacks[name], part.member) for part in parts]) for name in parts[0].attacks},
        {name: joined([_ranks(part.blind[name], part.member) for part in parts]) for name in parts[0].blind},
        joined([part.member for part in parts]),
        {name: joined([part.groups[name] for part in parts]) for name in parts[0].groups},
    )


def _ranks(score: Floats, member: Flags) -> Floats:
    """(targets,) the mean of the shares of members and of others that have a lower score."""
    below = [np.searchsorted(np.sort(score[member == which]), score, side="left") for which in (True, False)]
    found: Floats = (below[0] / max(int(member.sum()), 1) + below[1] / max(int((~member).sum()), 1)) / 2
    return found


def _nearer(
    members: sparse.csr_matrix, others: sparse.csr_matrix, synthetic: sparse.csr_matrix, reference: sparse.csr_matrix
) -> Floats:
    """(targets,) the log of the distance to the nearest reference patient over that to the nearest synthetic one."""
    targets = sparse.vstack([members, others], format="csr")
    far, near = (
        np.maximum(1 - nearest(targets, base).similarity[:, 0].astype(np.float64), CLOSEST)
        for base in (reference, synthetic)
    )
    return np.asarray(np.log(far / near))


def _odds(told: list[Histories], seed: int) -> Floats:
    """(targets,) the log odds of being synthetic rather than of the reference."""
    columns = histories.commonest(*told[2:])
    matrix = np.vstack([histories.numbers(history, columns) for history in told[2:]])
    label = np.repeat([True, False], [history.patients for history in told[2:]])
    known = np.isfinite(matrix).any(axis=0)
    with two_sample.one_thread():
        model = two_sample.classifier(seed).fit(matrix[:, known], label)
    asked = np.vstack([histories.numbers(history, columns) for history in told[:2]])[:, known]
    odds: Floats = model.decision_function(asked).astype(np.float64)
    return odds


def _rarest(told: list[Histories]) -> Floats:
    """(targets,) the information of the rarest code of each target, in nats, by how many reference patients have it."""
    reference = histories.code_counts(told[-1])
    having = np.asarray((reference > 0).sum(axis=0)).ravel()
    information = -np.log((having + 0.5) / (reference.shape[0] + 1))
    found = []
    for target in told[:2]:
        counts = (histories.code_counts(target) > 0).astype(np.float64)
        found.append(counts.multiply(information[None]).tocsr().max(axis=1).toarray().ravel())
    return np.concatenate(found)


def _outliers(unusual: dict[str, Floats]) -> Labels:
    """(targets,) the first way in which a target is among the twentieth part that is most unusual, "" for none."""
    labels = np.full(len(next(iter(unusual.values()))), "", dtype="U32")
    for name, score in unusual.items():
        most = np.argsort(-score, kind="stable")[: int(np.ceil(OUTLIERS * len(score)))]
        free = np.zeros(len(score), bool)
        free[most] = True
        labels[free & (labels == "")] = name
    return labels


class Transitions(NamedTuple):
    """Rates of codes in the visits of a cohort."""

    columns: NDArray[np.int64]
    """The codes that are looked at, the commonest."""
    after: NDArray[np.float32]
    """(codes, codes) how often the second is in the visit after one with the first"""
    rates: Floats
    """(2, codes) how often a code is in a visit of those who have not had it yet, and of those who have"""

    @classmethod
    def fit(cls, history: Histories) -> Transitions:
        """Count a cohort. Rates of cases are drawn to the general one, the more the rarer the case."""
        visits, patient = history.visits.codes, history.visits.patient
        number = np.asarray(visits.sum(axis=0)).ravel()
        columns = np.sort(np.argsort(-number, kind="stable")[:MOST_CODES])
        visits, number = visits[:, columns], number[columns]
        general = (number + 0.5) / (visits.shape[0] + 1)
        follows = patient[1:] == patient[:-1]
        before, behind = visits[:-1][follows], visits[1:][follows]
        together = (before.T @ behind).toarray()
        occasions = np.asarray(before.sum(axis=0)).ravel()
        after = (together + SMOOTHING * general) / (occasions[:, None] + SMOOTHING)
        first, later = _first_and_later(visits, patient)
        again = np.bincount(visits.indices[~first], minlength=len(columns))
        once = np.bincount(visits.indices[first], minlength=len(columns))
        had = np.bincount(visits.indices[first], later[first], len(columns))
        rates = np.stack(
            [
                (once + SMOOTHING * general) / (visits.shape[0] - had + SMOOTHING),
                (again + SMOOTHING * general) / (had + SMOOTHING),
            ]
        )
        return cls(columns, after.astype(np.float32), rates)

    def score(self, history: Histories) -> Floats:
        """(patients,) log-likelihood a visit: codes as Poisson events, 0 for a patient without visits.

        The rate of a code is half that given the codes of the visit before, and half that given whether the patient had
        it already.
        """
        visits, patient = history.visits.codes[:, self.columns], history.visits.patient
        row = np.repeat(np.arange(visits.shape[0]), np.diff(visits.indptr))
        first, _ = _first_and_later(visits, patient)
        known = np.where(first, self.rates[0][visits.indices], self.rates[1][visits.indices])
        gained = np.bincount(row[first], (self.rates[1] - self.rates[0])[visits.indices[first]], visits.shape[0])
        total = self.rates[0].sum() + _before(gained.astype(np.float64), patient)
        given, expected = self._given(visits, patient, known, total)
        logs = np.bincount(row, np.log((known + given) / 2), visits.shape[0]) - (total + expected) / 2
        count = np.bincount(patient, minlength=history.visits.patients)
        found: Floats = np.bincount(patient, logs, history.visits.patients) / np.maximum(count, 1)
        return found

    def _given(
        self, visits: sparse.csr_matrix, patient: NDArray[np.int64], known: Floats, total: Floats
    ) -> tuple[Floats, Floats]:
        """The rate of every code of every visit given the visit before, and the sum of those of all codes, by visit.

        Where there is no visit before, they are those that are `known` without.
        """
        number = np.diff(visits.indptr)
        has = np.append(False, patient[1:] == patient[:-1])[: len(patient)]
        has[1:] &= number[:-1] > 0
        given, expected, of_all = known.copy(), total.copy(), self.after.sum(axis=1)
        chosen = np.flatnonzero(has)
        for begin in range(0, len(chosen), CHUNK):
            rows = chosen[begin : begin + CHUNK]
            share = sparse.diags_array(1.0 / number[rows - 1]).astype(np.float32) @ visits[rows - 1].astype(np.float32)
            expected[rows] = share @ of_all
            rates = share @ self.after
            current = visits[rows]
            place = np.repeat(np.arange(len(rows)), number[rows])
            entry = np.repeat(visits.indptr[rows] - current.indptr[:-1], number[rows]) + np.arange(len(place))
            given[entry] = rates[place, current.indices]
        return given, expected


def _first_and_later(visits: sparse.csr_matrix, patient: NDArray[np.int64]) -> tuple[Flags, Floats]:
    """For every code of every visit whether the patient has it for the first time, and how many visits are to come."""
    row = np.repeat(np.arange(visits.shape[0]), np.diff(visits.indptr))
    _, at = np.unique(patient[row] * visits.shape[1] + visits.indices, return_index=True)
    first = np.zeros(len(row), bool)
    first[at] = True
    last = np.searchsorted(patient, patient, side="right") - 1
    return first, (last - np.arange(len(patient)))[row].astype(np.float64)


def _before(gained: Floats, patient: NDArray[np.int64]) -> Floats:
    """(visits,) what was gained at all earlier visits of the patient."""
    total = np.append(0.0, np.cumsum(gained))[:-1]
    begin = np.searchsorted(patient, patient)
    return np.asarray(total - total[begin])

"""Attacks with the synthetic data alone: copies are found, other patients are not; densities by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from ehrsim.evaluate import densities, membership
from ehrsim.evaluate.histories import Histories
from ehrsim.evaluate.patterns import Visits

pytest.importorskip("sklearn")
PATIENTS = 240


class Real(NamedTuple):
    members: pl.LazyFrame
    others: pl.LazyFrame
    reference: pl.LazyFrame


@pytest.fixture(scope="module")
def real(world) -> Real:
    return Real(*(world(PATIENTS, seed=seed) for seed in (1, 2, 3)))


def judged(real: Real, synthetic: pl.LazyFrame):
    return densities.membership_by_data(real.members, real.others, synthetic, real.reference)


def test_training_patients_handed_out_are_found(real) -> None:
    found = judged(real, real.members)
    assert found.auc.interval[0] >= 0.95
    assert found.detections[0].found.low > 0.9
    assert found.detections[0].accused.value < 0.05
    assert not found.passes
    assert {group.name for group in found.exposed} >= {"female", "male"}


def test_a_few_copies_among_others_are_found_where_few_are_to_be_accused(real, world) -> None:
    copied = real.members.filter(pl.col("subject_id") <= 40).with_columns(pl.col("subject_id") + 10_000)
    found = judged(real, pl.concat([world(PATIENTS, seed=4), copied]))
    assert found.detections[0].found.successes >= 35
    assert found.detections[0].accused.value < 0.05


def test_other_real_patients_handed_out_tell_nothing(real, world) -> None:
    areas = []
    for seed in range(4, 9):
        found = judged(real, world(PATIENTS, seed=seed))
        areas.append(found.auc)
        assert found.detections[0].found.low <= 0.02
    assert sum(area.interval[0] <= 0.5 <= area.interval[1] for area in areas) >= 4
    assert np.mean([area.value for area in areas]) == pytest.approx(0.5, abs=0.04)


def test_members_of_another_kind_are_seen_without_an_attack(real, world) -> None:
    older = real.others.with_columns(
        pl.when(pl.col("code") == "MEDS_BIRTH")
        .then(pl.col("time").dt.offset_by("-20y"))
        .otherwise(pl.col("time"))
        .alias("time")
    )
    found = densities.membership_by_data(real.members, older, world(PATIENTS, seed=4), real.reference)
    assert found.blind.interval[0] > 0.7


def test_outliers_are_groups_of_their_own(real, world) -> None:
    found = densities.scores(*real[:2], world(PATIENTS, seed=4), real.reference)
    outlier = found.groups["outlier"]
    assert set(outlier) == {"rare codes", "long record", "unlikely", ""}
    assert (outlier == "rare codes").sum() == PATIENTS * 2 // 20
    visits = found.blind["visits"]
    assert visits[outlier == "long record"].min() >= np.quantile(visits, 0.9)


def test_halves_that_are_references_of_each_other_make_all_of_them_targets(real, world) -> None:
    pairs = [(real.others, real.reference), (real.reference, real.others)]
    parts = [densities.scores(real.members, one, real.members, other) for one, other in pairs]
    found = densities.merged(parts, seed=1)
    assert found.member.sum() == PATIENTS and (~found.member).sum() == 2 * PATIENTS
    assert membership.infer(found.attacks, found.member).auc.interval[0] > 0.95
    # Scores with different references need not be alike in scale.
    moved = parts[1]._replace(attacks={name: 128 * score for name, score in parts[1].attacks.items()})
    again = densities.merged([parts[0], moved], seed=1)
    for name, score in found.attacks.items():
        np.testing.assert_allclose(again.attacks[name], score)
    fresh = world(PATIENTS, seed=4)
    null = densities.merged([densities.scores(real.members, one, fresh, other) for one, other in pairs])
    area = membership.infer(null.attacks, null.member).auc
    assert area.interval[0] < 0.5 < area.interval[1]


def history(*records: list[set[int]], codes: int) -> Histories:
    """Records as visits as sets of codes."""
    visits = [visit for record in records for visit in record]
    row = np.repeat(np.arange(len(visits)), [len(visit) for visit in visits])
    column = np.array([code for visit in visits for code in sorted(visit)])
    matrix = sparse.csr_matrix((np.ones(len(row)), (row, column)), (len(visits), codes))
    patient = np.repeat(np.arange(len(records)), [len(record) for record in records])
    start = np.arange(len(visits)).astype("datetime64[us]")
    person = pl.DataFrame({"subject_id": np.arange(len(records))})
    return Histories(
        person, Visits(matrix, patient, start, len(records)), pl.Series([str(c) for c in range(codes)]), pl.DataFrame()
    )


def test_the_likelihood_of_transitions_is_that_of_a_loop() -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    records = [
        [{int(code) for code in rng.integers(0, 6, rng.integers(1, 4))} for _ in range(rng.integers(1, 6))]
        for _ in range(12)
    ]
    told = history(*records, codes=6)
    model = densities.Transitions.fit(told)
    number = sum(len(record) for record in records)
    general = np.array([(sum(c in v for r in records for v in r) + 0.5) / (number + 1) for c in range(6)])
    pairs = [(a, b) for record in records for a, b in pairwise(record)]
    after = np.array(
        [
            [
                (sum(d in a and c in b for a, b in pairs) + 10 * general[c]) / (sum(d in a for a, _ in pairs) + 10)
                for c in range(6)
            ]
            for d in range(6)
        ]
    )
    had = [(set().union(*record[:place]), visit) for record in records for place, visit in enumerate(record)]
    rates = np.array(
        [
            [
                (sum(c in visit and (c in before) == known for before, visit in had) + 10 * general[c])
                / (sum((c in before) == known for before, _ in had) + 10)
                for c in range(6)
            ]
            for known in (False, True)
        ]
    )
    np.testing.assert_allclose(model.after, after, rtol=1e-6)
    np.testing.assert_allclose(model.rates, rates, rtol=1e-9)
    expected = []
    for record in records:
        nats = 0.0
        for place, visit in enumerate(record):
            before = set().union(*record[:place])
            known = np.array([rates[int(c in before), c] for c in range(6)])
            given = after[sorted(record[place - 1])].mean(axis=0) if place else known
            rate = (known + given) / 2
            nats += np.log(rate[sorted(visit)]).sum() - rate.sum()
        expected.append(nats / len(record))
    np.testing.assert_allclose(model.score(told), expected, rtol=1e-5)

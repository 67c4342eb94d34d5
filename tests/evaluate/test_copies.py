"""Copies, whole and in part, beside what held-out records show; distances are those of plain loops."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate import histories
from ehrsim.evaluate.copies import _longest_runs, copies
from ehrsim.evaluate.patterns import vocabulary

PATIENTS = 300


@pytest.fixture(scope="module")
def real(rich) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return rich(PATIENTS, seed=1), rich(PATIENTS, seed=2)


def test_whole_copies_are_found(real) -> None:
    members, held_out = real
    shifted = members.with_columns(pl.col("subject_id") + 10_000, pl.col("time").dt.offset_by("37d"))
    found = copies(members, held_out, shifted)
    assert found.exact.attack.value == 1
    assert found.exact.low > 0.9
    assert found.near["codes"].low > 0.9 and found.near["visits"].low > 0.9
    assert found.long_runs.low > 0.5
    assert found.shared_visits.synthetic == (1, 1, 1, 1)
    assert found.distances.closest.synthetic[3] == pytest.approx(0, abs=1e-6)
    assert found.distances.adversarial_accuracy_training < 0.05
    assert found.distances.nearer_to_training > 0.95
    assert found.repeated.attack.successes == 0


def test_other_patients_are_no_copies(real, rich) -> None:
    members, held_out = real
    found = copies(members, held_out, rich(PATIENTS, seed=3))
    for risk in (found.exact, found.long_runs, *found.near.values()):
        assert risk.low <= 0 <= risk.high
    assert found.distances.nearer_to_training == pytest.approx(0.5, abs=0.1)
    assert found.distances.privacy_loss == pytest.approx(0, abs=0.1)


def test_parts_of_records_are_found_though_no_record_is_a_copy(real) -> None:
    members, held_out = real
    # Every synthetic patient is a training patient but for one visit more.
    more = members.filter(pl.col("visit_id") == 1).with_columns(
        visit_id=pl.lit(99), time=pl.col("time").dt.offset_by("30y"), code=pl.lit("ICD10CM//Z00.0")
    )
    found = copies(members, held_out, pl.concat([members, more.cast(members.collect_schema())]))
    assert found.exact.attack.successes == 0
    assert found.long_runs.low > 0.5
    assert found.shared_visits.synthetic[0] > 0.5 > found.shared_visits.held_out[0]


def test_repeated_records_are_counted(real, rich) -> None:
    members, held_out = real
    synthetic = rich(100, seed=3)
    twice = pl.concat([synthetic, synthetic.with_columns(pl.col("subject_id") + 1_000)])
    found = copies(members, held_out, twice)
    assert found.repeated.attack.successes == found.repeated.attack.trials // 2


def test_the_longest_run_is_that_of_a_loop(world) -> None:
    tables = [world(40, seed=seed) for seed in (1, 2)]
    known = vocabulary(*tables)
    told = [histories.histories(events, known) for events in tables]
    records = []
    for history in told:
        keys = histories.visit_keys(history)
        records.append([keys[history.visits.patient == place].tolist() for place in range(history.patients)])

    def shared(left: list[int], right: list[int]) -> int:
        return max(
            length
            for length in range(len(left) + 1)
            if length == 0
            or any(
                left[a : a + length] == right[b : b + length]
                for a in range(len(left) - length + 1)
                for b in range(len(right) - length + 1)
            )
        )

    expected = [max(shared(own, other) for other in records[0]) for own in records[1] if len(own) >= 3]
    assert _longest_runs(told[1], told[0]).tolist() == expected
    assert len(set(expected)) > 1
    assert np.max(expected) > 1

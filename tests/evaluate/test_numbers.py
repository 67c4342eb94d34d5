"""Numbers of records counted by hand, and Wasserstein distances against those of SciPy."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ehrsim.evaluate.numbers import Sample, numbers, spread, wasserstein
from ehrsim.events import conform

EVENTS = [
    (7, None, "GENDER//female", None, None),
    (7, datetime(2000, 1, 1), "MEDS_BIRTH", None, None),
    (7, datetime(2010, 1, 1), "VISIT_START//IMP", 1, None),
    (7, datetime(2010, 1, 1), "A", 1, None),
    (7, datetime(2010, 1, 3), "B", 1, None),
    (7, datetime(2010, 1, 3, 6), "B", 1, None),
    (7, datetime(2010, 1, 3, 6), "B", 1, None),
    (7, datetime(2010, 1, 4), "VISIT_END//IMP", 1, None),
    (7, datetime(2010, 1, 11), "VISIT_START//AMB", 2, datetime(2010, 1, 11, 12)),
    (7, datetime(2010, 1, 11), "A", 2, None),
    (9, datetime(2015, 1, 1), "A", None, None),
    (11, None, "GENDER//male", None, None),
]


def counted(rows) -> dict[str, Sample]:
    columns = ["subject_id", "time", "code", "visit_id", "end_time"]
    types = {"time": pl.Datetime("us"), "visit_id": pl.Int64, "end_time": pl.Datetime("us")}
    return numbers(conform(pl.DataFrame(rows, schema=columns, orient="row", schema_overrides=types)).lazy())


def test_numbers_are_those_counted_by_hand() -> None:
    found = counted(EVENTS)
    told = {name: dict(zip(["values", "patient"], map(list, one), strict=True)) for name, one in found.items()}
    assert told["visits_per_patient"] == {"values": [2, 1, 0], "patient": [0, 1, 2]}
    assert told["codes_per_visit"] == {"values": [2, 1, 1], "patient": [0, 0, 1]}
    assert told["log_gap"] == {"values": [pytest.approx(np.log(11))], "patient": [0]}
    assert told["days_of_stay"] == {"values": [3, 0.5], "patient": [0, 0]}
    into = told["log_hours_into_stay"]
    assert sorted(into["values"]) == pytest.approx(np.log1p([0, 0, 48, 54]))
    assert set(into["patient"]) == {0}, "an event outside of visits is in no stay"
    assert told["log_hours_to_same_code"] == {"values": [pytest.approx(np.log(7))], "patient": [0]}, "at other moments"
    assert sorted(told["age_at_event"]["values"])[0] == pytest.approx(10, abs=0.01)
    assert set(told["age_at_event"]["patient"]) == {0}, "nobody else has a birth"
    assert told["age_at_end"] == {"values": [pytest.approx(10.03, abs=0.01)], "patient": [0]}


def test_no_events_give_empty_samples() -> None:
    assert all(not len(one.values) for one in counted([]).values())


some_values = st.lists(st.integers(-5, 5), min_size=2, max_size=12)


@settings(max_examples=60, deadline=None)
@given(some_values, some_values, st.integers(0, 1000))
def test_the_distance_is_that_of_scipy_with_weights(first, second, seed) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    samples = [Sample(np.array(values, float), rng.integers(0, 3, len(values))) for values in (first, second)]
    weights = [np.ones((2, 3)) + rng.integers(0, 3, (2, 3)) for _ in range(2)]
    found = wasserstein(*samples, *weights)
    for row in range(2):
        each = [weight[row][sample.patient] for sample, weight in zip(samples, weights, strict=True)]
        expected = stats.wasserstein_distance(samples[0].values, samples[1].values, *each)
        assert found[row] == pytest.approx(expected / spread(samples[0].values), abs=1e-12)


def test_a_shift_is_as_far_as_it_shifts() -> None:
    real = Sample(np.arange(101.0), np.zeros(101, int))
    moved = Sample(real.values + 25, real.patient)
    assert wasserstein(real, moved, np.ones((1, 1)), np.ones((1, 1))) == pytest.approx([0.5])


def test_nothing_to_compare_gives_no_distance() -> None:
    real, none = Sample(np.arange(3.0), np.zeros(3, int)), Sample(np.zeros(0), np.zeros(0, int))
    once = np.ones((2, 1))
    assert np.isnan(wasserstein(real, none, once, once)).all()
    assert np.isnan(wasserstein(real, real, once, np.zeros((2, 1)))).all()


def test_the_spread_is_never_nought() -> None:
    assert spread(np.array([0.0, 1, 2, 3, 4])) == 2
    assert spread(np.array([0.0] * 9 + [10])) == pytest.approx(3)
    assert spread(np.ones(4)) == 1

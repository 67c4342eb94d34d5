"""Measured values: which, in what order, and how they go together."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate.measurements import (
    Pairs,
    by_code,
    commonest,
    consecutive,
    correlation_gaps,
    correlations,
    ranked,
    same_visit,
    values,
)
from ehrsim.events import conform

ROWS = [
    (5, datetime(2000, 1, 1), "A", 1.0, "kg", 1),
    (5, datetime(2000, 1, 1), "B", 7.0, None, 1),
    (5, datetime(2000, 2, 1), "A", 3.0, "kg", 2),
    (5, datetime(2000, 2, 1), "A", 5.0, "kg", 2),
    (5, datetime(2000, 2, 1), "B", 9.0, None, 2),
    (6, datetime(2001, 1, 1), "A", 2.0, "kg", 1),
    (6, datetime(2001, 1, 2), "A", 99.0, "[lb_av]", 2),
    (6, datetime(2001, 1, 3), "A", float("nan"), "kg", 3),
    (6, datetime(2001, 1, 4), "C", 1.0, None, 4),
    (6, datetime(2001, 1, 5), "C", 1.0, None, 5),
]


@pytest.fixture(scope="module")
def events() -> pl.LazyFrame:
    columns = ["subject_id", "time", "code", "numeric_value", "unit", "visit_id"]
    return conform(pl.DataFrame(ROWS, schema=columns, orient="row")).lazy()


def test_codes_are_taken_in_their_commonest_unit_if_their_values_differ(events) -> None:
    assert commonest(events).rows() == [("A", "kg", 4), ("B", None, 2)]
    assert commonest(events, 1)["code"].to_list() == ["A"]


def test_values_keep_the_order_of_time_and_table(events) -> None:
    table = values(events, commonest(events))
    assert by_code(table, 0).values.tolist() == [1, 3, 5, 2]
    assert by_code(table, 0).patient.tolist() == [0, 0, 0, 1]
    assert by_code(table, 1).values.tolist() == [7, 9]


def test_consecutive_values_are_of_one_patient_and_code(events) -> None:
    pairs = consecutive(values(events, commonest(events)), 2, 2)
    assert pairs.number.tolist() == [2, 1]
    assert pairs.moments.toarray()[0, :3].tolist() == [2, 0.5 + 2.5, 2.5 + 4.5], "1 and 3, 3 and 5, less a half"
    assert not pairs.moments.toarray()[1].any()


def test_values_of_a_visit_are_averaged_and_paired_once(events) -> None:
    pairs = same_visit(values(events, commonest(events)), 2, 2)
    assert pairs.number.tolist() == [0, 2, 0, 0]
    count, first, second, *_ = pairs.moments.toarray()[0, 6:12]
    assert (count, first, second) == (2, (1 + 4) - 1, (7 + 9) - 1)


def table_of(patient, number, value) -> pl.DataFrame:
    size = len(value)
    day = pl.Series(np.arange(size)).cast(pl.Int32).cast(pl.Date)
    columns = {"patient": patient, "number": number, "visit_id": [None] * size, "value": value}
    return pl.DataFrame(columns, schema_overrides={"visit_id": pl.Int64}).with_columns(day=day)


def test_ranks_are_shares_of_the_reference_below() -> None:
    reference = table_of([0] * 4, [0] * 4, [1.0, 2, 2, 3])
    other = table_of([0] * 5, [0, 0, 0, 0, 1], [0.0, 1, 2, 2.5, 7])
    assert ranked(other, reference)["value"].to_list() == [0, 0.125, 0.5, 0.75, 0.5]


def test_correlations_are_those_of_numpy_whatever_patients_weigh() -> None:
    rng = np.random.Generator(np.random.Philox(key=2))
    patient = np.repeat(np.arange(50), 4)
    value = rng.normal(size=50).repeat(4) + rng.normal(size=200)
    pairs = consecutive(table_of(patient, np.zeros(200, int), value), 50, 2)
    follow = patient[1:] == patient[:-1]
    x, y, owner = value[:-1][follow], value[1:][follow], patient[1:][follow]
    weights = np.vstack([np.ones(50), rng.integers(0, 3, 50)])
    found = correlations(pairs, weights)
    assert found.shape == (2, 2)
    for row, weight in enumerate(weights):
        again = np.repeat(np.arange(len(x)), weight[owner].astype(int))
        assert found[row, 0] == pytest.approx(np.corrcoef(x[again], y[again])[0, 1])
    assert (found[:, 1] == 0).all(), "nothing goes together where there is nothing"


def test_a_constant_goes_with_nothing() -> None:
    pairs = consecutive(table_of(np.zeros(9, int), np.zeros(9, int), np.full(9, 0.1)), 1, 1)
    assert correlations(pairs, np.ones((1, 1))).tolist() == [[0]]


def test_only_groups_of_enough_real_pairs_are_compared() -> None:
    rising = np.tile(np.arange(60.0), 2)
    real = consecutive(table_of(np.zeros(120, int), np.repeat([0, 1], 60), rising), 1, 2)
    falling = consecutive(table_of(np.zeros(9, int), np.zeros(9, int), np.tile([0.0, 1.0], 5)[:9]), 1, 2)
    once = np.ones((1, 1))
    assert correlation_gaps(real, falling, once, once) == pytest.approx(np.array([[2.0, 1.0]]))
    fewer = Pairs(real.moments, np.array([50, 49]))
    assert correlation_gaps(fewer, falling, once, once) == pytest.approx(np.array([[2.0]]))

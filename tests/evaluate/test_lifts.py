"""What comes within a year of what, against counts by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ehrsim import events
from ehrsim.evaluate.lifts import commonest, followed, lift_gaps, log_lifts
from ehrsim.evaluate.resampling import once


def cohort(*patients: list[tuple[int, str]]) -> pl.LazyFrame:
    """Each patient a list of visits: the day and one-letter codes."""
    rows = [
        {"subject_id": subject, "time": datetime(2000, 1, 1) + timedelta(days=day), "code": code, "visit_id": visit}
        for subject, visits in enumerate(patients, 1)
        for visit, (day, codes) in enumerate(visits)
        for code in codes
    ]
    return events.sort(events.conform(pl.DataFrame(rows, infer_schema_length=None)).lazy())


CODES = pl.Series("code", ["A", "B", "C"])
REAL = cohort([(0, "A"), (100, "C"), (300, "B")], [(0, "A"), (500, "B")], [(0, "B"), (10, "A"), (20, "AB")])


def test_what_follows_within_a_year_counts_once_a_first_visit() -> None:
    counted = followed(REAL, CODES, ["A", "B"])
    pairs = counted.pairs.reshape(3, 2, 2)
    assert pairs[0].tolist() == [[0, 1], [0, 0]], "B after 300 days, over another visit"
    assert pairs[1].tolist() == [[0, 0], [0, 0]], "500 days are too long"
    assert pairs[2].tolist() == [[1, 1], [1, 1]]
    assert counted.first.tolist() == [[1, 1], [1, 1], [1, 1]]
    assert counted.after_any.tolist() == [[0, 2], [0, 0], [2, 2]]
    assert counted.visits.tolist() == [3, 2, 3]


def test_lifts_are_shares_over_shares() -> None:
    counted = followed(REAL, CODES, ["A", "B"])
    expected = np.log((2 + 0.5) / (3 + 1) / ((4 + 0.5) / (8 + 1)))
    assert log_lifts(counted, once(3))[0].reshape(2, 2)[0, 1] == pytest.approx(expected)


def test_a_cohort_is_no_distance_from_itself_and_some_from_another(world, shuffled) -> None:
    real, other = world(300, seed=1), shuffled(world(300, seed=1))
    codes = real.filter(pl.col("visit_id").is_not_null(), ~pl.col("code").str.starts_with("VISIT_"))
    names = codes.select(pl.col("code").unique().sort()).collect()["code"]
    chosen = commonest(real, names)
    truth, same, apart = (followed(table, names, chosen) for table in (real, real, other))
    assert lift_gaps(truth, same, once(300), once(300))[0] == 0
    assert lift_gaps(truth, apart, once(300), once(300))[0] > 0.2

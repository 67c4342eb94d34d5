"""Histories hold what was known before the moment, and nothing of what came after."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate.predictors import MOST_VISITS, Plan, features, known, plan, sequences
from ehrsim.evaluate.tasks import Task, calendar, examples
from ehrsim.events import conform

DEATH = Task("death", "death", 365)
SUGAR, COLD = "LOINC//4548-4", "ICD10CM//J06.9"


def told(events: pl.LazyFrame, asked: pl.DataFrame, planned: Plan):
    found = known(events, planned)
    return features(found, asked, planned), sequences(found, asked, planned)


def read(visits) -> list:
    """What a network reads of each patient."""
    return [[row.tolist() for row in (visits.visits[rows].toarray(), visits.numbers[rows])] for rows in visits.rows]


def test_what_comes_after_the_moment_cannot_be_seen(world) -> None:
    events = world(80, seed=1)
    asked = examples(events, calendar(events), DEATH)
    planned = plan(events)
    moments = asked.lazy().select("subject_id", "moment")
    moment = events.join(moments, on="subject_id", how="left", maintain_order="left").collect()
    later = (moment["time"] >= moment["moment"]).fill_null(False)
    assert later.sum() > 100, "there is something to alter"
    frame = events.collect()
    altered = frame.with_columns(
        code=pl.when(later & (pl.col("code") != "MEDS_BIRTH")).then(pl.lit("ICD10CM//I21.9")).otherwise("code"),
        numeric_value=pl.when(later).then(pl.lit(99, pl.Float32)).otherwise("numeric_value"),
    )
    more = altered.filter(later).with_columns(code=pl.lit(COLD), visit_id=pl.lit(None, pl.Int64))
    kept = frame.filter(~later)
    for other in (altered, pl.concat([altered, more]).sort("subject_id", "time", nulls_last=False), kept):
        for before, after in zip(told(events, asked, planned), told(other.lazy(), asked, planned), strict=True):
            if hasattr(before, "matrix"):
                np.testing.assert_array_equal(before.matrix, after.matrix)
            else:
                assert read(before) == read(after)
                np.testing.assert_array_equal(before.static, after.static)


ROWS = [
    (None, "GENDER//male", None, None, None),
    (None, "RACE//2106-3", None, None, None),
    (datetime(1960, 1, 1), "MEDS_BIRTH", None, None, None),
    (datetime(2000, 1, 1), "VISIT_START//AMB", None, None, 1),
    (datetime(2000, 1, 1), COLD, None, None, 1),
    (datetime(2000, 1, 1), SUGAR, 5.0, "%", 1),
    (datetime(2009, 7, 1), "VISIT_START//IMP", None, None, 2),
    (datetime(2009, 7, 1), COLD, None, None, 2),
    (datetime(2009, 7, 2), SUGAR, 6.0, "%", 2),
    (datetime(2012, 1, 1), "VISIT_START//AMB", None, None, 3),
    (datetime(2005, 1, 1), "ICD10CM//I10", None, None, 3),  # told of in 2012
]


@pytest.fixture(scope="module")
def record() -> pl.LazyFrame:
    rows = [(1, *row) for row in ROWS]
    columns = ["subject_id", "time", "code", "numeric_value", "unit", "visit_id"]
    return conform(pl.DataFrame(rows, schema=columns, orient="row")).lazy()


def test_features_are_those_counted_by_hand(record) -> None:
    planned = Plan(
        [COLD, "ICD10CM//I10"],
        pl.DataFrame({"code": [SUGAR], "unit": ["%"], "mean": [5.0], "deviation": [2.0]}),
        ["RACE//2106-3"],
    )
    asked = pl.DataFrame({"subject_id": [1], "moment": [datetime(2010, 1, 1)]}).cast({"moment": pl.Datetime("us")})
    found, visits = told(record, asked, planned)
    row = dict(zip(found.names, found.matrix[0], strict=True))
    assert row["age"] == pytest.approx(50, abs=0.01) and row["male"] == 1 and row["RACE//2106-3"] == 1
    assert row["years of record"] == pytest.approx(10, abs=0.01)
    assert np.expm1([row["visits, ever"], row["visits, a year"], row["visits, a quarter"]]) == pytest.approx([2, 1, 0])
    assert row["stays in hospital, a year"] == pytest.approx(np.log(2)) and row["emergencies, ever"] == 0
    assert np.expm1([row[f"{COLD}, ever"], row[f"{COLD}, a year"]]) == pytest.approx([2, 1])
    assert row[f"{COLD}, freshness"] == pytest.approx(np.exp(-184 / 365.25))
    assert row["ICD10CM//I10, ever"] == 0, "dated 2005, but not told before 2012"
    assert row[f"{SUGAR}, last"] == 6 and row[f"{SUGAR}, change"] == 1
    assert visits.visits[visits.rows[0, :2]].toarray().tolist() == [[1, 0, 0], [1, 0, 0.5]]
    assert (visits.rows[0, 2:] == 2).all() and visits.rows.shape[1] == MOST_VISITS
    assert visits.numbers[1, 0] == pytest.approx(np.log1p(3469) / 4, rel=1e-4), "days between the visits"
    assert visits.numbers[1, 2] == pytest.approx(49.5 / 50, abs=1e-3)


def test_what_is_not_known_is_not_a_number(record) -> None:
    planned = plan(record)
    asked = pl.DataFrame({"subject_id": [1], "moment": [datetime(1990, 1, 1)]}).cast({"moment": pl.Datetime("us")})
    bare = record.filter(pl.col("code") != "MEDS_BIRTH")
    found, visits = told(bare, asked, planned)
    row = dict(zip(found.names, found.matrix[0], strict=True))
    assert np.isnan(row["age"]) and np.isnan(row[f"{SUGAR}, last"]) and row["visits, ever"] == 0
    assert np.isfinite(visits.static).all() and np.isfinite(visits.numbers).all()
    assert (visits.rows == visits.visits.shape[0] - 1).all(), "nothing but the empty visit"

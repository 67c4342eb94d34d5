"""Visits, ages, sexes and quantiles of a table small enough to count by hand."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from ehrsim.evaluate.records import codes_per_visit, records, value_quantiles
from ehrsim.events import conform

EVENTS = [
    # subject, time, code, value, unit, visit
    (1, None, "GENDER//female", None, None, None),
    (1, datetime(2000, 1, 1), "MEDS_BIRTH", None, None, None),
    (1, datetime(2010, 1, 1, 9), "VISIT_START//AMB", None, None, 1),
    (1, datetime(2010, 1, 1, 9), "VISIT_TYPE//SNOMED//1", None, None, 1),
    (1, datetime(2010, 1, 1, 9), "ICD10CM//I10", None, None, 1),
    (1, datetime(2010, 1, 1, 9), "LOINC//1", 10.0, "kg", 1),
    (1, datetime(2010, 1, 1, 10), "LOINC//1", 20.0, "kg", 1),
    (1, datetime(2010, 1, 1, 10), "VISIT_END//AMB", None, None, 1),
    (1, datetime(2019, 12, 31, 10), "MEDS_DEATH", None, None, None),
    (2, datetime(2000, 5, 1, 8), "LOINC//1", 30.0, "kg", None),
    (2, datetime(2000, 5, 1, 20), "LOINC//2", 1.0, None, None),
    (2, datetime(2000, 5, 2, 8), "LOINC//1", 66.0, "[lb_av]", None),
    (3, None, "GENDER//male", None, None, None),
]


@pytest.fixture
def events() -> pl.LazyFrame:
    columns = ["subject_id", "time", "code", "numeric_value", "unit", "visit_id"]
    return conform(pl.DataFrame(EVENTS, schema=columns, orient="row")).lazy()


def test_a_row_a_patient_with_age_sex_death_and_visits(events: pl.LazyFrame) -> None:
    first, second, third = records(events).iter_rows(named=True)
    assert (first["sex"], first["died"], first["visits"]) == ("female", True, 1)
    assert first["age"] == pytest.approx(20.0, abs=0.01)
    assert second == {"subject_id": 2, "sex": None, "age": None, "died": False, "visits": 2}
    assert third == {"subject_id": 3, "sex": "male", "age": None, "died": False, "visits": 0}


def test_a_visit_is_an_id_or_a_day_and_counts_distinct_codes_without_its_marks(events: pl.LazyFrame) -> None:
    # Visit 1 has I10 and LOINC 1; the first of May has LOINC 1 and 2; the second has LOINC 1.
    assert dict(codes_per_visit(events).iter_rows()) == {1: 1, 2: 2}


def test_quantiles_are_of_the_most_common_unit(events: pl.LazyFrame) -> None:
    rows = {row["code"]: row for row in value_quantiles(events).iter_rows(named=True)}
    assert set(rows) == {"LOINC//1", "LOINC//2"}
    weight = rows["LOINC//1"]
    assert (weight["unit"], weight["values"], weight["patients"]) == ("kg", 3, 2)
    assert (weight["q25"], weight["q50"], weight["q75"]) == (15.0, 20.0, 25.0)
    assert rows["LOINC//2"]["unit"] is None


def test_infinite_values_are_no_values() -> None:
    rows = [(1, datetime(2000, 1, 1), "A", value) for value in (1.0, 3.0, float("nan"), float("inf"))]
    frame = conform(pl.DataFrame(rows, schema=["subject_id", "time", "code", "numeric_value"], orient="row"))
    assert value_quantiles(frame.lazy()).select("values", "q50").row(0) == (2, 2.0)


def test_no_events_give_empty_tables() -> None:
    empty = conform(pl.DataFrame(schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String})).lazy()
    assert records(empty).is_empty()
    assert codes_per_visit(empty).is_empty()
    assert value_quantiles(empty).is_empty()

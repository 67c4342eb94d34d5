"""Who belongs to which group."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from ehrsim.evaluate.demographics import attributes, groups
from ehrsim.events import conform

ROWS = [
    (1, None, "GENDER//female"),
    (1, None, "RACE//2106-3"),
    (1, None, "ETHNICITY//2180-8"),  # Puerto Rican
    (1, datetime(1950, 1, 1), "MEDS_BIRTH"),
    (1, datetime(2015, 1, 2), "ICD10CM//I10"),
    (2, None, "GENDER//male"),
    (2, None, "RACE//2106-3"),
    (2, None, "ETHNICITY//2186-5"),
    (2, datetime(2000, 1, 1), "MEDS_BIRTH"),
    (2, datetime(2015, 1, 1), "ICD10CM//I10"),
    (3, None, "RACE//Hispanic"),
    (3, datetime(2015, 1, 1), "ICD10CM//I10"),
]


@pytest.fixture(scope="module")
def table() -> pl.LazyFrame:
    return conform(pl.DataFrame(ROWS, schema=["subject_id", "time", "code"], orient="row")).lazy()


def test_attributes_are_sex_age_and_the_combined_race_and_ethnicity(table) -> None:
    found = attributes(table)
    assert found.columns == ["subject_id", "sex", "age", "race and ethnicity"]
    assert found.rows() == [
        (1, "female", "65 to 79", "Hispanic or Latino"),
        (2, "male", "0 to 17", "White"),
        (3, None, None, "Hispanic or Latino"),
    ]


def test_the_age_is_that_when_asked(table) -> None:
    asked = pl.DataFrame({"subject_id": [2, 1], "moment": [datetime(2019, 1, 1), datetime(1950, 6, 1)]})
    assert attributes(table, asked)["age"].to_list() == ["18 to 39", "0 to 17"]


def test_groups_meet(table) -> None:
    found = {(one.attribute, one.name): one.member.tolist() for one in groups(attributes(table))}
    assert found["sex", "female"] == [True, False, False]
    assert found["race and ethnicity", "Hispanic or Latino"] == [True, False, True]
    assert found["sex × race and ethnicity", "male, White"] == [False, True, False]
    assert found["sex × age × race and ethnicity", "female, 65 to 79, Hispanic or Latino"] == [True, False, False]
    assert {one.name for one in groups(attributes(table), intersections=False, least=2)} == {"Hispanic or Latino"}

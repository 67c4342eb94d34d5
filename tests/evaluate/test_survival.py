"""Kaplan-Meier curves and the areas between them against hand-computed values."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate.survival import (
    FollowUp,
    births_known,
    chronic,
    horizon,
    integrated_errors,
    kaplan_meier,
    lives,
    to_death,
    to_first,
)
from ehrsim.events import conform


def followed(*times: str) -> FollowUp:
    """Times of outcomes, or with a plus of the end of follow-up without one."""
    return FollowUp(
        np.array([float(time.rstrip("+")) for time in times]), np.array([not time.endswith("+") for time in times])
    )


def test_the_curve_is_the_product_limit_estimate() -> None:
    # Followed until 1: 6 patients; 3: 4, of whom two have it and one leaves just then; 5: 1.
    curve = kaplan_meier(followed("1", "2+", "3", "3", "3+", "5"))
    assert curve.times.tolist() == [1, 3, 5]
    assert curve.survival == pytest.approx([5 / 6, 5 / 6 * 2 / 4, 0])


def test_the_curve_of_a_textbook() -> None:
    """Remission of 21 patients on 6-mercaptopurine (Freireich et al. 1963, Blood 21:699), in weeks."""
    happened, left = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    curve = kaplan_meier(followed(*map(str, happened), *(f"{time}+" for time in left)))
    assert curve.times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert curve.survival == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)


def test_the_area_between_curves_is_a_mean_over_time() -> None:
    # S_R: 1 until 1, then 0.5 until 3, then 0. S_S: 1 until 2, then 0. Apart by 0.5 from 1 to 2 and from 2 to 3.
    once = np.ones((1, 2))
    real, other = followed("1", "3"), followed("2", "2")
    assert integrated_errors(real, other, once, once, horizon=4.0) == pytest.approx([1 / 4])
    assert integrated_errors(real, other, once, once, horizon=2.0) == pytest.approx([0.5 / 2])
    assert integrated_errors(real, real, once, once, horizon=4.0) == pytest.approx([0])


def test_patients_count_as_often_as_weighed() -> None:
    real, other = followed("1", "3", "9+"), followed("2", "2", "1")
    weights = np.array([[1.0, 0, 0], [2, 0, 0]]), np.array([[1.0, 1, 0], [0, 3, 0]])
    alone = integrated_errors(followed("1"), followed("2"), np.ones((1, 1)), np.ones((1, 1)), horizon=4.0)
    assert integrated_errors(real, other, *weights, horizon=4.0) == pytest.approx([alone[0], alone[0]])


def test_a_patient_about_whom_nothing_is_dated_is_left_out() -> None:
    curve = kaplan_meier(FollowUp(np.array([np.nan, 1.0, 2.0]), np.array([False, True, False])))
    assert curve.survival == pytest.approx([0.5])


ROWS = [
    (1, datetime(2000, 1, 1), "MEDS_BIRTH", None),
    (1, datetime(2010, 1, 1), "ICD10CM//I10", None),
    (1, datetime(2010, 1, 1), "ICD10CM//J06.9", datetime(2010, 1, 9)),
    (1, datetime(2015, 1, 1), "MEDS_DEATH", None),
    (2, datetime(2000, 1, 1), "MEDS_BIRTH", None),
    (2, datetime(2005, 1, 1), "LOINC//1", None),
    (2, datetime(2008, 1, 1), "ICD10CM//I10", None),
    (2, datetime(2020, 1, 1), "OBSERVATION_END", None),
    (3, datetime(2004, 1, 1), "LOINC//1", None),
    (3, datetime(2006, 1, 1), "LOINC//1", None),
    (4, None, "GENDER//male", None),
]


@pytest.fixture(scope="module")
def table() -> pl.LazyFrame:
    return conform(pl.DataFrame(ROWS, schema=["subject_id", "time", "code", "end_time"], orient="row")).lazy()


def test_lives_are_told_from_birth_or_from_the_first_visit(table) -> None:
    from_birth = to_death(lives(table, from_birth=True))
    assert from_birth.time == pytest.approx([15, 20, np.nan, np.nan], abs=0.01, nan_ok=True)
    assert from_birth.happened.tolist() == [True, False, False, False]
    assert lives(table, from_birth=False)["followed"].to_list()[:3] == pytest.approx([5, 15, 2], abs=0.01)


def test_time_to_a_first_occurrence_ends_with_it(table) -> None:
    onset = to_first(table, lives(table, from_birth=False), "ICD10CM//I10")
    assert onset.time == pytest.approx([0, 3, 2, np.nan], abs=0.01, nan_ok=True)
    assert onset.happened.tolist() == [True, True, False, False]


def test_a_tenth_is_followed_to_the_horizon() -> None:
    assert horizon(pl.DataFrame({"followed": [*map(float, range(11)), None]})) == pytest.approx(9)
    assert horizon(pl.DataFrame({"followed": [None]}, schema={"followed": pl.Float64})) == 0


def test_births_must_be_known_of_most(table) -> None:
    assert not births_known(table)
    assert births_known(table.filter(pl.col("subject_id") <= 2))


def test_chronic_conditions_are_those_whose_entries_do_not_end(table) -> None:
    many = [table.with_columns(pl.col("subject_id") + 10 * copy) for copy in range(10)]
    assert chronic(pl.concat(many)) == ["ICD10CM//I10"], "neither the infection, which ends, nor the measurement"
    assert chronic(table) == [], "two patients are too few"

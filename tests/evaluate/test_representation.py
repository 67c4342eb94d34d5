"""Disparities and corrections by hand."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ehrsim.errors import UsageError
from ehrsim.evaluate.representation import against_target, benjamini_hochberg, holm, representation


def test_corrections_by_hand() -> None:
    p = np.array([0.04, 0.01, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert holm(np.zeros(0)).shape == benjamini_hochberg(np.zeros(0)).shape == (0,)


def people(women: int, men: int) -> pl.DataFrame:
    sexes = ["female"] * women + ["male"] * men + [None]
    blank = pl.lit(None, pl.String)
    return pl.DataFrame({"subject_id": range(len(sexes)), "sex": sexes}).with_columns(
        blank.alias("age"), blank.alias("race and ethnicity")
    )


def test_the_log_disparity_by_hand() -> None:
    found = representation(people(200, 600), people(400, 600))
    assert [(one.group, one.patients, one.flagged) for one in found] == [("female", 200, True), ("male", 600, True)]
    cells = np.array([200, 600, 400, 600]) + 0.5
    value = math.log(cells[0] / cells[1] * cells[3] / cells[2])
    error = math.sqrt((1 / cells).sum())
    assert found[0].log_disparity == pytest.approx(value)
    assert found[0].interval == pytest.approx((value - 1.959964 * error, value + 1.959964 * error))
    assert found[0].share == 0.25 and found[0].target == 0.4
    assert found[1].log_disparity == pytest.approx(-value)


def test_a_group_that_is_gone_is_flagged() -> None:
    gone = representation(people(0, 300), people(150, 150))
    assert [(one.group, one.patients, one.flagged) for one in gone] == [("female", 0, True), ("male", 300, True)]


def test_a_small_difference_is_no_alarm_however_certain() -> None:
    found = representation(people(510_000, 490_000), people(500_000, 500_000))
    assert found[0].corrected_p < 1e-6 and not found[0].flagged


def test_a_target_of_the_user() -> None:
    found = against_target(people(200, 600), {"sex": {"female": 0.5, "male": 0.5}})
    assert found[0].target == 0.5 and found[0].log_disparity == pytest.approx(math.log(200.5 / 600.5))
    assert all(one.flagged for one in found)
    assert not any(one.flagged for one in against_target(people(200, 600), {"sex": {"female": 0.26, "male": 0.74}}))


@pytest.mark.parametrize(
    "target",
    [{"gender": {"female": 0.5, "male": 0.5}}, {"sex": {"female": 0.5, "male": 0.6}}, {"sex": {"female": 1.0}}],
)
def test_targets_that_make_no_sense_are_refused(target) -> None:
    with pytest.raises(UsageError, match="target"):
        against_target(people(1, 1), target)

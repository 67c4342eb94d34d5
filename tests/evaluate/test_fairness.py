"""Corrections by hand, groups that are missing, and groups that fare worse."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ehrsim.errors import UsageError
from ehrsim.evaluate.fairness import (
    Cohorts,
    against_target,
    benjamini_hochberg,
    fairness,
    holm,
    representation,
    utility_gaps,
)
from ehrsim.evaluate.subgroups import attributes
from ehrsim.evaluate.tasks import Task
from ehrsim.evaluate.utility import Scored

PATIENTS, DRAWS = 400, 40


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


@pytest.fixture(scope="module")
def cohorts(world) -> Cohorts:
    return Cohorts(world(PATIENTS, seed=1), world(PATIENTS, seed=2), world(PATIENTS, seed=3))


def test_another_real_sample_has_no_disparity(cohorts) -> None:
    found = fairness(cohorts, draws=DRAWS)
    assert len(found.representation) >= 4 and len(found.prevalence) >= 4 and len(found.survival) >= 4
    assert not any(one.flagged for part in (found.representation, found.prevalence, found.survival) for one in part)
    assert found.codes == [] and found.codes_compared > 20 and found.absent == []


def test_missing_women_are_seen_by_representation_alone(cohorts) -> None:
    sexes = attributes(cohorts.simulated)
    women = sexes.filter(sex="female")["subject_id"]
    found = fairness(
        cohorts._replace(simulated=cohorts.simulated.filter(~pl.col("subject_id").is_in(women.implode()))), draws=DRAWS
    )
    flagged = {(one.attribute, one.group) for one in found.representation if one.flagged}
    assert {("sex", "female"), ("sex", "male")} <= flagged
    assert not {one for one in flagged if "sex" not in one[0]}, "ages are as they were"
    assert "sex: female" in found.absent
    assert {one.group for one in found.prevalence if one.attribute == "sex"} == {"male"}
    assert not any(one.flagged for part in (found.prevalence, found.survival) for one in part)
    assert found.codes == []


def test_what_is_wrong_with_women_is_told_of_women(cohorts) -> None:
    sexes = attributes(cohorts.simulated)
    women = pl.col("subject_id").is_in(sexes.filter(sex="female")["subject_id"].implode())
    changed = cohorts.simulated.with_columns(
        code=pl.when(women & (pl.col("code") == "ICD10CM//J06.9")).then(pl.lit("ICD10CM//I10")).otherwise("code")
    )
    found = fairness(cohorts._replace(simulated=changed), draws=DRAWS)
    flagged = {one.group for one in found.prevalence if one.flagged and one.attribute == "sex"}
    assert flagged == {"female"}
    assert {one.group for one in found.codes if one.attribute == "sex"} == {"female"}
    assert {one.code for one in found.codes if one.attribute == "sex"} == {"ICD10CM//J06.9", "ICD10CM//I10"}
    assert not any(one.flagged for one in found.representation)


def scored(held_out: pl.LazyFrame, *, blind: str | None) -> Scored:
    """Risks of two models of the same skill; that of simulated patients sees nothing in one sex."""
    folk = attributes(held_out)
    rng = np.random.Generator(np.random.Philox(key=9))
    label = rng.random(folk.height) < 0.4
    real = 1 / (1 + np.exp(-(2.0 * label + rng.normal(size=len(label)) - 1)))
    other = 1 / (1 + np.exp(-(2.0 * label + rng.normal(size=len(label)) - 1)))
    if blind:
        hidden = (folk["sex"] == blind).to_numpy()
        other[hidden] = rng.random(hidden.sum())
    last = held_out.group_by("subject_id").agg(moment=pl.col("time").max()).sort("subject_id").collect()
    asked = last.with_columns(label=pl.Series(label))
    size = [len(label), int(label.sum())]
    return Scored(Task("t", "death", 365), "model", asked, [size] * 3, other, real, np.stack([real, real]))


def test_a_model_that_is_blind_to_women_costs_women_more(cohorts) -> None:
    fair = utility_gaps([scored(cohorts.held_out, blind=None)], cohorts.held_out, draws=200)
    assert fair and not any(one.flagged for one in fair)
    found = {one.group: one for one in utility_gaps([scored(cohorts.held_out, blind="female")], cohorts.held_out)}
    women, men = found["female"], found["male"]
    assert women.flagged and women.gap < -0.1 and women.gap_interval[1] < 0
    assert women.true_positive_rate_difference < -0.1 and women.true_positive_rate_interval[1] < 0
    assert not men.flagged and men.gap > 0
    assert women.patients + men.patients == PATIENTS

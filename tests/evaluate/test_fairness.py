"""Groups that are missing, and groups that fare worse."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate.demographics import attributes
from ehrsim.evaluate.fairness import Cohorts, fairness, utility_gaps
from ehrsim.evaluate.tasks import Task
from ehrsim.evaluate.utility import Scored

PATIENTS, DRAWS = 400, 40


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


def test_what_chance_in_training_explains_is_no_alarm(cohorts) -> None:
    """The same loss of women, where models of either half of the real patients differ by as much."""
    blind = scored(cohorts.held_out, blind="female")
    found = utility_gaps([blind._replace(halves=np.stack([blind.synthetic, blind.real]))], cohorts.held_out)
    women = next(one for one in found if one.group == "female")
    assert women.gap < -0.1 and women.gap_interval[1] < 0
    assert women.training_error > 0.05 and not women.flagged

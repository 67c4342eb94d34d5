"""Training on another real sample is as good as on real patients; on shuffled visits or outcomes it is worthless."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate import tasks
from ehrsim.evaluate.learners import logistic, trees
from ehrsim.evaluate.predictors import plan
from ehrsim.evaluate.utility import asked_of, augmentation, cohort, few, joined, scores, told_of, utility

PATIENTS = 500
LEARNERS = {"logistic regression": logistic, "gradient-boosted trees": trees}
SUGAR = tasks.Task("next HbA1c at or above 6.5 %", "worsening", 730, "LOINC//4548-4", "%", 6.5)


@pytest.fixture(scope="module")
def cohorts(world) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame]:
    """Training, held-out, and another real sample in place of a simulated one."""
    pytest.importorskip("sklearn")
    return world(PATIENTS, seed=1), world(PATIENTS, seed=2), world(PATIENTS, seed=3)


def of(cohorts, synthetic: pl.LazyFrame, learners=LEARNERS):
    scored, skipped = scores(cohorts[0], synthetic, cohorts[1], learners=learners, chosen=tasks.Chosen([SUGAR], []))
    return utility(scored, cohorts[1], skipped=skipped, draws=50)


def figure(one, name: str):
    return next(each for each in one.figures if each.measure == name)


def test_another_real_sample_is_within_noise(cohorts) -> None:
    found = of(cohorts, cohorts[2])
    assert [one.learner for one in found.tasks] == list(LEARNERS)
    for one in found.tasks:
        auroc = figure(one, "auroc")
        assert auroc.reference > 0.75, "there is something to learn"
        slack = max(auroc.floor, 0.02)
        assert auroc.difference_interval[0] - slack < 0 < auroc.difference_interval[1] + slack
        assert auroc.difference == pytest.approx(auroc.value - auroc.reference)
        assert abs(figure(one, "expected less observed").value) < 0.08
        assert one.held_out.patients > 100 and one.groups
        assert {each.attribute for each in one.groups} == {"sex", "age"}
    assert abs(next(each for each in found.summary if each.measure == "auroc").difference) < 0.05


def test_shuffled_visits_teach_nothing(cohorts, world, shuffled) -> None:
    """A model of nothing ranks patients by one thing or another, well or ill: on the average of some, as by a coin."""
    found = [of(cohorts, shuffled(world(PATIENTS, seed=seed))).tasks for seed in range(3, 7)]
    figures = [figure(one, "auroc") for tasks in found for one in tasks]
    assert np.mean([one.value for one in figures]) == pytest.approx(0.5, abs=0.12)
    assert all(one.difference_interval[1] < -0.1 for one in figures), "and that is seen"


def test_shuffled_outcomes_teach_nothing(cohorts) -> None:
    def misled(examples, seed):
        rng = np.random.Generator(np.random.Philox(key=seed + 7))
        return trees(examples._replace(outcome=rng.permutation(examples.outcome)), seed)

    one = of(cohorts, cohorts[2], {"misled": misled}).tasks[0]
    assert 0.38 < figure(one, "auroc").value < 0.62
    assert 0.38 < figure(one, "auroc").reference < 0.62


def test_simulated_patients_without_the_outcome_are_worth_a_coin(cohorts) -> None:
    high = (pl.col("code") == SUGAR.code) & (pl.col("numeric_value") >= SUGAR.limit)
    one = of(cohorts, cohorts[2].filter(~high), {"trees": trees}).tasks[0]
    assert one.synthetic.positives == 0
    assert figure(one, "auroc").value == 0.5


def test_the_order_of_patients_changes_nothing(cohorts) -> None:
    renamed = cohorts[2].sort("subject_id", "time", "code", descending=[True, False, False], nulls_last=False)
    first, second = (of(cohorts, each, {"trees": trees}) for each in (cohorts[2], renamed.collect().lazy()))
    assert figure(first.tasks[0], "auroc") == figure(second.tasks[0], "auroc")


def test_few_patients_gain_from_more_and_many_do_not_lose(cohorts) -> None:
    found = augmentation(cohorts[0], cohorts[2], cohorts[1], [SUGAR], {"trees": trees}, fractions=(0.05, 1.0), draws=50)
    auroc = {one.fraction: one for one in found if one.measure == "auroc"}
    assert auroc[0.05].real_patients == pytest.approx(0.05 * auroc[1.0].real_patients, abs=1)
    assert auroc[0.05].gain > 0.05 and auroc[0.05].gain_interval[0] > 0
    assert auroc[0.05].gain_over_resampled > 0, "more of the same patients is not more patients"
    assert auroc[1.0].gain > -0.03
    assert auroc[1.0].alone == pytest.approx(auroc[1.0].augmented - auroc[1.0].gain)


def test_joined_patients_keep_their_visits(cohorts) -> None:
    planned = plan(cohorts[0])
    parts = [cohort(events, planned) for events in cohorts[:2]]
    first, second = (told_of(one, asked_of(one, SUGAR), planned) for one in parts)
    both = joined(first, second)
    visits = both.sequences.visits.toarray()
    for one, begin in ((first, 0), (second, len(first.outcome))):
        rows = both.sequences.rows[begin : begin + len(one.outcome)]
        np.testing.assert_array_equal(visits[rows], one.sequences.visits.toarray()[one.sequences.rows])
        np.testing.assert_array_equal(both.sequences.numbers[rows], one.sequences.numbers[one.sequences.rows])
        present = one.sequences.rows < one.sequences.visits.shape[0] - 1
        np.testing.assert_array_equal(rows < len(visits) - 1, present, "only the last row is no visit")
    assert both.features.shape[0] == len(both.outcome) == len(first.outcome) + len(second.outcome)


def test_some_patients_are_chosen_whole_by_their_hash(world) -> None:
    events = world(50, seed=1)
    chosen = few(events, 20).collect()
    assert chosen["subject_id"].n_unique() == 20
    assert chosen.equals(events.filter(pl.col("subject_id").is_in(chosen["subject_id"].unique().implode())).collect())
    assert few(events, 10).collect()["subject_id"].is_in(chosen["subject_id"].unique().implode()).all()

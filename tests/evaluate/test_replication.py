"""Estimates against scikit-learn and lifelines, combining rules by hand, and effects found again."""

from __future__ import annotations

import math
import warnings

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate.replication import (
    Effect,
    combine_plug_in,
    combine_posterior,
    cox_regression,
    effects,
    estimates,
    logistic_regression,
    overlap,
    replicate,
    subsets,
)
from ehrsim.evaluate.resampling import subjects
from ehrsim.evaluate.survival import FollowUp

DIABETES, METFORMIN, PRESSURE = "ICD10CM//E11.9", "RxNorm//860975", "ICD10CM//I10"


@pytest.fixture(scope="module")
def sample():
    rng = np.random.Generator(np.random.Philox(key=1))
    design = np.column_stack([rng.random(400) < 0.4, rng.normal(size=400)]).astype(float)
    hazard = np.exp(0.7 * design[:, 0] - 0.4 * design[:, 1])
    time = np.ceil(rng.exponential(5 / hazard) * 2) / 2  # many ties
    left = np.ceil(rng.exponential(6, 400) * 2) / 2
    return design, FollowUp(np.minimum(time, left), time <= left)


def test_cox_regression_is_that_of_lifelines(sample) -> None:
    lifelines = pytest.importorskip("lifelines")
    import pandas

    design, follow_up = sample
    found, covariance = cox_regression(design, follow_up)
    frame = pandas.DataFrame({"a": design[:, 0], "b": design[:, 1], "time": follow_up.time, "came": follow_up.happened})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = lifelines.CoxPHFitter().fit(frame, "time", "came", fit_options={"precision": 1e-10})
    assert found == pytest.approx(fitted.params_.to_numpy(), abs=1e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(fitted.standard_errors_.to_numpy(), rel=1e-4)


def test_cox_regression_of_a_textbook() -> None:
    """Remission on 6-mercaptopurine and placebo (Freireich et al. 1963): Efron's estimate is 1.572, error 0.412."""
    drug = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    time = np.array([*drug[0], *drug[1], *placebo], float)
    happened = np.array([True] * 9 + [False] * 12 + [True] * 21)
    group = np.array([0.0] * 21 + [1.0] * 21)[:, None]
    found, covariance = cox_regression(group, FollowUp(time, happened))
    assert found[0] == pytest.approx(1.572, abs=1e-3)
    assert math.sqrt(covariance[0, 0]) == pytest.approx(0.412, abs=1e-3)


def test_logistic_regression_is_that_of_scikit_learn(sample) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    design, follow_up = sample
    found, covariance = logistic_regression(np.column_stack([design, np.ones(400)]), follow_up.happened)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = linear.LogisticRegression(C=1e12, tol=1e-12, max_iter=2000).fit(design, follow_up.happened)
    assert found == pytest.approx([*model.coef_[0], model.intercept_[0]], abs=1e-3)
    assert (np.diag(covariance) > 0).all()


def test_the_odds_ratio_of_a_table_is_that_by_hand() -> None:
    exposed = np.repeat([1.0, 1.0, 0.0, 0.0], [30, 70, 10, 90])
    outcome = np.repeat([True, False, True, False], [30, 70, 10, 90])
    found, covariance = logistic_regression(np.column_stack([exposed, np.ones(200)]), outcome)
    assert found[0] == pytest.approx(math.log(30 * 90 / (70 * 10)))
    assert covariance[0, 0] == pytest.approx(1 / 30 + 1 / 70 + 1 / 10 + 1 / 90), "Woolf 1955"


def test_perfect_separation_gives_no_estimate() -> None:
    exposed = np.repeat([1.0, 0.0], 20)
    found, _ = logistic_regression(np.column_stack([exposed, np.ones(40)]), exposed > 0)
    assert np.isnan(found).all()


def test_combining_rules_by_hand() -> None:
    values, variances = np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.3, 0.4])
    plug_in = combine_plug_in(values, variances, synthetic=500, real=1000)
    assert plug_in[:2] == pytest.approx((2.0, 0.3 * (0.5 + 1 / 3)))
    assert plug_in.interval == pytest.approx((2 - 1.959964 * 0.5, 2 + 1.959964 * 0.5))
    assert combine_plug_in(values[:1], variances[:1], 1000, 1000).variance == pytest.approx(2 * 0.2), "one draw as well"
    # b = 1, (1 + 1/3) b - u = 4/3 - 0.3; (m - 1) (1 - u / ((1 + 1/m) b))^2 = 2 (1 - 0.225)^2.
    posterior = combine_posterior(values, variances, synthetic=500, real=1000)
    assert tuple(posterior) == pytest.approx((2.0, 4 / 3 - 0.3, 2 * 0.775**2))
    alike = combine_posterior(np.array([1.0, 1.1]), np.array([0.5, 0.5]), synthetic=500, real=1000)
    assert alike.variance == pytest.approx(0.25), "a variance below nought is none: Reiter's is taken"


def test_overlap_of_intervals() -> None:
    assert overlap((0, 2), (0, 2)) == 1
    assert overlap((0, 2), (1, 5)) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert overlap((0, 1), (2, 3)) == 0


def test_the_plug_in_interval_holds_the_truth_as_often_as_it_says() -> None:
    """The mean of normal numbers: the generator has the mean and deviation of 200 real ones, and draws 10 times 100."""
    rng = np.random.Generator(np.random.Philox(key=5))
    held = []
    for _ in range(600):
        real = rng.normal(0, 1, 200)
        draws = rng.normal(real.mean(), real.std(), (10, 100))
        low, high = combine_plug_in(draws.mean(axis=1), draws.var(axis=1, ddof=1) / 100, 100, 200).interval
        held.append(low < 0 < high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


def test_subsets_are_distinct_and_all(world) -> None:
    events = world(50, seed=1)
    parts = [subjects(part).to_list() for part in subsets(events, 10)]
    assert [len(part) for part in parts] == [5] * 10
    assert sorted(subject for part in parts for subject in part) == list(range(1, 51))


def test_effects_of_another_real_sample_are_found_again(world) -> None:
    training, held_out, draws = world(400, seed=1), world(400, seed=2), [world(300, seed=seed) for seed in range(3, 9)]
    wanted = [Effect("odds ratio", DIABETES, METFORMIN), Effect("odds ratio", PRESSURE, DIABETES)]
    wanted += [Effect("hazard ratio", PRESSURE, "MEDS_DEATH"), Effect("odds ratio", "ICD10CM//Z99", DIABETES)]
    found = replicate(training, held_out, draws, wanted)
    # Only diabetics have metformin: no table without an empty cell. Nobody has the last exposure.
    assert {one.effect for one in found.skipped} == {wanted[0], wanted[3]}
    assert len(found.effects) == 2
    for one in found.effects:
        assert one.draws == 6 and one.overlap > 0.4 and abs(one.errors_off) < 3
        assert one.real_interval[0] < one.real < one.real_interval[1]
    assert 0 < found.mean_overlap <= 1


def test_a_planted_effect_is_lost_where_codes_are_independent(world, independent) -> None:
    training, others = world(600, seed=1), world(600, seed=3)
    code = "ICD10CM//N18.9"

    def planted(events: pl.LazyFrame) -> pl.LazyFrame:
        """Two thirds of those with high pressure get a disease of the kidneys, and a tenth of the others."""
        frame = events.collect()
        having = frame.filter(code=PRESSURE)["subject_id"].unique()
        chosen = pl.when(pl.col("subject_id").is_in(having.implode())).then(pl.col("subject_id") % 3 > 0)
        visits = frame.filter(chosen.otherwise(pl.col("subject_id") % 10 == 0) & (pl.col("code") == "LOINC//4548-4"))
        empty = {"code": pl.lit(code), "numeric_value": pl.lit(None, pl.Float32), "unit": pl.lit(None, pl.String)}
        return pl.concat([frame, visits.with_columns(**empty)]).lazy()

    effect = [Effect("odds ratio", PRESSURE, code)]
    true = replicate(
        planted(training), planted(world(600, seed=2)), [planted(part) for part in subsets(others, 4)], effect
    )
    lost = replicate(
        planted(training),
        planted(world(600, seed=2)),
        [independent(planted(part)) for part in subsets(others, 4)],
        effect,
    )
    assert true.effects[0].real > 2 and true.effects[0].same_significance and true.effects[0].inside
    assert not lost.effects[0].inside and lost.effects[0].overlap == 0
    assert estimates(planted(training), effect)[0].value == true.effects[0].real


def test_effects_are_those_with_most_outcomes(world) -> None:
    found = effects(world(400, seed=1))
    assert {one.kind for one in found} == {"odds ratio", "hazard ratio"}
    assert all(one.exposure != one.outcome for one in found)

"""Measures of risks against scikit-learn and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ehrsim.evaluate.predictions import (
    MEASURES,
    auprc,
    auroc,
    brier,
    calibration_error,
    calibration_intercept,
    calibration_slope,
    expected_less_observed,
    true_positive_rate,
)


@pytest.fixture(scope="module")
def risks():
    rng = np.random.Generator(np.random.Philox(key=3))
    risk = np.round(rng.beta(1, 4, 400), 2)
    outcome = rng.random(400) < risk
    weights = np.vstack([np.ones(400), rng.multinomial(400, np.full(400, 1 / 400), 5)]).astype(float)
    return risk, outcome, weights


def test_scikit_learn_agrees(risks) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    risk, outcome, weights = risks
    ours = auroc(risk, outcome, weights), auprc(risk, outcome, weights), brier(risk, outcome, weights)
    for row, weight in enumerate(weights):
        theirs = (
            metrics.roc_auc_score(outcome, risk, sample_weight=weight),
            metrics.average_precision_score(outcome, risk, sample_weight=weight),
            metrics.brier_score_loss(outcome, risk, sample_weight=weight),
        )
        assert [measure[row] for measure in ours] == pytest.approx(theirs, abs=1e-12)


def test_calibration_is_a_logistic_regression_on_log_odds(risks) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    risk, outcome, weights = risks
    risk = np.clip(risk, 0.01, 0.99)
    odds = np.log(risk / (1 - risk))[:, None]
    for row, weight in enumerate(weights):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = linear.LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(odds, outcome, weight)
        assert calibration_slope(risk, outcome, weights)[row] == pytest.approx(model.coef_[0, 0], abs=1e-3)
    moved = 1 / (1 + np.exp(-(odds[:, 0] - 1)))
    intercept = calibration_intercept(moved, outcome, weights[:1])[0]
    shifted = 1 / (1 + np.exp(-(odds[:, 0] - 1 + intercept)))
    assert shifted.mean() == pytest.approx(outcome.mean(), abs=1e-6), "with it, as many are expected as had it"


def test_the_error_of_calibration_by_hand() -> None:
    risk = np.repeat([0.1, 0.5], 50)
    outcome = np.concatenate([np.arange(50) < 5, np.arange(50) < 40])
    outcome[:50], outcome[50:] = np.tile(np.arange(10) < 1, 5), np.tile(np.arange(10) < 8, 5)
    once = np.ones((1, 100))
    assert calibration_error(risk, outcome, once)[0] == pytest.approx((0 + 0.3) / 2)
    assert expected_less_observed(risk, outcome, once)[0] == pytest.approx(0.3 - 0.45)
    assert true_positive_rate(0.5)(risk, outcome, once)[0] == pytest.approx(40 / 45)


def test_weights_are_patients_taken_so_often(risks) -> None:
    risk, outcome, weights = risks
    often = np.repeat(np.arange(400), weights[1].astype(int))
    for name, measure in MEASURES.items():
        if name == "calibration error":
            continue  # its bins are those of the patients as they are
        repeated = measure(risk[often], outcome[often], np.ones((1, len(often))))[0]
        assert measure(risk, outcome, weights)[1] == pytest.approx(repeated, abs=1e-5), name


def test_one_outcome_alone_measures_no_discrimination() -> None:
    risk, once = np.array([0.2, 0.4]), np.ones((1, 2))
    for outcome in (np.array([True, True]), np.array([False, False])):
        for measure in (auroc, calibration_slope, calibration_intercept):
            assert np.isnan(measure(risk, outcome, once)[0])
    assert np.isnan(calibration_slope(np.array([0.3, 0.3]), np.array([True, False]), once)[0])
    assert auroc(np.array([0.3, 0.3]), np.array([True, False]), once)[0] == 0.5

"""How good predicted risks are: discrimination, accuracy and calibration, once for every row of weights of patients.

Weights (rows, patients) count each patient so often, so that one call gives a measure and its draws
(`resampling.py`). A row in which nobody has the outcome, or everybody, gives NaN where a measure needs both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ehrsim.evaluate.resampling import Floats

Outcomes = NDArray[np.bool_]
Measure = Callable[[Floats, Outcomes, Floats], Floats]
"""From risks (patients,), whether the outcome came (patients,) and weights (rows, patients) to a value a row."""
BINS = 10
_LEAST_RISK = 1e-4
_STEPS, _STRIDE, _CLOSE, _NEARLY = 30, 2.0, 1e-6, 1e-3


def auroc(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) the share of pairs, one patient of either outcome, in which the one who had it has the higher risk.

    Ties count half: it is the area under the ROC curve (Hanley and McNeil 1982, Radiology 143:29).
    """
    having, lacking = _by_risk(risk, outcome, weights)
    below = np.cumsum(lacking, axis=1) - lacking / 2
    pairs = having.sum(axis=1) * lacking.sum(axis=1)
    return _ratio((having * below).sum(axis=1), pairs)


def auprc(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) average precision: precision at each risk, weighted by the recall gained there, without interpolation."""
    having, lacking = (part[:, ::-1] for part in _by_risk(risk, outcome, weights))
    found, called = np.cumsum(having, axis=1), np.cumsum(having + lacking, axis=1)
    precision = found / np.maximum(called, 1e-12)
    return _ratio((having * precision).sum(axis=1), having.sum(axis=1))


def brier(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) the mean squared difference of risk and outcome (Brier 1950, Monthly Weather Review 78:1)."""
    return _ratio(weights @ (risk - outcome) ** 2, weights.sum(axis=1))


def expected_less_observed(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) calibration in the large: the mean risk less the share of patients who had the outcome."""
    return _ratio(weights @ (risk - outcome), weights.sum(axis=1))


def calibration_error(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) the expected calibration error: mean |risk - share with the outcome| over ten bins of equal patients.

    Bins are those of the patients as they are (Naeini, Cooper and Hauskrecht 2015, AAAI 29), by rank of risk.
    """
    order = np.argsort(risk, kind="stable")
    bins = np.empty(len(risk), np.int64)
    bins[order] = np.arange(len(risk)) * BINS // max(len(risk), 1)
    gaps = np.zeros(len(weights))
    for number in range(BINS):
        inside = bins == number
        gaps += np.abs(weights[:, inside] @ (risk - outcome)[inside])
    return _ratio(gaps, weights.sum(axis=1))


def calibration_slope(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) the slope of a logistic regression of the outcome on the log odds of the risk: 1 if well calibrated.

    Below 1 the risks are too extreme, above it too much alike (Cox 1958, Biometrika 45:562). NaN for equal risks.
    """
    return _recalibrated(risk, outcome, weights)[:, 1]


def calibration_intercept(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
    """(rows,) what is to be added to the log odds of all risks for as many outcomes as there were: 0 if none is.

    The slope is held at 1 (Van Calster et al. 2019, BMC Medicine 17:230).
    """
    return _recalibrated(risk, outcome, weights, slope=False)[:, 0]


MEASURES: dict[str, Measure] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "calibration slope": calibration_slope,
    "calibration intercept": calibration_intercept,
    "calibration error": calibration_error,
    "expected less observed": expected_less_observed,
}
BY_GROUP = ("auroc", "auprc", "brier", "calibration error", "expected less observed")
"""Those that are told of subgroups: regressions need more patients than these have."""


def true_positive_rate(threshold: float) -> Measure:
    """The share of those with the outcome whose risk is at the threshold or above."""

    def rate(risk: Floats, outcome: Outcomes, weights: Floats) -> Floats:
        return _ratio(weights[:, outcome] @ (risk[outcome] >= threshold), weights[:, outcome].sum(axis=1))

    return rate


def _by_risk(risk: Floats, outcome: Outcomes, weights: Floats) -> tuple[Floats, Floats]:
    """The weight with and without the outcome at each distinct risk, ascending: two arrays (rows, risks)."""
    order = np.argsort(risk, kind="stable")
    starts = np.flatnonzero(np.diff(risk[order], prepend=-np.inf) > 0) if len(risk) else np.zeros(0, np.int64)
    if not len(starts):
        return np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    sorted_weights, came = weights[:, order], outcome[order]
    pair = (np.add.reduceat(sorted_weights * which, starts, axis=1) for which in (came, ~came))
    having, lacking = pair
    return having, lacking


def _recalibrated(risk: Floats, outcome: Outcomes, weights: Floats, *, slope: bool = True) -> Floats:
    """(rows, 2) intercept and slope of the outcome on the log odds of the risk: logistic regression by row of weights.

    Newton's method begins with the share that had the outcome in the first row, and for the others where that ended.
    """
    odds = logit(np.clip(risk, _LEAST_RISK, 1 - _LEAST_RISK))
    both = np.minimum(weights @ outcome, weights @ ~outcome) > 0
    if not len(risk) or not both[0] or (slope and np.ptp(odds) < _CLOSE):
        return np.full((len(weights), 2), np.nan)
    share = float(weights[0] @ outcome / weights[0].sum())
    centre = float(weights[0] @ odds / weights[0].sum()) if slope else 0.0
    begin = np.array([[logit(share), 0.0]]) if slope else np.array([[0.0, 1.0]])
    first, converged = _newton(odds - centre, outcome, weights[:1], begin, slope=slope)
    found, others = _newton(odds - centre, outcome, weights, np.tile(first, (len(weights), 1)), slope=slope)
    found[:, 0] -= found[:, 1] * centre if slope else 0.0
    return np.where((both & converged & others)[:, None], found, np.nan)


def _newton(
    odds: Floats, outcome: Outcomes, weights: Floats, begin: Floats, *, slope: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    """(rows, 2) intercept and slope where the likelihood of each row is greatest, and whether that was found."""
    found = begin.copy()
    change = np.full_like(found, np.inf)
    for _ in range(_STEPS):
        expected = expit(found[:, :1] + found[:, 1:] * odds)
        residual = weights * (outcome - expected)
        spread = weights * (expected * (1 - expected))
        information, gradient = spread.sum(axis=1), residual.sum(axis=1)
        if slope:
            mixed, square, steep = spread @ odds, spread @ odds**2, residual @ odds
            determinant = np.maximum(information * square - mixed**2, 1e-12)[:, None]
            change = np.stack([square * gradient - mixed * steep, information * steep - mixed * gradient], axis=1)
            change = change / determinant
        else:
            change = np.stack([gradient / np.maximum(information, 1e-12), np.zeros(len(weights))], axis=1)
        longest = np.abs(change).max(axis=1, keepdims=True)
        found += change * np.minimum(1.0, _STRIDE / np.maximum(longest, _CLOSE))
        if np.abs(change).max() < _CLOSE:
            break
    return found, np.abs(change).max(axis=1) < _NEARLY


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)

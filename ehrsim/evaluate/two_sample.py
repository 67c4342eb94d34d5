"""Two-sample tests by classification: how well simulated patients are told from real ones, and by what.

The area under the ROC curve (AUC) of a classifier that is tested on patients it was not trained on is 0.5 for cohorts
that cannot be told apart (Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests", ICLR). It measures how
like they are, and says nothing about privacy: copies of the training patients could not be told apart either.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ehrsim.errors import MissingExtraError
from ehrsim.evaluate.features import Features
from ehrsim.evaluate.resampling import COVERAGE, DRAWS, Floats, Indices

FOLDS, MOST_SHOWN = 5, 10
_ITERATIONS, _LEAVES, _LEAST_IN_LEAF, _BINS = 100, 15, 10, 63


class Area(NamedTuple):
    """An AUC with its 95 % interval."""

    value: float
    interval: tuple[float, float]


class Clue(NamedTuple):
    """A feature by which cohorts are told apart: how much AUC is lost without it, and its mean in each cohort."""

    name: str
    lost: float
    real: float
    other: float


class Told(NamedTuple):
    """How well two cohorts are told apart, and by what."""

    auc: Area
    patients: int
    """of each cohort"""
    clues: list[Clue]


def told_apart(real: Features, other: Features, *, seed: int = 0, clues: bool = False, draws: int = DRAWS) -> Told:
    """Train gradient-boosted trees to tell two cohorts apart, on as many patients of each, cross-validated by patient.

    With `clues`, the features are named whose values, exchanged between the patients of a fold, cost most AUC
    (permutation importance, Breiman 2001, Machine Learning 45:5). Raises `MissingExtraError` without scikit-learn.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    size = min(len(real.matrix), len(other.matrix))
    matrix = np.vstack([cohort.matrix[rng.permutation(len(cohort.matrix))[:size]] for cohort in (real, other)])
    label, fold = np.repeat([False, True], size), folds(size, FOLDS)
    score, lost = np.zeros(2 * size), np.zeros(matrix.shape[1])
    for number in range(FOLDS):
        test = fold == number
        known = np.flatnonzero(np.isfinite(matrix[~test]).any(axis=0))
        part = matrix[:, known]
        with one_thread():
            model = classifier(seed).fit(part[~test], label[~test])
            score[test] = model.predict_proba(part[test])[:, 1]
            if clues and not number:
                lost[known] = _lost_areas(model, part[test], label[test], rng)
    best = np.argsort(-lost, kind="stable")[: MOST_SHOWN if clues else 0]
    means = [_means(matrix[~label]), _means(matrix[label])]
    shown = [Clue(real.names[i], float(lost[i]), float(means[0][i]), float(means[1][i])) for i in best if lost[i] > 0]
    return Told(cross_validated_area(score, label, fold, seed=seed, draws=draws), size, shown)


def classifier(seed: int) -> Any:
    """The classifier: gradient-boosted trees, which take numbers that are missing as they are."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as error:
        raise MissingExtraError("telling cohorts apart by their features", "evaluate") from error
    return HistGradientBoostingClassifier(
        max_iter=_ITERATIONS,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=_LEAST_IN_LEAF,
        max_bins=_BINS,
        early_stopping=False,
        random_state=seed,
    )


def one_thread() -> AbstractContextManager[Any]:
    """Classifiers are trained on one thread in here.

    Two of them on a machine that others use took 37 CPU seconds for what one does in 2.4, waiting in loops.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("training classifiers", "evaluate") from error
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits


def folds(size: int, number: int) -> Indices:
    """(2 * size,) the fold of each patient of two cohorts of `size`, one after the other: as many of each in a fold.

    The patients must stand in a random order.
    """
    return np.tile(np.arange(size) % number, 2).astype(np.int64)


def area(score: Floats, label: NDArray[np.bool_]) -> float:
    """The share of pairs, one patient of either cohort, where the one labelled has the higher score; ties are half."""
    ranks = stats.rankdata(score)
    positive = int(label.sum())
    negative = len(label) - positive
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def cross_validated_area(
    score: Floats, label: NDArray[np.bool_], fold: Indices, *, seed: int = 0, draws: int = DRAWS
) -> Area:
    """The mean of the AUC of every fold, whose scores come from one model each and are not comparable with others'.

    The interval is of patients drawn again with replacement within fold and cohort.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    values, drawn = [], np.zeros(draws)
    numbers = np.unique(fold)
    for number in numbers:
        high, low = (np.sort(score[(fold == number) & (label == which)]) for which in (True, False))
        # (high, low): 1 where the labelled patient has the higher score, 0.5 for a tie.
        won = np.greater.outer(high, low) / 2 + np.greater_equal.outer(high, low) / 2
        values.append(won.mean())
        first, second = (
            rng.multinomial(len(part), np.full(len(part), 1 / len(part)), draws) / len(part) for part in (high, low)
        )
        drawn += ((first @ won) * second).sum(axis=1) / len(numbers)
    ends = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Area(float(np.mean(values)), (float(ends[0]), float(ends[1])))


def _lost_areas(model: Any, matrix: Floats, label: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """(features,) how much AUC is lost when the values of a feature are exchanged between patients."""
    whole = area(model.predict_proba(matrix)[:, 1], label)
    lost = np.zeros(matrix.shape[1])
    for column in range(matrix.shape[1]):
        kept = matrix[:, column].copy()
        matrix[:, column] = kept[rng.permutation(len(kept))]
        lost[column] = whole - area(model.predict_proba(matrix)[:, 1], label)
        matrix[:, column] = kept
    return lost


def _means(matrix: Floats) -> Floats:
    """The mean of what is known of each feature, NaN where nothing is."""
    known = np.isfinite(matrix)
    number = known.sum(axis=0)
    total = np.where(known, matrix, 0.0).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)

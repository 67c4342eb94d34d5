"""Models that predict an outcome from what came before: logistic regression and gradient-boosted trees.

A learner is a function, so that networks can take part without this package's knowing them: those of
`ehrsim.sequence_classifier` read `Examples.sequences`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.errors import MissingExtraError
from ehrsim.evaluate.resampling import Floats, Indices
from ehrsim.evaluate.two_sample import one_thread
from ehrsim.sequences import Sequences

_STRENGTHS, _INNER, _FARTHEST = (0.001, 0.01, 0.1), 4, 5.0
"""Inverses of the penalty of logistic regression, of which one is chosen on every fourth patient; and the most
deviations that a feature is off its mean."""
_LEAST_DEVIATION, _ITERATIONS = 1e-9, 1000
_TREES, _RATE, _LEAVES, _LEAST_IN_LEAF, _PENALTY = 100, 0.05, 15, 10, 1.0


class Examples(NamedTuple):
    """Patients who are asked something, with what is known of each and what came of it."""

    subject: NDArray[np.int64]
    """(patients,) in order"""
    outcome: NDArray[np.bool_]
    """(patients,)"""
    features: Floats
    """(patients, features) NaN where something is not known"""
    sequences: Sequences

    def of(self, patients: Indices) -> Examples:
        """Some of the patients, or some more than once."""
        return Examples(
            self.subject[patients], self.outcome[patients], self.features[patients], self.sequences.of(patients)
        )


Predict = Callable[[Examples], Floats]
"""The risk of each patient, between 0 and 1."""
Learner = Callable[[Examples, int], Predict]
"""Learns from examples that have both outcomes, with a seed."""


def logistic(examples: Examples, seed: int) -> Predict:
    """Logistic regression with a ridge penalty on standardised features; what is not known is at the mean.

    The penalty is that with the least loss on patients of an inner split. Raises `MissingExtraError` without
    scikit-learn.
    """
    make = _sklearn("linear_model").LogisticRegression
    given = np.where(np.isfinite(examples.features), examples.features, np.nan)
    known = np.isfinite(given).any(axis=0)
    mean, deviation = np.zeros(given.shape[1]), np.ones(given.shape[1])
    mean[known], deviation[known] = np.nanmean(given[:, known], axis=0), np.nanstd(given[:, known], axis=0)
    told = np.flatnonzero(known & (deviation > _LEAST_DEVIATION))
    if not len(told):
        return _constant(float(examples.outcome.mean()))

    def scaled(one: Examples) -> Floats:
        away = (one.features[:, told] - mean[told]) / deviation[told]
        return np.clip(np.nan_to_num(away), -_FARTHEST, _FARTHEST)

    matrix, outcome = scaled(examples), examples.outcome
    inner = _inner_split(outcome, seed)
    with one_thread():
        losses = [
            _loss(
                make(C=strength, max_iter=_ITERATIONS).fit(matrix[~inner], outcome[~inner]),
                matrix[inner],
                outcome[inner],
            )
            for strength in _STRENGTHS
        ]
        model = make(C=_STRENGTHS[int(np.argmin(losses))], max_iter=_ITERATIONS).fit(matrix, outcome)
    return lambda one: np.asarray(model.predict_proba(scaled(one))[:, 1])


def _inner_split(outcome: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """(patients,) every fourth of those with the outcome and of those without, in a random order."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    inner = np.zeros(len(outcome), np.bool_)
    for which in (True, False):
        inner[rng.permutation(np.flatnonzero(outcome == which))[_INNER - 1 :: _INNER]] = True
    return inner


def _loss(model: Any, matrix: Floats, outcome: NDArray[np.bool_]) -> float:
    """The mean negative log-likelihood of outcomes."""
    risk = np.clip(model.predict_proba(matrix)[:, 1], 1e-9, 1 - 1e-9)
    return -float(np.log(np.where(outcome, risk, 1 - risk)).mean()) if len(outcome) else 0.0


def trees(examples: Examples, seed: int) -> Predict:
    """Gradient-boosted trees, which take what is not known as it is. `MissingExtraError` without scikit-learn."""
    model = _sklearn("ensemble").HistGradientBoostingClassifier(
        max_iter=_TREES,
        learning_rate=_RATE,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=_LEAST_IN_LEAF,
        l2_regularization=_PENALTY,
        early_stopping=False,
        random_state=seed,
    )
    known = np.flatnonzero(np.isfinite(examples.features).any(axis=0))
    with one_thread():
        model.fit(examples.features[:, known], examples.outcome)

    def predict(one: Examples) -> Floats:
        with one_thread():
            return np.asarray(model.predict_proba(one.features[:, known])[:, 1])

    return predict


LEARNERS: dict[str, Learner] = {"logistic regression": logistic, "gradient-boosted trees": trees}


def learned(learner: Learner, examples: Examples, seed: int) -> Predict:
    """What a learner learns; from examples of one outcome only, or none, the share of these that had it."""
    if examples.outcome.any() and not examples.outcome.all():
        return learner(examples, seed)
    return _constant(float(examples.outcome.mean()) if len(examples.outcome) else 0.5)


def _constant(share: float) -> Predict:
    return lambda one: np.full(len(one.outcome), share)


def _sklearn(name: str) -> Any:
    return _module(f"sklearn.{name}")


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("training models on simulated patients", "evaluate") from error

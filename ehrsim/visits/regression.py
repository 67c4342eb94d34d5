"""Logistic regression of what happens at steps of records on what is known before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SPREAD = 3.0
"""Standard deviation of a log odds ratio before any data: those that no count bounds are kept from running away."""
WIDE = 10.0
"""The same of what is always in the regression."""


def logistic_regression(
    design: Floats, happened: Floats, weights: Floats, free: int, offset: Floats | float = 0.0
) -> tuple[Floats, Floats]:
    """Logistic regression by Newton's method with halved steps; all but the first `free` coefficients have a prior.

    `offset` is of log odds that are known. Returns the coefficients, and the chance of each row.
    """
    prior = np.full(design.shape[1], 1 / WIDE**2)
    prior[free:] = 1 / SPREAD**2

    def fitness(weights: Floats) -> float:
        logits = design @ weights + offset
        likelihood = happened @ logits - np.logaddexp(0, logits).sum()
        return float(likelihood - (prior * weights**2).sum() / 2)

    best = fitness(weights)
    for _ in range(30):
        chance = logistic(design @ weights + offset)
        gradient = design.T @ (happened - chance) - prior * weights
        hessian = design.T @ (design * (chance * (1 - chance))[:, None]) + np.diag(prior)
        step = np.linalg.solve(hessian, gradient)
        while (better := fitness(weights + step)) < best:
            step = step / 2
            if abs(step).max() < 1e-6:
                break
        weights, gain, best = weights + step, better - best, max(better, best)
        if gain < 1e-4:
            break
    return weights, logistic(design @ weights + offset)


def logistic(logits: Floats) -> Floats:
    """Chances from log odds, which are held between -30 and 30."""
    odds: Floats = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return odds

"""Prospects: how likely a code that a patient has not had is still to come.

Who is to have a code, and has not had it yet, has it sooner: by Bayes' theorem the hazard is that of everybody over the
chance that the code comes at all. Few patients are told codes in training, and most of those codes are rare, so the
chance is counted beforehand: a logistic regression for each code, on the age and on the years of data that are left,
given what its precursors add to the log odds. What leads to such a code has a hazard times as much as it makes the code
likelier to come (`ehrsim.models.precursors`).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ehrsim.batch import Moment, Precursor, Sizes
from ehrsim.models.layers import PROSPECT_FEATURES, prospect_features
from ehrsim.visits.precursors import Firsts, first_occurrences
from ehrsim.visits.regression import Floats, logistic_regression
from ehrsim.visits.sequences import Int64
from ehrsim.visits.table import Table

STEPS = 2_000
"""Steps of those who are to have a code, and of those who are not, that are looked at at most."""


def prospects(steps: Table, sizes: Sizes) -> Floats:
    """(PROSPECT_FEATURES, V) coefficients of the log odds that a code comes, at steps of those who have not had it."""
    size, coefficients = sizes.vocabulary, np.zeros((PROSPECT_FEATURES, sizes.vocabulary))
    firsts = first_occurrences(steps, size)
    lengths = np.diff(steps.step_offsets)
    owner = np.repeat(np.arange(steps.patients), lengths)
    known = np.repeat(np.arange(steps.patients), np.diff(firsts.offsets)) * size + firsts.code
    features = np.asarray(prospect_features(Moment(*map(jnp.asarray, steps.visit.moment))), np.float64)
    inner = np.flatnonzero(steps.visit.kind < sizes.death)
    before = _Before(firsts, owner, known, sizes)
    by_code = np.argsort(firsts.code, kind="stable")
    begin = np.searchsorted(firsts.code[by_code], np.arange(size + 1))
    for code in range(1, size):
        first = firsts.step[by_code[begin[code] : begin[code + 1]]]
        if not len(first):
            continue
        generator = np.random.Generator(np.random.Philox(key=[1, code]))
        # Steps up to the one with the code, and all steps of those who never have it.
        waiting = first - steps.step_offsets[owner[first]] + 1
        number, total = int(waiting.sum()), len(inner) - int((lengths[owner[first]] - 1).sum())
        drawn = np.sort(generator.integers(0, number, min(number, STEPS)))
        which = np.searchsorted(waiting.cumsum(), drawn, side="right")
        coming = first[which] - (drawn - (waiting.cumsum() - waiting)[which])
        others = inner[generator.integers(0, len(inner), STEPS)]
        wanted = owner[others] * size + code
        never = others[known[np.minimum(np.searchsorted(known, wanted), len(known) - 1)] != wanted]
        if not len(never):
            coefficients[0, code] = np.log(number + 0.5) - np.log(0.5)
            continue
        rows = np.concatenate([coming, never])
        happened = (np.arange(len(rows)) < len(coming)).astype(np.float64)
        weights, _ = logistic_regression(
            features[rows], happened, np.zeros(PROSPECT_FEATURES), PROSPECT_FEATURES, before.led(code, rows)
        )
        # Odds among the steps drawn are others than among all, by a factor that is known.
        weights[0] += np.log(number / len(coming)) - np.log(total / len(never))
        coefficients[:, code] = weights
    return coefficients


class _Before:
    """What is known before steps of a table."""

    def __init__(self, firsts: Firsts, owner: Int64, known: Int64, sizes: Sizes) -> None:
        self._firsts, self._owner, self._known, self._sizes = firsts, owner, known, sizes
        self._pairs: dict[int, list[Precursor]] = {}
        for pair in sizes.precursors:
            self._pairs.setdefault(pair.code, []).append(pair)

    def led(self, code: int, rows: Int64) -> Floats:
        """(rows,) what the precursors of a code that are known before steps add to its log odds."""
        total = np.zeros(len(rows))
        for _, before, weight, _ in self._pairs.get(code, []):
            of_class = before - self._sizes.vocabulary
            leading = (before,) if of_class < 0 else self._sizes.classes[of_class]
            total += weight * np.any([self._had(one, rows) for one in leading], axis=0)
        return total

    def _had(self, code: int, rows: Int64) -> NDArray[np.bool_]:
        wanted = self._owner[rows] * self._sizes.vocabulary + code
        place = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
        had: NDArray[np.bool_] = (self._known[place] == wanted) & (self._firsts.step[place] < rows)
        return had

"""Learners learn what there is, give constants where there is nothing, and name the extra that they need."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import sparse

from ehrsim.errors import MissingExtraError
from ehrsim.evaluate.learners import LEARNERS, Examples, learned, logistic, trees
from ehrsim.evaluate.predictions import auroc
from ehrsim.sequences import Sequences

NOTHING = Sequences(
    sparse.csr_matrix((1, 1)), np.zeros((1, 1), np.float32), np.zeros((0, 1), np.int64), np.zeros((0, 1))
)


def examples(patients: int, seed: int) -> Examples:
    rng = np.random.Generator(np.random.Philox(key=seed))
    matrix = rng.normal(size=(patients, 4))
    outcome = rng.random(patients) < 1 / (1 + np.exp(-2 * matrix[:, 1]))
    matrix[rng.random((patients, 4)) < 0.1] = np.nan
    matrix[:, 3] = np.nan
    sequences = NOTHING._replace(rows=np.zeros((patients, 1), np.int64), static=np.zeros((patients, 1)))
    return Examples(np.arange(patients), outcome, matrix, sequences)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_there_is_is_learned(name: str) -> None:
    pytest.importorskip("sklearn")
    predict, others = LEARNERS[name](examples(500, 1), 0), examples(400, 2)
    risk = predict(others)
    assert auroc(risk, others.outcome, np.ones((1, 400)))[0] > 0.75
    assert ((risk > 0) & (risk < 1)).all()
    np.testing.assert_array_equal(risk, LEARNERS[name](examples(500, 1), 0)(others))
    assert risk.mean() == pytest.approx(others.outcome.mean(), abs=0.07)


def test_one_outcome_teaches_its_share() -> None:
    some = examples(20, 1)
    for outcome, share in ((np.ones(20, np.bool_), 1.0), (np.zeros(20, np.bool_), 0.0)):
        predict = learned(logistic, some._replace(outcome=outcome), 0)
        assert predict(examples(3, 2)).tolist() == [share] * 3
    nobody = some.of(np.zeros(0, np.int64))
    assert learned(logistic, nobody, 0)(examples(2, 2)).tolist() == [0.5, 0.5]


def test_features_of_nobody_leave_the_share() -> None:
    pytest.importorskip("sklearn")
    some = examples(50, 1)
    blank = some._replace(features=np.full((50, 4), np.nan))
    assert logistic(blank, 0)(some) == pytest.approx(np.full(50, some.outcome.mean()))


def test_scikit_learn_is_an_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrsim\[evaluate\]'"):
        trees(examples(20, 1), 0)

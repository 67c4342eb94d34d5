"""The network learns an order that counts do not show, ignores padding, and gives the same for the same seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse

from ehrsim.evaluate.predictions import auroc
from ehrsim.sequence_classifier import gru
from ehrsim.sequences import Sequences

VISITS = 6


class Asked(NamedTuple):
    outcome: np.ndarray
    sequences: Sequences


def asked(patients: int, seed: int, longest: int = VISITS) -> Asked:
    """Each has code 0 and code 1 once, at two of the visits; the outcome comes to those who had 0 first."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    lengths = rng.integers(2, VISITS + 1, patients)
    begin = np.concatenate([[0], np.cumsum(lengths)])
    visits = np.zeros((begin[-1] + 1, 3))
    visits[:-1, 2] = 1
    rows = np.full((patients, longest), begin[-1])
    outcome = np.zeros(patients, np.bool_)
    for patient, length in enumerate(lengths):
        first, second = np.sort(rng.permutation(length)[:2])
        outcome[patient] = rng.random() < 0.5
        one, other = (0, 1) if outcome[patient] else (1, 0)
        visits[begin[patient] + first, one] = visits[begin[patient] + second, other] = 1
        rows[patient, :length] = np.arange(begin[patient], begin[patient + 1])
    numbers = np.zeros((len(visits), 2), np.float32)
    static = np.zeros((patients, 1), np.float32)
    return Asked(outcome, Sequences(sparse.csr_matrix(visits.astype(np.float32)), numbers, rows, static))


@pytest.fixture(scope="module")
def predict():
    return gru(asked(600, seed=1), seed=0)


def test_order_is_learned(predict) -> None:
    others = asked(300, seed=2)
    assert auroc(predict(others), others.outcome, np.ones((1, 300)))[0] > 0.95


def test_what_follows_the_last_visit_does_not_count(predict) -> None:
    short, long = asked(200, seed=3), asked(200, seed=3, longest=VISITS + 5)
    np.testing.assert_allclose(predict(short), predict(long), atol=1e-6)


def test_the_same_seed_gives_the_same_network() -> None:
    examples, others = asked(150, seed=4), asked(100, seed=5)
    risks = [gru(examples, seed=seed, steps=30)(others) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(risks[0], risks[1])
    assert not np.array_equal(risks[0], risks[2])
    assert ((risks[0] > 0) & (risks[0] < 1)).all()


def test_few_outcomes_and_nobody_to_ask() -> None:
    examples = asked(40, seed=6)
    few = Asked(np.arange(40) < 3, examples.sequences)
    predict = gru(few, seed=0, steps=20)
    assert np.isfinite(predict(asked(5, seed=7))).all()
    nobody = Asked(np.zeros(0, np.bool_), examples.sequences.of(np.zeros(0, np.int64)))
    assert predict(nobody).shape == (0,)

"""Counter-based draws: fixed for ever, uniform, independent of one another and of the company they are drawn in."""

import numpy as np
import pytest
from scipy import stats

from ehrsim.reference.draws import choose, normal, patient_keys, purpose_key, uniform, uniform_below

PATIENTS = np.arange(40_000)


def splitmix(state: int) -> int:
    """The finaliser as published, in whole numbers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def test_draws_are_splitmix64_of_key_and_counter():
    gamma, numbers = 0x9E3779B97F4A7C15, [0, 1, 1_000_000]
    keys = patient_keys(7, np.array(numbers))
    start = purpose_key("seed 7")
    expected = [splitmix((splitmix((start + number * gamma) % 2**64) + gamma) % 2**64) for number in numbers]
    assert keys.tolist() == expected
    counter = splitmix((3 * gamma + purpose_key("a purpose")) % 2**64)
    drawn = [((splitmix((key + counter) % 2**64) >> 11) + 0.5) / 2**53 for key in expected]
    assert uniform(keys, "a purpose", 3).tolist() == drawn


@pytest.mark.parametrize("seed", [0, 1, -5, 2**70])
def test_draws_are_uniform(seed):
    drawn = uniform(patient_keys(seed, PATIENTS), "a purpose", 2)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_purposes_steps_patients_and_seeds_are_independent():
    keys = patient_keys(0, PATIENTS)
    drawn = [
        uniform(keys, "a purpose"),
        uniform(keys, "a purpose", 1),
        uniform(keys, "b purpose"),
        uniform(patient_keys(1, PATIENTS), "a purpose"),
        np.roll(uniform(keys, "a purpose"), 1),
    ]
    correlation = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(PATIENTS))


def test_a_step_may_be_one_number_or_one_for_each_patient():
    keys = patient_keys(0, PATIENTS[:50])
    assert np.array_equal(uniform(keys, "a purpose", 9), uniform(keys, "a purpose", np.full(50, 9)))


@pytest.mark.parametrize("ceiling", [1e-4, 0.03, 0.4, 0.7, 1.0, 3.0])
def test_draws_below_a_ceiling_are_those_draws(ceiling):
    keys = patient_keys(3, PATIENTS)
    every = uniform(keys, "a purpose", 4)
    position, drawn = uniform_below(keys, "a purpose", 4, ceiling)
    assert position.tolist() == np.flatnonzero(every < ceiling).tolist()
    assert np.array_equal(drawn, every[position])


def test_normal_draws_are_normal():
    assert stats.kstest(normal(patient_keys(0, PATIENTS), "a trait"), "norm").pvalue > 1e-3


def test_choices_follow_their_weights():
    chosen = choose(np.array([0.0, 0.0999, 0.1001, 0.5999, 0.6001, 0.9999]), np.array([1.0, 5.0, 4.0]))
    assert chosen.tolist() == [0, 0, 1, 1, 2, 2]

"""Incidence after a cause, counted by hand, and the interval of a ratio of rates."""

import math

import numpy as np
import pytest

from ehrsim.evaluate.incidence import Incidence, after, rate_ratio
from ehrsim.evaluate.survival import FollowUp


def test_those_are_at_risk_who_had_the_cause_and_not_yet_the_outcome() -> None:
    #                          at risk, had it; at risk, never; had it before; at the same time; no cause; nothing dated
    cause = FollowUp(np.array([2.0, 1.0, 3.0, 4.0, 9.0, np.nan]), np.array([True, True, True, True, False, False]))
    outcome = FollowUp(np.array([5.0, 8.0, 1.0, 4.0, 6.0, np.nan]), np.array([True, False, True, True, True, False]))
    assert after(cause, outcome) == Incidence(happened=1, person_years=3.0 + 7.0)
    assert after(cause, outcome).rate == pytest.approx(0.1)


def test_nobody_at_risk_has_no_rate() -> None:
    nobody = FollowUp(np.array([2.0]), np.array([False]))
    assert math.isnan(after(nobody, nobody).rate)


def test_the_interval_of_a_ratio_holds_the_true_one_as_often_as_it_says() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    draws = [
        rate_ratio(*(Incidence(int(rng.poisson(rate * years)), years) for rate, years in ((0.02, 4e3), (0.01, 9e3))))
        for _ in range(2_000)
    ]
    assert np.mean([ratio for ratio, _, _ in draws]) == pytest.approx(2, abs=0.05)
    assert np.mean([low < 2 < high for _, low, high in draws]) == pytest.approx(0.95, abs=0.015)


def test_no_events_no_ratio() -> None:
    assert all(math.isnan(end) for end in rate_ratio(Incidence(0, 5.0), Incidence(3, 5.0)))

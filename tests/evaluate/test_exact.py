"""Exact bounds equal scipy's and cover; the risk beyond a control is the published one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ehrsim.evaluate.exact import excess, rate


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 50), (3, 50), (50, 50), (13, 1_000)])
def test_bounds_are_those_of_clopper_and_pearson(successes: int, trials: int) -> None:
    found = rate(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert found.value == successes / trials
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_without_trials_anything_is_possible() -> None:
    found = rate(0, 0)
    assert (found.value, found.low, found.high) == (None, 0, 1)
    assert excess(found, rate(1, 2)).value is None
    assert excess(rate(1, 2), rate(2, 2)).value is None, "a control that always succeeds leaves nothing to add"


def test_the_risk_is_what_the_control_leaves() -> None:
    found = excess(rate(60, 100), rate(20, 100))
    assert found.value == pytest.approx((0.6 - 0.2) / (1 - 0.2))
    assert 0 < found.low < found.value < found.high < 1
    assert excess(rate(20, 100), rate(20, 100)).value == 0
    certain = excess(rate(100, 100), rate(0, 100))
    assert (certain.value, certain.high) == (1, 1)
    assert certain.low > 0.9
    assert excess(rate(10, 100), rate(30, 100)).value < 0, "chance may favour the control"


def test_the_interval_of_the_risk_covers() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    for attack, control in [(0.05, 0.05), (0.5, 0.1), (0.9, 0.6)]:
        truth = (attack - control) / (1 - control)
        drawn = rng.binomial([200, 80], [attack, control], (400, 2)).tolist()
        found = [excess(rate(a, 200), rate(c, 80)) for a, c in drawn]
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.94

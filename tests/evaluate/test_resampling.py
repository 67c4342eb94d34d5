"""Weights of patients, intervals about a value, and distances beside their floor."""

from __future__ import annotations

import numpy as np
import pytest

from ehrsim.evaluate.resampling import beside_floor, block_of, blocks, figure, interval, resamples


def test_patients_are_drawn_with_replacement_and_first_taken_as_they_are() -> None:
    weights = resamples(5, 3, 0, draws=7, seed=1)
    assert [rows.shape for rows in weights] == [(8, 5), (8, 3), (1, 0)]
    assert weights.held_out[0].tolist() == [1] * 5
    assert (weights.held_out.sum(axis=1) == 5).all() and weights.held_out.max() > 1
    again, other = resamples(5, 3, 0, draws=7, seed=1), resamples(5, 3, 0, draws=7, seed=2)
    assert (again.held_out == weights.held_out).all() and (other.held_out != weights.held_out).any()


def test_an_interval_lies_about_its_value_where_draws_are_biased() -> None:
    draws = np.arange(0, 101) / 100 + 7
    assert interval(np.array([1.0, *draws])) == pytest.approx((1 - 0.475, 1 + 0.475))
    assert interval(np.array([0.1, *draws]), (0.0, np.inf)) == pytest.approx((0, 0.1 + 0.475))


@pytest.mark.parametrize(("patients", "tolerance"), [(100, 0.1), (3_000, 0.2)])
def test_the_spread_is_that_of_new_samples(patients: int, tolerance: float) -> None:
    """The interval of a share is that of the normal approximation, one by one and in blocks."""
    rng = np.random.Generator(np.random.Philox(key=3))
    having = rng.random(patients) < 0.3
    weights = resamples(patients, 1, 1, draws=2000).held_out
    places = block_of(np.arange(patients))
    assert weights.shape[1] == blocks(patients) == 100
    sums = (np.bincount(places, part, 100) for part in (having, np.ones(patients)))
    drawn = np.divide(*(weights @ total for total in sums))
    low, high = interval(drawn)
    share = having.mean()
    error = 1.96 * np.sqrt(share * (1 - share) / patients)
    assert (share - low, high - share) == pytest.approx((error, error), rel=tolerance)


def test_a_distance_and_its_floor_share_the_draw_of_held_out_patients() -> None:
    weights = resamples(4, 6, 9, draws=50)
    one = beside_floor(lambda truth, other, real, _: truth * (real[:, 0] + 1), 2.0, None, None, weights)
    assert (one.value, one.floor, one.ratio, one.difference) == (4.0, 4.0, 1.0, 0.0)
    assert one.ratio_interval == one.interval.__class__((1.0, 1.0))
    assert one.difference_interval == (0.0, 0.0)
    assert one.interval[0] < 4 < one.interval[1]


def test_there_is_no_ratio_to_a_floor_of_nought() -> None:
    one = figure(np.array([0.2, 0.1, 0.3]), np.array([0.0, 0.1, 0.0]))
    assert one.ratio is None and one.ratio_interval is None
    assert one.difference == 0.2


def test_what_cannot_be_told_has_no_interval() -> None:
    assert np.isnan(interval(np.array([np.nan, 1.0, 2.0]))).all()
    assert interval(np.array([3.0])) == (3.0, 3.0)

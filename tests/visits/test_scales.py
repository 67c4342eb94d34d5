"""Scales: monotone, bounded by what was observed, inverses within a bin."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ehrsim import vocabulary
from ehrsim.visits import encode
from ehrsim.visits.scales import (
    fit_histogram,
    fit_quantiles,
    fit_scales,
    last_alike,
)
from ehrsim.vocabulary import Entry

LEVELS = 64
rng = np.random.Generator(np.random.Philox(key=3))
SAMPLES = {
    "normal": rng.normal(120, 15, 5_000).round(0),
    "skewed": np.exp(rng.normal(0, 1.2, 5_000)).round(2),
    "few": rng.choice([1.0, 2.0, 5.0], 500, p=[0.7, 0.2, 0.1]),
    "one": np.full(3, 7.25),
    "negative": rng.normal(-5, 2, 300).round(1),
    "zeros": np.where(rng.random(1_000) < 0.6, 0, rng.normal(50, 9, 1_000).round(1)),
    "tiny": rng.normal(0.0004, 0.0001, 400).round(6),
    "large": rng.normal(250_000, 40_000, 400).round(-3),
}


def scale_of(values):
    values = np.asarray(values, np.float32)
    return fit_quantiles(np.ones(len(values), np.int32), values, size=3, levels=LEVELS)


def ranks(scale, values, dither=0.5):
    values = np.asarray(values, np.float32)
    return scale.rank(np.ones(len(values), np.int32), values, np.full(len(values), dither))


def values_at(scale, positions):
    positions = np.asarray(positions, np.float32)
    return scale.value(np.ones(len(positions), np.int32), positions)


def test_the_last_one_alike_is_of_the_same_patient_and_label():
    patient, label = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([5, 6, 5, 5, 5, 6, 6])
    np.testing.assert_array_equal(last_alike(patient, label), [-1, -1, 0, 2, -1, -1, 5])


def test_ties_are_the_values_that_take_whole_bins():
    values = np.repeat([1.0, 2.0, 3.0, 4.0], [400, 20, 380, 200])
    ((_, *first), (_, *second), (_, *third)) = scale_of(values).ties(32)
    np.testing.assert_allclose([first, second, third], [[0, 0.4], [0.42, 0.8], [0.8, 1.0]], atol=0.02)
    for value, (low, high) in zip((1.0, 3.0, 4.0), (first, second, third), strict=True):
        placed = ranks(scale_of(values), np.full(9, value), 0.999)
        assert (placed >= low).all()
        assert (placed < high).all()
        assert (values_at(scale_of(values), [low, (low + high) / 2]) == value).all()
    assert scale_of(np.arange(1000.0)).ties(32) == ()


def test_rare_values_stay_rare():
    """One value far out does not draw those below it out with it: the tails keep their quantiles."""
    sample = np.append(np.random.Generator(np.random.Philox(key=4)).normal(50, 10, 20_000), [150.0, -60.0])
    scale = scale_of(sample)
    drawn = values_at(scale, np.linspace(0, 1, 200_001).astype(np.float32))
    for share in (0.001, 0.005, 0.995, 0.999):
        assert abs(np.quantile(drawn, share) - np.quantile(sample, share)) < 1.5
    assert drawn.std() < 1.02 * sample.std()
    assert (drawn.min(), drawn.max()) == (-60.0, 150.0)


@pytest.mark.parametrize("name", SAMPLES)
def test_rank_and_value_are_inverse_within_a_level(name):
    sample = np.sort(SAMPLES[name]).astype(np.float32)
    scale = scale_of(sample)
    back = values_at(scale, ranks(scale, sample))
    knots = scale.knots[1]
    level = np.clip(np.searchsorted(knots, sample, side="right") - 1, 0, len(knots) - 2)
    width = knots[level + 1] - knots[np.maximum(level - 1, 0)]
    assert (np.abs(back - sample) <= width + 1e-6 * np.abs(sample)).all()
    on_knots = np.isin(sample, knots[1:-1].astype(np.float32))
    np.testing.assert_allclose(back[on_knots], sample[on_knots], rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_ranks_are_uniform_and_values_come_back_as_distributed(name):
    sample = SAMPLES[name].astype(np.float32)
    scale = scale_of(sample)
    found = scale.rank(np.ones(len(sample), np.int32), sample, rng.random(len(sample)))
    assert 0 <= found.min() <= found.max() < 1
    if len(sample) >= 300:
        # The Kolmogorov-Smirnov distance of a scale of 64 levels is at most about one level, and some sampling noise.
        grid = np.linspace(0, 1, 21)
        assert np.abs(np.searchsorted(np.sort(found), grid) / len(found) - grid).max() < 2.5 / LEVELS + 1.5 / np.sqrt(
            300
        )
    drawn = values_at(scale, np.linspace(0, 1, 10_001))
    assert drawn.min() >= sample.min()
    assert drawn.max() <= sample.max()
    for share in (0.1, 0.5, 0.9):
        level = np.searchsorted(np.sort(sample), np.quantile(drawn, share), side="right") / len(sample)
        assert level >= share - 2 / LEVELS


@pytest.mark.parametrize("name", SAMPLES)
def test_precision_is_that_of_the_data(name):
    sample = SAMPLES[name].astype(np.float32)
    decimals = {"normal": 0, "skewed": 2, "few": 0, "one": 2, "negative": 1, "zeros": 1, "tiny": 6, "large": 0}[name]
    scale = scale_of(sample)
    assert scale.decimals[1] == decimals
    drawn = values_at(scale, rng.random(1_000))
    np.testing.assert_array_equal(drawn, np.round(drawn.astype(np.float64), decimals).astype(np.float32))


def test_quantiles_are_values_that_were_observed():
    for sample in SAMPLES.values():
        assert np.isin(scale_of(sample).knots[1], sample.astype(np.float32)).all()


def test_a_tie_takes_the_ranks_of_its_share():
    scale = scale_of(SAMPLES["few"])
    low, high = ranks(scale, [1.0], dither=0.0)[0], ranks(scale, [1.0], dither=0.999)[0]
    share = np.mean(SAMPLES["few"] == 1.0)
    assert low == 0
    assert high == pytest.approx(share, abs=1.5 / LEVELS)
    assert (values_at(scale, np.linspace(low, high, 50)) == 1.0).all()


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 80), elements=st.floats(-1000, 1000, width=32)),
    arrays(np.float32, 30, elements=st.floats(-2000, 2000, width=32)),
)
def test_ranks_rise_with_values_and_values_with_ranks(sample, probes):
    scale = scale_of(sample)
    probes = np.sort(probes)
    found = ranks(scale, probes)
    assert (np.diff(found) >= 0).all()
    back = values_at(scale, found)
    assert (np.diff(back) >= 0).all()
    step = 10.0 ** -scale.decimals[1]
    assert sample.min() - step <= back.min() <= back.max() <= sample.max() + step


def test_each_index_has_a_scale_of_its_own():
    index = np.array([1, 2, 1, 2, 2], np.int32)
    values = np.array([5, 100, 6, 300, 200], np.float32)
    scale = fit_quantiles(index, values, size=4, levels=8)
    assert scale.known.tolist() == [False, True, True, False]
    assert scale.value(np.array([2, 1, 2]), np.array([0.0, 1.0, 1.0], np.float32)).tolist() == [100, 6, 300]
    mixed = scale.rank(index, values, np.zeros(5))
    assert mixed[1] == mixed[0] == 0
    assert mixed[3] > mixed[4] > mixed[1]


def test_no_values_give_a_scale_that_knows_nothing():
    scale = fit_quantiles(np.zeros(0, np.int32), np.zeros(0, np.float32), size=3, levels=4)
    assert not scale.known.any()
    assert scale.rank(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0)).tolist() == []


NUMBERS = {
    "uniform": rng.integers(0, 86_400, 5_000),
    "one": np.full(10, 3),
    "atoms": rng.choice([0, 7, 30, 365], 2_000, p=[0.5, 0.3, 0.15, 0.05]),
    "atom in a spread": np.where(rng.random(3_000) < 0.4, 1_800, rng.integers(0, 10**6, 3_000)),
    "negative": rng.integers(-5_000, -10, 400),
    "single": np.array([42]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_histogram_assigns_what_it_draws(name):
    numbers = NUMBERS[name]
    histogram = fit_histogram(numbers, 16)
    assert 1 <= histogram.bins <= 16
    bins = np.repeat(np.arange(histogram.bins), 101)
    drawn = histogram.draw(bins, np.tile(np.linspace(0, 1, 101), histogram.bins))
    np.testing.assert_array_equal(histogram.assign(drawn), bins)
    assert drawn.min() == numbers.min()
    assert drawn.max() == numbers.max()


@pytest.mark.parametrize("name", NUMBERS)
def test_histogram_keeps_the_mass_of_every_bin(name):
    numbers = NUMBERS[name]
    histogram = fit_histogram(numbers, 16)
    mass = np.bincount(histogram.assign(numbers), minlength=histogram.bins)
    assert (mass > 0).all()
    biggest_atom = np.unique(numbers, return_counts=True)[1].max()
    assert mass.max() <= max(2 * len(numbers) / 16, biggest_atom) + 1


def test_a_frequent_number_has_a_bin_of_its_own():
    histogram = fit_histogram(NUMBERS["atom in a spread"], 16)
    alone = histogram.assign(np.array([1_800]))[0]
    assert histogram.knots[alone].tolist() == [1_800] * 5


def test_numbers_out_of_range_go_to_the_ends():
    histogram = fit_histogram(NUMBERS["uniform"], 16)
    assert histogram.assign(np.array([-(10**9), 10**9])).tolist() == [0, histogram.bins - 1]


def test_a_histogram_of_nothing_holds_zero():
    histogram = fit_histogram(np.zeros(0, np.int64), 16)
    assert histogram.draw(np.array([0]), np.array([0.7])).tolist() == [0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=60), st.integers(1, 20))
def test_every_histogram_is_an_inverse(numbers, bins):
    numbers = np.array(numbers)
    histogram = fit_histogram(numbers, bins)
    assert histogram.bins <= bins
    assigned = histogram.assign(numbers)
    for uniform in (0.0, 0.3, 1.0):
        drawn = histogram.draw(np.arange(histogram.bins), np.full(histogram.bins, uniform))
        np.testing.assert_array_equal(histogram.assign(drawn), np.arange(histogram.bins))
    assert (histogram.knots[assigned, 0] <= numbers).all()
    assert (numbers <= histogram.knots[assigned, -1]).all()


def test_scales_of_records_are_those_of_their_numbers(tiny_events):
    words, _ = vocabulary.fit(tiny_events.lazy(), min_patients=3)
    sequences, _ = encode(tiny_events, words)
    scales = fit_scales(sequences, words, 86_400)
    pressures = tiny_events.filter(pl.col("code") == "LOINC//8480-6")["numeric_value"]
    knots = scales.values.knots[words.index[Entry("LOINC//8480-6", None, "mm[Hg]")]]
    assert (knots[0], knots[-1]) == (pressures.min(), pressures.max())
    assert not scales.values.known[words.index[Entry("ICD10CM//I10", None, None)]]
    assert (scales.births_known, scales.ends_known, scales.end_in_days) == (True, False, False)
    patients = tiny_events.filter(pl.col("code") == "RxNorm//860975")["subject_id"].n_unique()
    assert scales.code_patients[words.index[Entry("RxNorm//860975", None, None)]] == patients
    medication = words.index[Entry("RxNorm//860975", None, None)]
    assert scales.durations.knots[medication].tolist() == [90 * 86_400 - 600] * len(scales.durations.knots[medication])
    assert scales.profile_shares.sum() == pytest.approx(1.0)


def test_nobody_has_scales_that_know_nothing(tiny_events):
    words, _ = vocabulary.fit(tiny_events.lazy(), min_patients=3)
    sequences, _ = encode(tiny_events.clear(), words)
    scales = fit_scales(sequences, words, 86_400)
    assert (scales.gap.bins, scales.births_known, scales.longest) == (1, False, 1)


def test_long_gaps_are_told_by_where_they_end(tiny_events):
    words, _ = vocabulary.fit(tiny_events.lazy(), min_patients=3)
    sequences, _ = encode(tiny_events, words)
    scales = fit_scales(sequences, words, 86_400)
    assert scales.long_gap == 400
    gaps, time = np.array([0, 400, 401, 9_000, 9_000]), np.array([5, 5, 0, 0, 0]) + scales.horizon - 5
    index = scales.gap_index(gaps, time)
    assert (index[:2] < scales.gap.bins).all()
    assert index[2] == index[3] == index[4] >= scales.gap.bins, "the same day, however long it took"
    earlier = scales.gap_index(np.array([500]), np.array([scales.horizon - 15_000]))
    assert earlier[0] > index[2], "numbered from the end"
    steps = np.floor_divide(sequences.time, 86_400)
    landing = scales.landing.draw(scales.landing.assign(scales.horizon - steps), np.zeros(len(steps)))
    assert (landing >= 0).all()

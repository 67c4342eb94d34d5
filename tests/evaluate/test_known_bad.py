"""Generators that are known to be bad are caught by the metrics that are to catch them, and by no other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate import measurements, survival
from ehrsim.evaluate.features import features, plan
from ehrsim.evaluate.numbers import numbers, wasserstein
from ehrsim.evaluate.patterns import Patterns, distances, patterns, vocabulary
from ehrsim.evaluate.resampling import Figure, beside_floor, figure, resamples
from ehrsim.evaluate.two_sample import told_apart

PATIENTS, DRAWS = 400, 40
WEIGHTS = resamples(PATIENTS, PATIENTS, PATIENTS, draws=DRAWS)


class Samples(NamedTuple):
    held_out: pl.LazyFrame
    real: pl.LazyFrame


@pytest.fixture(scope="module")
def samples(world) -> Samples:
    return Samples(world(PATIENTS, seed=1), world(PATIENTS, seed=2))


@pytest.fixture(scope="module", params=["another sample", "shuffled", "independent", "mortal"])
def generated(request, world, shuffled, independent) -> tuple[str, pl.LazyFrame]:
    sample = world(PATIENTS, seed=3)
    made = {
        "another sample": lambda: sample,
        "shuffled": lambda: shuffled(sample),
        "independent": lambda: independent(sample),
        "mortal": lambda: world(PATIENTS, seed=3, mortality=0.9),
    }
    return request.param, made[request.param]()


def pattern_figures(samples: Samples, model: pl.LazyFrame) -> dict[str, Figure]:
    codes = vocabulary(*samples, model)
    truth, another, simulated = (patterns(events, codes) for events in (*samples, model))
    figures = {}
    for kind in Patterns._fields:
        found = distances(getattr(truth, kind), getattr(simulated, kind), WEIGHTS.held_out, WEIGHTS.simulated)
        floor = distances(getattr(truth, kind), getattr(another, kind), WEIGHTS.held_out, WEIGHTS.real)
        figures[kind] = figure(found.total_variation, floor.total_variation)
    return figures


def test_patterns_catch_what_is_no_longer_together(samples, generated) -> None:
    name, model = generated
    found = pattern_figures(samples, model)
    caught = {kind for kind, one in found.items() if one.difference_interval[0] > 0 and one.ratio > 1.5}
    expected = {
        "another sample": set(),
        "mortal": set(),
        "shuffled": {"code_by_patient", "pair_by_patient", "sequence_by_visit", "sequence_by_patient"},
        "independent": {
            "code_by_patient",
            "pair_by_visit",
            "pair_by_patient",
            "sequence_by_visit",
            "sequence_by_patient",
        },
    }
    assert caught == expected[name]


def test_values_keep_their_distribution_but_lose_what_goes_with_what(samples, generated) -> None:
    name, model = generated
    chosen = measurements.commonest(samples.held_out)
    tables = [measurements.values(events, chosen) for events in (*samples, model)]
    for number in range(2):
        one = beside_floor(wasserstein, *(measurements.by_code(table, number) for table in tables), WEIGHTS)
        assert one.difference_interval[0] <= 0, "moving values about does not change how they are distributed"
    ranks = [measurements.ranked(table, tables[0]) for table in tables]
    lag = [measurements.consecutive(table, PATIENTS, 2) for table in ranks]
    visit = [measurements.same_visit(table, PATIENTS, 2) for table in ranks]
    for pairs, lost in ((lag, {"shuffled", "independent"}), (visit, {"independent"})):
        gap = measurements.correlation_gaps(pairs[0], pairs[2], WEIGHTS.held_out, WEIGHTS.simulated)
        assert (np.median(gap[0]) > 0.3) == (name in lost)


def test_survival_catches_deaths(samples, generated) -> None:
    name, model = generated
    tables = [survival.lives(events, from_birth=True) for events in (*samples, model)]
    horizon = survival.horizon(tables[0])

    def distance(*pair):
        return survival.integrated_errors(*pair, horizon=horizon)

    one = beside_floor(distance, *(survival.to_death(table) for table in tables), WEIGHTS)
    assert (one.value > one.floor + 0.02) == (name == "mortal")


def test_numbers_are_right_whatever_the_visits_hold(samples, generated) -> None:
    truth, another, model = (numbers(events) for events in (*samples, generated[1]))
    for name in ("visits_per_patient", "log_gap", "days_of_stay"):
        one = beside_floor(wasserstein, truth[name], another[name], model[name], WEIGHTS)
        assert one.difference_interval[0] <= 0


def test_trees_tell_apart_all_but_another_sample(samples, generated) -> None:
    pytest.importorskip("sklearn")
    name, model = generated
    planned = plan(samples.held_out, model)
    found = told_apart(features(samples.held_out, planned), features(model, planned), draws=DRAWS)
    assert (found.auc.value > 0.65) == (name != "another sample")
    assert found.auc.interval[0] < found.auc.value < found.auc.interval[1]

"""Generators that are known to be bad are caught by the metrics that are to catch them, and by no other.

Real patients in place of simulated ones are not caught by any: that is the calibration of the judge.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import polars as pl
import pytest

from ehrsim.evaluate import diversity, fidelity
from ehrsim.evaluate.cohorts import Cohorts, Weights, descriptions, draw
from ehrsim.evaluate.marginals import marginal
from ehrsim.evaluate.patterns import patterns, vocabulary
from ehrsim.evaluate.report import Metric

PATIENTS, DRAWS = 800, 40
CONTENT = {
    "shuffled": {
        "code_by_patient",
        "pair_by_patient",
        "sequence_by_visit",
        "sequence_by_patient",
        "lift_within_a_year",
        "trends",
        "lag_one",
        "sex=female",
        "sex=male",
        "age=18 to 39",
        "age=40 to 64",
        "features",
        "transitions",
        "density",
        "clipped_density",
        "coverage",
        "clipped_coverage",
        "survival",
    },
    "mortal": {"survival", "features"},
    "another sample": set(),
    "without women": {"composition", "sex=female", "features"},
    "copies": set(),
    "each twice": {"duplicates"},
}
CONTENT["independent"] = CONTENT["shuffled"] | {"pair_by_visit", "same_visit"}
CONTENT["marginals"] = CONTENT["independent"] | {"number", "code_by_visit"}
"""Parts of the names of the metrics that are to catch each generator."""
ALLOWED = {
    "shuffled": {
        "age=40 to 64",
        "density",
        "clipped_density",
        "coverage",
        "clipped_coverage",
        "survival",
        "repeated_trajectories",
    },
    "independent": {
        "age=40 to 64",
        "survival",
        "code_by_visit",
        "same_visit",
        "number/codes_per_visit",
        "repeated_trajectories",
    },
    "mortal": {"density", "clipped_density", "coverage", "clipped_coverage"},
    "marginals": {"age=40 to 64"},
    "without women": {"density", "clipped_density", "coverage", "clipped_coverage"},
    "each twice": {"repeated_trajectories", "coverage", "clipped_coverage", "features", "transitions"},
}
"""Those that may or may not: they see a part of it, and chance decides in so few patients."""


class Judged(NamedTuple):
    name: str
    metrics: list[Metric]

    @property
    def caught(self) -> set[str]:
        """The names of the metrics that are worse than those of real patients, clearly and beyond chance."""
        return {_name(metric) for metric in self.metrics if _caught(metric)}


def _caught(metric: Metric) -> bool:
    if metric.name.startswith("told_apart"):
        return metric.value > 0.65
    if metric.best == "high" or metric.excess_interval is None:
        worse = metric.floor - metric.value
        return worse > 0.05 * abs(metric.floor) and metric.excess_interval[1] < 0
    return metric.excess_interval[0] > 0 and metric.value > 2.2 * metric.floor + 0.01


def _name(metric: Metric) -> str:
    return re.sub(r"/(total_variation|r_squared)$|^subgroup/|^told_apart/", "", metric.name)


@pytest.fixture(scope="module")
def samples(world) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return world(PATIENTS, seed=1), world(PATIENTS, seed=2)


QUICK = ("another sample", "marginals")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else (pytest.mark.slow,)) for name in CONTENT],
)
def judged(request, world, samples, shuffled, independent) -> Judged:
    pytest.importorskip("sklearn")
    held_out, real = samples
    sample = world(PATIENTS, seed=3)
    made = {
        "another sample": lambda: sample,
        "shuffled": lambda: shuffled(sample),
        "independent": lambda: independent(sample),
        "marginals": lambda: marginal(sample, seed=5).lazy(),
        "mortal": lambda: world(PATIENTS, seed=3, mortality=0.9),
        "without women": lambda: _without_women(world(2 * PATIENTS, seed=3)),
        "copies": lambda: real,
        "each twice": lambda: _twice(real),
    }
    simulated = made[request.param]().collect().lazy()
    cohorts = Cohorts(held_out, real, simulated, marginal(real).lazy())
    weights = draw(cohorts, draws=DRAWS)
    return Judged(request.param, [*_fidelity(cohorts, weights), *diversity.section(cohorts, weights).metrics])


def _fidelity(cohorts: Cohorts, weights: Weights) -> list[Metric]:
    codes, described = vocabulary(*cohorts), descriptions(*cohorts[:3])
    counted = cohorts.each(lambda events: patterns(events, codes))
    return [
        *fidelity.of_patterns(counted, weights),
        *fidelity.of_lifts(cohorts, weights, codes, described),
        *fidelity.of_numbers(cohorts, weights),
        *fidelity.of_survival(cohorts, weights, described),
        *fidelity.of_measurements(cohorts, weights, described),
        *fidelity.of_subgroups(cohorts, weights, codes),
        *fidelity.of_rules(cohorts, weights, described),
        *fidelity.of_classifiers(cohorts, codes, described, seed=0),
    ]


def _without_women(table: pl.LazyFrame) -> pl.LazyFrame:
    women = table.filter(pl.col("code") == "GENDER//female").select("subject_id")
    return table.join(women, on="subject_id", how="anti", maintain_order="left")


def _twice(table: pl.LazyFrame) -> pl.LazyFrame:
    """Half of the patients of a table, and each again under another id."""
    half = table.filter(pl.col("subject_id") <= PATIENTS // 2)
    return pl.concat([half, half.with_columns(pl.col("subject_id") + PATIENTS)])


def test_each_generator_is_caught_by_what_should_catch_it_and_by_nothing_else(judged: Judged) -> None:
    allowed = ALLOWED.get(judged.name, set())
    expected = CONTENT[judged.name]

    def listed(name: str, names: set[str]) -> bool:
        return any(name == one or name.startswith(f"{one}/") for one in names)

    surplus = {name for name in judged.caught if not listed(name, expected | allowed)}
    missing = {one for one in expected - allowed if not any(listed(name, {one}) for name in judged.caught)}
    assert (surplus, missing) == (set(), set())


def test_copies_of_the_other_real_patients_are_exactly_at_the_floor(judged: Judged) -> None:
    """Nothing here tells copies of training patients from new ones: that takes the attacks of a privacy section."""
    if judged.name != "copies":
        pytest.skip("of the copies alone")
    for metric in judged.metrics:
        if not metric.name.startswith("told_apart"):
            assert metric.value == metric.floor, metric.name

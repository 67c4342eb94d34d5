"""HALO's six R squared, against a straightforward computation with sets and dictionaries by its definitions."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise, product

import polars as pl
import pytest

from ehrsim.evaluate.patterns import distances, patterns, vocabulary
from ehrsim.evaluate.resampling import once

Patient = list[set[str]]


def records(table: pl.LazyFrame) -> list[Patient]:
    """The visits of each patient as sets of codes, without the marks of visits and what is in none."""
    inside = table.filter(pl.col("visit_id").is_not_null() & ~pl.col("code").str.starts_with("VISIT_"))
    rows = inside.group_by("subject_id", "visit_id").agg(pl.col("code"), start=pl.col("time").min()).sort("start")
    found: dict[int, Patient] = {}
    for subject, codes in rows.collect().select("subject_id", "code").iter_rows():
        found.setdefault(subject, []).append(set(codes))
    return list(found.values())


def shares(patients: list[Patient]) -> dict[str, dict]:
    """The share of visits, of transitions and of patients with each code, pair and sequence."""
    visits, steps = sum(map(len, patients)), sum(len(patient) - 1 for patient in patients)
    by = {name: Counter() for name in ("code", "pair", "sequence")}
    ever = {name: Counter() for name in by}
    for patient in patients:
        shown = {
            "code": [code for visit in patient for code in visit],
            "pair": [pair for visit in patient for pair in combinations(sorted(visit), 2)],
            "sequence": [pair for before, after in pairwise(patient) for pair in product(before, after)],
        }
        for name, patterns_shown in shown.items():
            by[name].update(patterns_shown)
            ever[name].update(set(patterns_shown))
    occasions = {"code": visits, "pair": visits, "sequence": steps}
    return {
        **{f"{name}_by_visit": {key: n / occasions[name] for key, n in by[name].items()} for name in by},
        **{f"{name}_by_patient": {key: n / len(patients) for key, n in ever[name].items()} for name in by},
    }


def test_the_six_r_squared_are_those_of_halo(world, shuffled) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    real, other = world(150, seed=1), shuffled(world(170, seed=2))
    codes = vocabulary(real, other)
    counted = patterns(real, codes), patterns(other, codes)
    expected = shares(records(real)), shares(records(other))
    for kind in counted[0]._fields:
        keys = sorted(expected[0][kind].keys() | expected[1][kind].keys())
        truth, guess = ([each[kind].get(key, 0.0) for key in keys] for each in expected)
        found = distances(getattr(counted[0], kind), getattr(counted[1], kind), once(150), once(170))
        assert found.r_squared[0] == pytest.approx(metrics.r2_score(truth, guess), abs=1e-9), kind
        apart = sum(abs(a / sum(truth) - b / sum(guess)) for a, b in zip(truth, guess, strict=True)) / 2
        assert found.total_variation[0] == pytest.approx(apart, abs=1e-9), kind

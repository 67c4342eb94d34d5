"""The network reads the visits of a patient in order, and tells apart what differs in nothing but order."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from ehrsim import events


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("sequence_test")


def cohort(patients: int, order: Callable[[int], list[str]]) -> pl.LazyFrame:
    """Patients with a birth and a visit of one code a hundred days, the codes in some order."""
    rows = []
    for subject in range(1, patients + 1):
        rows.append({"subject_id": subject, "time": datetime(1980, 1, 1), "code": "MEDS_BIRTH"})
        for visit, code in enumerate(order(subject)):
            when = datetime(2000, 1, 1) + timedelta(days=100 * visit)
            rows.append({"subject_id": subject, "time": when, "code": code, "visit_id": visit + 1})
    return events.sort(events.conform(pl.DataFrame(rows, infer_schema_length=None)).lazy()).collect().lazy()


def test_visits_stand_in_order_with_gap_age_and_number(script: ModuleType) -> None:
    table = cohort(2, lambda subject: ["A", "B"] if subject == 1 else [])
    found = script.sequences(table, pl.Series("code", ["A", "B"]))
    assert found.rows.tolist() == [[0, 1], [2, 2]], "the third is of no visit"
    assert found.codes[:, :2].toarray().tolist() == [[1, 0], [0, 1], [0, 0]]
    assert found.codes[:, 2:].toarray().sum(axis=1).tolist() == [1, 1, 0], "one code of one kind"
    gap, age, known, number = found.numbers.T
    assert gap == pytest.approx([0, np.log(101) / 4, 0])
    assert 50 * age[:2] == pytest.approx([20, 20 + 100 / 365.25], abs=0.01)
    assert known.tolist() == [1, 1, 0] and number == pytest.approx([np.log(2), np.log(2), 0])


def test_only_the_last_visits_are_read(script: ModuleType) -> None:
    table = cohort(1, lambda _: ["A"] * (script.MOST_VISITS + 2))
    assert script.sequences(table, pl.Series("code", ["A"])).rows[0].tolist() == list(range(2, script.MOST_VISITS + 2))


def test_what_follows_the_last_visit_changes_nothing(script: ModuleType) -> None:
    rng = np.random.default_rng(1)
    table = cohort(3, lambda subject: ["A", "B"] * subject)
    data = script.sequences(table, pl.Series("code", ["A", "B"]))
    ((_, batch),) = script._batches(data, np.zeros(3, bool), np.arange(3))
    parameters = script.initial(data.codes.shape[1], rng)
    noise = np.where(np.asarray(batch.present)[..., None], np.float32(0), np.float32(3))
    noisy = batch._replace(numbers=batch.numbers + noise)
    assert np.asarray(script.logits(parameters, noisy)) == pytest.approx(np.asarray(script.logits(parameters, batch)))


@pytest.mark.slow
def test_order_alone_tells_cohorts_apart(script: ModuleType) -> None:
    """Both have three visits with either code; a bag of codes cannot tell them apart."""
    rng = np.random.default_rng(1)

    def alternating(_: int) -> list[str]:
        return ["A", "B"] * 3 if rng.random() < 0.5 else ["B", "A"] * 3

    real, another = cohort(150, alternating), cohort(150, alternating)
    shuffled = cohort(150, lambda _: rng.permutation(["A", "B"] * 3).tolist())
    vocabulary = script.commonest(real, shuffled)
    assert vocabulary.to_list() == ["A", "B"]
    assert script.told_apart(real, shuffled, vocabulary).value > 0.85
    assert 0.3 < script.told_apart(real, another, vocabulary).value < 0.7

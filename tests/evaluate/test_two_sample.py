"""Areas under ROC curves by hand, features of patients, and what gives a cohort away."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ehrsim.errors import MissingExtraError
from ehrsim.evaluate.features import Features, features, plan
from ehrsim.evaluate.two_sample import area, classifier, cross_validated_area, folds, told_apart


def cohort(seed: int, shift: float = 0.0, size: int = 200) -> Features:
    rng = np.random.Generator(np.random.Philox(key=seed))
    matrix = rng.normal(size=(size, 4))
    matrix[:, 2] += shift
    matrix[rng.random((size, 4)) < 0.1] = np.nan
    return Features(["a", "b", "c", "d"], matrix)


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    score, label = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    assert area(score, label) == (3 + 0.5) / 4
    assert area(-score, label) == 1 - 3.5 / 4


def test_the_area_of_folds_is_their_mean_with_an_interval_about_it() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    label, fold = np.repeat([False, True], 300), folds(300, 5)
    score = rng.normal(size=600) + label + 100 * fold
    found = cross_validated_area(score, label, fold, draws=500)
    by_fold = [area(score[fold == number], label[fold == number]) for number in range(5)]
    assert found.value == pytest.approx(np.mean(by_fold)), "scores of different folds are not compared"
    # Hanley and McNeil 1982 (Radiology 143:29) give the standard error of an area.
    a, n = found.value, 300
    q = (n - 1) * (a / (2 - a) + 2 * a * a / (1 + a) - 2 * a * a)
    error = 1.96 * np.sqrt((a * (1 - a) + q) / n**2)
    assert (found.interval[1] - found.interval[0]) / 2 == pytest.approx(error, rel=0.2)
    perfect = cross_validated_area(label.astype(float), label, fold)
    assert (perfect.value, *perfect.interval) == pytest.approx((1, 1, 1))


def test_folds_hold_as_many_of_each_cohort() -> None:
    fold = folds(7, 3)
    assert np.bincount(fold[:7]).tolist() == np.bincount(fold[7:]).tolist() == [3, 2, 2]


def test_the_feature_that_differs_gives_a_cohort_away() -> None:
    pytest.importorskip("sklearn")
    found = told_apart(cohort(1), cohort(2, shift=2.0), clues=True)
    assert found.auc.value > 0.85
    assert found.patients == 200
    assert found.clues[0].name == "c" and found.clues[0].lost > 0.3
    assert found.clues[0].other - found.clues[0].real == pytest.approx(2, abs=0.3)


def test_like_cohorts_are_not_told_apart_and_as_many_of_each_are_taken() -> None:
    pytest.importorskip("sklearn")
    found = told_apart(cohort(1, size=300), cohort(2, size=150))
    assert found.patients == 150 and found.clues == []
    assert found.auc.interval[0] < 0.5 < found.auc.interval[1] + 0.03
    assert found == told_apart(cohort(1, size=300), cohort(2, size=150)), "the same seed, the same figure"


def test_what_is_known_of_nobody_tells_nothing() -> None:
    pytest.importorskip("sklearn")
    first, second = (cohort(seed)._replace(names=["a", "b", "c", "unknown"]) for seed in (1, 2))
    for features_ in (first, second):
        features_.matrix[:, 3] = np.nan
    found = told_apart(first, second, clues=True)
    assert 0.35 < found.auc.value < 0.65
    assert "unknown" not in {clue.name for clue in found.clues}


def test_scikit_learn_is_an_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrsim\[evaluate\]'"):
        classifier(seed=0)


def test_features_are_the_same_for_every_cohort(world) -> None:
    first, second = world(20, seed=1), world(30, seed=2)
    planned = plan(first, second)
    tables = [features(events, planned) for events in (first, second)]
    assert tables[0].names == tables[1].names
    assert len(set(tables[0].names)) == len(tables[0].names)
    assert [table.matrix.shape for table in tables] == [(20, len(tables[0].names)), (30, len(tables[0].names))]


def test_features_are_those_counted_by_hand(world) -> None:
    events = world(20, seed=1)
    found = features(events, plan(events))
    told = dict(zip(found.names, found.matrix[4], strict=True))
    own = events.collect().filter(subject_id=5)
    glycated = own.filter(code="LOINC//4548-4")["numeric_value"].to_numpy()
    visits = own.filter(code="VISIT_START//AMB").height
    assert told["visits"] == visits
    assert told["died"] == ("MEDS_DEATH" in own["code"])
    assert told["male"] == ("GENDER//male" in own["code"])
    assert told["count of LOINC//4548-4"] == visits
    assert told["events of kind observation"] == 2 * visits
    assert told["last LOINC//4548-4"] == pytest.approx(glycated[-1])
    assert told["mean LOINC//4548-4"] == pytest.approx(glycated.mean())
    assert told["deviation LOINC//4548-4"] == pytest.approx(glycated.std(ddof=1), rel=1e-4)
    assert 20 <= told["age at start"] <= told["age at end"] <= 65

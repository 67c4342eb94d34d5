"""Membership inference from scores: AUC as scikit-learn's, exact rates, no gain from choosing among many attacks."""

from __future__ import annotations

import numpy as np
import pytest

from ehrsim.errors import InputError
from ehrsim.evaluate.membership import area_of, infer
from ehrsim.evaluate.two_sample import cross_validated_area

MEMBER = np.repeat([True, False], [400, 300])


def noise(key: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=key)).normal(size=len(MEMBER))


def test_the_area_of_each_attack_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = {"good": noise(1) + 1.5 * MEMBER, "coarse": np.round(noise(2) + MEMBER), "none": noise(3)}
    found = infer(scores, MEMBER)
    for name, score in scores.items():
        assert found.by_attack[name].value == pytest.approx(metrics.roc_auc_score(MEMBER, score), abs=1e-12)
    assert found.chosen == {"good": 1.0}
    assert found.auc.value == pytest.approx(metrics.roc_auc_score(MEMBER, scores["good"]), abs=0.01)
    assert found.auc.interval[0] > 0.7 and not found.passes


def test_the_interval_of_an_area_is_that_of_patients_drawn_again() -> None:
    score = noise(1) + 0.7 * MEMBER
    found = area_of(score, MEMBER)
    drawn = cross_validated_area(score, MEMBER, np.zeros(len(MEMBER), np.int64), draws=2_000)
    assert found.value == pytest.approx(drawn.value, abs=1e-12)
    assert found.interval == pytest.approx(drawn.interval, abs=0.004)
    chosen = infer({"a": score, "b": noise(2)}, MEMBER)
    assert chosen.auc.interval == pytest.approx(found.interval, abs=0.01), "one clearly better attack costs no choice"


def test_the_best_of_many_useless_attacks_looks_good_but_is_not_counted_so() -> None:
    scores = {str(number): noise(number) for number in range(40)}
    corrected, naive = [], []
    for seed in range(6):
        found = infer(scores, MEMBER, seed=seed)
        corrected.append(found.auc.value)
        naive.append(max(area.value for area in found.by_attack.values()))
    assert min(naive) > 0.535
    assert np.mean(corrected) == pytest.approx(0.5, abs=0.02)


def test_useless_scores_pass_and_have_rates_of_chance() -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    member = np.repeat([True, False], 2_000)
    scores = {name: rng.normal(size=4_000) for name in ("a", "b", "c")}
    found = infer({name: scores[name] for name in ("a", "b")}, member, blind={"c": scores["c"]})
    assert found.passes
    assert found.auc.interval[0] < 0.5 < found.auc.interval[1]
    assert found.blind.interval[0] < 0.5 < found.blind.interval[1]
    for detection, aim in zip(found.detections, (0.01, 0.001), strict=True):
        assert detection.false_positive_rate == aim
        assert detection.resolved
        assert detection.found.low <= 1.5 * aim and detection.found.high >= aim / 1.5
        assert detection.accused.low <= aim <= detection.accused.high


def test_attacks_that_disagree_accuse_as_many_as_they_aim_at() -> None:
    rng = np.random.Generator(np.random.Philox(key=6))
    member = np.repeat([True, False], 4_000)
    found = infer({str(number): rng.normal(size=8_000) for number in range(8)}, member)
    assert len(found.detections[0].chosen) > 2
    for one in (found.detections[0].accused, found.detections[0].found):
        assert one.low <= 0.012 and one.high >= 0.008
        assert one.value == pytest.approx(0.01, abs=0.004)


def test_a_few_members_who_stand_out_are_found_at_a_low_rate_though_the_area_is_small() -> None:
    score = noise(5)
    score[:40] = 100.0
    found = infer({"leak": score, "other": noise(6)}, MEMBER)
    assert found.auc.value < 0.6
    assert found.detections[0].chosen == {"leak": 1.0}
    assert found.detections[0].found.successes >= 40
    assert found.detections[0].accused.value <= 0.01
    assert not found.detections[1].resolved, "300 others show no rate of one in a thousand"
    assert not found.passes


def test_groups_are_judged_by_themselves_and_small_ones_are_named() -> None:
    sex = np.where(np.arange(len(MEMBER)) % 2 == 0, "female", "male")
    race = np.where(np.arange(len(MEMBER)) % 40 == 0, "few", "")
    found = infer({"leak": noise(7) + 2 * (MEMBER & (sex == "male"))}, MEMBER, groups={"sex": sex, "race": race})
    by_name = {group.name: group for group in found.groups}
    assert by_name["male"].auc.value > 0.85
    assert by_name["female"].auc.interval[0] < 0.5 < by_name["female"].auc.interval[1]
    assert (by_name["male"].members, by_name["male"].non_members) == (200, 150)
    assert found.too_few == ["race: few"]
    assert [group.name for group in found.exposed] == ["male"]


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match="19 members and 300 others are too few"):
        infer({"a": np.zeros(319)}, np.repeat([True, False], [19, 300]))
    with pytest.raises(InputError, match="attack `a`"):
        infer({"a": np.where(MEMBER, np.nan, 0.0)}, MEMBER)


def test_the_seed_alone_decides() -> None:
    scores = {"a": noise(8) + 0.2 * MEMBER, "b": noise(9)}
    assert infer(scores, MEMBER, seed=3) == infer(scores, MEMBER, seed=3)
    assert infer(scores, MEMBER, seed=3) != infer(scores, MEMBER, seed=4)

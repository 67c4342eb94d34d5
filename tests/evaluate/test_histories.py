"""Tokens, runs of visits and nearest records, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ehrsim.evaluate import histories
from ehrsim.evaluate.histories import Tokens, matrices, nearest, run_keys, some
from ehrsim.evaluate.patterns import vocabulary
from ehrsim.evaluate.resampling import subjects


def test_runs_are_equal_where_their_visits_are() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    patient = np.sort(rng.integers(0, 12, 60))
    kind = rng.integers(0, 3, 60)
    keys = np.array([11, 222, 3333], np.uint64)[kind]
    begun = None
    for length in range(1, 6):
        begun, owner = run_keys(keys, patient, length, begun)
        places = [at for at in range(60 - length + 1) if patient[at] == patient[at + length - 1]]
        assert owner.tolist() == [patient[at] for at in places]
        runs = [tuple(kind[at : at + length]) for at in places]
        assert len(set(runs)) == len(np.unique(begun))
        assert len(set(zip(runs, begun.tolist(), strict=True))) == len(set(runs))
        again, _ = run_keys(keys, patient, length)
        assert again.tolist() == begun.tolist(), "also without the shorter ones given"


def test_similarity_is_the_cosine_of_weighted_tokens() -> None:
    first = Tokens(np.array([0, 0, 1]), np.array([5, 7, 7], np.uint64), np.array([1.0, 2.0, 1.0]), 2)
    second = Tokens(np.array([0, 0]), np.array([7, 9], np.uint64), np.ones(2), 1)
    left, right = matrices(first, second)
    rarity = {5: np.log(4 / 1), 7: np.log(4 / 3), 9: np.log(4 / 1)}
    a, b = np.array([rarity[5], 2 * rarity[7], 0]), np.array([0, rarity[7], rarity[9]])
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert (left @ right.T).toarray()[0, 0] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(left.multiply(left).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("columns", [30, 3_000])
def test_the_nearest_are_those_of_a_full_sort(columns: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=2))
    base, queries = (
        sparse.random_array((size, columns), density=20 / columns, rng=rng, format="csr") for size in (300, 270)
    )
    base, queries = base.astype(np.float32), queries.astype(np.float32)
    full = (queries @ base.T).toarray()
    found = nearest(queries, base, 3)
    np.testing.assert_allclose(found.similarity, -np.sort(-full, axis=1)[:, :3], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(full, found.place, 1), found.similarity, rtol=1e-5, atol=1e-7)
    own = nearest(base, base, itself=True)
    assert (own.place[:, 0] != np.arange(300)).all()


def test_onsets_are_first_occurrences_at_an_age(world) -> None:
    events = world(30, seed=1)
    known = vocabulary(events)
    told = histories.histories(events, known)
    tokens = histories.onset_tokens(told)
    frame = events.collect()
    for place, subject in enumerate(told.person["subject_id"].to_list()):
        own = frame.filter(subject_id=subject)
        born = own.filter(code="MEDS_BIRTH")["time"][0]
        expected = set()
        for code in known:
            times = own.filter(code=code)["time"]
            if len(times):
                # The moment is that of the visit, whose events all begin with it here.
                age = int((times.min() - born).total_seconds() // (365.25 * 86_400))
                expected.add(known.to_list().index(code) * histories.AGES + age + 200)
        assert set(tokens.key[tokens.patient == place].tolist()) == expected


def test_some_patients_are_whole_and_the_same_each_time(world) -> None:
    events = world(50, seed=2)
    few = some(events, 20, seed=1)
    assert len(subjects(few)) == 20
    assert some(events, 20, seed=1).collect().equals(few.collect())
    assert not some(events, 20, seed=2).collect().equals(few.collect())
    whole = events.select(histories.COLUMNS).collect()
    assert few.collect().equals(whole.filter(whole["subject_id"].is_in(subjects(few).implode())))
    assert some(events, 50).collect().equals(whole)
    assert some(events, 20, seed=1, columns=["code", "subject_id"]).collect_schema().names() == ["code", "subject_id"]


def test_numbers_are_counts_means_and_facts(world) -> None:
    events = world(30, seed=3)
    told = histories.histories(events, vocabulary(events))
    columns = histories.commonest(told)
    found = histories.numbers(told, columns)
    frame = events.collect()
    names = told.codes.gather(columns).to_list()
    glucose = names.index("LOINC//2345-7")
    values = 6 + len(columns)
    assert found.shape == (30, values + len(columns))
    assert np.isfinite(found[:, values:]).any(axis=0).tolist() == [name.startswith("LOINC") for name in names]
    for place, subject in enumerate(told.person["subject_id"].to_list()):
        own = frame.filter(subject_id=subject)
        assert found[place, 2] == (own["code"] == "GENDER//male").any()
        assert found[place, 4] == own["visit_id"].n_unique() - 1, "null is the visit of facts"
        measured = own.filter(code="LOINC//2345-7")["numeric_value"]
        assert found[place, 6 + glucose] == len(measured)
        assert found[place, values + glucose] == pytest.approx(measured.mean(), rel=1e-6)


def test_groups_are_sex_age_and_race(world) -> None:
    person = histories.person(world(40, seed=4))
    found = histories.groups(person)
    assert set(found["sex"]) == {"female", "male"}
    assert set(found["race"]) == {""}
    for age, band in zip(person["age"], found["age"], strict=True):
        low, _, high = band.replace("80 and older", "80 to 999").partition(" to ")
        assert int(low) <= age < int(high) + 1

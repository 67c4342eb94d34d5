"""Singling out, linkability and attribute inference: copies are caught, other patients are not, predicates by hand."""

from __future__ import annotations

import sys

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from ehrsim.errors import InputError, MissingExtraError
from ehrsim.evaluate import disclosure, histories
from ehrsim.evaluate.disclosure import Disclosure
from ehrsim.evaluate.exact import Risk
from ehrsim.evaluate.patterns import vocabulary

pytest.importorskip("sklearn")
PATIENTS = 300
CODES = ["ICD10CM//J06.9", "ICD10CM//E11.9"]


@pytest.fixture(scope="module")
def real(rich) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return rich(PATIENTS, seed=1), rich(PATIENTS, seed=2)


@pytest.fixture(scope="module")
def copied(real) -> Disclosure:
    return disclosure.disclosure(*real, real[0], guessed=CODES)


@pytest.fixture(scope="module")
def other(real, rich) -> Disclosure:
    return disclosure.disclosure(*real, rich(PATIENTS, seed=3), guessed=CODES)


def risks(found: Disclosure) -> dict[str, Risk]:
    return {
        "univariate": found.singling_out.univariate,
        "multivariate": found.singling_out.multivariate,
        "linkability": found.linkability.risk,
        "nearest": found.attribute_inference.overall["nearest"],
    }


def test_every_attack_catches_training_patients_handed_out(copied) -> None:
    for name, risk in risks(copied).items():
        assert risk.low > 0.3, name
        assert risk.low < risk.value <= risk.high, name


def test_no_attack_catches_other_real_patients(other) -> None:
    for name, risk in risks(other).items():
        assert risk.low <= 0 <= risk.high, name
    assert other.attribute_inference.overall["classifier"].low <= 0


def test_what_the_data_tells_of_anybody_is_no_leak(other) -> None:
    # Metformin goes with diabetes, and sugar in the blood: a good generator tells so.
    guess = next(g for g in other.attribute_inference.guesses if (g.code, g.attack) == (CODES[1], "classifier"))
    assert guess.learned > 0.5
    assert guess.risk.attack.value <= guess.risk.control.value + 0.05


def test_a_part_of_copies_gives_a_part_of_the_risk(real, rich, copied) -> None:
    few = real[0].filter(pl.col("subject_id") <= 75).with_columns(pl.col("subject_id") + 10_000)
    found = disclosure.disclosure(*real, pl.concat([rich(225, seed=3), few]), guessed=CODES)
    for name in ("multivariate", "linkability"):
        assert 0 < risks(found)[name].value < 0.6 * risks(copied)[name].value, name
    assert found.singling_out.multivariate.low > 0


def test_predicates_isolate_as_a_loop_says() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    dense = rng.random((60, 12)) < 0.3
    predicates = [rng.permutation(12)[: rng.integers(1, 4)] for _ in range(200)]
    found = disclosure._isolation(predicates, sparse.csr_matrix(dense.astype(np.float32)), 40)
    members = others = 0
    for parts in predicates:
        holds = np.flatnonzero(dense[:, parts].all(axis=1))
        members += len(holds) == 1 and holds[0] < 40
        others += len(holds) == 1 and holds[0] >= 40
    assert members > 5 and others > 2
    assert (found.attack.successes, found.control.successes) == (members, others)
    assert found.control.value == pytest.approx(others / 200 * 2), "there are twice as many members"


def test_conjunctions_hold_for_one_synthetic_patient_and_need_every_part(world) -> None:
    events = world(80, seed=5)
    told = histories.histories(events, vocabulary(events))
    [held] = disclosure._binary([disclosure._parts(told)])
    found = disclosure._conjunctions(held, 100, np.random.Generator(np.random.Philox(key=2)))
    dense = held.toarray() > 0
    assert len(found) > 80
    for parts in found:
        assert 2 <= len(parts) <= disclosure.MOST_PARTS
        assert dense[:, parts].all(axis=1).sum() == 1
        if len(parts) > 2:
            assert dense[:, parts[:-1]].all(axis=1).sum() > 1


def test_what_cannot_be_asked_is_refused(real) -> None:
    with pytest.raises(InputError, match="no synthetic patient has the code `LOINC//0`"):
        disclosure.disclosure(*real, real[0], guessed=["LOINC//0"])
    with pytest.raises(InputError, match="the synthetic have no codes in visits"):
        disclosure.disclosure(*real, real[0].filter(pl.col("code") == "MEDS_BIRTH"))


def test_scikit_learn_is_an_extra(real, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrsim\[evaluate\]'"):
        disclosure.disclosure(*real, real[0], guessed=CODES)

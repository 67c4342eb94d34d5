"""Precursors: what follows what, told apart from what just comes with age, in records with a known truth."""

from math import log

import numpy as np
import polars as pl
import pytest

from ehrsim import codes, events
from ehrsim.preparation import prepare
from ehrsim.visits.precursors import with_precursors

DISEASE, WRINKLES, GREY = "ICD10CM//E03.9", "ICD10CM//L98.8", "ICD10CM//L67.1"
DRUGS = ("RxNorm//966222", "RxNorm//966224", "RxNorm//966225")
WITH, WITHOUT = 0.3, 0.01
"""Chance that the first of the drugs, any of which may be taken, begins at a visit, with and without the disease."""
PATIENTS = 1_500


def record(subject: int, rng: np.random.Generator) -> list[tuple]:
    """A visit a year for eight to twelve years; wrinkles and grey hair come with age, each for itself."""
    birth = np.datetime64("1950-01-01T00:00", "m")
    start, ill, treated = int(rng.integers(20, 70)), False, False

    def row(when, code, visit=None) -> tuple:
        return subject, None if when is None else when.astype("datetime64[us]").item(), code, *[None] * 3, visit, None

    rows = [row(birth, codes.BIRTH), row(None, "GENDER//female")]
    for visit in range(int(rng.integers(8, 13))):
        age = start + visit
        when = birth + np.timedelta64(age * 365 * 1440 + int(rng.integers(0, 300)) * 1440, "m")
        rows.append(row(when, "VISIT_START//AMB", visit))
        if not ill and rng.random() < 0.03:
            ill = True
            rows.append(row(when, DISEASE, visit))
        if not treated and rng.random() < (WITH if ill else WITHOUT):
            treated = True
            rows.append(row(when, DRUGS[rng.integers(3)], visit))
        rows += [row(when, code, visit) for code in (WRINKLES, GREY) if rng.random() < 1 / (1 + np.exp(5 - age / 12))]
    return rows


@pytest.fixture(scope="module")
def known():
    rng = np.random.Generator(np.random.Philox(key=5))
    rows = [row for subject in range(1, PATIENTS + 1) for row in record(subject, rng)]
    frame = pl.DataFrame(rows, schema=list(events.SCHEMA), orient="row", infer_schema_length=None)
    frame = events.sort(events.conform(frame).lazy()).collect()
    return prepare(frame, min_patients=1, steps_per_batch=512)


def test_the_cause_is_found_with_its_odds(known):
    names = {index: entry.code for entry, index in known.vocabulary.index.items()}
    found = {(names.get(pair.before), names[pair.code]): pair.weight for pair in known.sizes.precursors}
    assert {pair for pair, weight in found.items() if weight > 0} == {(DISEASE, drug) for drug in DRUGS}
    truth = log(WITH / 3 / (1 - WITH / 3)) - log(WITHOUT / 3 / (1 - WITHOUT / 3))
    for drug in DRUGS:
        assert found[DISEASE, drug] == pytest.approx(truth, abs=0.8)


def test_drugs_for_one_disease_make_a_class_and_keep_each_other_away(known):
    index = {entry.code: number for entry, number in known.vocabulary.index.items()}
    drugs = tuple(sorted(index[drug] for drug in DRUGS))
    assert known.sizes.classes == (drugs,)
    kept_away = {pair.code: pair.weight for pair in known.sizes.precursors if pair.before == known.sizes.vocabulary}
    assert kept_away.keys() == set(drugs)
    assert max(kept_away.values()) < -2


def test_the_search_is_the_same_again(known):
    assert with_precursors(known.sizes, known.train) == known.sizes


def test_what_never_comes_with_its_cause_is_told_apart(known):
    """In the records drugs begin with the disease as later on; without those that do, later on is as before."""
    codes_of = {entry.code: number for entry, number in known.vocabulary.index.items()}
    disease, drugs = codes_of[DISEASE], [codes_of[drug] for drug in DRUGS]
    together = known.train.visit.codes.copy()
    came = (together == disease).any(1)
    together[came] = np.where(np.isin(together[came], drugs), 0, together[came])
    without = known.train._replace(visit=known.train.visit._replace(codes=together))
    for steps, least, most in ((known.train, -1.0, 1.0), (without, -9.0, -2.0)):
        pairs = [pair for pair in with_precursors(known.sizes, steps).precursors if pair.before == disease]
        assert {pair.code for pair in pairs} == set(drugs)
        assert all(pair.weight > 2 and least < pair.at_once < most for pair in pairs)


def test_few_patients_have_none(known):
    few = known.train._replace(step_offsets=known.train.step_offsets[:10], outcome=known.train.outcome[:9])
    assert with_precursors(known.sizes, few).precursors == ()


def test_only_what_comes_before_in_a_step_can_lead_to_a_code(known):
    """Records turned round: no first of the disease is led to by its drug in the very step, for that comes after."""
    index = known.vocabulary.index
    codes_of = {entry.code: number for entry, number in index.items()}
    drug = codes_of[DRUGS[0]]
    assert codes_of[DISEASE] < drug
    together = known.train.visit.codes.copy()
    together[(together == codes_of[DISEASE]).any(1)] = 0
    row = np.flatnonzero((known.train.visit.codes == codes_of[DISEASE]).any(1))
    together[row, 0], together[row, 1] = codes_of[DISEASE], drug
    steps = known.train._replace(visit=known.train.visit._replace(codes=together))
    pairs = {(pair.before, pair.code) for pair in with_precursors(known.sizes, steps).precursors}
    assert (codes_of[DISEASE], drug) in pairs
    assert (drug, codes_of[DISEASE]) not in pairs

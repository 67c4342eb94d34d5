"""Patterns of codes against counts by hand."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from ehrsim import events
from ehrsim.evaluate.patterns import aligned, distances, patterns, total_variation, vocabulary
from ehrsim.evaluate.prevalence import r_squared


def cohort(*patients):
    """Each patient a list of visits, each a string of one-letter codes."""
    rows = []
    for subject, visits in enumerate(patients, 1):
        rows.append({"subject_id": subject, "code": "GENDER//male", "time": None})
        for number, codes in enumerate(visits, 1):
            time = datetime(2020, 1, number)
            rows.append({"subject_id": subject, "code": "VISIT_START//AMB", "time": time, "visit_id": number})
            rows += [{"subject_id": subject, "code": code, "time": time, "visit_id": number} for code in codes]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return events.sort(events.conform(frame).lazy())


REAL = cohort(["AB", "AB", "C"], ["A", "BC"], [])


def shares(counts, codes):
    """Shares by code."""
    names = [codes[key] for key in counts.pattern]
    return dict(zip(names, counts.shares().round(6).tolist(), strict=True))


@pytest.fixture(scope="module")
def found():
    return patterns(REAL, vocabulary(REAL))


def test_codes_are_shares_of_visits_and_of_patients(found):
    letters = list("ABC")
    assert shares(found.code_by_visit, letters) == {"A": 0.6, "B": 0.6, "C": 0.4}
    assert shares(found.code_by_patient, letters) == pytest.approx({"A": 2 / 3, "B": 2 / 3, "C": 2 / 3}, abs=1e-6)


def test_pairs_of_a_visit_have_no_order(found):
    assert found.pair_by_visit.pattern.tolist() == [0 * 3 + 1, 1 * 3 + 2]
    assert found.pair_by_visit.shares().tolist() == [0.4, 0.2]
    assert found.pair_by_patient.shares().tolist() == pytest.approx([1 / 3, 1 / 3])


def test_sequences_go_from_a_visit_to_the_next_of_the_same_patient(found):
    by_visit = dict(zip(found.sequence_by_visit.pattern.tolist(), found.sequence_by_visit.shares(), strict=True))
    expected = {"AA": 1, "AB": 2, "AC": 2, "BA": 1, "BB": 1, "BC": 1}
    letters = "ABC"
    assert {letters[key // 3] + letters[key % 3]: share for key, share in by_visit.items()} == pytest.approx(
        {name: number / 3 for name, number in expected.items()}
    )
    assert found.sequence_by_patient.shares().max() == pytest.approx(2 / 3), "A then B in both patients who return"


def test_a_patient_can_count_several_times(found):
    weight = np.array([0.0, 2.0, 1.0])
    assert found.code_by_visit.shares(weight).tolist() == pytest.approx([2 / 4, 2 / 4, 2 / 4])
    assert found.code_by_patient.shares(weight).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3])


def test_two_cohorts_are_compared_over_the_patterns_of_either():
    other = cohort(["D"], ["A"])
    codes = vocabulary(REAL, other)
    assert codes.to_list() == ["A", "B", "C", "D"]
    real, synthetic = aligned(patterns(REAL, codes).code_by_visit, patterns(other, codes).code_by_visit)
    assert real.tolist() == [0.6, 0.6, 0.4, 0]
    assert synthetic.tolist() == [0.5, 0, 0, 0.5]
    assert total_variation(real, synthetic) == pytest.approx((0.125 + 0.375 + 0.25 + 0.5) / 2)
    assert total_variation(real, np.zeros(4)) == 1


def test_what_is_dated_before_its_visit_is_not_of_it():
    early = pl.DataFrame({"subject_id": [1], "code": ["Z"], "time": [datetime(2019, 5, 5)], "visit_id": [1]})
    table = events.sort(pl.concat([REAL, events.conform(early).lazy()]))
    codes = vocabulary(table)
    counted = patterns(table, codes)
    assert codes.to_list() == ["A", "B", "C", "Z"]
    assert counted.pair_by_visit.pattern.tolist() == [0 * 4 + 1, 1 * 4 + 2], "Z goes with nothing"
    assert counted.code_by_visit.occasions.tolist() == [4, 2, 0]


def test_a_cohort_without_visits_has_no_patterns():
    counted = patterns(cohort([], []), pl.Series("code", [], pl.String))
    assert all(len(counts.pattern) == 0 for counts in counted)


def test_distances_by_weight_are_those_of_the_patients_left():
    other, fewer = cohort(["AB"], ["C", "AC"], ["B"]), cohort(["AB", "AB", "C"], [])
    codes = vocabulary(REAL, other)
    truth, left, simulated = (patterns(table, codes) for table in (REAL, fewer, other))
    for kind in truth._fields:
        weights = np.array([[1.0, 1, 1], [1, 0, 1]]), np.ones((2, 3))
        found = distances(getattr(truth, kind), getattr(simulated, kind), *weights)
        for row, real in enumerate((truth, left)):
            shares = aligned(getattr(real, kind), getattr(simulated, kind))
            assert found.total_variation[row] == pytest.approx(total_variation(*shares))
            expected = r_squared(*shares)
            assert found.r_squared[row] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)

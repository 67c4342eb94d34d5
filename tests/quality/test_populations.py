"""Who is in the populations of measures: windows, values, ages, and against a reading event by event."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrsim import events, reference
from ehrsim.quality import Library, load_measures, membership, period_of, reference_date
from ehrsim.quality.definitions import parse
from ehrsim.quality.populations import Tally, months_before, tally

REFERENCE = datetime(2024, 3, 1)
DAY = timedelta(days=1)


def _table(rows) -> pl.DataFrame:
    columns = ("subject_id", "time", "code", "numeric_value", "unit", "end_time")
    frame = pl.DataFrame([dict(zip(columns, row, strict=False)) for row in rows], infer_schema_length=None)
    return events.sort(events.conform(frame).lazy()).collect()


def _person(*rows, subject=1, born=datetime(1970, 1, 1), seen=datetime(2024, 2, 1)):
    basis = [(subject, born, "MEDS_BIRTH"), (subject, seen, "VISIT_START//AMB")]
    return basis + [(subject, *row) for row in rows]


def _library(numerator, denominator="", ages="[18, 76]") -> Library:
    return parse(
        f"""
        [codes]
        sugar = ["LOINC//4548-4"]
        diabetes = ["ICD10CM//E11*"]
        drug = ["RxNorm//617310"]
        [[measure]]
        name = "one"
        title = "One"
        description = "One."
        improvement = "increase"
        kind = "process"
        ages = {ages}
        denominator = [{denominator}]
        numerator = [{numerator}]
        """,
        "one.toml",
    )


def _met(library, rows) -> bool:
    members = membership(_table(rows), library, REFERENCE)["one"]
    return bool(members["numerator"].item())


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (datetime(2023, 3, 1) - timedelta(microseconds=1), False),
        (datetime(2023, 3, 1), True),
        (REFERENCE - timedelta(microseconds=1), True),
        (REFERENCE, False),
        (None, False),
    ],
)
def test_a_window_is_half_open(time, expected):
    assert _met(_library('{ codes = "sugar", months = 12 }'), _person((time, "LOINC//4548-4", 7.0, "%"))) is expected


def test_without_a_window_whatever_is_known_before_the_date_counts():
    library = _library('{ codes = "diabetes" }')
    assert [_met(library, _person((time, "ICD10CM//E11.9"))) for time in (datetime(1999, 1, 1), None, REFERENCE)] == [
        True,
        True,
        False,
    ]
    assert not _met(library, _person((datetime(1999, 1, 1), "REASON//ICD10CM//E11.9")))


@pytest.mark.parametrize(
    ("begin", "end", "ongoing", "expected"),
    [
        (2010, None, True, True),
        (2010, None, False, False),
        (2010, datetime(2023, 2, 28), True, False),
        (2010, datetime(2023, 3, 1), False, True),
    ],
)
def test_an_order_in_force_counts_though_it_began_earlier(begin, end, ongoing, expected):
    numerator = f'{{ codes = "drug", months = 12, ongoing = {str(ongoing).lower()} }}'
    rows = _person((datetime(begin, 1, 1), "RxNorm//617310", None, None, end))
    assert _met(_library(numerator), rows) is expected


LATEST = '{ codes = "sugar", months = 12, latest = { unit = "%", above = 9.0 }, or_none = true }'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], True),
        ([(1, 9.0, "%")], False),
        ([(1, 9.1, "%")], True),
        ([(1, 9.1, "%"), (2, 8.0, "%")], False),
        ([(2, 8.0, "%"), (2, 9.5, "%")], True),
        ([(1, 8.0, "%"), (2, 75.0, "mmol/mol")], False),
        ([(1, 75.0, "mmol/mol")], True),
        ([(1, None, "%")], True),
        ([(-400, 8.0, "%")], True),
    ],
)
def test_the_latest_value_of_the_window_in_its_unit_decides(values, expected):
    base = datetime(2024, 1, 1)
    rows = _person(*((base + DAY * day, "LOINC//4548-4", value, unit) for day, value, unit in values))
    assert _met(_library(LATEST), rows) is expected


@pytest.mark.parametrize(
    ("born", "expected"),
    [(datetime(2006, 3, 1), 1), (datetime(2006, 3, 2), 0), (datetime(1948, 3, 2), 1), (datetime(1948, 3, 1), 0)],
)
def test_ages_are_of_the_reference_date(born, expected):
    members = membership(_table(_person(born=born)), _library('{ codes = "sugar" }'), REFERENCE)["one"]
    assert members.height == expected


def test_who_was_not_seen_or_was_dead_before_the_period_is_not_counted():
    rows = [
        *_person(subject=1, seen=datetime(2023, 2, 28)),
        *_person((datetime(2023, 2, 1), "MEDS_DEATH"), subject=2),
        *_person((datetime(2024, 2, 2), "MEDS_DEATH"), subject=3),
        (4, datetime(2024, 1, 1), "VISIT_START//AMB"),
    ]
    members = membership(_table(rows), _library('{ codes = "sugar" }'), REFERENCE)["one"]
    assert members["subject_id"].to_list() == [3]


def test_counts_of_populations():
    members = pl.DataFrame(
        {
            "subject_id": range(5),
            "denominator": [True, True, True, False, True],
            "exclusion": [False, True, False, True, False],
            "numerator": [True, True, False, True, True],
        }
    )
    assert tally(members) == Tally(5, 4, 1, 2)
    assert tally(members).score == 2 / 3
    assert Tally().score is None
    assert Tally(5, 4, 1, 2).plus(Tally(1, 1, 0, 1)) == Tally(6, 5, 1, 3)


def test_the_reference_date_follows_the_last_event():
    frame = _table([(1, datetime(2024, 2, 29, 23, 59), "LOINC//1"), (2, datetime(2020, 1, 1), "LOINC//1")])
    assert reference_date([frame.lazy(), frame.lazy().head(0)]) == REFERENCE
    assert reference_date([frame.lazy().filter(pl.col("subject_id") == 3)]) is None
    assert period_of(REFERENCE) == (datetime(2023, 3, 1), REFERENCE)
    assert months_before(datetime(2024, 3, 31), 1) == datetime(2024, 2, 29)
    assert months_before(datetime(2024, 3, 31), 15) == datetime(2022, 12, 31)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_agrees_with_a_reading_event_by_event(data):
    rows = []
    for subject in range(1, data.draw(st.integers(1, 6)) + 1):
        rows += _person(subject=subject)
        for _ in range(data.draw(st.integers(0, 5))):
            time = REFERENCE - DAY * data.draw(st.sampled_from([1, 200, 365, 366, 367, 5000]))
            code = data.draw(st.sampled_from(["LOINC//4548-4", "ICD10CM//E11.9", "ICD10CM//E10.9"]))
            value = data.draw(st.sampled_from([None, 8.0, 9.0, 9.5]))
            rows.append((subject, time, code, value, None if value is None else "%"))
    library = _library(LATEST, denominator='{ codes = "diabetes" }')
    members = membership(_table(rows), library, REFERENCE)["one"].sort("subject_id")
    for subject, denominator, _, numerator in members.iter_rows():
        own = [row for row in rows if row[0] == subject]
        assert denominator == any(row[2].startswith("ICD10CM//E11") for row in own)
        sugars = [
            (row[1], row[3])
            for row in own
            if row[2] == "LOINC//4548-4" and row[3] is not None and row[1] >= datetime(2023, 3, 1)
        ]
        assert numerator == (not sugars or max(sugars)[1] > 9.0)


def test_groups_of_subjects_add_up():
    population = reference.population(60, seed=4)
    when = reference_date([population.lazy()])
    library = load_measures()
    whole = {name: tally(members) for name, members in membership(population, library, when).items()}
    parts = [population.filter(pl.col("subject_id") % 3 == part) for part in range(3)]
    added = {name: Tally() for name in whole}
    for part in parts:
        for name, members in membership(part, library, when).items():
            added[name] = added[name].plus(tally(members))
    assert added == whole
    assert sum(counted.numerator > 0 for counted in whole.values()) >= 4

"""Tasks by hand: who is asked, when, and what came of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from ehrsim.evaluate.tasks import Task, calendar, choose, examples, hospital_stays
from ehrsim.events import conform

FLU, ASTHMA, SUGAR = "ICD10CM//J11.1", "ICD10CM//J45.909", "LOINC//4548-4"
ONSET = Task("asthma", "onset", 365, ASTHMA)
DEATH = Task("death", "death", 365)
READMISSION = Task("readmission", "readmission", 30)
WORSENING = Task("sugar", "worsening", 730, SUGAR, "%", 6.5)


def day(number: int, hour: int = 9) -> datetime:
    return datetime(2000, 1, 1, hour) + timedelta(days=number)


def table(*rows: dict) -> pl.LazyFrame:
    return conform(pl.DataFrame([{"subject_id": 1, **row} for row in rows], infer_schema_length=None)).lazy()


def asked(events: pl.LazyFrame, task: Task) -> list[tuple]:
    found = examples(events, calendar(events), task)
    return [(moment, label) for moment, label in found.select("moment", "label").iter_rows()]


def at(number: int, code: str = FLU, **more: object) -> dict:
    return {"time": day(number), "code": code, **more}


def test_an_onset_within_the_year_is_one() -> None:
    events = table(at(0), at(400), at(500, ASTHMA), at(1200))
    assert asked(events, ONSET) == [(day(401, 0), True)], "the only day with a year before, without asthma so far"


def test_an_onset_after_the_year_is_none() -> None:
    events = table(at(0), at(400), at(401 + 365, ASTHMA), at(1200))
    assert asked(events, ONSET) == [(day(401, 0), False)]


def test_who_has_it_is_not_asked() -> None:
    assert asked(table(at(0), at(200, ASTHMA), at(400), at(1200)), ONSET) == []


def test_nobody_is_asked_beyond_what_is_known() -> None:
    short = (at(0), at(400), at(700))
    assert asked(table(*short), ONSET) == [], "300 days are not a year"
    assert asked(table(*short, at(500, ASTHMA)), ONSET) == [], "with the outcome neither: it would look common"
    assert asked(table(*short, at(900, "OBSERVATION_END")), ONSET) == [(day(401, 0), False)]
    assert asked(table(at(0), at(400), at(600, "MEDS_DEATH")), ONSET) == [(day(401, 0), False)], "the dead are known"


def test_nobody_is_asked_after_death() -> None:
    events = table(at(0), at(400), {"time": day(400, 20), "code": "MEDS_DEATH"})
    assert asked(events, DEATH) == [], "the moment is the midnight after"


def test_death_within_the_year_is_one() -> None:
    assert asked(table(at(0), at(400), at(600, "MEDS_DEATH")), DEATH) == [(day(401, 0), True)]
    assert asked(table(at(0), at(400), at(401 + 365, "MEDS_DEATH")), DEATH) == [(day(401, 0), False)]


def stay(visit: int, start: int, end: int, kind: str = "IMP") -> list[dict]:
    return [
        at(start, f"VISIT_START//{kind}", visit_id=visit),
        {"time": day(end, 17), "code": f"VISIT_END//{kind}", "visit_id": visit},
    ]


@pytest.mark.parametrize(("back", "label"), [(28, True), (40, False)])
def test_a_readmission_comes_within_thirty_days(back: int, label: bool) -> None:
    events = table(*stay(1, 0, 5), *stay(2, 5 + back, 5 + back + 1), at(50 + back))
    first = day(5, 17) + timedelta(microseconds=1)
    found = {pair for seed in range(20) for pair in _seeded(events, READMISSION, seed)}
    assert (first, label) in found
    assert {label for moment, label in found if moment != first} == {False}


def _seeded(events: pl.LazyFrame, task: Task, seed: int) -> list[tuple]:
    return list(examples(events, calendar(events), task, seed=seed).select("moment", "label").iter_rows())


def test_a_transfer_is_no_discharge_and_a_visit_no_stay() -> None:
    events = table(*stay(1, 0, 5), *stay(2, 5, 9), *stay(3, 12, 12, "AMB"), at(100))
    assert hospital_stays(events)["visit_id"].to_list() == [1, 2]
    assert asked(events, READMISSION) == [(day(9, 17) + timedelta(microseconds=1), False)]


def test_a_measurement_worsens_when_the_next_is_beyond() -> None:
    def values(*pairs: tuple[int, float]) -> pl.LazyFrame:
        return table(*(at(number, SUGAR, numeric_value=value, unit="%") for number, value in pairs))

    assert asked(values((0, 5.0), (100, 6.5)), WORSENING) == [(day(1, 0), True)]
    assert asked(values((0, 5.0), (100, 6.4)), WORSENING) == [(day(1, 0), False)]
    assert asked(values((0, 7.0), (100, 7.1)), WORSENING) == [], "who is beyond already cannot get there"
    assert asked(values((0, 5.0), (900, 7.0)), WORSENING) == [], "the next comes too late"
    other = table(at(0, SUGAR, numeric_value=5.0, unit="%"), at(9, SUGAR, numeric_value=48.0, unit="mmol/mol"))
    assert asked(other, WORSENING) == [], "another unit is another scale"
    below = Task("low", "worsening", 730, SUGAR, "%", 5.0, above=False)
    assert asked(values((0, 5.0), (100, 4.9)), below) == [(day(1, 0), True)]


def test_a_moment_depends_on_the_patient_and_the_seed_alone(world) -> None:
    events = world(60, seed=1)
    some = events.filter(pl.col("subject_id") % 3 == 0)
    whole, part = (examples(each, calendar(each), DEATH, seed=4) for each in (events, some))
    assert whole.filter(pl.col("subject_id") % 3 == 0).equals(part)
    assert whole["subject_id"].is_unique().all() and whole["subject_id"].is_sorted()
    other = examples(events, calendar(events), DEATH, seed=5)
    assert not whole["moment"].equals(other["moment"])


def test_tasks_are_those_with_outcomes_and_others_are_skipped_with_a_reason(world) -> None:
    found = choose(world(300, seed=1), world(300, seed=2))
    kinds = {task.kind for task in found.tasks}
    assert {"worsening", "death"} <= kinds
    assert [task.limit for task in found.tasks if task.code == SUGAR] == [6.5], "HbA1c has a limit of its own"
    reasons = {one.name: one.reason for one in found.skipped}
    assert reasons["readmission within 30 days"] == "0 training patients with the outcome, 20 are needed"
    few = choose(world(300, seed=1), world(8, seed=2))
    assert not few.tasks
    assert any("held-out patients" in one.reason for one in few.skipped)

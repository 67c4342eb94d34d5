"""Appointments fall into office hours of working days, autumn into autumn."""

from datetime import date, datetime

import numpy as np

from ehrsim.reference.calendar import MINUTES_PER_YEAR, minute_of, minutes, next_autumn, next_working_day, office_hours
from ehrsim.reference.draws import patient_keys

DAYS = minute_of(date(1924, 2, 27)) + np.arange(0, 120_000) * 431
KEYS = patient_keys(0, np.arange(len(DAYS)))


def moments(minute: np.ndarray) -> list[datetime]:
    return minute.astype("datetime64[m]").astype(object).tolist()


def test_minutes():
    assert minute_of(date(1970, 1, 2)) == 1440
    assert minutes(np.array([0.0, 1.0, 0.5])).tolist() == [0, MINUTES_PER_YEAR, MINUTES_PER_YEAR // 2]


def test_office_hours():
    given = office_hours(DAYS, KEYS, "a visit")
    for moment in moments(given[:2000]):
        assert moment.weekday() < 5
        assert 8 * 60 <= moment.hour * 60 + moment.minute <= 16 * 60 + 30
        assert moment.minute % 15 == 0
    assert ((given - DAYS) > -1440).all()
    assert ((given - DAYS) < 3 * 1440).all()


def test_a_working_day_stays():
    moved = next_working_day(DAYS)
    for before, after in zip(moments(DAYS[:2000]), moments(moved[:2000]), strict=True):
        assert after.weekday() < 5
        assert (after == before) == (before.weekday() < 5)
        assert after.time() == before.time()


def test_autumn():
    given = next_autumn(DAYS, KEYS)
    assert ((given >= DAYS) & (given - DAYS <= MINUTES_PER_YEAR + 2880)).all()
    months = {(moment.month, moment.day) for moment in moments(given)}
    assert min(months) > (9, 13)
    assert max(months) < (12, 18)

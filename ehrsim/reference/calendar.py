"""Ages and calendar: everything is counted in whole minutes since 1970-01-01 00:00, local time."""

from __future__ import annotations

from datetime import date

import numpy as np

from ehrsim.reference.draws import Floats, Ints, Keys, uniform

MINUTES_PER_DAY = 1440
MINUTES_PER_YEAR = 525_960
"""365.25 days: the year of the simulation."""
_MONDAY_OF_EPOCH = 3
"""1970-01-01 was a Thursday: add 3 to have Monday at 0."""
_OPENS, _SLOT_MINUTES, _SLOTS = 8 * 60, 15, 35


def minute_of(day: date) -> int:
    """Midnight at the start of a day."""
    return (day - date(1970, 1, 1)).days * MINUTES_PER_DAY


def minutes(age: Floats) -> Ints:
    """Ages in years as whole minutes."""
    return np.asarray(np.floor(age * MINUTES_PER_YEAR), np.int64)


def next_working_day(minute: Ints) -> Ints:
    """The same time of day, on the next Monday where it falls on a weekend."""
    weekday = (minute // MINUTES_PER_DAY + _MONDAY_OF_EPOCH) % 7
    moved: Ints = minute + np.maximum(7 - weekday, 0) * (weekday >= 5) * MINUTES_PER_DAY
    return moved


def office_hours(minute: Ints, keys: Keys, purpose: str) -> Ints:
    """An appointment on or soon after the day of `minute`: Monday to Friday, 8:00 to 16:30, on the quarter hour."""
    slot = np.floor(uniform(keys, f"slot {purpose}", minute) * _SLOTS).astype(np.int64)
    start = minute // MINUTES_PER_DAY * MINUTES_PER_DAY + _OPENS + slot * _SLOT_MINUTES
    return next_working_day(start)


def next_autumn(minute: Ints, keys: Keys) -> Ints:
    """A day between mid-September and mid-December in the twelve months from `minute` on."""
    months = minute.astype("datetime64[m]").astype("datetime64[Y]").astype("datetime64[m]").astype(np.int64)
    into_autumn = (258 + np.floor(uniform(keys, "autumn", minute) * 90).astype(np.int64)) * MINUTES_PER_DAY
    candidate = months + into_autumn
    return np.where(candidate >= minute, candidate, candidate + MINUTES_PER_YEAR)

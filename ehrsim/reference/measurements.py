"""Values of measurements: level by age and sex, correlated traits, what states and treatments do, and visit noise.

On the linear scale a value is `level + between_sd * trait + sum(add) + within_sd * noise`; on the logarithmic one that
sum is of logarithms. Creatinine is solved from the filtration rate by CKD-EPI 2021 (Inker 2021 NEJM 385:1737), total
cholesterol from its parts by Friedewald 1972, weight from height and body mass index.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ehrsim.reference.draws import Floats, Ints, normal
from ehrsim.reference.loading import load
from ehrsim.reference.people import People
from ehrsim.reference.simulate import Intervals
from ehrsim.reference.specification import AgeCurve, Measurement, Shift

RECOVERY_PER_DAY = 0.75
"""What is left after each day of a stay of the shift that brought the patient in (assumption)."""
_MONTHS = 12
_OLDEST_MONTH = 116 * _MONTHS
_MCHC = 33.5
_HIGHEST_VLDL = 80.0


class Occasions(NamedTuple):
    """Moments at which something may be measured."""

    person: Ints
    age: Floats
    minute: Ints
    encounter: Ints
    """Position of the encounter in the specification, or -1."""
    day: Ints
    """Day of the stay, from 0."""

    def take(self, rows: Ints) -> Occasions:
        """Some of the occasions."""
        return Occasions._make(column[rows] for column in self)


class Bodies(NamedTuple):
    """The people measured and the states they pass through."""

    people: People
    states: dict[str, Intervals]
    ever: dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]
    """For each state, who is ever in it."""


@lru_cache(maxsize=256)
def _monthly(name: str) -> Floats:
    """The level of a measurement by sex (0 female, 1 male) and age in months."""
    curve = named(name).level
    assert curve is not None
    return by_month(curve)


def by_month(curve: AgeCurve) -> Floats:
    """A curve at every month of age, by sex (0 female, 1 male)."""
    ages = (np.arange(_OLDEST_MONTH) + 0.5) / _MONTHS
    return np.stack(
        [np.interp(ages, curve.ages, values) for values in (curve.female or curve.both, curve.male or curve.both)]
    )


@lru_cache(maxsize=256)
def named(name: str) -> Measurement:
    """A measurement of the specification by its name."""
    return next(item for item in load().measurement if item.name == name)


def bodies(people: People, states: dict[str, Intervals]) -> Bodies:
    """Index who is ever in which state."""
    ever = {}
    for name, spans in states.items():
        mask = np.zeros(len(people.keys), np.bool_)
        mask[spans.person] = True
        ever[name] = mask
    return Bodies(people, states, ever)


def values(name: str, where: Bodies, occasions: Occasions) -> Floats:
    """Rounded values of a measurement at occasions, within its bounds."""
    item = named(name)
    raw = _DERIVED[name](where, occasions) if item.derived else _modelled(item, where, occasions)
    return np.asarray(np.round(np.clip(raw, *item.bounds), item.decimals))


def _modelled(item: Measurement, where: Bodies, occasions: Occasions) -> Floats:
    person, people = occasions.person, where.people
    keys = people.keys
    month = np.minimum((occasions.age * _MONTHS).astype(np.int64), _OLDEST_MONTH - 1)
    level = _monthly(item.name)[people.male[person].astype(np.int64), month]
    logarithmic = item.scale == "log"
    value = np.log(level) if logarithmic else level.copy()
    trait = people.traits[item.trait] if item.trait else normal(keys, f"level of {item.name}")
    value += item.between_sd * trait[person]
    value += item.within_sd * normal(keys[person], f"noise of {item.name}", occasions.minute)
    for effect in item.effects:
        size = float(np.log(effect.times)) if logarithmic else effect.add
        rows = np.flatnonzero(where.ever[effect.state][person])
        holds, since = where.states[effect.state].at(person[rows], occasions.age[rows])
        grown = np.minimum(since / effect.ramp_years, 1.0) if effect.ramp_years else 1.0
        value[rows] += size * holds * grown
    value += _acute(item, occasions, logarithmic)
    return np.exp(value) if logarithmic else value


def _acute(item: Measurement, occasions: Occasions, logarithmic: bool) -> Floats | float:
    """What the illness that brought the patient in adds, fading over the days of a stay."""
    shifts = np.zeros(len(load().encounter) + 1)
    for number, encounter in enumerate(load().encounter):
        for shift in encounter.shifts:
            if shift.measurement == item.name:
                shifts[number] = _size(shift, logarithmic)
    if not shifts.any():
        return 0.0
    return np.asarray(shifts[occasions.encounter] * RECOVERY_PER_DAY**occasions.day, np.float64)


def _size(shift: Shift, logarithmic: bool) -> float:
    return float(np.log(shift.times)) if logarithmic else shift.add


def _weight(where: Bodies, occasions: Occasions) -> Floats:
    height = _modelled(named("height"), where, occasions) / 100.0
    return _modelled(named("bmi"), where, occasions) * height**2


def _creatinine(where: Bodies, occasions: Occasions) -> Floats:
    """CKD-EPI 2021 solved for creatinine: eGFR = 142 min(x, 1)^a max(x, 1)^-1.2 0.9938^age (1.012 if female)."""
    filtration = _modelled(named("egfr"), where, occasions)
    male = where.people.male[occasions.person]
    kappa, alpha = np.where(male, 0.9, 0.7), np.where(male, -0.302, -0.241)
    expected = 142.0 * 0.9938 ** np.maximum(occasions.age, 18.0) * np.where(male, 1.0, 1.012)
    ratio = filtration / expected
    result = kappa * np.where(ratio > 1.0, ratio ** (1.0 / alpha), ratio ** (-1.0 / 1.2))
    smaller = np.interp(occasions.age, (0.0, 2.0, 10.0, 18.0), (0.38, 0.42, 0.65, 1.0))
    return np.asarray(result * smaller)


def _cholesterol(where: Bodies, occasions: Occasions) -> Floats:
    parts = {name: _modelled(named(name), where, occasions) for name in ("ldl", "hdl", "triglycerides")}
    return parts["ldl"] + parts["hdl"] + np.minimum(parts["triglycerides"] / 5.0, _HIGHEST_VLDL)


def _hematocrit(where: Bodies, occasions: Occasions) -> Floats:
    return _modelled(named("hemoglobin"), where, occasions) / _MCHC * 100.0


_DERIVED: dict[str, Callable[[Bodies, Occasions], Floats]] = {
    "weight": _weight,
    "creatinine": _creatinine,
    "cholesterol": _cholesterol,
    "hematocrit": _hematocrit,
}

"""Latent lives: what happens to each person and when, by competing exponential clocks from birthday to birthday.

On every birthday the hazard of each transition is evaluated (`hazards`), and it happens within the year at the time of
an exponential clock if that is soon enough. Hence the truth is exact: hazards are constant over each year of age.
What of this a health record gets to see is the business of `visits` and `content`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.reference.draws import Floats, Ints, Keys, uniform, uniform_below
from ehrsim.reference.hazards import OLDEST, Compiled, Covariates, compiled, covariates_of
from ehrsim.reference.loading import load
from ehrsim.reference.people import People

DAYS_PER_YEAR = 365.25
FATAL_WITHIN_DAYS = 30.0
BACKGROUND_DEATH = "background_death"

Bools = NDArray[np.bool_]


class Occurrences(NamedTuple):
    """Everything that happened to a block of people, sorted by person and age."""

    person: Ints
    """Row of the person in the block."""
    transition: Ints
    """Position of the transition in the specification."""
    age: Floats
    """Age in years."""
    fatal: Bools
    """Whether it is what the person dies of within 30 days."""


class Lives(NamedTuple):
    """The lives of a block of people up to death or the reference date."""

    people: People
    death: Floats
    """Age at death in years, infinite for those alive on the reference date."""
    until: Floats
    """Age at death or on the reference date, whichever comes first."""
    occurrences: Occurrences


def select(lives: Lives, first: int, end: int) -> Lives:
    """The lives of the people in rows `first` to `end` of a block."""
    people = lives.people
    chosen = People(
        number=people.number[first:end],
        keys=people.keys[first:end],
        age=people.age[first:end],
        male=people.male[first:end],
        group=people.group[first:end],
        language=people.language[first:end],
        marital=people.marital[first:end],
        attributes={name: values[first:end] for name, values in people.attributes.items()},
        traits={name: values[first:end] for name, values in people.traits.items()},
    )
    begin, stop = np.searchsorted(lives.occurrences.person, [first, end])
    occurrences = Occurrences._make(column[begin:stop] for column in lives.occurrences)
    rebased = occurrences._replace(person=occurrences.person - first)
    return Lives(chosen, lives.death[first:end], lives.until[first:end], rebased)


class _Cohort:
    """The mutable state of those still under observation while the years go by."""

    def __init__(self, people: People, names: Covariates) -> None:
        count = len(people.keys)
        self.row = np.arange(count)
        self.keys: Keys = people.keys
        self.sex = people.male.astype(np.int64)
        self.until = people.age.copy()
        self.flags: dict[str, Bools] = {name: np.zeros(count, np.bool_) for name in names.states}
        self.flags |= {name: people.attributes[name] for name in names.attributes}
        self.traits = dict(people.traits)
        self.lapses: dict[str, Floats] = {
            item.transition.sets: np.full(count, np.inf)
            for item in compiled()
            if item.transition.sets and item.transition.lasts_days
        }

    def keep(self, mask: Bools) -> None:
        """Drop those no longer under observation."""
        self.row, self.keys, self.sex, self.until = (
            self.row[mask],
            self.keys[mask],
            self.sex[mask],
            self.until[mask],
        )
        self.flags = {name: values[mask] for name, values in self.flags.items()}
        self.traits = {name: values[mask] for name, values in self.traits.items()}
        self.lapses = {name: values[mask] for name, values in self.lapses.items()}

    def lapse(self, age: int) -> None:
        """End the states whose time is up on this birthday."""
        for name, ends in self.lapses.items():
            self.flags[name] &= ends > age


class _Happened(NamedTuple):
    """The occurrences of one transition in one year, by position in the cohort."""

    position: Ints
    transition: int
    age: Floats
    fatal: Bools


def simulate(people: People) -> Lives:
    """Live the lives of `people` from birth to death or the reference date."""
    items = compiled()
    cohort = _Cohort(people, covariates_of(load()))
    until, death = people.age.copy(), np.full(len(people.keys), np.inf)
    pieces: list[Occurrences] = []
    for age in range(OLDEST + 1):
        if age % 5 == 0 or age == 1:
            cohort.keep(cohort.until > age)
        if not len(cohort.row):
            break
        cohort.lapse(age)
        year = [_happen(item, number, age, cohort) for number, item in enumerate(items)]
        happened = [piece for piece in year if len(piece.position)]
        _die(happened, items, cohort)
        until[cohort.row], death[cohort.row] = cohort.until, _died_at(cohort, people)
        pieces += [_observed(piece, cohort) for piece in happened]
        _change_states(happened, items, cohort)
    return Lives(people, death, until, _sorted(pieces))


def _happen(item: Compiled, number: int, age: int, cohort: _Cohort) -> _Happened:
    """Who undergoes the transition in the year after this birthday, and when.

    Draws first and evaluates the hazard only where the draw is below the greatest hazard possible: the same result for
    a fraction of the work.
    """
    transition, rate = item.transition, item.base[:, age]
    ceiling = float(rate.max()) * item.bound
    if ceiling <= 0.0:
        return _nothing(number)
    at_risk = cohort.until > age
    for name in transition.requires:
        at_risk = at_risk & cohort.flags[name]
    for name in (*transition.excludes, *((transition.sets,) if transition.sets else ())):
        at_risk = at_risk & ~cohort.flags[name]
    position = np.flatnonzero(at_risk)
    possible, draws = uniform_below(cohort.keys[position], transition.name, age, ceiling)
    position = position[possible]
    rates = rate[cohort.sex[position]]
    for name, ratio in item.flag_factors:
        rates = rates * np.where(cohort.flags[name][position], ratio, 1.0)
    for name, ratio in item.trait_factors:
        rates = rates * np.exp(np.log(ratio) * cohort.traits[name][position])
    with np.errstate(divide="ignore"):
        moment = -np.log1p(-draws) / rates
    soon = moment < np.minimum(1.0, cohort.until[position] - age)
    position, when = position[soon], age + moment[soon]
    return _Happened(position, number, when, _is_fatal(item, age, position, cohort))


def _nothing(number: int) -> _Happened:
    return _Happened(np.zeros(0, np.int64), number, np.zeros(0), np.zeros(0, np.bool_))


def _is_fatal(item: Compiled, age: int, position: Ints, cohort: _Cohort) -> Bools:
    if item.transition.name == BACKGROUND_DEATH:
        return np.ones(len(position), np.bool_)
    if item.fatality is None:
        return np.zeros(len(position), np.bool_)
    draws = uniform(cohort.keys[position], f"{item.transition.name} fatality", age)
    return np.asarray(draws < item.fatality[cohort.sex[position], age])


def _die(happened: list[_Happened], items: tuple[Compiled, ...], cohort: _Cohort) -> None:
    """Shorten `until` to the earliest death: at once in the background, else within 30 days of a fatal event."""
    for piece in happened:
        if not piece.fatal.any():
            continue
        position, when = piece.position[piece.fatal], piece.age[piece.fatal]
        if items[piece.transition].transition.name != BACKGROUND_DEATH:
            name = f"{items[piece.transition].transition.name} survival"
            draws = uniform(cohort.keys[position], name, np.floor(when).astype(np.int64))
            when = when + draws * FATAL_WITHIN_DAYS / DAYS_PER_YEAR
        cohort.until[position] = np.minimum(cohort.until[position], when)


def _died_at(cohort: _Cohort, people: People) -> Floats:
    return np.where(cohort.until < people.age[cohort.row], cohort.until, np.inf)


def _observed(piece: _Happened, cohort: _Cohort) -> Occurrences:
    """What happened before death, as occurrences."""
    before = piece.age <= cohort.until[piece.position]
    number = np.full(int(before.sum()), piece.transition)
    return Occurrences(cohort.row[piece.position[before]], number, piece.age[before], piece.fatal[before])


def _change_states(happened: list[_Happened], items: tuple[Compiled, ...], cohort: _Cohort) -> None:
    """Set and clear states, in order of age where one person has several changes in the year."""
    for piece in happened:
        transition = items[piece.transition].transition
        for name in transition.clears:
            cohort.flags[name][piece.position] = False
    for piece in happened:
        transition = items[piece.transition].transition
        for name in transition.also_sets:
            cohort.flags[name][piece.position] = True
        if transition.sets:
            cohort.flags[transition.sets][piece.position] = True
            if transition.lasts_days:
                ends = piece.age + transition.lasts_days / DAYS_PER_YEAR
                cohort.lapses[transition.sets][piece.position] = ends


def _sorted(pieces: list[Occurrences]) -> Occurrences:
    if not pieces:
        return Occurrences(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_))
    whole = Occurrences._make(np.concatenate(columns) for columns in zip(*pieces, strict=True))
    order = np.lexsort((whole.transition, whole.age, whole.person))
    return Occurrences._make(column[order] for column in whole)


class Intervals(NamedTuple):
    """When a state held: sorted by person and start, ages in years, `end` infinite where it still holds."""

    person: Ints
    start: Floats
    end: Floats

    def at(self, person: Ints, age: Floats) -> tuple[Bools, Floats]:
        """Whether the state holds for each person at an age, and for how many years it has (0 where not)."""
        if not len(self.person):
            return np.zeros(len(person), np.bool_), np.zeros(len(person))
        holds, position = self._find(person, age)
        return holds, np.where(holds, age - self.start[position], 0.0)

    def end_at(self, person: Ints, age: Floats) -> Floats:
        """The age at which the state that holds at an age ends; infinite if it does not hold or does not end."""
        if not len(self.person):
            return np.full(len(person), np.inf)
        holds, position = self._find(person, age)
        return np.where(holds, self.end[position], np.inf)

    def _find(self, person: Ints, age: Floats) -> tuple[Bools, Ints]:
        keys = self.person * 256.0 + self.start
        found = np.searchsorted(keys, person * 256.0 + age, side="right") - 1
        position = np.maximum(found, 0)
        return (found >= 0) & (self.person[position] == person) & (age < self.end[position]), position


def state_intervals(lives: Lives) -> dict[str, Intervals]:
    """For each state, when it held for whom."""
    occurrences, result = lives.occurrences, {}
    items = [item.transition for item in compiled()]
    for name in covariates_of(load()).states:
        setting = np.array([name in (item.sets, *item.also_sets) for item in items])[occurrences.transition]
        clearing = np.array([name in item.clears for item in items])[occurrences.transition]
        lasting = np.array([(item.lasts_days or np.inf) / DAYS_PER_YEAR for item in items])[occurrences.transition]
        relevant = np.flatnonzero(setting | clearing)
        person, age = occurrences.person[relevant], occurrences.age[relevant]
        upcoming = np.full(len(relevant), np.inf)
        same = person[1:] == person[:-1]
        upcoming[:-1][same] = age[1:][same]
        starts = setting[relevant]
        end = np.minimum(upcoming, age + lasting[relevant])
        result[name] = Intervals(person[starts], age[starts], end[starts])
    return result

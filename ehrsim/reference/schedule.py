"""Who is seen when, and for what: the visits of a block of lives and all that has to be written down at each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ehrsim.reference.calendar import MINUTES_PER_DAY, minutes, next_autumn
from ehrsim.reference.codebook import FOLLOW_UP_TYPE, codebook
from ehrsim.reference.draws import Floats, Ints, uniform
from ehrsim.reference.hazards import compiled, curve_table
from ehrsim.reference.loading import load
from ehrsim.reference.simulate import DAYS_PER_YEAR, Bools, Intervals, Lives
from ehrsim.reference.specification import Encounter, Screening, Vaccine
from ehrsim.reference.visits import (
    CLASS_NUMBER,
    NOTHING,
    Observed,
    Visits,
    birth_stays,
    clinic,
    concatenate,
    encounter_visits,
    nearest_after,
    separate,
    wellness_visits,
    years_lived,
)

DISCOVERY_WITHIN_DAYS, PRESCRIPTION_WITHIN_DAYS, DOSE_WITHIN_DAYS = 90.0, 45.0, 200.0
"""How long something waits to be written down at a visit that there is, before it gets one of its own (or lapses)."""


class Mention(NamedTuple):
    """Things of one kind to be written down at visits: `item` is a position in the specification's list of them."""

    item: int
    visit: Ints
    """Row of the visit."""
    age: Floats
    """Age at which it happened or began, in years."""
    end: Floats
    """Age at which it ended, infinite if it has not."""


class Schedule(NamedTuple):
    """The visits of a block of people and what each of them is for, by position in the specification."""

    visits: Visits
    wellness: Ints
    """Rows of wellness visits."""
    follow_ups: Ints
    """Rows of follow-up visits."""
    follow_up_rate: Floats
    """Visits a year that the person of each follow-up visit has."""
    encounters: list[Mention]
    treatments: list[Mention]
    screenings: list[Mention]
    doses: list[Mention]


class _Plan:
    """Visits and mentions while they are being gathered; rows are those of all tables in the order added."""

    def __init__(self) -> None:
        self.tables: list[Visits] = []
        self.count = 0

    def add(self, visits: Visits) -> Ints:
        """Add visits and return their rows."""
        rows = np.arange(self.count, self.count + len(visits.person))
        self.tables.append(visits)
        self.count += len(visits.person)
        return rows

    def all(self) -> Visits:
        """All visits so far."""
        self.tables = [concatenate(self.tables)]
        return self.tables[0]


def schedule(lives: Lives, observed: Observed, states: dict[str, Intervals]) -> Schedule:
    """Plan every visit of a block of lives."""
    family, plan = load(), _Plan()
    plan.add(birth_stays(observed))
    assert family.wellness is not None
    child, adult = curve_table(family.wellness.child_attendance), curve_table(family.wellness.adult_per_year)
    wellness = plan.add(wellness_visits(observed, family.wellness.child_ages, child, adult))
    follow_up_visits, rate = _follow_ups(observed, states)
    follow_ups = plan.add(follow_up_visits)
    chosen = _chosen_encounters(lives, observed)
    encounters = [
        Mention(number, plan.add(encounter_visits(observed, family.encounter[number], person, age)), age, age)
        for number, person, age in chosen
        if not family.encounter[number].discovery
    ]
    screenings = [
        _screening(item, number, observed, lives, states, plan) for number, item in enumerate(family.screening)
    ]
    for number, person, age in chosen:
        if family.encounter[number].discovery:
            rows = _written_when_seen(plan, observed, person, age, DISCOVERY_WITHIN_DAYS, family.encounter[number])
            encounters.append(Mention(number, rows, age, age))
    treatments = []
    for number, treatment in enumerate(family.treatment):
        spans = states[treatment.state]
        rows = _written_when_seen(plan, observed, spans.person, spans.start, PRESCRIPTION_WITHIN_DAYS, None)
        treatments.append(Mention(number, rows, spans.start, spans.end))
    doses = [_doses(item, number, observed, lives, plan) for number, item in enumerate(family.vaccine)]
    return _separated(
        plan.all(),
        observed,
        Schedule(plan.all(), wellness, follow_ups, rate, encounters, treatments, screenings, doses),
    )


def _chosen_encounters(lives: Lives, observed: Observed) -> list[tuple[int, Ints, Floats]]:
    """For each encounter of the specification, the people who have it and their ages when it falls due."""
    names = [item.transition.name for item in compiled()]
    happened, chosen = lives.occurrences, []
    for group in _alternatives(load().encounter):
        first = load().encounter[group[0]]
        rows = np.flatnonzero(happened.transition == names.index(first.on))
        person, age = happened.person[rows], happened.age[rows]
        draws = uniform(observed.keys[person], f"encounter {group[0]}", minutes(age))
        taken = _alternative(draws, happened.fatal[rows], [load().encounter[number] for number in group])
        for position, number in enumerate(group):
            own = np.flatnonzero(taken == position)
            for days in load().encounter[number].after_days:
                spread = load().encounter[number].spread_days
                shift = uniform(observed.keys[person[own]], f"spread {number} {days}", minutes(age[own])) * 2.0 - 1.0
                due = age[own] + (days + spread * shift) / DAYS_PER_YEAR
                seen = due < observed.until[person[own]]
                chosen.append((number, person[own][seen], due[seen]))
    return chosen


def _alternatives(encounters: list[Encounter]) -> list[list[int]]:
    """Positions of encounters, those of one group together."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, item in enumerate(encounters):
        groups.setdefault((item.on, item.group or f"alone {number}"), []).append(number)
    return list(groups.values())


def _alternative(draws: Floats, fatal: Bools, group: list[Encounter]) -> Ints:
    """Which of the alternatives each occurrence gets, NOTHING for none; fatal ones are admitted where that is one."""
    edges = np.cumsum([item.share for item in group])
    taken = np.searchsorted(edges, draws, side="right")
    taken = np.where(taken < len(group), taken, NOTHING)
    admitted = [position for position, item in enumerate(group) if item.visit_class == "IMP"]
    if admitted:
        already = np.isin(taken, admitted)
        taken = np.where(fatal & ~already, admitted[0], taken)
    return taken


def _follow_ups(observed: Observed, states: dict[str, Intervals]) -> tuple[Visits, Floats]:
    """Regular visits, as many a year as the most demanding state asks for, and that number."""
    items, book = load().follow_up, codebook()
    person, year = years_lived(observed)
    keys = observed.keys[person]
    rates = np.zeros((len(items), len(person)))
    for number, item in enumerate(items):
        rates[number] = item.per_year * states[item.state].at(person, (year + 1).astype(np.float64))[0]
    rate: Floats = rates.max(axis=0)
    some = np.flatnonzero(rate > 0)
    count = np.floor(rate[some] + uniform(keys[some], "follow-ups", year[some])).astype(np.int64)
    visit = np.repeat(some, count)
    turn = np.arange(len(visit)) - np.repeat(np.cumsum(count) - count, count)
    step = year[visit] * 100 + turn
    age = year[visit] + (turn + uniform(keys[visit], "follow-up moment", step)) / np.repeat(count, count)
    draws = uniform(keys[visit], "follow-up reason", step) * rates[:, visit].sum(axis=0)
    main = (np.cumsum(rates[:, visit], axis=0) <= draws).sum(axis=0)
    main = np.minimum(main, len(items) - 1)
    person = person[visit]
    held = age < observed.until[person]
    for number, item in enumerate(items):
        own = main == number
        held[own] &= states[item.state].at(person[own], age[own])[0]
    shares = np.array([item.virtual_share for item in items])
    virtual = (uniform(keys[visit], "virtual", step) < shares[main]).astype(np.int64)
    reason = np.array([book.of("reason", item.reason) for item in items])[main]
    table = clinic(observed, person[held], age[held], FOLLOW_UP_TYPE, reason[held], virtual[held])
    return table, rate[visit][held]


def _screening(
    item: Screening, number: int, observed: Observed, lives: Lives, states: dict[str, Intervals], plan: _Plan
) -> Mention:
    """Rounds of a screening programme, attended by those who attend."""
    rounds = np.arange(item.from_age, item.to_age, item.every_years)
    invited = lives.people.attributes[item.attends]
    if item.sex != "both":
        invited = invited & (lives.people.male == (item.sex == "male"))
    person = np.repeat(np.flatnonzero(invited), len(rounds))
    due = np.tile(rounds, int(invited.sum()))
    delay = uniform(observed.keys[person], f"screening {item.name}", due.astype(np.int64))
    age = due + delay * min(item.every_years, 1.0)
    seen = age < observed.until[person]
    for name in item.excludes:
        seen &= ~states[name].at(person, age)[0]
    person, age = person[seen], age[seen]
    nothing = np.full(len(person), NOTHING)
    visits = clinic(observed, person, age, item.visit_type, nothing, np.zeros_like(nothing))
    return Mention(number, plan.add(visits), age, age)


def _written_when_seen(
    plan: _Plan, observed: Observed, person: Ints, age: Floats, within_days: float, encounter: Encounter | None
) -> Ints:
    """The next office visit of each, or a new one: made for `encounter`, or a follow-up without reason."""
    visits = plan.all()
    office = np.flatnonzero(visits.visit_class == CLASS_NUMBER["AMB"])
    found = nearest_after(visits.take(office), person, observed.birth[person] + minutes(age), within_days)
    rows = np.where(found == NOTHING, NOTHING, office[found] if len(office) else NOTHING)
    missing = np.flatnonzero(rows == NOTHING)
    delay = uniform(observed.keys[person[missing]], "discovery", minutes(age[missing])) * within_days / DAYS_PER_YEAR
    nothing = np.full(len(missing), NOTHING)
    reason = nothing
    if encounter is not None and encounter.reason:
        reason = np.full(len(missing), codebook().of("reason", encounter.reason))
    kind = encounter.visit_type if encounter else FOLLOW_UP_TYPE
    new = clinic(observed, person[missing], age[missing] + delay, kind, reason, np.zeros_like(nothing))
    rows[missing] = plan.add(new)
    return rows


def _doses(item: Vaccine, number: int, observed: Observed, lives: Lives, plan: _Plan) -> Mention:
    """Doses of a vaccine, given at the next office visit after they are due, if there is one soon."""
    ages = np.array(item.ages) if item.every_years is None else np.arange(item.from_age, item.to_age, item.every_years)
    offered = np.ones(len(observed.keys), np.bool_)
    if item.attribute:
        offered &= lives.people.attributes[item.attribute]
    if item.sex != "both":
        offered &= lives.people.male == (item.sex == "male")
    person = np.repeat(np.flatnonzero(offered), len(ages))
    age = np.tile(ages, int(offered.sum()))
    turn = np.tile(np.arange(len(ages)), int(offered.sum()))
    keys = observed.keys[person]
    taken = (uniform(keys, f"dose {item.code}", turn) < item.uptake) & (age < observed.until[person])
    person, age, keys = person[taken], age[taken], keys[taken]
    due = observed.birth[person] + minutes(age)
    if item.every_years == 1.0:
        due = next_autumn(due, keys)
    visits = plan.all()
    office = np.flatnonzero(visits.visit_class == CLASS_NUMBER["AMB"])
    found = nearest_after(visits.take(office), person, due - MINUTES_PER_DAY, DOSE_WITHIN_DAYS)
    given = found != NOTHING
    return Mention(number, office[found[given]], age[given], age[given])


def _separated(planned: Visits, observed: Observed, plan: Schedule) -> Schedule:
    """The schedule with visits that do not overlap; what was planned for a visit that is lost is lost with it."""
    visits, origin = separate(planned, observed)
    position = np.full(len(planned.person), NOTHING)
    position[origin] = np.arange(len(origin))

    def kept(rows: Ints) -> Ints:
        where = position[rows]
        remaining: Ints = where[where != NOTHING]
        return remaining

    def moved(mentions: list[Mention]) -> list[Mention]:
        result = []
        for mention in mentions:
            rows = position[mention.visit]
            keep = rows != NOTHING
            result.append(Mention(mention.item, rows[keep], mention.age[keep], mention.end[keep]))
        return result

    rate = plan.follow_up_rate[position[plan.follow_ups] != NOTHING]
    return Schedule(
        visits,
        kept(plan.wellness),
        kept(plan.follow_ups),
        rate,
        moved(plan.encounters),
        moved(plan.treatments),
        moved(plan.screenings),
        moved(plan.doses),
    )

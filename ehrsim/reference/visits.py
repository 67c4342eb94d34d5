"""When people are seen: the visits of a block of lives, before anything is written at them.

A visit is planned by one of four planners (wellness, encounters of the specification, follow-up, screening) or added
where something has to be written down and no visit is near. Then visits of a person are moved apart until none overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.reference.calendar import MINUTES_PER_DAY, minutes, next_working_day, office_hours
from ehrsim.reference.codebook import (
    EMERGENCY_TYPE,
    NEWBORN,
    VIRTUAL_TYPE,
    WELL_ADULT,
    WELL_CHILD,
    WELLNESS_TYPE,
    codebook,
)
from ehrsim.reference.draws import Floats, Ints, Keys, normal, uniform
from ehrsim.reference.specification import Encounter, VisitClass

CLASSES: tuple[VisitClass, ...] = ("AMB", "EMER", "IMP", "VR", "HH")
CLASS_NUMBER = {name: number for number, name in enumerate(CLASSES)}
NOTHING = -1
"""No reason, no visit."""
_TIMES_MOVED = 6


class Visits(NamedTuple):
    """Visits as columns; times in minutes (see `calendar`). A stay may begin with `lead` minutes of emergency care."""

    person: Ints
    start: Ints
    end: Ints
    visit_class: Ints
    """Position in `CLASSES`."""
    visit_type: Ints
    """Number of the code in the codebook."""
    reason: Ints
    """Number of the code in the codebook, or NOTHING."""
    lead: Ints

    def take(self, rows: Ints) -> Visits:
        """Some of the visits."""
        return Visits(*(column[rows] for column in self))


def concatenate(tables: list[Visits]) -> Visits:
    """Several tables of visits, one after the other."""
    return Visits(*(np.concatenate([table[field] for table in tables]) for field in range(len(Visits._fields))))


class Observed(NamedTuple):
    """What the planners need to know of a block of people."""

    keys: Keys
    birth: Ints
    """Minute of birth."""
    last: Ints
    """Minute of death or of the reference date."""
    died: Ints
    """Minute of death, beyond all times for those alive."""
    male: Ints
    until: Floats
    """Age at `last`, in years."""


def clinic(observed: Observed, person: Ints, age: Floats, visit_type: str, reason: Ints, virtual: Ints) -> Visits:
    """Appointments in office hours on or soon after an age; `virtual` (0 or 1) ones are by video and shorter."""
    book = codebook()
    keys = observed.keys[person]
    birth = observed.birth[person]
    start = office_hours(birth + minutes(age), keys, "clinic")
    start = np.where(start < birth, next_working_day(start + MINUTES_PER_DAY), start)
    quarters = 1 + np.floor(uniform(keys, "clinic length", start) * 3).astype(np.int64)
    length = np.where(virtual == 1, 15, 15 + 15 * quarters)
    kind = np.where(virtual == 1, book.of("visit_type", VIRTUAL_TYPE), book.of("visit_type", visit_type))
    visit_class = np.where(virtual == 1, CLASS_NUMBER["VR"], CLASS_NUMBER["AMB"])
    return Visits(person, start, start + length, visit_class, kind, reason, np.zeros_like(person))


def years_lived(observed: Observed) -> tuple[Ints, Ints]:
    """Every (person, age in whole years) that was begun."""
    count = np.floor(observed.until).astype(np.int64) + 1
    person = np.repeat(np.arange(len(count)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    return person, np.arange(len(person)) - first


def birth_stays(observed: Observed) -> Visits:
    """The stay in hospital after birth, one to three days."""
    book = codebook()
    person = np.arange(len(observed.keys))
    length = np.floor((1.0 + 1.6 * uniform(observed.keys, "birth stay")) * MINUTES_PER_DAY).astype(np.int64)
    shape = np.ones(len(person), np.int64)
    return Visits(
        person,
        observed.birth.copy(),
        observed.birth + length,
        shape * CLASS_NUMBER["IMP"],
        shape * book.of("visit_type", "SNOMED//32485007"),
        shape * book.of("reason", NEWBORN),
        shape * 0,
    )


def wellness_visits(observed: Observed, child_ages: list[float], child: Floats, adult: Floats) -> Visits:
    """Well-child visits at their ages and yearly check-ups of adults, as far as they are attended.

    `child` and `adult` are chances by sex (0 female, 1 male) and age in whole years.
    """
    book = codebook()
    count, scheduled = len(observed.keys), np.array(child_ages)
    person = np.repeat(np.arange(count), len(scheduled))
    due = np.tile(scheduled, count)
    number = np.tile(np.arange(len(scheduled)), count)
    keys = observed.keys[person]
    young = uniform(keys, "well child", number) < child[observed.male[person], due.astype(np.int64)]
    at = due + uniform(keys, "well child delay", number) * np.where(due < 3, 0.05, 0.6)
    young &= at < observed.until[person]
    reason = np.full(int(young.sum()), book.of("reason", WELL_CHILD))
    tables = [clinic(observed, person[young], at[young], WELLNESS_TYPE, reason, np.zeros_like(reason))]
    person, year = years_lived(observed)
    keys = observed.keys[person]
    grown = (year >= 18) & (uniform(keys, "check-up", year) < adult[observed.male[person], year])
    at = year + uniform(keys, "check-up moment", year)
    grown &= at < observed.until[person]
    reason = np.full(int(grown.sum()), book.of("reason", WELL_ADULT))
    tables.append(clinic(observed, person[grown], at[grown], WELLNESS_TYPE, reason, np.zeros_like(reason)))
    return concatenate(tables)


def encounter_visits(observed: Observed, encounter: Encounter, person: Ints, age: Floats) -> Visits:
    """The visits of one encounter of the specification, one for each person and age."""
    book = codebook()
    shape = np.ones(len(person), np.int64)
    reason = shape * (book.of("reason", encounter.reason) if encounter.reason else NOTHING)
    if encounter.visit_class in ("AMB", "VR"):
        virtual = shape * int(encounter.visit_class == "VR")
        return clinic(observed, person, age, encounter.visit_type, reason, virtual)
    keys = observed.keys[person]
    arrival = observed.birth[person] + minutes(age)
    kind = shape * book.of("visit_type", encounter.visit_type)
    visit_class = shape * CLASS_NUMBER[encounter.visit_class]
    waited = 60 + np.floor(uniform(keys, "emergency length", arrival) * 300).astype(np.int64)
    if encounter.stay is None:
        return Visits(person, arrival, arrival + waited, visit_class, kind, reason, shape * 0)
    through = uniform(keys, "through emergency", arrival) < encounter.emergency_share
    lead = np.where(through, waited, 0)
    days = encounter.stay.median_days * np.exp(encounter.stay.log_sd * normal(keys, "stay", arrival))
    length = np.maximum(np.floor(days * MINUTES_PER_DAY), 12 * 60).astype(np.int64)
    return Visits(person, arrival, arrival + lead + length, visit_class, kind, reason, lead)


def nearest_after(visits: Visits, person: Ints, minute: Ints, within_days: float) -> Ints:
    """The first visit of each person at or after a time that is near enough, as row of `visits`, or NOTHING."""
    span = np.int64(1) << 32
    order = np.argsort(visits.person * span + visits.start, kind="stable")
    keys = (visits.person * span + visits.start)[order]
    found = np.searchsorted(keys, person * span + minute, side="left")
    inside = np.minimum(found, max(len(order) - 1, 0))
    if not len(order):
        return np.full(len(person), NOTHING)
    row = order[inside]
    near = (found < len(order)) & (visits.person[row] == person)
    near &= visits.start[row] - minute <= int(within_days * MINUTES_PER_DAY)
    return np.where(near, row, NOTHING)


def separate(visits: Visits, observed: Observed) -> tuple[Visits, Ints]:
    """Visits of a person moved on by whole days until none overlap, with the rows of `visits` they come from.

    A stay ends at death at the latest. Visits that would begin after the end of observation, or outlast it, are lost.
    """
    order = np.lexsort((-visits.end, visits.start, visits.person))
    moved = visits.take(order)
    offset = moved.person * (np.int64(1) << 34)
    for _ in range(_TIMES_MOVED):
        latest = np.maximum.accumulate(offset + moved.end)
        overlap = np.zeros(len(order), np.int64)
        overlap[1:] = np.where(moved.person[1:] == moved.person[:-1], latest[:-1] - (offset + moved.start)[1:], 0)
        late = overlap > 0
        if not late.any():
            break
        days = -(-overlap[late] // MINUTES_PER_DAY)
        start = moved.start[late] + days * MINUTES_PER_DAY
        start = np.where(moved.visit_class[late] == CLASS_NUMBER["AMB"], next_working_day(start), start)
        moved.end[late] += start - moved.start[late]
        moved.start[late] = start
        again = np.lexsort((-moved.end, moved.start, moved.person))
        moved, order = moved.take(again), order[again]
        offset = offset[again]
    kept = _within_life(moved, observed) & ~_overlapping(moved)
    rows = np.flatnonzero(kept)
    return moved.take(rows), order[rows]


def emergency_part(visits: Visits) -> Visits:
    """The emergency visits that stays begin with, as visits of their own."""
    led = visits.take(np.flatnonzero(visits.lead > 0))
    shape = np.ones(len(led.person), np.int64)
    kind = shape * codebook().of("visit_type", EMERGENCY_TYPE)
    return led._replace(
        end=led.start + led.lead, visit_class=shape * CLASS_NUMBER["EMER"], visit_type=kind, lead=shape * 0
    )


def _within_life(visits: Visits, observed: Observed) -> NDArray[np.bool_]:
    died, last = observed.died[visits.person], observed.last[visits.person]
    stay = (visits.visit_class == CLASS_NUMBER["IMP"]) & (visits.start + visits.lead + 60 < died) & (visits.end > died)
    visits.end[stay] = died[stay]
    return np.asarray(visits.end <= last)


def _overlapping(visits: Visits) -> NDArray[np.bool_]:
    offset = visits.person * (np.int64(1) << 34)
    latest = np.maximum.accumulate(offset + visits.end)
    same = np.zeros(len(offset), np.bool_)
    same[1:] = visits.person[1:] == visits.person[:-1]
    earlier = np.zeros(len(offset), np.int64)
    earlier[1:] = latest[:-1]
    return np.asarray(same & (offset + visits.start < earlier))

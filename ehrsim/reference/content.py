"""What is written at each visit, as rows of numbers: diagnoses, procedures, drugs, vaccines, panels and answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim import codes
from ehrsim.reference.calendar import MINUTES_PER_DAY, minutes
from ehrsim.reference.codebook import SMOKING_ANSWERS, SMOKING_STATUS, codebook
from ehrsim.reference.draws import Floats, Ints, choose, uniform
from ehrsim.reference.loading import load
from ehrsim.reference.measurements import Bodies, Occasions, by_month, named, values
from ehrsim.reference.schedule import Mention, Schedule
from ehrsim.reference.simulate import Bools
from ehrsim.reference.specification import AgeCurve, Encounter, Product
from ehrsim.reference.visits import CLASS_NUMBER, CLASSES, NOTHING, Observed

NEVER = int(np.iinfo(np.int32).min)
"""No end time."""
SMOKING_ASKED_FROM_AGE = 12
_MEASURED_AFTER, _WRITTEN_AFTER, _DONE_AFTER = 5, 10, 12
"""Minutes into a visit at which measurements, diagnoses and orders, and procedures are dated."""
_MORNING_ROUND = 390
_LONGEST_STAY_MEASURED = 30


class Rows(NamedTuple):
    """Events as columns of numbers, narrow ones because millions are moved; times in minutes."""

    visit: NDArray[np.int32]
    minute: NDArray[np.int32]
    code: NDArray[np.int16]
    value: NDArray[np.float32]
    """NaN for none."""
    text: NDArray[np.int16]
    """Position in the texts, -1 for none."""
    end: NDArray[np.int32]
    """NEVER for none."""


class Writer:
    """Gathers rows."""

    def __init__(self) -> None:
        self._pieces: list[Rows] = []

    def add(
        self,
        visit: Ints,
        minute: Ints,
        code: Ints | int,
        *,
        value: Floats | None = None,
        text: Ints | int = -1,
        end: Ints | None = None,
    ) -> None:
        """Add one row for each visit."""
        count = len(visit)
        if not count:
            return
        self._pieces.append(
            Rows(
                visit.astype(np.int32),
                minute.astype(np.int32),
                np.broadcast_to(np.asarray(code, np.int16), (count,)),
                np.broadcast_to(np.float32(np.nan), (count,)) if value is None else value.astype(np.float32),
                np.broadcast_to(np.asarray(text, np.int16), (count,)),
                np.broadcast_to(np.int32(NEVER), (count,)) if end is None else end.astype(np.int32),
            )
        )

    def rows(self) -> Rows:
        """Everything added so far, in that order."""
        return Rows(*(np.concatenate([piece[field] for piece in self._pieces]) for field in range(len(Rows._fields))))


class Chart(NamedTuple):
    """What the writers of content need to know."""

    plan: Schedule
    observed: Observed
    bodies: Bodies
    texts: dict[str, int]
    """Position of each coded answer among the texts."""


def texts() -> tuple[str, ...]:
    """The coded answers that events may carry as text."""
    products = [item for encounter in load().encounter for item in encounter.allergies]
    return (*SMOKING_ANSWERS, *dict.fromkeys(item.text for item in products if item.text))


def write(chart: Chart, writer: Writer) -> None:
    """Write all events of the planned visits, besides their starts and ends."""
    _visit_facts(chart, writer)
    for mention in chart.plan.encounters:
        _encounter(chart, mention, writer)
    _treatments(chart, writer)
    _screenings_and_doses(chart, writer)
    _follow_up_procedures(chart, writer)
    _smoking(chart, writer)
    _measure(chart, writer)


def _moment(chart: Chart, visit: Ints, after: int) -> Ints:
    """A time `after` minutes into visits, but not beyond their ends; in stays, after the emergency department."""
    visits = chart.plan.visits
    moment: Ints = np.minimum(visits.start[visit] + visits.lead[visit] + after, visits.end[visit])
    return moment


def _visit_facts(chart: Chart, writer: Writer) -> None:
    visits = chart.plan.visits
    every = np.arange(len(visits.person))
    start = visits.start + visits.lead
    writer.add(every, start, visits.visit_type)
    with_reason = np.flatnonzero(visits.reason != NOTHING)
    writer.add(with_reason, start[with_reason], visits.reason[with_reason])


def _ended(chart: Chart, visit: Ints, start: Ints, end: Ints) -> Ints:
    """End times: not before the start, and none where the end has not come by the last day of observation."""
    last = chart.observed.last[chart.plan.visits.person[visit]]
    return np.where(end <= last, np.maximum(end, start), NEVER)


def _encounter(chart: Chart, mention: Mention, writer: Writer) -> None:
    encounter = load().encounter[mention.item]
    book, visit = codebook(), mention.visit
    person = chart.plan.visits.person[visit]
    keys = chart.observed.keys[person]
    step = minutes(mention.age)
    written = _moment(chart, visit, _WRITTEN_AFTER)
    for number, item in enumerate(encounter.diagnoses):
        given = np.flatnonzero(uniform(keys, f"diagnosis {mention.item} {number}", step) < item.share)
        end = None
        if item.days is not None:
            end = written[given] + int(item.days * MINUTES_PER_DAY)
        elif item.state is not None:
            over = chart.bodies.states[item.state].end_at(person[given], mention.age[given] + 1e-9)
            ends = np.minimum(over, chart.observed.until[person[given]] + 1.0)
            end = chart.observed.birth[person[given]] + minutes(ends)
        end = _ended(chart, visit[given], written[given], end) if end is not None else None
        writer.add(visit[given], written[given], book.of("condition", item.code), end=end)
    _products(chart, mention, writer)
    _one_of(chart, mention, writer)


def _products(chart: Chart, mention: Mention, writer: Writer) -> None:
    encounter = load().encounter[mention.item]
    visit, book = mention.visit, codebook()
    keys = chart.observed.keys[chart.plan.visits.person[visit]]
    step = minutes(mention.age)
    for kind, items, after in _ordered(encounter):
        for number, item in enumerate(items):
            draws = uniform(keys, f"{kind} {mention.item} {number}", step)
            given = np.flatnonzero(draws < item.share)
            moment = _moment(chart, visit[given], after)
            end = None
            if item.days is not None:
                end = _ended(chart, visit[given], moment, moment + int(item.days * MINUTES_PER_DAY))
            elif kind == "procedure":
                end = _moment(chart, visit[given], after + 30)
            text = chart.texts[item.text] if item.text else -1
            writer.add(visit[given], moment, book.of(kind, item.code), text=text, end=end)


def _one_of(chart: Chart, mention: Mention, writer: Writer) -> None:
    """At most one of several medications."""
    items, visit = load().encounter[mention.item].one_of, mention.visit
    if not items:
        return
    keys = chart.observed.keys[chart.plan.visits.person[visit]]
    draws = uniform(keys, f"one of {mention.item}", minutes(mention.age))
    chosen = np.searchsorted(np.cumsum([item.share for item in items]), draws, side="right")
    for number, item in enumerate(items):
        given = visit[chosen == number]
        moment = _moment(chart, given, _WRITTEN_AFTER)
        end = None
        if item.days is not None:
            end = _ended(chart, given, moment, moment + int(item.days * MINUTES_PER_DAY))
        writer.add(given, moment, codebook().of("medication", item.code), end=end)


def _ordered(encounter: Encounter) -> list[tuple[codes.Kind, list[Product], int]]:
    return [
        ("procedure", encounter.procedures, _DONE_AFTER),
        ("medication", encounter.medications, _WRITTEN_AFTER),
        ("allergy", encounter.allergies, _WRITTEN_AFTER),
        ("care_plan", encounter.care_plans, _WRITTEN_AFTER),
    ]


def _treatments(chart: Chart, writer: Writer) -> None:
    """Prescriptions run from the visit to the end of the treatment state."""
    book = codebook()
    for mention in chart.plan.treatments:
        treatment = load().treatment[mention.item]
        visit = mention.visit
        person = chart.plan.visits.person[visit]
        draws = uniform(chart.observed.keys[person], f"product {treatment.state}", minutes(mention.age))
        chosen = choose(draws, np.array([item.share for item in treatment.products]))
        numbers = np.array([book.of("medication", item.code) for item in treatment.products])
        written = _moment(chart, visit, _WRITTEN_AFTER)
        ends = np.minimum(mention.end, chart.observed.until[person] + 1.0)
        end = _ended(chart, visit, written, chart.observed.birth[person] + minutes(ends))
        writer.add(visit, written, numbers[chosen], end=end)


def _screenings_and_doses(chart: Chart, writer: Writer) -> None:
    book = codebook()
    for mention in chart.plan.screenings:
        moment = _moment(chart, mention.visit, _DONE_AFTER)
        keys = chart.observed.keys[chart.plan.visits.person[mention.visit]]
        for item in load().screening[mention.item].procedures:
            done = np.flatnonzero(uniform(keys, f"screened by {item.code}", minutes(mention.age)) < item.share)
            end = _moment(chart, mention.visit[done], _DONE_AFTER + 30)
            writer.add(mention.visit[done], moment[done], book.of("procedure", item.code), end=end)
    for mention in chart.plan.doses:
        code = book.of("immunization", load().vaccine[mention.item].code)
        writer.add(mention.visit, _moment(chart, mention.visit, _WRITTEN_AFTER), code)


def _follow_up_procedures(chart: Chart, writer: Writer) -> None:
    for number, item in enumerate(load().follow_up):
        for procedure in item.procedures:
            due = _due(chart, number, procedure.per_year, procedure.code)
            end = _moment(chart, due, _DONE_AFTER + 30)
            writer.add(due, _moment(chart, due, _DONE_AFTER), codebook().of("procedure", procedure.code), end=end)


def _due(chart: Chart, number: int, per_year: float, purpose: str) -> Ints:
    """The follow-up visits, in person, at which something is due that is done `per_year` while a state holds."""
    plan, observed = chart.plan, chart.observed
    visit = plan.follow_ups
    person, start = plan.visits.person[visit], plan.visits.start[visit]
    state = load().follow_up[number].state
    concerned = chart.bodies.ever[state][person] & (plan.visits.visit_class[visit] == CLASS_NUMBER["AMB"])
    rows = np.flatnonzero(concerned)
    draws = uniform(observed.keys[person[rows]], f"due {state} {purpose}", start[rows])
    rows = rows[draws < per_year / plan.follow_up_rate[rows]]
    age = chart_age(observed, person[rows], start[rows])
    return visit[rows[chart.bodies.states[state].at(person[rows], age)[0]]]


def chart_age(observed: Observed, person: Ints, minute: Ints) -> Floats:
    """Ages in years at times."""
    return np.asarray((minute - observed.birth[person]) / 525_960.0)


def _smoking(chart: Chart, writer: Writer) -> None:
    """The smoking status asked at wellness visits."""
    visit = chart.plan.wellness
    person = chart.plan.visits.person[visit]
    minute = _moment(chart, visit, _MEASURED_AFTER)
    age = chart_age(chart.observed, person, minute)
    asked = np.flatnonzero(age >= SMOKING_ASKED_FROM_AGE)
    visit, person, minute, age = visit[asked], person[asked], minute[asked], age[asked]
    now = chart.bodies.states["current_smoker"].at(person, age)[0]
    once = chart.bodies.states["former_smoker"].at(person, age)[0]
    answers = np.array([chart.texts[answer] for answer in SMOKING_ANSWERS])
    answer = answers[np.where(now, 2, np.where(once, 1, 0))]
    writer.add(visit, minute, codebook().of("observation", SMOKING_STATUS), text=answer)


def _measure(chart: Chart, writer: Writer) -> None:
    """Panels at the visits, and each further morning of a stay."""
    occasions, visit = _occasions(chart)
    wanted = {item.name: np.zeros(len(visit), np.bool_) for item in load().panel}
    _want_vital_signs(chart, occasions, visit, wanted)
    _want_ordered(chart, occasions, wanted)
    book, members = codebook(), {item.name: np.zeros(len(visit), np.bool_) for item in load().measurement}
    for panel in load().panel:
        mask = wanted[panel.name] & (occasions.age >= panel.from_age) & (occasions.age < panel.to_age)
        if panel.part_of:
            mask &= ~wanted[panel.part_of]
        for name in panel.members:
            members[name] |= mask
        if panel.code:
            rows = np.flatnonzero(mask)
            writer.add(visit[rows], occasions.minute[rows], book.of("panel", panel.code))
    for name, mask in members.items():
        rows = np.flatnonzero(mask)
        measured = values(name, chart.bodies, occasions.take(rows))
        writer.add(visit[rows], occasions.minute[rows], book.of("observation", named(name).code), value=measured)


def _occasions(chart: Chart) -> tuple[Occasions, Ints]:
    """Every visit once, and every further morning of stays; the first rows are the visits in order."""
    visits = chart.plan.visits
    begun = visits.start + visits.lead
    nights = visits.end // MINUTES_PER_DAY - begun // MINUTES_PER_DAY
    nights = np.where(visits.visit_class == CLASS_NUMBER["IMP"], np.minimum(nights, _LONGEST_STAY_MEASURED), 0)
    visit = np.repeat(np.arange(len(nights)), nights)
    day = np.arange(len(visit)) - np.repeat(np.cumsum(nights) - nights, nights) + 1
    morning = (begun[visit] // MINUTES_PER_DAY + day) * MINUTES_PER_DAY + _MORNING_ROUND
    stays = morning < visits.end[visit]
    visit, day, morning = visit[stays], day[stays], morning[stays]
    first = np.arange(len(visits.person))
    encounter = np.full(len(first), NOTHING)
    for mention in chart.plan.encounters:
        encounter[mention.visit] = mention.item
    where = np.concatenate([first, visit])
    minute = np.concatenate([_moment(chart, first, _MEASURED_AFTER), morning])
    person = visits.person[where]
    age = chart_age(chart.observed, person, minute)
    return Occasions(person, age, minute, encounter[where], np.concatenate([first * 0, day])), where


def _want_vital_signs(chart: Chart, occasions: Occasions, visit: Ints, wanted: dict[str, Bools]) -> None:
    visit_class = chart.plan.visits.visit_class[visit]
    for number, item in enumerate(load().vital_signs):
        rows = np.flatnonzero(visit_class == CLASSES.index(item.visit_class))
        wanted[item.panel][_drawn(chart, occasions, rows, item.share, f"vital signs {number}")] = True


def _drawn(chart: Chart, occasions: Occasions, rows: Ints, share: AgeCurve, purpose: str) -> Ints:
    """Those of `rows` that a chance by age and sex selects."""
    person = occasions.person[rows]
    month = np.minimum((occasions.age[rows] * 12).astype(np.int64), 1391)
    chance = by_month(share)[chart.observed.male[person].astype(np.int64), month]
    return rows[uniform(chart.observed.keys[person], purpose, occasions.minute[rows]) < chance]


def _want_ordered(chart: Chart, occasions: Occasions, wanted: dict[str, Bools]) -> None:
    """Panels of encounters, of follow-up, of screening and of wellness visits."""
    family, plan = load(), chart.plan
    for mention in plan.encounters:
        for name in family.encounter[mention.item].panels:
            wanted[name][mention.visit] = True
    for mention in plan.screenings:
        for name in family.screening[mention.item].panels:
            wanted[name][mention.visit] = True
    for number, item in enumerate(family.follow_up):
        for order in item.panels:
            wanted[order.panel][_due(chart, number, order.per_year, order.panel)] = True
    for panel in family.panel:
        if panel.wellness_per_visit:
            rows = _drawn(chart, occasions, plan.wellness, panel.wellness_per_visit, f"wellness {panel.name}")
            wanted[panel.name][rows] = True

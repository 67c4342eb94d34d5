"""Prediction tasks made from events: who is asked, at which moment, and what came of it.

A task is defined by the real training patients and then put to every cohort alike. Each patient is asked once at most,
at one of the moments at which the answer is known, drawn by a hash of the patient and the task: a patient's moment does
not depend on who else is there. Everything before the moment may be used to predict (`predictors.py`), nothing later.

| kind | moment | outcome |
|---|---|---|
| onset | after a day with events, a year into the record, without the condition so far | the condition within a year |
| death | as above | death within a year |
| readmission | the end of a stay in hospital | another one within 30 days |
| worsening | after a day with a measurement within its limit | the next one, within two years, is beyond |

The answer is known where the record goes on, or the patient dies, to the end of the time asked about. Those who die
without the condition did not get it. That is asked of patients with and without the outcome alike: to take outcomes
from records that are too short for the others would make it look common.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
import polars as pl

from ehrsim import codes
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.records import VISIT_MARKS, visit_events
from ehrsim.events import mixed, stable_id_of

YEAR, MONTH, NEXT_VALUE = 365, 30, 730
"""Days asked about; and those within which the next value of a measurement must come."""
HISTORY = 365
"""Days of record before the moment of a patient who is asked about an onset or death."""
LEAST_POSITIVES, LEAST_HELD_OUT = 20, 10
"""With the outcome, and without it, among the training and the held-out patients: with less a task is skipped."""
MOST_ONSETS, MOST_LABS, TRIED = 4, 3, 12
ENDING = 0.5
"""A condition whose entries mostly have an end is an episode: it is asked about where lasting ones are too few."""
INPATIENT = frozenset(("IMP", "ACUTE", "NONAC", "INPATIENT"))
"""Classes of visits that are stays in hospital: those of HL7's ActCode, and what Synthea wrote before it used them."""


class Limit(NamedTuple):
    """Where a measurement becomes a worry."""

    unit: str
    value: float
    above: bool


LIMITS = {
    "LOINC//8480-6": Limit("mm[Hg]", 140, above=True),  # systolic and diastolic pressure: ESC/ESH 2018
    "LOINC//8462-4": Limit("mm[Hg]", 90, above=True),
    "LOINC//39156-5": Limit("kg/m2", 30, above=True),  # obesity: WHO
    "LOINC//4548-4": Limit("%", 6.5, above=True),  # HbA1c and glucose: ADA
    "LOINC//2345-7": Limit("mg/dL", 126, above=True),
    "LOINC//2339-0": Limit("mg/dL", 126, above=True),
    "LOINC//33914-3": Limit("mL/min/{1.73_m2}", 60, above=False),  # estimated filtration rate: KDIGO
    "LOINC//2160-0": Limit("mg/dL", 1.3, above=True),
    "LOINC//38483-4": Limit("mg/dL", 1.3, above=True),
    "LOINC//718-7": Limit("g/dL", 12, above=False),  # haemoglobin: WHO, women
    "LOINC//2093-3": Limit("mg/dL", 240, above=True),  # lipids: NCEP ATP III
    "LOINC//18262-6": Limit("mg/dL", 160, above=True),
    "LOINC//13457-7": Limit("mg/dL", 160, above=True),
    "LOINC//2571-8": Limit("mg/dL", 200, above=True),
    "LOINC//2085-9": Limit("mg/dL", 40, above=False),
}
"""Of measurements that have one by common definition; the limit of others is a quantile of the training patients'."""
_GROWTH = ("LOINC//8302-2", "LOINC//29463-7", "LOINC//9843-4", "LOINC//8287-5", "LOINC//3137-7")
"""Heights, weights and head circumferences: a child that outgrows a limit is not worse."""
_HIGH = 0.9


class Task(msgspec.Struct, frozen=True):
    """What is asked of patients."""

    name: str
    kind: Literal["onset", "death", "readmission", "worsening"]
    days: int
    """asked about, from the moment on"""
    code: str | None = None
    """of the condition or measurement"""
    unit: str | None = None
    limit: float | None = None
    above: bool = True
    """whether beyond the limit is above it"""


class Skipped(msgspec.Struct, frozen=True):
    """A task that could not be put, and why."""

    name: str
    reason: str


class Chosen(NamedTuple):
    """The tasks of a data set, and those it has too little for."""

    tasks: list[Task]
    skipped: list[Skipped]


class Calendar(NamedTuple):
    """When patients can be asked: of each, all in microseconds of local time."""

    days: pl.DataFrame
    """subject_id, moment: the midnight after each day with events of visits"""
    lives: pl.DataFrame
    """subject_id, first (event of a visit), end (death, else end of observation, else last event), death or null"""


def calendar(events: pl.LazyFrame) -> Calendar:
    """When the patients of a table of events can be asked."""
    time, code = pl.col("time"), pl.col("code")
    own = visit_events(events).select("subject_id", "time")
    days = own.select("subject_id", moment=_midnight_after(time)).unique().sort("subject_id", "moment")
    bounds = events.group_by("subject_id").agg(
        death=time.filter(code == codes.DEATH).min(),
        closed=time.filter(code == codes.OBSERVATION_END).max(),
        last=time.max(),
    )
    first = own.group_by("subject_id").agg(first=time.min())
    lives = bounds.join(first, on="subject_id").select(
        "subject_id", "first", end=pl.coalesce("death", "closed", "last"), death="death"
    )
    return Calendar(*pl.collect_all([days, lives.sort("subject_id")]))


def choose(
    training: pl.LazyFrame,
    held_out: pl.LazyFrame,
    *,
    onsets: int = MOST_ONSETS,
    labs: int = MOST_LABS,
    seed: int = 0,
) -> Chosen:
    """The tasks that a data set has outcomes for: onsets, measurements, death and readmission.

    Onsets are of the conditions that most training patients get within the time asked about, and measurements those
    that most patients had twice. Each needs `LEAST_POSITIVES` training and `LEAST_HELD_OUT` held-out patients with the
    outcome and as many without it.
    """
    pair = [(table, calendar(table)) for table in (training, held_out)]
    found, skipped = [], []
    groups = [
        (_onsets(training), onsets),
        (_worsenings(training), labs),
        ([(False, Task("death within a year", "death", YEAR))], 1),
        ([(False, Task("readmission within 30 days", "readmission", MONTH))], 1),
    ]
    for candidates, most in groups:
        enough, short = [], []
        for second, task in candidates:
            sizes = [_outcomes(examples(*each, task, seed=seed)) for each in pair]
            reason = _reason(sizes)
            if reason is None:
                enough.append((second, -min(sizes[0]), task))
            else:
                short.append(Skipped(task.name, reason))
        found += [task for _, _, task in sorted(enough, key=lambda one: one[:2])[:most]]
        skipped += short if len(enough) < most else []
    return Chosen(found, skipped)


def examples(events: pl.LazyFrame, when: Calendar, task: Task, *, seed: int = 0) -> pl.DataFrame:
    """The patients who are asked, a row each in order: subject_id, `moment`, and whether the outcome came (`label`).

    `when` is the `calendar` of the events. Which moment is taken depends on the patient, the task and the seed alone.
    """
    make = {"onset": _of_onset, "death": _of_death, "readmission": _of_readmission, "worsening": _of_worsening}
    return drawn(make[task.kind](events, when, task), task.name, seed=seed).select("subject_id", "moment", "label")


def drawn(candidates: pl.DataFrame, name: str, *, seed: int = 0) -> pl.DataFrame:
    """One row of each patient of a table of subject_id and `moment`, by a hash of these, a name and a seed."""
    salt = stable_id_of(f"{seed} {name}")
    subject = mixed(candidates["subject_id"].cast(pl.Int64) ^ salt).view("int64")
    order = mixed(pl.Series(subject) ^ candidates["moment"].cast(pl.Int64))
    ordered = candidates.with_columns(order=pl.Series(order)).sort("subject_id", "order", "moment")
    return ordered.unique("subject_id", keep="first", maintain_order=True).drop("order")


def _of_onset(events: pl.LazyFrame, when: Calendar, task: Task) -> pl.DataFrame:
    first = events.filter((pl.col("code") == task.code) & pl.col("time").is_not_null())
    onset = first.group_by("subject_id").agg(onset=pl.col("time").min()).collect()
    asked = _followed(when, task).join(onset, on="subject_id", how="left")
    free = pl.col("onset").is_null() | (pl.col("onset") >= pl.col("moment"))
    within = pl.col("onset") < pl.col("moment") + pl.duration(days=task.days)
    return asked.filter(free).with_columns(label=within.fill_null(False))


def _of_death(events: pl.LazyFrame, when: Calendar, task: Task) -> pl.DataFrame:
    del events
    within = pl.col("death") < pl.col("moment") + pl.duration(days=task.days)
    return _followed(when, task).with_columns(label=within.fill_null(False))


def _followed(when: Calendar, task: Task) -> pl.DataFrame:
    """The moments after days with events, with history before and the time asked about known."""
    return after_history(when).filter(_known(task))


def after_history(when: Calendar) -> pl.DataFrame:
    """The moments after days with events, with `HISTORY` before: subject_id, moment, first, end, death."""
    early = pl.col("moment") < pl.col("first") + pl.duration(days=HISTORY)
    return when.days.join(when.lives, on="subject_id").filter(~early)


def _known(task: Task) -> pl.Expr:
    """Whether a patient is alive at the moment, and followed or known to have died for the time asked about."""
    alive = pl.col("death").is_null() | (pl.col("death") >= pl.col("moment"))
    to_end = pl.col("end") >= pl.col("moment") + pl.duration(days=task.days)
    return alive & (to_end | pl.col("death").is_not_null())


def _of_readmission(events: pl.LazyFrame, when: Calendar, task: Task) -> pl.DataFrame:
    """The ends of stays; one that ends in another stay is no discharge."""
    stays = (
        hospital_stays(events)
        .sort("subject_id", "start", "end")
        .with_columns(following=pl.col("start").shift(-1).over("subject_id"))
    )
    discharged = stays.filter(
        pl.col("end").is_not_null() & (pl.col("following").is_null() | (pl.col("following") > pl.col("end")))
    )
    asked = discharged.select("subject_id", "following", moment=pl.col("end") + pl.duration(microseconds=1))
    within = pl.col("following") < pl.col("moment") + pl.duration(days=task.days)
    known = asked.join(when.lives, on="subject_id").filter(_known(task))
    return known.with_columns(label=within.fill_null(False))


def hospital_stays(events: pl.LazyFrame) -> pl.DataFrame:
    """A row a stay in hospital: subject_id, visit_id, start, end (null if unknown)."""
    parts = pl.col("code").str.split("//").list
    marked = events.filter(pl.col("code").str.contains("^VISIT_(START|END)//") & pl.col("visit_id").is_not_null())
    starts = pl.col("mark") == "VISIT_START"
    found = (
        marked.with_columns(mark=parts.get(0), visit_class=parts.get(1))
        .group_by("subject_id", "visit_id")
        .agg(
            start=pl.col("time").filter(starts).min(),
            end=pl.coalesce(pl.col("time").filter(~starts).max(), pl.col("end_time").filter(starts).max()),
            inpatient=pl.col("visit_class").filter(starts).is_in(INPATIENT).any(),
        )
    )
    kept = found.filter(pl.col("inpatient") & pl.col("start").is_not_null())
    return kept.drop("inpatient").sort("subject_id", "start", "visit_id").collect()


def _of_worsening(events: pl.LazyFrame, when: Calendar, task: Task) -> pl.DataFrame:
    """The days with a value within the limit that have another after them; the last value of a day is its."""
    del when
    value = pl.col("numeric_value")
    measured = events.filter(
        (pl.col("code") == task.code)
        & pl.col("unit").eq_missing(task.unit)
        & value.is_finite()
        & pl.col("time").is_not_null()
    )
    by_day = (
        measured.sort("subject_id", "time", maintain_order=True)
        .group_by("subject_id", moment=_midnight_after(pl.col("time")), maintain_order=True)
        .agg(value.last())
        .with_columns(
            next_value=value.shift(-1).over("subject_id"), next_day=pl.col("moment").shift(-1).over("subject_id")
        )
    )
    soon = pl.col("next_day") <= pl.col("moment") + pl.duration(days=task.days)
    pair = by_day.filter(soon & ~_beyond(value, task)).collect()
    return pair.select("subject_id", "moment", label=_beyond(pl.col("next_value"), task))


def _beyond(value: pl.Expr, task: Task) -> pl.Expr:
    return value >= task.limit if task.above else value < task.limit


def _midnight_after(time: pl.Expr) -> pl.Expr:
    return time.cast(pl.Datetime("us")).dt.truncate("1d") + pl.duration(days=1)


def _onsets(training: pl.LazyFrame) -> list[tuple[bool, Task]]:
    """Tasks of the conditions that most patients have, and whether they come second: those that mostly end."""
    timed = training.filter(pl.col("time").is_not_null() & ~pl.col("code").str.contains(VISIT_MARKS))
    carriers, ending = pl.col("subject_id").n_unique(), pl.col("end_time").is_not_null().mean()
    counted = timed.group_by("code").agg(carriers=carriers, ends=ending > ENDING).collect()
    conditions = counted.filter(kind_of(counted["code"]) == "condition")
    common = conditions.sort(["carriers", "code"], descending=[True, False])
    tried = [common.filter(pl.col("ends") == ends).head(TRIED) for ends in (False, True)]
    return [
        (ends, Task(f"onset of {code} within a year", "onset", YEAR, code))
        for code, _, ends in pl.concat(tried).iter_rows()
    ]


def _worsenings(training: pl.LazyFrame) -> list[tuple[bool, Task]]:
    """Tasks of the measurements that most patients had on two days, and whether they come second: without a limit."""
    value, days = pl.col("numeric_value"), pl.col("time").dt.date().n_unique()
    found = training.filter(value.is_finite() & pl.col("time").is_not_null() & ~pl.col("code").is_in(_GROWTH))
    twice = found.group_by("code", "unit", "subject_id").agg(days=days).filter(pl.col("days") > 1)
    counted = twice.group_by("code", "unit").agg(patients=pl.len())
    spread = found.group_by("code", "unit").agg(high=value.quantile(_HIGH, "linear"), median=value.median())
    rows = counted.join(spread, on=["code", "unit"], nulls_equal=True).sort(
        ["patients", "code", "unit"], descending=[True, False, False]
    )
    tasks = []
    for code, unit, _, high, median in rows.unique("code", keep="first", maintain_order=True).collect().iter_rows():
        known = LIMITS.get(code)
        given = known is not None and known.unit == unit
        limit = known if known is not None and given else Limit(unit, round(float(high), 2), above=True)
        if given or limit.value > median:
            side = "at or above" if limit.above else "below"
            name = f"next {code} {side} {limit.value:g} {unit or ''}".rstrip()
            task = Task(name, "worsening", NEXT_VALUE, code, unit, limit.value, limit.above)
            tasks.append((not given, task))
    return sorted(tasks, key=lambda pair: pair[0])[:TRIED]


def _outcomes(table: pl.DataFrame) -> tuple[int, int]:
    """How many have the outcome, and how many have not."""
    positives = int(table["label"].sum())
    return positives, table.height - positives


def _reason(sizes: list[tuple[int, int]]) -> str | None:
    """Why a task with so many patients with and without the outcome is skipped, in training and held-out patients."""
    for name, (having, lacking), least in zip(
        ("training", "held-out"), sizes, (LEAST_POSITIVES, LEAST_HELD_OUT), strict=True
    ):
        if min(having, lacking) < least:
            whose = "with" if having <= lacking else "without"
            return f"{min(having, lacking)} {name} patients {whose} the outcome, {least} are needed"
    return None

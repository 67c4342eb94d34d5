"""From rows of numbers to the canonical event table: sorted, visits numbered, strings gathered last."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ehrsim import codes, events
from ehrsim.reference.codebook import EMERGENCY_TYPE, codebook
from ehrsim.reference.content import NEVER, Rows, Writer, texts
from ehrsim.reference.draws import Ints
from ehrsim.reference.people import People, demography
from ehrsim.reference.visits import CLASSES, NOTHING, Observed, Visits, concatenate, emergency_part

_MICROSECONDS = 60_000_000
ADULT_YEARS = 18.0
"""Nobody younger is married."""
_TIME_BITS, _RANK_BITS, _CODE_BITS = 27, 3, 12
_BIRTH_RANK, _START_RANK, _OTHER_RANK, _END_RANK, _DEATH_RANK = range(5)


def event_frame(people: People, observed: Observed, visits: Visits, writer: Writer) -> pl.DataFrame:
    """The event table of a block of people in canonical order (`ehrsim.events.sort`), with descriptions.

    `writer` holds what was written at the visits.
    """
    shown = _show_visits(visits, writer)
    _life_events(people, observed, len(shown.person), writer)
    rows = writer.rows()
    person = np.concatenate([shown.person, np.arange(len(people.keys))]).astype(np.int32)[rows.visit]
    visit = np.concatenate([_numbered(shown), np.zeros(len(people.keys), np.int64)]).astype(np.int32)[rows.visit]
    order = _order(person, rows, observed)
    subjects = people.number[person[order]] + 1
    return _frame(subjects, visit[order], Rows._make(column[order] for column in rows))


def _show_visits(visits: Visits, writer: Writer) -> Visits:
    """Write starts and ends of visits; returns them with the emergency visits that stays began with after them."""
    emergency, book = emergency_part(visits), codebook()
    shown = concatenate([visits._replace(start=visits.start + visits.lead), emergency])
    every, arrivals = np.arange(len(shown.person)), np.arange(len(visits.person), len(shown.person))
    starts = np.array([book.number[f"VISIT_START//{name}"] for name in CLASSES])
    ends = np.array([book.number[f"VISIT_END//{name}"] for name in CLASSES])
    writer.add(every, shown.start, starts[shown.visit_class])
    writer.add(every, shown.end, ends[shown.visit_class])
    writer.add(arrivals, emergency.start, book.of("visit_type", EMERGENCY_TYPE))
    reason = emergency.reason != NOTHING
    writer.add(arrivals[reason], emergency.start[reason], emergency.reason[reason])
    return shown


def _numbered(visits: Visits) -> Ints:
    """The id of each visit: 1, 2 … for each person in order of start."""
    order = np.lexsort((visits.start, visits.person))
    person = visits.person[order]
    first = np.searchsorted(person, person, side="left")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - first + 1
    return number


def _life_events(people: People, observed: Observed, offset: int, writer: Writer) -> None:
    """Write birth, death and static facts; for the visit stands `offset` plus the person, for no time NEVER."""
    book, everyone = codebook(), np.arange(len(people.keys))
    writer.add(everyone + offset, observed.birth, book.number[codes.BIRTH])
    dead = everyone[observed.died <= observed.last]
    writer.add(dead + offset, observed.died[dead], book.number[codes.DEATH])
    for number in _statics(people, observed):
        writer.add(everyone + offset, np.full(len(everyone), NEVER), number)


def _statics(people: People, observed: Observed) -> list[Ints]:
    """The codes of sex, race, ethnicity, language and marital status of everyone."""
    spec, number = demography(), codebook().number
    sex = np.where(people.male, number["GENDER//male"], number["GENDER//female"])
    race = np.array([number[f"RACE//{item.race}"] for item in spec.groups])[people.group]
    ethnicity = np.array([number[f"ETHNICITY//{item.ethnicity}"] for item in spec.groups])[people.group]
    english = np.array([number[f"LANGUAGE//{item.code}"] for item in spec.language.choices])
    hispanic = np.array([number[f"LANGUAGE//{item.code}"] for item in spec.language_hispanic.choices])
    is_hispanic = np.array([item.ethnicity == "2135-2" for item in spec.groups])[people.group]
    language = np.where(
        is_hispanic,
        hispanic[np.minimum(people.language, len(hispanic) - 1)],
        english[np.minimum(people.language, len(english) - 1)],
    )
    marital = np.array([number[f"MARITAL//{item.code}"] for item in spec.marital.choices])[people.marital]
    marital = np.where(observed.until < ADULT_YEARS, number["MARITAL//S"], marital)
    return [sex, race, ethnicity, language, marital]


@lru_cache(maxsize=1)
def _ranks() -> Ints:
    """The rank of each code among events of the same minute, as in `ehrsim.events.sort`."""
    special = {codes.BIRTH: _BIRTH_RANK, codes.DEATH: _DEATH_RANK}
    prefixes = {"VISIT_START": _START_RANK, "VISIT_END": _END_RANK}
    ranks = [special.get(code, prefixes.get(code.partition("//")[0], _OTHER_RANK)) for code in codebook().codes]
    return np.array(ranks, np.int64)


def _order(person: NDArray[np.int32], rows: Rows, observed: Observed) -> Ints:
    """The canonical order, without rows that repeat person, minute and code: one 64-bit key sorts all columns."""
    since_birth = rows.minute - observed.birth[person] + 1
    since_birth[rows.minute == NEVER] = 0
    key = (person.astype(np.int64) << _TIME_BITS) + since_birth
    key <<= _RANK_BITS + _CODE_BITS
    key += ((_ranks() << _CODE_BITS) + np.arange(len(_ranks())))[rows.code]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return order[fresh]


def _frame(subject: Ints, visit: NDArray[np.int32], rows: Rows) -> pl.DataFrame:
    book = codebook()
    code, answers = pl.Series(rows.code), pl.Series([*texts(), None], dtype=pl.String)
    columns = {
        "subject_id": subject,
        "time": rows.minute,
        "code": pl.Series(book.codes, dtype=pl.String).gather(code),
        "numeric_value": rows.value,
        "text_value": answers.gather(pl.Series(np.where(rows.text < 0, len(answers) - 1, rows.text))),
        "unit": pl.Series(book.units, dtype=pl.String).gather(code),
        "visit_id": visit,
        "end_time": rows.end,
        events.DESCRIPTION: pl.Series(book.descriptions, dtype=pl.String).gather(code),
    }
    return pl.DataFrame(columns).with_columns(
        _time("time"),
        _time("end_time"),
        pl.col("numeric_value").fill_nan(None),
        pl.when(pl.col("visit_id") > 0).then(pl.col("visit_id").cast(pl.Int64)).alias("visit_id"),
    )


def _time(column: str) -> pl.Expr:
    microseconds = pl.col(column).cast(pl.Int64) * _MICROSECONDS
    return pl.when(pl.col(column) != NEVER).then(microseconds.cast(pl.Datetime("us"))).alias(column)

"""From rows of numbers to the canonical event table: sorted, visits numbered, strings gathered last."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.reference.codebook import EMERGENCY_TYPE, codebook
from ehrsim.reference.content import NEVER, Rows, texts
from ehrsim.reference.draws import Ints
from ehrsim.reference.people import People, demography
from ehrsim.reference.visits import CLASSES, NOTHING, Observed, Visits, concatenate, emergency_part

_MICROSECONDS = 60_000_000
ADULT_YEARS = 18.0
"""Nobody younger is married."""
_TIME_BITS, _RANK_BITS, _CODE_BITS = 27, 3, 12
_BIRTH_RANK, _START_RANK, _OTHER_RANK, _END_RANK, _DEATH_RANK = range(5)


def event_frame(people: People, observed: Observed, visits: Visits, rows: Rows) -> pl.DataFrame:
    """The event table of a block of people in canonical order (`ehrsim.events.sort`), with descriptions."""
    emergency = emergency_part(visits)
    shown = concatenate([visits._replace(start=visits.start + visits.lead), emergency])
    visit_id = _numbered(shown)
    stays, arrivals = np.arange(len(shown.person)), np.arange(len(visits.person), len(shown.person))
    book = codebook()
    starts = np.array([book.number[f"VISIT_START//{name}"] for name in CLASSES])[shown.visit_class]
    ends = np.array([book.number[f"VISIT_END//{name}"] for name in CLASSES])[shown.visit_class]
    reason = emergency.reason != NOTHING
    kind = np.full(len(arrivals), book.of("visit_type", EMERGENCY_TYPE))
    seen = _joined(
        [
            rows,
            _plain(stays, shown.start, starts),
            _plain(stays, shown.end, ends),
            _plain(arrivals, emergency.start, kind),
            _plain(arrivals[reason], emergency.start[reason], emergency.reason[reason]),
        ]
    )
    lives = _life_events(people, observed)
    whole = _joined([seen, lives])
    person = np.concatenate([shown.person[seen.visit], lives.visit])
    visit = np.concatenate([visit_id[seen.visit], np.full(len(lives.visit), NOTHING)])
    order = _order(person, whole, observed)
    return _frame(people.index[person[order]] + 1, visit[order], Rows(*(column[order] for column in whole)))


def _plain(visit: Ints, minute: Ints, code: Ints) -> Rows:
    """Rows without values."""
    return Rows(visit, minute, code, np.full(len(visit), np.nan), np.full(len(visit), -1), np.full(len(visit), NEVER))


def _joined(pieces: list[Rows]) -> Rows:
    return Rows(*(np.concatenate([piece[field] for piece in pieces]) for field in range(len(Rows._fields))))


def _numbered(visits: Visits) -> Ints:
    """The id of each visit: 1, 2 … for each person in order of start."""
    order = np.lexsort((visits.start, visits.person))
    person = visits.person[order]
    first = np.searchsorted(person, person, side="left")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - first + 1
    return number


def _life_events(people: People, observed: Observed) -> Rows:
    """Birth, death and static facts; the visit of each is its person's row, its minute NEVER for a static fact."""
    book, everyone = codebook(), np.arange(len(people.keys))
    dead = everyone[observed.died <= observed.last]
    timed = [
        (everyone, observed.birth, np.full(len(everyone), book.number[codes.BIRTH])),
        (dead, observed.died[dead], np.full(len(dead), book.number[codes.DEATH])),
    ]
    facts = [_plain(person, minute, code) for person, minute, code in timed]
    for number in _statics(people, observed):
        facts.append(_plain(everyone, np.full(len(everyone), NEVER), number))
    return _joined(facts)


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


def _order(person: Ints, rows: Rows, observed: Observed) -> Ints:
    """The canonical order, without rows that repeat person, minute and code: one 64-bit key sorts all columns."""
    since_birth = np.where(rows.minute == NEVER, 0, rows.minute - observed.birth[person] + 1)
    key = (person << _TIME_BITS) | since_birth
    key = (key << _RANK_BITS) | _ranks()[rows.code]
    key = (key << _CODE_BITS) | rows.code
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return order[fresh]


def _frame(subject: Ints, visit: Ints, rows: Rows) -> pl.DataFrame:
    book = codebook()
    code = pl.Series(rows.code)
    text = pl.Series(np.where(rows.text < 0, len(texts()), rows.text))
    value = pl.Series(rows.value).cast(pl.Float32)
    never = pl.Series(rows.minute == NEVER), pl.Series(rows.end == NEVER)
    frame = pl.DataFrame(
        {
            "subject_id": subject,
            "time": _times(rows.minute, never[0]),
            "code": pl.Series(book.codes, dtype=pl.String).gather(code),
            "numeric_value": value.fill_nan(None),
            "text_value": pl.Series([*texts(), None], dtype=pl.String).gather(text),
            "unit": pl.Series(book.units, dtype=pl.String).gather(code),
            "visit_id": pl.Series(visit),
            "end_time": _times(rows.end, never[1]),
            events.DESCRIPTION: pl.Series(book.descriptions, dtype=pl.String).gather(code),
        }
    )
    return frame.with_columns(visit_id=pl.when(pl.col("visit_id") > 0).then("visit_id"))


def _times(minute: Ints, missing: pl.Series) -> pl.Series:
    times = pl.Series(np.where(minute == NEVER, 0, minute) * _MICROSECONDS).cast(pl.Datetime("us"))
    return times.to_frame("time").select(pl.when(~missing).then("time"))["time"]

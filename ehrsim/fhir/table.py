"""A group of subjects as aligned arrays: what every builder gathers its resources from.

Everything that can be done for whole columns is done here, on distinct values where there are few of them: codes and
units become numbers, times become FHIR dateTimes, rows become hashes for their ids, visits become encounters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from ehrsim import codes
from ehrsim.fhir import identity
from ehrsim.fhir.columns import Ints, gathered, nothing
from ehrsim.fhir.fragments import CONTROL, event_concept
from ehrsim.fhir.identity import Lanes, Words
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.shapes import CODED, ENDED, IN_VISIT, NUMBER_OF, NUMERIC, TEXT, TIMED, Shapes, may_hold_answer
from ehrsim.groups import example

Mask = npt.NDArray[np.bool_]

_ANSWERS = {
    "266919005": "Never smoked tobacco",
    "8517006": "Former smoker",
    "449868002": "Smokes tobacco daily",
    "428041000124106": "Occasional tobacco smoker",
    "77176002": "Smoker",
    "266927001": "Tobacco smoking consumption unknown",
    "271807003": "Eruption of skin",
    "247472004": "Wheal",
    "76067001": "Sneezing",
    "56018004": "Wheezing",
    "39579001": "Anaphylaxis",
    "422587007": "Nausea",
    "62315008": "Diarrhea",
    "49727002": "Cough",
    "267036007": "Dyspnea",
    "41291007": "Angioedema",
}
"""Displays of SNOMED CT answers that events hold as bare codes."""


class Visits(NamedTuple):
    """The visits of a group, one a row."""

    subject: Ints
    """Index of the subject in the group."""
    number: Ints
    """visit_id; 0 where `numbered` is false."""
    numbered: Mask
    start: Ints
    """Row of the VISIT_START event, -1 if there is none."""
    end: Ints
    """Row of the VISIT_END event, -1 if there is none."""
    first: Ints
    """Row of the first event with a time, -1 if none has one."""
    lanes: Lanes


class Table(NamedTuple):
    """A group of subjects; all arrays but those of visits and subjects have an element an event."""

    frame: pl.DataFrame
    subjects: Ints
    """Subject ids of the group, in order."""
    subject_lanes: Lanes
    kind: npt.NDArray[np.int8]
    code: Ints
    unit: Ints
    form: Ints
    subject: Ints
    visit: Ints
    """Index of the visit, -1 for none."""
    moment: Ints
    """A number below that of events, the same for all events of one subject, visit and time."""
    time: pl.Series
    """FHIR dateTimes, as are those of `end`; null for none, as in the columns below."""
    end: pl.Series
    value: pl.Series
    """Numbers as JSON."""
    text: pl.Series
    """Texts as JSON strings."""
    answer: pl.Series
    """A CodeableConcept, instead of a text that is a code of a known system where its kind may hold one."""
    lanes: Lanes
    visits: Visits

    def rows_of(self, kind: str) -> Ints:
        """The rows of a kind of event, in order."""
        return np.flatnonzero(self.kind == NUMBER_OF[kind])


def without_control_characters(frame: pl.DataFrame, report: ExportReport) -> pl.DataFrame:
    """The frame with a space for each character of a text that no FHIR string can have; the texts are counted."""
    has = frame["text_value"].str.contains(CONTROL.pattern).fill_null(False)
    if not has.any():
        return frame
    report.change(
        "control character in a text, written as a space", int(has.sum()), example(frame, int(has.arg_max() or 0))
    )
    cleaned = pl.col("text_value").str.replace_all(CONTROL.pattern, " ")
    # What is nothing but such characters is no text.
    return frame.with_columns(pl.when(cleaned.str.strip_chars() != "").then(cleaned))


def table_of(
    frame: pl.DataFrame, shapes: Shapes, descriptions: dict[str, str], key: Words, lanes: Lanes | None = None
) -> Table:
    """The arrays of a frame of whole subjects, sorted by subject.

    `lanes` are the hashes of its rows where they are known, so that events that were cut down keep their ids.
    """
    code = _numbered(frame["code"], lambda text: shapes.code_number(text, descriptions.get(text)))
    unit = _numbered(frame["unit"], shapes.unit_number)
    kind = np.array([NUMBER_OF[coded.kind] for coded in shapes.codes], dtype=np.int8)[code]
    ids = frame["subject_id"].to_numpy()
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    subject = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(ids)))
    value = frame["numeric_value"]
    answering = np.array([may_hold_answer(coded) for coded in shapes.codes], dtype=np.bool_)[code]
    answering &= value.is_null().to_numpy() | (kind == NUMBER_OF["allergy"])
    texts = _texts(frame["text_value"], answering)
    if lanes is None:
        lanes = _row_lanes(frame, shapes, code, unit, texts.words, key)
    subjects: Ints = ids[starts].astype(np.int64)
    visit, visits = _visits(frame, kind, subject, subjects, lanes, key)
    form = np.zeros(len(ids), dtype=np.int64)
    for bit, filled in (
        (NUMERIC, value.is_not_null().to_numpy()),
        (CODED, texts.answer.is_not_null().to_numpy()),
        (TEXT, texts.text.is_not_null().to_numpy()),
        (TIMED, frame["time"].is_not_null().to_numpy()),
        (ENDED, frame["end_time"].is_not_null().to_numpy()),
        (IN_VISIT, visit >= 0),
    ):
        form[filled] |= bit
    return Table(
        frame=frame,
        subjects=subjects,
        subject_lanes=identity.subject_lanes(key, subjects),
        kind=kind,
        code=code,
        unit=unit,
        form=form,
        subject=subject,
        visit=visit,
        moment=_moments(frame["time"], subject, visit),
        time=date_times(frame["time"]),
        end=date_times(frame["end_time"]),
        value=numbers(value),
        text=texts.text,
        answer=texts.answer,
        lanes=lanes,
        visits=visits,
    )


def _numbered(column: pl.Series, number: Any) -> Ints:
    """The number of each value of a column of few distinct values."""
    distinct = column.unique(maintain_order=True)
    numbers = pl.Series([number(value) for value in distinct.to_list()], dtype=pl.Int64)
    if len(distinct) == 1:
        return np.full(len(column), numbers[0])
    return column.replace_strict(distinct, numbers, return_dtype=pl.Int64).to_numpy()


def date_times(column: pl.Series) -> pl.Series:
    """FHIR dateTimes in UTC of local wall-clock times; each run of equal times is written once."""
    run = column.rle_id()
    firsts = np.flatnonzero(np.diff(run.to_numpy(), prepend=-1))
    return column.gather(firsts).dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ").gather(run)


def numbers(column: pl.Series) -> pl.Series:
    """JSON numbers with the shortest digits that give back the float32: whole numbers as integers."""
    without_sign = column.set(column == 0.0, 0.0)
    return without_sign.cast(pl.String).str.strip_suffix(".0")


class _Texts(NamedTuple):
    """Texts and coded answers as JSON, each null where it is the other; and a word for each to hash."""

    text: pl.Series
    answer: pl.Series
    words: Words


def _texts(column: pl.Series, answering: Mask) -> _Texts:
    """Texts, and coded answers of rows that may hold one."""
    words = np.zeros(len(column), dtype=np.uint64)
    rows = np.flatnonzero(column.is_not_null().to_numpy())
    if not len(rows):
        return _Texts(nothing(len(column)), nothing(len(column)), words)
    distinct = column.gather(rows).unique(maintain_order=True)
    number = np.full(len(column), -1)
    number[rows] = column.gather(rows).replace_strict(distinct, pl.Series(range(len(distinct)), dtype=pl.Int64))
    words[rows] = identity.text_words(distinct.to_list())[number[rows]]
    answers = pl.Series([_answer(text) for text in distinct.to_list()], dtype=pl.String)
    coded = answers.is_not_null().to_numpy()[number] & answering & (number >= 0)
    texts = pl.Series([orjson.dumps(text).decode() for text in distinct.to_list()], dtype=pl.String)
    text, answer = (np.where(which, number, -1) for which in (~coded, coded))
    return _Texts(gathered(texts, text), gathered(answers, answer), words)


def _answer(text: str) -> str | None:
    """The CodeableConcept of a text that is `SYSTEM//code` of a known system, else None."""
    _, system, value = codes.parse(text)
    if not value.strip() or f"{system}//{value}" != text or not codes.is_known_system(system):
        return None
    return orjson.dumps(event_concept(system, value, _ANSWERS.get(value))).decode()


def _row_lanes(frame: pl.DataFrame, shapes: Shapes, code: Ints, unit: Ints, texts: Words, key: Words) -> Lanes:
    """A hash of each row's content; rows that are equal are told apart by their order."""
    code_words = identity.text_words(coded.code for coded in shapes.codes)[code]
    unit_words = identity.text_words(text or "" for text in shapes.units)[unit]
    columns = [
        frame["subject_id"].to_numpy(),
        *(_bits(frame[name]) for name in ("time", "end_time", "visit_id")),
        code_words ^ (unit_words * np.uint64(3)) ^ (texts * np.uint64(5)),
        _bits(frame["numeric_value"]),
    ]
    lanes = identity.hashed(key, *columns)
    first = pl.Series(lanes[:, 0])
    repeated = first.is_duplicated()
    if repeated.any():
        rows = np.flatnonzero(repeated.to_numpy())
        again = first.gather(rows).to_frame("hash").select(pl.int_range(pl.len()).over("hash")).to_series().to_numpy()
        later = again > 0
        lanes[rows[later]] = identity.hashed(key, *lanes[rows[later]].T, again[later])
    return lanes


def _bits(column: pl.Series) -> Ints:
    """A column of times, integers or floats as 64-bit words, nulls as a value that none of them has."""
    if column.dtype == pl.Float32():
        bits = column.fill_null(0.0).to_numpy().view(np.int32).astype(np.int64)
    else:
        bits = column.to_physical().fill_null(0).to_numpy()
    return np.where(column.is_null().to_numpy(), np.iinfo(np.int64).min + 1, bits)


def _visits(
    frame: pl.DataFrame, kind: npt.NDArray[np.int8], subject: Ints, subjects: Ints, lanes: Lanes, key: Words
) -> tuple[Ints, Visits]:
    """The visit of each row, and the visits: by visit_id, and one for each VISIT_START that has none."""
    numbered = frame["visit_id"].is_not_null().to_numpy()
    ids = frame["visit_id"].fill_null(0).to_numpy()
    visit = np.full(len(ids), -1)
    rows = np.flatnonzero(numbered)
    changed = (np.diff(ids[rows], prepend=0) != 0) | (np.diff(subject[rows], prepend=-1) != 0)
    runs = rows[changed]
    pairs = pl.DataFrame({"subject": subject[runs], "id": ids[runs]})
    distinct = pairs.unique(maintain_order=True).with_row_index("visit")
    of_run = pairs.join(distinct, on=["subject", "id"], how="left", maintain_order="left")["visit"].to_numpy()
    visit[rows] = of_run[np.cumsum(changed) - 1]
    alone = np.flatnonzero(~numbered & (kind == NUMBER_OF["visit_start"]))
    visit[alone] = len(distinct) + np.arange(len(alone))
    of_subject = np.concatenate([distinct["subject"].to_numpy(), subject[alone]]).astype(np.int64)
    number = np.concatenate([distinct["id"].to_numpy(), np.zeros(len(alone), dtype=np.int64)])
    key = identity.key_of("Encounter", *key.tolist())
    visit_lanes = identity.hashed(key, subjects[of_subject[: len(distinct)]], number[: len(distinct)])
    timed = np.flatnonzero(frame["time"].is_not_null().to_numpy())
    return visit, Visits(
        subject=of_subject,
        number=number,
        numbered=np.arange(len(number)) < len(distinct),
        start=_first_rows(visit, np.flatnonzero(kind == NUMBER_OF["visit_start"]), len(number)),
        end=_first_rows(visit, np.flatnonzero(kind == NUMBER_OF["visit_end"]), len(number)),
        first=_earliest_rows(visit, frame["time"], timed, len(number)),
        lanes=np.concatenate([visit_lanes, identity.hashed(key, *lanes[alone].T)]),
    )


def _moments(time: pl.Series, subject: Ints, visit: Ints) -> Ints:
    """The number of the moment of each event: runs of equal moments are told apart first, since there are few."""
    times = time.to_physical().fill_null(np.iinfo(np.int64).min).to_numpy()
    changed = np.ones(len(times), dtype=np.bool_)
    changed[1:] = (np.diff(times) != 0) | (np.diff(subject) != 0) | (np.diff(visit) != 0)
    runs = np.flatnonzero(changed)
    keys = pl.DataFrame({"subject": subject[runs], "visit": visit[runs], "time": times[runs]})
    numbered = keys.unique(maintain_order=True).with_row_index("moment")
    of_run = keys.join(numbered, on=keys.columns, how="left", maintain_order="left")["moment"]
    moment: Ints = of_run.cast(pl.Int64).to_numpy()[np.cumsum(changed) - 1]
    return moment


def _first_rows(visit: Ints, rows: Ints, count: int) -> Ints:
    """The first of some rows in each visit, -1 where there is none."""
    first = np.full(count, -1)
    rows = rows[visit[rows] >= 0][::-1]
    first[visit[rows]] = rows
    return first


def _earliest_rows(visit: Ints, time: pl.Series, timed: Ints, count: int) -> Ints:
    """The row of the earliest time in each visit, -1 where none has a time."""
    if not time.gather(timed).is_sorted():
        timed = timed[np.argsort(time.to_physical().gather(timed).to_numpy(), kind="stable")]
    return _first_rows(visit, timed, count)

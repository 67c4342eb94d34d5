"""The law of the importer and the exporter: what OMOP carries of an event table comes back as it was.

`carried` says for every kind of event what that is, event by event and without looking at the export.
"""

from datetime import datetime, time, timedelta
from itertools import groupby
from typing import get_args

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ehrsim
from ehrsim import codes, events, reference
from ehrsim.importers import import_events
from ehrsim.importers.people import RACES
from ehrsim.omop import export_omop

COLUMNS = list(events.SCHEMA)
SLOT = 1 << 20
OPERATORS = ("<", "<=", ">", ">=")
CODES = {
    "birth": ["MEDS_BIRTH"],
    "death": ["MEDS_DEATH"],
    "gender": ["GENDER//female", "GENDER//male", "GENDER//other", "GENDER//unlisted"],
    "race": ["RACE//2106-3", "RACE//2131-1", "RACE//Martian"],
    "ethnicity": ["ETHNICITY//2135-2", "ETHNICITY//2186-5", "ETHNICITY//2180-8", "ETHNICITY//unlisted"],
    "marital": ["MARITAL//M", "MARITAL//complicated"],
    "language": ["LANGUAGE//en", "LANGUAGE//Klingon"],
    "visit_start": ["VISIT_START//IMP", "VISIT_START//AMB", "VISIT_START//VR", "VISIT_START//odd one"],
    "visit_end": ["VISIT_END//IMP", "VISIT_END//HH"],
    "visit_type": ["VISIT_TYPE//SNOMED//185345009"],
    "reason": ["REASON//ICD10CM//I10", "REASON//ICD9PROC//00.1"],
    "condition": ["ICD10CM//E11.9", "SNOMED//44054006", "DIAGNOSIS//x", "CONDITION//X//Y"],
    "procedure": ["PROCEDURE//SNOMED//80146002", "ICD10PCS//0DTJ4ZZ", "CPT//99213"],
    "medication": ["RxNorm//860975", "DRUG//metformin"],
    "immunization": ["CVX//140", "IMMUNIZATION//NDC//0001-0002-03"],
    "allergy": ["ALLERGY//SNOMED//256277009", "ALLERGY//RxNorm//7984"],
    "observation": ["LOINC//4548-4", "OBSERVATION//SNOMED//413077008", "NOSYSTEM", "D130//a//b", "OBSERVATION_END"],
    "panel": ["PANEL//LOINC//58410-2"],
    "care_plan": ["CAREPLAN//SNOMED//386257007"],
}
TEXTS = ["primary", "<", "SNOMED//266919005", "LOINC//LA6576-8", "X//1", 'a "b", é漢\nline', "w" * 50 + "-" * 30]
START = datetime(2015, 3, 4, 10, 20, 30)
MOMENTS = [START + timedelta(hours=7 * step, microseconds=250_000 * (step % 2)) for step in range(12)]


def carried(rows: list[dict]) -> list[dict]:
    """What of sorted events comes back, in any order."""
    out = []
    for _, group in groupby(rows, key=lambda row: row["subject_id"]):
        out += _carried_subject(list(group))
    return out


def _carried_subject(rows: list[dict]) -> list[dict]:
    subject = rows[0]["subject_id"]
    times = [row["time"] for row in rows if row["time"]]
    later = [row["time"] for row in rows if row["time"] and row["code"] != codes.BIRTH] or times
    began = min(later, default=None)
    ended = max((row["time"] for row in rows if row["time"] and row["code"] == codes.OBSERVATION_END), default=None)
    ended = max(ended or max(later), began) if later else None
    out, visits, seen = [], {}, set()
    for row in rows:
        kind = codes.parse(row["code"]).kind
        if kind in ("gender", "race", "ethnicity", "birth", "death"):
            if kind not in seen and (row["time"] or kind not in ("birth", "death")):
                seen.add(kind)
                out.append(_row(subject, row["time"] if kind in ("birth", "death") else None, row["code"]))
            continue
        if row["code"] == codes.OBSERVATION_END or began is None:
            continue
        if kind in ("visit_start", "visit_end") and not row["time"]:
            continue
        when, visit = row["time"] or began, row["visit_id"]
        if visit is not None:
            stay = visits.setdefault(visit, {"first": when, "last": when, "start": None, "end": None})
            stay["first"], stay["last"] = min(stay["first"], when), max(stay["last"], when)
        if kind in ("visit_start", "visit_end"):
            part = kind.removeprefix("visit_")
            if visit is not None and stay[part] is None:
                stay[part] = row
            continue
        out.append(_carried_fact(row, kind, began))
    out += [row for number, stay in visits.items() for row in _carried_visit(subject, number, stay)]
    if ended and "death" not in seen:
        out.append(_row(subject, datetime.combine(ended.date(), time(23, 59, 59)), codes.OBSERVATION_END))
    return out


def _carried_visit(subject: int, number: int, stay: dict) -> list[dict]:
    start, end = stay["start"], stay["end"]
    begin = start["time"] if start else stay["first"]
    until = end["time"] if end and end["time"] >= begin else max(stay["last"], begin)
    name = (start or end)["code"].partition("//")[2] if start or end else "UNKNOWN"
    number += subject * SLOT
    return [
        _row(subject, begin, f"VISIT_START//{name}", visit_id=number),
        _row(subject, until, f"VISIT_END//{name}", visit_id=number, text_value=_cut(end and end["text_value"], 50)),
    ]


def _carried_fact(row: dict, kind: str, began: datetime) -> dict:
    when = row["time"] or datetime.combine(began.date(), time())
    number, text, end = row["numeric_value"], row["text_value"], row["end_time"]
    coded = text in ("SNOMED//266919005", "LOINC//LA6576-8")
    unit = row["unit"] if number is not None else None
    if kind in ("condition", "procedure"):
        text, number, unit = _cut(text, 50), None, None
    elif kind in ("medication", "immunization"):
        text, number, unit, end = None, None, None, end or when
    else:
        end = None
        measured = kind == "panel" or (kind == "observation" and number is not None and text in (None, *OPERATORS))
        if not measured:
            text = text if coded else _cut(text, 60)
        elif not coded and number is not None:
            text = text if text in OPERATORS else None
        elif not coded:
            text = _cut(text, 50)
    if end is not None and end < when:
        end = None
    visit = None if row["visit_id"] is None else row["visit_id"] + row["subject_id"] * SLOT
    moment = None if kind in ("marital", "language") else when
    values = {"numeric_value": number, "text_value": text, "unit": unit, "visit_id": visit, "end_time": end}
    return _row(row["subject_id"], moment, row["code"], **values)


def _cut(text: str | None, length: int) -> str | None:
    return text[:length] if text else None


def _row(subject: int, moment: datetime | None, code: str, **more: object) -> dict:
    return {**dict.fromkeys(COLUMNS), "subject_id": subject, "time": moment, "code": code, **more}


def frame_of(rows: list[dict]) -> pl.DataFrame:
    return events.sort(pl.DataFrame(rows, schema=events.SCHEMA).lazy()).collect()


@st.composite
def _event(draw: st.DrawFn) -> dict:
    def maybe(values: list) -> object:
        return draw(st.one_of(st.none(), st.sampled_from(values)))

    kind = draw(st.sampled_from(list(CODES)))
    begun, ended = maybe(MOMENTS), maybe(MOMENTS)
    return _row(
        draw(st.sampled_from([0, 1, 7, 2**32 - 1])),
        begun,
        draw(st.sampled_from(CODES[kind])),
        numeric_value=maybe([0.1, 7.0, 1e-30, 3e38, -2.5]),
        text_value=maybe(TEXTS),
        unit=maybe(["mg", "%", "what is this"]),
        visit_id=maybe([0, 1, 2, SLOT - 1]),
        end_time=ended if not (begun and ended and ended < begun) else None,
    )


def _numbered(rows: list[dict]) -> list[dict]:
    """The events without starts of visits that have no number: those are given one, see `test_visits`."""
    return [row for row in rows if row["visit_id"] is not None or not row["code"].startswith("VISIT_START")]


def test_every_kind_is_among_the_codes():
    assert set(CODES) == set(get_args(codes.Kind))
    assert all(codes.parse(code).kind == kind for kind, listed in CODES.items() for code in listed)


@pytest.mark.parametrize("format", ["csv", "parquet"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(_event(), min_size=1, max_size=25).map(_numbered).filter(bool))
@example(rows=[_row(0, when, "VISIT_START//IMP", visit_id=1) for when in (MOMENTS[0], MOMENTS[1])])
@example(rows=[_row(0, MOMENTS[0], "VISIT_START//IMP", visit_id=1), _row(0, None, "VISIT_START//IMP", visit_id=1)])
def test_what_is_carried_comes_back(format, rows, tmp_path):
    table = frame_of(rows)
    export_omop(table, tmp_path / "omop", format=format, overwrite=True)
    expected = frame_of(carried(table.to_dicts()))
    if expected.is_empty():
        return
    import_events(tmp_path / "omop", tmp_path / "events", format="omop", identified=True, overwrite=True)
    back = events.sort(ehrsim.read_events(tmp_path / "events").select(COLUMNS)).collect()
    assert back.rows() == expected.rows()


def _normal(table: pl.DataFrame) -> pl.DataFrame:
    """Real events as the oracle expects them: races by code, as the importer of any format makes them."""
    words = {f"RACE//{word}": f"RACE//{code}" for word, code in _race_words(table).items()}
    return table.select(COLUMNS).with_columns(pl.col("code").replace(words))


def _race_words(table: pl.DataFrame) -> dict[str, str]:
    spelled = table.filter(pl.col("code").str.starts_with("RACE//"))["code"].unique().str.slice(6)
    return {word: RACES[word.lower()] for word in spelled if word.lower() in RACES}


def _assert_comes_back(table: pl.DataFrame, folder) -> None:
    table = events.sort(_normal(table).lazy()).collect()
    export_omop(table, folder / "omop")
    import_events(folder / "omop", folder / "events", format="omop", identified=True)
    back = events.sort(ehrsim.read_events(folder / "events").select(COLUMNS)).collect()
    expected = frame_of(carried(table.to_dicts()))
    assert back.equals(expected)


def test_the_reference_population_comes_back(tmp_path):
    _assert_comes_back(reference.population(40, seed=6), tmp_path)


def test_descriptions_come_back(tmp_path):
    table = reference.population(5, seed=6)
    export_omop(table, tmp_path / "omop")
    import_events(tmp_path / "omop", tmp_path / "events", identified=True)
    told = dict(events.read_codes(tmp_path / "events").select("code", "description").drop_nulls().iter_rows())
    known = dict(table.select("code", "description").drop_nulls().unique().iter_rows())
    stand_in_tables = {code for code in known if codes.parse(code).kind not in ("gender", "race", "ethnicity")}
    stand_in_tables = {code for code in stand_in_tables if not code.startswith(("VISIT_START", "VISIT_END", "MEDS_"))}
    assert {code: known[code] for code in stand_in_tables} == {code: told[code] for code in stand_in_tables}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthea_stu3_1461", "nafld_mayo_17549", "pbcseq_312", "diabetes130_71518"])
def test_real_data_comes_back(name, event_sets, tmp_path):
    import_events(event_sets / name, tmp_path / "source")
    table = ehrsim.read_events(tmp_path / "source").collect()
    chosen = table["subject_id"].unique().sort().head(400)
    table = table.filter(pl.col("subject_id").is_in(chosen.implode())).with_columns(
        subject_id=pl.col("subject_id").rank("dense").cast(pl.Int64),
        visit_id=pl.col("visit_id").rank("dense").over("subject_id").cast(pl.Int64),
    )
    _assert_comes_back(table, tmp_path)

"""Event tables drawn at random, with everything in them that the codec has to carry."""

import polars as pl
import pytest
from hypothesis import strategies as st

from ehrsim import events

VISIT_CLASSES = ("AMB", "IMP", "EMER")
ENTRIES = (
    ("ICD10CM//E11.9", None, None),
    ("ICD10CM//E11.22", None, None),
    ("ICD9CM//250.00", None, None),
    ("PROCEDURE//SNOMED//80146002", None, None),
    ("RxNorm//860975", "active", None),
    ("RxNorm//860975", "stopped", None),
    ("LOINC//4548-4", None, "%"),
    ("LOINC//4548-4", None, "mmol/mol"),
    ("LOINC//72166-2", "never", None),
    ("LOINC//72166-2", "former, said twice // odd", None),
    ("REASON//SNOMED//36971009", None, None),
    ("D130//LOCAL", None, None),
)
STATICS = ("GENDER//female", "GENDER//male", "RACE//2106-3", "ETHNICITY//2186-5", "LANGUAGE//en")

_times = st.one_of(
    st.integers(-(10**9), 2 * 10**9),
    st.sampled_from([-1, 0, 86_399, 86_400, -86_400, -86_401]),
)
_nearby = st.one_of(st.integers(0, 5 * 86_400), st.sampled_from([0, 1, 86_399, 86_400, 3 * 86_400]))
_values = st.none() | st.floats(-1e6, 1e6, width=32)


@st.composite
def _visit_rows(draw, subject: int, number: int) -> list[tuple]:
    """A visit of some hours or days, its events inside, before and after it; its end may be unknown."""
    start = draw(_times)
    kind = draw(st.sampled_from(VISIT_CLASSES))
    rows = [(subject, start, f"VISIT_START//{kind}", None, None, None, number, None)]
    if draw(st.booleans()):
        value = draw(_values)
        rows.append((subject, start + draw(_nearby), f"VISIT_END//{kind}", value, None, None, number, None))
    for _ in range(draw(st.integers(0, 6))):
        rows.append(draw(_event_row(subject, start + draw(_nearby) - draw(st.sampled_from([0, 0, 0, 60])), number)))
    return rows


@st.composite
def _event_row(draw, subject: int, second: int, visit: int | None) -> tuple:
    code, text, unit = draw(st.sampled_from(ENTRIES))
    value = draw(_values) if unit is not None or text is None else None
    end = second + draw(_nearby) if draw(st.booleans()) else None
    return (subject, second, code, value, text, unit, visit, end)


@st.composite
def _record_rows(draw, subject: int) -> list[tuple]:
    rows = [(subject, None, code, None, None, None, None, None) for code in draw(st.sets(st.sampled_from(STATICS)))]
    for code in ("MEDS_BIRTH", "MEDS_DEATH", "OBSERVATION_END"):
        if draw(st.booleans()):
            rows.append((subject, draw(_times), code, None, None, None, None, None))
    for number in range(draw(st.integers(0, 3))):
        rows += draw(_visit_rows(subject, number * 7 - 1))
    for _ in range(draw(st.integers(0, 3))):
        rows.append(draw(_event_row(subject, draw(_times), None)))
    repeated = draw(st.integers(0, 2))
    return rows + [row for row in rows if row[2].startswith(("LOINC", "ICD"))][:repeated]


@st.composite
def _event_tables(draw) -> pl.DataFrame:
    """A sorted event table of up to four subjects with at least one event that is no visit bound."""
    subjects = draw(st.sets(st.integers(-(2**62), 2**62), min_size=1, max_size=4))
    rows = [row for subject in sorted(subjects) for row in draw(_record_rows(subject))]
    rows.append(draw(_event_row(min(subjects), draw(_times), None)))
    schema = {name: pl.Int64 if name in ("time", "end_time") else dtype for name, dtype in events.SCHEMA.items()}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    micro = pl.Series([draw(st.integers(0, 999_999)) for _ in range(min(len(rows), 3))], dtype=pl.Int64)
    jitter = pl.Series("jitter", [*micro, *[0] * (len(rows) - len(micro))], dtype=pl.Int64)
    frame = frame.with_columns((pl.col("time", "end_time") * 1_000_000 + jitter).cast(pl.Datetime("us")))
    return events.sort(frame.lazy()).collect()


@pytest.fixture(scope="session")
def event_tables() -> st.SearchStrategy[pl.DataFrame]:
    """A strategy that draws event tables."""
    return _event_tables()

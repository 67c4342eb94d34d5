"""Events that the FHIR tests share: one table with every row of the mapping, and one of all that can go wrong."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from ehrsim import events

BIRTH = datetime(1950, 2, 3, 4, 5, 6)
START = datetime(2015, 3, 4, 10, 20, 30)
END = START + timedelta(days=2, microseconds=250_000)
LATER = END + timedelta(days=30)


def _row(subject, time, code, value=None, text=None, unit=None, visit=None, end=None, description=None):
    return {
        "subject_id": subject,
        "time": time,
        "code": code,
        "numeric_value": value,
        "text_value": text,
        "unit": unit,
        "visit_id": visit,
        "end_time": end,
        "description": description,
    }


def _frame(rows):
    schema = {**events.SCHEMA, "description": pl.String()}
    return events.sort(pl.DataFrame(rows, schema=schema).lazy()).collect()


@pytest.fixture(scope="session")
def every_row() -> pl.DataFrame:
    """Events that exercise every row of the mapping between events and FHIR, all of which FHIR carries."""
    one = [
        _row(1, BIRTH, "MEDS_BIRTH"),
        _row(1, LATER, "MEDS_DEATH"),
        _row(1, None, "GENDER//female"),
        _row(1, None, "RACE//2106-3"),
        _row(1, None, "ETHNICITY//2135-2"),
        _row(1, None, "MARITAL//M"),
        _row(1, None, "LANGUAGE//en"),
        _row(1, START, "VISIT_START//IMP", text="Elective", visit=7),
        _row(1, END, "VISIT_END//IMP", value=2.5, unit="d", text="Home", visit=7),
        _row(1, START, "VISIT_TYPE//SNOMED//185345009", visit=7),
        _row(1, START, "VISIT_TYPE//SNOMED//32485007", visit=7),
        _row(1, START, "REASON//ICD10CM//I10", visit=7),
        _row(1, START, "ICD10CM//E11.9", text="diagnosis 1", visit=7, description="Type 2 diabetes"),
        _row(1, START, "SNOMED//44054006", end=END),
        _row(1, START, "ICD9CM//250.00", visit=7, end=END),
        _row(1, None, "SNOMED//38341003"),
        _row(1, START, "PROCEDURE//SNOMED//80146002", visit=7, end=END, text="open"),
        _row(1, START, "ICD10PCS//0DTJ4ZZ"),
        _row(1, None, "PROCEDURE//SNOMED//73761001"),
        _row(1, START, "RxNorm//860975", value=500, unit="mg", visit=7, end=END, text="stopped"),
        _row(1, START, "RxNorm//617310", text="active"),
        _row(1, START, "DRUG//metformin", text="Steady", value=2),
        _row(1, None, "RxNorm//308182"),
        _row(1, START, "CVX//140", visit=7),
        _row(1, None, "CVX//08", text="by report"),
        _row(1, START, "ALLERGY//SNOMED//256277009", text="SNOMED//76067001", visit=7),
        _row(1, None, "ALLERGY//RxNorm//7984", text="rash as a child"),
        _row(1, START, "PANEL//LOINC//58410-2", visit=7, text="within limits"),
        _row(1, START, "CAREPLAN//SNOMED//386257007", visit=7, end=END),
        _row(1, START, "CAREPLAN//SNOMED//735984001", text="weekly"),
    ]
    two = [
        _row(2, datetime(1980, 5, 6), "MEDS_BIRTH"),
        _row(2, None, "GENDER//other"),
        _row(2, None, "RACE//Martian"),
        _row(2, None, "ETHNICITY//unlisted"),
        _row(2, None, "MARITAL//complicated"),
        _row(2, None, "LANGUAGE//Klingon"),
        _row(2, START, "VISIT_START//AMBULATORY CARE", visit=1),
        _row(2, END, "VISIT_END//AMBULATORY CARE", visit=1),
        _row(2, LATER, "VISIT_START//EMER", visit=2),
        _row(2, START, "LOINC//8480-6", value=120, unit="mm[Hg]", visit=1),
        _row(2, START, "LOINC//8462-4", value=80, unit="mm[Hg]", visit=1),
        _row(2, START, "LOINC//8480-6", value=118, unit="mm[Hg]", visit=1),
        _row(2, END, "LOINC//8462-4", value=79.5, unit="mm[Hg]", visit=1),
        _row(2, END, "LOINC//8480-6", value=16, unit="kPa", visit=1),
        _row(2, START, "LOINC//8867-4", value=60, unit="/min", visit=1),
        _row(2, START, "LOINC//8867-4", text="irregular", visit=1),
        _row(2, END, "LOINC//8867-4", value=61, unit="{beats}/min", visit=1),
        _row(2, START, "LOINC//29463-7", value=70.1, unit="kg", visit=1),
        _row(2, START, "LOINC//29463-7", value=11, unit="[stone_av]", visit=1),
        _row(2, None, "LOINC//8302-2", value=180, unit="cm"),
        _row(2, START, "LOINC//8302-2", value=180),
        _row(2, START, "LOINC//59408-5", value=97, unit="%", visit=1),
        _row(2, START, "LOINC//8331-1", value=37.1, unit="Cel", visit=1),
        _row(2, START, "LOINC//2708-6", visit=1),
        _row(2, START, "LOINC//72166-2", text="SNOMED//266919005", visit=1),
        _row(2, START, "LOINC//72166-2", text="never", visit=1),
        _row(2, START, "LOINC//44261-6", value=4, unit="{score}", visit=1),
        _row(2, START, "LOINC//4548-4", value=7.1, unit="%", visit=1),
        _row(2, START, "LOINC//4548-4", text=">8", visit=1),
        _row(2, START, "LOINC//4548-4", value=8, text="haemolysed", unit="%", visit=1),
        _row(2, START, "LOINC//4548-4", visit=1),
        _row(2, START, "LOINC//2160-0", value=0.1, unit="mg per dL", visit=1, end=END),
        _row(2, None, "LOINC//883-9", text="SNOMED//112144000"),
        _row(2, START, "LAB RESULT//x/y", value=1e-7, visit=1),
        _row(2, START, "NOSYSTEM", value=1e20, visit=1),
        _row(2, START, "OBSERVATION//SNOMED//413077008", value=-3),
        _row(2, START, "SNOMED//184347001"),
        _row(2, LATER, "LOINC//4548-4", value=7, unit="%", visit=99),
    ]
    return _frame(one + two)


@pytest.fixture(scope="session")
def random_events() -> pl.DataFrame:
    """Two hundred subjects of events whose columns are filled at random, whatever the kind."""
    draw = np.random.default_rng(11)
    codes = [
        *("MEDS_BIRTH", "MEDS_DEATH", "OBSERVATION_END", "GENDER//male", "GENDER//x", "RACE//2131-1", "RACE//White"),
        *(
            "ETHNICITY//2186-5",
            "MARITAL//S",
            "LANGUAGE//es",
            "VISIT_START//AMB",
            "VISIT_START//odd  one",
            "VISIT_END//AMB",
        ),
        *("VISIT_TYPE//SNOMED//185345009", "REASON//ICD10CM//I10", "ICD10CM//E11.9", "CONDITION//X//Y", "SNOMED//1"),
        *("PROCEDURE//SNOMED//80146002", "RxNorm//860975", "DRUG//a b", "CVX//140", "IMMUNIZATION//NDC//0001-0002-03"),
        *(
            "ALLERGY//SNOMED//256277009",
            "CAREPLAN//SNOMED//386257007",
            "PANEL//LOINC//58410-2",
            "PANEL//LOINC//85354-9",
        ),
        *("LOINC//85354-9", "LOINC//8480-6", "LOINC//8462-4", "LOINC//8867-4", "LOINC//59408-5", "LOINC//72166-2"),
        *(
            "LOINC//4548-4",
            "LOINC//718-7",
            "LOINC//44261-6",
            "LOINC//99999-1",
            "plain",
            " spaced //  code",
            "A B//c//d",
        ),
    ]
    texts = ["SNOMED//266919005", "stopped", "cancelled", 'a <b> & "c"\n', "LOINC//", "X//1", "é漢"]
    units = ["mm[Hg]", "/min", "{beats}/min", "%", "d", "kg", "what is this", "(score)", "10*3/uL"]
    count = 20_000

    def some(values, share):
        picked = draw.choice(np.array(values, dtype=object), count)
        return np.where(draw.random(count) < share, picked, None).tolist()

    days = [START + timedelta(days=int(day)) for day in range(4)]
    start, end = some(days, 0.9), some(days, 0.3)
    return events.conform(
        pl.DataFrame(
            {
                "subject_id": np.sort(draw.integers(0, 200, count)),
                "time": pl.Series(start, dtype=pl.Datetime("us")),
                "code": draw.choice(codes, count),
                "numeric_value": pl.Series(some([0.1, 7, 1e-30, 3e38, -2.5], 0.5), dtype=pl.Float32),
                "text_value": pl.Series(some(texts, 0.3), dtype=pl.String),
                "unit": pl.Series(some(units, 0.5), dtype=pl.String),
                "visit_id": pl.Series(some([1, 2, -3, 2**62], 0.7), dtype=pl.Int64),
                "end_time": pl.Series(end, dtype=pl.Datetime("us")),
            }
        )
    )


def _resources(folder: Path):
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".ndjson":
            found += [orjson.loads(line) for line in path.read_bytes().splitlines()]
        elif path.name != "manifest.json":
            found += [entry["resource"] for entry in orjson.loads(path.read_bytes())["entry"]]
    return found


@pytest.fixture(scope="session")
def resources_in():
    """A function that reads all resources of a folder of NDJSON files or bundles."""
    return _resources

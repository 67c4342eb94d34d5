"""The exchange file: patients as lists of visits, which every peer reads and writes. It needs Polars alone.

One row a patient: birth (a date) and sex where known, and visits in order of time. A visit has a start (a date: few
peers know a clock), a type where known, and distinct codes in alphabetical order, at least one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import polars as pl

SCHEMA = pl.Schema({
    "birth": pl.Date(),
    "sex": pl.String(),
    "visits": pl.List(pl.Struct({"start": pl.Date(), "type": pl.String(), "codes": pl.List(pl.String())})),
})  # fmt: skip
EPOCH = date(1970, 1, 1)


class Visit(NamedTuple):
    """A visit, with its start in days since 1970."""

    start: int
    type: str | None
    codes: tuple[str, ...]


class Patient(NamedTuple):
    """A patient, with birth in days since 1970."""

    birth: int | None
    sex: str | None
    visits: tuple[Visit, ...]


def read(path: Path) -> list[Patient]:
    """The patients of an exchange file."""
    return [
        Patient(
            _days(row["birth"]),
            row["sex"],
            tuple(Visit(_days(visit["start"]), visit["type"], tuple(visit["codes"])) for visit in row["visits"]),
        )
        for row in pl.read_parquet(path).iter_rows(named=True)
    ]


def write(patients: Iterable[Patient], path: Path) -> None:
    """Write patients as an exchange file; raises `ValueError` for the first that is not as it should be."""
    rows = [_row(number, patient) for number, patient in enumerate(patients)]
    pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(path)


def table_of(path: Path) -> pl.DataFrame:
    """The exchange file as a table; raises `ValueError` where it has other columns or types."""
    table = pl.read_parquet(path)
    if table.schema != SCHEMA:
        raise ValueError(f"{path.name} is no exchange file: it has {dict(table.schema)}")
    return table


def _row(number: int, patient: Patient) -> tuple[date | None, str | None, list[dict[str, object]]]:
    for earlier, later in pairwise(patient.visits):
        if later.start < earlier.start:
            raise ValueError(f"patient {number} has visits that are not in order of time")
    for visit in patient.visits:
        if not visit.codes or list(visit.codes) != sorted(set(visit.codes)):
            raise ValueError(f"patient {number} has a visit whose codes are none, repeated or out of order")
    visits = [{"start": _date(visit.start), "type": visit.type, "codes": list(visit.codes)} for visit in patient.visits]
    return None if patient.birth is None else _date(patient.birth), patient.sex, visits


def _date(days: int) -> date:
    return EPOCH + timedelta(days=int(days))


def _days(day: date | None) -> int | None:
    return None if day is None else (day - EPOCH).days

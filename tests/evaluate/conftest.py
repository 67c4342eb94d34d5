"""A small world with persistence, co-occurrence and measurements, and two generators that are known to be bad."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from ehrsim import events

DIABETES, PRESSURE, COLD, METFORMIN = "ICD10CM//E11.9", "ICD10CM//I10", "ICD10CM//J06.9", "RxNorm//860975"
GLUCOSE, GLYCATED = "LOINC//2345-7", "LOINC//4548-4"


def life(subject: int, rng: np.random.Generator, mortality: float) -> list[dict]:
    """A patient whose diseases stay, whose drug goes with one of them, and whose two values go together."""
    born = datetime(1940, 1, 1) + timedelta(days=int(rng.integers(0, 15_000)))
    rows = [
        {"subject_id": subject, "code": "GENDER//female" if rng.random() < 0.5 else "GENDER//male"},
        {"subject_id": subject, "code": "MEDS_BIRTH", "time": born},
    ]
    when = born + timedelta(days=int(rng.integers(20 * 365, 45 * 365)))
    diabetic, hypertensive = rng.random() < 0.3, rng.random() < 0.4
    usual = rng.normal(5.5 + diabetic, 0.6)
    for visit in range(1, int(rng.integers(3, 9))):
        event = {"subject_id": subject, "time": when, "visit_id": visit}
        diabetic |= rng.random() < 0.03
        found = {DIABETES: diabetic, METFORMIN: diabetic and rng.random() < 0.8, COLD: rng.random() < 0.25}
        found[PRESSURE] = hypertensive and rng.random() < 0.9
        rows += [{**event, "code": code} for code, there in found.items() if there]
        glycated = usual + rng.normal(0, 0.2)
        glucose = 15 * glycated + rng.normal(0, 4)
        rows.append({**event, "code": GLYCATED, "numeric_value": glycated, "unit": "%"})
        rows.append({**event, "code": GLUCOSE, "numeric_value": glucose, "unit": "mg/dL"})
        rows.append({**event, "code": "VISIT_START//AMB"})
        stay = timedelta(minutes=int(rng.integers(10, 60)))
        rows.append({**event, "code": "VISIT_END//AMB", "time": when + stay})
        when += timedelta(days=int(rng.integers(20, 500)))
    last = "MEDS_DEATH" if rng.random() < mortality else "OBSERVATION_END"
    return [*rows, {"subject_id": subject, "code": last, "time": when}]


@pytest.fixture(scope="session")
def world() -> Callable[..., pl.LazyFrame]:
    """A function from a number of patients, a seed and a mortality to the events of a sample of the world."""

    def sample(patients: int, seed: int, mortality: float = 0.3) -> pl.LazyFrame:
        rng = np.random.Generator(np.random.Philox(key=seed))
        rows = [row for subject in range(1, patients + 1) for row in life(subject, rng, mortality)]
        return events.sort(events.conform(pl.DataFrame(rows, infer_schema_length=None)).lazy()).collect().lazy()

    return sample


@pytest.fixture(scope="session")
def rich(world) -> Callable[..., pl.LazyFrame]:
    """Samples of the world with two more codes a visit, of a hundred: records long enough to be told apart."""

    def sample(patients: int, seed: int) -> pl.LazyFrame:
        table = world(patients, seed)
        number = pl.struct("subject_id", "visit_id", "code").hash(seed=seed) % 100
        measured = table.filter(pl.col("code").str.starts_with("LOINC"))
        more = measured.with_columns(pl.format("LOINC//{}-0", number).alias("code"))
        return events.sort(pl.concat([table, more])).collect().lazy()

    return sample


@pytest.fixture(scope="session")
def shuffled() -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """What happens in a visit is given, as a whole, to a visit of any patient."""
    return lambda table: _moved(table, together=True)


@pytest.fixture(scope="session")
def independent() -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Each code is given to as many visits of any patients, whatever else they hold: only how common it is stays."""
    return lambda table: _moved(table, together=False)


def _moved(table: pl.LazyFrame, *, together: bool) -> pl.LazyFrame:
    """Move what visits hold to others by a permutation of the visits: the same for all codes, or one a code."""
    frame = table.collect()
    moving = pl.col("visit_id").is_not_null() & ~pl.col("code").str.starts_with("VISIT_")
    content, rest = frame.filter(moving), frame.filter(~moving)
    visits = content.group_by("subject_id", "visit_id", maintain_order=True).agg(pl.col("time").first())
    moved = []
    for seed, code in enumerate(content["code"].unique().sort()):
        chance = visits.sample(fraction=1, shuffle=True, seed=0 if together else seed)
        to = pl.concat([visits.drop("time"), chance.select(pl.all().name.suffix("_new"))], how="horizontal")
        own = content.filter(pl.col("code") == code).join(to, on=["subject_id", "visit_id"])
        moved.append(own.with_columns(pl.col(f"{name}_new").alias(name) for name in visits.columns))
    return events.sort(pl.concat([rest, *(own.select(rest.columns) for own in moved)]).lazy()).collect().lazy()


class Structure(HTMLParser):
    """Counts elements, and checks that those which need it are closed in order."""

    VOID = ("meta", "link", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="session")
def structure_of() -> type[Structure]:
    """What a page is made of."""
    return Structure

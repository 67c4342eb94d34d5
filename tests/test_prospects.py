"""Prospects: the chance that a code is still to come, in records with a known truth."""

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from ehrsim import codes, events
from ehrsim.batch import Moment
from ehrsim.models.layers import prospect_features
from ehrsim.preparation import prepare
from ehrsim.prospects import prospects

DISEASE, EVERYBODYS, FIRST_VISITS = "ICD10CM//E03.9", "ICD10CM//Z00.00", "ICD10CM//Z76.2"
A_YEAR, PATIENTS, LAST = 0.04, 1_500, np.datetime64("2020-01-01T00:00", "m")
"""Chance of the disease at a visit, of which there is one a year up to the end of the data."""
YEAR = np.timedelta64(365 * 1440, "m")


def record(subject: int, rng: np.random.Generator) -> list[tuple]:
    """Visits in the last so many years of the data; everybody has one code at each of them."""
    age, years = int(rng.integers(20, 60)), int(rng.integers(1, 30))

    def row(when, code, visit=None) -> tuple:
        return subject, None if when is None else when.astype("datetime64[us]").item(), code, *[None] * 3, visit, None

    rows = [row(LAST - (age + years) * YEAR, codes.BIRTH), row(None, "GENDER//female")]
    ill = False
    for visit in range(years):
        when = LAST - (years - visit) * YEAR + np.timedelta64(int(rng.integers(0, 100)) * 1440, "m")
        rows += [row(when, "VISIT_START//AMB", visit), row(when, EVERYBODYS, visit)]
        if visit == 0:
            rows.append(row(when, FIRST_VISITS, visit))
        if not ill and rng.random() < A_YEAR:
            ill = True
            rows.append(row(when, DISEASE, visit))
    return [*rows, row(LAST, codes.OBSERVATION_END)]


@pytest.fixture(scope="module")
def chance():
    """The chance that a code is still to come at an age with so many years left."""
    rng = np.random.Generator(np.random.Philox(key=7))
    rows = [row for subject in range(1, PATIENTS + 1) for row in record(subject, rng)]
    frame = pl.DataFrame(rows, schema=list(events.SCHEMA), orient="row", infer_schema_length=None)
    data = prepare(events.sort(events.conform(frame).lazy()).collect(), min_patients=1, steps_per_batch=512)
    found = prospects(data.train, data.sizes)
    index = {entry.code: position for entry, position in data.vocabulary.index.items()}

    def of(code: str, age: float, left: float) -> float:
        moment = Moment(*map(jnp.float32, (age, -left, 0.0, 0.0, 0.0)))
        return float(1 / (1 + np.exp(-np.asarray(prospect_features(moment)) @ found[:, index[code]])))

    return of


@pytest.mark.parametrize(("age", "left"), [(30, 2), (30, 10), (50, 10), (40, 25)])
def test_the_chance_goes_by_the_years_left(chance, age, left):
    # A visit at the beginning of each of those years, the one at hand included.
    assert chance(DISEASE, age, left) == pytest.approx(1 - (1 - A_YEAR) ** left, abs=0.06)


def test_what_everybody_has_is_certain(chance):
    assert chance(EVERYBODYS, 40, 10) > 0.99
    assert chance(FIRST_VISITS, 40, 10) > 0.99

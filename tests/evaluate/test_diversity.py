"""Density and coverage against the package of their authors, and what counts as the same record."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from ehrsim import events
from ehrsim.evaluate.diversity import NEAREST, embedding, neighbours, repeated


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(300, 5)), rng.normal(0.4, 1.2, size=(250, 5))


def test_density_and_coverage_are_those_of_prdc(points) -> None:
    prdc = pytest.importorskip("prdc")
    found = neighbours(*points)
    expected = prdc.compute_prdc(real_features=points[0], fake_features=points[1], nearest_k=NEAREST)
    assert found.inside.mean() == pytest.approx(expected["density"], abs=1e-9)
    assert found.held.mean() == pytest.approx(expected["coverage"], abs=1e-9)


def test_clipped_forms_are_those_of_their_definition(points) -> None:
    real, other = points
    found = neighbours(real, other)
    apart = np.linalg.norm(real[:, None] - other[None], axis=2)
    among = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, NEAREST]
    small = np.minimum(among, np.median(among))
    density = [min((apart[:, j] < small).sum() / NEAREST, 1) for j in range(len(other))]
    coverage = [min((apart[i] < among[i]).sum() / NEAREST, 1) for i in range(len(real))]
    assert found.inside_clipped.tolist() == pytest.approx(density)
    assert found.held_clipped.tolist() == pytest.approx(coverage)


def test_cohorts_lie_in_one_space(world) -> None:
    sample = world(60, seed=1)
    codes = sample.select(pl.col("code").unique().sort()).collect()["code"]
    first, second = embedding([sample, sample], codes)
    assert first.shape[0] == 60 and np.isfinite(first).all()
    assert np.array_equal(first, second)


def record(
    subject: int, codes: str, *, begin: datetime = datetime(2000, 1, 1), value: float | None = None
) -> list[dict]:
    return [
        {"subject_id": subject, "time": begin.replace(day=1 + place // 2), "code": code, "visit_id": 1 + place // 2,
         "numeric_value": value}
        for place, code in enumerate(codes)
    ]  # fmt: skip


def test_records_are_the_same_whatever_their_dates_and_ids() -> None:
    rows = [
        *record(1, "ABCDEFGH"),
        *record(2, "ABCDEFGH", begin=datetime(2010, 5, 1)),
        *record(3, "ABCDEFHG"),
        *record(4, "ABCDEFGH", value=1.0),
        *record(5, "BACDEFGH"),
        *record(6, "ABC"),
        *record(7, "ABC"),
    ]
    table = events.sort(events.conform(pl.DataFrame(rows, infer_schema_length=None)).lazy())
    assert repeated(table, whole=True).tolist() == [1, 1, 1, 0, 1, 0, 0], "codes of one moment have no order"
    assert repeated(table, whole=False).tolist() == [1, 1, 1, 1, 1, 0, 0]
    moved = table.with_columns(visit_id=pl.when(pl.col("subject_id") == 2).then(1).otherwise("visit_id"))
    later = moved.with_columns(
        time=pl.when(pl.col("subject_id") == 5).then(pl.col("time").dt.offset_by("3d")).otherwise("time")
    )
    assert repeated(later, whole=True)[4] == 1

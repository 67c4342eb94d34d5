"""Prevalences against hand counts, and the limits of chance against a simulation and a published interval."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ehrsim.evaluate.prevalence import Prevalence, chance_limits, compare, prevalence, r_squared


def table(rows: list[tuple[int, str]], description: str | None = None) -> pl.LazyFrame:
    frame = pl.DataFrame(rows, schema={"subject_id": pl.Int64, "code": pl.String}, orient="row").lazy()
    return frame.with_columns(description=pl.lit(description)) if description else frame


def test_a_patient_counts_once_however_often_a_code_is_recorded() -> None:
    found = prevalence(table([(1, "ICD10CM//I10"), (1, "ICD10CM//I10"), (2, "ICD10CM//I10"), (3, "CVX//140")]))
    assert found.patients == 3
    assert dict(found.table.select("code", "carriers").iter_rows()) == {"ICD10CM//I10": 2, "CVX//140": 1}
    assert dict(found.table.select("code", "kind").iter_rows()) == {
        "ICD10CM//I10": "condition",
        "CVX//140": "immunization",
    }


def test_codes_of_either_side_appear_with_shares_and_the_first_description() -> None:
    real = prevalence(table([(1, "A"), (2, "A"), (3, "B"), (4, "B")], "real words"))
    synthetic = prevalence(table([(1, "A"), (2, "C")], "other words"))
    rows = {row["code"]: row for row in compare(real, synthetic).iter_rows(named=True)}
    assert {code: (row["real"], row["synthetic"]) for code, row in rows.items()} == {
        "A": (0.5, 0.5),
        "B": (0.5, 0.0),
        "C": (0.0, 0.5),
    }
    assert rows["C"]["difference"] == 0.5
    assert (rows["A"]["description"], rows["C"]["description"]) == ("real words", "other words")
    assert rows["A"]["kind"] == "observation"


def test_an_empty_side_gives_shares_of_nought_not_an_error() -> None:
    compared = compare(prevalence(table([])), prevalence(table([(1, "A")])))
    assert compared.select("real", "synthetic", "within").row(0) == (0.0, 1.0, True)
    assert compare(prevalence(table([])), prevalence(table([]))).is_empty()


def test_r_squared_is_that_of_the_diagonal() -> None:
    assert r_squared([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]) == 1
    assert r_squared([0.0, 1.0], [0.5, 0.5]) == 0
    assert r_squared([0.0, 0.5, 1.0], [1.0, 0.5, 0.0]) == pytest.approx(-3)
    assert r_squared([0.5, 0.5], [0.1, 0.2]) is None
    assert r_squared([], []) is None


@pytest.mark.parametrize(("n", "m", "carriers"), [(83, 400, 1), (83, 400, 40), (1000, 200, 990), (50, 50, 0)])
def test_the_limits_are_where_the_agresti_caffo_interval_just_covers_nought(n: int, m: int, carriers: int) -> None:
    lowest, highest = (float(limit[0]) for limit in chance_limits([carriers / n], n, m))
    x = (carriers + 1) / (n + 2)

    def distance(share: float) -> float:
        y = (share * m + 1) / (m + 2)
        return abs(y - x) - 1.96 * np.sqrt(x * (1 - x) / (n + 2) + y * (1 - y) / (m + 2))

    for limit in (lowest, highest):
        assert limit in (0.0, 1.0) or distance(limit) == pytest.approx(0, abs=1e-9)
    assert distance((lowest + highest) / 2) < 0
    assert highest == 1 or distance(highest + 0.01) > 0
    assert lowest == 0 or distance(max(lowest - 0.01, 0)) > 0


@pytest.mark.parametrize("share", [0.004, 0.05, 0.5, 0.97])
def test_samples_of_one_population_lie_within_about_19_times_in_20(share: float) -> None:
    draws = np.random.default_rng(5)
    n, m, codes = 150, 400, 4000

    def sample(size: int) -> Prevalence:
        carriers = draws.binomial(size, share, codes)
        names = [f"C//{index}" for index in range(codes)]
        rows = pl.DataFrame({"code": names, "kind": "condition", "description": "", "carriers": carriers})
        return Prevalence(size, rows)

    within = compare(sample(n), sample(m))["within"].mean()
    assert 0.93 < within <= 1.0  # type: ignore[operator]

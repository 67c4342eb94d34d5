"""How common each code is: the share of patients who ever have it, in one table of events or in two side by side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ehrsim import codes
from ehrsim.events import DESCRIPTION

Floats = NDArray[np.float64]
CHANCE = 1.96
"""Standard errors that a difference stays within 19 times in 20 (the 97.5 % quantile of the normal distribution)."""
ROUNDING = 1e-9


class Prevalence(NamedTuple):
    """How many of `patients` have each code: a table of code, kind, description (null if unknown) and carriers."""

    patients: int
    table: pl.DataFrame


def prevalence(events: pl.LazyFrame) -> Prevalence:
    """Count the patients who have each code at least once."""
    described = pl.col(DESCRIPTION) if DESCRIPTION in events.collect_schema() else pl.lit(None, pl.String)
    counted = events.group_by("code").agg(
        described.drop_nulls().min().alias(DESCRIPTION), carriers=pl.col("subject_id").n_unique().cast(pl.Int64)
    )
    patients = events.select(pl.col("subject_id").n_unique())
    table, total = pl.collect_all([counted.sort("code"), patients])
    return Prevalence(total.item(), table.select("code", kind_of(table["code"]), DESCRIPTION, "carriers"))


def kind_of(code: pl.Series) -> pl.Series:
    """The kind of each code, as in `ehrsim.codes.parse`."""
    return pl.Series("kind", [codes.parse(text).kind for text in code], dtype=pl.String)


def compare(real: Prevalence, synthetic: Prevalence) -> pl.DataFrame:
    """Set two prevalences side by side, a row a code that either has.

    Returns code, kind, description, the shares `real` and `synthetic`, their `difference` (synthetic less real), and
    whether chance alone explains it: `within` the limits of `chance_limits`.
    """
    both = real.table.join(synthetic.table, on="code", how="full", coalesce=True, suffix="_synthetic")
    carriers, carriers_synthetic = pl.col("carriers").fill_null(0), pl.col("carriers_synthetic").fill_null(0)
    shares = both.sort("code").select(
        "code",
        pl.coalesce("kind", "kind_synthetic"),
        pl.coalesce(DESCRIPTION, f"{DESCRIPTION}_synthetic"),
        real=carriers / max(real.patients, 1),
        synthetic=carriers_synthetic / max(synthetic.patients, 1),
    )
    lowest, highest = chance_limits(shares["real"], real.patients, synthetic.patients)
    within = pl.col("synthetic").is_between(pl.Series(lowest - ROUNDING), pl.Series(highest + ROUNDING))
    return shares.with_columns(within=within, difference=pl.col("synthetic") - pl.col("real"))


def chance_limits(real: ArrayLike, real_patients: int, synthetic_patients: int) -> tuple[Floats, Floats]:
    """The lowest and highest shares of simulated patients that 19 times in 20 differ from `real` by chance alone.

    They are the shares whose difference has a 95 % interval that just covers nought, by the method of Agresti and
    Caffo (The American Statistician 54:280, 2000), which holds for rare codes too: one patient with the code and one
    without are added to either group, then (y - x)^2 = z^2 (x (1 - x) / n + y (1 - y) / m) is solved for y.
    """
    n, m, z2 = real_patients + 2, synthetic_patients + 2, CHANCE**2
    x = (np.asarray(real, np.float64) * real_patients + 1) / n
    leading, middle = 1 + z2 / m, x + z2 / (2 * m)
    root = np.sqrt(np.maximum(middle**2 - leading * (x**2 - z2 * x * (1 - x) / n), 0))
    lowest, highest = ((middle + sign * root) / leading for sign in (-1, 1))
    size = max(synthetic_patients, 1)
    return np.clip((lowest * m - 1) / size, 0, 1), np.clip((highest * m - 1) / size, 0, 1)


def r_squared(real: ArrayLike, synthetic: ArrayLike) -> float | None:
    """Share of the variance of `real` that `synthetic` explains on the line of identity; None where there is none.

    It is 1 - sum((synthetic - real)^2) / sum((real - mean(real))^2): 1 for equal shares, negative where the mean of
    `real` would be the better guess.
    """
    truth, guess = np.asarray(real, np.float64), np.asarray(synthetic, np.float64)
    variance = float(np.sum((truth - truth.mean()) ** 2)) if truth.size else 0.0
    return 1 - float(np.sum((guess - truth) ** 2)) / variance if variance > 0 else None

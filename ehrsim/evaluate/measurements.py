"""Measured values: the distribution of each, how one follows from the last, and how those of a visit go together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from ehrsim.evaluate.numbers import Sample
from ehrsim.evaluate.records import DAYS_PER_YEAR, visit_events
from ehrsim.evaluate.resampling import Floats, Indices, block_of, blocks, subjects

MOST, LEAST_PAIRS = 30, 50
LEAST_VALUES, LEAST_YEARS = 3, 0.5
YEAR = DAYS_PER_YEAR * 86_400e6
"""In microseconds."""
_MOMENTS = 6


class Pairs(NamedTuple):
    """Pairs of values (x, y) of several groups, summed by block of patients."""

    moments: sparse.csr_matrix
    """(blocks, groups * 6) the sums of 1, x, y, xx, yy and xy of each group"""
    number: Indices
    """(groups,) how many pairs"""


def commonest(events: pl.LazyFrame, most: int = MOST) -> pl.DataFrame:
    """The codes with most numeric values, each in the unit that most of these have: a table of code, unit, values.

    A code whose values are all equal has no distribution and is left out.
    """
    value = pl.col("numeric_value")
    counted = (
        events.filter(value.is_finite())
        .group_by("code", "unit")
        .agg(values=pl.len().cast(pl.Int64), differ=value.n_unique() > 1)
    )
    ordered = counted.filter("differ").sort(["values", "code", "unit"], descending=[True, False, False])
    return ordered.unique("code", keep="first", maintain_order=True).head(most).collect().drop("differ")


def values(events: pl.LazyFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """The values of the codes and units of a table, a row each, in order of patient, time and the table of events.

    Returns `patient` (the place in `subjects`), `number` (the row of `chosen`), `visit_id` and `day` as
    `visit_events`, `time`, and `value`.
    """
    numbered = chosen.select("code", "unit").with_row_index("number").lazy()
    found = visit_events(events.with_row_index("row")).filter(pl.col("numeric_value").is_finite())
    rows = found.join(numbered, on=["code", "unit"], nulls_equal=True).sort("subject_id", "time", "row").collect()
    patient = subjects(events).search_sorted(rows["subject_id"]).cast(pl.Int64)
    return rows.select(
        patient.alias("patient"),
        pl.col("number").cast(pl.Int64),
        "visit_id",
        "day",
        "time",
        value=pl.col("numeric_value").cast(pl.Float64),
    )


def by_code(table: pl.DataFrame, number: int) -> Sample:
    """The values of one code in a table of `values`."""
    own = table.filter(pl.col("number") == number)
    return Sample(own["value"].to_numpy(), own["patient"].to_numpy())


def ranked(table: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """The values of a table as shares of the reference's values of the same code below them, ties in the middle.

    Correlations of these are of ranks (Spearman 1904), so that one value in a wrong unit does not decide them, and both
    cohorts stand on the scale of the reference.
    """
    shares = np.full(table.height, 0.5)
    numbers, given = table["number"].to_numpy(), table["value"].to_numpy()
    for number in np.unique(numbers):
        known = np.sort(by_code(reference, int(number)).values)
        where = np.flatnonzero(numbers == number)
        if len(known):
            sides = [np.searchsorted(known, given[where], side) for side in ("left", "right")]
            shares[where] = (sides[0] + sides[1]) / (2 * len(known))
    return table.with_columns(value=pl.Series(shares))


def consecutive(table: pl.DataFrame, patients: int, codes: int) -> Pairs:
    """Every value of a code and the next of the same code in the same patient; a group a code."""
    key = ("patient", "number")
    joined = table.with_columns(following=pl.col("value").shift(-1).over(key)).filter(pl.col("following").is_not_null())
    return _pairs(joined, pl.col("number"), "following", patients, codes)


def same_visit(table: pl.DataFrame, patients: int, codes: int) -> Pairs:
    """The means of two codes in each visit that has both; a group each of the codes * codes pairs (first, second).

    Only groups with first < second have any.
    """
    visit = ["patient", "visit_id", "day"]
    means = table.group_by(*visit, "number").agg(pl.col("value").mean()).sort(*visit, "number")
    row = means.select(pl.struct(visit).rle_id()).to_series().to_numpy()
    shape = (int(row[-1]) + 1 if len(row) else 0, codes)
    value, there = np.zeros(shape), np.zeros(shape)
    value[row, means["number"].to_numpy()] = means["value"].to_numpy() - 0.5
    there[row, means["number"].to_numpy()] = 1.0
    first = np.flatnonzero(np.diff(row, prepend=-1))
    owner = block_of(means["patient"].to_numpy()[first])
    found = np.zeros((blocks(patients), codes, codes, _MOMENTS))
    for block in np.unique(owner):
        x, one = value[owner == block], there[owner == block]
        sums = one.T @ one, x.T @ one, one.T @ x, (x * x).T @ one, one.T @ (x * x), x.T @ x
        found[block] = np.stack(sums, axis=-1)
    found *= np.triu(np.ones((codes, codes)), 1)[None, :, :, None]
    number = found[..., 0].sum(axis=0).ravel().astype(np.int64)
    return Pairs(sparse.csr_matrix(found.reshape(len(found), -1)), number)


def trends(table: pl.DataFrame) -> pl.DataFrame:
    """How values change a year: the slope of the least-squares line through a patient's values of a code.

    Of those with `LEAST_VALUES` values at least, the first and the last of them `LEAST_YEARS` apart or more. Returns
    patient, number and value as `values`, to be taken by `by_code`.
    """
    key = ("patient", "number")
    time, value = (pl.col("time") - pl.col("time").min().over(key)).dt.total_microseconds() / YEAR, pl.col("value")
    year = pl.col("year")
    moments = {"n": pl.len(), "x": year.mean(), "y": value.mean(), "xy": (year * value).mean(), "xx": (year**2).mean()}
    found = table.with_columns(year=time).group_by(key, maintain_order=True).agg(**moments, years=year.max())
    kept = found.filter((pl.col("n") >= LEAST_VALUES) & (pl.col("years") >= LEAST_YEARS))
    x, y, xy, xx = (pl.col(name) for name in ("x", "y", "xy", "xx"))
    return kept.select(*key, value=(xy - x * y) / (xx - x * x)).filter(value.is_finite())


def _pairs(table: pl.DataFrame, group: pl.Expr, second: str, patients: int, groups: int) -> Pairs:
    # Values around nought lose no digits when sums of squares are subtracted; ranks lie around a half.
    rows = table.select("patient", group=group, x=pl.col("value") - 0.5, y=pl.col(second) - 0.5)
    owner, column = block_of(rows["patient"].to_numpy()), rows["group"].to_numpy()
    x, y = rows["x"].to_numpy(), rows["y"].to_numpy()
    sums = (np.ones(len(x)), x, y, x * x, y * y, x * y)
    shape = (blocks(patients), groups)
    key = owner * groups + column
    moments = np.stack([np.bincount(key, part, shape[0] * groups).reshape(shape) for part in sums], axis=-1)
    return Pairs(sparse.csr_matrix(moments.reshape(shape[0], -1)), np.bincount(column, minlength=groups))


def correlations(pairs: Pairs, weights: Floats) -> Floats:
    """(rows, groups) Pearson's correlation of the pairs of each group, by row of weights (rows, blocks).

    Nought where there are less than two pairs, or one of both does not vary: nothing goes together there.
    """
    sums = np.asarray(weights @ pairs.moments).reshape(len(weights), -1, _MOMENTS)
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1)
    across, down = xx - x * x / n, yy - y * y / n
    # What rounding leaves of the variance of equal values is no variance.
    flat = (across <= 1e-9 * n) | (down <= 1e-9 * n)
    found = (xy - x * y / n) / np.sqrt(np.where(flat, 1.0, across * down))
    return np.where(flat, 0.0, np.clip(found, -1.0, 1.0))


def correlation_gaps(real: Pairs, other: Pairs, real_weights: Floats, weights: Floats) -> Floats:
    """(rows, groups) the absolute difference of correlations, of groups with `LEAST_PAIRS` real pairs at least."""
    kept = real.number >= LEAST_PAIRS
    return np.abs(correlations(real, real_weights)[:, kept] - correlations(other, weights)[:, kept])

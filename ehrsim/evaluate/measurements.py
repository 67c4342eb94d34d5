"""Measured values: the distribution of each, how one follows from the last, and how those of a visit go together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from ehrsim.evaluate.numbers import Sample
from ehrsim.evaluate.records import visit_events
from ehrsim.evaluate.resampling import Floats, Indices, subjects

MOST, LEAST_PAIRS = 30, 50
_MOMENTS = 6


class Pairs(NamedTuple):
    """Pairs of values (x, y) of several groups, summed by patient."""

    moments: sparse.csr_matrix
    """(patients, groups * 6) the sums of 1, x, y, xx, yy and xy of each group"""
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
    means = table.group_by(*visit, "number").agg(pl.col("value").mean())
    joined = means.join(means, on=visit, nulls_equal=True, suffix="_second").filter(
        pl.col("number") < pl.col("number_second")
    )
    group = pl.col("number") * codes + pl.col("number_second")
    return _pairs(joined.sort(*visit, "number", "number_second"), group, "value_second", patients, codes * codes)


def _pairs(table: pl.DataFrame, group: pl.Expr, second: str, patients: int, groups: int) -> Pairs:
    # Values around nought lose no digits when sums of squares are subtracted; ranks lie around a half.
    rows = table.select("patient", group=group, x=pl.col("value") - 0.5, y=pl.col(second) - 0.5)
    owner, column = rows["patient"].to_numpy(), rows["group"].to_numpy()
    x, y = rows["x"].to_numpy(), rows["y"].to_numpy()
    sums = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)
    places = column[:, None] * _MOMENTS + np.arange(_MOMENTS)
    owners = np.repeat(owner, _MOMENTS)
    moments = sparse.coo_matrix((sums.ravel(), (owners, places.ravel())), (patients, groups * _MOMENTS)).tocsr()
    return Pairs(moments, np.bincount(column, minlength=groups))


def correlations(pairs: Pairs, weights: Floats) -> Floats:
    """(rows, groups) Pearson's correlation of the pairs of each group, by row of weights (rows, patients).

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

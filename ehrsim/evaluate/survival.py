"""Time to death and to the onset of diseases: Kaplan-Meier curves, and the area between those of two cohorts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ehrsim import codes
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.records import visit_events, years
from ehrsim.evaluate.resampling import Floats, block_of, once

MOST_OUTCOMES, LEAST_CARRIERS, KNOWN_BIRTHS = 5, 10, 0.9
ENDING = 0.5
"""A disease is chronic unless this share of its entries have an end."""
STILL_FOLLOWED = 0.1
"""Curves are compared for as long as this share of patients is followed: beyond it they rest on a few."""


class FollowUp(NamedTuple):
    """How long each patient was followed, in years, and whether that ended with the outcome."""

    time: Floats
    """(patients,) NaN for a patient about whom nothing is dated"""
    happened: NDArray[np.bool_]


class Curve(NamedTuple):
    """Survival after each time at which an outcome happened; before the first it is 1."""

    times: Floats
    survival: Floats


def kaplan_meier(follow_up: FollowUp) -> Curve:
    """The product-limit estimate (Kaplan and Meier 1958, JASA 53:457).

    S(t) is the product of 1 - d_i / n_i over the times t_i up to t: d_i patients had the outcome at t_i, out of n_i who
    were followed until then. Those whose follow-up ends at t_i without it are among the n_i.
    """
    times, survival = _curves(follow_up, once(len(follow_up.time)))
    changed = np.isin(times, follow_up.time[follow_up.happened])
    return Curve(times[changed], survival[0][changed])


def integrated_errors(
    real: FollowUp, other: FollowUp, real_weights: Floats, weights: Floats, *, horizon: float
) -> Floats:
    """(rows,) the mean over time of |S_R(t) - S_S(t)| from 0 to `horizon` years, by row of weights (rows, blocks).

    It is (1 / tau) times the integral of the absolute difference of both survival curves: the integrated absolute
    error. A curve goes on as it ended where nobody is followed to the horizon.
    """
    pair = [_curves(*cohort) for cohort in ((real, real_weights), (other, weights))]
    grid = np.unique(np.concatenate([[0.0, horizon], *(times for times, _ in pair)]))
    grid = grid[grid <= horizon]
    at = []
    for times, survival in pair:
        begun = np.hstack([np.ones((len(survival), 1)), survival])
        at.append(begun[:, np.searchsorted(times, grid[:-1], side="right")])
    return np.asarray(np.abs(at[0] - at[1]) @ np.diff(grid) / horizon)


def _curves(follow_up: FollowUp, weights: Floats) -> tuple[Floats, Floats]:
    """The times in order and, by row of weights, survival after each (rows, times)."""
    known = np.isfinite(follow_up.time)
    time, happened = follow_up.time[known], follow_up.happened[known]
    owner = block_of(np.flatnonzero(known))
    grid, place = np.unique(time, return_inverse=True)
    survival = np.empty((len(weights), len(grid)))
    for row, weight in enumerate(weights):
        left = np.bincount(place, weight[owner], len(grid))
        followed = left[::-1].cumsum()[::-1]
        outcomes = np.bincount(place[happened], weight[owner[happened]], len(grid))
        survival[row] = np.cumprod(1 - outcomes / np.maximum(followed, 1e-12))
    return grid, survival


def horizon(follow_up: pl.DataFrame) -> float:
    """How many years `STILL_FOLLOWED` of the patients of a table of `lives` are followed."""
    followed = follow_up["followed"].drop_nulls()
    return float(followed.quantile(1 - STILL_FOLLOWED) or 0.0) if len(followed) else 0.0


def births_known(events: pl.LazyFrame) -> bool:
    """Whether so many patients have a birth that lives can be told from it: nine tenths."""
    born = events.group_by("subject_id").agg(born=(pl.col("code") == codes.BIRTH).any())
    return float(born.select(pl.col("born").mean().fill_null(0.0)).collect().item()) >= KNOWN_BIRTHS


def lives(events: pl.LazyFrame, *, from_birth: bool) -> pl.DataFrame:
    """A row a patient, in order: subject_id, `origin`, years `followed`, and whether `died`.

    Lives are told from birth, or from the first event of a visit. They end with death, else with the end of
    observation, else with the last event. Nulls where nothing says when a life begins.
    """
    time, code = pl.col("time"), pl.col("code")
    first = visit_events(events).group_by("subject_id").agg(first=time.min())
    table = events.group_by("subject_id").agg(
        born=time.filter(code == codes.BIRTH).min(),
        death=time.filter(code == codes.DEATH).min(),
        closed=time.filter(code == codes.OBSERVATION_END).max(),
        last=time.max(),
    )
    origin = pl.col("born" if from_birth else "first")
    end = pl.coalesce("death", "closed", "last")
    followed = years(end - origin).clip(lower_bound=0.0)
    table = table.join(first, on="subject_id", how="left")
    return (
        table.select("subject_id", origin=origin, followed=followed, died=pl.col("death").is_not_null())
        .sort("subject_id")
        .collect()
    )


def to_death(table: pl.DataFrame) -> FollowUp:
    """The time to death of a table of `lives`."""
    return FollowUp(table["followed"].fill_null(np.nan).to_numpy(), table["died"].to_numpy())


def to_first(events: pl.LazyFrame, table: pl.DataFrame, *codes: str) -> FollowUp:
    """The time to the first occurrence of a code, or of any of several, in the `lives` of a table.

    What came before a life is at its start.
    """
    onset = events.filter(pl.col("code").is_in(codes) & pl.col("time").is_not_null())
    first = onset.group_by("subject_id").agg(onset=pl.col("time").min()).collect()
    joined = table.join(first, on="subject_id", how="left", maintain_order="left").with_columns(
        until=years(pl.col("onset") - pl.col("origin")).clip(lower_bound=0.0)
    )
    happened = joined["until"].is_not_null()
    time = joined.select(pl.coalesce("until", "followed").fill_null(np.nan)).to_series()
    return FollowUp(time.to_numpy(), happened.to_numpy())


def chronic(events: pl.LazyFrame) -> list[str]:
    """The conditions that most patients have, without those whose entries mostly end, as infections do.

    At most `MOST_OUTCOMES`, and each of `LEAST_CARRIERS` patients at least.
    """
    timed = events.filter(pl.col("time").is_not_null())
    carriers = pl.col("subject_id").n_unique()
    counted = timed.group_by("code").agg(carriers=carriers, ending=pl.col("end_time").is_not_null().mean()).collect()
    found = counted.filter(
        (kind_of(counted["code"]) == "condition") & (pl.col("carriers") >= LEAST_CARRIERS) & (pl.col("ending") < ENDING)
    )
    return found.sort(["carriers", "code"], descending=[True, False])["code"].head(MOST_OUTCOMES).to_list()

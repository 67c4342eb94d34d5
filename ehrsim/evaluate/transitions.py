"""What is told of a patient to a classifier of sequences: which code follows which at the next visit."""

from __future__ import annotations

import numpy as np
import polars as pl

from ehrsim.evaluate.features import Features
from ehrsim.evaluate.lifts import commonest
from ehrsim.evaluate.patterns import incidence, row_pairs
from ehrsim.evaluate.resampling import Indices

MOST_CODES, MOST_TRANSITIONS = 60, 150


def transitions(cohorts: list[pl.LazyFrame], vocabulary: pl.Series, described: dict[str, str]) -> list[Features]:
    """The features of every cohort: of the transitions of each patient from a visit to the next, the share from one
    code to another, for the pairs that most patients of the cohorts have, and the log of the mean gap in days.

    How many visits there are is not told, and neither is how common a code is but by what it goes with.
    """
    codes = pl.Series(
        "code",
        sorted(commonest(pl.concat([part.select("subject_id", "code") for part in cohorts]), vocabulary, MOST_CODES)),
        dtype=pl.String,
    )
    found = [_shown(events, codes) for events in cohorts]
    size = len(codes) ** 2
    carriers = sum(np.bincount(np.unique(owner * size + pair) % size, minlength=size) for owner, pair, *_ in found)
    chosen = np.sort(
        np.argsort(-np.asarray(carriers), kind="stable")[: min(MOST_TRANSITIONS, np.count_nonzero(carriers))]
    )
    names = [described.get(code, code) for code in codes]
    labels = [f"{names[key // len(codes)]} → {names[key % len(codes)]}" for key in chosen]
    return [Features([*labels, "gap (log days), mean"], _matrix(*part, chosen)) for part in found]


def _shown(events: pl.LazyFrame, codes: pl.Series) -> tuple[Indices, Indices, Indices, np.ndarray, int]:
    """The owner and the pair of every transition shown; the owner and the gap in days of every transition; patients."""
    visits = incidence(events, codes)
    follows = visits.patient[1:] == visits.patient[:-1]
    step = visits.patient[1:][follows]
    owner, pair = row_pairs(visits.codes[:-1][follows], visits.codes[1:][follows], step, within=False)
    gap = np.diff(visits.start)[follows] / np.timedelta64(1, "D")
    return owner, pair, step, gap, visits.patients


def _matrix(
    owner: Indices, pair: Indices, step: Indices, gap: np.ndarray, patients: int, chosen: Indices
) -> np.ndarray:
    """(patients, features) NaN for a patient without transitions."""
    number = np.bincount(step, minlength=patients).astype(np.float64)
    place = np.searchsorted(chosen, pair)
    kept = (place < len(chosen)) & (chosen[np.minimum(place, len(chosen) - 1)] == pair) if len(chosen) else pair < 0
    size = patients * len(chosen)
    counted = np.bincount(owner[kept] * len(chosen) + place[kept], minlength=size).reshape(patients, len(chosen))
    gaps = np.bincount(step, np.log1p(gap), minlength=patients)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.hstack([counted, gaps[:, None]]) / np.where(number > 0, number, np.nan)[:, None]

"""Diversity: whether simulated patients fill the space of real ones, and are not a few patients over and over.

Density and coverage (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", ICML) and
their clipped forms (Salvy et al. 2025, "Enhanced Generative Model Evaluation with Clipped Density and Coverage",
arXiv:2507.01761) ask for each real patient which others are nearer than the fifth nearest real one. None of them is
right by itself (Raisa et al. 2025, ICML): they are read beside their floor, that of other real patients, which stands
here in place of the calibration of the clipped forms. They say nothing about privacy: copies of the real patients would
score best.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from ehrsim.evaluate.cohorts import Cohorts, Weights, some
from ehrsim.evaluate.features import life
from ehrsim.evaluate.prevalence import prevalence
from ehrsim.evaluate.report import Metric, Section, measured
from ehrsim.evaluate.resampling import Floats, Indices, block_of, blocks, subjects

NEAREST, DIMENSIONS, MOST_EMBEDDED = 5, 64, 2_500
LEAST_EVENTS, LEAST_CARRIERS = 8, 20
"""Records of fewer events are alike by chance; codes of fewer real patients may be missed by chance."""
RARE = 0.01
"""A code is rare if this share of the held-out patients has it at most."""
_ROUNDS, _SPARE = 4, 16


class Neighbours(NamedTuple):
    """How the patients of a cohort lie among held-out ones."""

    inside: Floats
    """(patients,) in how many balls of held-out patients each lies, over `NEAREST`"""
    inside_clipped: Floats
    """the same with balls of the median radius at most, and no patient counted as more than 1"""
    held: Floats
    """(held-out,) 1 where a ball has any of the patients"""
    held_clipped: Floats
    """how many of the patients a ball has, over `NEAREST`, 1 at most"""


def embedding(cohorts: list[pl.LazyFrame], vocabulary: pl.Series) -> list[Floats]:
    """Each cohort as points (patients, dimensions) of one space, that of the first.

    The space is spanned by the leading singular vectors of the first cohort's code counts, of which the logarithm is
    taken and rare codes weigh more (tf-idf), by sex, ages, years of record and visits, in standard deviations. The
    decomposition is that of Halko, Martinsson and Tropp 2011 (SIAM Review 53:217) with a fixed beginning.
    """
    counted = [_counts(events, vocabulary) for events in cohorts]
    carriers = np.asarray((counted[0] > 0).sum(axis=0)).ravel()
    rarity = np.log((1 + counted[0].shape[0]) / (1 + carriers)) + 1
    scaled = [_unit_rows(matrix @ sparse.diags_array(rarity)) for matrix in counted]
    directions = _leading(scaled[0], min(DIMENSIONS, *scaled[0].shape))
    traits = [life(events).drop("subject_id").with_columns(pl.col("visits").log1p()) for events in cohorts]
    parts = [
        np.hstack([codes @ directions, table.select(pl.all().cast(pl.Float64).fill_null(np.nan)).to_numpy()])
        for codes, table in zip(scaled, traits, strict=True)
    ]
    known = np.isfinite(parts[0])
    mean = np.where(known, parts[0], 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    spread = np.sqrt(np.where(known, (parts[0] - mean) ** 2, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    # Codes weigh as much as all traits together, and the first directions more than the last.
    spread[: directions.shape[1]] = spread[: directions.shape[1]].max(initial=1e-12)
    return [np.nan_to_num((part - mean) / np.where(spread > 0, spread, 1.0)) for part in parts]


def neighbours(held_out: Floats, other: Floats) -> Neighbours:
    """Where the points of a cohort lie among held-out ones, both (patients, dimensions)."""
    among = _distances(held_out, held_out)
    np.fill_diagonal(among, np.inf)
    nearest = min(NEAREST, len(held_out) - 1)
    radius = np.partition(among, nearest - 1, axis=1)[:, nearest - 1]
    apart = _distances(held_out, other)
    inside, close = apart < radius[:, None], apart < np.minimum(radius, np.median(radius))[:, None]
    return Neighbours(
        inside.sum(axis=0) / nearest,
        np.minimum(close.sum(axis=0) / nearest, 1.0),
        np.asarray(inside.any(axis=1), np.float64),
        np.minimum(inside.sum(axis=1) / nearest, 1.0),
    )


def section(cohorts: Cohorts, weights: Weights, seed: int = 0) -> Section:
    """Judge the diversity of simulated patients."""
    return Section(
        name="diversity",
        title="Diversity",
        metrics=[*_in_space(cohorts, weights, seed), *_alike(cohorts, weights), *_rare_codes(cohorts, weights)],
    )


def _in_space(cohorts: Cohorts, weights: Weights, seed: int) -> list[Metric]:
    size = min(MOST_EMBEDDED, *(len(subjects(events)) for events in cohorts))
    fewer = [some(events, size, seed) for events in cohorts]
    names = prevalence(fewer[0]).table["code"]
    points = embedding(fewer, names)
    placed = [neighbours(points[0], other) for other in points[1:]]
    drawn = [rows[:, : blocks(size)] for rows in weights]
    titles = {
        "inside": ("density", "How densely simulated patients lie where real ones are"),
        "inside_clipped": ("clipped_density", "The same, no patient counting for more than one"),
        "held": ("coverage", "Real patients with a simulated one near them"),
        "held_clipped": ("clipped_coverage", "The same, by how many are near"),
    }
    metrics = []
    for field, (name, title) in titles.items():
        of_held_out = field.startswith("held")
        rows = [drawn[0]] * 3 if of_held_out else drawn[1:]
        values = [_mean(getattr(one, field), row) for one, row in zip(placed, rows, strict=True)]
        floor, found, ceiling = values
        details = {"patients": size, "nearest": NEAREST}
        metrics.append(measured(name, "Space", title, found, floor, ceiling[:1], best="high", details=details))
    return metrics


def _mean(values: Floats, weights: Floats) -> Floats:
    """(rows,) the mean of a value a patient, by row of weights (rows, blocks)."""
    owner = block_of(np.arange(len(values)))
    sums = np.bincount(owner, values, weights.shape[1]), np.bincount(owner, minlength=weights.shape[1])
    return np.asarray((weights @ sums[0]) / np.maximum(weights @ sums[1], 1.0))


def _alike(cohorts: Cohorts, weights: Weights) -> list[Metric]:
    """How many records are the very same as another's, and how many courses of codes there are."""
    found = []
    for whole, name, title in (
        (True, "duplicates", "Records that another patient of the same cohort has event by event"),
        (
            False,
            "repeated_trajectories",
            "Courses of visits and codes that another patient has too, whatever the dates",
        ),
    ):
        values = [_mean(repeated(events, whole=whole), row) for events, row in zip(cohorts, weights, strict=True)]
        found.append(measured(name, "Copies among themselves", title, values[2], values[1], values[3]))
    return found


def repeated(events: pl.LazyFrame, *, whole: bool) -> Floats:
    """(patients,) 1 where another patient has the same record of `LEAST_EVENTS` events or more.

    `whole` records are the same where codes, values and the time since the first event are; else where the codes of
    visits are, in order.
    """
    begin = pl.col("time").min().over("subject_id")
    columns = [pl.col("code"), pl.col("numeric_value"), (pl.col("time") - begin).alias("since")]
    timed = events.filter(pl.col("time").is_not_null() & ~pl.col("code").str.starts_with("MEDS_BIRTH"))
    visit = pl.struct("time", "visit_id").rle_id().over("subject_id") if not whole else pl.lit(0)
    rows = timed.select("subject_id", "time", "visit_id", *columns).sort("subject_id", "time", "visit_id", "code")
    told = pl.struct("code", "numeric_value", "since") if whole else pl.struct("code", visit.alias("visit"))
    hashes = rows.select("subject_id", told.hash(seed=1).alias("hash"))
    place = pl.int_range(pl.len()).over("subject_id").cast(pl.UInt64)
    # Hashes are summed with their place in the record: what stands elsewhere is not the same.
    keyed = hashes.with_columns(pl.struct("hash", place.alias("place")).hash(seed=2).alias("hash"))
    records = keyed.group_by("subject_id").agg(record=pl.col("hash").bitwise_xor(), events=pl.len())
    everyone = pl.DataFrame({"subject_id": subjects(events)}).lazy()
    joined = everyone.join(records, on="subject_id", how="left", maintain_order="left").collect()
    long = joined["events"].fill_null(0) >= LEAST_EVENTS
    twice = joined.select(pl.struct("record", "events").is_duplicated()).to_series()
    return (long & twice).cast(pl.Float64).to_numpy()


def _rare_codes(cohorts: Cohorts, weights: Weights) -> list[Metric]:
    """The share of rare codes that appear at all, of those that enough held-out patients have."""
    table = prevalence(cohorts.held_out)
    most = max(RARE * table.patients, LEAST_CARRIERS)
    chosen = table.table.filter(pl.col("carriers").is_between(LEAST_CARRIERS, most))["code"]
    if chosen.is_empty():
        return []
    values = []
    for events, rows in zip(cohorts[1:], weights[1:], strict=True):
        shown = sparse.csr_matrix(_by_block(_counts(events, chosen) > 0))
        values.append(np.asarray((rows @ shown > 0).mean(axis=1)))
    floor, found, ceiling = values
    title = f"Rare codes that appear, of {len(chosen):,} that {LEAST_CARRIERS} held-out patients have or more"
    missing = chosen.filter(pl.Series(np.asarray(_counts(cohorts.simulated, chosen).sum(axis=0)).ravel() == 0))
    details = {"codes": len(chosen), "missing": missing.to_list()[:50]}
    bounds = (0.0, 1.0)
    return [
        measured("rare_codes", "Rare codes", title, found, floor, ceiling, best="high", bounds=bounds, details=details)
    ]


def _by_block(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    patients = matrix.shape[0]
    of_block = sparse.csr_matrix(
        (np.ones(patients), (block_of(np.arange(patients)), np.arange(patients))), (blocks(patients), patients)
    )
    return of_block @ matrix.astype(np.float64)


def _counts(events: pl.LazyFrame, vocabulary: pl.Series) -> sparse.csr_matrix:
    """(patients, codes) the logarithm of one more than how often each patient has each code."""
    everyone = subjects(events)
    column = pl.DataFrame({"code": vocabulary}).with_row_index("column").lazy()
    rows = events.group_by("subject_id", "code").len().join(column, on="code").collect()
    place: Indices = everyone.search_sorted(rows["subject_id"]).to_numpy().astype(np.int64)
    values = np.log1p(rows["len"].to_numpy().astype(np.float64))
    return sparse.csr_matrix((values, (place, rows["column"].to_numpy())), (len(everyone), len(vocabulary)))


def _unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags_array(1 / np.where(length > 0, length, 1.0)) @ matrix


def _leading(matrix: sparse.csr_matrix, number: int) -> Floats:
    """(columns, number) the leading right singular vectors."""
    rng = np.random.Generator(np.random.Philox(key=7))
    guess = matrix.T @ rng.standard_normal((matrix.shape[0], min(number + _SPARE, *matrix.shape)))
    for _ in range(_ROUNDS):
        guess, _ = np.linalg.qr(matrix.T @ (matrix @ guess))
    _, _, directions = np.linalg.svd(matrix @ guess, full_matrices=False)
    return np.asarray(guess @ directions[:number].T)


def _distances(one: Floats, other: Floats) -> Floats:
    """(one, other) Euclidean distances."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

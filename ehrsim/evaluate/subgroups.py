"""Subgroups of patients, by sex, age and race: who is there, and how common each code is among them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from ehrsim import codes
from ehrsim.evaluate.demographics import age_band
from ehrsim.evaluate.patterns import Counts
from ehrsim.evaluate.records import records
from ehrsim.evaluate.resampling import block_of, blocks, subjects

LEAST_MEMBERS = 50
"""A subgroup of fewer held-out patients is not judged: chance would decide."""


class Members(NamedTuple):
    """The patients of a cohort in order, each with a label of every trait that is known."""

    labels: pl.DataFrame
    """sex, age, race: null where not known"""
    carries: sparse.csr_matrix
    """(patients, codes) 1 where the patient ever has the code"""


def members(events: pl.LazyFrame, vocabulary: pl.Series) -> Members:
    """Label the patients of a cohort, and note who has which code of a vocabulary."""
    everyone = subjects(events)
    race = pl.col("code").filter(pl.col("code").str.starts_with("RACE//")).min().str.strip_prefix("RACE//")
    races = events.group_by("subject_id").agg(race=race).collect()
    table = records(events).join(races, on="subject_id", how="left", maintain_order="left")
    labels = table.select("sex", age_band(pl.col("age")).alias("age"), pl.col("race").replace(codes.RACES))
    column = pl.DataFrame({"code": vocabulary}).with_row_index("column").lazy()
    rows = events.select("subject_id", "code").unique().join(column, on="code").collect()
    place = everyone.search_sorted(rows["subject_id"]).to_numpy().astype(np.int64)
    shape = (len(everyone), len(vocabulary))
    carries = sparse.csr_matrix((np.ones(rows.height), (place, rows["column"].to_numpy())), shape)
    return Members(labels, carries)


def known(held_out: Members) -> list[tuple[str, str]]:
    """The subgroups that are judged: trait and label of those with `LEAST_MEMBERS` held-out patients, sexes first."""
    found = []
    for trait in held_out.labels.columns:
        counted = held_out.labels[trait].drop_nulls().value_counts(name="patients").sort(trait)
        found += [(trait, label) for label, number in counted.iter_rows() if number >= LEAST_MEMBERS]
    return found


def of(cohort: Members, trait: str, label: str) -> Counts:
    """How many members of a subgroup have each code, by block of patients."""
    inside = np.flatnonzero((cohort.labels[trait] == label).fill_null(False).to_numpy())
    return _by_block(cohort.carries[inside], inside, cohort.labels.height)


def composition(cohort: Members, labels: list[str]) -> Counts:
    """How many patients are of each combination of sex, age and race; `labels` are all combinations of the cohorts."""
    place = {label: number for number, label in enumerate(labels)}
    cell = np.array([place[label] for label in combinations(cohort)], np.int64)
    patients = np.arange(len(cell))
    one = sparse.csr_matrix((np.ones(len(cell)), (patients, cell)), (len(cell), len(labels)))
    return _by_block(one, patients, len(cell))


def combinations(cohort: Members) -> list[str]:
    """The combination of every patient."""
    return cohort.labels.select(pl.concat_str(pl.all().fill_null("unknown"), separator=", ")).to_series().to_list()


def _by_block(matrix: sparse.csr_matrix, patients: np.ndarray, everyone: int) -> Counts:
    """Sum the rows of a matrix, each of a patient, by block."""
    size = blocks(everyone)
    owner = block_of(patients)
    of_block = sparse.csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner)))), (size, len(owner)))
    occasions = np.bincount(owner, minlength=size).astype(np.float64)
    return Counts((of_block @ matrix).tocsr(), occasions, np.arange(matrix.shape[1], dtype=np.int64))

"""Records as attacks see them: visits, what is known of the person, and tokens that two records may share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ehrsim import codes
from ehrsim.evaluate.demographics import age_band
from ehrsim.evaluate.patterns import Visits, incidence
from ehrsim.evaluate.records import records
from ehrsim.evaluate.resampling import Floats, Indices, subjects

MOST_PATIENTS = 5_000
MOST_COUNTED = 150
COLUMNS = ("subject_id", "time", "code", "numeric_value", "visit_id")
AGES = 1_000
"""Keys of onsets are those of codes times this, and more for the age."""
DENSE = 2_000
"""Columns up to which a product of matrices is faster with one of them dense."""
DIGITS = 3
"""Significant digits that two values must share."""
YEAR = 365.25 * 86_400e6
"""In microseconds, as the moments of visits."""
_CHAIN = np.uint64(0x9E3779B97F4A7C15)

Keys = NDArray[np.uint64]


class Histories(NamedTuple):
    """The records of a cohort; patients are in order of `person`."""

    person: pl.DataFrame
    """subject_id, sex, race, born (null if unknown), age at the last event, died, visits"""
    visits: Visits
    codes: pl.Series
    """what the columns of `visits` stand for"""
    values: pl.DataFrame
    """patient, code, and a numeric `value`, a row each"""

    @property
    def patients(self) -> int:
        """Number of patients."""
        return self.person.height


class Tokens(NamedTuple):
    """What records consist of, seen in one way: for each token its patient, a key, and how much it weighs."""

    patient: Indices
    key: Keys
    weight: Floats
    patients: int


def some(
    events: pl.LazyFrame, most: int = MOST_PATIENTS, *, seed: int = 0, columns: Sequence[str] = COLUMNS
) -> pl.LazyFrame:
    """The events of `most` patients of a cohort at random, of all if there are no more; they are in memory then.

    Of the columns, those that histories are made from, or `columns`.
    """
    events = events.select(columns)
    everyone = subjects(events)
    if len(everyone) > most:
        rng = np.random.Generator(np.random.Philox(key=[seed, 3]))
        chosen = everyone.gather(np.sort(rng.permutation(len(everyone))[:most]))
        events = events.join(chosen.to_frame().lazy(), on="subject_id", how="semi", maintain_order="left")
    return events.collect().lazy()


def histories(events: pl.LazyFrame, vocabulary: pl.Series) -> Histories:
    """The records of a cohort over the codes of a `patterns.vocabulary`."""
    everyone = person(events)
    measured = events.filter(pl.col("numeric_value").is_finite()).select("subject_id", "code", "numeric_value")
    rows = measured.collect()
    place = everyone["subject_id"].search_sorted(rows["subject_id"]).cast(pl.Int64)
    values = rows.select(place.alias("patient"), "code", pl.col("numeric_value").cast(pl.Float64).alias("value"))
    return Histories(everyone, incidence(events, vocabulary), vocabulary, values)


def person(events: pl.LazyFrame) -> pl.DataFrame:
    """What is known of every patient beside visits; see `Histories`."""
    race = pl.col("code").filter(pl.col("code").str.starts_with("RACE//")).min().str.strip_prefix("RACE//")
    born = pl.col("time").filter(pl.col("code") == codes.BIRTH).min()
    facts = events.group_by("subject_id").agg(race=race, born=born).collect()
    return records(events).join(facts, on="subject_id", how="left", maintain_order="left")


def groups(person: pl.DataFrame) -> dict[str, NDArray[np.str_]]:
    """Sex, band of the age at the last event, and race of every patient, "" where unknown."""
    table = person.select(pl.col("sex"), age_band(pl.col("age")).alias("age"), pl.col("race")).fill_null("")
    return {name: table[name].to_numpy().astype(np.str_) for name in table.columns}


def code_counts(history: Histories) -> sparse.csr_matrix:
    """(patients, codes) how many visits of each patient have each code."""
    visits = history.visits
    owner = sparse.csr_matrix(
        (np.ones(len(visits.patient)), (visits.patient, np.arange(len(visits.patient)))),
        (visits.patients, len(visits.patient)),
    )
    return (owner @ visits.codes).tocsr()


def commonest(*cohorts: Histories) -> Indices:
    """The columns of the codes that most patients of some cohorts have, for `numbers`."""
    having = sum(np.asarray((code_counts(history) > 0).sum(axis=0)).ravel() for history in cohorts)
    return np.sort(np.argsort(-np.asarray(having), kind="stable")[:MOST_COUNTED]).astype(np.int64)


def numbers(history: Histories, columns: Indices) -> Floats:
    """(patients, features) a row of numbers a patient for trees to learn from, NaN where something is unknown.

    They are age, year of birth, sex, death, visits, codes a visit, and for each of `columns` the visits with the code
    and the mean of its values. `features.features` tells more and takes longer.
    """
    counts, person = code_counts(history), history.person
    sex = pl.col("sex").replace_strict({"female": 0.0, "male": 1.0}, default=None, return_dtype=pl.Float64)
    facts = person.select(pl.col("age"), pl.col("born").dt.year(), sex, pl.col("died"), pl.col("visits"))
    known = facts.select(pl.all().cast(pl.Float64).fill_null(np.nan)).to_numpy()
    per_visit = np.asarray(counts.sum(axis=1)).ravel() / np.maximum(known[:, -1], 1)
    places = pl.DataFrame({"code": history.codes.gather(columns), "column": np.arange(len(columns))})
    values = history.values.join(places, on="code", maintain_order="left")
    cell = values["patient"].to_numpy() * len(columns) + values["column"].to_numpy()
    total, number = (np.bincount(cell, weight, history.patients * len(columns)) for weight in (values["value"], None))
    with np.errstate(invalid="ignore"):
        means = (total / number).reshape(history.patients, len(columns))
    return np.hstack([known, per_visit[:, None], counts[:, columns].toarray(), means])


def code_tokens(history: Histories) -> Tokens:
    """The codes of a patient, each weighed by the log of one more than the visits with it."""
    counts = code_counts(history).tocoo()
    return Tokens(
        counts.row.astype(np.int64), counts.col.astype(np.uint64), np.log1p(counts.data), history.visits.patients
    )


def onset_tokens(history: Histories) -> Tokens:
    """Each code together with the age in years at which it came first, or the years since the first visit."""
    visits, size = history.visits, len(history.codes)
    moment = visits.start.astype("datetime64[us]").astype(np.int64)
    born = history.person["born"].dt.timestamp("us").cast(pl.Float64).fill_null(np.nan).to_numpy()
    begun = np.full(visits.patients, np.nan)
    first = np.append(True, visits.patient[1:] != visits.patient[:-1])[: len(visits.patient)]
    begun[visits.patient[first]] = moment[first]
    origin = np.where(np.isfinite(born), born, begun)
    row = np.repeat(np.arange(len(visits.patient)), np.diff(visits.codes.indptr))
    # The visits of a patient are in order of time: the first of equal pairs is the earliest.
    pair, at = np.unique(visits.patient[row] * size + visits.codes.indices, return_index=True)
    patient, code = pair // size, pair % size
    age = np.floor((moment[row[at]] - origin[patient]) / YEAR).astype(np.int64) + 200
    return Tokens(patient, (code * AGES + age).astype(np.uint64), np.ones(len(pair)), visits.patients)


def visit_keys(history: Histories) -> Keys:
    """(visits,) a key of the set of codes of each visit: equal for equal sets (chance of another: about 2^-64)."""
    random = np.random.Generator(np.random.Philox(key=7)).integers(0, 2**64, len(history.codes), np.uint64)
    matrix = history.visits.codes
    if not matrix.shape[0]:
        return np.zeros(0, np.uint64)
    keys: Keys = np.add.reduceat(random[matrix.indices], matrix.indptr[:-1], dtype=np.uint64)
    return keys


def run_keys(keys: Keys, patient: Indices, length: int, begun: Keys | None = None) -> tuple[Keys, Indices]:
    """The key of every run of `length` visits of one patient, and that patient.

    `begun` are the keys of the runs of one visit less, as this function gives them.
    """
    last = keys[length - 1 :]
    inside = patient[length - 1 :] == patient[: len(last)]
    if length == 1:
        return keys * _CHAIN, patient
    shorter = begun if begun is not None else run_keys(keys, patient, length - 1)[0]
    owner = patient[: len(last)][inside]
    # Runs of one visit less begin wherever there is room for them, so also where there is room for one more.
    starts = patient[: len(keys) - length + 2] == patient[length - 2 :]
    place = np.cumsum(starts)[: len(last)][inside] - 1
    return (shorter[place] + last[inside]) * _CHAIN, owner


def run_tokens(history: Histories) -> Tokens:
    """The sets of codes of single visits, and those of two visits in a row."""
    keys, patient = visit_keys(history), history.visits.patient
    parts = [run_keys(keys, patient, length) for length in (1, 2)]
    owner, key = (np.concatenate([part[which] for part in parts]) for which in (1, 0))
    pair = np.stack([owner.astype(np.uint64), key])
    found = np.unique(pair, axis=1)
    return Tokens(found[0].astype(np.int64), found[1], np.ones(found.shape[1]), history.visits.patients)


def value_tokens(history: Histories) -> Tokens:
    """Each measured value, of three significant digits, with its code; of codes that are in visits."""
    value = pl.col("value").round_sig_figs(DIGITS) + 0.0
    columns = pl.DataFrame({"code": history.codes}).with_row_index("column")
    rows = (
        history.values.select("patient", "code", value)
        .unique()
        .join(columns, on="code")
        .sort("patient", "column", "value")
    )
    bits = rows["value"].to_numpy().astype(np.float64).view(np.uint64)
    key = (bits * _CHAIN + rows["column"].to_numpy().astype(np.uint64)) * _CHAIN
    return Tokens(rows["patient"].to_numpy(), key, np.ones(rows.height), history.visits.patients)


def matrices(*cohorts: Tokens) -> list[sparse.csr_matrix]:
    """The tokens of cohorts as rows of unit length over common columns, float32; rare tokens weigh more.

    The weight of a token is multiplied by the log of all patients over those who have it (inverse document frequency).
    The product of two rows is their cosine similarity; a row without tokens is nought.
    """
    known, column = np.unique(np.concatenate([tokens.key for tokens in cohorts]), return_inverse=True)
    having = np.bincount(column, minlength=len(known))
    rarity = np.log((1 + sum(tokens.patients for tokens in cohorts)) / having)
    found, begin = [], 0
    for tokens in cohorts:
        place = column[begin : begin + len(tokens.key)]
        begin += len(tokens.key)
        weight = tokens.weight * rarity[place]
        length = np.sqrt(np.bincount(tokens.patient, weight**2, tokens.patients))
        unit = weight / np.maximum(length[tokens.patient], 1e-12)
        shape = (tokens.patients, len(known))
        found.append(sparse.csr_matrix((unit.astype(np.float32), (tokens.patient, place)), shape))
    return found


class Neighbours(NamedTuple):
    """The most similar patients of another cohort, the most similar first."""

    similarity: NDArray[np.float32]
    """(patients, number) cosine, 1 for the same"""
    place: Indices
    """(patients, number) of each in `base`"""


def nearest(
    queries: sparse.csr_matrix, base: sparse.csr_matrix, number: int = 1, *, itself: bool = False
) -> Neighbours:
    """The `number` patients of `base` that are most similar to each of `queries`; of equals those that come first.

    With `itself`, both are the same cohort, and nobody is a neighbour of their own.
    """
    number = min(number, base.shape[0] - itself)
    similarity = np.zeros((queries.shape[0], number), np.float32)
    place = np.zeros((queries.shape[0], number), np.int64)
    other = base.T.toarray() if base.shape[1] <= DENSE else base.T.tocsr()
    for begin in range(0, queries.shape[0], 256):
        part = queries[begin : begin + 256] @ other
        found = part if isinstance(part, np.ndarray) else part.toarray()
        if itself:
            found[np.arange(len(found)), begin + np.arange(len(found))] = -1
        rows = np.arange(len(found))[:, None]
        if number == 1:
            best = found.argmax(1)[:, None]
        else:
            best = np.argpartition(-found, number - 1, axis=1)[:, :number]
            best = best[rows, np.lexsort((best, -found[rows, best]), axis=1)]
        place[begin : begin + 256], similarity[begin : begin + 256] = best, found[rows, best]
    return Neighbours(similarity, place)

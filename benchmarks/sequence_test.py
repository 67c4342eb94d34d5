"""How well a recurrent network tells simulated patients from real ones by the order of their visits.

A gated recurrent unit reads the visits of a patient: the sum of the embeddings of a visit's codes and of their kinds,
the log of the days since the last visit, age, and the number of codes. It sees what a classifier of whole patients does
not: what follows what, and when. AUC of patients that it was not trained on, cross-validated; 0.5 where nothing tells
them apart.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from scipy import sparse

from ehrsim import codes
from ehrsim.evaluate.numbers import DAY
from ehrsim.evaluate.patterns import Visits, incidence
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.records import DAYS_PER_YEAR
from ehrsim.evaluate.resampling import subjects
from ehrsim.evaluate.two_sample import Area, cross_validated_area, folds

WIDTH, FOLDS, BATCH, MOST_VISITS, MOST_CODES = 64, 3, 64, 48, 512
RATE, DECAY, DROPOUT, INNER = 3e-3, 1e-3, 0.2, 0.15
MOST_STEPS, CHECK, PATIENCE = 2_000, 25, 10
"""Optimiser steps at most, from one look at the inner split to the next, and looks without a lower loss."""
KINDS = np.array(get_args(codes.Kind), object)
NUMBERS = 4
"""Gap, age, whether age is known, number of codes."""

Parameters = dict[str, jax.Array]


class Sequences(NamedTuple):
    """The visits of patients, the last `MOST_VISITS` of each."""

    codes: sparse.csr_matrix
    """(visits + 1, codes + kinds) 1 where the visit has the code, and how many codes of each kind; an empty row ends it

    Counts of kinds spare the network to learn of every code what it shares with others.
    """
    numbers: np.ndarray
    """(visits + 1, NUMBERS) float32"""
    rows: np.ndarray
    """(patients, most visits) the visits of each in order, then the empty row"""


class Batch(NamedTuple):
    """Some patients: codes (B, T, codes + kinds), numbers (B, T, NUMBERS), whether there is a visit (B, T), label."""

    codes: jax.Array
    numbers: jax.Array
    present: jax.Array
    label: jax.Array


def commonest(*cohorts: pl.LazyFrame) -> pl.Series:
    """The codes that most patients of some cohorts have in visits, as many as the network reads."""
    counted = pl.concat([frame.select("subject_id", "code").unique() for frame in cohorts]).group_by("code").len()
    kept = counted.filter(~pl.col("code").is_in((codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)))
    ordered = kept.sort(["len", "code"], descending=[True, False]).head(MOST_CODES).collect()
    return ordered["code"].sort()


def sequences(events: pl.LazyFrame, vocabulary: pl.Series) -> Sequences:
    """The visits of a cohort that have any code of the vocabulary, as the network reads them."""
    visits = incidence(events, vocabulary)
    begin = np.searchsorted(visits.patient, np.arange(visits.patients + 1))
    rows = np.full((visits.patients, min(MOST_VISITS, np.diff(begin).max(initial=1))), len(visits.patient))
    for owner, (low, high) in enumerate(itertools.pairwise(begin)):
        kept = np.arange(max(low, high - rows.shape[1]), high)
        rows[owner, : len(kept)] = kept
    of_kind = (kind_of(vocabulary).to_numpy()[:, None] == KINDS[None]).astype(np.float64)
    counted = sparse.hstack([visits.codes, visits.codes @ sparse.csr_matrix(of_kind)])
    padded = sparse.vstack([counted, sparse.csr_matrix((1, counted.shape[1]))], format="csr").astype(np.float32)
    return Sequences(padded, np.vstack([_numbers(events, visits), np.zeros(NUMBERS)]).astype(np.float32), rows)


def _numbers(events: pl.LazyFrame, visits: Visits) -> np.ndarray:
    """(visits, NUMBERS) each of about the size of 1."""
    days = visits.start.astype("datetime64[us]").astype(np.int64) / DAY
    first = np.diff(visits.patient, prepend=-1) != 0
    gap = np.where(first, 0.0, np.diff(days, prepend=days[:1]))
    births = events.filter(pl.col("code") == codes.BIRTH).group_by("subject_id").agg(born=pl.col("time").min())
    everyone = pl.DataFrame({"subject_id": subjects(events)})
    born = everyone.join(births.collect(), on="subject_id", how="left", maintain_order="left")["born"]
    birthday = born.dt.timestamp("us").cast(pl.Float64).fill_null(np.nan).to_numpy() / DAY
    age = (days - birthday[visits.patient]) / DAYS_PER_YEAR
    known = np.isfinite(age)
    number = np.log1p(np.diff(visits.codes.indptr))
    return np.stack([np.log1p(gap) / 4, np.where(known, age / 50, 0.0), known, number], axis=1)


def told_apart(
    real: pl.LazyFrame, other: pl.LazyFrame, vocabulary: pl.Series, *, steps: int = MOST_STEPS, seed: int = 0
) -> Area:
    """Train the network to tell two cohorts apart, on as many patients of each; the AUC with its interval.

    A network is trained for each fold, for `steps` at most.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    cohorts = [sequences(events, vocabulary) for events in (real, other)]
    size = min(len(cohort.rows) for cohort in cohorts)
    chosen = [rng.permutation(len(cohort.rows))[:size] for cohort in cohorts]
    both = _joined(
        cohorts[0]._replace(rows=cohorts[0].rows[chosen[0]]), cohorts[1]._replace(rows=cohorts[1].rows[chosen[1]])
    )
    label, fold = np.repeat([False, True], size), folds(size, FOLDS)
    score = np.zeros(2 * size)
    for number in range(FOLDS):
        outer = rng.permutation(np.flatnonzero(fold != number))
        inner, train = np.split(outer, [max(int(INNER * len(outer)), 1)])
        parameters = train_network(both, label, train, inner, steps, rng)
        test = np.flatnonzero(fold == number)
        score[test] = predict(parameters, both, label, test)
    return cross_validated_area(score, label, fold, seed=seed)


def _joined(first: Sequences, second: Sequences) -> Sequences:
    """Two cohorts in one; each keeps its empty row, to which its shorter records go on."""
    longest = max(cohort.rows.shape[1] for cohort in (first, second))
    first, second = (
        cohort._replace(
            rows=np.pad(
                cohort.rows, ((0, 0), (0, longest - cohort.rows.shape[1])), constant_values=cohort.codes.shape[0] - 1
            )
        )
        for cohort in (first, second)
    )
    return Sequences(
        sparse.vstack([first.codes, second.codes], format="csr"),
        np.vstack([first.numbers, second.numbers]),
        np.vstack([first.rows, second.rows + first.codes.shape[0]]),
    )


def _batches(data: Sequences, label: np.ndarray, patients: np.ndarray) -> list[tuple[np.ndarray, Batch]]:
    """The patients in batches of one shape: the last is filled up with its first patient."""
    found = []
    for begin in range(0, len(patients), BATCH):
        some = patients[begin : begin + BATCH]
        filled = np.concatenate([some, np.full(BATCH - len(some), some[0])])
        rows = data.rows[filled].ravel()
        hot = data.codes[rows].toarray().reshape(BATCH, data.rows.shape[1], -1)
        present = hot.any(axis=-1)
        numbers = data.numbers[rows].reshape(BATCH, data.rows.shape[1], NUMBERS)
        found.append((some, Batch(*(jnp.asarray(part) for part in (hot, numbers, present, label[filled])))))
    return found


def initial(vocabulary: int, rng: np.random.Generator) -> Parameters:
    """Small normal weights."""

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]), jnp.float32)

    return {
        "embedding": normal(vocabulary, WIDTH),
        "numbers": normal(NUMBERS, WIDTH),
        "inner": normal(WIDTH, 3 * WIDTH),
        "recurrent": normal(WIDTH, 3 * WIDTH),
        "bias": jnp.zeros(3 * WIDTH),
        "hidden": normal(2 * WIDTH, WIDTH),
        "out": normal(WIDTH, 1),
    }


def logits(parameters: Parameters, batch: Batch, key: jax.Array | None = None) -> jax.Array:
    """(B,) the log odds of the second cohort: of the last state and the mean of all; `key` drops out units."""
    visits = jax.nn.relu(batch.codes @ parameters["embedding"] + batch.numbers @ parameters["numbers"])
    inputs = visits @ parameters["inner"] + parameters["bias"][None, None]

    def step(state: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        given, present = now
        remembered = state @ parameters["recurrent"]
        reset = jax.nn.sigmoid(given[:, :WIDTH] + remembered[:, :WIDTH])
        update = jax.nn.sigmoid(given[:, WIDTH : 2 * WIDTH] + remembered[:, WIDTH : 2 * WIDTH])
        new = jnp.tanh(given[:, 2 * WIDTH :] + reset * remembered[:, 2 * WIDTH :])
        state = jnp.where(present[:, None], update * state + (1 - update) * new, state)
        return state, state

    by_time = (jnp.moveaxis(inputs, 1, 0), batch.present.T)
    last, states = jax.lax.scan(step, jnp.zeros((inputs.shape[0], WIDTH)), by_time)
    weight = batch.present.T[..., None].astype(jnp.float32)
    mean = (states * weight).sum(axis=0) / jnp.maximum(weight.sum(axis=0), 1.0)
    summary = jnp.concatenate([last, mean], axis=-1)
    if key is not None:
        summary = jnp.where(jax.random.bernoulli(key, 1 - DROPOUT, summary.shape), summary / (1 - DROPOUT), 0.0)
    return (jax.nn.relu(summary @ parameters["hidden"]) @ parameters["out"])[:, 0]


def loss(parameters: Parameters, batch: Batch, key: jax.Array | None = None) -> jax.Array:
    """The mean negative log-likelihood of the labels."""
    odds = logits(parameters, batch, key)
    return optax.sigmoid_binary_cross_entropy(odds, batch.label.astype(jnp.float32)).mean()


OPTIMISER = optax.adamw(RATE, weight_decay=DECAY)


@jax.jit
def _update(parameters: Parameters, state: optax.OptState, batch: Batch, key: jax.Array) -> tuple:
    gradient = jax.grad(loss)(parameters, batch, key)
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        changes, state = OPTIMISER.update(gradient, state, parameters)
    return optax.apply_updates(parameters, changes), state


_logits, _loss = jax.jit(logits), jax.jit(loss)


def train_network(
    data: Sequences, label: np.ndarray, train: np.ndarray, inner: np.ndarray, steps: int, rng: np.random.Generator
) -> Parameters:
    """Train until the loss of the inner split has not fallen for `PATIENCE` checks; the weights of the best check."""
    parameters = best = initial(data.codes.shape[1], rng)
    state, least, waited = OPTIMISER.init(parameters), np.inf, 0
    checked = _batches(data, label, inner)
    key = jax.random.key(int(rng.integers(2**31)))
    for step in range(1, steps + 1):
        ((_, batch),) = _batches(data, label, rng.choice(train, BATCH))
        parameters, state = _update(parameters, state, batch, jax.random.fold_in(key, step))
        if step % CHECK:
            continue
        weights = np.array([len(some) for some, _ in checked])
        now = float(np.average([_loss(parameters, batch) for _, batch in checked], weights=weights))
        least, best, waited = (now, parameters, 0) if now < least else (least, best, waited + 1)
        if waited == PATIENCE:
            break
    return best


def predict(parameters: Parameters, data: Sequences, label: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The log odds of each patient."""
    parts = [np.asarray(_logits(parameters, batch))[: len(some)] for some, batch in _batches(data, label, patients)]
    return np.concatenate(parts)

"""A recurrent network that predicts an outcome from the visits so far: a small gated recurrent unit.

It reads the embedding of what each visit holds and when it was; the last state, the mean of all and what does not
change give the log odds. It takes part in comparisons as a learner (`ehrsim.evaluate.learners`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from ehrsim.models.layers import GRU, Linear, dropout, kept, table
from ehrsim.sequences import Sequences

WIDTH, BATCH = 32, 64
RATE, DECAY, DROPOUT, INNER = 3e-3, 1e-2, 0.3, 0.15
MOST_STEPS, CHECK, PATIENCE = 400, 20, 4
"""Optimiser steps at most, from one look at the inner split to the next, and looks without a lower loss."""
LEAST_INNER = 5
"""Patients with the outcome that the inner split needs to say when to stop; with fewer all steps are half as many."""

Array = jax.Array


class Asked(Protocol):
    """Patients with their visits and outcomes, as `ehrsim.evaluate.learners.Examples`."""

    @property
    def outcome(self) -> NDArray[np.bool_]:
        """(patients,) whether it came."""
        ...

    @property
    def sequences(self) -> Sequences:
        """Their visits."""
        ...


class Batch(NamedTuple):
    """Some patients, B of them with T visits at most."""

    visits: Array
    """(B, T, columns)"""
    numbers: Array
    """(B, T, numbers)"""
    present: Array
    """(B, T) whether there is a visit"""
    static: Array
    """(B, statics)"""
    outcome: Array
    """(B,) 1.0 or 0.0"""


class Network(nnx.Module):
    """The network; its parameters are a pytree."""

    def __init__(self, columns: int, numbers: int, statics: int, rng: np.random.Generator) -> None:
        self.embedding = table(columns, WIDTH, rng)
        self.moment = Linear(numbers, WIDTH, rng)
        self.recurrent = GRU(WIDTH, WIDTH, rng)
        self.hidden = Linear(2 * WIDTH + statics, WIDTH, rng)
        self.out = Linear(WIDTH, 1, rng, gain=0.1)

    def __call__(self, batch: Batch, drop: Callable[[Array], Array]) -> Array:
        """(B,) the log odds of the outcome."""
        given = jax.nn.relu(batch.visits @ self.embedding[...] + self.moment(batch.numbers))
        projected = jnp.moveaxis(self.recurrent.inner(given), 1, 0)

        def step(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            inputs, present = now
            state = jnp.where(present[:, None], self.recurrent.step(state, inputs), state)
            return state, state

        last, states = jax.lax.scan(step, jnp.zeros((given.shape[0], WIDTH)), (projected, batch.present.T))
        weight = batch.present.T[..., None].astype(jnp.float32)
        mean = (states * weight).sum(axis=0) / jnp.maximum(weight.sum(axis=0), 1.0)
        summary = drop(jnp.concatenate([last, mean, batch.static], axis=-1))
        return self.out(jax.nn.relu(self.hidden(summary)))[:, 0]


def gru(examples: Asked, seed: int, *, steps: int = MOST_STEPS) -> Callable[[Asked], NDArray[np.float64]]:
    """Train a network on patients with both outcomes; returns what predicts the risk of others.

    Training stops when the loss of an inner split has not fallen for `PATIENCE` looks, and keeps the best. Every random
    number follows from the seed.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    data, outcome = examples.sequences, examples.outcome
    inner, train = _split(outcome, rng)
    share = float(np.clip(outcome.mean(), 1e-3, 1 - 1e-3))
    network = Network(data.visits.shape[1], data.numbers.shape[1], data.static.shape[1], rng)
    network.out.bias[...] = jnp.full((1,), np.log(share / (1 - share)), jnp.float32)
    best, state, least, stale = network, _OPTIMISER.init(network), np.inf, 0
    checked = list(_batches(data, outcome, inner)) if len(inner) else []
    key = jax.random.key(int(rng.integers(2**31)))
    for number in range(1, (steps if checked else steps // 2) + 1):
        some = rng.choice(train, BATCH)
        network, state = _update(network, state, _batch(data, outcome, some), jax.random.fold_in(key, number))
        if not checked:
            best = network
        elif number % CHECK == 0:
            now = float(np.average([float(_loss(network, one)) for _, one in checked], weights=[n for n, _ in checked]))
            least, best, stale = (now, network, 0) if now < least else (least, best, stale + 1)
            if stale == PATIENCE:
                break

    def predict(others: Asked) -> NDArray[np.float64]:
        batches = _batches(others.sequences, others.outcome, np.arange(len(others.outcome)))
        risks = [np.asarray(_risk(best, one), np.float64)[:size] for size, one in batches]
        return np.concatenate(risks) if risks else np.zeros(0)

    return predict


def _split(outcome: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The inner split, with its share of either outcome, and the rest; no inner split where outcomes are too few."""
    groups = [rng.permutation(np.flatnonzero(outcome == which)) for which in (True, False)]
    sizes = [int(INNER * len(group)) for group in groups]
    if sizes[0] < LEAST_INNER or sizes[1] < LEAST_INNER:
        return np.zeros(0, np.int64), np.arange(len(outcome))
    parts = [np.split(group, [size]) for group, size in zip(groups, sizes, strict=True)]
    inner, rest = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    return inner, rest


def _batches(data: Sequences, outcome: NDArray[np.bool_], patients: NDArray[np.int64]) -> Iterator[tuple[int, Batch]]:
    """The patients in batches of one shape with how many each has: the last is filled up with its first patient."""
    for begin in range(0, len(patients), BATCH):
        some = patients[begin : begin + BATCH]
        yield len(some), _batch(data, outcome, np.concatenate([some, np.full(BATCH - len(some), some[0])]))


def _batch(data: Sequences, outcome: NDArray[np.bool_], some: NDArray[np.int64]) -> Batch:
    rows = data.rows[some]
    visits = data.visits[rows.ravel()].toarray().reshape(*rows.shape, -1)
    present = rows < data.visits.shape[0] - 1
    parts = (visits, data.numbers[rows], present, data.static[some], outcome[some].astype(np.float32))
    return Batch(*(jnp.asarray(part) for part in parts))


def _cost(network: Network, batch: Batch, drop: Callable[[Array], Array] = kept) -> Array:
    cost: Array = optax.sigmoid_binary_cross_entropy(network(batch, drop), batch.outcome).mean()
    return cost


_OPTIMISER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=DECAY))


@jax.jit
def _update(network: Network, state: Any, batch: Batch, key: Array) -> tuple[Network, Any]:
    gradient = jax.grad(_cost)(network, batch, dropout(key, DROPOUT))
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        changes, state = _OPTIMISER.update(gradient, state, network)
    changed: Network = optax.apply_updates(network, changes)
    return changed, state


_loss = jax.jit(_cost)
_risk = jax.jit(lambda network, batch: jax.nn.sigmoid(network(batch, kept)))

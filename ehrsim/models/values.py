"""How a value is told: by its rank, as the very value of the last time, or by how far it is from that.

Most values change little from one visit to the next, some never do, and a child's grow with the child. On the scale of
ranks alone a head would have to know each patient's level to a fraction of a bin; as a change it is one bin for all.
The logits of all three ways stand in one softmax:

    0                     no value
    1 to bins             a bin of ranks, all equally wide
    bins + 1              the value of the last time
    beyond                a bin of changes of the rank, narrow near none (`EDGES`)

Within its bin a rank is uniform. A value that two ways lead to has the chances of both. But the value of the last time
is told as such alone: where it is so common that it takes whole bins, there is no other way to it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ehrsim.batch import CHANGES, Sizes
from ehrsim.models.layers import along

Array = jax.Array

_UPWARDS = (0.001, 0.002, 0.0035, 0.0055, 0.0085, 0.013, 0.02, 0.03, 0.045, 0.07, 0.11, 0.17, 0.28, 0.5, 1.0)
EDGES = np.array([*(-edge for edge in reversed(_UPWARDS)), 0.0, *_UPWARDS], np.float32)
"""Edges of the bins of changes."""
assert len(EDGES) == CHANGES + 1


Tie = tuple[Array, Array]
"""From which rank up to which (...) a value is that of the last time; 0, 0 where that takes no whole bin."""


def tie_of(sizes: Sizes, code: Array, last_rank: Array) -> Tie:
    """The tie (...) that the last rank of a code lies in."""
    if not sizes.ties:
        return jnp.zeros_like(last_rank), jnp.zeros_like(last_rank)
    codes = np.array([code for code, *_ in sizes.ties])
    number = np.arange(len(codes)) - np.searchsorted(codes, codes)
    bounds = np.zeros((2, sizes.vocabulary, number.max() + 1), np.float32)
    for index, (code_of, *bound) in enumerate(sizes.ties):
        bounds[:, code_of, number[index]] = bound
    low, high = (jnp.asarray(bound)[code] for bound in bounds)
    inside = (low <= last_rank[..., None]) & (last_rank[..., None] < high)
    return jnp.where(inside, low, 0.0).sum(-1), jnp.where(inside, high, 0.0).sum(-1)


def possible(logits: Array, last_rank: Array, tie: Tie) -> Array:
    """Logits (..., values) with no chance of what refers to a last value that is not there, or leads off the scale.

    Nor is there any of a rank that lies wholly within the `tie` of the last value, or a change that ends in it: what is
    spread over a bin of changes would tell the last value again by chance.
    """
    bins = logits.shape[-1] - CHANGES - 2
    fixed = jnp.asarray(np.arange(bins) / bins, jnp.float32)
    begin, end = along(fixed, logits[..., :bins]), along(fixed + 1 / bins, logits[..., :bins])
    lower, upper = _intervals(last_rank)
    low, high = (bound[..., None] for bound in tie)
    known = last_rank[..., None] >= 0
    other = ~((begin >= low) & (end <= high))
    elsewhere = known & (upper > lower) & ~((lower < high) & (upper > low))
    chances = jnp.concatenate([jnp.ones_like(known), other, known, elsewhere], axis=-1)
    return jnp.where(chances, logits, -jnp.inf)


def log_probability(logits: Array, value: Array, rank: Array, last_rank: Array) -> Array:
    """(...) log-probability of having no value, the last one, or one at a rank (as of a bin of ranks)."""
    bins = logits.shape[-1] - CHANGES - 2
    place = jnp.searchsorted(jnp.asarray(EDGES), rank - last_rank, side="right", method="compare_all")
    change = jnp.clip(place - 1, 0, CHANGES - 1)
    lower, upper = _interval(last_rank, change)
    by_rank = jnp.take_along_axis(logits, value[..., None], axis=-1)[..., 0]
    by_change = jnp.take_along_axis(logits, (bins + 2 + change)[..., None], axis=-1)[..., 0]
    both_ways = (value > 0) & (value <= bins) & (last_rank >= 0) & (upper > lower)
    narrower = jnp.log(jnp.where(both_ways, (upper - lower) * bins, 1.0))
    chosen = jnp.logaddexp(by_rank, jnp.where(both_ways, by_change - narrower, -jnp.inf))
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def rank_at(index: Array, within: Array, last_rank: Array, sizes: Sizes) -> Array:
    """(...) the rank of a value drawn by its `index` (...), at a fraction of its bin; 0 without a value."""
    lower, upper = _interval(last_rank, jnp.clip(index - sizes.same - 1, 0, CHANGES - 1))
    by_rank = ((index - 1).astype(jnp.float32) + within) / sizes.value_bins
    changed = jnp.where(index > sizes.same, lower + within * (upper - lower), last_rank)
    return jnp.where(index > 0, jnp.where(index > sizes.value_bins, changed, by_rank), 0.0)


def centres(last_rank: Array, bins: int) -> Array:
    """(..., bins + CHANGES) the middles of the bins of ranks, then of those of changes."""
    fixed = jnp.asarray((np.arange(bins) + 0.5) / bins, jnp.float32)
    lower, upper = _intervals(last_rank)
    ranks = jnp.broadcast_to(fixed, (*last_rank.shape, bins))
    return jnp.concatenate([ranks, (lower + upper) / 2], axis=-1)


def _intervals(last_rank: Array) -> tuple[Array, Array]:
    """(..., CHANGES) where on the scale each bin of changes begins and ends."""
    return _interval(last_rank[..., None], along(jnp.arange(CHANGES), last_rank[..., None]))


def _interval(last_rank: Array, change: Array) -> tuple[Array, Array]:
    """Where on the scale a bin of changes begins and ends."""
    edges = jnp.asarray(EDGES)
    return jnp.clip(last_rank + edges[change], 0.0, 1.0), jnp.clip(last_rank + edges[change + 1], 0.0, 1.0)

"""Exact draws of sparse sets: many independent Bernoulli codes a visit at the cost of the few that are drawn.

With l the logit of a code, its likelier value (present if l > 0) is taken for granted and only *flips* away from it
are drawn, with probability sigmoid(-|l|). Independent Bernoullis of that probability are the "at least one point"
indicators of a Poisson process with rates log(1 + exp(-|l|)), since 1 - exp(-log(1 + exp(-|l|))) = sigmoid(-|l|). The
points of the superposed process are a handful a visit: each is a uniform position on the cumulated rates. Two levels of
prefix sums, made by products with a triangle, keep rare codes exact and are much faster than `cumsum` on a CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

POINTS = 24
"""Flips drawn a set before the dense draw takes over."""


class Draw(NamedTuple):
    """A set of codes drawn for each row."""

    codes: Array
    """(B, places) int32 positions from 1 in ascending order, 0 where empty (at the end)."""
    number: Array
    """(B,) int32 codes drawn; where there are more than places, the highest are missing."""


def uniforms_needed() -> int:
    """Uniform numbers a row that `draw_set` takes."""
    return 2 * POINTS


def draw_set(logits: Array, uniforms: Array, keys: Array, places: int) -> Draw:
    """Draw each code v of `logits` (B, V) with probability sigmoid(logit).

    `uniforms` (B, uniforms_needed()) in (0, 1); `keys` (B,) are used only in rows with `POINTS` points or more, where
    what lies beyond the last of them is drawn densely. (To draw such rows anew instead would not be exact: that a row
    has many points says something about it.)
    """
    rows, size = logits.shape
    if size == 0:
        return Draw(jnp.zeros((rows, places), jnp.int32), jnp.zeros(rows, jnp.int32))
    rates = jnp.log1p(jnp.exp(-jnp.abs(logits)))
    points, reached = _points(rates, uniforms)
    sparse = jnp.zeros((rows, size + 1), bool)
    sparse = sparse.at[jnp.arange(rows)[:, None], points].set(True, mode="promise_in_bounds")[:, 1:]

    def with_rest(_: None) -> Array:
        draws = jax.vmap(lambda key: jax.random.uniform(key, (size,)))(keys)
        return sparse | (draws < -jnp.expm1(-_beyond(rates, reached)))

    flipped = jax.lax.cond(jnp.isfinite(reached).any(), with_rest, lambda _: sparse, None)
    return _first_present((logits > 0) ^ flipped, places)


def join_sets(draws: list[Draw], starts: list[int], places: int) -> Draw:
    """One set of several over ranges of indices that follow each other, the first index of each given in `starts`."""
    counts = jnp.stack([draw.number for draw in draws], axis=-1)
    shown = jnp.minimum(counts, places)
    upto = jnp.cumsum(shown, axis=-1)
    place = jnp.arange(places)
    part = (place[None, :, None] >= upto[:, None, :]).sum(-1)
    real = part < len(draws)
    part = jnp.minimum(part, len(draws) - 1)
    within = place[None] - jnp.take_along_axis(upto - shown, part, axis=-1)
    shifted = [jnp.where(d.codes > 0, d.codes + start - 1, 0) for d, start in zip(draws, starts, strict=True)]
    source = jnp.where(real, part * places + within, 0)
    codes = jnp.take_along_axis(jnp.concatenate(shifted, axis=-1), source, axis=-1)
    return Draw(jnp.where(real, codes, 0), counts.sum(-1))


def _blocks(x: Array) -> Array:
    """(B, V) padded with zeros to (B, blocks, about sqrt(V))."""
    size = x.shape[-1]
    width = max(8, 8 * math.ceil(math.sqrt(size) / 8))
    padded = jnp.pad(x, ((0, 0), (0, -size % width)))
    return padded.reshape(x.shape[0], -1, width)


def _prefix(x: Array) -> Array:
    """Inclusive prefix sums over the last axis, as a product with a triangle in full precision."""
    triangle = jnp.triu(jnp.ones((x.shape[-1], x.shape[-1]), x.dtype))
    return jnp.matmul(x, triangle, precision="highest")


def _points(rates: Array, uniforms: Array) -> tuple[Array, Array]:
    """Positions from 1 (B, POINTS) of the points of Poisson processes with `rates` (B, V), 0 where there are no more.

    A point is repeated where several fell on one code. Also how far on the cumulated rates of the blocks the last of
    POINTS points lies (B,), infinite where there are fewer: there the process is complete.
    """
    within = _prefix(_blocks(rates))
    of_block = _prefix(within[:, :, -1])
    arrivals = jnp.cumsum(-jnp.log(uniforms[:, :POINTS]), axis=-1)
    real = arrivals < of_block[:, -1:]
    block = (arrivals[:, :, None] >= of_block[:, None, :]).sum(-1)
    block = jnp.minimum(block, of_block.shape[-1] - 1)
    rows = jnp.take_along_axis(within, block[:, :, None], axis=1)
    target = uniforms[:, POINTS:, None] * rows[:, :, -1:]
    place = jnp.minimum((target >= rows).sum(-1), within.shape[-1] - 1)
    position = 1 + block * within.shape[-1] + place
    points = jnp.where(real, jnp.minimum(position, rates.shape[-1]), 0).astype(jnp.int32)
    return points, jnp.where(real[:, -1], arrivals[:, -1], jnp.inf)


def _beyond(rates: Array, reached: Array) -> Array:
    """The part of `rates` (B, V) that lies beyond `reached` (B,) on the cumulated rates of the blocks.

    Inside the block that was reached it is a share of every rate, as the place within a block is drawn by itself.
    """
    blocks = _blocks(rates)
    of_block = blocks.sum(-1)
    rest = _prefix(of_block) - reached[:, None]
    share = jnp.where(of_block > 0, jnp.clip(rest / of_block, 0.0, 1.0), 0.0)
    return (blocks * share[:, :, None]).reshape(rates.shape[0], -1)[:, : rates.shape[1]]


def _first_present(present: Array, places: int) -> Draw:
    """Positions from 1 of the first `places` true entries of each row of (B, V), and how many there are."""
    within = _prefix(_blocks(present.astype(jnp.float32)))
    of_block = _prefix(within[:, :, -1])
    rank = (jnp.arange(places, dtype=jnp.float32) + 0.5)[None]
    block = (rank[:, :, None] > of_block[:, None, :]).sum(-1)
    found = rank < of_block[:, -1:]
    block = jnp.minimum(block, of_block.shape[-1] - 1)
    before = jnp.take_along_axis(of_block - within[:, :, -1], block, axis=1)
    rows = jnp.take_along_axis(within, block[:, :, None], axis=1)
    place = ((rank - before)[:, :, None] > rows).sum(-1)
    codes = jnp.where(found, 1 + block * within.shape[-1] + place, 0).astype(jnp.int32)
    return Draw(codes, of_block[:, -1].astype(jnp.int32))


def draw_index(logits: Array, uniform: Array) -> Array:
    """(...) int32 category of softmax `logits` (..., n) at `uniform` (...), by inverse CDF."""
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    cumulated = _prefix(weights)
    return (uniform[..., None] * cumulated[..., -1:] >= cumulated).sum(-1).astype(jnp.int32)

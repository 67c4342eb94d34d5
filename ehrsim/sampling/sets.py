"""Exact draws of code sets: every code of a visit is an independent Bernoulli, and the few drawn are given as a list.

The numbers that decide are hashes of counters (`ehrsim.sampling.counters`), so one pass over the logits draws them and
compares. That is faster than to draw only the few hits, as points of a Poisson process on two levels of prefix sums,
for every vocabulary tried: 2.5 times for 300 codes, 3.6 times for 2,000, on one core.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Draw(NamedTuple):
    """A set of codes drawn for each row."""

    codes: Array
    """(B, places) int32 positions from 1 in ascending order, 0 where empty (at the end)."""
    number: Array
    """(B,) int32 codes drawn; where there are more than places, the highest are missing."""


WORD = 32
"""Codes whose presence is kept in one uint32 word."""


def draw_set(logits: Array, bits: Array, places: int) -> Draw:
    """Draw each code v of `logits` (B, V) with probability sigmoid(logit), to within 2^-31 if small, 2^-24 if large.

    `bits` (B, V) are uniform uint32 numbers.
    """
    # As signed integers: a CPU converts those at once. The largest float below 1 keeps the product in their range.
    probability = jnp.minimum(jax.nn.sigmoid(logits), np.float32(1 - 2.0**-24))
    threshold = (probability * np.float32(2.0**31)).astype(jnp.int32)
    return _listed(_packed((bits >> np.uint32(1)).astype(jnp.int32) < threshold), places)


def _packed(present: Array) -> Array:
    """(B, V) bool as (B, words) uint32, the first code in the lowest bit.

    The last word is made by itself: hashes that are fused with padding are computed one by one.
    """
    rows, size = present.shape
    powers = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)
    whole = size - size % WORD
    words = jnp.where(present[:, :whole].reshape(rows, -1, WORD), powers[None, None], jnp.uint32(0))
    rest = jnp.where(present[:, whole:], powers[None, : size - whole], jnp.uint32(0))
    packed = [words.sum(-1, dtype=jnp.uint32), rest.sum(-1, keepdims=True, dtype=jnp.uint32)]
    return jnp.concatenate(packed, axis=-1)


def _listed(words: Array, places: int) -> Draw:
    """Positions from 1 of the first `places` bits that are set in each row of `words` (B, W), and how many are set.

    The k-th is in the first word by whose end more than k are set, at a bit found by halving: five times the bits in
    the lower half of what is left are counted.
    """
    number = _ones(words)
    upto = jnp.cumsum(number, axis=-1)
    rank = jnp.arange(places, dtype=jnp.int32)[None]
    found = rank < upto[:, -1:]
    word = jnp.minimum((rank[:, :, None] >= upto[:, None, :]).sum(-1), words.shape[-1] - 1)
    of_word = jnp.take_along_axis(words, word, axis=-1)
    left = rank - jnp.take_along_axis(upto - number, word, axis=-1)
    bit = jnp.zeros_like(left)
    for half in (16, 8, 4, 2, 1):
        lower = _ones((of_word >> bit.astype(jnp.uint32)) & np.uint32((1 << half) - 1))
        beyond = left >= lower
        left, bit = jnp.where(beyond, left - lower, left), jnp.where(beyond, bit + half, bit)
    return Draw(jnp.where(found, 1 + word * WORD + bit, 0), upto[:, -1])


def _ones(words: Array) -> Array:
    return jax.lax.population_count(words).astype(jnp.int32)


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


MOST_SUMS = 64
"""Categories up to which `draw_index` builds the sums one after the other."""
MOST_UNROLLED = 24
"""Blocks of more categories up to which the sums are written out. XLA makes each sum of a block anew for every block
after it, so that for 45 blocks, those of 2,000 categories, one draw took half a minute to compile; a loop takes one
second, and as long to run."""


def draw_index(logits: Array, uniform: Array) -> Array:
    """(...) int32 category of softmax `logits` (..., n) at `uniform` (...) in (0, 1), by inverse CDF.

    Many categories are drawn in two steps, a block of about sqrt(n) first.
    """
    size = logits.shape[-1]
    if size <= MOST_SUMS:
        # One after the other, like the sums: XLA would fuse `max` with the product before it, several times as slow.
        top = functools.reduce(jnp.maximum, jnp.moveaxis(logits, -1, 0))
        weights = jnp.exp(logits - top[..., None])
        return _reached(weights, uniform)[0]
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    width = math.ceil(math.sqrt(size))
    padded = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -size % width)])
    blocks = padded.reshape(*weights.shape[:-1], -1, width)
    reached = _reached if width <= MOST_UNROLLED else _reached_in_a_loop
    block, within = reached(blocks.sum(-1), uniform)
    chosen = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    place, _ = reached(chosen, within)
    return jnp.minimum(block * width + place, size - 1)


def _reached(weights: Array, uniform: Array) -> tuple[Array, Array]:
    """The category (...) of `weights` (..., n) at a fraction of their sum, and how far into it, from 0 to 1.

    The sums are built one category after the other, each for all rows: several times as fast as `cumsum` on a CPU.
    """
    parts = jnp.moveaxis(weights, -1, 0)
    cumulated = [parts[0]]
    for part in parts[1:]:
        cumulated.append(cumulated[-1] + part)
    target = uniform * cumulated[-1]
    index = jnp.zeros(uniform.shape, jnp.int32)
    before = jnp.zeros_like(target)
    for upto in cumulated[:-1]:
        beyond = target >= upto
        index, before = index + beyond.astype(jnp.int32), jnp.where(beyond, upto, before)
    own = jnp.take_along_axis(weights, index[..., None], axis=-1)[..., 0]
    return index, _within(target - before, own)


def _reached_in_a_loop(weights: Array, uniform: Array) -> tuple[Array, Array]:
    """The same of more categories than are worth writing out."""
    parts = jnp.moveaxis(weights, -1, 0)

    def add(total: Array, part: Array) -> tuple[Array, Array]:
        return total + part, total + part

    total, cumulated = jax.lax.scan(add, jnp.zeros_like(uniform), parts, unroll=8)
    target = uniform * total
    index = (target[None] >= cumulated[:-1]).sum(0, dtype=jnp.int32)
    before = jnp.take_along_axis(jnp.concatenate([jnp.zeros_like(total)[None], cumulated]), index[None], axis=0)[0]
    own = jnp.take_along_axis(parts, index[None], axis=0)[0]
    return index, _within(target - before, own)


def _within(beyond: Array, own: Array) -> Array:
    """How far into a category of weight `own` a target `beyond` its beginning is, from 0 to 1."""
    return jnp.clip(beyond / jnp.where(own > 0, own, 1.0), 2.0**-24, 1 - 2.0**-24)

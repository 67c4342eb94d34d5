"""Codes of a visit one after the other, each in two draws: a block of the vocabulary, then a code of that block.

A softmax over all codes is as long as the vocabulary, for every code of every visit. Here it is the product of two
(Goodman 2001, "Classes for fast maximum entropy training"), each about as long as the square root of that:

    P(code | before) = P(block | before) P(code | before, block)

Codes ascend as in `ehrsim.models.emission.OrderedEmission`: blocks all of whose codes come before the last one have
probability 0, and so have such codes of its own block.

Within a block the logits are those of the ordered emission. The logit of a block is a product of a query with its
vector, and the logarithm of its *mass*: the sum of exp(logit) over its codes of what their logits have of the kind of
visit, the age and the codes remembered. Without queries this is the softmax over all codes, so that a code that recurs
draws its block, and one made likelier by raking makes its block likelier. Vectors are means over the codes of a block:
every parameter goes by codes, and a model for another vocabulary, with other blocks, can begin with this one.

In the block of the last code the mass is that of the codes that can still come. In the others it is found from sums
over remembered codes, which are the same for all codes of a visit. They are exact but for two things, which the query
can make up for: precursors and statics do not count, and how much of a block is new goes by the mean over all ages and
gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Sizes, Visit
from ehrsim.models import base
from ehrsim.models.base import Array, At, Memory, TwoLevelHead
from ehrsim.models.code_blocks import by_block, code_blocks
from ehrsim.models.emission import RECALLED, Body, CodeLogits
from ehrsim.models.layers import QUICK, Linear, added, along, constant, prospect_features, softplus, table
from ehrsim.models.shift import Shift, age_bin, gap_class

IMPOSSIBLE = -1e9
"""Logit of what cannot be: its probability is 0 in single precision, and gradients stay finite where all is so."""
LEAST_MASS = 1e-20
"""Beside what is left of a block by the sums, which cancel: its logarithm stays finite."""
EXACT = jax.lax.Precision.HIGHEST


class _Prefix(NamedTuple):
    """A visit, and its codes so far; leading axes of any shape."""

    row: Array
    """(...) int32 row of what is remembered"""
    kind: Array
    """(...) int32"""
    age: Array
    """(...) int32 bin"""
    gap: Array
    """(...) int32 class"""
    prospects: Array
    """(..., PROSPECT_FEATURES) of the moment"""
    gates: Array
    """(..., RECALLED) weights of what is remembered"""
    mass: Array
    """(..., blocks) logarithms"""
    total: Array
    """(..., width) state and sum of the codes' embeddings"""
    last: Array
    """(...) int32 code, 0 before the first"""
    number: Array
    """(...) int32 how many codes there are"""
    known: Array
    """(..., precursors and classes of them) 1 for those known"""


class TwoLevelEmission(nnx.Module):
    """Codes in ascending order, each given those before, by blocks; index 0 stands for "no more"."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.sizes = sizes
        self.of_code = table(sizes.vocabulary, width, rng)
        self.of_last = table(sizes.vocabulary, width, rng)
        self.query = Linear(width, width, rng)
        self.block_query = Linear(width, width, rng)
        self.of_block = table(width, sizes.vocabulary, rng, 0.1 / width**0.5)
        self.copy_gates = Linear(width, RECALLED, rng, 0.1)
        self.logits = CodeLogits(sizes, width, 0.0, rng)
        self.following = constant(0.0, sizes.places + 1, len(sizes.groups) + 1)

    def shifted(self, shift: Shift) -> TwoLevelEmission:
        """With the logits of codes shifted, and those of groups of them after so many."""
        emission: TwoLevelEmission = jax.tree.map(lambda part: part, self)
        emission.logits, emission.following = self.logits.shifted(shift), added(self.following, shift.following)
        return emission

    def __call__(self, body: Body, memory: Memory) -> TwoLevelHead:
        """The head of visits with a state and a memory."""
        level = _Levels(self, memory)
        precursors = self.logits.precursors

        def begin(visit: Visit) -> _Prefix:
            return level.begin(visit, body(visit))

        def blocks(prefix: _Prefix) -> Array:
            of_last = jnp.asarray(level.blocks.of_code)[prefix.last]
            return level.of_blocks(prefix, level.left(_alone(prefix), of_last)[..., 0])

        def after(prefix: _Prefix, code: Array) -> _Prefix:
            return prefix._replace(
                total=prefix.total + self.of_code[...][code],
                last=code,
                number=prefix.number + 1,
                known=jnp.maximum(prefix.known, precursors.gives(code)),
            )

        return TwoLevelHead(
            begin=begin,
            blocks=blocks,
            within=lambda prefix, block: level.within(_alone(prefix), block)[..., 0, :],
            code=lambda block, place: jnp.asarray(level.blocks.begin)[block] + place,
            after=after,
            score=lambda visit: self._score(visit, body(visit), memory, level),
            scored=level.blocks.number + 2 * level.blocks.width,
        )

    def _score(self, visit: Visit, body: Array, memory: Memory, level: _Levels) -> Callable[[At, Array], Array]:
        """Log-probabilities of codes at chosen places, given those at the places before."""
        once = jnp.where(base.is_distinct(visit.codes), visit.codes, 0)
        embeddings, precursors = self.of_code[...].at[0].set(0.0), self.logits.precursors
        begun = level.begin(visit, body)
        # From how many codes of the visit on each precursor is known.
        since = jnp.where(begun.known > 0, 0, self.sizes.places + 1)

        def add(carry: tuple[Array, Array, Array], codes: Array) -> tuple[tuple[Array, Array, Array], Array]:
            total, number, since = carry
            number = number + (codes > 0).astype(jnp.int32)
            given = jnp.where(precursors.gives(codes) > 0, number[..., None], self.sizes.places + 1)
            total = total + embeddings.at[codes].get(mode="promise_in_bounds")
            return (total, number, jnp.minimum(since, given)), total

        (_, _, since), after = jax.lax.scan(add, (body, begun.number, since), jnp.moveaxis(once, -1, 0))
        totals = jnp.concatenate([body[None], after])
        padded = jnp.concatenate([jnp.zeros_like(visit.codes[..., :1]), visit.codes], axis=-1)
        numbers = jnp.cumsum(jnp.pad(once > 0, [(0, 0)] * (once.ndim - 1) + [(1, 0)]), axis=-1, dtype=jnp.int32)
        of_code, window = (jnp.asarray(part) for part in (level.blocks.of_code, level.blocks.begin))

        def within(tiled: tuple[_Prefix, Array], block: Array) -> Array:
            prefix, codes = tiled
            place = jnp.clip(codes - window[block][:, None], 0, level.blocks.width - 1)
            return base.log_probability(level.within(prefix, block), place)

        def score(at: At, codes: Array) -> Array:
            *step, place = at
            number = numbers[at]
            prefix = jax.tree.map(lambda part: part[tuple(step)], begun._replace(known=since))
            known = (prefix.known <= number[..., None]).astype(jnp.float32)
            prefix = prefix._replace(total=totals[(place, *step)], last=padded[at], number=number, known=known)
            left = by_block(of_code[prefix.last], level.blocks.number, _bare(prefix), level.left)
            of_block = base.log_probability(level.of_blocks(prefix, left), of_code[codes])
            inputs = (prefix._replace(mass=prefix.last), codes)
            return of_block + by_block(of_code[codes], level.blocks.number, inputs, within)

        return score


def _alone(prefix: _Prefix) -> _Prefix:
    """Each prefix in a tile of its own."""
    alone: _Prefix = jax.tree.map(lambda part: jnp.expand_dims(part, prefix.last.ndim), prefix)
    return alone


def _bare(prefix: _Prefix) -> _Prefix:
    """A prefix without what `_Levels.left` does not read, which need not be sorted by block."""
    return prefix._replace(mass=prefix.last, total=prefix.last, known=prefix.last)


class _Levels:
    """The logits of both levels, and what they share for all visits.

    Functions of tiles take prefixes with axes (tiles, n) and the block (tiles,) of each tile.
    """

    def __init__(self, emission: TwoLevelEmission, memory: Memory) -> None:
        self.emission, self.blocks = emission, code_blocks(emission.sizes)
        size = emission.sizes.vocabulary
        self.remembered = [part.reshape(-1, size) for part in (memory.previous, memory.seen, memory.wanted)]
        # There may be no statics and no precursors: how many visits there are is not told by these.
        visits = len(self.remembered[0])
        self.statics = memory.statics.reshape(visits, emission.sizes.statics)
        known = emission.logits.precursors.known(memory.seen)
        self.known = known.reshape(visits, known.shape[-1])
        weight = self.blocks.masked() / (self.blocks.last - self.blocks.first)[:, None].astype(np.float32)
        self.vectors = jnp.einsum("dbw,bw->db", self.blocks.windows(emission.of_block[...]), weight)

    def begin(self, visit: Visit, body: Array) -> _Prefix:
        """The prefixes of visits (...) with a state (..., width), before their first codes."""
        nothing = jnp.zeros_like(visit.kind)
        gates = self.emission.copy_gates(jax.nn.silu(body))
        row = jnp.arange(nothing.size, dtype=jnp.int32).reshape(nothing.shape)
        age, gap, prospects = age_bin(visit.age), gap_class(visit.moment), prospect_features(visit.moment)
        mass = self._mass(visit.kind, age, gap, prospects, gates)
        return _Prefix(row, visit.kind, age, gap, prospects, gates, mass, body, nothing, nothing, self.known[row])

    def _mass(self, kind: Array, age: Array, gap: Array, prospects: Array, gates: Array) -> Array:
        """(..., blocks) logarithms of the masses of visits."""
        logits, windows, inside = self.emission.logits, self.blocks.windows, self.blocks.masked()
        of_kind = windows(logits.of_kind[...] + along(logits.bias[...], logits.of_kind[...]))
        usual = jnp.exp(of_kind) * inside[None]
        by_age, by_gap = windows(logits.first_by_age[...]), windows(logits.first_by_gap[...])
        of_gap = usual[:, None] * jnp.exp(by_gap)[None]
        fresh = jnp.einsum("kgbw,abw->kagb", of_gap, jnp.exp(by_age), precision=EXACT)[kind, age, gap]
        # What is new has neither been seen nor is wanted: how much of a block that is goes by the mean over all ages
        # and gaps.
        first = usual * jnp.exp(by_age.mean(0) + by_gap.mean(0))[None]
        of_previous, of_seen = jnp.exp(windows(logits.copy[...]))
        again = usual * of_seen[None]
        of_visit_before, of_all_before, of_coming = self.remembered
        # exp(softplus(x)) is 1 + exp(x): how many times as likely a code is that is to come.
        sooner = 1 + jnp.exp(-self._prospects(prospects.reshape(-1, prospects.shape[-1])))
        once_more, before = self._sums(of_visit_before, jnp.stack([again * of_previous[None], again]), kind)
        (seen,) = self._sums(of_all_before, again[None], kind)
        (known,) = self._sums(of_all_before + of_coming, first[None], kind)
        (wanted,) = self._sums(of_coming * sooner, first[None], kind)
        fresh = fresh * jnp.clip(1 - known / first.sum(-1)[kind], 0.0, 1.0)
        open_previous, open_seen, open_wanted = jnp.moveaxis(jnp.exp(gates)[..., None], -2, 0)
        # Codes of the visit before have been seen as well: they count once, with both weights.
        recurring = open_seen * (open_previous * once_more + jnp.maximum(seen - before, 0.0))
        return jnp.log(fresh + recurring + open_wanted * wanted + LEAST_MASS)

    def _prospects(self, features: Array) -> Array:
        """(..., V) log odds that codes are still to come."""
        return jnp.dot(features, QUICK * self.emission.logits.wanted[...], preferred_element_type=jnp.float32)

    def _sums(self, remembered: Array, weights: Array, kind: Array) -> Array:
        """(n, ..., blocks) sums over `remembered` codes (visits, V) of `weights` (n, kinds, blocks, width) for the kind
        (...) of visits.
        """
        sums = jnp.einsum("vbw,nkbw->nvbk", self.blocks.windows(remembered), weights, precision=EXACT)
        chosen = jnp.take_along_axis(sums, kind.reshape(1, -1, 1, 1), axis=-1)[..., 0]
        return chosen.reshape(len(weights), *kind.shape, -1)

    def of_blocks(self, prefix: _Prefix, left: Array) -> Array:
        """(..., blocks) logits of the next code's block; `left` (...) is the log mass left in that of the last one."""
        query = jax.nn.silu(self.emission.block_query(self._hidden(prefix)))
        logits = jnp.dot(query, self.vectors, preferred_element_type=jnp.float32)
        blocks = along(jnp.arange(self.blocks.number), logits)
        own = jnp.asarray(self.blocks.of_code)[prefix.last][..., None]
        logits = logits + jnp.where((blocks == own) & (blocks > 0), left[..., None], prefix.mass)
        logits = logits + self.emission.following[...][prefix.number][..., self.blocks.group]
        possible = (along(jnp.asarray(self.blocks.last) - 1, logits) > prefix.last[..., None]) | (blocks == 0)
        return jnp.where(possible, logits, IMPOSSIBLE)

    def within(self, prefix: _Prefix, block: Array) -> Array:
        """(tiles, n, width) logits of the next code if it is of the tile's block."""
        codes, logits = self.blocks.codes(block), self.emission.logits
        query = jax.nn.silu(self.emission.query(self._hidden(prefix)))
        vectors = jnp.moveaxis(logits.head[...][:, codes], 0, 1)
        matched = jnp.einsum("tnd,tdw->tnw", query, vectors, preferred_element_type=jnp.float32)
        recalled, seen = self._recalled(prefix, block, codes)
        led = logits.precursors.led(codes, prefix.known, self.known[prefix.row]) * (1 - seen)
        return self._possible(matched + recalled + led, prefix, block, codes)

    def left(self, prefix: _Prefix, block: Array) -> Array:
        """(tiles, n) log mass of the codes that can still come in the tile's block."""
        codes = self.blocks.codes(block)
        recalled, _ = self._recalled(prefix, block, codes)
        return jax.nn.logsumexp(self._possible(recalled, prefix, block, codes), axis=-1)

    def _hidden(self, prefix: _Prefix) -> Array:
        return jax.nn.silu(prefix.total + self.emission.of_last[...][prefix.last])

    def _possible(self, logits: Array, prefix: _Prefix, block: Array, codes: Array) -> Array:
        possible = (codes[:, None] > prefix.last[..., None]) | (codes == 0)[:, None]
        return jnp.where(possible & self.blocks.inside(block, codes)[:, None], logits, IMPOSSIBLE)

    def _recalled(self, prefix: _Prefix, block: Array, codes: Array) -> tuple[Array, Array]:
        """(tiles, n, width) what `CodeLogits.recalled` gives the `codes` (tiles, width), and which have been seen.

        Tables are taken up once a tile, and multiplied by which of their rows is meant.
        """
        logits, begin = self.emission.logits, jnp.asarray(self.blocks.begin)[block]
        previous, seen, wanted = (self._window(part, prefix.row, begin) for part in self.remembered)

        def rows(of: Array, index: Array) -> Array:
            chosen = jax.nn.one_hot(index, of.shape[0])
            return jnp.einsum("tnk,ktw->tnw", chosen, of[:, codes], precision=EXACT)

        first = rows(logits.first_by_age[...], prefix.age) + rows(logits.first_by_gap[...], prefix.gap)
        statics = self.statics[prefix.row]
        first = first + jnp.einsum("tns,stw->tnw", statics, logits.first_by_static[...][:, codes], precision=EXACT)
        total = rows(logits.of_kind[...], prefix.kind) + first * (1 - seen) + logits.bias[...][codes][:, None]
        coming = jnp.einsum("tnf,ftw->tnw", prefix.prospects, QUICK * logits.wanted[...][:, codes], precision=EXACT)
        weights = (*(weight[codes][:, None] for weight in logits.copy[...]), softplus(-coming))
        for index, remembered in enumerate((previous, seen, wanted)):
            total = total + remembered * (weights[index] + prefix.gates[..., index : index + 1])
        return total, seen

    def _window(self, remembered: Array, rows: Array, begin: Array) -> Array:
        """(tiles, n, width) windows of `rows` (tiles, n) of (N, V)."""

        def cut(row: Array, begin: Array) -> Array:
            return jax.lax.dynamic_slice(remembered, (row, begin), (1, self.blocks.width))[0]

        return jax.vmap(jax.vmap(cut, (0, None)))(rows, begin)

"""Two ways to emit the codes of a visit: as independent codes group by group, or one after the other.

*Set*: given the state, the codes of a group are independent Bernoullis; later groups are told the earlier codes. One
product a group draws all codes of a visit, but what goes together within a group must come through the visit's latent.

*Ordered*: the codes come in the order of the vocabulary (clinical groups, then from common to rare), each given all
before it, until there are no more. Any joint distribution can be had, for one product a code.

Both have a copy term: a learned weight on the codes of the visit before and on those of any visit before, because
chronic codes recur; and one on the codes that are still to come, if any are asked for. The first of a code is led to by
its precursors (`ehrsim.visits.precursors`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Moment, Sizes, Visit
from ehrsim.models import base
from ehrsim.models.base import Array, At, Memory, OrderedHead, SetHead
from ehrsim.models.layers import (
    PROSPECT_FEATURES,
    QUICK,
    Constant,
    Linear,
    added,
    along,
    constant,
    prospect_features,
    softplus,
    table,
)
from ehrsim.models.precursors import PrecursorTerm
from ehrsim.models.shift import AGE_BINS, GAP_CLASSES, Shift, age_bin, gap_class

RECALLED = 3
"""Sets of codes that are remembered: those of the visit before, those of any before, and those still to come."""

Body = Callable[[Visit], Array]
"""A visit's state given what is drawn of it before its codes: (..., width)."""


class CodeLogits(nnx.Module):
    """Logits of codes: a query against their own vectors, biases by kind, age, gap and statics, copies, precursors."""

    def __init__(
        self, sizes: Sizes, width: int, bias: float, rng: np.random.Generator, *, in_order: bool = True
    ) -> None:
        without = np.zeros(sizes.vocabulary, np.float32)
        np.maximum.at(without, [pair.code for pair in sizes.precursors], [pair.weight for pair in sizes.precursors])
        self.head = table(width, sizes.vocabulary, rng, 0.1 / width**0.5)
        self.precursors = PrecursorTerm(sizes, in_order=in_order)
        # What has a precursor is rare without it, and as usual with it or once it has come.
        self.bias = Constant(jnp.asarray(bias - without))
        self.of_kind = constant(0.0, sizes.kinds, sizes.vocabulary)
        self.first_by_age = constant(0.0, AGE_BINS, sizes.vocabulary)
        self.first_by_gap = constant(0.0, GAP_CLASSES, sizes.vocabulary)
        self.first_by_static = constant(0.0, sizes.statics, sizes.vocabulary)
        self.copy = Constant(jnp.asarray(np.stack([0 * without, without])))
        self.wanted = constant(0.0, PROSPECT_FEATURES, sizes.vocabulary)

    def shifted(self, shift: Shift) -> CodeLogits:
        """The logits with those of codes shifted."""
        logits: CodeLogits = jax.tree.map(lambda part: part, self)
        logits.first_by_age = added(self.first_by_age, shift.first)
        logits.first_by_gap = added(self.first_by_gap, shift.first_by_gap)
        logits.first_by_static = added(self.first_by_static, shift.first_by_static)
        logits.copy = added(self.copy, np.stack([0 * shift.again, shift.again]))
        logits.wanted = added(self.wanted, shift.wanted / QUICK)
        logits.precursors = self.precursors.shifted(shift.led, shift.led_at_once)
        return logits

    def matched(self, query: Array, part: slice) -> Array:
        """(..., codes of `part`) from `query` (..., width)."""
        return jnp.dot(query, self.head[...][:, part], preferred_element_type=jnp.float32)

    def recalled(self, gates: Array, kind: Array, moment: Moment, memory: Memory, part: slice) -> Array:
        """(..., codes of `part`) from the kind of visit, the moment and, through `gates` (..., RECALLED), what is
        remembered.
        """
        of_age, of_gap = (
            self.first_by_age[...][age_bin(moment.age), part],
            self.first_by_gap[...][gap_class(moment), part],
        )
        of_static = jnp.dot(memory.statics, self.first_by_static[...][:, part], preferred_element_type=jnp.float32)
        logits = self.of_kind[...][kind, part] + (of_age + of_gap + of_static) * (1 - memory.seen[..., part])
        logits = logits + along(self.bias[...][part], logits)
        logits = logits + self._sooner(moment, memory)[..., part] + self.precursors.before(memory.seen, part)
        for index, remembered in enumerate((memory.previous, memory.seen, memory.wanted)):
            logits = logits + remembered[..., part] * gates[..., index : index + 1]
        for weight, remembered in zip(self.copy[...], (memory.previous, memory.seen), strict=True):
            logits = logits + remembered[..., part] * along(weight[part], logits)
        return logits

    def _sooner(self, moment: Moment, memory: Memory) -> Array:
        """(..., V) how much sooner codes come for those that are certain to: see `ehrsim.prospects`.

        By Bayes' theorem, the hazard given that something will happen is the hazard times the chance of that after the
        event, over the chance before it. What is to come itself is certain after the event.
        """
        prospects = jnp.dot(prospect_features(moment), QUICK * self.wanted[...], preferred_element_type=jnp.float32)
        prospects = prospects + self.precursors.led_to(memory.seen, slice(None))
        itself = memory.wanted * softplus(-prospects)
        return itself + self.precursors.sooner(prospects, memory.wanted, memory.seen)


class SetEmission(nnx.Module):
    """Independent codes within a group."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.sizes = sizes
        self.of_code = table(sizes.vocabulary, width, rng)
        self.queries = nnx.List([Linear(width, width, rng) for _ in sizes.groups])
        self.copy_gates = nnx.List([Linear(width, RECALLED, rng, 0.1) for _ in sizes.groups])
        self.logits = CodeLogits(sizes, width, -4.0, rng)

    def shifted(self, shift: Shift) -> SetEmission:
        """With the logits of codes shifted."""
        emission: SetEmission = jax.tree.map(lambda part: part, self)
        emission.logits = self.logits.shifted(shift)
        return emission

    def __call__(self, body: Body, memory: Memory) -> SetHead:
        """The head of visits with a state and a memory."""
        return SetHead(lambda group, visit: self._logits(group, visit, body(visit), memory))

    def _logits(self, group: int, visit: Visit, body: Array, memory: Memory) -> Array:
        first, last = self.sizes.groups[group]
        earlier = jnp.where(visit.codes < first, visit.codes, 0)
        known = body + base.sum_embeddings(self.of_code[...].at[0].set(0.0), earlier) if group else body
        so_far = jnp.maximum(memory.seen, base.multi_hot(earlier, self.sizes.vocabulary)) if group else memory.seen
        query = jax.nn.silu(self.queries[group](jax.nn.silu(known)))
        gates, part = self.copy_gates[group](query), slice(first, last)
        logits = self.logits.matched(query, part) + self.logits.recalled(gates, visit.kind, visit.moment, memory, part)
        return logits + self.logits.precursors.within(memory.seen, so_far, part) if group else logits


class _Prefix(NamedTuple):
    """The codes of a visit so far."""

    total: Array
    """(B, width) state and sum of their embeddings"""
    last: Array
    """(B,) int32, 0 before the first"""
    number: Array
    """(B,) int32 how many they are"""
    recalled: Array
    """(B, V) what the logits have of what is remembered, and of precursors"""
    seen: Array
    """(B, V) 1 for codes of visits before"""
    classes: Array
    """(B, classes) 1 for classes of precursors of which a code is known"""


class OrderedEmission(nnx.Module):
    """Codes in ascending order, each given those before; index 0 stands for "no more"."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.sizes = sizes
        self.of_code = table(sizes.vocabulary, width, rng)
        self.of_last = table(sizes.vocabulary, width, rng)
        self.query = Linear(width, width, rng)
        self.copy_gates = Linear(width, RECALLED, rng, 0.1)
        self.logits = CodeLogits(sizes, width, 0.0, rng)
        self.following = constant(0.0, sizes.places + 1, len(sizes.groups) + 1)

    def shifted(self, shift: Shift) -> OrderedEmission:
        """With the logits of codes shifted, and those of groups of them after so many."""
        emission: OrderedEmission = jax.tree.map(lambda part: part, self)
        emission.logits, emission.following = self.logits.shifted(shift), added(self.following, shift.following)
        return emission

    def __call__(self, body: Body, memory: Memory) -> OrderedHead:
        """The head of visits with a state and a memory."""

        def begin(visit: Visit) -> _Prefix:
            state = body(visit)
            nothing = jnp.zeros_like(visit.kind)
            recalled = self._recalled(state, visit, memory)
            classes = self.logits.precursors.classes(memory.seen)
            return _Prefix(state, nothing, nothing, recalled, memory.seen, classes)

        def after(prefix: _Prefix, code: Array) -> _Prefix:
            total = prefix.total + self.of_code[...][code]
            led_to, classes = self.logits.precursors.after(prefix.seen, prefix.classes, code)
            return _Prefix(total, code, prefix.number + 1, prefix.recalled + led_to, seen=prefix.seen, classes=classes)

        def score(visit: Visit) -> Callable[[At, Array], Array]:
            logits = self._at(visit, body(visit), memory)
            return lambda at, codes: base.log_probability(logits(at), codes)

        return OrderedHead(begin, self._logits, after, score, scored=self.sizes.vocabulary)

    def _recalled(self, state: Array, visit: Visit, memory: Memory) -> Array:
        gates = self.copy_gates(jax.nn.silu(state))
        return self.logits.recalled(gates, visit.kind, visit.moment, memory, slice(None))

    def _logits(self, prefix: _Prefix) -> Array:
        query = jax.nn.silu(self.query(jax.nn.silu(prefix.total + self.of_last[...][prefix.last])))
        logits = self.logits.matched(query, slice(None)) + prefix.recalled
        following = self.following[...][prefix.number]
        sizes = (1, *(last - first for first, last in self.sizes.groups))
        shape = logits.shape[:-1]
        of_group = [jnp.broadcast_to(following[..., index, None], (*shape, size)) for index, size in enumerate(sizes)]
        logits = logits + jnp.concatenate(of_group, axis=-1)
        index = jnp.arange(self.sizes.vocabulary)
        possible = (along(index, logits) > prefix.last[..., None]) | along(index == 0, logits)
        return jnp.where(possible, logits, -jnp.inf)

    def _at(self, visit: Visit, body: Array, memory: Memory) -> Callable[[At], Array]:
        """Logits of the code at chosen places, given those at the places before."""
        once = jnp.where(base.is_distinct(visit.codes), visit.codes, 0)
        embeddings = self.of_code[...].at[0].set(0.0)

        def add(total: Array, codes: Array) -> tuple[Array, Array]:
            after = total + embeddings.at[codes].get(mode="promise_in_bounds")
            return after, after

        _, after = jax.lax.scan(add, body, jnp.moveaxis(once, -1, 0))
        totals = jnp.concatenate([body[None], after])
        padded = jnp.concatenate([jnp.zeros_like(visit.codes[..., :1]), visit.codes], axis=-1)
        number = jnp.cumsum(jnp.pad(once > 0, [(0, 0)] * (once.ndim - 1) + [(1, 0)]), axis=-1, dtype=jnp.int32)
        recalled = self._recalled(body, visit, memory)

        def logits(at: At) -> Array:
            *step, place = at
            seen, codes = memory.seen[tuple(step)], visit.codes[tuple(step)]
            earlier = jnp.where(along(jnp.arange(codes.shape[-1]), codes) < place[..., None], codes, 0)
            known = jnp.maximum(seen, base.multi_hot(earlier, self.sizes.vocabulary))
            of_past = recalled[tuple(step)] + self.logits.precursors.within(seen, known, slice(None))
            classes = self.logits.precursors.classes(known)
            return self._logits(_Prefix(totals[(place, *step)], padded[at], number[at], of_past, seen, classes))

        return logits

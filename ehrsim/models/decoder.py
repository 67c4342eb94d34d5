"""The visit decoder: the heads of one visit from a feature vector, part by part in clinical order."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Moment, Sizes, Visit
from ehrsim.models import base
from ehrsim.models.base import Array, Attributes, EventHeads, Heads, Measured, Memory
from ehrsim.models.emission import OrderedEmission, SetEmission
from ehrsim.models.layers import (
    AHEAD_FEATURES,
    MOMENT_FEATURES,
    QUICK,
    Dropout,
    Linear,
    added,
    ahead_features,
    along,
    constant,
    kept,
    moment_features,
    table,
)
from ehrsim.models.shift import AGE_BINS, STEP_BINS, Shift, age_bin, step_bin
from ehrsim.models.two_level import TwoLevelEmission
from ehrsim.models.value_head import ValueHead, centred

BRISK = 3.0
"""What codes do to values is learned so many times as fast as the rest, or the latents would tell it in training."""

NEVER = 20.0
"""What is taken from the logit of what cannot be."""


MOST_AT_ONCE = 5_000
"""Size of the largest vocabulary over which codes that come one after the other have one softmax, if not said
otherwise."""


def emission_for(vocabulary: int) -> Literal["ordered", "two-level"]:
    """How the codes of a visit come about where that is not said, by the size of the vocabulary."""
    return "ordered" if vocabulary <= MOST_AT_ONCE else "two-level"


def _emission(
    name: str | None, sizes: Sizes, width: int, rng: np.random.Generator
) -> OrderedEmission | TwoLevelEmission | SetEmission:
    match name or emission_for(sizes.vocabulary):
        case "ordered":
            return OrderedEmission(sizes, width, rng)
        case "two-level":
            return TwoLevelEmission(sizes, width, rng)
        case _:
            return SetEmission(sizes, width, rng)


class VisitDecoder(nnx.Module):
    """The heads: one visit from a feature vector, part by part, each part told the parts before it."""

    def __init__(
        self, sizes: Sizes, inputs: int, width: int, narrow: int, emission: str | None, rng: np.random.Generator
    ) -> None:
        self.sizes = sizes
        self.feature = Linear(inputs, width, rng)
        self.kind = Linear(width, sizes.kinds, rng, 0.1)
        self.kind_by_steps = constant(0.0, STEP_BINS, sizes.kinds)
        self.kind_by_age = constant(0.0, AGE_BINS, sizes.kinds)
        self.gap = Linear(width, sizes.gaps, rng, 0.1)
        self.gap_by_age = constant(0.0, AGE_BINS, sizes.gaps)
        self.ahead = Linear(width, AHEAD_FEATURES, rng, 0.1)
        self.clock = constant(0.0, sizes.kinds, sizes.clocks)
        self.same_clock = constant(0.0, 2, sizes.kinds)
        self.length = Linear(width, sizes.lengths, rng, 0.1)
        self.length_of_kind = constant(0.0, sizes.kinds, sizes.lengths)
        self.length_of_code = table(sizes.vocabulary, sizes.lengths, rng, 0.01)
        self.of_kind = table(sizes.kinds, width, rng)
        self.of_gap = table(sizes.gaps, width, rng)
        self.of_code = table(sizes.vocabulary, width, rng)
        self.moment = Linear(MOMENT_FEATURES, width, rng)
        self.body = Linear(width, width, rng)
        self.emission = _emission(emission, sizes, width, rng)
        self.attribute_state = Linear(width, narrow, rng)
        self.attribute_ever = table(sizes.vocabulary, narrow, rng, 0.1 / BRISK)
        self.attribute_now = table(sizes.vocabulary, narrow, rng, 0.1 / BRISK)
        self.attribute_code = table(sizes.vocabulary, narrow, rng)
        self.attribute_gain = nnx.Param(jnp.ones((sizes.vocabulary, narrow)))
        self.attribute_past = Linear(7, narrow, rng)
        self.attribute_out = Linear(narrow, sizes.offsets + sizes.durations, rng, 0.1)
        self.attribute_bias = constant(0.0, sizes.vocabulary, sizes.offsets + sizes.durations)
        self.value = ValueHead(sizes, narrow, rng)
        self.repeat_out = Linear(narrow, 1, rng, 0.1)
        self.repeat_bias = constant(0.0, sizes.vocabulary)

    def __call__(self, inputs: Array, before: Moment, memory: Memory, drop: Dropout = kept) -> Heads:
        """Heads from (..., inputs), the moment (...) of the step before, and what is remembered."""
        feature = drop(jax.nn.silu(self.feature(inputs)))
        # The step before is in the record if there is one.
        steps = before.steps + jnp.where(memory.clock < self.sizes.clocks, 1.0, 0.0)

        def timed(visit: Visit) -> Array:
            return jax.nn.silu(feature + self.of_kind[...][visit.kind])

        def body(visit: Visit) -> Array:
            placed = feature + self.of_kind[...][visit.kind] + self.of_gap[...][visit.gap]
            return self.body(jax.nn.silu(placed + self.moment(moment_features(visit.moment))))

        by_age = age_bin(before.age)
        return Heads(
            kind=lambda: self._kind(feature, step_bin(steps), by_age, memory.wanted.max(-1)),
            gap=lambda visit: self._gap(timed(visit), before.year) + self.gap_by_age[...][by_age],
            clock=lambda visit: self._clock(visit.kind, memory),
            codes=self.emission(body, memory),
            events=lambda visit: self._events(visit, body(visit), memory.seen),
        )

    def shifted(self, shift: Shift) -> VisitDecoder:
        """The decoder with its logits shifted."""
        decoder: VisitDecoder = jax.tree.map(lambda part: part, self)
        decoder.kind_by_steps = added(self.kind_by_steps, shift.kind)
        decoder.kind_by_age = added(self.kind_by_age, shift.kind_by_age)
        decoder.gap_by_age = added(self.gap_by_age, shift.gap)
        decoder.length_of_kind = added(self.length_of_kind, shift.length / QUICK)
        decoder.emission = self.emission.shifted(shift)
        decoder.value = self.value.shifted(shift)
        return decoder

    def _kind(self, feature: Array, by_steps: Array, by_age: Array, pending: Array) -> Array:
        """A record does not end while codes that are to come are `pending` (...)."""
        ends = along(jnp.arange(self.sizes.kinds) >= self.sizes.death, feature).astype(jnp.float32)
        logits = self.kind(feature) - NEVER * pending[..., None] * ends
        return logits + self.kind_by_steps[...][by_steps] + self.kind_by_age[...][by_age]

    def _gap(self, hidden: Array, year: Array) -> Array:
        """Long gaps are told by where in the calendar they end, and how far ahead that is counts as well."""
        logits = self.gap(hidden)
        landings = jnp.array(self.sizes.landings, jnp.float32)
        far = ahead_features(along(landings, logits) - year[..., None])
        long = jnp.einsum("...lf,...f->...l", far, self.ahead(hidden))
        short = jnp.zeros((*year.shape, logits.shape[-1] - len(landings)))
        return logits + jnp.concatenate([short, long], axis=-1)

    def _clock(self, kind: Array, memory: Memory) -> Array:
        """By the kind of visit, like the one before, and like the first one.

        Clocks that went by the state would be learned by heart.
        """
        logits = self.clock[...][kind]
        for same, clock in zip(self.same_clock[...], (memory.clock, memory.first_clock), strict=True):
            logits = logits + same[kind][..., None] * jax.nn.one_hot(clock, self.sizes.clocks)
        return QUICK * logits

    def _hidden(self, state: Array, measured: Measured) -> Array:
        """(..., attribute_width) of the visit's `state` (..., attribute_width), a code, and its values before."""
        never = measured.last_rank < 0
        last, mean, weight = centred(measured)
        recent = jnp.where(never, 0.0, jnp.exp(-measured.last_age))
        parts = [never.astype(jnp.float32), last, recent, last * recent, mean, mean * weight, weight]
        past = self.attribute_past(jnp.stack(parts, axis=-1))
        # Each code heeds other parts of the state: growth goes by age, a pressure by the diagnoses.
        heeded = (state + past) * self.attribute_gain[...][measured.code]
        return jax.nn.silu(heeded + self.attribute_code[...][measured.code])

    def _events(self, visit: Visit, body: Array, seen: Array) -> EventHeads:
        whole = jax.nn.silu(body + base.sum_embeddings(self.of_code[...].at[0].set(0.0), visit.codes))
        # What codes do to values and to the length of a stay is too sharp to come through the state. A diagnosis does
        # at once what it does from then on: the visits that make it are few to learn from.
        new = 1 - jnp.take_along_axis(seen, visit.codes, axis=-1)
        ever, now = self.attribute_ever[...].at[0].set(0.0), self.attribute_now[...].at[0].set(0.0)
        known = jnp.dot(seen, ever, preferred_element_type=jnp.float32)
        known = known + base.sum_embeddings(ever, visit.codes, new) + base.sum_embeddings(now, visit.codes)
        stay = base.sum_embeddings(self.length_of_code[...].at[0].set(0.0), visit.codes)
        stay = QUICK * (self.length_of_kind[...][visit.kind] + stay)

        def repeat(state: Array, measured: Measured) -> Array:
            return self.repeat_out(self._hidden(state, measured))[..., 0] + self.repeat_bias[...][measured.code]

        def attributes(state: Array, measured: Measured) -> Attributes:
            out = self.attribute_out(self._hidden(state, measured)) + self.attribute_bias[...][measured.code]
            return Attributes(out[..., : self.sizes.offsets], out[..., self.sizes.offsets :])

        return EventHeads(
            state=self.attribute_state(whole) + BRISK * known,
            repeat=repeat,
            attributes=attributes,
            value=lambda state, measured: self.value(state, self._hidden(state, measured), measured),
            after=self.value.after,
            length=lambda: self.length(whole) + stay,
        )

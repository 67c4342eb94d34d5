"""The visit decoder: the heads of one visit from a feature vector, part by part in clinical order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Sizes, Visit
from ehrsim.models import base
from ehrsim.models.base import Array, Attributes, EventHeads, Heads, Measured, Memory
from ehrsim.models.emission import OrderedEmission, SetEmission
from ehrsim.models.layers import (
    AGE_FEATURES,
    AHEAD_FEATURES,
    Dropout,
    Linear,
    age_features,
    ahead_features,
    along,
    constant,
    kept,
    table,
)


def _emission(name: str, sizes: Sizes, width: int, rng: np.random.Generator) -> OrderedEmission | SetEmission:
    if name == "ordered":
        return OrderedEmission(sizes, width, rng)
    return SetEmission(sizes, width, rng)


class VisitDecoder(nnx.Module):
    """The heads: one visit from a feature vector, part by part, each part told the parts before it."""

    def __init__(
        self, sizes: Sizes, inputs: int, width: int, narrow: int, emission: str, rng: np.random.Generator
    ) -> None:
        self.sizes = sizes
        self.feature = Linear(inputs, width, rng)
        self.kind = Linear(width, sizes.kinds, rng, 0.1)
        self.gap = Linear(width, sizes.gaps, rng, 0.1)
        self.ahead = Linear(width, AHEAD_FEATURES, rng, 0.1)
        self.clock = Linear(width, sizes.clocks, rng, 0.1)
        self.length = Linear(width, sizes.lengths, rng, 0.1)
        self.of_kind = table(sizes.kinds, width, rng)
        self.of_gap = table(sizes.gaps, width, rng)
        self.of_code = table(sizes.vocabulary, width, rng)
        self.age = Linear(AGE_FEATURES, width, rng)
        self.body = Linear(width, width, rng)
        self.emission = _emission(emission, sizes, width, rng)
        self.attribute_state = Linear(width, narrow, rng)
        self.attribute_code = table(sizes.vocabulary, narrow, rng)
        self.attribute_last = Linear(4, narrow, rng)
        self.attribute_out = Linear(narrow, sizes.offsets + sizes.durations, rng, 0.1)
        self.attribute_bias = constant(0.0, sizes.vocabulary, sizes.offsets + sizes.durations)
        self.value_out = Linear(narrow, sizes.values + 2, rng, 0.5)
        self.same = constant(-2.0, sizes.vocabulary)
        self.of_value = table(sizes.vocabulary, narrow, rng, 0.3)
        self.repeat_out = Linear(narrow, 1, rng, 0.1)
        self.repeat_bias = constant(0.0, sizes.vocabulary)
        self.constancy = constant(0.3, sizes.vocabulary)
        self.forecast = table(sizes.vocabulary, narrow, rng, 0.1)
        self.forecast_bias = constant(0.0, sizes.vocabulary)
        self.certainty = constant(0.0, sizes.vocabulary)

    def __call__(self, inputs: Array, year: Array, memory: Memory, drop: Dropout = kept) -> Heads:
        """Heads from (..., inputs), the (...) `year` of the step before, and what is remembered."""
        feature = drop(jax.nn.silu(self.feature(inputs)))

        def timed(visit: Visit) -> Array:
            return jax.nn.silu(feature + self.of_kind[...][visit.kind])

        def body(visit: Visit) -> Array:
            placed = feature + self.of_kind[...][visit.kind] + self.of_gap[...][visit.gap]
            return self.body(jax.nn.silu(placed + self.age(age_features(visit.age, visit.year))))

        return Heads(
            kind=lambda: self.kind(feature),
            gap=lambda visit: self._gap(timed(visit), year),
            clock=lambda visit: self.clock(
                jax.nn.silu(feature + self.of_kind[...][visit.kind] + self.of_gap[...][visit.gap])
            ),
            codes=self.emission(body, memory),
            events=lambda visit: self._events(self._whole(visit, body(visit))),
        )

    def _gap(self, hidden: Array, year: Array) -> Array:
        """Long gaps are told by where in the calendar they end, and how far ahead that is counts as well."""
        logits = self.gap(hidden)
        landings = jnp.array(self.sizes.landings, jnp.float32)
        far = ahead_features(along(landings, logits) - year[..., None])
        long = jnp.einsum("...lf,...f->...l", far, self.ahead(hidden))
        short = jnp.zeros((*year.shape, logits.shape[-1] - len(landings)))
        return logits + jnp.concatenate([short, long], axis=-1)

    def _whole(self, visit: Visit, body: Array) -> Array:
        """(..., width) of the visit with all of its codes."""
        return jax.nn.silu(body + base.sum_embeddings(self.of_code[...].at[0].set(0.0), visit.codes))

    def _hidden(self, state: Array, measured: Measured) -> Array:
        """(..., attribute_width) of the visit's `state` (..., attribute_width), a code, and its last value."""
        never = measured.last_rank < 0
        rank = jnp.where(never, 0.0, 2 * measured.last_rank - 1)
        recent = jnp.where(never, 0.0, jnp.exp(-measured.last_age))
        last = jnp.stack([never.astype(jnp.float32), rank, recent, rank * recent], axis=-1)
        return jax.nn.silu(state + self.attribute_code[...][measured.code] + self.attribute_last(last))

    def _events(self, whole: Array) -> EventHeads:
        def repeat(state: Array, measured: Measured) -> Array:
            return self.repeat_out(self._hidden(state, measured))[..., 0] + self.repeat_bias[...][measured.code]

        def attributes(state: Array, measured: Measured) -> Attributes:
            out = self.attribute_out(self._hidden(state, measured)) + self.attribute_bias[...][measured.code]
            return Attributes(out[..., : self.sizes.offsets], out[..., self.sizes.offsets :])

        return EventHeads(
            state=self.attribute_state(whole),
            repeat=repeat,
            attributes=attributes,
            value=self._value,
            after=lambda state, code, rank: state + self.of_value[...][code] * (2 * rank - 1)[..., None],
            length=lambda: self.length(whole),
        )

    def _value(self, state: Array, measured: Measured) -> Array:
        """(..., values): a free distribution, times two that fall off with the distance from a likely value.

        One such value is the last one, the other is forecast from the visit and the values before.
        """
        code, last_rank = measured.code, measured.last_rank
        out = self.value_out(self._hidden(state, measured))
        none, bins, same, constancy, certainty = jnp.split(out, np.cumsum([1, self.sizes.value_bins, 1, 1]), axis=-1)
        forecast = jax.nn.sigmoid((self.forecast[...][code] * state).sum(-1) + self.forecast_bias[...][code])
        # Ten times: some values hardly ever change, and a parameter is slow to become as large.
        near_last = base.softplus(10 * self.constancy[...][code][..., None] + constancy)
        near_forecast = base.softplus(10 * self.certainty[...][code][..., None] + certainty)
        middle = along(jnp.asarray((np.arange(bins.shape[-1]) + 0.5) / bins.shape[-1], jnp.float32), bins)
        bins = bins - near_forecast * jnp.abs(middle - forecast[..., None])
        bins = bins - jnp.where((last_rank < 0)[..., None], 0.0, near_last * jnp.abs(middle - last_rank[..., None]))
        logits = jnp.concatenate([none, bins, same + self.same[...][code][..., None]], axis=-1)
        return base.same_if_any(logits, last_rank)

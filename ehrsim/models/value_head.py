"""The head of values: what is likely given the visit, the values before in it, and those of earlier visits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Sizes
from ehrsim.models import values
from ehrsim.models.base import Array, Measured
from ehrsim.models.layers import QUICK, Linear, added, constant, softplus, table
from ehrsim.models.shift import Shift


class ValueHead(nnx.Module):
    """Logits of the ways to tell a value (see `ehrsim.models.values`), and the state that goes on to the next value."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.sizes, self.bins = sizes, sizes.value_bins
        self.out = Linear(width, sizes.values + 2, rng, 0.5)
        self.bias = constant(0.0, sizes.vocabulary, sizes.values)
        self.of_rank = constant(0.0, 2, sizes.vocabulary, sizes.value_bins)
        # Ranks to begin with: by change a value is found as well that does not go by the last one, but not as sharply.
        self.anew = constant(0.2, sizes.vocabulary)
        self.forecast = table(sizes.vocabulary, width, rng, 0.1)
        self.forecast_bias = constant(0.0, sizes.vocabulary)
        self.forecast_past = constant(1.0, sizes.vocabulary, 2)
        self.certainty = constant(0.0, sizes.vocabulary, 2)
        self.of_value = table(sizes.vocabulary, width, rng, 0.3)
        self.of_change = table(sizes.vocabulary, width, rng, 0.3)

    def __call__(self, state: Array, hidden: Array, measured: Measured) -> Array:
        """(..., values): free logits by code and by the rank they lead to, which fall off with the distance from a
        forecast.

        The forecast is made from the `state` (..., width) of the visit with the values before in it, and from the
        code's values in earlier visits: the last alone would let a patient's values wander off. Its distance counts
        plain and squared, since some values scatter widely but never far.
        """
        code = measured.code
        out = self.out(hidden)
        logits, certainty = out[..., :-2] + self.bias[...][code], out[..., -2:]
        # Quick: some values follow from others, or never jump.
        near = softplus(QUICK * self.certainty[...][code] + certainty)
        anew = jnp.where(measured.last_rank < 0, 0.0, QUICK * self.anew[...][code])
        none, ranks, same, changes = jnp.split(logits, [1, self.bins + 1, self.bins + 2], axis=-1)
        centres = values.centres(measured.last_rank, self.bins)
        distance = jnp.abs(centres - self._forecast(state, measured)[..., None])
        far = near[..., :1] * distance + near[..., 1:] * distance * distance
        ranks, changes = ranks + anew[..., None] - far[..., : self.bins], changes - far[..., self.bins :]
        of_rank = self.of_rank[...][(measured.last_rank >= 0).astype(jnp.int32), code]
        ranks = ranks + of_rank
        led_to = jnp.concatenate([measured.last_rank[..., None], centres[..., self.bins :]], axis=-1)
        led_to = jnp.clip((led_to * self.bins).astype(jnp.int32), 0, self.bins - 1)
        same_or_changed = jnp.concatenate([same, changes], axis=-1) + jnp.take_along_axis(of_rank, led_to, axis=-1)
        logits = jnp.concatenate([none, ranks, same_or_changed], axis=-1)
        return values.possible(logits, measured.last_rank, values.tie_of(self.sizes, code, measured.last_rank))

    def shifted(self, shift: Shift) -> ValueHead:
        """The head with its logits shifted."""
        head: ValueHead = jax.tree.map(lambda part: part, self)
        head.of_rank = added(self.of_rank, np.stack([shift.first_value, shift.later_value]))
        return head

    def _forecast(self, state: Array, measured: Measured) -> Array:
        """(...) a rank."""
        code = measured.code
        last, mean, weight = centred(measured)
        of_past = self.forecast_past[...][code]
        told = (self.forecast[...][code] * state).sum(-1) + self.forecast_bias[...][code]
        return jax.nn.sigmoid(told + of_past[..., 0] * last + of_past[..., 1] * mean * weight)

    def after(self, state: Array, code: Array, rank: Array, last_rank: Array) -> Array:
        """The state told a value, and how it has changed: the root makes small changes count."""
        change = jnp.where(last_rank < 0, 0.0, rank - last_rank)
        change = jnp.sign(change) * jnp.sqrt(jnp.abs(change) + 1e-6)
        told = self.of_value[...][code] * (2 * rank - 1)[..., None]
        return state + told + self.of_change[...][code] * change[..., None]


def centred(measured: Measured) -> tuple[Array, Array, Array]:
    """Last and mean rank from -1 to 1, 0 without any, and the weight of the mean, which is 1 for many values."""
    last = jnp.where(measured.last_rank < 0, 0.0, 2 * measured.last_rank - 1)
    mean = jnp.where(measured.measurements > 0, 2 * measured.mean_rank - 1, 0.0)
    return last, mean, measured.measurements / (1 + measured.measurements)

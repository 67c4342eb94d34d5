"""Visits, and what is known of a patient beforehand, as vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import NO_CODES, Context, Sizes, Visit
from ehrsim.models import base
from ehrsim.models.base import Array
from ehrsim.models.layers import (
    AGE_FEATURES,
    MOMENT_FEATURES,
    Linear,
    age_features,
    moment_features,
    normalise,
    table,
)


class VisitEmbedding(nnx.Module):
    """A visit as a vector: codes, their values, kind, gap, length, moment."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.codes = table(sizes.vocabulary, width, rng)
        self.values = table(sizes.vocabulary, width, rng)
        self.kinds = table(sizes.kinds, width, rng)
        self.gaps = table(sizes.gaps, width, rng)
        self.lengths = table(sizes.lengths, width, rng)
        self.moment = Linear(MOMENT_FEATURES, width, rng)

    def __call__(self, visit: Visit) -> Array:
        """(...) -> (..., width)."""
        centred = jnp.where(visit.value > 0, 2 * visit.rank - 1, 0.0)
        total = base.sum_embeddings(self.codes[...].at[0].set(0.0), visit.codes)
        total = total + base.sum_embeddings(self.values[...], visit.codes, centred)
        return self._whole(total + self.kinds[...][visit.kind], visit)

    def soft(self, codes: Array, kinds: Array, visit: Visit) -> Array:
        """(..., width) of a visit whose `codes` (..., V) and `kinds` (..., kinds) are given as weights."""
        total = jnp.dot(codes, self.codes[...].at[0].set(0.0), preferred_element_type=jnp.float32)
        return self._whole(total + jnp.dot(kinds, self.kinds[...], preferred_element_type=jnp.float32), visit)

    def _whole(self, content: Array, visit: Visit) -> Array:
        total = content + self.gaps[...][visit.gap] + self.lengths[...][visit.length]
        return normalise(total + self.moment(moment_features(visit.moment)))


class ContextEmbedding(nnx.Module):
    """What is known beforehand as a vector; anything not given adds nothing."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.statics = table(sizes.statics, width, rng)
        self.outcome = table(3, width, rng)
        self.codes = table(sizes.vocabulary, width, rng)
        self.ages = Linear(2 * AGE_FEATURES, width, rng)

    def __call__(self, context: Context) -> Array:
        """(N,) -> (N, width)."""
        total = base.sum_embeddings(self.statics[...].at[0].set(0.0), context.statics)
        total = total + self.outcome[...].at[0].set(0.0)[context.outcome]
        codes = self.codes[...]
        total = total + base.sum_embeddings(codes.at[0].set(0.0), jnp.maximum(context.codes, 0))
        total = total + jnp.where(context.codes[:, :1] == NO_CODES, codes[:1], 0.0)
        known = ~jnp.isnan(context.ages[:, 0])
        ages = jnp.where(known[:, None], context.ages, 0.0)
        low, high = (age_features(ages[:, side], jnp.zeros_like(ages[:, side])) for side in (0, 1))
        return total + jnp.where(known[:, None], self.ages(jnp.concatenate([low, high], axis=-1)), 0.0)


def hide(context: Context, key: Array, conditioned: float) -> Context:
    """The context as shown in training: to a share `conditioned` of the patients more than their statics.

    That is the outcome, codes and between which ages the record ends, each to half of them; most patients are drawn
    without. Whether codes are asked about does not depend on what the patient has, and having none is told apart from
    not being asked: else the mere absence of codes in the context would speak for short records. The ages lie anywhere
    around the true one, from one year to a life apart.
    """
    keys = jax.random.split(key, 7)
    patients, places = context.codes.shape
    more = jax.random.uniform(keys[0], (patients,)) < conditioned

    def shown(part: int) -> Array:
        return more & (jax.random.uniform(keys[part], (patients,)) < 0.5)

    asked = shown(1)
    number = jax.random.randint(keys[2], (patients, 1), 1, places + 1)
    codes = jnp.where(asked[:, None] & (jnp.arange(places)[None] < number), context.codes, 0)
    none = jnp.where(asked & (context.codes[:, 0] == 0), NO_CODES, codes[:, 0])
    return Context(
        statics=context.statics,
        outcome=jnp.where(shown(3), context.outcome, 0),
        codes=codes.at[:, 0].set(none),
        ages=jnp.where(shown(4)[:, None], _around(context.ages, keys[5], keys[6]), jnp.nan),
    )


OLDEST = 120.0
"""Years; a range of ages without an end goes up to here."""


def _around(ages: Array, width_key: Array, place_key: Array) -> Array:
    """(N, 2) ranges from 1 to OLDEST years wide that hold `ages` (N, 2), both the same, somewhere in them."""
    width = jnp.exp(jax.random.uniform(width_key, ages[:, 0].shape) * jnp.log(OLDEST))
    low = ages[:, 0] - width * jax.random.uniform(place_key, width.shape)
    return jnp.stack([jnp.maximum(low, 0.0), jnp.minimum(low + width, OLDEST)], axis=-1)

"""The Markov baseline: the next visit depends on the kind of the last one, the age, and which codes came before.

A visit-level bigram, the smallest complete `PatientModel`: copy it to begin another one. Every result is shown beside
it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx

from ehrsim.batch import Batch, Context, Moment, Sizes, Visit
from ehrsim.models import base, packed, values
from ehrsim.models.base import Array, Attributes, EventHeads, Heads, Measured, Memory, Noise, Origin, SetHead
from ehrsim.models.layers import along, table
from ehrsim.models.shift import Shift

AGE_BANDS = (1.0, 5.0, 12.0, 18.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0)


class MarkovConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The baseline has nothing to set."""


class Markov(nnx.Module):
    """Tables of logits by previous kind, kind, age band and code."""

    def __init__(self, sizes: Sizes, config: MarkovConfig, rng: np.random.Generator) -> None:
        self.sizes, self.config = sizes, config
        self.kind_table = table(sizes.kinds + 1, sizes.kinds, rng)
        self.gap_table = table((sizes.kinds + 1) * sizes.kinds, sizes.gaps, rng)
        self.clock_table = table(sizes.kinds, sizes.clocks, rng)
        self.length_table = table(sizes.kinds, sizes.lengths, rng)
        self.kind_codes = table(sizes.kinds, sizes.vocabulary, rng)
        self.age_codes = table(len(AGE_BANDS) + 1, sizes.vocabulary, rng)
        self.static_codes = table(sizes.statics, sizes.vocabulary, rng)
        self.copy = table(2, sizes.vocabulary, rng)
        self.repeat = table(sizes.vocabulary, 1, rng)
        self.offset = table(sizes.vocabulary, sizes.offsets, rng)
        self.value = table(sizes.vocabulary, sizes.values, rng)
        self.last_value = table(sizes.values, sizes.values, rng)
        self.duration = table(sizes.vocabulary, sizes.durations, rng)
        self.birth = table(1, sizes.origins, rng)
        self.first_gap = table(sizes.origins, sizes.first_gaps, rng)

    def loss(self, batch: Batch, key: Array, progress: Array) -> tuple[Array, dict[str, Array]]:
        """Negative log-likelihood per step."""
        mean = -self.log_likelihood(batch, key).sum() / batch.used.sum(dtype=jnp.float32)
        return mean, {"loss": mean}

    def log_likelihood(self, batch: Batch, key: Array) -> Array:
        """(N,) exact log-likelihoods."""
        start_kind = self.sizes.kinds
        shifted = jnp.pad(batch.visit.kind, ((0, 0), (1, 0)), constant_values=start_kind)[:, :-1]
        previous = jnp.where(batch.start, start_kind, shifted)
        statics = batch.context.statics[batch.patient]
        heads = self._heads(previous, statics, packed.recall(batch, self.sizes))
        steps = jnp.stack(list(base.visit_log_probability(heads, batch, self.sizes).values())).sum(0)
        return packed.per_patient(steps, batch) + base.origin_log_probability(self.origin(batch.context), batch)

    def calibrated(self) -> Any:
        """Nothing."""
        return jax.tree.map(lambda _: False, self)

    def shifted(self, shift: Shift) -> Markov:
        """Itself: a baseline is not raked."""
        return self

    @property
    def noise(self) -> Noise:
        """None: nothing is latent."""
        return Noise()

    def origin(self, context: Context) -> Origin:
        """The same for all."""
        rows = jnp.zeros(context.statics.shape[0], jnp.int32)
        return Origin(self.birth[...][rows], lambda origin: self.first_gap[...][origin])

    def start(self, noise: Array, context: Context, beginning: Moment) -> tuple[Array, Array]:
        """The state is the kind of the previous visit and the patient's statics."""
        return jnp.full(context.statics.shape[0], self.sizes.kinds), context.statics

    def step(
        self, noise: Array, state: tuple[Array, Array], previous: Visit, first: Array, memory: Memory
    ) -> tuple[tuple[Array, Array], Heads]:
        """Remember the kind of the previous visit."""
        kind = jnp.where(first, self.sizes.kinds, previous.kind)
        return (kind, state[1]), self._heads(kind, state[1], memory)

    def resume(self, noise: Array, batch: Batch) -> tuple[Array, Array]:
        """Nothing is carried along but the statics."""
        shape = (noise.shape[0], *batch.context.statics.shape)
        statics = jnp.broadcast_to(batch.context.statics, shape)
        return jnp.full(shape[:2], self.sizes.kinds), statics

    def _heads(self, previous: Array, statics: Array, memory: Memory) -> Heads:
        """Heads for leading axes of any shape: `previous` (...), `statics` (..., S)."""
        sizes = self.sizes
        static_logits = base.sum_embeddings(self.static_codes[...].at[0].set(0.0), statics)

        def codes(group: int, visit: Visit) -> Array:
            first, last = sizes.groups[group]
            band = jnp.searchsorted(jnp.array(AGE_BANDS), visit.age, side="right")
            logits = self.kind_codes[...][visit.kind, first:last] + self.age_codes[...][band, first:last]
            previous, seen = memory.previous[..., first:last], memory.seen[..., first:last]
            copied = previous * along(self.copy[...][0, first:last], previous)
            copied = copied + seen * along(self.copy[...][1, first:last], seen)
            return logits + static_logits[..., first:last] + copied

        def value(_: Any, measured: Measured) -> Array:
            last_rank = measured.last_rank
            last_bin = jnp.where(last_rank < 0, 0, 1 + (last_rank * sizes.value_bins).astype(jnp.int32))
            logits = self.value[...][measured.code] + self.last_value[...][last_bin]
            return values.possible(logits, last_rank, values.tie_of(sizes, measured.code, last_rank))

        def events(visit: Visit) -> EventHeads:
            return EventHeads(
                state=(),
                repeat=lambda _, measured: self.repeat[...][measured.code, 0],
                attributes=lambda _, measured: Attributes(
                    self.offset[...][measured.code], self.duration[...][measured.code]
                ),
                value=value,
                after=lambda state, *value: state,
                length=lambda: self.length_table[...][visit.kind],
            )

        return Heads(
            kind=lambda: self.kind_table[...][previous],
            gap=lambda visit: self.gap_table[...][previous * sizes.kinds + visit.kind],
            clock=lambda visit: self.clock_table[...][visit.kind],
            codes=SetHead(codes),
            events=events,
        )

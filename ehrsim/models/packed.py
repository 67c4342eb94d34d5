"""Packed batches as models see them: what belongs to a patient, and what came before a step."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ehrsim.batch import Batch, Context, Moment, Sizes
from ehrsim.models.base import Array, At, Memory, multi_hot


def recall(batch: Batch, sizes: Sizes) -> Memory:
    """The memory before every step of a batch, leading axes (R, T)."""
    hot = multi_hot(batch.visit.codes, sizes.vocabulary)
    fresh = batch.start[..., None]

    def body(seen: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        codes, start = step
        before = jnp.where(start, 0.0, seen)
        return jnp.maximum(before, codes), before

    by_time = (jnp.moveaxis(hot, 1, 0), jnp.moveaxis(fresh, 1, 0))
    _, seen = jax.lax.scan(body, jnp.zeros_like(hot[:, 0]), by_time)
    seen = jnp.moveaxis(seen, 0, 1)
    return Memory(
        previous=jnp.where(fresh, 0.0, _before(hot)),
        seen=seen,
        wanted=(1 - seen) * to_have(batch.context, sizes)[batch.patient],
        clock=jnp.where(batch.start, sizes.clocks, _before(batch.visit.clock)),
        first_clock=jnp.where(batch.start, sizes.clocks, _at_first(batch, batch.visit.clock)[batch.patient]),
        statics=multi_hot(batch.context.statics, sizes.statics)[batch.patient],
    )


def to_have(context: Context, sizes: Sizes) -> Array:
    """(N, V) float32, 1 for codes that the patients have at some time, so far as their context tells."""
    return multi_hot(jnp.maximum(context.codes, 0), sizes.vocabulary)


def beginning(batch: Batch) -> Moment:
    """The moments (N,) of the first steps."""
    return Moment(*(_at_first(batch, time) for time in batch.visit.moment))


def _at_first(batch: Batch, steps: Array) -> Array:
    """(N,) of (R, T) what stands at the first step of each patient."""
    patients = batch.real.shape[0]
    index = jnp.where(batch.start, batch.patient, patients).reshape(-1)
    return jnp.zeros(patients, steps.dtype).at[index].set(steps.reshape(-1), mode="drop")


def last_visits(batch: Batch) -> At:
    """Row and step (N,) of the last step of each patient before the end of the record; the first for a patient without.

    Of padding patients 0, 0.
    """
    rows, steps = batch.used.shape
    place = jnp.arange(rows * steps).reshape(rows, steps)
    inner = batch.used & (batch.start | ~ends(batch))
    found = jax.ops.segment_max(
        jnp.where(inner, place, 0).reshape(-1), batch.patient.reshape(-1), num_segments=batch.real.shape[0]
    )
    return tuple(jnp.divmod(jnp.where(batch.real, found, 0), steps))


def ends(batch: Batch) -> Array:
    """(R, T) bool: the last step of a patient, or padding; a scan in reverse begins anew there."""
    following = jnp.concatenate([batch.start[:, 1:], jnp.ones_like(batch.start[:, :1])], axis=1)
    used_after = jnp.concatenate([batch.used[:, 1:], jnp.zeros_like(batch.used[:, :1])], axis=1)
    return following | ~used_after


def patient_noise(key: Array, batch: Batch, size: int) -> Array:
    """(N, size) standard normal numbers that depend on the key and the patient, not on the place in the batch."""
    return jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (size,)))(batch.number)


def step_noise(key: Array, batch: Batch, size: int) -> Array:
    """(R, T, size) standard normal numbers that depend on the key, the patient and the number of the step."""
    column = jnp.broadcast_to(jnp.arange(batch.start.shape[1])[None], batch.start.shape)
    first = jax.lax.cummax(jnp.where(batch.start, column, 0), axis=1)

    def draw(number: Array, step: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, number), step), (size,))

    return jax.vmap(jax.vmap(draw))(batch.number[batch.patient], column - first)


def per_patient(steps: Array, batch: Batch) -> Array:
    """(N,) sums of a (R, T) figure over the steps of each patient."""
    kept = jnp.where(batch.used, steps, 0.0).reshape(-1)
    return jax.ops.segment_sum(kept, batch.patient.reshape(-1), num_segments=batch.real.shape[0])


def moment_before(batch: Batch) -> Moment:
    """The moments (R, T) of the step before, at a patient's first step of that step."""
    return Moment(*(jnp.where(batch.start, time, _before(time)) for time in batch.visit.moment))


def _before(steps: Array) -> Array:
    """(R, T, ...) moved on by one step; what stands in the first place is of no step before."""
    return jnp.concatenate([steps[:, :1], steps[:, :-1]], axis=1)


def mean_by_patient(states: Array, batch: Batch) -> Array:
    """(N, width) means of (R, T, width) over the steps of each patient."""
    weight = batch.used[..., None].astype(states.dtype)
    flat, index = (states * weight).reshape(-1, states.shape[-1]), batch.patient.reshape(-1)
    patients = batch.real.shape[0]
    total = jax.ops.segment_sum(flat, index, num_segments=patients)
    count = jax.ops.segment_sum(weight.reshape(-1, 1), index, num_segments=patients)
    return total / jnp.maximum(count, 1.0)

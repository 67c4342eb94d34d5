"""The sequence VAE: a patient latent z, a latent u for every visit with a learned prior, and a recurrent decoder.

    encoder   both directions over the record -> q(z | x), q(u_t | x, z)
    prior     p(z | context), p(u_t | h_t, z, context)
    decoder   h_t from the visits before t; visit t from h_t, u_t, z and context, in clinical order

The bound is that of Kingma & Welling 2014 for a sequence with per-step latents (Chung et al. 2015, "A recurrent latent
variable model for sequential data"), with free bits (Kingma et al. 2016) and an annealed KL weight against posterior
collapse.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx

from ehrsim.batch import NO_CODES, Batch, Context, Sizes, Visit
from ehrsim.models import base
from ehrsim.models.base import Array, At, Attributes, Heads, Memory, Noise, Origin
from ehrsim.models.emission import OrderedEmission, SetEmission
from ehrsim.models.layers import AGE_FEATURES, GRU, Linear, age_features, constant, normalise, table


class VAEConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Widths of the sequence VAE and its objective."""

    width: int = 128
    """Width of recurrent states and visit embeddings."""
    attribute_width: int = 64
    """Width of the layer that gives values, offsets and durations."""
    patient_latent: int = 24
    visit_latent: int = 12
    free_bits: float = 0.02
    """Nats of KL per latent dimension that cost nothing in training."""
    anneal: float = 0.15
    """Share of training over which the KL weight rises from 0 to 1."""
    emission: Literal["ordered", "set"] = "ordered"
    """How the codes of a visit come about: see `ehrsim.models.emission`."""
    context_dropout: float = 0.5
    """Chance that a part of the context is hidden from a patient in training."""


class State(NamedTuple):
    """State of the decoder; leading axes are slots in sampling, rows and steps in training."""

    h: Array
    """(..., width)"""
    patient: Array
    """(..., width) embedding of z and context."""


class Gaussian(NamedTuple):
    """A diagonal Gaussian by mean and log standard deviation."""

    mean: Array
    log_std: Array

    def draw(self, noise: Array) -> Array:
        """The sample at standard normal `noise`."""
        return self.mean + jnp.exp(self.log_std) * noise

    def kl(self, prior: Gaussian) -> Array:
        """KL divergence to `prior`, per dimension."""
        ratio = jnp.exp(2 * (self.log_std - prior.log_std))
        shift = (self.mean - prior.mean) * jnp.exp(-prior.log_std)
        return 0.5 * (ratio + shift * shift - 1) - self.log_std + prior.log_std


def _gaussian(parameters: Array) -> Gaussian:
    mean, log_std = jnp.split(parameters, 2, axis=-1)
    return Gaussian(mean, jnp.clip(log_std, -5.0, 2.0))


class VisitEmbedding(nnx.Module):
    """A visit as a vector: codes, their values, kind, gap, length, age."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.codes = table(sizes.vocabulary, width, rng)
        self.values = table(sizes.vocabulary, width, rng)
        self.kinds = table(sizes.kinds, width, rng)
        self.gaps = table(sizes.gaps, width, rng)
        self.lengths = table(sizes.lengths, width, rng)
        self.age = Linear(AGE_FEATURES, width, rng)

    def __call__(self, visit: Visit) -> Array:
        """(...) -> (..., width)."""
        centred = jnp.where(visit.value > 0, 2 * visit.rank - 1, 0.0)
        total = base.sum_embeddings(self.codes[...].at[0].set(0.0), visit.codes)
        total = total + base.sum_embeddings(self.values[...], visit.codes, centred)
        total = total + self.kinds[...][visit.kind] + self.gaps[...][visit.gap] + self.lengths[...][visit.length]
        return normalise(total + self.age(age_features(visit.age, visit.year)))


class ContextEmbedding(nnx.Module):
    """What is known beforehand as a vector; anything not given adds nothing."""

    def __init__(self, sizes: Sizes, width: int, rng: np.random.Generator) -> None:
        self.statics = table(sizes.statics, width, rng)
        self.outcome = table(3, width, rng)
        self.codes = table(sizes.vocabulary, width, rng)
        self.age = Linear(AGE_FEATURES, width, rng)

    def __call__(self, context: Context) -> Array:
        """(N,) -> (N, width)."""
        total = base.sum_embeddings(self.statics[...].at[0].set(0.0), context.statics)
        total = total + self.outcome[...].at[0].set(0.0)[context.outcome]
        codes = self.codes[...]
        total = total + base.sum_embeddings(codes.at[0].set(0.0), jnp.maximum(context.codes, 0))
        total = total + jnp.where(context.codes[:, :1] == NO_CODES, codes[:1], 0.0)
        known = ~jnp.isnan(context.first_age)
        age = jnp.where(known, context.first_age, 0.0)
        return total + jnp.where(known[:, None], self.age(age_features(age, jnp.zeros_like(age))), 0.0)


class VisitDecoder(nnx.Module):
    """The heads: one visit from a feature vector, part by part, each part told the parts before it."""

    def __init__(self, sizes: Sizes, config: VAEConfig, inputs: int, rng: np.random.Generator) -> None:
        width, narrow = config.width, config.attribute_width
        self.sizes = sizes
        self.feature = Linear(inputs, width, rng)
        self.kind = Linear(width, sizes.kinds, rng, 0.1)
        self.gap = Linear(width, sizes.gaps, rng, 0.1)
        self.clock = Linear(width, sizes.clocks, rng, 0.1)
        self.length = Linear(width, sizes.lengths, rng, 0.1)
        self.of_kind = table(sizes.kinds, width, rng)
        self.of_gap = table(sizes.gaps, width, rng)
        self.of_code = table(sizes.vocabulary, width, rng)
        self.age = Linear(AGE_FEATURES, width, rng)
        self.body = Linear(width, width, rng)
        emission = {"ordered": OrderedEmission, "set": SetEmission}[config.emission]
        self.emission = emission(sizes, width, rng)
        self.attribute_state = Linear(width, narrow, rng)
        self.attribute_code = table(sizes.vocabulary, narrow, rng)
        self.attribute_last = Linear(4, narrow, rng)
        self.attribute_out = Linear(narrow, sizes.offsets + sizes.values + sizes.durations, rng, 0.1)
        self.attribute_bias = constant(0.0, sizes.vocabulary, sizes.offsets + sizes.durations)
        self.repeat_out = Linear(narrow, 1, rng, 0.1)
        self.repeat_bias = constant(0.0, sizes.vocabulary)
        self.last_value = constant(0.0, sizes.values, sizes.values)
        self.last_gate = constant(0.0, sizes.vocabulary)

    def __call__(self, inputs: Array, memory: Memory) -> Heads:
        """Heads from (..., inputs)."""
        feature = jax.nn.silu(self.feature(inputs))

        def timed(visit: Visit) -> Array:
            return jax.nn.silu(feature + self.of_kind[...][visit.kind])

        def body(visit: Visit) -> Array:
            placed = feature + self.of_kind[...][visit.kind] + self.of_gap[...][visit.gap]
            return self.body(jax.nn.silu(placed + self.age(age_features(visit.age, visit.year))))

        return Heads(
            kind=lambda: self.kind(feature),
            gap=lambda visit: self.gap(timed(visit)),
            clock=lambda visit: self.clock(
                jax.nn.silu(feature + self.of_kind[...][visit.kind] + self.of_gap[...][visit.gap])
            ),
            codes=self.emission(body, memory),
            repeat=lambda visit: partial(self._repeat, visit, self._state(visit, body(visit))),
            attributes=lambda visit: partial(self._attributes, visit, self._state(visit, body(visit))),
            length=lambda visit: self.length(jax.nn.silu(body(visit) + self._code_sum(visit))),
        )

    def _code_sum(self, visit: Visit) -> Array:
        return base.sum_embeddings(self.of_code[...].at[0].set(0.0), visit.codes)

    def _state(self, visit: Visit, body: Array) -> Array:
        """(..., attribute_width) of the visit as a whole."""
        return self.attribute_state(jax.nn.silu(body + self._code_sum(visit)))

    def _of_codes(self, visit: Visit, state: Array, at: At) -> Array:
        """(M, attribute_width) of the chosen places: the visit as a whole, the code, and its last value."""
        last_rank, last_age = visit.last_rank[at], visit.last_age[at]
        never = last_rank < 0
        rank = jnp.where(never, 0.0, 2 * last_rank - 1)
        recent = jnp.where(never, 0.0, jnp.exp(-last_age))
        last = jnp.stack([never.astype(jnp.float32), rank, recent, rank * recent], axis=-1)
        hidden = state[at[:-1]] + self.attribute_code[...][visit.codes[at]] + self.attribute_last(last)
        return jax.nn.silu(hidden)

    def _repeat(self, visit: Visit, state: Array, at: At) -> Array:
        return self.repeat_out(self._of_codes(visit, state, at))[..., 0] + self.repeat_bias[...][visit.codes[at]]

    def _attributes(self, visit: Visit, state: Array, at: At) -> Attributes:
        sizes = self.sizes
        out = self.attribute_out(self._of_codes(visit, state, at))
        codes, last_rank = visit.codes[at], visit.last_rank[at]
        bias = self.attribute_bias[...][codes]
        last_bin = jnp.where(last_rank < 0, 0, 1 + (last_rank * (sizes.values - 1)).astype(jnp.int32))
        gate = jax.nn.softplus(self.last_gate[...][codes])[..., None]
        after = sizes.offsets + sizes.values
        return Attributes(
            offset=out[..., : sizes.offsets] + bias[..., : sizes.offsets],
            value=out[..., sizes.offsets : after] + gate * self.last_value[...][last_bin],
            duration=out[..., after:] + bias[..., sizes.offsets :],
        )


class VAE(nnx.Module):
    """The sequence VAE."""

    def __init__(self, sizes: Sizes, config: VAEConfig, rng: np.random.Generator) -> None:
        width, patient, visit = config.width, config.patient_latent, config.visit_latent
        self.sizes, self.config = sizes, config
        self.embedding = VisitEmbedding(sizes, width, rng)
        self.context = ContextEmbedding(sizes, width, rng)
        self.forward = GRU(width, width, rng)
        self.backward = GRU(width, width, rng)
        self.posterior_patient = Linear(3 * width, 2 * patient, rng, 0.1)
        self.prior_patient = Linear(width, 2 * patient, rng, 0.1)
        self.posterior_visit = Linear(3 * width, 2 * visit, rng, 0.1)
        self.prior_visit = Linear(2 * width, 2 * visit, rng, 0.1)
        self.patient = Linear(patient + width, width, rng)
        self.initial = Linear(width, width, rng)
        self.recurrence = GRU(width, width, rng)
        self.decoder = VisitDecoder(sizes, config, 2 * width + visit + AGE_FEATURES, rng)
        self.origin = Linear(width, sizes.origins, rng, 0.1)
        self.of_origin = table(sizes.origins, width, rng)
        self.first_gap = Linear(width, sizes.first_gaps, rng, 0.1)

    def loss(self, batch: Batch, key: Array, progress: Array) -> tuple[Array, dict[str, Array]]:
        """The annealed bound with free bits, per step."""
        mask_key, noise_key = jax.random.split(key)
        hidden = batch._replace(context=_hide(batch.context, mask_key, self.config.context_dropout))
        likelihood, kl_patient, kl_visit = self._bound(hidden, noise_key)
        steps = batch.used.sum(dtype=jnp.float32)
        weight = jnp.minimum(progress / self.config.anneal, 1.0)
        free = self.config.free_bits
        counted = jnp.where(batch.real[:, None], jnp.maximum(kl_patient, free), 0.0).sum()
        counted = counted + jnp.where(batch.used[..., None], jnp.maximum(kl_visit, free), 0.0).sum()
        loss = (weight * counted - likelihood.sum()) / steps
        used = batch.used[..., None]
        mean_visit = jnp.where(used, kl_visit, 0.0).sum((0, 1)) / steps
        mean_patient = jnp.where(batch.real[:, None], kl_patient, 0.0).sum(0) / batch.real.sum(dtype=jnp.float32)
        return loss, {
            "loss": loss,
            "reconstruction": -likelihood.sum() / steps,
            "kl_patient": mean_patient.sum(),
            "kl_visit": mean_visit.sum(),
            "active_patient": (mean_patient > 0.01).mean(),
            "active_visit": (mean_visit > 0.01).mean(),
        }

    def log_likelihood(self, batch: Batch, key: Array) -> Array:
        """(N,) evidence lower bound with one draw of the latents, given the statics alone as context."""
        context = batch.context
        bare = Context(
            statics=context.statics,
            outcome=jnp.zeros_like(context.outcome),
            codes=jnp.zeros_like(context.codes),
            first_age=jnp.full_like(context.first_age, jnp.nan),
        )
        likelihood, kl_patient, kl_visit = self._bound(batch._replace(context=bare), key)
        kl = jnp.where(batch.real, kl_patient.sum(-1), 0.0) + base.per_patient(kl_visit.sum(-1), batch)
        return likelihood - kl

    @property
    def noise(self) -> Noise:
        """Of z and of u."""
        return Noise(self.config.patient_latent, self.config.visit_latent)

    def start(self, noise: Array, context: Context) -> tuple[State, Origin]:
        """Draw z from its prior."""
        embedded = self.context(context)
        prior = _gaussian(self.prior_patient(embedded))
        patient = self._patient(prior.draw(noise), embedded)
        return State(jnp.tanh(self.initial(patient)), patient), self._origin(patient)

    def step(self, noise: Array, state: State, previous: Visit, first: Array, memory: Memory) -> tuple[State, Heads]:
        """Advance the recurrence, then draw u from its prior."""
        advanced = self.recurrence.step(state.h, self.recurrence.inner(self.embedding(previous)))
        h = jnp.where(first[:, None], state.h, advanced)
        prior = _gaussian(self.prior_visit(jnp.concatenate([h, state.patient], axis=-1)))
        moment = age_features(previous.age, previous.year)
        heads = self.decoder(jnp.concatenate([h, state.patient, prior.draw(noise), moment], axis=-1), memory)
        return State(h, state.patient), heads

    def _patient(self, z: Array, embedded: Array) -> Array:
        return jnp.tanh(self.patient(jnp.concatenate([z, embedded], axis=-1)))

    def _origin(self, patient: Array) -> Origin:
        return Origin(
            self.origin(patient),
            lambda origin: self.first_gap(jax.nn.silu(patient + self.of_origin[...][origin])),
        )

    def _bound(self, batch: Batch, key: Array) -> tuple[Array, Array, Array]:
        """Log-likelihood (N,) under one draw of the latents, KL of z (N, .) and of u (R, T, .)."""
        patient_key, visit_key = jax.random.split(key)
        x = self.embedding(batch.visit)
        embedded = self.context(batch.context)
        fresh, last = batch.start, _ends(batch)
        nothing = jnp.zeros_like(x)
        both = jnp.concatenate(
            [self.forward.scan(x, fresh, nothing), self.backward.scan(x, last, nothing, reverse=True)], axis=-1
        )
        pooled = _mean_by_patient(both, batch)
        posterior = _gaussian(self.posterior_patient(jnp.concatenate([pooled, embedded], axis=-1)))
        kl_patient = posterior.kl(_gaussian(self.prior_patient(embedded)))
        z = posterior.draw(base.patient_noise(patient_key, batch, self.config.patient_latent))
        of_patient = self._patient(z, embedded)
        patient = of_patient[batch.patient]
        h = self._states(x, batch, of_patient)
        posterior_u = _gaussian(self.posterior_visit(jnp.concatenate([both, patient], axis=-1)))
        prior_u = _gaussian(self.prior_visit(jnp.concatenate([h, patient], axis=-1)))
        u = posterior_u.draw(base.step_noise(visit_key, batch, self.config.visit_latent))
        memory = base.recall(batch, self.sizes.vocabulary)
        moment = age_features(*(_before(time, batch.start) for time in (batch.visit.age, batch.visit.year)))
        heads = self.decoder(jnp.concatenate([h, patient, u, moment], axis=-1), memory)
        steps = jnp.stack(list(base.visit_log_probability(heads, batch, self.sizes).values())).sum(0)
        likelihood = base.per_patient(steps, batch) + base.origin_log_probability(self._origin(of_patient), batch)
        return likelihood, kl_patient, posterior_u.kl(prior_u)

    def _states(self, x: Array, batch: Batch, of_patient: Array) -> Array:
        """(R, T, width) decoder states before each step: at a patient's first step the initial one."""
        initial = jnp.tanh(self.initial(of_patient))[batch.patient]
        after = self.recurrence.scan(x, batch.start, initial)
        before = jnp.concatenate([jnp.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
        return jnp.where(batch.start[..., None], initial, before)


def _before(time: Array, start: Array) -> Array:
    """(R, T) the value at the step before, at a patient's first step its own."""
    return jnp.where(start, time, jnp.concatenate([time[:, :1], time[:, :-1]], axis=1))


def _ends(batch: Batch) -> Array:
    """(R, T) bool: the last step of a patient, or padding; the backward scan begins anew there."""
    following = jnp.concatenate([batch.start[:, 1:], jnp.ones_like(batch.start[:, :1])], axis=1)
    used_after = jnp.concatenate([batch.used[:, 1:], jnp.zeros_like(batch.used[:, :1])], axis=1)
    return following | ~used_after


def _mean_by_patient(states: Array, batch: Batch) -> Array:
    """(N, width) means of (R, T, width) over the steps of each patient."""
    weight = batch.used[..., None].astype(states.dtype)
    flat, index = (states * weight).reshape(-1, states.shape[-1]), batch.patient.reshape(-1)
    patients = batch.real.shape[0]
    total = jax.ops.segment_sum(flat, index, num_segments=patients)
    count = jax.ops.segment_sum(weight.reshape(-1, 1), index, num_segments=patients)
    return total / jnp.maximum(count, 1.0)


def _hide(context: Context, key: Array, rate: float) -> Context:
    """The context with parts hidden at random: statics, the outcome, codes and the first age.

    Whether codes are asked about does not depend on what the patient has, and having none is told apart from not being
    asked: else the mere absence of codes in the context, which is how most patients are drawn, would speak for short
    records. In half of the patients all statics are shown, as they are when patients are drawn.
    """
    keys = jax.random.split(key, 6)
    patients, places = context.codes.shape

    def shown(part: int, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(keys[part], shape) >= rate

    every = jax.random.uniform(keys[0], (patients, 1)) < 0.5
    asked = shown(4, (patients, 1))
    number = jax.random.randint(keys[5], (patients, 1), 1, places + 1)
    codes = jnp.where(asked & (jnp.arange(places)[None] < number), context.codes, 0)
    none = jnp.where(asked[:, 0] & (context.codes[:, 0] == 0), NO_CODES, codes[:, 0])
    return Context(
        statics=jnp.where(every | shown(1, context.statics.shape), context.statics, 0),
        outcome=jnp.where(shown(2, (patients,)), context.outcome, 0),
        codes=codes.at[:, 0].set(none),
        first_age=jnp.where(shown(3, (patients,)), context.first_age, jnp.nan),
    )

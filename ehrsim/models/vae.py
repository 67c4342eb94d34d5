"""The sequence VAE: a patient latent z, a latent u for every visit with a learned prior, and a recurrent decoder.

    origin    when the patient is born and the record begins, from the context: age, sex and calendar are right from the
              start, and z need not agree with them
    encoder   both directions over the record -> q(z | x), q(u_t | x, z)
    prior     p(z | context, beginning), p(u_t | h_t, z, context, beginning)
    filter    p(z | the record up to t, context, beginning), for records that are to go on
    decoder   h_t from the visits before t; visit t from h_t, u_t, z, context and beginning, in clinical order

The bound is that of Kingma & Welling 2014 for a sequence with per-step latents (Chung et al. 2015, "A recurrent latent
variable model for sequential data"), with free bits (Kingma et al. 2016) and an annealed KL weight against posterior
collapse.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx

from ehrsim.batch import Batch, Context, Moment, Sizes, Visit
from ehrsim.models import base, packed
from ehrsim.models.base import Array, Heads, Memory, Noise, Origin
from ehrsim.models.decoder import VisitDecoder
from ehrsim.models.embeddings import ContextEmbedding, VisitEmbedding, hide
from ehrsim.models.latents import Gaussian, Latent, gaussian
from ehrsim.models.layers import (
    GRU,
    MOMENT_FEATURES,
    Dropout,
    Linear,
    dropout,
    is_constant,
    kept,
    moment_features,
    normalise,
    table,
)
from ehrsim.models.shift import Shift


class VAEConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Widths of the sequence VAE and its objective."""

    width: int = 128
    """Width of recurrent states and visit embeddings."""
    attribute_width: int = 64
    """Width of the layer that gives values, offsets and durations."""
    patient_latent: int = 24
    """Numbers of the patient's latent, and `visit_latent` of a visit's; 0: there is none."""
    visit_latent: int = 12
    free_bits: float = 0.0
    """Nats of KL per dimension of a visit's latent that cost nothing in training. None: what the posterior tells the
    decoder beyond the prior is missing at every visit of a simulated record, and the mix of codes drifts away."""
    patient_free_bits: float = 0.05
    """The same of the patient's latent, which is drawn once and would be given up."""
    anneal: float = 0.15
    """Share of training over which the KL weight rises from 0 to 1."""
    emission: Literal["ordered", "two-level", "set"] | None = None
    """How the codes of a visit come about: see `ehrsim.models.emission` and `ehrsim.models.two_level`; None: one after
    the other, in two levels if there are many (`ehrsim.models.decoder.emission_for`)."""
    dropout: float | None = None
    """Chance that a number of a visit's embedding or of the decoder's feature is hidden in training; None: by how many
    visits there are to learn from (`dropout_for`)."""
    conditioned: float = 0.25
    """Share of the patients who are shown more of their context in training than their statics."""


SETTLING = 0.2
"""Share of training in which dropout falls to nothing."""


def dropout_for(visits: int) -> float:
    """The rate of dropout for so many visits to learn from: few are soon learned by heart.

    Measured: .45 is better than .25 for 20,000 visits, and .25 better than .4 for 200,000.
    """
    return round(float(np.clip(0.45 - 0.2 * np.log10(max(visits, 1) / 20_000), 0.1, 0.45)), 3)


class State(NamedTuple):
    """State of the decoder; leading axes are slots in sampling, rows and steps in training."""

    h: Array
    """(..., width)"""
    patient: Array
    """(..., width) embedding of z and context."""


class Trace(NamedTuple):
    """A batch of records as the decoder knows them before each step, with latents from the posterior."""

    h: Array
    """(R, T, width)"""
    patient: Array
    """(R, T, width)"""
    z: Array
    """(N, patient_latent)"""
    u: Array
    """(R, T, visit_latent)"""
    memory: Memory


class Bound(NamedTuple):
    """The parts of the evidence lower bound."""

    likelihood: Array
    """(N,) log-likelihood of the patients given the latents"""
    of_patient: Latent
    """(N, patient_latent)"""
    of_visit: Latent
    """(R, T, visit_latent)"""
    filtered: Array
    """(R, T) KL divergence of the patient's posterior to the filter at a step, with gradients for the filter alone"""
    trace: Trace


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
        self.filter = Linear(2 * width, 2 * patient, rng, 0.1)
        self.posterior_visit = Linear(3 * width, 2 * visit, rng, 0.1)
        self.prior_visit = Linear(2 * width, 2 * visit, rng, 0.1)
        self.patient = Linear(patient + width, width, rng)
        self.initial = Linear(width, width, rng)
        self.recurrence = GRU(width, width, rng)
        self.history = table(sizes.vocabulary, width, rng)
        self.decoder = VisitDecoder(
            sizes, 3 * width + visit + MOMENT_FEATURES, width, config.attribute_width, config.emission, rng
        )
        self.beginning = Linear(MOMENT_FEATURES, width, rng)
        self.birth = Linear(width, sizes.origins, rng, 0.1)
        self.of_origin = table(sizes.origins, width, rng)
        self.first_gap = Linear(width, sizes.first_gaps, rng, 0.1)

    def loss(self, batch: Batch, key: Array, progress: Array) -> tuple[Array, dict[str, Array]]:
        """The annealed bound with free bits, per step."""
        mask_key, noise_key = jax.random.split(key)
        hidden = batch._replace(context=hide(batch.context, mask_key, self.config.conditioned))
        return self.objective(batch, self.bound(hidden, noise_key, self.rate(progress)), progress)

    def rate(self, progress: Array) -> Array:
        """() the rate of dropout: none in the end, since what was trained with it is a little off without it."""
        share: Array = jnp.clip((1 - progress) / SETTLING, 0.0, 1.0)
        return (self.config.dropout or 0.0) * share

    def objective(self, batch: Batch, bound: Bound, progress: Array) -> tuple[Array, dict[str, Array]]:
        """The loss of a bound, and figures to log."""
        kl_patient, kl_visit = bound.of_patient.kl, bound.of_visit.kl
        steps = batch.used.sum(dtype=jnp.float32)
        weight = jnp.minimum(progress / self.config.anneal, 1.0)
        kl = jnp.where(batch.real[:, None], bound.of_patient.counted(self.config.patient_free_bits), 0.0).sum()
        kl = kl + jnp.where(batch.used[..., None], bound.of_visit.counted(self.config.free_bits), 0.0).sum()
        likelihood = bound.likelihood.sum()
        filtered = jnp.where(batch.used, bound.filtered, 0.0).sum() / steps
        loss = (weight * kl - likelihood) / steps + filtered
        used = batch.used[..., None]
        mean_visit = jnp.where(used, kl_visit, 0.0).sum((0, 1)) / steps
        mean_patient = jnp.where(batch.real[:, None], kl_patient, 0.0).sum(0) / batch.real.sum(dtype=jnp.float32)
        return loss, {
            "loss": loss,
            "reconstruction": -likelihood / steps,
            "kl_patient": mean_patient.sum(),
            "kl_visit": mean_visit.sum(),
            "kl_filter": filtered,
            "active_patient": (mean_patient > 0.01).sum() / max(len(mean_patient), 1),
            "active_visit": (mean_visit > 0.01).sum() / max(len(mean_visit), 1),
        }

    def log_likelihood(self, batch: Batch, key: Array) -> Array:
        """(N,) evidence lower bound with one draw of the latents, given the statics alone as context."""
        bound = self.bound(batch._replace(context=batch.context.bare()), key)
        of_patient = jnp.where(batch.real, bound.of_patient.kl.sum(-1), 0.0)
        return bound.likelihood - of_patient - packed.per_patient(bound.of_visit.kl.sum(-1), batch)

    def calibrated(self) -> VAE:
        """The biases of the heads, which dropout stands before."""
        flags: VAE = jax.tree.map(lambda _: False, self)
        flags.decoder = is_constant(self.decoder)
        return flags

    def shifted(self, shift: Shift) -> Self:
        """With the decoder's logits shifted."""
        model: Self = jax.tree.map(lambda part: part, self)
        model.decoder = self.decoder.shifted(shift)
        return model

    @property
    def noise(self) -> Noise:
        """Of z and of u."""
        return Noise(self.config.patient_latent, self.config.visit_latent)

    def origin(self, context: Context) -> Origin:
        """From the context alone."""
        embedded = self.context(context)
        return Origin(
            self.birth(embedded),
            lambda origin: self.first_gap(jax.nn.silu(embedded + self.of_origin[...][origin])),
        )

    def start(self, noise: Array, context: Context, beginning: Moment) -> State:
        """Draw z from its prior."""
        embedded = self.known(context, beginning)
        return self.begin(self.patient_prior(embedded).draw(noise), embedded)

    def known(self, context: Context, beginning: Moment) -> Array:
        """(N, width) of what is known of a patient before the first visit: the context, and when the record begins."""
        return self.context(context) + self.beginning(moment_features(beginning))

    def step(self, noise: Array, state: State, previous: Visit, first: Array, memory: Memory) -> tuple[State, Heads]:
        """Advance the recurrence, then draw u from its prior."""
        h = self.advance(state, self.embedding(previous), first)
        u = self.visit_prior(h, state.patient).draw(noise)
        return State(h, state.patient), self.decode(h, state.patient, u, previous.moment, memory)

    def resume(self, noise: Array, batch: Batch) -> State:
        """Draw z from the filter, and run the recurrence over the record with it."""
        visits, embedded = self.embedding(batch.visit), self.known(batch.context, packed.beginning(batch))
        known = self.forward.scan(visits, batch.start, jnp.zeros_like(visits))
        last = packed.last_visits(batch)
        filtered = self.filtered(known[last], embedded)

        def after(noise: Array) -> State:
            begun = self.begin(filtered.draw(noise), embedded)
            return State(self.states(visits, begun.h, batch)[last], begun.patient)

        resumed: State = jax.lax.map(after, noise, batch_size=4)
        return resumed

    def filtered(self, known: Array, embedded: Array) -> Gaussian:
        """p(z | a record so far, context) from the forward encoder's state and the context, each (..., width)."""
        return gaussian(self.filter(jnp.concatenate([known, embedded], axis=-1)))

    def patient_prior(self, embedded: Array) -> Gaussian:
        """p(z | context) from the embedded context (N, width)."""
        return gaussian(self.prior_patient(embedded))

    def visit_prior(self, h: Array, patient: Array) -> Gaussian:
        """p(u | h, z, context) from the state and the patient, each (..., width)."""
        return gaussian(self.prior_visit(jnp.concatenate([h, patient], axis=-1)))

    def encode(self, visits: Array, embedded: Array, batch: Batch) -> tuple[Gaussian, Array]:
        """q(z | x, context), and the encoder's states (R, T, 2 width), from embedded visits (R, T, width)."""
        nothing = jnp.zeros_like(visits)
        forward = self.forward.scan(visits, batch.start, nothing)
        both = jnp.concatenate(
            [forward, self.backward.scan(visits, packed.ends(batch), nothing, reverse=True)], axis=-1
        )
        pooled = packed.mean_by_patient(both, batch)
        return gaussian(self.posterior_patient(jnp.concatenate([pooled, embedded], axis=-1))), both

    def visit_posterior(self, both: Array, patient: Array) -> Gaussian:
        """q(u | x, z, context) from the encoder's states and the patient."""
        return gaussian(self.posterior_visit(jnp.concatenate([both, patient], axis=-1)))

    def of_patient(self, z: Array, embedded: Array) -> Array:
        """(N, width) of z and context together."""
        return jnp.tanh(self.patient(jnp.concatenate([z, embedded], axis=-1)))

    def begin(self, z: Array, embedded: Array) -> State:
        """The state before the first visit."""
        patient = self.of_patient(z, embedded)
        return State(jnp.tanh(self.initial(patient)), patient)

    def advance(self, state: State, visit: Array, first: Array) -> Array:
        """(..., width) the recurrent state after an embedded visit, as it was where there is none yet."""
        return jnp.where(first[..., None], state.h, self.recurrence.step(state.h, self.recurrence.inner(visit)))

    def decode(self, h: Array, patient: Array, u: Array, before: Moment, memory: Memory, drop: Dropout = kept) -> Heads:
        """The heads of a visit; `before` is the moment of the step before.

        Beside the state stands what codes the patient ever had: a recurrent state does not hold so many for so long.
        """
        history = normalise(jnp.dot(memory.seen, self.history[...], preferred_element_type=jnp.float32))
        inputs = jnp.concatenate([h, patient, u, moment_features(before), history], axis=-1)
        return self.decoder(inputs, before, memory, drop)

    def bound(self, batch: Batch, key: Array, rate: float | Array = 0.0) -> Bound:
        """The bound under one draw of the latents; `rate` is the chance that a number is dropped."""
        patient_key, visit_key, *drop_keys = jax.random.split(key, 5)
        of_encoder, of_recurrence, of_decoder = (dropout(drop_key, rate) for drop_key in drop_keys)
        visits = self.embedding(batch.visit)
        embedded = self.known(batch.context, packed.beginning(batch))
        posterior, both = self.encode(of_encoder(visits), embedded, batch)
        z = posterior.draw(packed.patient_noise(patient_key, batch, self.config.patient_latent))
        begun = self.begin(z, embedded)
        patient = begun.patient[batch.patient]
        h = self.states(of_recurrence(visits), begun.h, batch)
        posterior_u = self.visit_posterior(both, patient)
        u = posterior_u.draw(packed.step_noise(visit_key, batch, self.config.visit_latent))
        memory = packed.recall(batch, self.sizes)
        heads = self.decode(h, patient, u, packed.moment_before(batch), memory, of_decoder)
        steps = jnp.stack(list(base.visit_log_probability(heads, batch, self.sizes).values())).sum(0)
        likelihood = packed.per_patient(steps, batch) + base.origin_log_probability(self.origin(batch.context), batch)
        fixed = jax.lax.stop_gradient((embedded, h, patient))
        of_patient = Latent(posterior, self.patient_prior(embedded), self.patient_prior(fixed[0]))
        of_visit = Latent(posterior_u, self.visit_prior(h, patient), self.visit_prior(*fixed[1:]))
        return Bound(
            likelihood,
            of_patient,
            of_visit,
            self._to_filter(both, posterior, embedded, batch),
            Trace(h, patient, z, u, memory),
        )

    def _to_filter(self, both: Array, posterior: Gaussian, embedded: Array, batch: Batch) -> Array:
        """(R, T) KL divergence of q(z | x, context) to the filter at each step."""
        known, embedded, posterior = jax.lax.stop_gradient((both[..., : self.config.width], embedded, posterior))
        at_step = Gaussian(*(part[batch.patient] for part in posterior))
        return at_step.kl(self.filtered(known, embedded[batch.patient])).sum(-1)

    def states(self, visits: Array, begun: Array, batch: Batch) -> Array:
        """(R, T, width) states before each step, from embedded visits; `begun` (N, width) at a patient's first."""
        initial = begun[batch.patient]
        after = self.recurrence.scan(visits, batch.start, initial)
        before = jnp.concatenate([jnp.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
        return jnp.where(batch.start[..., None], initial, before)

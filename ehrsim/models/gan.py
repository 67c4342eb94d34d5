"""The sequence GAN, in the style of medGAN (Choi et al. 2017, "Generating multi-label discrete patient records using
generative adversarial networks"): an autoencoder is trained first, then a generator learns in its latent space.

    autoencoder    a sequence VAE, frozen: q(z | x), q(u_t | x, z), and the decoder
    generator      z = prior draw + G(noise, context), u_t = prior draw + G(noise, h_t, patient): shortcut connections
    critic         told real visits or those decoded from generated latents, with z and u_t, and the mean over the
                   minibatch beside each patient (minibatch averaging)

The decoder of a VAE is used with latents from its prior, but was trained with latents from its posterior. The
generator starts at the prior, and moves it to where the critic no longer tells the two apart.

What is decoded for the critic are soft visits: codes and kinds are drawn and carry the gradient of their probabilities
(straight-through estimator, Bengio et al. 2013). The critic is trained by the logistic loss with the R1 penalty
(Mescheder et al. 2018, "Which training methods for GANs do actually converge?").
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx

from ehrsim.batch import Batch, Context, Moment, Sizes, Visit
from ehrsim.models import base, packed
from ehrsim.models.base import Array, Heads, Memory, Noise, Origin
from ehrsim.models.embeddings import hide
from ehrsim.models.emission import RECALLED, CodeLogits
from ehrsim.models.layers import GRU, MOMENT_FEATURES, Linear, moment_features, softplus, table
from ehrsim.models.shift import Shift, no_shift
from ehrsim.models.vae import VAE, State, VAEConfig


class GANConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The autoencoder, and the widths and objective of what is trained in its latent space."""

    autoencoder: VAEConfig = VAEConfig()
    generator_width: int = 128
    critic_width: int = 96
    penalty: float = 2.0
    """Weight of the R1 gradient penalty."""
    begin: float = 0.25
    """Share of training after which the generator starts to follow the critic, fully after twice that."""
    nearness: float = 0.05
    """Weight of the squared distance of generated latents from the prior's draws."""


class Residual(nnx.Module):
    """A perceptron with one hidden layer whose output is next to nought to begin with."""

    def __init__(self, inputs: int, width: int, outputs: int, rng: np.random.Generator) -> None:
        self.inner = Linear(inputs, width, rng)
        self.middle = Linear(width, width, rng)
        self.outer = Linear(width, outputs, rng, 1e-3)

    def __call__(self, *parts: Array) -> Array:
        """(..., outputs) from parts whose last axes add up to `inputs`."""
        hidden = jax.nn.silu(self.inner(jnp.concatenate(parts, axis=-1)))
        return self.outer(hidden + jax.nn.silu(self.middle(hidden)))


class Trajectory(NamedTuple):
    """What the critic is told of a batch of patients, packed as in the batch."""

    kinds: Array
    """(R, T, kinds) one-hot"""
    codes: Array
    """(R, T, V) multi-hot"""
    visit: Array
    """(R, T, .) u"""
    patient: Array
    """(N, .) z"""


class Critic(nnx.Module):
    """Scores whole records: a recurrent network over visits, z, and the averages of the minibatch."""

    def __init__(self, sizes: Sizes, config: GANConfig, rng: np.random.Generator) -> None:
        width, latent = config.critic_width, config.autoencoder
        self.codes = table(sizes.vocabulary, width, rng)
        self.kinds = table(sizes.kinds, width, rng)
        self.latent = Linear(latent.visit_latent, width, rng)
        self.mix = Linear(width, width, rng)
        self.recurrence = GRU(width, width, rng)
        self.pooled = Linear(2 * width + latent.patient_latent, width, rng)
        self.body = Linear(2 * width, width, rng)
        self.score = Linear(width, 1, rng)

    def __call__(self, seen: Trajectory, batch: Batch, inner: Array) -> Array:
        """(N,) scores; steps outside `inner` (R, T) are not looked at."""
        x = jnp.dot(seen.codes, self.codes[...]) + jnp.dot(seen.kinds, self.kinds[...])
        x = jax.nn.silu(x + self.latent(seen.visit))
        x = jnp.where(inner[..., None], jax.nn.silu(self.mix(x)), 0.0)
        states = self.recurrence.scan(x, batch.start, jnp.zeros_like(x))
        both = jnp.where(inner[..., None], jnp.concatenate([x, states], axis=-1), 0.0)
        patients = batch.real.shape[0]
        index = batch.patient.reshape(-1)
        total = jax.ops.segment_sum(both.reshape(-1, both.shape[-1]), index, num_segments=patients)
        number = jax.ops.segment_sum(inner.reshape(-1).astype(jnp.float32), index, num_segments=patients)
        mean = total / jnp.maximum(number, 1.0)[:, None]
        hidden = jax.nn.silu(self.pooled(jnp.concatenate([mean, seen.patient], axis=-1)))
        weight = batch.real.astype(jnp.float32)[:, None]
        average = (hidden * weight).sum(0) / jnp.maximum(weight.sum(), 1.0)
        beside = jnp.concatenate([hidden, jnp.broadcast_to(average, hidden.shape)], axis=-1)
        return self.score(jax.nn.silu(self.body(beside)))[:, 0]


class SoftCodes(nnx.Module):
    """Codes of a visit as independent Bernoullis given all that the decoder knows: what the critic is shown."""

    def __init__(self, sizes: Sizes, inputs: int, width: int, rng: np.random.Generator) -> None:
        self.feature = Linear(inputs, width, rng)
        self.of_kind = table(sizes.kinds, width, rng)
        self.query = Linear(width, width, rng)
        self.copy_gates = Linear(width, RECALLED, rng, 0.1)
        self.logits = CodeLogits(sizes, width, -4.0, rng, in_order=False)

    def shifted(self, shift: Shift) -> SoftCodes:
        """With the logits of codes shifted."""
        soft: SoftCodes = jax.tree.map(lambda part: part, self)
        soft.logits = self.logits.shifted(shift)
        return soft

    def __call__(self, h: Array, patient: Array, u: Array, kind: Array, visit: Visit, memory: Memory) -> Array:
        """(..., V) logits of a visit of some kind at the moment of `visit`."""
        moment = moment_features(visit.moment)
        feature = self.feature(jnp.concatenate([h, patient, u, moment], axis=-1)) + self.of_kind[...][kind]
        query = jax.nn.silu(self.query(jax.nn.silu(feature)))
        every = slice(None)
        recalled = self.logits.recalled(self.copy_gates(query), kind, visit.moment, memory, every)
        return self.logits.matched(query, every) + recalled


class Autoencoder(VAE):
    """The sequence VAE, with a soft decoder that learns beside it and has no influence on it."""

    def __init__(self, sizes: Sizes, config: VAEConfig, rng: np.random.Generator) -> None:
        super().__init__(sizes, config, rng)
        inputs = 2 * config.width + config.visit_latent + MOMENT_FEATURES
        self.soft = SoftCodes(sizes, inputs, config.width, rng)

    def shifted(self, shift: Shift) -> Self:
        """With the decoder's logits shifted; of the soft one only what is counted before training."""
        model = super().shifted(shift)
        model.soft = self.soft.shifted(
            no_shift(self.sizes)._replace(wanted=shift.wanted, first_by_static=shift.first_by_static)
        )
        return model

    def loss(self, batch: Batch, key: Array, progress: Array) -> tuple[Array, dict[str, Array]]:
        """The bound of the VAE, and the cross-entropy of the soft decoder."""
        mask_key, noise_key = jax.random.split(key)
        hidden = batch._replace(context=hide(batch.context, mask_key, self.config.conditioned))
        bound = self.bound(hidden, noise_key, self.rate(progress))
        loss, figures = self.objective(batch, bound, progress)
        seen = jax.lax.stop_gradient(bound.trace)
        logits = self.soft(seen.h, seen.patient, seen.u, batch.visit.kind, batch.visit, seen.memory)
        codes = base.multi_hot(batch.visit.codes, self.sizes.vocabulary)
        nats = (softplus(logits) - codes * logits)[..., 1:].sum(-1)
        inner = batch.used & (batch.visit.kind < self.sizes.death)
        soft = jnp.where(inner, nats, 0.0).sum() / jnp.maximum(inner.sum(dtype=jnp.float32), 1.0)
        return loss + soft, figures | {"soft_codes": soft}


class GAN(nnx.Module):
    """The sequence GAN. It has no likelihood: it is stopped by, and compared by, distances."""

    def __init__(self, sizes: Sizes, config: GANConfig, rng: np.random.Generator) -> None:
        latent, width = config.autoencoder, config.generator_width
        self.sizes, self.config = sizes, config
        self.autoencoder = Autoencoder(sizes, latent, rng)
        self.of_patient = Residual(latent.patient_latent + latent.width, width, latent.patient_latent, rng)
        self.of_visit = Residual(latent.visit_latent + 2 * latent.width, width, latent.visit_latent, rng)
        self.critic = Critic(sizes, config, rng)

    def loss(self, batch: Batch, key: Array, progress: Array) -> tuple[Array, dict[str, Array]]:
        """Losses of the critic and the generator, each with gradients for itself alone."""
        mask_key, real_key, noise_key, draw_key = jax.random.split(key, 4)
        batch = batch._replace(context=hide(batch.context, mask_key, self.config.autoencoder.conditioned))
        inner = batch.used & (batch.visit.kind < self.sizes.death)
        real = self._encoded(batch, real_key)
        fake, moved = self._generated(batch, noise_key, draw_key)
        fixed = jax.lax.stop_gradient(fake)
        patients = jnp.maximum(batch.real.sum(dtype=jnp.float32), 1.0)
        weight = batch.real.astype(jnp.float32) / patients

        def score_real(seen: Trajectory) -> tuple[Array, Array]:
            scores = self.critic(seen, batch, inner)
            return jnp.where(batch.real, scores, 0.0).sum(), scores

        slopes, of_real = jax.grad(score_real, has_aux=True)(real)
        of_fake = self.critic(fixed, batch, inner)
        critic = (weight * (softplus(of_fake) + softplus(-of_real))).sum()
        penalty = sum(jnp.square(slope).sum() for slope in slopes) / patients
        frozen: Critic = jax.tree.map(jax.lax.stop_gradient, self.critic)
        generator = (weight * softplus(-frozen(fake, batch, inner))).sum()
        follows = jnp.clip(progress / self.config.begin - 1.0, 0.0, 1.0)
        judged = critic + self.config.penalty * penalty
        loss = judged + follows * generator + self.config.nearness * moved
        told_apart = (weight * jnp.where(of_real > 0, 0.5, 0.0) + weight * jnp.where(of_fake < 0, 0.5, 0.0)).sum()
        return loss, {
            "loss": loss,
            "critic": critic,
            "generator": generator,
            "penalty": penalty,
            "moved": moved,
            "told_apart": told_apart,
            "coverage": _coverage(_bags(real, batch), _bags(fixed, batch), batch.real),
        }

    def log_likelihood(self, batch: Batch, key: Array) -> Array:
        """There is none; see `ehrsim.models.Family.likelihood`."""
        raise NotImplementedError("a GAN has no likelihood")

    def calibrated(self) -> Any:
        """Nothing."""
        return jax.tree.map(lambda _: False, self)

    def shifted(self, shift: Shift) -> GAN:
        """With the logits of the autoencoder's decoder shifted."""
        model: GAN = jax.tree.map(lambda part: part, self)
        model.autoencoder = self.autoencoder.shifted(shift)
        return model

    @property
    def noise(self) -> Noise:
        """Of z and of u."""
        return self.autoencoder.noise

    def origin(self, context: Context) -> Origin:
        """As the autoencoder."""
        return self.autoencoder.origin(context)

    def start(self, noise: Array, context: Context, beginning: Moment) -> State:
        """Draw z."""
        embedded = self.autoencoder.known(context, beginning)
        return self.autoencoder.begin(self._z(noise, embedded), embedded)

    def step(self, noise: Array, state: State, previous: Visit, first: Array, memory: Memory) -> tuple[State, Heads]:
        """Advance the recurrence, then draw u."""
        inner = self.autoencoder
        h = inner.advance(state, inner.embedding(previous), first)
        u = self._u(noise, h, state.patient)
        return State(h, state.patient), inner.decode(h, state.patient, u, previous.moment, memory)

    def resume(self, noise: Array, batch: Batch) -> State:
        """As the autoencoder: the generator stands for the prior, but of a record there is more to know."""
        return self.autoencoder.resume(noise, batch)

    def _z(self, noise: Array, embedded: Array) -> Array:
        return self.autoencoder.patient_prior(embedded).draw(noise) + self.of_patient(noise, embedded)

    def _u(self, noise: Array, h: Array, patient: Array) -> Array:
        return self.autoencoder.visit_prior(h, patient).draw(noise) + self.of_visit(noise, h, patient)

    def _frozen(self) -> Autoencoder:
        frozen: Autoencoder = jax.tree.map(jax.lax.stop_gradient, self.autoencoder)
        return frozen

    def _encoded(self, batch: Batch, key: Array) -> Trajectory:
        """The real records, with latents from the posterior."""
        trace = self._frozen().bound(batch, key).trace
        codes = base.multi_hot(batch.visit.codes, self.sizes.vocabulary)
        return Trajectory(jax.nn.one_hot(batch.visit.kind, self.sizes.kinds), codes, trace.u, trace.z)

    def _generated(self, batch: Batch, noise_key: Array, draw_key: Array) -> tuple[Trajectory, Array]:
        """Records that follow their own history, at the moments and with the context of the real ones.

        Also the mean square of what the generator adds to the draws of the prior.
        """
        decoder, (kind_key, code_key) = self._frozen(), jax.random.split(draw_key)
        patient_key, visit_key = jax.random.split(noise_key)
        embedded = decoder.known(batch.context, packed.beginning(batch))
        noise = packed.patient_noise(patient_key, batch, self.config.autoencoder.patient_latent)
        z = decoder.patient_prior(embedded).draw(noise) + self.of_patient(noise, embedded)
        begun = decoder.begin(z, embedded)
        size, shape = self.sizes, batch.start.shape
        each = (
            batch.start,
            begun.patient[batch.patient],
            begun.h[batch.patient],
            packed.to_have(batch.context, size)[batch.patient],
            base.multi_hot(batch.context.statics, size.statics)[batch.patient],
            packed.step_noise(visit_key, batch, self.config.autoencoder.visit_latent),
            batch.visit._replace(codes=jnp.zeros((*shape, 0), jnp.int32)),
            packed.moment_before(batch),
            jax.random.uniform(kind_key, shape),
            jax.random.uniform(code_key, (*shape, size.vocabulary)),
        )

        def body(carry: tuple[Array, Array, Array, Array], column: Any) -> tuple[Any, tuple[Array, ...]]:
            h, x, previous, seen = carry
            start, patient, initial, wanted, statics, noise, visit, before, for_kind, for_codes = column
            h = jnp.where(start[:, None], initial, decoder.recurrence.step(h, decoder.recurrence.inner(x)))
            previous, seen = (jnp.where(start[:, None], 0.0, part) for part in (previous, seen))
            # No clock is drawn: one tells that there was a step before, and neither kinds nor codes go by which.
            clock = jnp.where(start, size.clocks, 0)
            memory = Memory(previous, seen, wanted * (1 - seen), clock, clock, statics)
            added = self.of_visit(noise, h, patient)
            u = decoder.visit_prior(h, patient).draw(noise) + added
            logits = decoder.decode(h, patient, u, before, memory).kind()
            possible = jnp.arange(size.kinds)[None] < jnp.where(start, size.continues, size.death)[:, None]
            kinds = _drawn_kind(jnp.where(possible, logits, -jnp.inf), for_kind)
            kind = jnp.argmax(kinds, axis=-1)
            codes = _drawn_codes(decoder.soft(h, patient, u, kind, visit, memory), for_codes)
            x = decoder.embedding.soft(codes, kinds, visit)
            fixed = jax.lax.stop_gradient(codes)
            return (h, x, fixed, jnp.maximum(memory.seen, fixed)), (kinds, codes, u, jnp.square(added).mean(-1))

        nothing, none = jnp.zeros((shape[0], begun.h.shape[-1])), jnp.zeros((shape[0], size.vocabulary))
        columns = jax.tree.map(lambda part: jnp.moveaxis(part, 1, 0), each)
        _, drawn = jax.lax.scan(body, (nothing, nothing, none, none), columns)
        kinds, codes, u, added = (jnp.moveaxis(part, 0, 1) for part in drawn)
        steps = jnp.maximum(batch.used.sum(dtype=jnp.float32), 1.0)
        moved = jnp.where(batch.used, added, 0.0).sum() / steps
        moved = moved + jnp.square(self.of_patient(noise, embedded)).mean()
        return Trajectory(kinds, codes, u, z), moved


def _drawn_kind(logits: Array, uniform: Array) -> Array:
    """(..., kinds) one-hot of a drawn kind, with the gradient of the probabilities."""
    share = jax.nn.softmax(logits, axis=-1)
    index = (uniform[..., None] >= jnp.cumsum(share, axis=-1)[..., :-1]).sum(-1)
    return jax.lax.stop_gradient(jax.nn.one_hot(index, logits.shape[-1]) - share) + share


def _drawn_codes(logits: Array, uniform: Array) -> Array:
    """(..., V) multi-hot of drawn codes, with the gradient of the probabilities; never the index 0."""
    share = jax.nn.sigmoid(logits).at[..., 0].set(0.0)
    return jax.lax.stop_gradient((uniform < share).astype(jnp.float32) - share) + share


def _bags(seen: Trajectory, batch: Batch) -> Array:
    """(N, V) 1 for each code that a patient ever has."""
    flat = jnp.where(batch.used[..., None], seen.codes, 0.0).reshape(-1, seen.codes.shape[-1])
    return jax.ops.segment_max(flat, batch.patient.reshape(-1), num_segments=batch.real.shape[0]).clip(0.0, 1.0)


def _coverage(real: Array, fake: Array, counted: Array, nearest: int = 5) -> Array:
    """The share of real patients with a fake one nearer than their fifth real neighbour (Naeem et al. 2020)."""

    def distances(left: Array, right: Array) -> Array:
        square = jnp.square(left).sum(-1)[:, None] + jnp.square(right).sum(-1)[None] - 2 * left @ right.T
        return jnp.where(counted[None], square, jnp.inf)

    among = jnp.sort(distances(real, real), axis=-1)[:, min(nearest, real.shape[0] - 1)]
    found = distances(real, fake).min(axis=-1) <= among
    return (found & counted).sum() / jnp.maximum(counted.sum(), 1)

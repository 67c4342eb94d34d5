"""Latent variables: diagonal Gaussians."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ehrsim.models.base import Array


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


class Latent(NamedTuple):
    """A latent variable in training."""

    posterior: Gaussian
    prior: Gaussian
    follower: Gaussian
    """The prior with gradients for its own parameters alone."""

    @property
    def kl(self) -> Array:
        """KL divergence of the posterior to the prior, per dimension."""
        return self.posterior.kl(self.prior)

    def counted(self, free: float) -> Array:
        """The KL divergence per dimension that training counts: none of the first `free` nats (Kingma et al. 2016).

        Within them the prior still learns to follow the posterior, else what is drawn from it would not be what the
        decoder was trained with. Nothing else is bent so that the posterior can be foretold.
        """
        kl = self.kl
        following = jax.lax.stop_gradient(self.posterior).kl(self.follower)
        return jnp.where(kl < free, free + following - jax.lax.stop_gradient(following), kl)


def gaussian(parameters: Array) -> Gaussian:
    """From (..., 2 n): n means, then n log standard deviations, which are kept within bounds."""
    mean, log_std = jnp.split(parameters, 2, axis=-1)
    return Gaussian(mean, jnp.clip(log_std, -5.0, 2.0))

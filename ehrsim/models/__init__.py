"""The models: one file a model, and this registry. To add one, see `docs/add-a-model.md`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ehrsim.batch import Sizes
from ehrsim.errors import UsageError
from ehrsim.models.base import PatientModel
from ehrsim.models.decoder import emission_for
from ehrsim.models.gan import GAN, GANConfig
from ehrsim.models.markov import Markov, MarkovConfig
from ehrsim.models.vae import VAE, VAEConfig, dropout_for


class Family(NamedTuple):
    """A model class, its configuration class, and the presets of the latter."""

    model: Any
    config: type[msgspec.Struct]
    presets: dict[str, msgspec.Struct]
    training: Mapping[str, Any] = MappingProxyType({})
    """What is trained otherwise than the preset of training says."""
    part: str = ""
    """The attribute that holds an autoencoder, if the model is built around one that is trained first."""
    likelihood: bool = True
    """Whether `log_likelihood` gives one; training is stopped by a distance of simulated records else."""

    @property
    def measure(self) -> str:
        """What the tuning loss of a run is given in."""
        return "nats a visit" if self.likelihood else "mean total variation"


SMALL = VAEConfig(emission="set")
BASE = VAEConfig(width=192, attribute_width=96, patient_latent=32, visit_latent=16)
LARGE = VAEConfig(width=512, attribute_width=192, patient_latent=64, visit_latent=32)

MODELS: dict[str, Family] = {
    "markov": Family(
        Markov,
        MarkovConfig,
        {"small": MarkovConfig(), "base": MarkovConfig(), "large": MarkovConfig()},
        # Tables of logits take larger and unclipped steps than a network.
        training={"learning_rate": 3e-2, "clip": 100.0, "weight_decay": 1e-4, "calibration": 0, "raking": 0},
    ),
    "vae": Family(
        VAE,
        VAEConfig,
        {
            # Sets are drawn three times as fast as codes one after the other: enough for a first look.
            "small": SMALL,
            "base": BASE,
            "large": LARGE,
        },
    ),
    "gan": Family(
        GAN,
        GANConfig,
        {
            "small": GANConfig(SMALL),
            "base": GANConfig(BASE, generator_width=192, critic_width=128),
            "large": GANConfig(LARGE, generator_width=512, critic_width=256),
        },
        training={"learning_rate": 2e-3, "momentum": 0.5, "weight_decay": 0.0, "average": 0.99, "calibration": 0},
        part="autoencoder",
        likelihood=False,
    ),
}


def family(name: str) -> Family:
    """The model of a name; raises `UsageError` for an unknown one."""
    if name not in MODELS:
        raise UsageError(f"unknown model `{name}`", hint=f"expected one of {', '.join(MODELS)}")
    return MODELS[name]


def suited(config: msgspec.Struct, visits: int, vocabulary: int, *, anew: bool = False) -> msgspec.Struct:
    """The configuration with that filled in which goes by the number of visits to learn from and of codes.

    What is there already stays, unless it goes by visits and is to be found `anew`: it may have been filled in for
    other data.
    """
    if isinstance(config, GANConfig):
        autoencoder = suited(config.autoencoder, visits, vocabulary, anew=anew)
        return msgspec.structs.replace(config, autoencoder=autoencoder)
    if not isinstance(config, VAEConfig):
        return config
    dropout = dropout_for(visits) if anew or config.dropout is None else config.dropout
    return msgspec.structs.replace(config, dropout=dropout, emission=config.emission or emission_for(vocabulary))


def create(name: str, sizes: Sizes, config: msgspec.Struct, seed: int) -> PatientModel:
    """A model with fresh parameters, which depend on `seed` alone."""
    model: PatientModel = family(name).model(sizes, config, np.random.Generator(np.random.Philox(key=seed)))
    return model

"""The models: one file a model, and this registry. To add one, see `docs/add-a-model.md`."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from ehrsim.batch import Sizes
from ehrsim.errors import UsageError
from ehrsim.models.base import PatientModel
from ehrsim.models.markov import Markov, MarkovConfig
from ehrsim.models.vae import VAE, VAEConfig


class Family(NamedTuple):
    """A model class, its configuration class, and the presets of the latter."""

    model: Any
    config: type[msgspec.Struct]
    presets: dict[str, msgspec.Struct]


MODELS: dict[str, Family] = {
    "markov": Family(
        Markov,
        MarkovConfig,
        {"small": MarkovConfig(), "base": MarkovConfig(), "large": MarkovConfig()},
    ),
    "vae": Family(
        VAE,
        VAEConfig,
        {
            # Sets are drawn three times as fast as codes one after the other: enough for a first look.
            "small": VAEConfig(emission="set"),
            "base": VAEConfig(width=192, attribute_width=96, patient_latent=32, visit_latent=16),
            "large": VAEConfig(width=512, attribute_width=192, patient_latent=64, visit_latent=32),
        },
    ),
}


def family(name: str) -> Family:
    """The model of a name; raises `UsageError` for an unknown one."""
    if name not in MODELS:
        raise UsageError(f"unknown model `{name}`", hint=f"expected one of {', '.join(MODELS)}")
    return MODELS[name]


def create(name: str, sizes: Sizes, config: msgspec.Struct, seed: int) -> PatientModel:
    """A model with fresh parameters, which depend on `seed` alone."""
    model: PatientModel = family(name).model(sizes, config, np.random.Generator(np.random.Philox(key=seed)))
    return model

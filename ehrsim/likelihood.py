"""How likely a model finds records: the figure that training stops by, and that models are compared by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ehrsim import models
from ehrsim.errors import InputError, UsageError
from ehrsim.runs import Run
from ehrsim.visits import encode, packing, table
from ehrsim.visits.packing import Shape
from ehrsim.visits.table import Table


class Score(NamedTuple):
    """The log-likelihood of records under a model, or a lower bound of it where the model has latents."""

    nats: float
    """Sum over all patients."""
    patients: int
    visits: int
    """Steps, the end of each record included."""

    @property
    def loss(self) -> float:
        """Negative log-likelihood in nats a visit: comparable between models of one vocabulary and set of scales."""
        return -self.nats / self.visits


def scorer(steps: Table, shape: Shape) -> Callable[[Any], Score]:
    """A function that scores a model on all patients of `steps`; the draws of its latents are always the same."""
    order = np.arange(steps.patients)
    key = jax.random.key(1)
    total = jax.jit(lambda model, batch: model.log_likelihood(batch, key).sum())

    def score_model(model: Any) -> Score:
        nats, visits = 0.0, 0
        for batch in packing.batches(steps, shape, order, 0):
            nats += float(total(model, batch))
            visits += int(batch.steps)
        return Score(nats, steps.patients, visits)

    return score_model


def score(run: Run, events: pl.LazyFrame | pl.DataFrame) -> Score:
    """The likelihood of whole records under a run: use patients it was not trained on.

    Events whose codes the run does not know are left out, as in training. Raises `InputError` if nothing remains, and
    `UsageError` for a model without a likelihood.
    """
    if not models.family(run.config.model).likelihood:
        raise UsageError(
            f"a model of kind `{run.config.model}` has no likelihood",
            hint="compare what it simulates with real patients (benchmarks/fidelity.py), or fit --model vae",
        )
    sequences, _ = encode(events.lazy().collect(), run.vocabulary, step_seconds=run.scales.step_seconds)
    steps, _ = table.tabulate(sequences, run.scales, run.model.sizes)
    if not steps.patients:
        raise InputError("no patient of these events has a visit or a known life span", hint="see ehrsim inspect")
    shape = packing.suggest_shape(steps, run.config.training["steps_per_batch"])
    return scorer(steps, shape)(run.model)


class Likelihoods(NamedTuple):
    """The log-likelihood of every patient, or a lower bound of it where the model has latents."""

    subject: NDArray[np.int64]
    """(P,) ascending"""
    nats: NDArray[np.float64]
    """(P,)"""
    steps: NDArray[np.int64]
    """(P,) the end of the record included; what is beyond the longest row of a batch is cut and not counted"""


def of_patients(run: Run, events: pl.LazyFrame | pl.DataFrame, *, draws: int = 1) -> Likelihoods:
    """The likelihood of each patient under a run, given sex and the other statics.

    A Markov model has an exact one. A VAE has a lower bound (evidence lower bound), the mean over `draws` of the
    latents. A GAN has none: what is given is the bound of its autoencoder, which its generator works in and which saw
    the same patients. Patients of whom neither a visit nor a life span is known are left out. Raises `InputError` if
    nobody remains.
    """
    family = models.family(run.config.model)
    model: Any = run.model if family.likelihood else getattr(run.model, family.part)
    sequences, _ = encode(events.lazy().collect(), run.vocabulary, step_seconds=run.scales.step_seconds)
    steps, _ = table.tabulate(sequences, run.scales, run.model.sizes)
    if not steps.patients:
        raise InputError("no patient of these events has a visit or a known life span", hint="see ehrsim inspect")
    shape = packing.suggest_shape(steps, run.config.training["steps_per_batch"])
    each = jax.jit(lambda model, batch, key: model.log_likelihood(batch, key))
    nats = np.zeros(steps.patients)
    for batch in packing.batches(steps, shape, np.arange(steps.patients), 0):
        real = np.asarray(batch.real)
        for draw in range(draws):
            nats[batch.number[real]] += np.asarray(each(model, batch, jax.random.key(draw + 1)))[real] / draws
    lengths = np.minimum(np.diff(steps.step_offsets), shape.steps)
    return Likelihoods(table.usable(sequences).subject, nats, lengths)

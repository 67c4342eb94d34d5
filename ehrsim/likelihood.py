"""How likely a model finds records: the figure that training stops by, and that models are compared by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl

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

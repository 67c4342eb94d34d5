"""Models with one part taken out each, and what is taken out of the data with it: what `ablations.py` trains.

Where a configuration has a switch, that is used. The rest is done to the fresh model: one of its modules is wrapped or
replaced, so that the model itself needs no switches that nobody would want to use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Moment, Sizes
from ehrsim.models.base import Array, EventHeads, Heads, Measured, Memory
from ehrsim.models.decoder import VisitDecoder
from ehrsim.models.emission import CodeLogits
from ehrsim.models.layers import Dropout, kept
from ehrsim.models.precursors import PrecursorTerm
from ehrsim.models.shift import Shift
from ehrsim.models.vae import VAE
from ehrsim.visits.table import Table


class WithoutLastValues(nnx.Module):
    """A decoder whose events are not told earlier values of their code; those of other codes in the visit they are."""

    def __init__(self, decoder: VisitDecoder) -> None:
        self.decoder = decoder

    def __call__(self, inputs: Array, before: Moment, memory: Memory, drop: Dropout = kept) -> Heads:
        """As `VisitDecoder`."""
        heads = self.decoder(inputs, before, memory, drop)
        return heads._replace(events=lambda visit: _without_last_values(heads.events(visit)))

    def shifted(self, shift: Shift) -> WithoutLastValues:
        """The decoder with its logits shifted."""
        return WithoutLastValues(self.decoder.shifted(shift))


def _without_last_values(heads: EventHeads) -> EventHeads:
    def unknown(measured: Measured) -> Measured:
        nothing = jnp.zeros_like(measured.last_rank)
        return Measured(measured.code, nothing - 1, nothing, nothing, nothing)

    return heads._replace(
        repeat=lambda state, measured: heads.repeat(state, unknown(measured)),
        attributes=lambda state, measured: heads.attributes(state, unknown(measured)),
        value=lambda state, measured: heads.value(state, unknown(measured)),
        after=lambda state, code, rank, last: heads.after(state, code, rank, jnp.full_like(last, -1.0)),
    )


def by_rank(steps: Table, sizes: Sizes) -> Table:
    """The table with all values told by the bin of their rank, none as that of the last time."""
    visit, bins = steps.visit, sizes.value_bins
    own = 1 + np.minimum((visit.rank * bins).astype(np.int32), bins - 1)
    return steps._replace(visit=visit._replace(value=np.where(visit.value == sizes.same, own, visit.value)))


class WithoutCopies(nnx.Module):
    """Logits of codes that know neither the codes of the step before nor those of any before, but for precursors.

    For the ordered emission and that of sets; the one in two levels looks into the logits.
    """

    def __init__(self, logits: CodeLogits) -> None:
        self.logits = logits

    def matched(self, query: Array, part: slice) -> Array:
        """As `CodeLogits`."""
        return self.logits.matched(query, part)

    def recalled(self, gates: Array, kind: Array, moment: Moment, memory: Memory, part: slice) -> Array:
        """As `CodeLogits`."""
        nothing = jnp.zeros_like(memory.seen)
        return self.logits.recalled(gates, kind, moment, memory._replace(previous=nothing, seen=nothing), part)

    @property
    def precursors(self) -> PrecursorTerm:
        """As `CodeLogits`."""
        return self.logits.precursors

    def shifted(self, shift: Shift) -> WithoutCopies:
        """The logits with those of codes shifted."""
        return WithoutCopies(self.logits.shifted(shift))


class Nought(nnx.Module):
    """In place of the layer that gives a prior: all means and log standard deviations are 0."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def __call__(self, x: Array) -> Array:
        """(..., inputs) -> (..., outputs)."""
        return jnp.zeros((*x.shape[:-1], self.outputs))


class Variant(NamedTuple):
    """A model to train: the whole one, with what is said here changed."""

    what: str
    model: str = "vae"
    config: Mapping[str, Any] = MappingProxyType({})
    """Fields of the model's configuration, and `training` of that of training."""
    training: Mapping[str, Any] = MappingProxyType({})
    sizes: Callable[[Sizes], Sizes] = lambda sizes: sizes
    fresh: Callable[[Any], Any] = lambda model: model
    """The untrained model without the part."""
    steps: Callable[[Table, Sizes], Table] = lambda steps, sizes: steps
    """The records as the model is told them."""


def _changed(model: VAE) -> VAE:
    changed: VAE = jax.tree.map(lambda part: part, model)
    return changed


def _told_no_last_values(model: VAE) -> VAE:
    changed = _changed(model)
    changed.decoder = WithoutLastValues(changed.decoder)
    return changed


def _copying_nothing(model: VAE) -> VAE:
    changed = _changed(model)
    changed.decoder.emission.logits = WithoutCopies(changed.decoder.emission.logits)
    return changed


def _with_plain_priors(model: VAE) -> VAE:
    changed = _changed(model)
    changed.prior_patient = Nought(2 * model.config.patient_latent)
    changed.prior_visit = Nought(2 * model.config.visit_latent)
    return changed


VARIANTS: dict[str, Variant] = {
    "whole": Variant("the sequence VAE with all its parts"),
    "another-seed": Variant("the same with another seed: what chance alone changes", training={"seed": 1}),
    "no-visit-latent": Variant("no latent of a visit", config={"visit_latent": 0}),
    "no-patient-latent": Variant("no latent of the patient", config={"patient_latent": 0}),
    "plain-priors": Variant("standard normal priors of both latents, not learned ones", fresh=_with_plain_priors),
    "set": Variant("codes as independent sets, group by group, not one after the other", config={"emission": "set"}),
    "two-level": Variant("codes one after the other, a block of them first", config={"emission": "two-level"}),
    "one-set": Variant(
        "codes as one independent set, not in groups",
        config={"emission": "set"},
        sizes=lambda sizes: sizes._replace(groups=((sizes.groups[0][0], sizes.groups[-1][1]),)),
    ),
    "no-copies": Variant("no copy terms of codes that the patient had", fresh=_copying_nothing),
    "no-precursors": Variant("no precursors", sizes=lambda sizes: sizes._replace(precursors=(), classes=())),
    "no-last-values": Variant(
        "values not told earlier values of their code", fresh=_told_no_last_values, steps=by_rank
    ),
    "no-dropout": Variant("no dropout", config={"dropout": 0.0}),
    "no-calibration": Variant("biases not calibrated in the end", training={"calibration": 0}),
    "no-raking": Variant("not raked", training={"raking": 0}),
    "gan": Variant("a generator trained against a critic on top of the whole VAE", model="gan"),
}
"""By name. The `gan` without its adversarial part is the whole VAE."""

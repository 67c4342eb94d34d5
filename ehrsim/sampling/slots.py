"""Slots: each carries one patient along on the device, and takes the next one when the record ends."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ehrsim.batch import Context, Moment, Visit
from ehrsim.models.base import PatientModel
from ehrsim.sampling.counters import Counters, counters

Array = jax.Array


class Tables(NamedTuple):
    """Constants of a run on the device."""

    step_seconds: Array
    """() float32"""
    gap_knots: Array
    """(short gaps, 5) float32 time bins"""
    landing_knots: Array
    """(long gaps, 5) float32 time bins before the horizon"""
    long_gap: Array
    """() int32 the longest gap that is not a long one"""
    first_gap_knots: Array
    """(short first gaps, 5) float32 time bins, and `first_landing_knots` (long ones, 5) time bins before the horizon"""
    first_landing_knots: Array
    origin_knots: Array
    horizon: Array
    """() int32 last time bin of any record; a record that would pass it ends there."""
    births_known: Array
    """() bool, and `ends_known` () bool: whether the end of observation is part of a record."""
    ends_known: Array
    valued: Array
    """(V,) bool: codes with numeric values, and `ended` (V,): codes with ends."""
    ended: Array
    profiles: Array
    """(profiles, S) int32 joint values of the statics, and `profile_weight` (profiles,) their cumulated shares."""
    profile_weight: Array
    offered: Array
    """(offers, C) int32 context codes to choose from, and `offer_weight` (offers,) cumulated shares."""
    offer_weight: Array
    outcome: Array
    """() int32 outcome asked for: 0 any, 1 alive, 2 dead."""
    required: Array
    """(requirements, V) bool: at least one code of each row must occur."""
    excluded: Array
    """(V,) bool: none of these may occur."""
    age_range: Array
    """(2,) float32 ages at the end of the record, from the first up to but excluding the second."""
    ages: Array
    """(2,) float32 the same as `Context` has them."""


class Remembered(NamedTuple):
    """What is remembered of the codes and values of B patients, each (B, V) float32."""

    seen: Array
    """1 for codes of any step so far."""
    last_rank: Array
    """Of the last value, -1 where never measured."""
    last_time: Array
    """Age in years at the last value."""
    measurements: Array
    """Values so far."""
    total_rank: Array
    """Sum of their ranks."""


class Slots(NamedTuple):
    """The state of B slots."""

    patient: Array
    """(B,) int32 global patient index; from `end` on the slot is idle."""
    attempt: Array
    visit_number: Array
    draws: Counters
    """The keys of the step to come. Carried along because XLA would hash them anew for every number drawn from them."""
    origin: Array
    """(B,) int32 time bin of birth, or of the first step."""
    time: Array
    """(B,) int32 time bin of the step before, and `begun` (B,) of the first step."""
    begun: Array
    first_clock: Array
    """(B,) int32 clock of the first step."""
    context: Context
    state: Any
    visit: Visit
    """The step before."""
    remembered: Remembered
    waiting: Array
    """() int32 the next patient to hand out."""


class Row(NamedTuple):
    """One step as it leaves the device. Uniforms place a value inside its bin."""

    patient: Array
    attempt: Array
    origin: Array
    origin_clock: Array
    statics: Array
    time: Array
    kind: Array
    clock: Array
    clock_within: Array
    length: Array
    length_within: Array
    codes: Array
    offset: Array
    offset_within: Array
    value: Array
    rank: Array
    duration: Array
    duration_within: Array
    accepted: Array
    """(B,) bool on the terminal step of a patient who meets the conditions."""
    truncated: Array
    moved: Array
    """(B,) bool where a future begins at the date asked for because none that began later was found."""


def empty_slots(model: PatientModel, tables: Tables, seed: Array, first: int, slots: int) -> Slots:
    """Slots holding the first patients, each before its first visit."""
    sizes = model.sizes
    index = jnp.arange(slots, dtype=jnp.int32)
    context = _blank_context(tables, slots)
    zero = jnp.zeros(slots, jnp.int32)
    nothing = jnp.zeros(slots)
    state = model.start(jnp.zeros((slots, model.noise.start)), context, Moment(*[nothing] * len(Moment._fields)))
    return Slots(
        patient=first + index,
        attempt=zero,
        visit_number=zero,
        draws=counters(seed, first + index, zero, zero),
        origin=zero,
        time=zero,
        begun=zero,
        first_clock=zero,
        context=context,
        state=state,
        visit=blank_visit(slots, sizes.places),
        remembered=nothing_remembered(slots, sizes.vocabulary),
        waiting=jnp.int32(first + slots),
    )


def _blank_context(tables: Tables, slots: int) -> Context:
    return Context(
        statics=jnp.zeros((slots, tables.profiles.shape[1]), jnp.int32),
        outcome=jnp.zeros(slots, jnp.int32),
        codes=jnp.zeros((slots, tables.offered.shape[1]), jnp.int32),
        ages=jnp.full((slots, 2), jnp.nan, jnp.float32),
    )


def nothing_remembered(slots: int, vocabulary: int) -> Remembered:
    """That of patients before their first step."""
    nothing = jnp.zeros((slots, vocabulary), jnp.float32)
    return Remembered(nothing, nothing - 1, nothing, nothing, nothing)


def blank_visit(slots: int, places: int) -> Visit:
    """No visit at all, in every slot."""
    whole, real = jnp.zeros(slots, jnp.int32), jnp.zeros(slots, jnp.float32)
    whole_places, real_places = jnp.zeros((slots, places), jnp.int32), jnp.zeros((slots, places), jnp.float32)
    return Visit(
        kind=whole,
        gap=whole,
        clock=whole,
        length=whole,
        age=real,
        year=real,
        elapsed=real,
        steps=real,
        since=real,
        codes=whole_places,
        offset=whole_places,
        value=whole_places,
        rank=real_places,
        duration=whole_places,
        last_rank=real_places - 1,
        last_age=real_places,
        measurements=real_places,
        mean_rank=real_places,
    )

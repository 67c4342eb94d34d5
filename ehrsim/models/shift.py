"""Shifts of a decoder's logits, by which simulated records are given the margins of real ones (`ehrsim.raking`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ehrsim.batch import Moment, Sizes
from ehrsim.models.layers import PROSPECT_FEATURES

Array = Any
"""A NumPy array on the host, a JAX array on the device."""

STEP_EDGES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 22, 30, 42, 60, 85, 120, 170, 240, 340, 480)
"""Where a record has had so many steps, another bin of `Shift.kind` begins."""
STEP_BINS = len(STEP_EDGES) + 1
AGE_EDGES = (1, 2, 5, 10, 18, 30, 40, 50, 60, 70, 80, 90)
"""Years of age (since the patient's origin) where another bin begins."""
AGE_BINS = len(AGE_EDGES) + 1
GAP_EDGES = (0.005, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Years since the step before where another class of gaps begins."""
GAP_CLASSES = len(GAP_EDGES) + 2
"""Those, and that there was no step before."""


class Shift(NamedTuple):
    """What is added to logits."""

    kind: Array
    """(STEP_BINS, kinds) by how many steps a record has had"""
    kind_by_age: Array
    """(AGE_BINS, kinds) by the age at the step before"""
    gap: Array
    """(AGE_BINS, gaps) by the age at the step before"""
    length: Array
    """(kinds, lengths) of a visit's length"""
    first: Array
    """(AGE_BINS, V) of codes that the patient never had, by age"""
    first_by_gap: Array
    """(GAP_CLASSES, V) the same by the time since the step before"""
    first_by_static: Array
    """(statics, V) the same by what is known of the patient once and for all"""
    led: Array
    """(precursors,) of their codes where one of these is known, beyond `first`"""
    led_at_once: Array
    """(precursors,) the same in the step in which it comes, beyond `led`"""
    again: Array
    """(V,) of codes that the patient has had"""
    wanted: Array
    """(PROSPECT_FEATURES, V) of how likely a code is still to come: see `ehrsim.prospects`"""
    following: Array
    """(places + 1, groups + 1) of the group of the code that comes after so many in a step, where they come one after
    the other; first, that there is no more"""
    first_value: Array
    """(V, value bins) by the rank of a value, where the code had none before"""
    later_value: Array
    """(V, value bins) where it had"""


def no_shift(sizes: Sizes) -> Shift:
    """The shift that changes nothing."""
    codes, of_rank = sizes.vocabulary, (sizes.vocabulary, sizes.value_bins)
    return Shift(
        kind=np.zeros((STEP_BINS, sizes.kinds)),
        kind_by_age=np.zeros((AGE_BINS, sizes.kinds)),
        gap=np.zeros((AGE_BINS, sizes.gaps)),
        length=np.zeros((sizes.kinds, sizes.lengths)),
        first=np.zeros((AGE_BINS, codes)),
        first_by_gap=np.zeros((GAP_CLASSES, codes)),
        first_by_static=np.zeros((sizes.statics, codes)),
        led=np.zeros(len(sizes.precursors)),
        led_at_once=np.zeros(len(sizes.precursors)),
        again=np.zeros(codes),
        wanted=np.zeros((PROSPECT_FEATURES, codes)),
        following=np.zeros((sizes.places + 1, len(sizes.groups) + 1)),
        first_value=np.zeros(of_rank),
        later_value=np.zeros(of_rank),
    )


def age_bin(age: Array) -> Array:
    """(...) int32 the bin of an age in years."""
    return jnp.searchsorted(jnp.array(AGE_EDGES, jnp.float32), age, side="right", method="compare_all")


def gap_class(moment: Moment) -> Array:
    """(...) int32 the class of the gap before a moment, 0 at a patient's first step."""
    after = jnp.searchsorted(jnp.array(GAP_EDGES, jnp.float32), moment.since, side="right", method="compare_all") + 1
    return jnp.where(moment.steps > 0, after, 0)


def step_bin(steps: Array) -> Array:
    """(...) int32 the bin of `Shift.kind` of a step with so many before it."""
    return jnp.searchsorted(jnp.array(STEP_EDGES, jnp.float32), steps, side="right", method="compare_all")

"""Shifts of a decoder's logits, by which simulated records are given the margins of real ones (`ehrsim.raking`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ehrsim.batch import Sizes

Array = Any
"""A NumPy array on the host, a JAX array on the device."""

STEP_EDGES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 22, 30, 42, 60, 85, 120, 170, 240, 340, 480)
"""Where a record has had so many steps, another bin of `Shift.kind` begins."""
STEP_BINS = len(STEP_EDGES) + 1


class Shift(NamedTuple):
    """What is added to logits."""

    kind: Array
    """(STEP_BINS, kinds) by how many steps a record has had"""
    gap: Array
    """(gaps,)"""
    first: Array
    """(V,) of codes that the patient never had"""
    led: Array
    """(precursors,) of their codes where one of these is known"""
    again: Array
    """(V,) of codes that the patient has had"""
    no_more: Array
    """(places + 1,) that a step has no more codes than so many, where they come one after the other"""
    first_value: Array
    """(V, value bins) by the rank of a value, where the code had none before"""
    later_value: Array
    """(V, value bins) where it had"""


def no_shift(sizes: Sizes) -> Shift:
    """The shift that changes nothing."""
    codes, of_rank = (sizes.vocabulary,), (sizes.vocabulary, sizes.value_bins)
    shapes = (
        (STEP_BINS, sizes.kinds),
        (sizes.gaps,),
        codes,
        (len(sizes.precursors),),
        codes,
        (sizes.places + 1,),
        of_rank,
        of_rank,
    )
    return Shift(*(np.zeros(shape) for shape in shapes))


def step_bin(steps: Array) -> Array:
    """(...) int32 the bin of `Shift.kind` of a step with so many before it."""
    return jnp.searchsorted(jnp.array(STEP_EDGES, jnp.float32), steps, side="right", method="compare_all")

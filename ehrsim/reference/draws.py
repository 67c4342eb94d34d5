"""Random draws that depend only on (seed, patient, purpose, step): the same for any number, order or batch of patients.

Counter-based: a draw is a finaliser of splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195) applied to
the patient's own 64-bit key plus a mixed counter. Nothing is kept between draws.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _TOP_53 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 1.0 / (1 << 53)


def _mix(values: Keys) -> Keys:
    """The splitmix64 finaliser, a bijection of 64-bit words; works in place on a fresh array."""
    values ^= values >> _SHIFT_1
    values *= _MULTIPLIER_1
    values ^= values >> _SHIFT_2
    values *= _MULTIPLIER_2
    values ^= values >> _SHIFT_3
    return values


@lru_cache(maxsize=1 << 12)
def purpose_key(purpose: str) -> int:
    """The 64-bit number of a named purpose, stable across versions and platforms."""
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest())


def patient_keys(seed: int, patients: Ints) -> Keys:
    """The key of each patient index under a seed (any integer)."""
    start = np.full(patients.shape, purpose_key(f"seed {seed}"), np.uint64)
    return _mix(_mix(start + patients.astype(np.uint64) * _GAMMA) + _GAMMA)


def uniform(keys: Keys, purpose: str, step: int | Ints = 0) -> Floats:
    """Uniform numbers in the open interval (0, 1), one for each key; `step` numbers the draws of one purpose."""
    return _to_unit(_mix(keys + _counter(purpose, step)))


def uniform_below(keys: Keys, purpose: str, step: int, ceiling: float) -> tuple[Ints, Floats]:
    """Where `uniform` draws less than `ceiling`, and what it draws there; a third of the work where that is rare."""
    mixed = _mix(keys + _counter(purpose, step))
    # Integers are compared first, one step too far; the comparison of the few numbers that remain settles the edge.
    highest = (int(min(ceiling, 0.5) / _UNIT) + 1) << 11
    chosen = np.flatnonzero(mixed <= np.uint64(highest)) if ceiling < 0.5 else np.arange(len(keys))
    draws = _to_unit(mixed[chosen])
    below = draws < ceiling
    return chosen[below], draws[below]


def _counter(purpose: str, step: int | Ints) -> np.uint64 | Keys:
    if isinstance(step, int):
        return _counter_of_one(purpose, step)
    return _mix(step.astype(np.int64).view(np.uint64) * _GAMMA + np.uint64(purpose_key(purpose)))


@lru_cache(maxsize=1 << 16)
def _counter_of_one(purpose: str, step: int) -> np.uint64:
    return np.uint64(_mix(np.array([step], np.int64).view(np.uint64) * _GAMMA + np.uint64(purpose_key(purpose)))[0])


def _to_unit(mixed: Keys) -> Floats:
    return ((mixed >> _TOP_53).astype(np.float64) + 0.5) * _UNIT


def normal(keys: Keys, purpose: str, step: int | Ints = 0) -> Floats:
    """Standard normal numbers by inverse distribution function, |z| below 8.3."""
    return np.asarray(ndtri(uniform(keys, purpose, step)), np.float64)


def choose(uniforms: Floats, weights: Floats) -> Ints:
    """The index each uniform number selects from `weights` (any positive sum)."""
    edges = np.cumsum(weights)
    index = np.searchsorted(edges, uniforms * edges[-1], side="right")
    return np.asarray(np.minimum(index, len(weights) - 1), np.int64)

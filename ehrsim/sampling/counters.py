"""Random numbers by counter: each is a hash of the run's seed, the patient, the visit, a purpose and a place.

No number depends on any other, so it does not matter in which order, beside which patients, or whether at all the
others are drawn. The hash is Threefry-2x32 with 20 rounds, the one of `jax.random` (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), written out: on a CPU XLA makes one pass of it together with what uses the
numbers, where `jax.random` loops over the rounds with all numbers in memory, up to three times as long.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_ATTEMPT_BITS = 12


class Purpose(IntEnum):
    """What a random number is for."""

    START = 0
    STEP = 1
    ONCE = 2
    REPEAT = 3
    OFFSET = 4
    OFFSET_WITHIN = 5
    VALUE = 6
    RANK = 7
    DURATION = 8
    DURATION_WITHIN = 9
    CODES = 16
    """Of the first group of codes, or of blocks of codes; those of the other groups, or of codes in blocks, follow."""


def threefry(key: tuple[Array, Array], counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Hash two uint32 words of a counter under two of a key; all four of shapes that broadcast."""
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    left, right = counter[0] + schedule[0], counter[1] + schedule[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            left = left + right
            right = ((right << np.uint32(rotation)) | (right >> np.uint32(32 - rotation))) ^ left
        left = left + schedule[(block + 1) % 3]
        right = right + schedule[(block + 2) % 3] + np.uint32(block + 1)
    return left, right


class Counters(NamedTuple):
    """The keys of one visit of each of B patients."""

    left: Array
    """(B,) uint32, and `right` (B,) uint32."""
    right: Array

    def bits(self, purpose: int, count: int) -> Array:
        """(B, count) uint32 numbers for a purpose."""
        places = jnp.arange(count, dtype=jnp.uint32)[None]
        return threefry((self.left[:, None], self.right[:, None]), (jnp.full_like(places, purpose), places))[0]

    def uniform(self, purpose: int, count: int) -> Array:
        """(B, count) numbers evenly between 0 and 1, both excluded."""
        return _uniform(self.bits(purpose, count))

    def uniform_at(self, purpose: int, row: Array, place: Array) -> Array:
        """Those of `uniform` at chosen rows and places, arrays of shapes that broadcast."""
        key = (self.left[row], self.right[row])
        place = place.astype(jnp.uint32)
        return _uniform(threefry(key, (jnp.full_like(place, purpose), place))[0])

    def normal(self, purpose: int, count: int) -> Array:
        """(B, count) standard normal numbers."""
        return np.float32(np.sqrt(2)) * jax.scipy.special.erfinv(2 * self.uniform(purpose, count) - 1)


def counters(seed: Array, patient: Array, attempt: Array, visit: Array) -> Counters:
    """The keys of visits from the run's key and the (B,) int32 numbers of patient, attempt (below 4,096) and visit."""
    words = jax.random.key_data(seed)
    of_visit = visit.astype(jnp.uint32) << np.uint32(_ATTEMPT_BITS) | attempt.astype(jnp.uint32)
    return Counters(*threefry((words[0], words[1]), (patient.astype(jnp.uint32), of_visit)))


def _uniform(bits: Array) -> Array:
    """The middles of 2^23 equal parts of the unit interval: exact in float32, and so are their negatives from 1."""
    return ((bits >> np.uint32(9)).astype(jnp.int32).astype(jnp.float32) + np.float32(0.5)) * np.float32(2.0**-23)

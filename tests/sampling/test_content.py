"""What a step holds: values one after the other."""

import jax.numpy as jnp
import numpy as np

from ehrsim.batch import CHANGES
from ehrsim.models.base import Attributes, EventHeads
from ehrsim.models.values import possible
from ehrsim.sampling.content import draw_attributes
from ehrsim.sampling.counters import Counters
from ehrsim.sampling.slots import blank_visit

SLOTS, PLACES, VALUES = 70, 5, 6 + CHANGES
"""More slots than twice `FEWEST_SLOTS`, so that they are halved on the way."""


class Sizes:
    value_bins = 4
    same = 5


class Tables:
    valued = jnp.array([False, True, True, False])
    ended = jnp.zeros(4, bool)


def drawn(codes, last_rank, value):
    """Values of codes (B, K) under a model that knows how many values it has seen of the visit."""
    visit = blank_visit(len(codes), PLACES)._replace(
        codes=jnp.asarray(codes), last_rank=jnp.asarray(last_rank, jnp.float32)
    )

    def attributes(_, measured):
        return Attributes(jnp.zeros((*measured.code.shape, 2)), jnp.zeros((*measured.code.shape, 2)))

    heads = EventHeads(
        state=jnp.zeros(len(codes)),
        repeat=lambda state, measured: None,
        attributes=attributes,
        value=value,
        after=lambda known, *value: known + 1,
        length=lambda: None,
    )
    words = jnp.arange(len(codes), dtype=jnp.uint32)
    return draw_attributes(heads, visit, Tables, Sizes, Counters(words, words + 1))


def test_the_same_value_has_the_rank_of_the_last_one():
    rng = np.random.default_rng(0)
    codes = np.sort(rng.integers(0, 4, (SLOTS, PLACES)))[:, ::-1].copy()
    last_rank = np.where(rng.random((SLOTS, PLACES)) < 0.5, rng.random((SLOTS, PLACES)), -1)

    def value(known, measured):
        likely = np.where(np.arange(VALUES) == Sizes.same, 50.0, 0.0).astype(np.float32)
        logits = jnp.broadcast_to(likely, (len(measured.code), VALUES))
        return possible(logits, measured.last_rank)

    visit = drawn(codes, last_rank, value)
    valued, known = np.isin(codes, (1, 2)), last_rank >= 0
    np.testing.assert_array_equal(visit.value[valued & known], Sizes.same)
    np.testing.assert_allclose(visit.rank[valued & known], last_rank[valued & known], rtol=1e-6)
    assert (np.asarray(visit.value)[valued & ~known] < Sizes.same).all()
    assert (np.asarray(visit.value)[~valued] == 0).all()


def test_each_value_is_told_those_before_it_in_its_visit():
    rng = np.random.default_rng(1)
    codes = np.sort(rng.integers(0, 4, (SLOTS, PLACES)))[:, ::-1].copy()

    def value(known, measured):
        return jnp.where(np.arange(VALUES, dtype=np.float32)[None] == 1 + known[:, None], 50.0, 0.0)

    values = np.asarray(drawn(codes, np.full((SLOTS, PLACES), -1), value).value)
    turn = np.cumsum(np.isin(codes, (1, 2)), axis=1)
    there = np.isin(codes, (1, 2)) & (turn < VALUES)
    np.testing.assert_array_equal(values[there], turn[there])
    assert turn.max() >= 4

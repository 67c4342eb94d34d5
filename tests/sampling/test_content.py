"""What a step holds: values one after the other."""

import jax.numpy as jnp
import numpy as np

from ehrsim.batch import CHANGES
from ehrsim.models.base import Attributes, EventHeads, Measured, following, nothing_measured
from ehrsim.models.values import possible
from ehrsim.sampling.advance import is_last
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
    codes = np.sort(rng.permuted(np.tile([0, 0, 1, 2, 3], (SLOTS, 1)), axis=1)[:, :4])[:, ::-1]
    codes = np.pad(codes, ((0, 0), (0, PLACES - 4)))
    last_rank = np.where(rng.random((SLOTS, PLACES)) < 0.5, rng.random((SLOTS, PLACES)), -1)

    def value(known, measured):
        likely = np.where(np.arange(VALUES) == Sizes.same, 50.0, 0.0).astype(np.float32)
        logits = jnp.broadcast_to(likely, (len(measured.code), VALUES))
        return possible(logits, measured.last_rank, (jnp.zeros(len(logits)), jnp.zeros(len(logits))))

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


def test_a_code_that_occurs_again_is_told_its_values_in_the_same_visit():
    codes = np.tile([1, 1, 1, 2, 2], (SLOTS, 1))
    asked = []

    def value(_, measured):
        asked.append(measured)
        # The first time a rank that the slot decides, then the same again.
        first = jnp.where(jnp.arange(VALUES)[None] == 1 + jnp.arange(len(measured.code))[:, None] % 4, 50.0, 0.0)
        again = jnp.broadcast_to(jnp.where(jnp.arange(VALUES) == Sizes.same, 50.0, 0.0), first.shape)
        return jnp.where(measured.last_rank[:, None] < 0, first, again)

    visit = drawn(codes, np.full((SLOTS, PLACES), -1), value)
    values, rank = np.asarray(visit.value), np.asarray(visit.rank)
    assert (values[:, [0, 3]] < Sizes.same).all()
    assert (values[:, [1, 2, 4]] == Sizes.same).all()
    assert (rank[:, :3] == rank[:, :1]).all()
    assert (rank[:, 3] == rank[:, 4]).all()
    assert len(np.unique(rank)) > SLOTS


def test_what_is_known_of_a_code_goes_on_from_place_to_place():
    codes, values, ranks = [3, 3, 3, 4, 4], [2, 0, 5, 1, 1], [0.25, 0.9, 0.75, 0.5, 0.5]
    before = nothing_measured(jnp.zeros(1))
    seen = []
    for code, value, rank in zip(codes, values, ranks, strict=True):
        asked = Measured(*(jnp.array([number]) for number in (code, 0.1, 2.0, 3.0, 0.5)))
        known, before = following(asked, before, jnp.array([value]), jnp.array([rank]))
        seen.append(np.array(known)[:, 0])
    np.testing.assert_allclose(seen[0], [3, 0.1, 2.0, 3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(seen[1], [3, 0.25, 0.0, 4, 1.75 / 4], rtol=1e-6)
    np.testing.assert_allclose(seen[2], seen[1])
    np.testing.assert_allclose(seen[3], [4, 0.1, 2.0, 3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(seen[4], [4, 0.5, 0.0, 4, 0.5], rtol=1e-6)


def test_the_last_place_of_each_code_is_found():
    codes = jnp.array([[3, 3, 0, 5, 7, 0, 7, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(is_last(codes), [[0, 1, 0, 1, 0, 0, 1, 0], [0] * 8])

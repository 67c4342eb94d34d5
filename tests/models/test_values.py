"""Values by rank, as the same, or by their change: one density, whichever way a value is told."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ehrsim.batch import CHANGES
from ehrsim.models.values import EDGES, log_probability, possible, rank_at, tie_of

BINS, FINE = 8, 200_000


class Sizes:
    value_bins = BINS
    same = BINS + 1


def logits_for(last: float, tie: tuple[float, float] = (0.0, 0.0)) -> jax.Array:
    free = 1.5 * jax.random.normal(jax.random.key(4), (1, BINS + 2 + CHANGES))
    return possible(free, jnp.array([last], jnp.float32), tuple(jnp.array([bound]) for bound in tie))


def density(logits, ranks, last):
    """Of ranks (n,), as of a uniform one."""
    index = jnp.asarray(1 + (ranks * BINS).astype(np.int32))
    many = jnp.broadcast_to(logits, (len(ranks), logits.shape[-1]))
    scored = log_probability(many, index, jnp.asarray(ranks), jnp.full(len(ranks), last, jnp.float32))
    return np.exp(np.asarray(scored, np.float64)) * BINS


@pytest.mark.parametrize("last", [-1.0, 0.0, 0.003, 0.5, 0.93, 0.9997])
def test_all_ways_to_tell_a_value_add_up_to_one(last):
    logits = logits_for(last)
    ranks = ((np.arange(FINE) + 0.5) / FINE).astype(np.float32)
    whole = density(logits, ranks, last).mean()
    share = jax.nn.softmax(logits, axis=-1)[0]
    others = float(share[0] + share[Sizes.same])
    assert np.isclose(whole + others, 1, atol=2e-3)
    assert (float(share[Sizes.same]) > 0) == (last >= 0)


@pytest.mark.parametrize(("last", "tie"), [(0.3, (0.2, 0.9)), (0.0, (0.0, 0.5)), (0.99, (0.1, 1.0)), (0.6, (0.0, 1.0))])
def test_a_value_that_takes_whole_bins_is_told_again_in_one_way_alone(last, tie):
    logits = logits_for(last, tie)
    ranks = ((np.arange(FINE) + 0.5) / FINE).astype(np.float32)
    found = density(logits, ranks, last)
    share = jax.nn.softmax(logits, axis=-1)[0]
    assert np.isclose(found.mean() + float(share[0] + share[Sizes.same]), 1, atol=2e-3)
    low, high = np.ceil(tie[0] * BINS) / BINS, np.floor(tie[1] * BINS) / BINS
    # By rank a bin that lies but partly in the tie leads into its edges.
    inside = (ranks > low) & (ranks < high)
    assert inside.any()
    assert found[inside].max() == 0
    assert found[(ranks < tie[0]) | (ranks > tie[1])].min(initial=1) > 0


def test_the_tie_of_a_rank_is_that_of_its_code():
    sizes = SimpleNamespace(ties=((1, 0.25, 0.5), (3, 0.0, 0.25), (3, 0.5, 1.0)), vocabulary=5)
    code, last = jnp.array([1, 1, 3, 3, 3, 2, 3]), jnp.array([0.3, 0.5, 0.1, 0.3, 0.5, 0.3, -1.0])
    low, high = tie_of(sizes, code, last)
    np.testing.assert_array_equal(low, [0.25, 0, 0, 0, 0.5, 0, 0])
    np.testing.assert_array_equal(high, [0.5, 0, 0.25, 0, 1.0, 0, 0])
    low, high = tie_of(SimpleNamespace(ties=()), code, last)
    assert not low.any()
    assert not high.any()


@pytest.mark.parametrize("last", [-1.0, 0.02, 0.6])
def test_what_is_drawn_has_the_density_that_is_learned(last):
    logits = logits_for(last)
    draws = 400_000
    index = jax.random.categorical(jax.random.key(1), logits[0], shape=(draws,))
    within = jax.random.uniform(jax.random.key(2), (draws,))
    ranks = np.asarray(rank_at(index, within, jnp.full(draws, last, jnp.float32), Sizes))
    valued = np.asarray((index > 0) & (index != Sizes.same))
    assert ranks[valued].min() >= 0
    assert ranks[valued].max() <= 1
    edges = np.linspace(0, 1, 41)
    found = np.histogram(ranks[valued], edges)[0] / draws
    fine = ((np.arange(FINE) + 0.5) / FINE).astype(np.float32)
    expected = density(logits, fine, last).reshape(40, -1).mean(1) / 40
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(expected.max() / draws))


def test_the_value_of_the_last_time_has_its_rank_and_no_value_has_none():
    index = jnp.array([0, Sizes.same, 1, BINS])
    ranks = rank_at(index, jnp.full(4, 0.5), jnp.full(4, 0.3), Sizes)
    np.testing.assert_allclose(ranks, [0, 0.3, 0.5 / BINS, 1 - 0.5 / BINS], rtol=1e-6)


def test_bins_of_changes_are_narrow_near_none_and_alike_both_ways():
    np.testing.assert_allclose(EDGES, -EDGES[::-1])
    widths = np.diff(EDGES[EDGES >= 0])
    assert (np.diff(widths) >= 0).all()
    assert (EDGES[0], EDGES[-1]) == (-1, 1)

"""The likelihood that all models share, against plain arithmetic and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from ehrsim.models import base, packed
from ehrsim.models.layers import softplus
from ehrsim.visits import packing


def test_softplus_is_log_one_plus_exp():
    x = np.linspace(-80, 80, 321, dtype=np.float32)
    np.testing.assert_allclose(softplus(jnp.asarray(x)), np.logaddexp(0, x.astype(np.float64)), rtol=1e-6)


def test_log_probability_is_that_of_a_softmax():
    logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    found = base.log_probability(jnp.asarray(logits), jnp.array([0, 4, 2, 2]))
    np.testing.assert_allclose(found, special.log_softmax(logits, axis=1)[np.arange(4), [0, 4, 2, 2]], rtol=1e-5)


def test_the_probability_of_a_set_is_a_product_of_bernoullis():
    logits = np.array([[-1.0, 0.5, 2.0], [0.0, -3.0, 1.0]], np.float32)
    # Codes 4 to 6 are the group; 2 and 9 belong to others; 5 stands twice and counts once.
    codes = np.array([[2, 4, 5, 5], [6, 9, 0, 0]], np.int32)
    present = np.array([[1, 1, 0], [0, 0, 1]])
    expected = stats.bernoulli.logpmf(present, special.expit(logits.astype(np.float64))).sum(1)
    found = base.set_log_probability(jnp.asarray(logits), jnp.asarray(codes), (4, 7))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert base.set_log_probability(jnp.zeros((2, 0)), jnp.asarray(codes), (4, 4)).tolist() == [0, 0]


def test_sums_of_embeddings():
    table = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    codes, scale = np.array([[1, 5], [2, 2]]), np.array([[2.0, 1.0], [0.5, -1.0]], np.float32)
    expected = (table[codes] * scale[..., None]).sum(1)
    np.testing.assert_allclose(
        base.sum_embeddings(jnp.asarray(table), jnp.asarray(codes)), table[codes].sum(1), rtol=1e-6
    )
    found = base.sum_embeddings(jnp.asarray(table), jnp.asarray(codes), jnp.asarray(scale))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_recall_forgets_at_the_start_of_a_patient(tiny_data):
    batch = next(packing.batches(tiny_data.train, tiny_data.shape, np.arange(tiny_data.train.patients), 0))
    memory = jax.jit(packed.recall, static_argnums=1)(batch, tiny_data.sizes)
    rows, columns = np.nonzero(batch.used)
    for row, column in zip(rows.tolist()[:60], columns.tolist()[:60], strict=True):
        first = column - int(np.argmax(batch.start[row, : column + 1][::-1]))
        earlier = set(batch.visit.codes[row, first:column].ravel().tolist()) - {0}
        before = set(batch.visit.codes[row, column - 1].tolist()) - {0} if column > first else set()
        assert set(np.flatnonzero(memory.seen[row, column]).tolist()) == earlier
        assert set(np.flatnonzero(memory.previous[row, column]).tolist()) == before
        clock = batch.visit.clock[row, column - 1] if column > first else tiny_data.sizes.clocks
        assert memory.clock[row, column] == clock


def test_noise_belongs_to_the_patient_and_the_step(tiny_data):
    draw = jax.jit(
        lambda batch: (
            packed.patient_noise(jax.random.key(1), batch, 2),
            packed.step_noise(jax.random.key(1), batch, 2),
        )
    )
    found = []
    for order in (np.arange(40), np.arange(40)[::-1]):
        batch = next(packing.batches(tiny_data.train, tiny_data.shape, order, 0))
        of_patient, of_step = map(np.asarray, draw(batch))
        position = {number: index for index, number in enumerate(batch.number.tolist()) if batch.real[index]}
        found.append(
            {
                n: (of_patient[i].tolist(), of_step[batch.used & (batch.patient == i)].tolist())
                for n, i in position.items()
            }
        )
    both = found[0].keys() & found[1].keys()
    assert len(both) > 5
    assert all(found[0][number] == found[1][number] for number in both)
    assert len({str(noise) for noise, _ in found[0].values()}) == len(found[0])

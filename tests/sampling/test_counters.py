"""Random numbers by counter: the published hash, even numbers, and each by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ehrsim.sampling.counters import Counters, counters, threefry

PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)


def words(*numbers):
    return tuple(jnp.uint32(number) for number in numbers)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        (PI[:2], PI[2:], (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(counter, key, expected):
    """Those of the authors' own test vectors."""
    hashed = threefry(words(*key), words(*counter))
    assert tuple(int(word) for word in hashed) == expected


def test_threefry_is_the_hash_of_jax():
    left, right = threefry(words(5, 8), (jnp.zeros(100, jnp.uint32), jnp.arange(100, dtype=jnp.uint32)))
    key = jax.random.wrap_key_data(jnp.array([5, 8], jnp.uint32))
    assert np.array_equal(left ^ right, jax.random.bits(key, (100,)))


@pytest.fixture(scope="module")
def drawn():
    rows = jnp.arange(2_000, dtype=jnp.int32)
    return counters(jax.random.key(3), rows, jnp.zeros_like(rows), jnp.zeros_like(rows))


def test_uniforms_are_even_and_never_0_or_1(drawn):
    uniform = np.asarray(drawn.uniform(2, 100))
    assert uniform.min() > 0
    assert uniform.max() < 1
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert np.asarray(Counters(*words(0, 0)).left).dtype == np.uint32


def test_normals_are_normal(drawn):
    normal = np.asarray(drawn.normal(1, 50))
    assert np.isfinite(normal).all()
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normal[:, 0], normal[:, 1])[0, 1]) < 4 / np.sqrt(len(normal))


def test_every_number_can_be_had_by_itself(drawn):
    whole = drawn.uniform(7, 20)
    row, place = jnp.array([5, 5, 1999]), jnp.array([0, 19, 3])
    assert np.array_equal(drawn.uniform_at(7, row, place), whole[row, place])
    assert np.array_equal(drawn.uniform(7, 4), whole[:, :4])
    alone = counters(jax.random.key(3), *(jnp.array([number]) for number in (1234, 0, 0)))
    assert np.array_equal(alone.bits(0, 9)[0], drawn.bits(0, 9)[1234])


def test_seed_patient_attempt_visit_purpose_and_place_all_matter():
    seen = {
        int(counters(jax.random.key(seed), *(jnp.array([n]) for n in numbers)).bits(purpose, 2)[0, place])
        for seed in (1, 2)
        for numbers in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 4095, 0), (0, 0, 4095), (2**31 - 1, 0, 0)]
        for purpose in (0, 16)
        for place in (0, 1)
    }
    assert len(seen) == 2 * 7 * 2 * 2

"""The set sampler is exact: counts and joint counts against sigmoid, rare, near-certain and crowded sets alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ehrsim.sampling import sets
from ehrsim.sampling.sets import WORD, Draw, draw_index, draw_set, join_sets

ROWS, ROUNDS = 4096, 12


def drawn(logits, places, rounds=ROUNDS):
    """(rounds x ROWS, V) bool: what was drawn, and the numbers of codes."""
    wide = jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[None], (ROWS, len(logits)))

    @jax.jit
    def one(key):
        return draw_set(wide, jax.random.bits(key, wide.shape), places)

    sets, numbers = [], []
    for number in range(rounds):
        draw = one(jax.random.fold_in(jax.random.key(7), number))
        codes = np.asarray(draw.codes)
        present = np.zeros((ROWS, len(logits) + 1), bool)
        present[np.arange(ROWS)[:, None], codes] = True
        assert (np.diff(np.where(codes > 0, codes, 1 << 20)) >= 0).all(), "ascending, empty places last"
        sets.append(present[:, 1:])
        numbers.append(np.asarray(draw.number))
    return np.concatenate(sets), np.concatenate(numbers)


CASES = {
    "rare": np.linspace(-9, -5, 150),
    "usual": np.concatenate([np.linspace(-8, 2, 90), [6.0, 9.0, -12.0]]),
    "near-certain": np.concatenate([np.full(40, 7.0), np.full(5, -3.0)]),
    "crowded": np.linspace(-1, 1, 120),
    "a whole number of words": np.linspace(-4, 1, 2 * WORD),
    "less than a word": np.array([-3.0, 0.0, 2.0]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_code_has_the_probability_of_its_logit(case):
    logits = CASES[case]
    present, number = drawn(logits, len(logits))
    share = special.expit(logits)
    assert np.array_equal(present.sum(1), number)
    n = len(present)
    z = (present.sum(0) - n * share) / np.sqrt(n * share * (1 - share))
    assert np.abs(z).max() < 4.5, "no code is off"
    assert abs(z.mean()) < 4 / np.sqrt(len(z)), "none all together"
    # The number of codes in a row is a sum of independent Bernoullis: its mean and its variance.
    mean, variance = share.sum(), (share * (1 - share)).sum()
    assert abs(number.mean() - mean) < 4.5 * np.sqrt(variance / n)
    assert abs(number.var() / variance - 1) < 0.05


def test_codes_are_independent():
    logits = np.array([-1.0, -1.0, 0.3, 2.0, -2.5])
    present, _ = drawn(logits, len(logits))
    share = special.expit(logits)
    for first in range(len(logits)):
        for second in range(first):
            p = share[first] * share[second]
            joint = (present[:, first] & present[:, second]).sum()
            assert abs(joint - len(present) * p) < 4.5 * np.sqrt(len(present) * p * (1 - p))


def test_surplus_codes_are_counted_and_the_first_are_kept():
    logits = np.full(30, 20.0)
    present, number = drawn(logits, 8, rounds=1)
    assert (number == 30).all()
    assert present[:, :8].all()
    assert not present[:, 8:].any()


def test_no_codes_at_all():
    draw = draw_set(jnp.zeros((3, 0)), jnp.zeros((3, 0), jnp.uint32), 4)
    assert draw.codes.tolist() == [[0] * 4] * 3
    assert draw.number.tolist() == [0] * 3


def test_certain_and_impossible_codes_are_so_for_all_but_the_last_bits():
    logits = jnp.tile(jnp.array([[40.0, -40.0, jnp.inf, -jnp.inf]]), (2, 1))
    bits = jnp.array([[0] * 4, [0xFFFFFE00] * 4], jnp.uint32)
    assert draw_set(logits, bits, 4).codes.tolist() == [[1, 3, 0, 0]] * 2


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 90])
def test_any_set_is_listed(size):
    rng = np.random.default_rng(size)
    present = rng.random((40, size)) < rng.random((40, 1))
    draw = draw_set(jnp.where(present, jnp.inf, -jnp.inf), jnp.full(present.shape, 77, jnp.uint32), 20)
    for row, codes, number in zip(present, draw.codes.tolist(), draw.number.tolist(), strict=True):
        expected = (np.flatnonzero(row) + 1).tolist()
        assert number == len(expected)
        assert codes == (expected + [0] * 20)[:20]


def test_join_sets_puts_one_after_the_other():
    first = Draw(jnp.array([[1, 3, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]), jnp.array([2, 0, 4]))
    second = Draw(jnp.array([[2, 0, 0, 0], [1, 2, 0, 0], [5, 0, 0, 0]]), jnp.array([1, 2, 1]))
    joined = join_sets([first, second], [1, 6], 4)
    assert joined.codes.tolist() == [[1, 3, 7, 0], [6, 7, 0, 0], [1, 2, 3, 4]]
    assert joined.number.tolist() == [3, 2, 5]


def test_draw_index_is_the_inverse_distribution_function():
    shares = np.array([0.1, 0.0, 0.25, 0.5, 0.15])
    with np.errstate(divide="ignore"):
        logits = np.log(shares) + 3
    uniform = np.linspace(0, 1, 2001, endpoint=False) + 0.00025
    wide = jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[None], (2001, 5))
    found = np.asarray(draw_index(wide, jnp.asarray(uniform, jnp.float32)))
    assert np.array_equal(found, np.searchsorted(np.cumsum(shares), uniform, side="right"))
    edges = draw_index(wide[:2], jnp.array([1e-7, 1 - 2**-24], jnp.float32))
    assert edges.tolist() == [0, 4]


def test_draw_index_never_draws_the_impossible():
    logits = jnp.array([[-jnp.inf, 0.0, -jnp.inf, 0.0, -jnp.inf]])
    uniforms = jnp.array([0.0, 1e-7, 0.5 - 2**-25, 0.5, 1 - 2**-24], jnp.float32)
    assert draw_index(jnp.tile(logits, (5, 1)), uniforms).tolist() == [1, 1, 1, 3, 3]


@pytest.mark.parametrize("size", [65, 100, 2_000])
def test_draw_index_of_many_categories_follows_their_weights(size):
    rng = np.random.default_rng(size)
    logits = rng.normal(0, 2, size)
    logits[rng.random(size) < 0.2] = -np.inf
    shares = special.softmax(logits)
    uniform = (np.arange(20_000) + 0.5) / 20_000
    wide = jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[None], (20_000, size))
    found = np.asarray(draw_index(wide, jnp.asarray(uniform, jnp.float32)))
    assert (shares[found] > 0).all()
    assert np.abs(np.bincount(found, minlength=size) / 20_000 - shares).max() < 2e-4
    assert (np.diff(found) >= 0).all()


def test_sums_in_a_loop_draw_the_same():
    rng = np.random.default_rng(4)
    weights = jnp.asarray(np.where(rng.random((500, 45)) < 0.3, 0, rng.random((500, 45))), jnp.float32)
    uniform = jnp.asarray(rng.random(500), jnp.float32)
    for one, other in zip(sets._reached(weights, uniform), sets._reached_in_a_loop(weights, uniform), strict=True):
        assert np.array_equal(one, other)

"""Codes in two levels: blocks are what they should be, and both levels together are one distribution over codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ehrsim.batch import CHANGES, Moment, Precursor, Sizes
from ehrsim.models.base import Memory
from ehrsim.models.code_blocks import TILE, by_block, code_blocks
from ehrsim.models.layers import QUICK, prospect_features
from ehrsim.models.shift import gap_class, no_shift
from ehrsim.models.two_level import TwoLevelEmission
from ehrsim.sampling.slots import blank_visit

WIDTH, PLACES = 8, 7
SIZES = Sizes(
    vocabulary=10,
    groups=((1, 6), (6, 6), (6, 10)),
    kinds=5,
    statics=1,
    gaps=2,
    landings=(-1.0,),
    first_gaps=2,
    origins=2,
    clocks=2,
    lengths=2,
    offsets=3,
    values=3 + CHANGES,
    durations=2,
    places=PLACES,
    precursors=(
        Precursor(3, 1, 2.0, -3.0),
        Precursor(5, 2, -1.0),
        Precursor(9, 3, 1.5, 1.0),
        Precursor(9, 10, 1.0, 0.5),
    ),
    classes=((1, 4),),
)
VISITS = [(), (1,), (3, 4), (1, 2, 3, 4, 5), (2, 9), (5, 6, 7, 8, 9), (9,)]


def made(noise: float) -> TwoLevelEmission:
    """An emission with parameters so far from nought."""
    module = TwoLevelEmission(SIZES, WIDTH, np.random.Generator(np.random.Philox(key=3)))
    leaves, structure = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + noise * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy)


def head_for(emission, seen=(2, 4), previous=(2,), wanted=(5,)):
    rows = len(VISITS)
    nothing = jnp.zeros((rows, SIZES.vocabulary))
    marked = [nothing.at[:, list(codes)].set(1.0) if codes else nothing for codes in (previous, seen, wanted)]
    zero = jnp.zeros(rows, jnp.int32)
    body = jnp.tile(jax.random.normal(jax.random.key(5), (1, WIDTH)), (rows, 1))
    return emission(lambda visit: body, Memory(*marked, zero, zero, jnp.zeros((rows, SIZES.statics))))


def visits():
    codes = np.zeros((len(VISITS), PLACES), np.int32)
    for row, found in zip(codes, VISITS, strict=True):
        row[: len(found)] = found
    return (
        blank_visit(len(VISITS), PLACES)
        ._replace(codes=jnp.asarray(codes), kind=jnp.ones(len(VISITS), jnp.int32), age=jnp.full(len(VISITS), 45.0))
        ._replace(steps=jnp.full(len(VISITS), 3.0), since=jnp.full(len(VISITS), 0.5))
    )


@jax.jit
def chances(emission):
    """(places, visits, V) of the code at each place of the visits, by the functions that sampling calls."""
    head, visit, blocks = head_for(emission), visits(), code_blocks(SIZES)
    prefix, found = head.begin(visit), []
    for place in range(PLACES):
        of_block = jax.nn.softmax(head.blocks(prefix), axis=-1)
        chance = jnp.zeros((len(VISITS), SIZES.vocabulary))
        for block in range(blocks.number):
            index = jnp.full(len(VISITS), block)
            within = jax.nn.softmax(head.within(prefix, index), axis=-1) * of_block[:, block, None]
            window = head.code(jnp.int32(block), jnp.arange(blocks.width))
            inside = (window >= blocks.first[block]) & (window < blocks.last[block])
            chance = chance.at[:, window].add(jnp.where(inside[None], within, 0.0))
        found.append(chance)
        prefix = head.after(prefix, visit.codes[:, place])
    return jnp.stack(found)


@jax.jit
def scores(emission):
    """(places, visits) log-probabilities of what stands at each place, as training has them."""
    visit = visits()
    place, row = (index.reshape(-1) for index in jnp.indices((PLACES, len(VISITS))))
    nats = head_for(emission).score(visit)((row, place), visit.codes[row, place])
    return nats.reshape(PLACES, len(VISITS))


def test_all_codes_that_can_come_next_have_a_chance_and_the_chances_sum_to_one():
    found = np.asarray(chances(made(0.7)))
    for row, codes in enumerate(VISITS):
        for place in range(len(codes) + 1):
            last = max(codes[:place], default=0)
            possible = (np.arange(SIZES.vocabulary) > last) | (np.arange(SIZES.vocabulary) == 0)
            assert (found[place, row] > 0).tolist() == possible.tolist()
            assert found[place, row].sum() == pytest.approx(1, abs=1e-5)


def test_training_scores_a_visit_with_the_product_of_the_chances_that_sampling_draws_by():
    emission = made(0.7)
    found, nats = np.asarray(chances(emission)), np.asarray(scores(emission))
    for row, codes in enumerate(VISITS):
        expected = [np.log(found[place, row, code]) for place, code in enumerate((*codes, 0))]
        np.testing.assert_allclose(nats[: len(codes) + 1, row], expected, rtol=1e-4, atol=1e-4)


def test_without_queries_it_is_one_softmax_over_what_is_remembered():
    emission = made(0.7)
    for part in (emission.logits.head, emission.of_block, emission.following, emission.logits.precursors.weight):
        part[...] = 0 * part[...]
    emission.copy_gates.weight[...] = 0 * emission.copy_gates.weight[...]
    logits = emission.logits
    seen, previous, wanted = (np.isin(np.arange(SIZES.vocabulary), codes) for codes in ((2, 4), (2,), (5,)))
    age = int(np.searchsorted((1, 2, 5, 10, 18, 30, 40, 50, 60, 70, 80, 90), 45.0, side="right"))
    gates = np.asarray(emission.copy_gates.bias[...])
    by_age, by_gap = (np.asarray(part[...]) for part in (logits.first_by_age, logits.first_by_gap))
    total = np.asarray(logits.bias[...] + logits.of_kind[...][1])
    gap = int(gap_class(Moment(*(part[0] for part in visits().moment))))
    new, first = (np.exp(total + part) for part in (by_age[age] + by_gap[gap], by_age.mean(0) + by_gap.mean(0)))
    again = np.exp(total + np.asarray(logits.copy[...][1]) + gates[1])
    once_more = again * np.exp(np.asarray(logits.copy[...][0]) + gates[0])
    features = np.asarray(prospect_features(visits().moment))[0]
    prospects = features @ np.asarray(QUICK * logits.wanted[...])
    asked = first * np.exp(np.log1p(np.exp(-prospects)) + gates[2])
    remembered = np.where(previous, once_more, np.where(seen, again, 0.0)) + wanted * asked
    blocks = code_blocks(SIZES).of_code
    unseen = 1 - np.bincount(blocks, (seen | wanted) * first) / np.bincount(blocks, first)
    of_block = unseen * np.bincount(blocks, new) + np.bincount(blocks, remembered)
    expected = of_block / of_block.sum()
    found = np.asarray(chances(emission))[0, 0]
    np.testing.assert_allclose(np.bincount(blocks, found), expected, rtol=1e-4)


def test_raking_makes_a_code_likelier_through_its_block():
    emission, shift = made(0.0), no_shift(SIZES)
    emission.logits.precursors.weight[...] = 0 * emission.logits.precursors.weight[...]
    shift.first[:, 8] += 2.0
    shift.again[4] += 2.0
    before, after = (np.asarray(chances(part))[0, 0] for part in (emission, emission.shifted(shift)))
    against_none = (after / after[0]) / (before / before[0])
    np.testing.assert_allclose(against_none[[4, 8]], np.exp(2.0), rtol=0.1)
    np.testing.assert_allclose(after[1] / after[6], before[1] / before[6], rtol=0.1)


@pytest.mark.parametrize("size", [2, 6, 300, 20_001])
def test_blocks_are_about_as_many_as_codes_of_each_and_keep_to_groups(size):
    third = size // 3
    sizes = SIZES._replace(vocabulary=size, groups=((1, 1 + third), (1 + third, 1 + third), (1 + third, size)))
    blocks = code_blocks(sizes)
    codes = [range(first, last) for first, last in zip(blocks.first, blocks.last, strict=True)]
    assert [code for block in codes for code in block] == list(range(size))
    assert [len(block) for block in codes] == np.bincount(blocks.of_code).tolist()
    assert codes[0] == range(1)
    assert blocks.width <= np.ceil(np.sqrt(size)) and blocks.number <= np.sqrt(size) + 4
    bounds = [(0, 1), *sizes.groups]
    assert all(
        bounds[g][0] <= block[0] and block[-1] < bounds[g][1] for g, block in zip(blocks.group, codes, strict=True)
    )
    assert (blocks.begin + blocks.width <= size).all() and (blocks.begin <= blocks.first).all()
    assert (blocks.begin + blocks.width >= blocks.last).all()


def test_events_sorted_by_block_come_back_in_their_order():
    block = jax.random.randint(jax.random.key(1), (5 * TILE,), 0, 7)
    value = jnp.arange(5.0 * TILE)

    def work(tiled, block):
        return tiled * 2 + block.astype(jnp.float32)[:, None]

    found = by_block(block, 7, value, work)
    np.testing.assert_array_equal(found, 2 * value + block.astype(jnp.float32))


def test_no_weight_goes_by_blocks():
    """So that transfer matches all of them by the names of codes."""
    grown = SIZES._replace(vocabulary=30, groups=((1, 6), (6, 6), (6, 30)))
    generator = np.random.Generator(np.random.Philox(key=3))
    one, other = (jax.tree.leaves(TwoLevelEmission(sizes, WIDTH, generator)) for sizes in (SIZES, grown))
    for small, large in zip(one, other, strict=True):
        assert all(b - a in (0, 20) for a, b in zip(small.shape, large.shape, strict=True))

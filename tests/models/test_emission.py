"""All emissions are distributions over sets of codes, and drawing follows them."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ehrsim.batch import CHANGES, Precursor, Sizes
from ehrsim.models import base
from ehrsim.models.base import Heads, Memory
from ehrsim.models.emission import OrderedEmission, SetEmission
from ehrsim.models.layers import QUICK
from ehrsim.models.two_level import TwoLevelEmission
from ehrsim.sampling.content import draw_codes
from ehrsim.sampling.counters import counters
from ehrsim.sampling.slots import blank_visit

WIDTH, PLACES = 8, 6
SIZES = Sizes(
    vocabulary=6,
    groups=((1, 3), (3, 4), (4, 6)),
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
        Precursor(5, 3, 1.5, 1.0),
        Precursor(4, 6, 1.0, 0.5),
    ),
    classes=((1, 3),),
)
SETS = [codes for size in range(6) for codes in combinations(range(1, 6), size)]


@pytest.fixture(params=[OrderedEmission, TwoLevelEmission, SetEmission])
def emission(request):
    """An emission with parameters far from nought, so that codes depend on each other."""
    module = request.param(SIZES, WIDTH, np.random.Generator(np.random.Philox(key=3)))
    leaves, structure = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.7 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy)


def head_for(emission, rows):
    body = jnp.tile(jax.random.normal(jax.random.key(5), (1, WIDTH)), (rows, 1))
    previous = jnp.zeros((rows, SIZES.vocabulary)).at[:, 2].set(1.0)
    memory = Memory(
        previous=previous,
        seen=previous.at[:, 4].set(1.0),
        wanted=jnp.zeros_like(previous).at[:, 5].set(1.0),
        clock=jnp.zeros(rows, jnp.int32),
        first_clock=jnp.zeros(rows, jnp.int32),
        statics=jnp.ones((rows, SIZES.statics)),
    )
    return emission(lambda visit: body, memory)


def visits(sets):
    codes = np.zeros((len(sets), PLACES), np.int32)
    for row, found in zip(codes, sets, strict=True):
        row[: len(found)] = found
    return blank_visit(len(sets), PLACES)._replace(codes=jnp.asarray(codes), kind=jnp.ones(len(sets), jnp.int32))


def log_probability(emission, sets):
    """The log-probability of each set of codes, as training has it."""
    head, visit = head_for(emission, len(sets)), visits(sets)
    if isinstance(emission, SetEmission):
        groups = range(len(SIZES.groups))
        parts = [base.set_log_probability(head.logits(g, visit), visit.codes, SIZES.groups[g]) for g in groups]
        return np.asarray(sum(parts))
    parts = [(row, place, code) for row, found in enumerate(sets) for place, code in enumerate((*found, 0))]
    row, place, code = map(jnp.array, zip(*parts, strict=True))
    nats = jax.jit(lambda: head.score(visit)((row, place), code))()
    return np.bincount(np.asarray(row), np.asarray(nats), len(sets))


def test_the_probabilities_of_all_sets_sum_to_one(emission):
    assert np.exp(log_probability(emission, SETS)).sum() == pytest.approx(1, abs=1e-5)


def test_sets_are_drawn_as_often_as_they_are_probable(emission):
    rows = 40_000
    index = jnp.arange(rows, dtype=jnp.int32)
    draws = counters(jax.random.key(11), index, 0 * index, 0 * index)
    heads = Heads(*[None] * len(Heads._fields))._replace(codes=head_for(emission, rows))
    visit = blank_visit(rows, PLACES)._replace(kind=jnp.ones(rows, jnp.int32))
    drawn = draw_codes(heads, visit, SIZES, draws, index % 4 == 3)
    codes = np.asarray(drawn.codes)
    assert not codes[3::4].any(), "a terminal step has none"
    alive = codes[np.arange(rows) % 4 != 3]
    number = dict.fromkeys(SETS, 0)
    for row in alive:
        number[tuple(int(code) for code in row if code)] += 1
    probability = np.exp(log_probability(emission, SETS))
    spread = np.sqrt(len(alive) * probability * (1 - probability))
    assert (np.abs(np.array(list(number.values())) - len(alive) * probability) < 4.5 * spread + 1).all()


def test_an_ordered_head_that_runs_out_of_places_says_so():
    module = OrderedEmission(SIZES, WIDTH, np.random.Generator(np.random.Philox(key=3)))
    bias = jnp.array([-50.0, 0, 0, 0, 0, 0])
    module.logits.bias[...] = bias
    heads = Heads(*[None] * len(Heads._fields))._replace(codes=head_for(module, 50))
    small = SIZES._replace(places=1)
    index = jnp.arange(50, dtype=jnp.int32)
    draws = counters(jax.random.key(2), index, 0 * index, 0 * index)
    visit = blank_visit(50, 1)
    drawn = draw_codes(heads, visit, small, draws, index < 0)
    assert (np.asarray(drawn.codes) > 0).all()
    more = np.asarray(drawn.number) > 1
    assert np.array_equal(more, np.asarray(drawn.codes)[:, 0] < 5), "only the last code can be the last"


def test_codes_are_drawn_where_none_has_a_precursor():
    """As in data in which no code leads to another."""
    sizes = SIZES._replace(precursors=(), classes=())
    emission = OrderedEmission(sizes, WIDTH, np.random.Generator(np.random.Philox(key=3)))
    slots = jnp.arange(2, dtype=jnp.int32)
    head, visit = head_for(emission, 2), blank_visit(2, PLACES)
    heads = Heads(kind=None, gap=None, clock=None, codes=head, events=None)
    keys = counters(jax.random.key(1), slots, 0 * slots, 0 * slots)
    drawn = draw_codes(heads, visit, sizes, keys, jnp.zeros(2, bool))
    assert drawn.codes.shape == (2, PLACES)
    led_to, _ = emission.logits.precursors.after(jnp.zeros((2, 6)), jnp.zeros((2, 0)), jnp.array([1, 2]))
    assert not led_to.any()


@pytest.mark.parametrize("kind", [OrderedEmission, SetEmission])
def test_what_leads_to_a_code_that_is_to_come_comes_sooner(kind):
    """By how much likelier it makes that code: that is certain, and its chance by itself is known."""
    emission = kind(SIZES, WIDTH, np.random.Generator(np.random.Philox(key=3)))
    logits = emission.logits
    logits.wanted[...] = logits.wanted[...].at[0, 3].set(-1.5 / QUICK)
    nothing, moment = jnp.zeros((1, SIZES.vocabulary)), blank_visit(1, PLACES).moment
    zero = jnp.zeros(1, jnp.int32)

    def recalled(wanted: int, seen: int = 0):
        memory = Memory(
            nothing,
            nothing.at[:, seen].set(1.0),
            nothing.at[:, wanted].set(1.0),
            zero,
            zero,
            jnp.zeros((1, SIZES.statics)),
        )
        return np.asarray(logits.recalled(jnp.zeros((1, 3)), zero, moment, memory, slice(None)))[0]

    before, after = np.log1p(np.exp([1.5, 1.5 - 2.0]))
    changed = recalled(3) - recalled(0)
    np.testing.assert_allclose(changed[[1, 2, 3]], [before - after, 0, before], atol=1e-5)
    # Once what leads to it is known, it is likelier by itself, and nothing else comes sooner.
    changed = recalled(3, seen=1) - recalled(0, seen=1)
    np.testing.assert_allclose(changed[[1, 2, 3]], [0, 0, after], atol=1e-5)
    # A class of codes leads to it: any of them.
    chance = np.log1p(np.exp([0.0, -1.0]))
    changed = recalled(4) - recalled(0)
    np.testing.assert_allclose(changed[[1, 2, 3]], [chance[0] - chance[1], 0, chance[0] - chance[1]], atol=1e-5)

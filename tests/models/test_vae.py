"""What is particular to the sequence VAE: what it is told of a patient in training."""

import jax
import jax.numpy as jnp
import numpy as np

from ehrsim import runs
from ehrsim.batch import NO_CODES, Context
from ehrsim.models import packed
from ehrsim.models.embeddings import hide
from ehrsim.models.latents import Gaussian, Latent
from ehrsim.models.layers import ahead_features, dropout
from ehrsim.visits import packing

PATIENTS = 20_000


def hidden(codes: list[int]) -> Context:
    """The context of many patients alike, as shown in training."""
    context = Context(
        statics=jnp.tile(jnp.array([[3, 7]], jnp.int32), (PATIENTS, 1)),
        outcome=jnp.full(PATIENTS, 2, jnp.int32),
        codes=jnp.tile(jnp.array([codes], jnp.int32), (PATIENTS, 1)),
        ages=jnp.full((PATIENTS, 2), 41.0, jnp.float32),
    )
    return hide(context, jax.random.key(3), 0.6)


def test_not_being_asked_about_codes_says_nothing_of_having_any():
    unasked = {
        name: float(np.mean(np.all(np.asarray(hidden(codes).codes) == 0, axis=1)))
        for name, codes in {"none": [0, 0, 0, 0], "one": [5, 0, 0, 0], "many": [5, 9, 2, 8]}.items()
    }
    assert max(unasked.values()) - min(unasked.values()) < 0.02, unasked
    assert np.isclose(unasked["none"], 0.7, atol=0.02)


def test_a_patient_without_codes_is_told_apart_when_asked():
    none = np.asarray(hidden([0, 0, 0, 0]).codes)
    assert set(none[:, 0].tolist()) == {0, NO_CODES}
    assert not none[:, 1:].any()
    assert NO_CODES not in np.asarray(hidden([5, 9, 2, 8]).codes)


def test_any_number_of_the_codes_of_a_patient_is_shown():
    shown = (np.asarray(hidden([5, 9, 2, 8]).codes) > 0).sum(1)
    assert np.allclose(np.bincount(shown) / PATIENTS, [0.7, 0.075, 0.075, 0.075, 0.075], atol=0.02)


def test_some_patients_show_more_than_their_statics():
    context = hidden([5, 0, 0, 0])
    assert np.all(np.asarray(context.statics) == [3, 7])
    outcome, age = np.asarray(context.outcome) == 2, ~np.isnan(np.asarray(context.ages)[:, 0])
    asked = np.asarray(context.codes)[:, 0] != 0
    assert np.allclose([part.mean() for part in (outcome, age, asked)], 0.3, atol=0.02)
    bare = ~(outcome | age | asked)
    assert np.isclose(bare.mean(), 0.4 + 0.6 / 8, atol=0.02), "most are drawn as patients are without conditions"


def test_ages_are_shown_as_a_range_around_the_true_one():
    ages = np.asarray(hidden([5, 0, 0, 0]).ages)
    low, high = ages[~np.isnan(ages[:, 0])].T
    assert ((low >= 0) & (low <= 41) & (high >= 41) & (high <= 120)).all()
    assert np.quantile(high - low, 0.05) < 2
    assert np.quantile(high - low, 0.95) > 60
    assert np.isclose(np.mean((41 - low) / (high - low)), 0.5, atol=0.05)


def test_a_step_is_told_the_moment_of_the_step_before_and_the_first_its_own(tiny_data):
    batch = next(packing.batches(tiny_data.train, tiny_data.shape, np.arange(4), 0))
    time = np.resize(np.array([1.0, 2.0, 3.0, 4.0], np.float32), batch.start.shape)
    start = np.resize(np.array([True, False, True, False]), batch.start.shape)
    told = packed.moment_before(batch._replace(start=start, visit=batch.visit._replace(age=time)))
    assert told.age[0, :4].tolist() == [1.0, 1.0, 3.0, 3.0]


def test_free_nats_cost_the_posterior_nothing_but_the_prior_still_follows():
    def cost(mean, prior_mean):
        posterior, prior = (Gaussian(at, jnp.zeros(())) for at in (mean, prior_mean))
        return Latent(posterior, prior, prior).counted(0.02)

    near, far = (0.1, 0.0), (1.0, 0.0)
    assert np.isclose(cost(*near), 0.02)
    assert np.isclose(cost(*far), 0.5)
    of_posterior, of_prior = jax.grad(cost, argnums=(0, 1))(*near)
    assert of_posterior == 0
    assert np.isclose(of_prior, -0.1), "towards the posterior"
    assert np.allclose(jax.grad(cost, argnums=(0, 1))(*far), (1.0, -1.0))


def test_dropout_keeps_the_mean_and_nothing_is_hidden_outside_training():
    ones = jnp.ones((200, 200))
    hidden = dropout(jax.random.key(0), 0.3)(ones)
    assert np.isclose(hidden.mean(), 1, atol=0.02)
    assert np.isclose((hidden == 0).mean(), 0.3, atol=0.02)
    assert dropout(jax.random.key(0), 0.0)(ones) is ones


def test_what_lies_ahead_is_told_apart_near_and_far():
    features = np.asarray(ahead_features(jnp.array([-1.0, 0.5, 1.0, 2.0, 40.0, 41.0])))
    apart = np.abs(features[1:] - features[:-1]).max(axis=1)
    assert features[0].max() < 1e-2, "what is past has no place"
    assert (apart[:4] > 0.3).all(), "a year or two make a difference soon"
    assert apart[4] < 0.1, "and little in forty years"


def test_a_record_resumed_is_where_stepping_through_it_leads(tiny_run, tiny_data):
    model = runs.load(tiny_run("vae").folder).model
    batch = next(packing.batches(tiny_data.train, tiny_data.shape, np.arange(tiny_data.train.patients), 0))
    batch = batch._replace(context=batch.context._replace(codes=np.zeros_like(batch.context.codes)))
    patient = 3
    noise = jax.random.normal(jax.random.key(1), (2, len(batch.number), model.noise.start))
    resumed = jax.jit(model.resume)(noise, batch)
    row, steps = np.nonzero(batch.used & (batch.patient == patient))
    visits = [
        jax.tree.map(lambda part, at=at: jnp.asarray(part[at][None]), batch.visit)
        for at in zip(row, steps, strict=True)
    ]
    embedded = model.known(batch.context, packed.beginning(batch))[patient][None]
    known = jnp.zeros_like(embedded)
    for visit in visits[:-1]:
        known = model.forward.step(known, model.forward.inner(model.embedding(visit)))
    z = model.filtered(known, embedded).draw(noise[1, patient][None])
    state = model.begin(z, embedded)
    for visit in visits[:-2]:
        state = state._replace(h=model.advance(state, model.embedding(visit), jnp.array([False])))
    assert np.allclose(resumed.h[1, patient], state.h[0], atol=1e-5)
    assert np.allclose(resumed.patient[1, patient], state.patient[0], atol=1e-5)
    assert not np.allclose(resumed.h[0, patient], resumed.h[1, patient], atol=1e-3)


def test_the_filter_follows_the_posterior_and_has_no_influence_on_it(tiny_run, tiny_data):
    model = runs.load(tiny_run("vae").folder).model
    batch = next(packing.batches(tiny_data.train, tiny_data.shape, np.arange(tiny_data.train.patients), 0))

    def distance(model):
        embedded = model.known(batch.context, packed.beginning(batch))
        posterior, both = model.encode(model.embedding(batch.visit), embedded, batch)
        return jnp.where(batch.used, model._to_filter(both, posterior, embedded, batch), 0.0).sum()

    slopes = runs.to_arrays(jax.jit(jax.grad(distance))(model))
    assert {name.partition(".")[0] for name, slope in slopes.items() if np.any(slope)} == {"filter"}


def test_a_record_does_not_end_while_codes_are_to_come(tiny_run, tiny_data):
    batch = next(packing.batches(tiny_data.train, tiny_data.shape, np.arange(8), 0))
    model = runs.load(tiny_run("vae").folder).model
    decoder, sizes = model.decoder, model.sizes
    memory = packed.recall(batch, sizes)
    inputs = jnp.zeros((*batch.used.shape, decoder.feature.weight.shape[0]))

    def ends(wanted):
        asked = memory._replace(wanted=jnp.zeros_like(memory.wanted).at[..., 1].set(wanted))
        kinds = decoder(inputs, packed.moment_before(batch), asked).kind()
        return jax.nn.softmax(kinds, axis=-1)[..., sizes.death :].sum(-1)

    assert float(ends(0.0).max()) > 1e-3
    assert float(ends(1.0).max()) < 1e-3 * float(ends(0.0).max())

"""The sequence GAN: who learns from what, what the critic is shown, and what it is stopped by."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import orjson
import pytest

from ehrsim import likelihood, models, runs
from ehrsim.errors import UsageError
from ehrsim.models.gan import Trajectory, _coverage, _drawn_codes, _drawn_kind
from ehrsim.visits import packing


@pytest.fixture(scope="module")
def batch(tiny_data):
    order = np.arange(tiny_data.train.patients)
    return jax.tree.map(jnp.asarray, next(packing.batches(tiny_data.train, tiny_data.shape, order, 0)))


@pytest.fixture(scope="module")
def gan(tiny_data):
    return models.create("gan", tiny_data.sizes, models.family("gan").presets["small"], 0)


@pytest.fixture(scope="module")
def gradients(gan, batch):
    """Gradients of the loss before the generator follows the critic, and when it does."""

    def slope(progress):
        return jax.grad(lambda model: model.loss(batch, jax.random.key(4), jnp.float32(progress))[0])(gan)

    return jax.jit(slope)(0.1), jax.jit(slope)(0.9)


def largest(part):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(part))


def test_the_autoencoder_is_left_alone(gradients):
    assert [largest(slope.autoencoder) for slope in gradients] == [0, 0]


def test_the_generator_waits_for_the_critic(gradients):
    early, late = gradients
    assert largest(early.critic) > 0
    # Before, only the pull towards the prior acts on it.
    assert largest(late.of_visit) > 3 * largest(early.of_visit)
    assert largest(late.of_patient) > 3 * largest(early.of_patient)


def test_the_critic_does_not_learn_from_the_loss_of_the_generator(gradients):
    early, late = gradients
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), early.critic, late.critic)


def test_the_critic_sees_the_minibatch(gan, batch):
    sizes, rows = gan.sizes, batch.start.shape
    rng = np.random.default_rng(0)
    seen = Trajectory(
        kinds=jnp.asarray(rng.random((*rows, sizes.kinds)), jnp.float32),
        codes=jnp.asarray(rng.random((*rows, sizes.vocabulary)) < 0.1, jnp.float32),
        visit=jnp.asarray(rng.standard_normal((*rows, gan.noise.step)), jnp.float32),
        patient=jnp.asarray(rng.standard_normal((len(batch.real), gan.noise.start)), jnp.float32),
    )
    inner = batch.used
    first = gan.critic(seen, batch, inner)
    others = jnp.where((jnp.arange(len(batch.real)) > 0)[:, None], 3.0, 1.0)
    moved = gan.critic(seen._replace(patient=seen.patient * others), batch, inner)
    assert abs(float(first[0] - moved[0])) > 1e-6, "the first patient's score depends on the others"
    hidden = gan.critic(seen._replace(codes=jnp.where(inner[..., None], seen.codes, 1.0)), batch, inner)
    np.testing.assert_allclose(first, hidden, rtol=1e-5, err_msg="padding is looked at")


def test_what_is_drawn_is_whole_and_carries_the_slope_of_its_probability():
    logits = jnp.array([2.0, -3.0, 0.5, 0.1])
    uniform = jnp.array([0.0, 0.01, 0.9, 0.2])
    assert _drawn_codes(logits, uniform).tolist() == [0, 1, 0, 1], "index 0 is no code"
    slope = jax.grad(lambda at: _drawn_codes(at, uniform)[2])(logits)
    share = jax.nn.sigmoid(0.5)
    assert slope[2] == pytest.approx(float(share * (1 - share)))
    kinds = jax.vmap(lambda number: _drawn_kind(logits, number))(jnp.linspace(0.0005, 0.9995, 1000))
    np.testing.assert_allclose(kinds.mean(0), jax.nn.softmax(logits), atol=2e-3)
    assert set(np.unique(kinds.round(6))) == {0, 1}


def test_coverage_knows_a_lost_mode():
    rng = np.random.default_rng(1)
    modes = np.repeat(np.eye(2, 6) * 10, 20, axis=0)
    real, same, lost = (jnp.asarray(at + rng.normal(0, 0.1, at.shape)) for at in (modes, modes, modes[[0] * 40]))
    counted = jnp.ones(40, bool)
    assert float(_coverage(real, same, counted)) > 0.9
    assert float(_coverage(real, lost, counted)) <= 0.5


@pytest.mark.slow
def test_it_is_no_worse_than_its_autoencoder(tiny_run):
    lines = [orjson.loads(line) for line in (tiny_run("gan").folder / "metrics.jsonl").read_bytes().splitlines()]
    assert lines[0].keys() == {"step", "tuning"}, "the first line is of the autoencoder alone"
    assert lines[0]["step"] == 0
    assert len(lines) > 1
    assert all(0 < line["tuning"] < 1 for line in lines)
    assert all(0 <= line["coverage"] <= 1 for line in lines[1:])


def test_a_likelihood_is_refused(tiny_run, tiny_events):
    run = runs.load(tiny_run("markov").folder)
    run = run._replace(config=msgspec.structs.replace(run.config, model="gan"))
    with pytest.raises(UsageError, match="a model of kind `gan` has no likelihood"):
        likelihood.score(run, tiny_events)

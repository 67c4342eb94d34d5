"""Every model of the registry: it learns, all of it; it scores a patient alike wherever it stands in a batch."""

import jax
import numpy as np
import orjson
import pytest

from ehrsim import models, runs
from ehrsim.errors import UsageError
from ehrsim.models import suited
from ehrsim.models.gan import GANConfig
from ehrsim.models.markov import MarkovConfig
from ehrsim.models.vae import VAEConfig, dropout_for
from ehrsim.training import best
from ehrsim.visits import packing

MODELS = [
    pytest.param(name, marks=pytest.mark.slow) if family.part else name
    for name, family in sorted(models.MODELS.items())
]
LIKELY = [name for name, family in sorted(models.MODELS.items()) if family.likelihood]


def validations(folder):
    return [orjson.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("name", LIKELY)
def test_the_loss_falls(name, tiny_run):
    lines = validations(tiny_run(name).folder)
    assert [line["step"] for line in lines][:4] == [10, 20, 30, 40]
    assert all(np.isfinite(line["loss"]) and np.isfinite(line["tuning"]) for line in lines)
    assert lines[-1]["tuning"] < 0.9 * lines[0]["tuning"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert best(tiny_run(name).folder / "metrics.jsonl")[0] == 40


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name, tiny_run, tiny_data, tiny_training):
    family = models.family(name)
    fresh = runs.to_arrays(models.create(name, tiny_data.sizes, family.presets["small"], tiny_training.seed))
    trained = runs.to_arrays(runs.load(tiny_run(name).folder).model)
    assert fresh.keys() == trained.keys()
    # What is built around a part may be kept as it was: its gradients are looked at in test_gan.py.
    fresh = {key: array for key, array in fresh.items() if key.startswith(family.part)}
    # Decay alone changes a parameter by less than 2 in 10,000 of itself in 40 steps.
    still = [
        part for part in fresh if np.abs(trained[part] - fresh[part]).max() <= 1e-3 * max(np.abs(fresh[part]).max(), 1)
    ]
    assert still == []


@pytest.mark.parametrize("name", MODELS)
def test_training_compiles_its_step_once(name, tiny_run):
    compiled, stages = tiny_run(name).compiled, 2 if models.family(name).part else 1
    assert sum("jit(step)" in message for message in compiled) == stages
    assert sum("jit(<lambda>)" in message for message in compiled) == 1, "the score of the tuning split"


@pytest.mark.parametrize("name", LIKELY)
def test_the_likelihood_of_a_patient_does_not_depend_on_the_batch(name, tiny_run, tiny_data):
    model, table = runs.load(tiny_run(name).folder).model, tiny_data.train
    score = jax.jit(lambda model, batch: model.log_likelihood(batch, jax.random.key(3)))
    orders = [np.arange(table.patients), np.random.default_rng(0).permutation(table.patients)]
    scored = []
    for order in orders:
        by_patient = np.full(table.patients, np.nan)
        for batch in packing.batches(table, tiny_data.shape, order, 0):
            nats = np.asarray(score(model, batch))
            assert (nats[~batch.real] == 0).all()
            by_patient[batch.number[batch.real]] = nats[batch.real]
        assert np.isfinite(by_patient).all()
        scored.append(by_patient)
    np.testing.assert_allclose(scored[0], scored[1], rtol=1e-4)
    assert np.ptp(scored[0]) > 1, "patients differ"


@pytest.mark.parametrize("name", MODELS)
def test_a_step_offers_heads_of_the_sizes(name, tiny_run, tiny_data):
    from ehrsim.batch import PAST, Context, Moment
    from ehrsim.models.base import Measured, Memory
    from ehrsim.sampling.slots import blank_visit

    model, sizes = runs.load(tiny_run(name).folder).model, tiny_data.sizes
    noise = model.noise
    zeros = np.zeros((3, 2), np.int32)
    context = Context(zeros, zeros[:, 0], zeros, np.full((3, 2), np.nan, np.float32))
    memory = Memory(
        *(np.zeros((3, sizes.vocabulary), np.float32) for _ in range(3)),
        *[np.zeros(3, np.int32)] * 2,
        np.zeros((3, sizes.statics), np.float32),
    )
    visit = blank_visit(3, sizes.places)
    real = np.zeros(3, np.float32)

    def shapes(model):
        origin = model.origin(context)
        state = model.start(np.zeros((3, noise.start), np.float32), context, Moment(*[real] * len(Moment._fields)))
        _, heads = model.step(np.zeros((3, noise.step), np.float32), state, visit, np.ones(3, bool), memory)
        measured = Measured(zeros[:, 0], *[real] * len(PAST))
        first = origin.origin, origin.first_gap(np.zeros(3, np.int32))
        events = heads.events(visit)
        of_event = (head(events.state, measured) for head in (events.repeat, events.attributes, events.value))
        return first, heads.kind(), heads.gap(visit), events.length(), *of_event

    first, kind, gap, length, repeat, attributes, values = jax.eval_shape(shapes, model)
    assert [part.shape for part in first] == [(3, sizes.origins), (3, sizes.first_gaps)]
    assert (kind.shape, gap.shape, length.shape) == ((3, sizes.kinds), (3, sizes.gaps), (3, sizes.lengths))
    assert attributes.offset.shape == (3, sizes.offsets)
    assert (repeat.shape, values.shape) == ((3,), (3, sizes.values))
    assert {leaf.dtype for leaf in jax.tree.leaves((first, kind, attributes))} == {np.dtype(np.float32)}


def test_an_unknown_model_is_refused():
    with pytest.raises(UsageError, match="unknown model `oracle`"):
        models.family("oracle")


@pytest.mark.parametrize("name", MODELS)
def test_presets_grow(name):
    family = models.family(name)
    assert list(family.presets) == ["small", "base", "large"]
    assert all(isinstance(preset, family.config) for preset in family.presets.values())


def test_dropout_goes_by_how_much_there_is_to_learn_from():
    rates = [dropout_for(visits) for visits in (0, 100, 20_000, 200_000, 10**9)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (0.45, 0.1)
    assert suited(VAEConfig(), 20_000, 300) == VAEConfig(dropout=0.45, emission="ordered")
    assert suited(GANConfig(), 20_000, 300).autoencoder == VAEConfig(dropout=0.45, emission="ordered")
    assert suited(VAEConfig(dropout=0.3), 20_000, 300).dropout == 0.3
    assert suited(VAEConfig(dropout=0.3), 20_000, 300, anew=True).dropout == 0.45
    assert suited(MarkovConfig(), 20_000, 300) == MarkovConfig()


def test_many_codes_come_in_two_levels_if_not_said_otherwise():
    assert suited(VAEConfig(), 20_000, 20_000).emission == "two-level"
    for emission in ("ordered", "two-level", "set"):
        for vocabulary in (300, 20_000):
            assert suited(VAEConfig(emission=emission), 20_000, vocabulary).emission == emission

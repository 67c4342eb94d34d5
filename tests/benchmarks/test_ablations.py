"""A part that is left out of a model has no influence any more, and the script tells what each part earns."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ehrsim import models
from ehrsim.batch import Moment
from ehrsim.models.base import Measured, Memory
from ehrsim.models.latents import gaussian
from ehrsim.models.shift import no_shift
from ehrsim.visits import packing

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


@pytest.fixture
def fresh(tiny_data):
    """The untrained small model."""
    return models.create("vae", tiny_data.sizes, models.MODELS["vae"].presets["small"], 0)


@pytest.mark.parametrize("script", ["ablated"], indirect=True)
def test_without_last_values_no_event_is_told_any(script: ModuleType, tiny_data, fresh) -> None:
    decoder = script.VARIANTS["no-last-values"].fresh(fresh).decoder.shifted(no_shift(tiny_data.sizes))
    batch = next(packing.batches(tiny_data.train, tiny_data.shape, np.arange(4), 0))
    inputs = jnp.ones((*batch.start.shape, fresh.decoder.feature.weight.shape[0]))
    seen = jnp.zeros((*batch.start.shape, tiny_data.sizes.vocabulary))
    clock = jnp.zeros(batch.start.shape, jnp.int32)
    statics = jnp.zeros((*batch.start.shape, tiny_data.sizes.statics))
    memory = Memory(previous=seen, seen=seen, wanted=seen, clock=clock, first_clock=clock, statics=statics)

    def logits(decoder, rank: float):
        heads = decoder(inputs, batch.visit.moment, memory).events(batch.visit)
        state = heads.after(heads.state[0, :3], *(jnp.array(part) for part in ([1, 2, 3], [0.5] * 3, [rank] * 3)))
        measured = Measured(jnp.array([1, 2, 3]), *(jnp.full(3, rank) for _ in range(4)))
        return heads.repeat(state, measured), *heads.attributes(state, measured), heads.value(state, measured)

    for one, other in zip(logits(decoder, 0.2), logits(decoder, 0.9), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(logits(fresh.decoder, 0.2)[-1], logits(fresh.decoder, 0.9)[-1])


@pytest.mark.parametrize("script", ["ablated"], indirect=True)
def test_values_are_told_by_their_rank_where_no_last_one_is_known(script: ModuleType, tiny_data) -> None:
    sizes, before = tiny_data.sizes, tiny_data.train.visit
    after = script.by_rank(tiny_data.train, sizes).visit
    again = before.value == sizes.same
    assert again.any() and (after.value[~again] == before.value[~again]).all()
    assert (after.value[again] >= 1).all() and (after.value <= sizes.value_bins).all()
    assert (np.abs((after.value[again] - 0.5) / sizes.value_bins - before.rank[again]) <= 0.5 / sizes.value_bins).all()


@pytest.mark.parametrize("script", ["ablated"], indirect=True)
def test_without_copies_it_does_not_matter_what_the_patient_had(script: ModuleType, tiny_data, fresh) -> None:
    size = tiny_data.sizes.vocabulary

    def recalled(model, had: float):
        logits = jax.tree.map(lambda part: part + 0.3, model.decoder.emission.logits)
        seen, kind = jnp.full((2, size), had), jnp.zeros(2, jnp.int32)
        memory = Memory(
            previous=seen,
            seen=seen,
            wanted=jnp.zeros((2, size)),
            clock=kind,
            first_clock=kind,
            statics=jnp.zeros((2, tiny_data.sizes.statics)),
        )
        moment = Moment(*(jnp.full(2, number) for number in (40.0, -2.0, 3.0, 5.0, 0.5)))
        return logits.recalled(jnp.ones((2, 3)), kind, moment, memory, slice(None))

    changed = script.VARIANTS["no-copies"].fresh(fresh)
    assert np.array_equal(recalled(changed, 0.0), recalled(changed, 1.0))
    assert not np.array_equal(recalled(fresh, 0.0), recalled(fresh, 1.0))


@pytest.mark.parametrize("script", ["ablated"], indirect=True)
def test_plain_priors_are_standard_normal(script: ModuleType, fresh) -> None:
    width, config = fresh.config.width, fresh.config
    changed = script.VARIANTS["plain-priors"].fresh(fresh)
    of_patient, of_visit = changed.patient_prior(jnp.ones((2, width))), changed.visit_prior(*jnp.ones((2, 2, width)))
    for prior, size in ((of_patient, config.patient_latent), (of_visit, config.visit_latent)):
        standard = gaussian(jnp.zeros((2, 2 * size)))
        assert all(np.array_equal(part, expected) for part, expected in zip(prior, standard, strict=True))


@pytest.mark.parametrize("script", ["ablated"], indirect=True)
def test_parts_of_the_sizes_are_left_out(script: ModuleType, tiny_data) -> None:
    sizes = tiny_data.sizes
    assert script.VARIANTS["one-set"].sizes(sizes).groups == ((1, sizes.vocabulary),)
    assert script.VARIANTS["no-precursors"].sizes(sizes).precursors == ()


@pytest.mark.slow
@pytest.mark.parametrize("variants", ["whole,no-last-values,gan", "no-visit-latent,no-patient-latent,one-set"])
def test_what_each_part_earns_is_told(variants: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "ablations.py"), "--small", "--preset", "small", "--markdown"]
    done = subprocess.run([*command, "--variants", variants], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert list(result["variants"]) == variants.split(",")
    for name, figures in result["variants"].items():
        assert figures["fit_cpu"] > 0 and figures["code_by_visit/total_variation"]["ratio"] > 1
        assert ("held_out_nats" in figures) == (name != "gan")
    assert "| variant | nats |" in done.stderr and "| floor |" in done.stderr

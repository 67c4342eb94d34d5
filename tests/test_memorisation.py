"""Attacks with the run folder: a model that has memorised its patients gives them away, one that has not does not."""

from __future__ import annotations

import sys

import msgspec
import numpy as np
import polars as pl
import pytest

from ehrsim import events, likelihood, memorisation, runs
from ehrsim.errors import MissingExtraError
from ehrsim.evaluate import membership
from ehrsim.models.vae import VAEConfig
from ehrsim.optimisation import TrainingConfig
from ehrsim.training import fit

pytest.importorskip("sklearn")
OVERFIT = TrainingConfig(
    max_steps=400,
    steps_per_batch=256,
    warmup=10,
    validate_every=100,
    patience=100,
    calibration=0,
    raking=0,
    weight_decay=0.0,
    min_patients=1,
    seed=5,
)


@pytest.fixture(scope="module")
def patients(tiny_patients) -> dict[str, pl.LazyFrame]:
    """Few members, who all are of the training split, so that training is stopped by nobody else; and others."""
    frame = tiny_patients(420)
    training = frame.filter(events.split_of(frame["subject_id"]) == "train")
    ids = training["subject_id"].unique().sort()
    bounds = {"members": (0, 60), "others": (60, 200), "reference": (200, 340)}
    return {
        name: training.filter(pl.col("subject_id").is_in(ids[low:high].implode())).lazy()
        for name, (low, high) in bounds.items()
    }


def attacked(run, patients):
    return memorisation.membership_by_run(run, patients["members"], patients["others"], patients["reference"])


def test_the_likelihoods_of_patients_add_up_to_the_score(tiny_run, tiny_events) -> None:
    run = runs.load(tiny_run("markov").folder)
    found = likelihood.of_patients(run, tiny_events)
    whole = likelihood.score(run, tiny_events)
    assert found.nats.sum() == pytest.approx(whole.nats, rel=1e-5)
    assert found.steps.sum() == whole.visits
    assert found.subject.tolist() == tiny_events["subject_id"].unique().sort().to_list()
    some = likelihood.of_patients(run, tiny_events.filter(pl.col("subject_id") % 3 == 0))
    # Where in its tie a value stands is drawn for all patients of a table, so that others move it a little.
    np.testing.assert_allclose(some.nats, found.nats[found.subject % 3 == 0], rtol=2e-2)
    assert some.subject.tolist() == found.subject[found.subject % 3 == 0].tolist()


def test_scikit_learn_is_an_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrsim\[evaluate\]'"):
        memorisation._trees(0)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["markov", "vae"])
def test_a_memorised_run_gives_its_patients_away(patients, model) -> None:
    narrow = VAEConfig(width=64, attribute_width=64, patient_latent=8, visit_latent=4, emission="set", dropout=0.0)
    run = fit(
        patients["members"].collect(), model=model, model_config=narrow if model == "vae" else None, training=OVERFIT
    )
    found = attacked(run, patients)
    assert found.auc.value >= 0.95
    assert found.auc.interval[0] > 0.9
    assert found.detections[0].found.low > 0.2
    assert not found.passes
    # Patients the run has not seen are told from nobody.
    swapped = memorisation.membership_by_run(run, patients["others"], patients["reference"], patients["members"])
    assert swapped.by_attack["likelihood"].interval[0] < 0.5 < swapped.by_attack["likelihood"].interval[1]


@pytest.mark.slow
def test_a_run_of_other_patients_tells_nothing(patients) -> None:
    few = msgspec.structs.replace(OVERFIT, max_steps=60, validate_every=20)
    run = fit(patients["reference"].collect(), model="markov", training=few)
    half = patients["reference"].filter(pl.col("subject_id") % 2 == 0)
    found = memorisation.membership_by_run(run, patients["members"], patients["others"], half, reference_run=run)
    assert found.auc.interval[0] < 0.5 < found.auc.interval[1]
    assert found.by_attack["likelihood over another run"].value == 0.5


@pytest.mark.slow
def test_models_of_the_attackers_own_find_training_patients_in_what_was_handed_out(patients) -> None:
    targets = [patients["members"], patients["others"]]
    brief = msgspec.structs.replace(OVERFIT, max_steps=150, validate_every=50)
    score = memorisation.sequence_scores(
        targets, patients["members"], patients["reference"], model="markov", config=brief
    )
    member = np.repeat([True, False], [60, 140])
    assert membership.area_of(score, member).interval[0] > 0.8


@pytest.mark.slow
def test_a_gan_is_attacked_by_its_autoencoder(tiny_run, tiny_events) -> None:
    run = runs.load(tiny_run("gan").folder)
    found = likelihood.of_patients(run, tiny_events)
    assert np.isfinite(found.nats).all() and (found.nats < 0).all()


@pytest.mark.slow
def test_canaries_planted_often_are_remembered_and_once_in_a_short_training_are_not(patients) -> None:
    everyone = pl.concat(list(patients.values()))
    often = memorisation.canary_exposure(everyone, model="markov", config=OVERFIT, planted=8, number=32, repeats=8)
    assert often.p_value < 1e-3
    assert often.mean > often.chance + 1
    briefly = msgspec.structs.replace(OVERFIT, max_steps=20, validate_every=10)
    once = memorisation.canary_exposure(everyone, model="markov", config=briefly, planted=8, number=32)
    assert once.p_value > 1e-3
    assert once.mean < often.mean

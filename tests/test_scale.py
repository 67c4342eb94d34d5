"""Long records and other vocabularies, with codes in two levels."""

from datetime import datetime, timedelta

import jax
import msgspec
import numpy as np
import polars as pl
import pytest

from ehrsim import events
from ehrsim.models.vae import VAEConfig
from ehrsim.optimisation import TrainingConfig
from ehrsim.sampling import generate
from ehrsim.training import fit

TINY = VAEConfig(emission="two-level", width=16, attribute_width=8, patient_latent=4, visit_latent=4)


def long_records(patients: int, visits: int) -> pl.DataFrame:
    """Records of so many visits, one a week, each with some of ten codes."""
    rng = np.random.default_rng(1)
    rows = []
    for subject in range(1, patients + 1):
        begin = datetime(2000, 1, 1) + timedelta(days=int(rng.integers(0, 300)))
        rows.append({"subject_id": subject, "time": begin - timedelta(days=15_000), "code": "MEDS_BIRTH"})
        for visit in range(visits):
            moment = {"subject_id": subject, "time": begin + timedelta(days=7 * visit), "visit_id": visit + 1}
            rows.append(moment | {"code": "VISIT_START//AMB"})
            rows += [moment | {"code": f"ICD10CM//A{n}"} for n in np.flatnonzero(rng.random(10) < 0.2)]
    return events.sort(events.conform(pl.DataFrame(rows, infer_schema_length=None)).lazy()).collect()


@pytest.mark.slow
def test_records_of_hundreds_of_visits_are_learned_and_drawn():
    frame = long_records(60, 505)
    config = TrainingConfig(max_steps=60, steps_per_batch=2_048, warmup=5, validate_every=20, calibration=0, raking=0)
    run = fit(frame, model="vae", model_config=TINY, training=config)
    assert run.provenance["data"]["steps"] >= 505 * run.provenance["data"]["train_patients"]
    drawn = generate(run, 24, seed=1, slots=8).collect()
    assert events.validate(drawn.lazy()) == []
    visits = drawn.group_by("subject_id").agg(pl.col("visit_id").n_unique())["visit_id"]
    assert visits.max() > 200, "records go on for hundreds of visits"


@pytest.mark.slow
def test_a_run_with_codes_in_two_levels_is_begun_with_for_another_vocabulary(tiny_events, tiny_training):
    """The new data lack a code and have another: the codes lie in other blocks."""
    source = fit(tiny_events, model="vae", model_config=TINY, training=tiny_training)
    other = tiny_events.filter(pl.col("code") != "ICD10CM//I10").with_columns(
        pl.col("code").replace({"RxNorm//860975": "RxNorm//1"})
    )
    few = events.sort(other.lazy()).collect()
    short = msgspec.structs.replace(tiny_training, max_steps=1, calibration=0, raking=0)
    begun = fit(few, init=source, training=short)
    fresh = fit(few, model="vae", model_config=TINY, training=short)
    assert begun.model.config.emission == "two-level"
    assert begun.vocabulary.entries != source.vocabulary.entries
    same = [entry for entry in begun.vocabulary.entries if entry in source.vocabulary.index]
    for part in ("of_code", "of_last"):
        old, new = (getattr(run.model.decoder.emission, part)[...] for run in (source, begun))
        for entry in same:
            np.testing.assert_allclose(
                new[begun.vocabulary.index[entry]], old[source.vocabulary.index[entry]], atol=0.02
            )
    assert jax.tree.structure(begun.model) != jax.tree.structure(source.model) or len(same) < len(
        source.vocabulary.entries
    )
    assert fresh.model.sizes.vocabulary == begun.model.sizes.vocabulary

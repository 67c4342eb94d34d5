"""Canaries are well-formed patients whom no population explains; exposure by its formula."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ehrsim import events
from ehrsim.errors import InputError
from ehrsim.evaluate.canaries import candidates, exposure, planted


def test_exposure_is_the_log_of_the_candidates_less_that_of_the_rank() -> None:
    likelihood = np.array([[5.0, 1, 2, 3], [1, 5, 2, 3], [2, 1, 2, 3]])
    found = exposure(likelihood, repeats=2)
    assert found.bits == pytest.approx([2, 0, 2 - np.log2(2.5)])
    assert found.chance == pytest.approx((2 + 1 + (2 - np.log2(3)) + 0) / 4)
    assert (found.first, found.canaries, found.candidates, found.repeats, found.most) == (1, 3, 4, 2, 2)


def test_a_model_that_remembers_nothing_has_the_exposure_of_chance() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    found = [exposure(rng.normal(size=(16, 128))) for _ in range(200)]
    assert np.mean([one.mean for one in found]) == pytest.approx(found[0].chance, abs=0.05)
    assert stats.kstest([one.p_value for one in found], "uniform").pvalue > 0.01
    remembered = rng.normal(size=(16, 128))
    remembered[:, 0] += 2
    assert exposure(remembered).p_value < 1e-6


def test_canaries_have_the_visits_of_patients_and_contents_at_random(world) -> None:
    frame = world(120, seed=1)
    made = candidates(frame, canaries=6, number=40, seed=2)
    assert made.canary.height == made.events["subject_id"].n_unique() == 240
    assert made.canary["subject_id"].max() < 0
    assert (events.split_of(made.canary["subject_id"]) == "train").all()
    # All candidates of a canary are alike but for what happens in their visits.
    joined = made.events.join(made.canary, on="subject_id")
    times = joined.group_by("canary", "candidate").agg(pl.col("time").drop_nulls().sort())
    assert times.group_by("canary").agg(pl.col("time").n_unique())["time"].to_list() == [1] * 6
    content = joined.filter(pl.col("visit_id").is_not_null() & ~pl.col("code").str.starts_with("VISIT"))
    counts = content["code"].value_counts()["count"]
    assert counts.min() > 0.6 * counts.max(), "every code is as likely as any other"
    known = frame.collect().select("code", "unit").unique()
    assert (
        made.events.select("code", "unit")
        .unique()
        .join(known, on=["code", "unit"], how="anti", nulls_equal=True)
        .is_empty()
    )
    assert content.filter(pl.col("code").str.starts_with("LOINC"))["numeric_value"].null_count() == 0
    assert candidates(frame, canaries=6, number=40, seed=2).events.equals(made.events)
    assert not candidates(frame, canaries=6, number=40, seed=3).events.equals(made.events)


def test_what_is_planted_is_the_first_candidate_under_ids_of_its_own(world) -> None:
    made = candidates(world(120, seed=1), canaries=3, number=5)
    own = planted(made, repeats=4)
    assert own["subject_id"].n_unique() == 12
    assert not set(own["subject_id"]) & set(made.canary["subject_id"])
    assert (events.split_of(own["subject_id"].unique()) == "train").all()
    first = made.events.join(made.canary.filter(pl.col("candidate") == 0), on="subject_id", how="semi")
    assert own.height == 4 * first.height
    of_one = own.filter(pl.col("subject_id") == own["subject_id"].max()).drop("subject_id")
    assert any(
        of_one.equals(first.filter(pl.col("subject_id") == subject).drop("subject_id"))
        for subject in first["subject_id"].unique()
    )


def test_too_few_patients_are_refused(world) -> None:
    with pytest.raises(InputError, match="expected 50, one for each canary"):
        candidates(world(40, seed=1), canaries=50, number=2)

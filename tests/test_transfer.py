"""Transfer: weights go where the names agree, new codes begin as their parents, and few patients profit."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import polars as pl
import pytest

from ehrsim import events, models, runs
from ehrsim.batch import Precursor
from ehrsim.errors import RunError, UsageError
from ehrsim.models.layers import QUICK
from ehrsim.optimisation import TrainingConfig
from ehrsim.training import best, fit
from ehrsim.transfer import inherited, match_codes, match_kinds, match_statics, transferred
from ehrsim.visits import table
from ehrsim.vocabulary import Entry, Vocabulary

OTHER = Vocabulary(
    entries=[
        Entry("ICD10CM//E11.9", None, None),
        Entry("ICD10CM//Z99.9", None, None),
        Entry("RxNorm//860975", "as needed", None),
        Entry("LOINC//8480-6", None, "mm[Hg]"),
    ],
    visit_types=[Entry("VISIT_START//EMER", None, None), Entry("VISIT_START//IMP", None, None)],
    visit_ends=[Entry("VISIT_END//EMER", None, None), Entry("VISIT_END//IMP", None, None)],
    statics=[Entry("GENDER//male", None, None), Entry("GENDER//other", None, None)],
    descriptions={},
    parents={},
    min_patients=1,
)
"""Another site: some codes, a visit type and a sex of the tiny run, and some that it does not know."""


@pytest.fixture(scope="module", params=["markov", "vae"])
def moved(request, tiny_run):
    """A tiny run, a fresh model of the other site, and that model with the run's weights."""
    run = runs.load(tiny_run(request.param).folder)
    sizes = table.sizes(OTHER, run.scales, run.model.sizes.places)
    fresh = models.create(request.param, sizes, run.model_config, 99)
    return run, fresh, transferred(run, fresh, OTHER)


def test_names_are_matched_and_broader_codes_stand_in():
    known = msgspec.structs.replace(
        OTHER, entries=[Entry("ICD10CM//E11", None, None), Entry("RxNorm//860975", None, None)]
    )
    codes = match_codes(known, OTHER)
    assert codes.new.tolist() == [0, 1, 3], "E11.9 has a parent there, the drug is there without its text"
    assert codes.old.tolist() == [0, 1, 2]
    panel = Entry("LOINC//85354-9", None, "mm[Hg]")
    told = msgspec.structs.replace(OTHER, parents={"LOINC//8480-6": panel.code})
    with_panel = msgspec.structs.replace(known, entries=[*known.entries, panel])
    assert match_codes(with_panel, told).old.tolist() == [0, 1, 2, 3], "parents that only the new data tell of count"
    fewer = msgspec.structs.replace(OTHER, visit_types=OTHER.visit_types[1:], statics=OTHER.statics[:1])
    kinds = match_kinds(fewer, OTHER)
    assert kinds.new.tolist() == [0, 2, 3, 4, 5], "the three kinds after the visit types are the same everywhere"
    assert kinds.old.tolist() == [0, 1, 2, 3, 4]
    assert match_statics(fewer, OTHER).new.tolist() == [0, 1]


def test_every_weight_keeps_its_shape_and_most_are_the_runs(moved):
    _, fresh, model = moved
    before, after = jax.tree.leaves(fresh), jax.tree.leaves(model)
    assert [leaf.shape for leaf in after] == [leaf.shape for leaf in before]
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.8


def test_rows_of_codes_go_by_name(moved):
    run, fresh, model = moved
    rows = match_codes(run.vocabulary, OTHER)
    assert 2 not in rows.new, "a code without a parent in the run"
    name = "value" if run.config.model == "markov" else "history"
    old, begun, new = (np.asarray(getattr(part, name)[...]) for part in (run.model, fresh, model))
    np.testing.assert_array_equal(new[rows.new], old[rows.old])
    np.testing.assert_array_equal(new[2], begun[2])


def test_a_model_of_the_same_codes_is_the_run_itself(tiny_run):
    run = runs.load(tiny_run("vae").folder)
    fresh = models.create("vae", run.model.sizes, run.model_config, 99)
    model = transferred(run, fresh, run.vocabulary)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(model), jax.tree.leaves(run.model))


def test_precursors_of_known_codes_come_with_the_run(tiny_run):
    run = runs.load(tiny_run("vae").folder)
    index = {entry.code: number for entry, number in run.vocabulary.index.items()}
    drug, disease, pressure = (index[code] for code in ("RxNorm//860975", "ICD10CM//E11.9", "LOINC//8480-6"))
    pairs = (Precursor(drug, disease, 2.0), Precursor(pressure, run.vocabulary.size, -1.0))
    of_run = run.model.sizes._replace(precursors=pairs, classes=((disease, index["ICD10CM//J06.9"]),))
    model = models.create("vae", of_run, run.model_config, 3)
    model.decoder.emission.logits.precursors.weight[...] = jnp.array([0.37, -0.2])
    run = run._replace(model=model)
    assert [entry.code for entry in OTHER.entries] == [
        "ICD10CM//E11.9",
        "ICD10CM//Z99.9",
        "RxNorm//860975",
        "LOINC//8480-6",
    ]
    found = table.sizes(OTHER, run.scales, run.model.sizes.places)._replace(
        precursors=(Precursor(2, 1, 5.0), Precursor(2, 5, 3.0), Precursor(3, 2, 4.0)), classes=((3, 4),)
    )
    sizes = inherited(run, OTHER, found)
    assert sizes.classes == ((1,), (3, 4)), "those of the run first, with the codes that there are"
    assert sizes.precursors == (
        Precursor(2, 1, 5.0),
        Precursor(2, 6, 3.0),
        Precursor(3, 1, 2.0),
        Precursor(4, 5, -1.0),
    ), "those found for a code that is new, the run's for one it knows"
    moved = transferred(run, models.create("vae", sizes, run.model_config, 4), OTHER)
    weights = moved.decoder.emission.logits.precursors.weight[...]
    np.testing.assert_allclose(weights, [5.0 / QUICK, 3.0 / QUICK, 0.37, -0.2])


def test_fit_begins_with_the_run_and_is_never_worse(tiny_run, tiny_events, tmp_path):
    few = tiny_events.filter(pl.col("subject_id") <= 40)
    short = TrainingConfig(max_steps=4, steps_per_batch=256, warmup=1, validate_every=2, min_patients=2, seed=5)
    source = tiny_run("markov").folder
    begun = fit(few, tmp_path / "begun", init=source, training=short)
    fit(few, tmp_path / "scratch", model="markov", training=short)
    assert begun.provenance["init"] == runs.load(source).identity
    assert best(tmp_path / "begun" / "metrics.jsonl")[1] < best(tmp_path / "scratch" / "metrics.jsonl")[1]
    again = fit(few, tmp_path / "again", init=runs.load(source), training=short)
    assert again.identity == begun.identity


def test_the_kind_of_model_is_that_of_the_run(tiny_run, tiny_events):
    with pytest.raises(UsageError, match="`markov`"):
        fit(tiny_events, model="vae", init=tiny_run("markov").folder)


def test_what_is_no_run_is_refused(tiny_events, tmp_path):
    events.write_events(tiny_events, tmp_path / "events")
    with pytest.raises(RunError):
        fit(tiny_events, tmp_path / "run", init=tmp_path / "events")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run.training").exists()

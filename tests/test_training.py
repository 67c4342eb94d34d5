"""Training: the same bytes each time, also after a kill; stops early; refuses what it cannot go on with."""

import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import orjson
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from ehrsim import events, runs, training
from ehrsim.errors import InputError, RunError, UsageError
from ehrsim.optimisation import TrainingConfig
from ehrsim.training import fit, training_config


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def stopping_at(step: int):
    def progress(stage: str, done: int, total: int | None, unit: str) -> None:
        if stage == "train" and done == step:
            raise Interrupted

    return progress


@pytest.fixture(scope="module")
def interrupted_once(tiny_events, tiny_training, tmp_path_factory) -> Path:
    """The working folder of a training that was interrupted at step 25, the last checkpoint being that of step 20."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Interrupted):
        fit(tiny_events, folder / "run", model="markov", training=tiny_training, progress=stopping_at(25))
    return folder / "run.training"


@pytest.fixture
def interrupted(interrupted_once, tmp_path) -> Path:
    """Where an interrupted training was to go."""
    shutil.copytree(interrupted_once, tmp_path / "run.training")
    return tmp_path / "run"


def test_a_folder_gives_the_same_bytes_as_a_frame(tiny_run, tiny_events, tiny_training, tmp_path):
    events.write_events(tiny_events, tmp_path / "events")
    fit(tmp_path / "events", tmp_path / "run", model="markov", training=tiny_training)
    assert contents(tmp_path / "run") == contents(tiny_run("markov").folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events", "run"], "no working folder is left"


def test_without_a_folder_only_the_run_is_returned(tiny_run, tiny_events, tiny_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(tiny_events.lazy(), model="markov", training=tiny_training)
    assert run.identity == runs.load(tiny_run("markov").folder).identity
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_training_goes_on_to_the_same_bytes(interrupted, tiny_run, tiny_events, tiny_training):
    assert not interrupted.exists()
    fit(tiny_events, interrupted, model="markov", training=tiny_training, resume=True)
    assert contents(interrupted) == contents(tiny_run("markov").folder)


def test_a_training_interrupted_after_its_last_step_is_not_trained_further(
    tiny_run, tiny_events, tiny_training, tmp_path
):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(tiny_events, out, model="markov", training=tiny_training, progress=stopping_at(40))
    fit(tiny_events, out, model="markov", training=tiny_training, resume=True)
    assert contents(out) == contents(tiny_run("markov").folder)


PROGRAM = """
import sys
import polars as pl
from ehrsim.optimisation import TrainingConfig
from ehrsim.training import fit
config = TrainingConfig(max_steps=40, steps_per_batch=256, warmup=4, validate_every=10, min_patients=3, seed=5)
def progress(stage, done, total, unit):
    print(stage, done, flush=True)
    while stage == "train" and done == 13 and len(sys.argv) > 4:
        pass
fit(pl.read_parquet(sys.argv[1]), sys.argv[2], model=sys.argv[3], training=config, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["markov", "vae"])
def test_a_killed_training_goes_on_to_the_same_bytes(model, tiny_run, tiny_events, tiny_training, tmp_path):
    tiny_events.write_parquet(tmp_path / "events.parquet")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "program.py", tmp_path / "events.parquet", tmp_path / "run", model, "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "train 13\n":
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    fit(tiny_events, tmp_path / "run", model=model, training=tiny_training, resume=True)
    assert contents(tmp_path / "run") == contents(tiny_run(model).folder)


def test_other_data_or_settings_are_not_gone_on_with(interrupted, tiny_events, tiny_training):
    tuning = events.only(tiny_events.lazy(), "tuning").collect()["subject_id"].unique()
    other_values = pl.when(pl.col("subject_id") == tuning[0]).then(pl.col("numeric_value") + 1)
    changed = tiny_events.with_columns(other_values.otherwise(pl.col("numeric_value")).alias("numeric_value"))
    for frame, config in (
        (tiny_events.filter(pl.col("subject_id") != 2), tiny_training),
        (changed, tiny_training),
        (tiny_events, msgspec.structs.replace(tiny_training, seed=6)),
    ):
        with pytest.raises(RunError, match="begun with other data or settings"):
            fit(frame, interrupted, model="markov", training=config, resume=True)


def test_an_interrupted_training_is_not_lost_by_chance(interrupted, tiny_events, tiny_training):
    with pytest.raises(UsageError, match="--resume"):
        fit(tiny_events, interrupted, model="markov", training=tiny_training)


@pytest.mark.parametrize("damage", ["truncated", "no state", "other shapes"])
def test_a_damaged_checkpoint_is_refused(damage, interrupted, tiny_events, tiny_training):
    path = interrupted.parent / "run.training" / "checkpoint.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    else:
        arrays = load_file(path)
        if damage == "no state":
            del arrays["state.step"]
        else:
            name = next(name for name in arrays if name.startswith("model."))
            arrays[name] = arrays[name][:-1]
        save_file(arrays, path)
    with pytest.raises(RunError, match="checkpoint"):
        fit(tiny_events, interrupted, model="markov", training=tiny_training, resume=True)


def test_nothing_to_resume(tiny_events, tmp_path):
    with pytest.raises(RunError, match="nothing to resume"):
        fit(tiny_events, tmp_path / "run", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused(tiny_events, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file"):
        with pytest.raises(UsageError, match="exists already"):
            fit(tiny_events, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_training_stops_when_the_tuning_loss_does(tiny_events, tiny_training, tmp_path, monkeypatch):
    losses = iter([5.0, 4.0, 4.5, 4.2, 1.0])
    monkeypatch.setattr(
        training.likelihood, "scorer", lambda *_: lambda model: training.likelihood.Score(-next(losses), 1, 1)
    )
    config = msgspec.structs.replace(tiny_training, validate_every=2, patience=2, falls=0)
    run = fit(tiny_events, tmp_path / "run", model="markov", training=config)
    lines = [orjson.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()]
    assert [(line["step"], line["tuning"]) for line in lines] == [(2, 5.0), (4, 4.0), (6, 4.5), (8, 4.2)]
    assert training.best(tmp_path / "run" / "metrics.jsonl") == (4, 4.0)
    # The weights kept are those of step 4, whatever comes after.
    losses = iter([5.0, 4.0, 9.0, 9.0])
    again = fit(tiny_events, tmp_path / "again", model="markov", training=config)
    assert all(
        np.array_equal(one, other)
        for one, other in zip(runs.to_arrays(run.model).values(), runs.to_arrays(again.model).values(), strict=True)
    )


def test_a_tuning_loss_that_stays_lowers_the_learning_rate(tiny_events, tiny_training, tmp_path, monkeypatch):
    """Training goes on from the best weights, in smaller steps, and stops when the rate would fall once too often."""

    def trained(*losses: float, **changed: float) -> tuple[dict, list]:
        told = iter(losses)
        monkeypatch.setattr(
            training.likelihood, "scorer", lambda *_: lambda model: training.likelihood.Score(-next(told), 1, 1)
        )
        config = msgspec.structs.replace(tiny_training, max_steps=99, validate_every=1, patience=1, falls=1, **changed)
        run = fit(tiny_events, tmp_path / "run", model="markov", training=config, overwrite=True)
        lines = [orjson.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()]
        return runs.to_arrays(run.model), [line["tuning"] for line in lines]

    def distance(one: dict, other: dict) -> float:
        return max(float(np.abs(one[name] - other[name]).max()) for name in one)

    first, seen = trained(5.0, 6.0, 7.0, fall=0.1)
    assert seen == [5.0, 6.0, 7.0], "one fall, and then the end"
    after, _ = trained(5.0, 6.0, 4.0, 9.0, fall=0.1)
    further, _ = trained(5.0, 6.0, 4.0, 9.0, fall=1.0)
    # From the best weights: the third step begins where the first ended, and is a tenth as long.
    assert 0 < distance(first, after) < 0.5 * distance(first, further)


def test_biases_are_calibrated_in_the_end(tiny_run):
    path = tiny_run("vae").folder / "metrics.jsonl"
    *validations, last = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["step"] for line in validations] == [10, 20, 30, 40]
    assert not any("calibrated" in line for line in validations)
    assert (last["step"], last["calibrated"]) == (48, True), "a fifth of the steps"
    found = min(validations, key=lambda line: line["tuning"])
    assert training.best(path) == (found["step"], last["tuning"])
    assert last["tuning"] < found["tuning"] + 0.5


@pytest.mark.slow
def test_calibration_changes_nothing_but_biases(tiny_run, tiny_events, tiny_training):
    calibrated = runs.load(tiny_run("vae").folder).model
    without = fit(tiny_events, model="vae", training=msgspec.structs.replace(tiny_training, calibration=0)).model
    constants = runs.to_arrays(without.calibrated())
    one, other = runs.to_arrays(calibrated), runs.to_arrays(without)
    # Up to the rounding of an average of what stays the same.
    equal = {name: np.allclose(one[name], other[name], rtol=1e-5, atol=1e-7) for name in other}
    assert not any(equal[name] for name in ("decoder.kind.bias.value", "decoder.emission.logits.bias.value"))
    assert all(equal[name] for name in other if not constants[name])
    assert 0.1 < np.mean([bool(flag) for flag in constants.values()]) < 0.5


def test_a_loss_that_is_no_number_ends_training(tiny_events, tiny_training, tmp_path, monkeypatch):
    score = training.likelihood.Score(float("nan"), 1, 1)
    monkeypatch.setattr(training.likelihood, "scorer", lambda *_: lambda model: score)
    with pytest.raises(InputError, match="diverged"):
        fit(tiny_events, tmp_path / "run", model="markov", training=tiny_training)
    assert not (tmp_path / "run").exists()


def test_latents_are_watched(tiny_run):
    """The figures by which a collapse of the latents would show are logged, and there is none at first."""
    *lines, _ = [orjson.loads(line) for line in (tiny_run("vae").folder / "metrics.jsonl").read_bytes().splitlines()]
    for line in lines:
        assert {"reconstruction", "kl_patient", "kl_visit", "active_patient", "active_visit"} <= line.keys()
        assert 0 <= line["active_visit"] <= 1
        assert line["active_patient"] > 0, "the patient latent has collapsed"
        assert line["kl_patient"] > 0.05
        assert line["kl_visit"] > 0


@pytest.mark.slow
def test_a_collapse_would_show(tiny_events, tiny_training, tmp_path, monkeypatch):
    from ehrsim import models

    family = models.family("vae")
    free = msgspec.structs.replace(family.presets["small"], free_bits=0.0, patient_free_bits=0.0, anneal=1e-6)
    monkeypatch.setitem(models.MODELS, "vae", family._replace(presets={"small": free}))
    config = msgspec.structs.replace(tiny_training, max_steps=60, raking=0)
    fit(tiny_events, tmp_path / "run", model="vae", training=config)
    # The last validation: calibration goes on from the best one, which may be of an earlier step.
    last = orjson.loads((tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()[-2])
    assert last["active_patient"] < 0.1
    assert last["kl_patient"] < 0.2


@pytest.mark.parametrize(
    ("preset", "changed", "said"),
    [
        ("tiny", {}, "unknown preset `tiny`"),
        ("small", {"max_steps": 0}, "max-steps"),
        ("small", {"min_patients": 0}, "min-patients"),
        ("small", {"seed": -1}, "seed"),
        ("small", {"width": 5}, "training configuration"),
    ],
)
def test_a_configuration_out_of_range_is_refused(preset, changed, said):
    with pytest.raises(UsageError, match=said):
        training_config(preset, **changed)


def test_a_configuration_changes_a_preset():
    assert training_config("small", max_steps=None) == TrainingConfig()
    assert training_config("base", seed=4) == msgspec.structs.replace(training.PRESETS["base"], seed=4)


def test_unknown_names_and_empty_data_are_refused(tiny_events, tiny_training, tmp_path):
    with pytest.raises(UsageError, match="oracle"):
        fit(tiny_events, tmp_path / "run", model="oracle")
    with pytest.raises(InputError, match="no code occurs in 500 patients"):
        fit(tiny_events, tmp_path / "run", training=msgspec.structs.replace(tiny_training, min_patients=500))
    with pytest.raises(InputError):
        fit(tiny_events.clear(), tmp_path / "run", training=tiny_training)


def test_the_data_of_a_run_are_told(tiny_run, tiny_events):
    provenance = runs.load(tiny_run("markov").folder).provenance
    split = events.split_of(tiny_events["subject_id"].unique(maintain_order=True))
    assert provenance["data"]["train_patients"] == (split == "train").sum()
    assert provenance["data"]["tuning_patients"] == (split == "tuning").sum()
    assert provenance["software"]["ehrsim"]
    assert str(Path.cwd()) not in orjson.dumps(provenance).decode()

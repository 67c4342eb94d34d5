"""Training: events -> vocabulary, scales and batches -> steps -> a run folder.

One linear function, `fit`. While it works it keeps a folder `OUT.training` with the live metrics and a checkpoint; a
run that was interrupted goes on from there with the identical result, since batches and random keys depend only on the
seed and the step.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import polars as pl

from ehrsim import likelihood, models, rates, runs
from ehrsim.errors import InputError, RunError, UsageError
from ehrsim.margins import count
from ehrsim.models.shift import no_shift
from ehrsim.optimisation import Score, TrainingConfig, optimise
from ehrsim.preparation import Data, prepare
from ehrsim.progress import Progress, silent
from ehrsim.prospects import prospects
from ehrsim.raking import of_statics, rake
from ehrsim.runs import Run, RunConfig
from ehrsim.sampling import sample
from ehrsim.transfer import inherited, transferred
from ehrsim.visits import table

AROUND = 8
"""What is built around an autoencoder is trained for the eighth part of its steps, and validated at least as often."""
SIMULATED = (500, 2_000)
"""Patients that are simulated to score a model without a likelihood, at least and at most."""


PRESETS: dict[str, TrainingConfig] = {
    # 2 CPU cores, records of about 15 visits x 10 codes, 300 codes: 3 minutes; 1,300 codes: 6 minutes.
    "small": TrainingConfig(),
    # 2 CPU cores: 10 to 30 minutes, raking included. Three times the steps gain a little more, on a GPU in minutes.
    "base": TrainingConfig(max_steps=1000, learning_rate=2e-3),
    # One data-centre GPU: under an hour; not meant for a CPU.
    "large": TrainingConfig(max_steps=30_000, steps_per_batch=16_384, validate_every=500, learning_rate=1e-3),
}


def training_config(preset: str, **changed: Any) -> TrainingConfig:
    """The training configuration of a preset, with some fields changed; those given as None stay as they are.

    Raises `UsageError` for an unknown preset or field, or a value out of range.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset `{preset}`", hint=f"expected one of {', '.join(PRESETS)}")
    given = {name: value for name, value in changed.items() if value is not None}
    for name, least in (("max_steps", 1), ("min_patients", 1), ("seed", 0)):
        if given.get(name, least) < least:
            raise UsageError(f"{name.replace('_', '-')} is `{given[name]}`, expected {least} or more")
    try:
        return msgspec.structs.replace(PRESETS[preset], **given)
    except TypeError as error:
        raise UsageError(f"training configuration: {error}") from error


def best(metrics: Path) -> tuple[int, float]:
    """The step of the best validation in a metrics file, and the tuning loss of the model as it was saved."""
    lines = [orjson.loads(line) for line in metrics.read_bytes().splitlines()]
    validations = [line for line in lines if not line.keys() & {"calibrated", "raked"}]
    line = min(validations, key=lambda figures: figures["tuning"])
    return line["step"], line["tuning"] if lines[-1] in validations else lines[-1]["tuning"]


def fit(
    events: str | Path | pl.LazyFrame | pl.DataFrame,
    out: str | Path | None = None,
    *,
    model: str | None = None,
    preset: str = "small",
    model_config: msgspec.Struct | None = None,
    training: TrainingConfig | None = None,
    init: Run | str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Run:
    """Train `model` on the training split of `events`, stop early by its tuning split, and write the run folder `out`.

    `events` is a MEDS folder, a Parquet file or a frame; a frame is split by `ehrsim.events.split_of`. Without `out`
    the run is only returned. `model_config` and `training` take the place of those of the preset. `init` is a run to
    begin with (`ehrsim.transfer`), whose model and widths are kept; without it the model is a "vae" if not said
    otherwise. Raises `InputError` on unusable data, `UsageError` on unknown names or another model than that of `init`,
    `RunError` if there is nothing to resume.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="ehrsim-") as folder:
            return fit(
                events,
                Path(folder) / "run",
                model=model,
                preset=preset,
                model_config=model_config,
                training=training,
                init=init,
                progress=progress,
            )
    out = Path(out)
    source = runs.load(init) if isinstance(init, str | Path) else init
    preset_config = training_config(preset)
    model, of_model = _model_and_config(model, preset, model_config, source)
    config = training or preset_config
    work = out.parent / f"{out.name}.training"
    _prepare(work, out, resume=resume, overwrite=overwrite)
    progress("prepare", 0, None, "events")
    data = prepare(events, min_patients=config.min_patients, steps_per_batch=config.steps_per_batch)
    if source:
        data = data._replace(sizes=inherited(source, data.vocabulary, data.sizes))
    steps, size = data.provenance["data"]["steps"], data.sizes.vocabulary
    of_model = models.suited(of_model, steps, size, anew=source is not None)
    run_config = RunConfig(
        format_version=runs.FORMAT_VERSION,
        model=model,
        preset=preset,
        model_config=msgspec.to_builtins(of_model),
        sizes=data.sizes._asdict(),
        training=msgspec.to_builtins(config),
    )
    provenance = data.provenance | ({"init": source.identity} if source else {})
    _pin(work, run_config, provenance)
    fresh = _fresh(model, of_model, data, config.seed)
    if source:
        fresh = transferred(source, fresh, data.vocabulary)
    trained = train(model, fresh, data, config, work, progress, begun=source is not None)
    run = Run(run_config, data.vocabulary, data.scales, trained, provenance)
    runs.save(run, work / "metrics.jsonl", out, overwrite=overwrite)
    shutil.rmtree(work)
    return runs.load(out)


def _fresh(model: str, of_model: msgspec.Struct, data: Data, seed: int) -> Any:
    """A model to train, told what is counted beforehand."""
    counted = no_shift(data.sizes)._replace(
        wanted=prospects(data.train, data.sizes), first_by_static=of_statics(count(data.train, data.sizes))
    )
    fresh: Any = models.create(model, data.sizes, of_model, seed)
    return fresh.shifted(counted)


def _model_and_config(
    model: str | None, preset: str, model_config: msgspec.Struct | None, source: Run | None
) -> tuple[str, msgspec.Struct]:
    """The name and configuration of the model to train: those of the run to begin with, if there is one."""
    if source is None:
        family = models.family(model or "vae")
        return model or "vae", model_config or family.presets[preset]
    name = source.config.model
    if model not in (None, name) or model_config is not None:
        raise UsageError(f"the run to begin with is a `{name}`", hint="its model and widths are kept: name no other")
    return name, source.model_config


def _prepare(work: Path, out: Path, *, resume: bool, overwrite: bool) -> None:
    begun = any(work.rglob("checkpoint.safetensors"))
    if resume and not begun:
        raise RunError(f"nothing to resume: {work} holds no checkpoint", hint="run fit without --resume")
    if begun and not resume and not overwrite:
        raise UsageError(
            f"{work} holds an interrupted training", hint="--resume goes on with it, --overwrite begins anew"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not overwrite):
        raise UsageError(f"output {out} exists already", hint="name another --out, or pass --overwrite")
    if not resume:
        shutil.rmtree(work, ignore_errors=True)


def _pin(work: Path, config: RunConfig, provenance: dict[str, Any]) -> None:
    """Note what is being trained; refuse to resume anything else. The first thing written, once the data are good."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {work}: {error.strerror}") from error
    pinned = [msgspec.to_builtins(config), provenance["data"], provenance.get("init")]
    note = orjson.dumps(pinned, option=orjson.OPT_SORT_KEYS)
    path = work / "training.json"
    if path.is_file() and path.read_bytes() != note:
        raise RunError(f"{work} was begun with other data or settings", hint="--overwrite begins anew")
    path.write_bytes(note)


def train(
    model: str, fresh: Any, data: Data, config: TrainingConfig, work: Path, progress: Progress, *, begun: bool = False
) -> Any:
    """A `fresh` model of a family trained and raked; if it is built around an autoencoder, that first.

    The folder `work` holds metrics and a checkpoint. `begun` tells that it is usable as it is, from another run.
    """
    family = models.family(model)
    of_family = msgspec.structs.replace(config, **family.training)
    if family.part:
        inner = work / family.part
        inner.mkdir(exist_ok=True)
        part = optimise(getattr(fresh, family.part), data, config, _likelihood(data), inner, progress, usable=begun)
        setattr(fresh, family.part, part)
        fewer = (max(number // AROUND, 1) for number in (config.max_steps, config.validate_every))
        of_family = msgspec.structs.replace(of_family, **dict(zip(("max_steps", "validate_every"), fewer, strict=True)))
    score = _likelihood(data) if family.likelihood else _distance(data, config.seed)
    trained = optimise(fresh, data, of_family, score, work, progress, usable=begun or bool(family.part))
    rounds = min(of_family.raking, of_family.max_steps // 50)
    return _raked(trained, data, rounds, of_family.seed, score, work, progress) if rounds else trained


def _raked(trained: Any, data: Data, rounds: int, seed: int, score: Score, work: Path, progress: Progress) -> Any:
    """The trained model, raked, and a line of metrics about it."""
    model, found = rake(trained, data, rounds, seed, progress)
    path = work / "metrics.jsonl"
    step = orjson.loads(path.read_bytes().splitlines()[-1])["step"]
    with path.open("ab") as file:
        line = {"step": step, "tuning": score(model), "raked": True, "margins": found}
        file.write(orjson.dumps(line) + b"\n")
    return model


def _likelihood(data: Data) -> Score:
    """Negative log-likelihood in nats a visit."""
    score = likelihood.scorer(data.tuning, data.shape)
    return lambda model: score(model).loss


def _distance(data: Data, seed: int) -> Score:
    """Distance of the rates of simulated records, always drawn with the same numbers."""
    known = rates.count(data.tuning, data.sizes)
    patients = int(np.clip(2 * data.tuning.patients, *SIMULATED))

    def score(model: Any) -> float:
        drawn = sample(model, data.vocabulary, data.scales, first=0, end=patients, seed=seed)
        counted = [rates.count(table.tabulate(block, data.scales, data.sizes)[0], data.sizes) for block, _ in drawn]
        return rates.distance(known, rates.total(counted))

    return score

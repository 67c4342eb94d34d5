"""Training: events -> vocabulary, scales and batches -> steps -> a run folder.

One linear function, `fit`. While it works it keeps a folder `OUT.training` with the live metrics and a checkpoint; a
run that was interrupted goes on from there with the identical result, since batches and random keys depend only on the
seed and the step.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
import orjson
import polars as pl
from safetensors.numpy import save_file

from ehrsim import likelihood, models, rates, runs, vocabulary
from ehrsim.batch import Batch
from ehrsim.errors import InputError, RunError, UsageError
from ehrsim.outputs import atomic_file
from ehrsim.preparation import Data, prepare
from ehrsim.progress import Progress, silent
from ehrsim.runs import Run, RunConfig
from ehrsim.sampling import sample
from ehrsim.transfer import transferred
from ehrsim.visits import packing, table

AROUND = 8
"""What is built around an autoencoder is trained for the eighth part of its steps, and validated at least as often."""
SIMULATED = (500, 2_000)
"""Patients that are simulated to score a model without a likelihood, at least and at most."""


class TrainingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is trained."""

    max_steps: int = 1200
    """Optimiser steps at most; the learning rate falls along a cosine to a twentieth by then, and earlier in falls: few
    patients are learned by heart soon."""
    steps_per_batch: int = 2048
    """Visits in a batch, padding included."""
    learning_rate: float = 3e-3
    momentum: float = 0.9
    warmup: int = 60
    weight_decay: float = 1e-3
    clip: float = 1.0
    """Largest norm of a gradient."""
    average: float = 0.98
    """Decay a step of the running average of the weights, which is what is validated and kept."""
    validate_every: int = 50
    patience: int = 3
    """Validations without an improvement before the learning rate falls, and training goes on from the best weights."""
    fall: float = 0.3
    """Of the learning rate, what is left after a fall."""
    falls: int = 3
    """How often it falls; training stops when it would fall once more."""
    min_patients: int = vocabulary.DEFAULT_MIN_PATIENTS
    seed: int = 0


PRESETS: dict[str, TrainingConfig] = {
    # 2 CPU cores, records of about 15 visits x 10 codes, 300 codes: 3 minutes; 1,300 codes: 6 minutes.
    "small": TrainingConfig(),
    # 2 CPU cores: 20 to 30 minutes.
    "base": TrainingConfig(max_steps=3000, learning_rate=2e-3),
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
    """The step and tuning loss of the best validation in a metrics file."""
    lines = [orjson.loads(line) for line in metrics.read_bytes().splitlines()]
    line = min(lines, key=lambda figures: figures["tuning"])
    return line["step"], line["tuning"]


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
    of_model = models.suited(of_model, data.provenance["data"]["steps"], anew=source is not None)
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
    fresh = models.create(model, data.sizes, of_model, config.seed)
    if source:
        fresh = transferred(source, fresh, data.vocabulary)
    trained = _train_family(model, fresh, data, config, work, progress, begun=source is not None)
    run = Run(run_config, data.vocabulary, data.scales, trained, provenance)
    runs.save(run, work / "metrics.jsonl", out, overwrite=overwrite)
    shutil.rmtree(work)
    return runs.load(out)


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


class _State(NamedTuple):
    """All that changes in training."""

    model: Any
    average: Any
    optimiser: Any
    best: Any
    step: int
    best_loss: float
    stale: int
    """Validations since the last improvement, or fall of the learning rate."""
    falls: int
    lines: int
    """Lines of metrics written."""


def _train_family(
    model: str, fresh: Any, data: Data, config: TrainingConfig, work: Path, progress: Progress, *, begun: bool
) -> Any:
    """Train a model; if it is built around an autoencoder, that first, and then the rest around it.

    `begun` tells that it is usable as it is, from another run.
    """
    family = models.family(model)
    of_family = msgspec.structs.replace(config, **family.training)
    if family.part:
        inner = work / family.part
        inner.mkdir(exist_ok=True)
        part = _train(getattr(fresh, family.part), data, config, _likelihood(data), inner, progress, usable=begun)
        setattr(fresh, family.part, part)
        fewer = (max(number // AROUND, 1) for number in (config.max_steps, config.validate_every))
        of_family = msgspec.structs.replace(of_family, **dict(zip(("max_steps", "validate_every"), fewer, strict=True)))
    score = _likelihood(data) if family.likelihood else _distance(data, config.seed)
    return _train(fresh, data, of_family, score, work, progress, usable=begun or bool(family.part))


Score = Callable[[Any], float]
"""How far a model is from the tuning patients: training keeps the model with the least."""


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


_WEIGHTS = ("model", "average", "optimiser", "best")
_NUMBERS = ("step", "best_loss", "stale", "falls", "lines")


def _train(
    fresh: Any, data: Data, config: TrainingConfig, score: Score, work: Path, progress: Progress, *, usable: bool
) -> Any:
    """Optimise until the steps are used up or the tuning loss has stopped falling; returns the best model.

    That may be the `fresh` one, if it is `usable`: what is built around a trained part has to be better than that part
    alone, and what begins with another run better than that run.
    """
    optimiser, step = step_function(config)
    state = _State(fresh, fresh, jax.jit(optimiser.init)(fresh), fresh, 0, float("inf"), 0, 0, 0)
    checkpoint = work / "checkpoint.safetensors"
    resumed = checkpoint.is_file()
    state = _load(checkpoint, state) if resumed else state
    metrics = _Metrics(work / "metrics.jsonl", state.lines)
    if usable and not resumed:
        state = state._replace(best_loss=score(fresh), lines=1)
        metrics.write({"step": 0, "tuning": state.best_loss})
    for batch in _batches(data, config, state.step):
        if state.step >= config.max_steps or state.falls > config.falls:
            break
        scale, progress_so_far = config.fall**state.falls, _progress(state, config)
        model, average, moments, figures = step(*state[:3], batch, state.step, scale, progress_so_far)
        state = state._replace(model=model, average=average, optimiser=moments, step=state.step + 1)
        if state.step % config.validate_every == 0 or state.step == config.max_steps:
            loss = score(state.average)
            if not math.isfinite(loss):
                raise InputError(f"training diverged: the tuning loss is {loss} at step {state.step}")
            metrics.write({"step": state.step, "tuning": loss, **{k: float(v) for k, v in figures.items()}})
            state = _judged(state, loss, config)._replace(lines=state.lines + 1)
            _save(checkpoint, state)
        progress("train", state.step, config.max_steps, "steps")
    return state.best


def _judged(state: _State, loss: float, config: TrainingConfig) -> _State:
    """The state after a validation."""
    if loss < state.best_loss:
        return state._replace(best=state.average, best_loss=loss, stale=0)
    if state.stale + 1 < config.patience:
        return state._replace(stale=state.stale + 1)
    return state._replace(model=state.best, average=state.best, stale=0, falls=state.falls + 1)


def _progress(state: _State, config: TrainingConfig) -> float:
    """How far training has come, in [0, 1]: at its end after the last fall of the learning rate as well."""
    return 1.0 if 0 < config.falls <= state.falls else state.step / config.max_steps


def _optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    warmup = min(config.warmup, config.max_steps - 1)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, config.max_steps, config.learning_rate / 20
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(rate, b1=config.momentum, b2=0.99, weight_decay=config.weight_decay),
    )


def step_function(config: TrainingConfig) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimiser, and a step of training.

    The step takes the model, the average of its weights, the optimiser's state, a batch, the index of the step, what is
    left of the learning rate, and how far training has come; it returns the first three anew, and figures to report.
    """
    optimiser = _optimiser(config)

    @jax.jit
    def step(
        model: Any, average: Any, moments: Any, batch: Batch, index: jax.Array, scale: jax.Array, progress: jax.Array
    ) -> tuple[Any, Any, Any, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), index)

        def objective(candidate: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return candidate.loss(batch, key, progress)  # type: ignore[no-any-return]

        gradients, figures = jax.grad(objective, has_aux=True)(model)
        # Optax mixes whole and real numbers, which the strict settings of the tests refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimiser.update(gradients, moments, model)
        model = optax.apply_updates(model, jax.tree.map(lambda update: scale * update, updates))
        # The average forgets the random weights of the beginning sooner than the decay alone would.
        done = index.astype(jnp.float32)
        decay = jnp.minimum(config.average, (1 + done) / (10 + done))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, model)
        return model, average, moments, figures

    return optimiser, lambda *state: step(*state[:4], jnp.int32(state[4]), *map(jnp.float32, state[5:]))


def _batches(data: Data, config: TrainingConfig, done: int) -> Iterator[Batch]:
    """Endless batches, epoch after epoch in an order given by the seed; the first `done` are passed over."""
    epoch = index = 0
    while True:
        order = np.random.Generator(np.random.Philox(key=[config.seed, epoch])).permutation(data.train.patients)
        for batch in packing.batches(data.train, data.shape, order, config.seed * 1_000_003 + epoch):
            index += 1
            if index > done:
                yield batch
        epoch += 1


def _save(path: Path, state: _State) -> None:
    numbers = {name: np.float64(getattr(state, name)) for name in _NUMBERS}
    arrays = runs.to_arrays({name: getattr(state, name) for name in _WEIGHTS})
    with atomic_file(path) as temporary:
        save_file({**arrays, **{f"state.{name}": np.array(number) for name, number in numbers.items()}}, temporary)


def _load(path: Path, like: _State) -> _State:
    arrays = runs.read_arrays(path)
    missing = [name for name in _NUMBERS if f"state.{name}" not in arrays]
    if missing:
        raise RunError(f"{path} is no checkpoint: it has no `{missing[0]}`", hint="--overwrite begins anew")
    step, best_loss, *others = (float(arrays.pop(f"state.{name}")) for name in _NUMBERS)
    restored = runs.from_arrays({name: getattr(like, name) for name in _WEIGHTS}, arrays, path)
    counts = dict(zip(_NUMBERS[2:], map(int, others), strict=True))
    return _State(**restored, step=int(step), best_loss=best_loss, **counts)


class _Metrics:
    """The live metrics file, cut back to the checkpoint on resumption."""

    def __init__(self, path: Path, lines: int) -> None:
        kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.is_file() else []
        path.write_bytes(b"".join(kept))
        self._path = path

    def write(self, figures: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(orjson.dumps(figures) + b"\n")

"""Training: events -> vocabulary, scales and batches -> steps -> a run folder.

One linear function, `fit`. While it works it keeps a folder `OUT.training` with the live metrics and a checkpoint; a
run that was interrupted goes on from there with the identical result, since batches and random keys depend only on the
seed and the step.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
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

from ehrsim import codes, likelihood, models, runs, vocabulary
from ehrsim import events as event_table
from ehrsim.batch import Batch, Sizes
from ehrsim.errors import InputError, RunError, UsageError
from ehrsim.outputs import atomic_file
from ehrsim.progress import Progress, silent
from ehrsim.runs import Run, RunConfig
from ehrsim.visits import Sequences, encode, packing, table
from ehrsim.visits.packing import Shape
from ehrsim.visits.scales import Scales, fit_scales

DAY = 86_400


class TrainingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is trained."""

    max_steps: int = 1200
    """Optimiser steps at most; the learning rate falls along a cosine to a twentieth by then."""
    steps_per_batch: int = 2048
    """Visits in a batch, padding included."""
    learning_rate: float = 3e-3
    warmup: int = 60
    weight_decay: float = 1e-3
    clip: float = 1.0
    """Largest norm of a gradient."""
    validate_every: int = 50
    patience: int = 6
    """Validations without an improvement before training stops."""
    min_patients: int = vocabulary.DEFAULT_MIN_PATIENTS
    seed: int = 0


PRESETS: dict[str, TrainingConfig] = {
    # 2 CPU cores, records of about 15 visits x 10 codes, 300 codes: 3 minutes; 1,300 codes: 6 minutes.
    "small": TrainingConfig(),
    # 2 CPU cores: 20 to 30 minutes.
    "base": TrainingConfig(max_steps=5000, validate_every=100, learning_rate=2e-3, patience=8),
    # One data-centre GPU: under an hour; not meant for a CPU.
    "large": TrainingConfig(
        max_steps=30_000, steps_per_batch=16_384, validate_every=500, learning_rate=1e-3, patience=10
    ),
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


class Data(NamedTuple):
    """A training set as the model sees it."""

    vocabulary: vocabulary.Vocabulary
    scales: Scales
    sizes: Sizes
    train: table.Table
    tuning: table.Table
    shape: Shape
    provenance: dict[str, Any]


def fit(
    events: str | Path | pl.LazyFrame | pl.DataFrame,
    out: str | Path | None = None,
    *,
    model: str = "vae",
    preset: str = "small",
    model_config: msgspec.Struct | None = None,
    training: TrainingConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Run:
    """Train `model` on the training split of `events`, stop early by its tuning split, and write the run folder `out`.

    `events` is a MEDS folder, a Parquet file or a frame; a frame is split by `ehrsim.events.split_of`. Without `out`
    the run is only returned. `model_config` and `training` take the place of those of the preset. Raises `InputError`
    on unusable data, `UsageError` on unknown names, `RunError` if there is nothing to resume.
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
                progress=progress,
            )
    out = Path(out)
    family = models.family(model)
    preset_config = training_config(preset)
    config, of_model = training or preset_config, model_config or family.presets[preset]
    if model == "markov":
        # Tables of logits take larger and unclipped steps than a network.
        config = msgspec.structs.replace(config, learning_rate=10 * config.learning_rate, clip=100.0, weight_decay=1e-4)
    work = out.parent / f"{out.name}.training"
    _prepare(work, out, resume=resume, overwrite=overwrite)
    progress("prepare", 0, None, "events")
    data = prepare(events, config)
    run_config = RunConfig(
        format_version=runs.FORMAT_VERSION,
        model=model,
        preset=preset,
        model_config=msgspec.to_builtins(of_model),
        sizes=data.sizes._asdict(),
        training=msgspec.to_builtins(config),
    )
    _pin(work, run_config, data)
    fresh = models.create(model, data.sizes, of_model, config.seed)
    trained = _train(fresh, data, config, work, progress)
    run = Run(run_config, data.vocabulary, data.scales, trained, data.provenance)
    runs.save(run, work / "metrics.jsonl", out, overwrite=overwrite)
    shutil.rmtree(work)
    return runs.load(out)


def prepare(events: str | Path | pl.LazyFrame | pl.DataFrame, config: TrainingConfig) -> Data:
    """Vocabulary, scales and tables from the training split; the tuning split only passes through them."""
    train, tuning = _split(events)
    parents = _parents(events)
    vocab, vocabulary_report = vocabulary.fit(train, min_patients=config.min_patients, parents=parents)
    frame = train.collect()
    if frame.is_empty():
        raise InputError("the training split holds no events", hint="ehrsim import makes splits; see ehrsim inspect")
    step_seconds = _step_seconds(frame, vocab)
    sequences, encoded = encode(frame, vocab, step_seconds=step_seconds)
    held, _ = encode(tuning.collect(), vocab, step_seconds=step_seconds)
    scales = fit_scales(sequences, vocab, step_seconds)
    sizes = table.sizes(vocab, scales, table.suggest_places(sequences))
    steps, tabulated = table.tabulate(sequences, scales, sizes)
    if not steps.patients:
        raise InputError("no training patient has a visit or a known life span", hint="see ehrsim inspect")
    tuning_steps = table.tabulate(held, scales, sizes)[0] if held.patients else steps
    provenance = {
        "software": {name: version(name) for name in ("ehrsim", "jax", "flax", "optax", "numpy", "polars")},
        "data": {
            "sha256": _fingerprint(sequences, held),
            "train_patients": steps.patients,
            "tuning_patients": tuning_steps.patients if held.patients else 0,
            "steps": len(sequences.time),
            "events": len(sequences.entry),
        },
        "vocabulary": msgspec.to_builtins(vocabulary_report),
        "left_out": {**encoded.left_out, **tabulated._asdict()},
    }
    shape = packing.suggest_shape(steps, config.steps_per_batch)
    return Data(vocab, scales, sizes, steps, tuning_steps, shape, provenance)


def _split(events: str | Path | pl.LazyFrame | pl.DataFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    if isinstance(events, pl.LazyFrame | pl.DataFrame):
        frame = events.lazy()
        return tuple(event_table.only(frame, split) for split in ("train", "tuning"))  # type: ignore[return-value]
    train = event_table.read_events(events, "train")
    try:
        return train, event_table.read_events(events, "tuning")
    except InputError:
        return train, train.clear()


def _parents(events: str | Path | pl.LazyFrame | pl.DataFrame) -> dict[str, str]:
    """Parents that the data's own code table gives, beyond those that codes imply."""
    if isinstance(events, pl.LazyFrame | pl.DataFrame) or not Path(events).is_dir():
        return {}
    table = event_table.read_codes(events).filter(pl.col("parent_codes").list.len() > 0)
    rows = table.select("code", pl.col("parent_codes").list.first()).iter_rows()
    return {code: parent for code, parent in rows if not codes.parents(code)}


def _step_seconds(frame: pl.DataFrame, vocab: vocabulary.Vocabulary) -> int:
    """A day, or a finer bin where a tenth of the days hold more than 128 events (monitoring)."""
    times = frame.lazy().filter(pl.col("time").is_not_null())
    for seconds in (DAY, DAY // 4, DAY // 24):
        bin_of = pl.col("time").dt.timestamp("us").floordiv(seconds * 1_000_000)
        counts = times.group_by("subject_id", "visit_id", bin_of.alias("bin")).len()
        if (counts.select(pl.col("len").quantile(0.9)).collect().item() or 0) <= 128:
            return seconds
    return DAY // 24


def _fingerprint(*splits: Sequences) -> str:
    digest = hashlib.sha256()
    for sequences in splits:
        for column in sequences:
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _prepare(work: Path, out: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and not (work / "checkpoint.safetensors").is_file():
        raise RunError(f"nothing to resume: {work} holds no checkpoint", hint="run fit without --resume")
    if not resume and (work / "checkpoint.safetensors").is_file() and not overwrite:
        raise UsageError(
            f"{work} holds an interrupted training", hint="--resume goes on with it, --overwrite begins anew"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not overwrite):
        raise UsageError(f"output {out} exists already", hint="name another --out, or pass --overwrite")
    if not resume:
        shutil.rmtree(work, ignore_errors=True)


def _pin(work: Path, config: RunConfig, data: Data) -> None:
    """Note what is being trained; refuse to resume anything else. The first thing written, once the data are good."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {work}: {error.strerror}") from error
    note = orjson.dumps([msgspec.to_builtins(config), data.provenance["data"]], option=orjson.OPT_SORT_KEYS)
    path = work / "training.json"
    if path.is_file() and path.read_bytes() != note:
        raise RunError(f"{work} was begun with other data or settings", hint="--overwrite begins anew")
    path.write_bytes(note)


class _State(NamedTuple):
    """All that changes in training."""

    model: Any
    optimiser: Any
    best: Any
    step: int
    best_loss: float
    stale: int
    lines: int
    """Lines of metrics written."""


def _train(fresh: Any, data: Data, config: TrainingConfig, work: Path, progress: Progress) -> Any:
    """Optimise until the steps are used up or the tuning loss has stopped falling; returns the best model."""
    optimiser = _optimiser(config)
    state = _State(fresh, jax.jit(optimiser.init)(fresh), fresh, 0, float("inf"), 0, 0)
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.is_file():
        state = _load(checkpoint, state)
    metrics = _Metrics(work / "metrics.jsonl", state.lines)
    step = _step_function(optimiser, config)
    score = likelihood.scorer(data.tuning, data.shape)
    for batch in _batches(data, config, state.step):
        if state.step >= config.max_steps or state.stale >= config.patience:
            break
        model, moments, figures = step(state.model, state.optimiser, batch, state.step)
        state = state._replace(model=model, optimiser=moments, step=state.step + 1)
        if state.step % config.validate_every == 0 or state.step == config.max_steps:
            loss = score(state.model).loss
            if not math.isfinite(loss):
                raise InputError(f"training diverged: the tuning loss is {loss} at step {state.step}")
            better = loss < state.best_loss
            state = state._replace(
                best=state.model if better else state.best,
                best_loss=loss if better else state.best_loss,
                stale=0 if better else state.stale + 1,
                lines=state.lines + 1,
            )
            metrics.write({"step": state.step, "tuning": loss, **{k: float(v) for k, v in figures.items()}})
            _save(checkpoint, state)
        progress("train", state.step, config.max_steps, "steps")
    return state.best


def _optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    warmup = min(config.warmup, config.max_steps - 1)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, config.max_steps, config.learning_rate / 20
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip), optax.adamw(rate, b2=0.99, weight_decay=config.weight_decay)
    )


def _step_function(optimiser: optax.GradientTransformation, config: TrainingConfig) -> Callable[..., Any]:
    @jax.jit
    def step(model: Any, moments: Any, batch: Batch, index: jax.Array) -> tuple[Any, Any, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        progress = index.astype(jnp.float32) / config.max_steps

        def objective(candidate: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return candidate.loss(batch, key, progress)  # type: ignore[no-any-return]

        gradients, figures = jax.grad(objective, has_aux=True)(model)
        # Optax mixes whole and real numbers, which the strict settings of the tests refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimiser.update(gradients, moments, model)
        return optax.apply_updates(model, updates), moments, figures

    return lambda model, moments, batch, index: step(model, moments, batch, jnp.int32(index))


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
    numbers = {name: np.float64(getattr(state, name)) for name in ("step", "best_loss", "stale", "lines")}
    arrays = runs.to_arrays({"model": state.model, "optimiser": state.optimiser, "best": state.best})
    with atomic_file(path) as temporary:
        save_file({**arrays, **{f"state.{name}": np.array(number) for name, number in numbers.items()}}, temporary)


def _load(path: Path, like: _State) -> _State:
    arrays = runs.read_arrays(path)
    names = ("step", "best_loss", "stale", "lines")
    missing = [name for name in names if f"state.{name}" not in arrays]
    if missing:
        raise RunError(f"{path} is no checkpoint: it has no `{missing[0]}`", hint="--overwrite begins anew")
    step, best_loss, stale, lines = (float(arrays.pop(f"state.{name}")) for name in names)
    whole = {"model": like.model, "optimiser": like.optimiser, "best": like.best}
    restored = runs.from_arrays(whole, arrays, path)
    return _State(**restored, step=int(step), best_loss=best_loss, stale=int(stale), lines=int(lines))


class _Metrics:
    """The live metrics file, cut back to the checkpoint on resumption."""

    def __init__(self, path: Path, lines: int) -> None:
        kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.is_file() else []
        path.write_bytes(b"".join(kept))
        self._path = path

    def write(self, figures: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(orjson.dumps(figures) + b"\n")

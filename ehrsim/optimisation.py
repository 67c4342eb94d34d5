"""Optimisation: steps of a model on batches until it is best by a score, and its biases calibrated at the end.

Everything that changes is in one state with a checkpoint; batches and random keys depend on seed and step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
import orjson
from safetensors.numpy import save_file

from ehrsim import runs, vocabulary
from ehrsim.batch import Batch
from ehrsim.errors import InputError, RunError
from ehrsim.outputs import atomic_file
from ehrsim.preparation import Data
from ehrsim.progress import Progress
from ehrsim.visits import packing


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
    calibration: int = 200
    """Steps at the end in which biases alone learn, without dropout; at most a fifth of `max_steps`."""
    raking: int = 8
    """Rounds in which simulated records are given the margins of the real ones (`ehrsim.raking`); at most one for 50 of
    `max_steps`."""
    min_patients: int = vocabulary.DEFAULT_MIN_PATIENTS
    seed: int = 0


Score = Callable[[Any], float]
"""How far a model is from the tuning patients: training keeps the model with the least."""


class State(NamedTuple):
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


CALIBRATION_RATE = 4e-3
"""Learning rate of the biases at the end; after the warm-up of every optimiser it falls along a cosine."""

_WEIGHTS = ("model", "average", "optimiser", "best")
_NUMBERS = ("step", "best_loss", "stale", "falls", "lines")


def optimise(
    fresh: Any, data: Data, config: TrainingConfig, score: Score, work: Path, progress: Progress, *, usable: bool
) -> Any:
    """Optimise until the steps are used up or the tuning loss has stopped falling; returns the best model.

    That may be the `fresh` one, if it is `usable`: what is built around a trained part has to be better than that part
    alone, and what begins with another run better than that run.
    """
    optimiser, step = step_function(config)
    begin = jax.jit(optimiser.init)
    state = State(fresh, fresh, begin(fresh), fresh, 0, float("inf"), 0, 0, 0)
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
        pace = Pace(config.fall**state.falls, _progress(state, config))
        model, average, moments, figures = step(*state[:3], batch, state.step, pace)
        state = state._replace(model=model, average=average, optimiser=moments, step=state.step + 1)
        if state.step % config.validate_every == 0 or state.step == config.max_steps:
            loss = score(state.average)
            if not math.isfinite(loss):
                raise InputError(f"training diverged: the tuning loss is {loss} at step {state.step}")
            metrics.write({"step": state.step, "tuning": loss, **{k: float(v) for k, v in figures.items()}})
            state = _judged(state, loss, config)._replace(lines=state.lines + 1)
            _save(checkpoint, state)
        progress("train", state.step, config.max_steps, "steps")
    if not (number := min(config.calibration, config.max_steps // 5)):
        return state.best
    calibrated, figures = _calibrated(state, begin(fresh), step, _batches(data, config, state.step), number, config)
    metrics.write({"step": state.step + number, "tuning": score(calibrated), "calibrated": True, **figures})
    return calibrated


def _calibrated(
    state: State, moments: Any, step: Callable[..., Any], batches: Iterator[Batch], number: int, config: TrainingConfig
) -> tuple[Any, dict[str, float]]:
    """The best model after `number` steps of its biases alone, and the figures of the last.

    What was trained with dropout is a little off without it: events too rare or too late. Of one visit that is next to
    nothing, and the tuning loss does not show it; in simulated records it adds up from visit to visit. Few parameters,
    trained so shortly, cannot learn patients by heart.
    """
    model = average = state.best
    figures: dict[str, Any] = {}
    for index, batch in zip(range(number), batches, strict=False):
        rate = CALIBRATION_RATE * 0.5 * (1 + math.cos(math.pi * index / number))
        pace = Pace(rate / config.learning_rate, 1.0, free=0.0)
        model, average, moments, figures = step(model, average, moments, batch, state.step + index, pace)
    return average, {name: float(figure) for name, figure in figures.items()}


def _judged(state: State, loss: float, config: TrainingConfig) -> State:
    """The state after a validation."""
    if loss < state.best_loss:
        return state._replace(best=state.average, best_loss=loss, stale=0)
    if state.stale + 1 < config.patience:
        return state._replace(stale=state.stale + 1)
    return state._replace(model=state.best, average=state.best, stale=0, falls=state.falls + 1)


def _progress(state: State, config: TrainingConfig) -> float:
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


class Pace(NamedTuple):
    """How a step is taken."""

    scale: float | jax.Array
    """What is left of the learning rate."""
    progress: float | jax.Array
    """How far training has come, in [0, 1]."""
    free: float | jax.Array = 1.0
    """What is left of it for all that is no bias."""


def step_function(config: TrainingConfig) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimiser, and a step of training.

    The step takes the model, the average of its weights, the optimiser's state, a batch, the index of the step and its
    pace; it returns the first three anew, and figures to report.
    """
    optimiser = _optimiser(config)

    @jax.jit
    def step(
        model: Any, average: Any, moments: Any, batch: Batch, index: jax.Array, pace: Pace
    ) -> tuple[Any, Any, Any, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), index)

        def objective(candidate: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return candidate.loss(batch, key, pace.progress)  # type: ignore[no-any-return]

        constants = model.calibrated()

        def free(change: Any) -> Any:
            return jax.tree.map(lambda part, fixed: part if fixed else pace.free * part, change, constants)

        gradients, figures = jax.grad(objective, has_aux=True)(model)
        # Optax mixes whole and real numbers, which the strict settings of the tests refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimiser.update(free(gradients), moments, model)
        model = optax.apply_updates(model, jax.tree.map(lambda update: pace.scale * update, free(updates)))
        # The average forgets the random weights of the beginning sooner than the decay alone would.
        done = index.astype(jnp.float32)
        decay = jnp.minimum(config.average, (1 + done) / (10 + done))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, model)
        return model, average, moments, figures

    return optimiser, lambda *state: step(*state[:4], jnp.int32(state[4]), Pace(*map(jnp.float32, state[5])))


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


def _save(path: Path, state: State) -> None:
    numbers = {name: np.float64(getattr(state, name)) for name in _NUMBERS}
    arrays = runs.to_arrays({name: getattr(state, name) for name in _WEIGHTS})
    with atomic_file(path) as temporary:
        save_file({**arrays, **{f"state.{name}": np.array(number) for name, number in numbers.items()}}, temporary)


def _load(path: Path, like: State) -> State:
    arrays = runs.read_arrays(path)
    missing = [name for name in _NUMBERS if f"state.{name}" not in arrays]
    if missing:
        raise RunError(f"{path} is no checkpoint: it has no `{missing[0]}`", hint="--overwrite begins anew")
    step, best_loss, *others = (float(arrays.pop(f"state.{name}")) for name in _NUMBERS)
    restored = runs.from_arrays({name: getattr(like, name) for name in _WEIGHTS}, arrays, path)
    counts = dict(zip(_NUMBERS[2:], map(int, others), strict=True))
    return State(**restored, step=int(step), best_loss=best_loss, **counts)


class _Metrics:
    """The live metrics file, cut back to the checkpoint on resumption."""

    def __init__(self, path: Path, lines: int) -> None:
        kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.is_file() else []
        path.write_bytes(b"".join(kept))
        self._path = path

    def write(self, figures: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(orjson.dumps(figures) + b"\n")

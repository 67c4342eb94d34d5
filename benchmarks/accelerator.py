"""How fast training and generation are on the device that JAX finds, and how far from what its memory allows.

Reproduce: `python benchmarks/accelerator.py` on a machine with a GPU (3 minutes on an NVIDIA H100); `--small` for a
quick look, on a CPU as well.

The `large` sequence VAE is trained on the built-in reference population and drawn from. Beside the visits a second
stands the limit by memory bandwidth: the bandwidth is that of a large copy on the same device, and the bytes are the
fewest that must be moved. For a step of training these are all weights with their gradient, moments and average; for a
step of generation all weights and what is remembered of each patient.

Caveats: records are sequences, and each step of a recurrence waits for the one before. What is far from the limit is
bound by that, not by bytes. Training does not count validation and checkpoints; generation counts decoding to tables.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from measure import arguments, report, rounded

from ehrsim import models, training
from ehrsim.optimisation import Pace, TrainingConfig, step_function
from ehrsim.preparation import Data, prepare
from ehrsim.reference import population
from ehrsim.sampling import sample
from ehrsim.sampling.slots import Remembered
from ehrsim.visits import packing

PATIENTS, SMALL = 1_000, 60
COPIED = 1 << 28
"""Numbers in the copy that measures bandwidth, four bytes each."""
MOVED_IN_TRAINING = 12
"""Times the bytes of the weights: read by the forward and backward pass, gradients written and read, two moments and
the average read and written, weights read and written."""


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """The median time of the work until the device is done with it, the first time left out."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def bandwidth(numbers: int) -> float:
    """Bytes a second of a copy within the device, read and written."""
    source = jax.random.uniform(jax.random.key(0), (numbers,))
    copy = jax.jit(lambda array: array + 1)
    return 8 * numbers / median_seconds(lambda: copy(source), 10)


def weight_bytes(model: Any) -> int:
    """Bytes of the weights."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model))


class Work(NamedTuple):
    """What is trained, on what."""

    config: TrainingConfig
    data: Data
    model: Any


def prepared(preset: str, patients: int) -> Work:
    """A fresh model of the preset, and the reference patients it is to learn."""
    config = training.training_config(preset)
    events = population(patients, seed=1)
    data = prepare(events, min_patients=config.min_patients, steps_per_batch=config.steps_per_batch)
    of_preset = models.family("vae").presets[preset]
    of_model = models.suited(of_preset, data.provenance["data"]["steps"], data.sizes.vocabulary)
    return Work(config, data, models.create("vae", data.sizes, of_model, config.seed))


def train(work: Work, steps: int, limit: float) -> tuple[Any, dict[str, float]]:
    """The model after so many timed steps, and how long they took."""
    order = np.arange(work.data.train.patients)
    batches = list(itertools.islice(packing.batches(work.data.train, work.data.shape, order, 0), 4))
    optimiser, step = step_function(work.config)
    state = [work.model, work.model, jax.jit(optimiser.init)(work.model)]

    def advance(index: int) -> None:
        state[:] = step(*state, batches[index % len(batches)], index, Pace(1.0, 0.0))[:3]

    start = time.perf_counter()
    advance(0)
    jax.block_until_ready(state)
    begun = time.perf_counter()
    for index in range(1, steps + 1):
        advance(index)
    jax.block_until_ready(state)
    taken = (time.perf_counter() - begun) / steps
    visits = statistics.mean(float(batch.steps) for batch in batches)
    return state[0], {
        "compile_seconds": rounded(begun - start),
        "seconds_per_step": rounded(taken),
        "visits_per_step": rounded(visits),
        "visits_per_second": rounded(visits / taken),
        "times_the_bandwidth_limit": rounded(taken * limit / (MOVED_IN_TRAINING * weight_bytes(state[0]))),
    }


def generate(model: Any, data: Data, slots: int, repeats: int, limit: float) -> dict[str, float]:
    """How long a patient a slot takes to draw."""

    def draw() -> int:
        blocks = sample(model, data.vocabulary, data.scales, first=0, end=slots, seed=1, slots=slots)
        return sum(len(block.time) for block, _ in blocks)

    visits = draw()
    taken = median_seconds(draw, repeats)
    least = (weight_bytes(model) + len(Remembered._fields) * 4 * slots * data.sizes.vocabulary) / limit
    return {
        "slots": slots,
        "visits": visits,
        "patients_per_second": rounded(slots / taken),
        "visits_per_second": rounded(visits / taken),
        "times_the_bandwidth_limit": rounded(taken * slots / visits / least),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--preset", default="large", choices=["small", "base", "large"])
    parser.add_argument("--slots", type=int, default=8_192, help="patients drawn side by side")
    parser.add_argument("--steps", type=int, default=40, help="steps of training to time")
    options = parser.parse_args()
    slots, steps, patients, copied = (
        (64, 2, SMALL, COPIED >> 6) if options.small else (options.slots, options.steps, PATIENTS, COPIED)
    )
    limit = bandwidth(copied)
    work = prepared(options.preset, patients)
    trained, training_figures = train(work, steps, limit)
    report(
        "accelerator",
        device=jax.devices()[0].device_kind,
        preset=options.preset,
        parameters=weight_bytes(trained) // 4,
        bandwidth_gb_per_second=rounded(limit / 1e9),
        training=training_figures,
        generation=generate(trained, work.data, slots, options.repeats, limit),
    )


if __name__ == "__main__":
    main()

"""What do codes that come in two levels cost and gain beside one softmax over all of them, in a large vocabulary.

Reproduce: `python benchmarks/large_vocabulary.py` (about an hour on 2 cores, most of it one softmax; `--small` for a
quick look; `--emissions two-level` for that alone).

The records are synthetic: codes in three groups whose frequencies fall with their rank (Zipf), and patients each with
some chronic codes that recur at most of their visits. A sequence VAE of the widths of the preset small takes the same
steps on the same batches with either emission, each in a process of its own, so that its peak memory is its own. Then
patients are drawn from it.

Caveats: few steps tell how fast a model begins to learn, not how far it comes. Patients are drawn from a model so
trained, and seconds depend on how many visits it gives them, which is reported with them. Peak memory is that of the
process with all that it has loaded; the part before training is reported beside it.
"""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import subprocess
import sys
from argparse import Namespace
from typing import Any

import jax
import numpy as np
import polars as pl
from measure import arguments, clocks, report, rounded, timed

from ehrsim import events, likelihood, models
from ehrsim.models.vae import VAEConfig
from ehrsim.optimisation import Pace, TrainingConfig, step_function
from ehrsim.preparation import Data, prepare
from ehrsim.sampling import sample
from ehrsim.visits import packing

CODES, PATIENTS, STEPS, DRAWN = 20_000, 4_000, 30, 256
SMALL = {"codes": 500, "patients": 150, "steps": 3, "drawn": 40}
VISITS, CHRONIC, ACUTE = 9.0, 4.0, 9.0
"""Means a patient, a patient, and a visit."""
LEAST = 5
"""Times that every code is recorded, so that few are missing among the patients to train on."""
RECURS = 0.6
"""Chance that a chronic code is recorded at a visit."""
SYSTEMS = ("ICD10CM", "RxNorm", "LOINC")
DAYS = 120.0
"""Mean days from one visit to the next."""


def population(patients: int, codes: int, seed: int) -> pl.DataFrame:
    """The events of patients with so many codes among them, a third in each system."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    share = 1 / np.arange(1, codes + 1)
    upto = np.cumsum(rng.permuted(share)) / share.sum()

    def drawn(number: int) -> np.ndarray:
        return np.minimum(np.searchsorted(upto, rng.random(number)), codes - 1)

    visits = 1 + rng.poisson(VISITS - 1, patients)
    subject = np.repeat(np.arange(patients), visits)
    birth = np.datetime64("1950-01-01", "us") + rng.integers(0, 18_000, patients) * np.timedelta64(1, "D")
    gap = 1 + rng.exponential(DAYS, len(subject)).astype(np.int64)
    passed = np.cumsum(gap)
    first = np.cumsum(visits) - visits
    days = passed - np.repeat(passed[first], visits) + np.repeat(rng.integers(6_000, 8_000, patients), visits)
    time = birth[subject] + days * np.timedelta64(1, "D")
    acute = np.repeat(np.arange(len(subject)), rng.poisson(ACUTE, len(subject)))
    owner = np.repeat(np.arange(patients), rng.poisson(CHRONIC, patients))
    of_owner = drawn(len(owner))
    chronic = np.repeat(np.arange(len(owner)), visits[owner])
    begin = np.cumsum(visits[owner]) - visits[owner]
    at = first[owner][chronic] + np.arange(len(chronic)) - begin[chronic]
    recurs = rng.random(len(at)) < RECURS
    visit = np.concatenate([acute, at[recurs], rng.integers(0, len(subject), LEAST * codes)])
    code = np.concatenate([drawn(len(acute)), of_owner[chronic[recurs]], np.tile(np.arange(codes), LEAST)])
    names = np.array([f"{SYSTEMS[number % len(SYSTEMS)]}//{number}" for number in range(codes)])
    found = pl.DataFrame(
        {"subject_id": subject[visit] + 1, "time": time[visit], "code": names[code], "visit_id": visit + 1}
    ).unique()
    starts = pl.DataFrame(
        {"subject_id": subject + 1, "time": time, "code": "VISIT_START//AMB", "visit_id": np.arange(len(subject)) + 1}
    )
    births = pl.DataFrame({"subject_id": np.arange(patients) + 1, "time": birth, "code": "MEDS_BIRTH"})
    frame = pl.concat([births, starts, found], how="diagonal")
    return events.sort(events.conform(frame).lazy()).collect()


def peak() -> float:
    """Most memory that this process has had so far, in GB."""
    return rounded(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def train(data: Data, emission: str, config: TrainingConfig) -> tuple[Any, dict[str, float]]:
    """The average of the weights after so many steps, and what they took."""
    steps, size = data.provenance["data"]["steps"], data.sizes.vocabulary
    of_model = models.suited(VAEConfig(emission=emission), steps, size)
    model = models.create("vae", data.sizes, of_model, config.seed)
    order = np.random.Generator(np.random.Philox(key=config.seed)).permutation(data.train.patients)
    source = itertools.cycle(
        list(itertools.islice(packing.batches(data.train, data.shape, order, 0), config.max_steps))
    )
    optimiser, step = step_function(config)
    state = [model, model, jax.jit(optimiser.init)(model)]
    seconds, before = [], peak()
    for index, batch in zip(range(config.max_steps), source, strict=False):
        start = clocks()
        state[:] = step(*state, batch, index, Pace(1.0, index / config.max_steps))[:3]
        jax.block_until_ready(state)
        seconds.append(clocks().since(start))
    return state[1], {
        "wall_seconds_per_step": rounded(statistics.median(taken.wall for taken in seconds[1:])),
        "cpu_seconds_per_step": rounded(statistics.median(taken.cpu for taken in seconds[1:])),
        "first_step_wall_seconds": rounded(seconds[0].wall),
        "peak_gb_before": before,
        "peak_gb_training": peak(),
    }


def generate(model: Any, data: Data, patients: int, repeats: int) -> dict[str, Any]:
    """How many patients are drawn a CPU second, the first draw left out, in which JAX compiles."""

    def draw() -> tuple[int, int]:
        blocks = sample(model, data.vocabulary, data.scales, first=0, end=patients, seed=1)
        counts = [(len(block.time), len(block.entry)) for block, _ in blocks]
        return sum(visits for visits, _ in counts), sum(codes for _, codes in counts)

    (visits, codes), first = timed(draw)
    seconds = [timed(draw)[1] for _ in range(repeats)]
    return {
        "patients": patients,
        "visits": visits,
        "codes": codes,
        "patients_per_cpu_second": rounded(patients / statistics.median(taken.cpu for taken in seconds)),
        "visits_per_cpu_second": rounded(visits / statistics.median(taken.cpu for taken in seconds)),
        "first_wall_seconds": rounded(first.wall),
        "peak_gb": peak(),
    }


def measured(emission: str, options: Namespace) -> dict[str, Any]:
    """Everything of one emission."""
    frame = population(options.patients, options.codes, seed=1)
    config = TrainingConfig(
        max_steps=options.steps, steps_per_batch=options.steps_per_batch, warmup=min(10, options.steps - 1)
    )
    data, preparing = timed(lambda: prepare(frame, min_patients=1, steps_per_batch=config.steps_per_batch))
    model, figures = train(data, emission, config)
    loss, scoring = timed(lambda: likelihood.scorer(data.tuning, data.shape)(model).loss)
    return {
        "vocabulary": data.sizes.vocabulary,
        "codes_per_visit": rounded(data.provenance["data"]["events"] / data.provenance["data"]["steps"]),
        "prepare_wall_seconds": rounded(preparing.wall),
        "training": figures,
        "tuning_nats": round(loss, 3),
        "scoring_wall_seconds": rounded(scoring.wall),
        "generation": generate(model, data, options.drawn, options.repeats),
    }


def parsed() -> Namespace:
    """The arguments."""
    parser = arguments(__doc__)
    parser.add_argument("--codes", type=int, default=CODES)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    parser.add_argument("--steps-per-batch", type=int, default=TrainingConfig().steps_per_batch)
    parser.add_argument("--drawn", type=int, default=DRAWN, help="patients to draw")
    parser.add_argument("--emissions", nargs="+", default=["two-level", "ordered"])
    parser.add_argument("--only", help="measure this emission in this process")
    options = parser.parse_args()
    if options.small:
        vars(options).update(SMALL)
    return options


def main() -> None:
    options = parsed()
    if options.only:
        print(json.dumps(measured(options.only, options)))
        return
    found = {}
    for emission in options.emissions:
        command = [sys.executable, *sys.argv, "--only", emission]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[emission] = json.loads(done.stdout)
    settings = {name: getattr(options, name) for name in ("patients", "steps", "steps_per_batch")}
    report("large_vocabulary", **settings, emissions=found)


if __name__ == "__main__":
    main()

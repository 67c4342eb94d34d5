"""How many visits does training go through a second, with the small preset.

Reproduce: `python benchmarks/train.py` (about 3 minutes on 2 cores; `--small` for a quick look).

The sequence VAE is trained on the built-in reference population. Each repeat is the stretch from one validation to the
next: its optimiser steps, one pass over the tuning split, and one checkpoint, as a user's training does them. The
first stretch, in which JAX compiles, is left out, and what it took longer is reported beside.

Caveats: a visit is a step of the codec: an outpatient visit, or a day of a stay. Visits of the tuning split are not
counted. Visits a second depend on codes a visit, which are reported with it.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path

import numpy as np
from measure import Seconds, arguments, clocks, rates, report, rounded

import ehrsim
from ehrsim.evaluate.records import codes_per_visit
from ehrsim.optimisation import TrainingConfig
from ehrsim.preparation import prepare
from ehrsim.reference import population
from ehrsim.training import training_config
from ehrsim.visits import packing

PATIENTS, SMALL = 1_000, 100
STEPS, SMALL_STEPS = 50, 5
"""Optimiser steps from one validation to the next."""


def visits_per_step(events: Path, config: TrainingConfig) -> float:
    """Mean number of visits in the batches of an epoch, padding left out."""
    data = prepare(events, min_patients=config.min_patients, steps_per_batch=config.steps_per_batch)
    order = np.random.default_rng(0).permutation(data.train.patients)
    return statistics.mean(float(batch.steps) for batch in packing.batches(data.train, data.shape, order, 0))


def readings(events: Path, config: TrainingConfig) -> list[Seconds]:
    """Readings of the clocks when training begins and after each validation."""
    found = []

    def note(stage: str, done: int, total: int | None, unit: str) -> None:
        if stage == "prepare" or (stage == "train" and done % config.validate_every == 0):
            found.append(clocks())

    ehrsim.fit(events, model="vae", preset="small", training=config, progress=note)
    return found


def main() -> None:
    options = arguments(__doc__).parse_args()
    patients, steps = (SMALL, SMALL_STEPS) if options.small else (PATIENTS, STEPS)
    config = training_config(
        "small", max_steps=steps * (options.repeats + 1), validate_every=steps, patience=options.repeats + 1, raking=0
    )
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        ehrsim.write_events(population(patients, seed=1), events)
        visits = visits_per_step(events, config) * steps
        content = codes_per_visit(ehrsim.read_events(events, "train"))
        marks = readings(events, config)
    stretches = [after.since(before) for before, after in itertools.pairwise(marks)]
    first, measured = stretches[0], stretches[1:]
    report(
        "train",
        patients=patients,
        steps=steps,
        codes_per_visit=rounded(float(np.average(content["codes"], weights=content["visits"]))),
        prepare_and_compile={
            name: rounded(getattr(first, name) - statistics.median(getattr(taken, name) for taken in measured))
            for name in first._fields
        },
        **rates({"visits": rounded(visits), "steps": steps}, measured),
    )


if __name__ == "__main__":
    main()

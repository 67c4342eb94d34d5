"""What does beginning with another run gain where patients are few: held-out nats a visit, from scratch and with it.

Reproduce: `python benchmarks/transfer.py EVENTS --init RUN` with a MEDS folder that has a split held_out, and a run on
other data. Without them, a run on one reference population is tried on another; `--small` shows in some minutes
that the script works.

For each number of patients the same patients, vocabulary, scales, widths and optimiser steps are used both ways, and
each is stopped by the same tuning patients (a fifth of the number, beside it). Between numbers of patients the
vocabulary and the scales differ: compare the two figures of a row, not rows.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import polars as pl
from measure import arguments, report, rounded

import ehrsim
from ehrsim import likelihood, runs
from ehrsim.evaluate.resampling import subjects
from ehrsim.events import split_of
from ehrsim.optimisation import TrainingConfig
from ehrsim.reference import population
from ehrsim.runs import Run
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE = 4_000, 300
STEPS, SMALL_STEPS = 300, 10
LEAST_TUNING = 10


def few(events: pl.LazyFrame, patients: int) -> pl.LazyFrame:
    """The events of so many patients to train on, and a fifth as many to tune by, as `fit` splits a frame."""
    everyone = subjects(events).sample(fraction=1.0, shuffle=True, seed=1)
    split = split_of(everyone)
    tuning = max(patients // 5, LEAST_TUNING)
    chosen = pl.concat([everyone.filter(split == "train")[:patients], everyone.filter(split == "tuning")[:tuning]])
    return events.filter(pl.col("subject_id").is_in(chosen.implode())).collect().lazy()


def row(
    events: pl.LazyFrame, held_out: pl.LazyFrame, run: Run, patients: int, config: TrainingConfig
) -> dict[str, Any]:
    """Held-out nats a visit with so many patients."""
    sample = few(events, patients)
    scratch = ehrsim.fit(sample, model=run.config.model, model_config=run.model_config, training=config)
    begun = ehrsim.fit(sample, init=run, training=config)
    figures = {"scratch": likelihood.score(scratch, held_out).loss, "init": likelihood.score(begun, held_out).loss}
    return {
        "patients": begun.provenance["data"]["train_patients"],
        "codes": begun.vocabulary.size - 1,
        **{way: rounded(nats) for way, nats in figures.items()},
    }


def parsed() -> Namespace:
    """The arguments."""
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with splits")
    parser.add_argument("--init", type=Path, help="the run to begin with")
    parser.add_argument("--patients", type=int, nargs="+", default=[50, 200, 1_000], help="numbers to train on")
    parser.add_argument("--min-patients", type=int, default=5, help="patients a code must have to be learned")
    options = parser.parse_args()
    if bool(options.events) != bool(options.init):
        parser.error("give both EVENTS and --init, or neither")
    return options


def main() -> None:
    options = parsed()
    steps = SMALL_STEPS if options.small else STEPS
    config = training_config(
        "small", max_steps=steps, validate_every=max(steps // 15, 1), min_patients=options.min_patients
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events, init = options.events, options.init
        if not events:
            people = SMALL_PEOPLE if options.small else PEOPLE
            events, init = folder / "here", folder / "run"
            ehrsim.fit(population(people, seed=2).lazy(), init, training=config)
            ehrsim.write_events(population(people, seed=1), folder / "all")
            ehrsim.import_events(folder / "all", events, held_out=0.1)
        train, held_out = (ehrsim.read_events(events, split).collect().lazy() for split in ("train", "held_out"))
        numbers = options.patients[:1] if options.small else options.patients
        rows = [row(train, held_out, runs.load(init), number, config) for number in numbers]
    report("transfer", data=options.events.name if options.events else "reference", steps=steps, rows=rows)


if __name__ == "__main__":
    main()

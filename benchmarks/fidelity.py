"""How like the real patients the simulated ones are, beside how like each other two samples of real patients are.

Reproduce: `python benchmarks/fidelity.py EVENTS` with a MEDS folder that has the splits train, tuning and held_out
(`ehrsim import SOURCE --out EVENTS --held-out 0.1`); without one, the built-in reference population. `--small` shows in
minutes that the script works.

A model is trained on the training split and stopped by the tuning split. As many patients are simulated as are trained
on, or `--patients`. Both, the training patients (the floor: another real sample) and the simulated ones, are compared
with the held-out patients, which no part of the model has seen. A ratio of 1 is the limit of what can be told apart.

Given are, for codes, pairs within a visit and pairs of consecutive visits, by visit and by patient: total variation
distance and R squared on the line of identity; for numbers of a record, the Wasserstein distance in units of the
interquartile range of the held-out patients.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measure import arguments, report, rounded, timed
from scipy import stats

import ehrsim
from ehrsim.evaluate.patterns import Patterns, aligned, patterns, total_variation, vocabulary
from ehrsim.evaluate.prevalence import r_squared
from ehrsim.evaluate.records import records, visit_codes
from ehrsim.reference import population
from ehrsim.sampling import generate_to
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE, SMALL_STEPS = 3_000, 300, 40


def some(events: pl.LazyFrame, patients: int) -> pl.LazyFrame:
    """The events of at most so many patients, chosen by a fixed draw."""
    subjects = events.select(pl.col("subject_id").unique().sort()).collect()["subject_id"]
    chosen = subjects.sample(min(patients, len(subjects)), seed=1)
    return events.filter(pl.col("subject_id").is_in(chosen.implode()))


def compare_patterns(held_out: pl.LazyFrame, real: pl.LazyFrame, simulated: pl.LazyFrame) -> dict[str, Any]:
    """Distances of two cohorts to the held-out one, by kind of pattern."""
    codes = vocabulary(held_out, real, simulated)
    truth, another, model = (patterns(events, codes) for events in (held_out, real, simulated))
    figures = {}
    for kind in Patterns._fields:
        floor, found = (aligned(getattr(truth, kind), getattr(cohort, kind)) for cohort in (another, model))
        distance, least = total_variation(*found), total_variation(*floor)
        figures[kind] = {
            "tvd": rounded(distance),
            "tvd_floor": rounded(least),
            "tvd_ratio": rounded(distance / least) if least else None,
            "r2": r_squared(*found),
            "r2_floor": r_squared(*floor),
        }
    return figures


def numbers(events: pl.LazyFrame) -> dict[str, np.ndarray]:
    """Numbers of the records of a cohort: visits a patient, codes a visit, days between visits, age at the end."""
    visit = ("subject_id", "start", "visit_id", "day")
    visits = visit_codes(events).group_by(visit).len("codes").sort(visit).collect()
    gap = visits["start"].diff().dt.total_days().filter(visits["subject_id"] == visits["subject_id"].shift(1))
    patients = records(events)
    counted = patients.select("subject_id").join(visits.group_by("subject_id").len("visits"), "subject_id", how="left")
    return {
        "visits_per_patient": counted["visits"].fill_null(0).to_numpy(),
        "codes_per_visit": visits["codes"].to_numpy(),
        "gap_days": np.log1p(gap.to_numpy()),
        "age_at_end": patients["age"].drop_nulls().to_numpy(),
    }


def compare_numbers(held_out: pl.LazyFrame, real: pl.LazyFrame, simulated: pl.LazyFrame) -> dict[str, Any]:
    """Wasserstein distances of two cohorts to the held-out one."""
    truth, another, model = (numbers(events) for events in (held_out, real, simulated))
    figures = {}
    for name, values in truth.items():
        if not len(values):
            continue
        scale = float(np.subtract(*np.quantile(values, [0.75, 0.25]))) or 1.0
        floor, found = (stats.wasserstein_distance(values, cohort[name]) / scale for cohort in (another, model))
        figures[name] = {
            "means": [rounded(float(cohort[name].mean())) for cohort in (truth, another, model)],
            "wasserstein": rounded(found),
            "wasserstein_floor": rounded(floor),
            "ratio": rounded(found / floor) if floor else None,
        }
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with splits")
    parser.add_argument("--model", choices=["vae", "markov"], default="vae")
    parser.add_argument("--preset", choices=["small", "base", "large"], default="base")
    parser.add_argument("--max-steps", type=int, help="stop training after so many steps")
    parser.add_argument("--patients", type=int, default=10_000, help="at most so many simulated and training patients")
    parser.add_argument("--run", type=Path, help="a run folder: of a model already trained, or to be written")
    options = parser.parse_args()
    steps = SMALL_STEPS if options.small else options.max_steps
    config = training_config(options.preset, **({"max_steps": steps} if steps else {}))
    with tempfile.TemporaryDirectory() as folder:
        events = options.events or Path(folder) / "events"
        if not options.events:
            ehrsim.write_events(population(SMALL_PEOPLE if options.small else PEOPLE, seed=1), Path(folder) / "all")
            ehrsim.import_events(Path(folder) / "all", events, held_out=0.1)
        run, out = options.run or Path(folder) / "run", Path(folder) / "cohort"
        seconds = None
        if not run.exists():
            _, seconds = timed(
                lambda: ehrsim.fit(events, run, model=options.model, preset=options.preset, training=config)
            )
        real = some(ehrsim.read_events(events, "train"), options.patients)
        size = real.select(pl.col("subject_id").n_unique()).collect().item()
        generate_to(run, out, size, seed=7)
        cohorts = (ehrsim.read_events(events, "held_out"), real, ehrsim.read_events(out))
        report(
            "fidelity",
            data=options.events.name if options.events else "reference",
            model=options.model,
            preset=options.preset,
            patients=[frame.select(pl.col("subject_id").n_unique()).collect().item() for frame in cohorts],
            fit_seconds=seconds and {name: rounded(value) for name, value in seconds._asdict().items()},
            patterns=compare_patterns(*cohorts),
            numbers=compare_numbers(*cohorts),
        )


if __name__ == "__main__":
    main()
